"""The limits of one process, and of several on one SQLite file: real processes and streams, and
what the file itself takes.
"""

import contextlib
import json
import multiprocessing
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmark"))

from client import make_token
from database import db, limit_time
from measured import HERE, Parley, Stub
from service import LETTERS, Service

PROCESSES, REPLIES = (1, 2), (100, 200, 300)
WORDS = 160  # of each stream, 20 a second
WRITERS = (1, 2, 4)
TOGETHER = 28  # words that a keeper of a hundred such replies has for each commit


def measure_processes():
    """(processes, replies, words a second, lag of a word: median and 95th percentile, cores that
    Parley took) of streams."""
    with tempfile.TemporaryDirectory() as folder, Stub(pathlib.Path(folder)) as stub:
        for count in PROCESSES:
            url = f"sqlite:///{folder}/{count}.db"
            with Parley(pathlib.Path(folder), stub, url, WEB_CONCURRENCY=str(count)) as parley:
                for replies in REPLIES:
                    before, began = parley.processor_seconds(), time.monotonic()
                    lags = follow(parley, replies)
                    cores = (parley.processor_seconds() - before) / (time.monotonic() - began)
                    yield (
                        count,
                        replies,
                        replies * 20,
                        median(lags),
                        quantiles(lags, n=20)[-1],
                        cores,
                    )


def follow(server, count):
    """The lags of the words of so many streams, of several users, since one user cannot have all
    streams of a process."""
    users = [f"https://github.com/reader-{number}" for number in range(4)]
    options = str(count // len(users)), str(WORDS)
    commands = [
        [sys.executable, HERE / "followers.py", str(server.port), make_token(user), *options]
        for user in users
    ]
    with contextlib.ExitStack() as stack:
        followers = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            for command in commands
        ]
        return [
            lag
            for follower in followers
            for lag in json.loads(follower.communicate(timeout=120)[0])
        ]


def measure_file(seconds):
    """(writers, commits a second, words a second) of keepers that store words of their hundred
    replies all the time."""
    with tempfile.TemporaryDirectory() as folder:
        for count in WRITERS:
            with multiprocessing.get_context("spawn").Pool(count) as pool:
                commits = sum(
                    pool.starmap(write, [(f"sqlite:///{folder}/{count}.db", seconds)] * count)
                )
            yield count, commits / seconds, commits * TOGETHER / seconds


def write(url, seconds):
    """How many commits one keeper makes."""
    service = Service(url, processes=1, each=100, length=20_000, pace=20, slower=1)
    (process,) = service.processes
    limit_time(60 + seconds)
    with db.connection_context():
        process.ask_at_once(f"user-{number}" for number in range(service.each))
        count, over = 0, time.monotonic() + seconds
        while time.monotonic() < over:
            some = random.sample(list(process.texts), TOGETHER)
            for reply in some:
                reply.receive(process.texts[reply][1][len(reply.text) :][:LETTERS])
            process.keeper.store(some)
            count += 1
    return count
