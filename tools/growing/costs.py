"""What one reply, one check and one poll cost while others are in progress: on one process, and on
ten.
"""

import multiprocessing
import tempfile
import time
from statistics import median

from cluster import new_cluster
from database import db, limit_time
from models import Turn
from replies.rescuer import CHECK_INTERVAL
from service import ELSEWHERE, PER_USER, Service

PROCESSES, REPLIES = (1, 10), (10, 100, 1000)
TIMES = 30  # repetitions of each
WORDS = 20  # of each reply
PATIENCE = 60  # seconds for one row


def measure_costs():
    """(engine, processes, replies in progress in all of them, milliseconds of a reply, of a look
    and of a poll)."""
    with tempfile.TemporaryDirectory() as folder, new_cluster(max_connections=100) as cluster:
        for processes in PROCESSES:
            for replies in REPLIES:
                name = f"parley_{processes}_{replies}"
                cluster.ask(f"CREATE DATABASE {name}")
                for engine, url in (
                    ("SQLite", f"sqlite:///{folder}/{name}.db"),
                    ("PostgreSQL", cluster.url(name)),
                ):
                    yield engine, processes, replies, *measure(url, processes, replies)


def measure(url, processes, replies):
    """The times of the first of these processes, while each has its part of the replies."""
    context = multiprocessing.get_context("spawn")
    stand, over = context.Barrier(processes), context.Event()
    results = context.Queue()
    numbers = range(processes)
    started = [
        context.Process(
            target=stand_by, args=(url, number, replies // processes, stand, over, results)
        )
        for number in numbers
    ]
    for process in started:
        process.start()
        process.join(0.1)  # a single process makes the tables
    try:
        return results.get(timeout=PATIENCE)
    finally:
        over.set()
        for process in started:
            process.join()


def stand_by(url, number, each, stand, over, results):
    """One process with replies in progress. The first one measures, while the others do nothing."""
    service = Service(url, processes=1, each=each, length=WORDS, pace=20, slower=1)
    (process,) = service.processes
    limit_time(PATIENCE)
    with db.connection_context():
        first = number * each
        process.ask_at_once(f"user-{place // PER_USER}" for place in range(first, first + each))
        stand.wait()
        if number == 0:
            time.sleep(CHECK_INTERVAL)  # until then, no lease is renewed
            results.put(costs(process, each))
    over.wait()


def costs(process, each):
    follow_others(process, int(ELSEWHERE * each) or 1)
    names = (f"another-{number}" for number in range(TIMES))
    steps = (lambda: answer(process, next(names)), process.keeper.check, process.keeper.poll)
    return [milliseconds(step) for step in steps]


def follow_others(process, count):
    """Follow so many replies that other processes write."""
    ours = [reply.id for reply in process.texts]
    others = Turn.select(Turn.id).where(Turn.is_in_progress(), Turn.id.not_in(ours)).limit(count)
    for turn in list(others):
        process.follow(Turn.read(turn.id), watched=True)


def answer(process, owner):
    """One reply from its claim to its end, by two commits."""
    reply = process.ask(owner, None)
    reply.receive(process.texts[reply][1])
    process.finish([reply])


def milliseconds(step):
    """The median time of a step, while nothing else runs."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000
