"""The code itself, without threads and without waiting, under a seed that decides what comes next.

    chance ◄─ machine ◄─ standing_in: time, threads, chance and the numbers of processes
                 ▲
    databases ─ scripted ─ servers ◄─ clients, readers, people, fate ◄─ world
                                                             └─► stories: many seeds, or one told

Several simulated processes run in one: each has its own registry, keeper and connections, on a real
database. Each thread of the product is a task, which runs until it waits or calls the database.
There the seed decides whether another task is next, and what happens: a process dies or is paused,
the database is away, a commit succeeds and its answer is lost. Time is a number, which moves when
all wait.
"""
