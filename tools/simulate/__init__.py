"""The code itself, without threads and without waiting, under a seed that decides what comes next.

    chance ◄─ machine ◄─ standing_in: time, threads, chance and the numbers of processes
                 ▲
    databases ─ scripted ─ servers ◄─ clients, readers, people, fate ◄─ world
                                                             └─► stories: many seeds, or one told

Several processes stand in one: each has its own registry, keeper and connections, on a real database.
Each thread of the product is a task, which goes on until it waits or comes to the database. There the
seed says whether another task is next, and what befalls: a process dies or stands still, the database
is away, a commit comes through and its answer does not. Time is a number, which moves when all wait.
"""
