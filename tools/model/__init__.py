"""The life of a reply as a program. All that can happen to it is explored, breadth first.

    rules ◄─ database ◄─ processes, people, faults ◄─ explore ─► promises
      └─► table, which docs/streams.md has

The rules are the table of a reply's states: who may change it, and under which condition. A
database applies them. Processes, people and faults take turns in every order that there is. In each
state the promises are checked.
"""
