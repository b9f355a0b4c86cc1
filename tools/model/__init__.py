"""The life of a reply as a program: what may befall it is explored to its end, breadth first.

    rules ◄─ database ◄─ processes, people, faults ◄─ explore ─► promises
      └─► table, which docs/streams.md has

The rules are the table of a reply's states: who may move it, and under which condition. A database
applies them; processes, people and faults take turns in every order that there is. In each state
the promises are looked at.
"""
