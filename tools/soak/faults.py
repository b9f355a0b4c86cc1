"""What befalls a service in a soak: one fault a minute. Each is a context within which it is so."""

import contextlib
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import requests

import trouble
from askers import lasting_token
from client import Client, wait_until
from servers import listens_to_signals
from service import CLOCK, DISK, NEEDS, POSTGRESQL, SQLITE
from talker import new_mark

MINUTE = 60  # seconds from one fault to the next
SHORTEST, LONG = 3, 25  # seconds that a fault lasts: at least, and at most
STILL = 20  # at most where one worker stands still
BACK = 15  # seconds behind a fault, within which all is well again
STEPS = 60, -60, 3600, -3600  # seconds, of the clock
TABLES = "session", "turn", "piece", "usage", "key"
CHECKER = "https://github.com/checker"
KILLED = "worker-killed"


class Fault(NamedTuple):
    sentence: str
    most: int  # seconds that it lasts at most
    begin: Callable  # (service, chance) → its context
    needs: tuple = ()  # of NEEDS

    def lacks(self, engine):
        """What is missing for it on this engine, or None."""
        others = [each for each in (SQLITE, POSTGRESQL) if each in self.needs and each != engine]
        return f"it befalls {others[0]}" if others else self.lacks_here()

    def lacks_here(self):
        """What is missing for it on this machine, or None."""
        return next(filter(None, (NEEDS[need]() for need in self.needs)), None)


def worker_stands(service, chance):
    pids = [chance.choice(service.server.workers())]
    return noted(service, trouble.stopped(pids, chance.choice([None, service.path])), False)


def service_stands(service, chance):
    path = chance.choice([None, service.path])
    return noted(service, trouble.service_stopped(service.server, path), True)


@contextlib.contextmanager
def noted(service, context, is_whole):
    """Note when it began, when all stood still, and when it was over."""
    pause = [time.monotonic(), float("inf"), float("inf"), is_whole]
    service.notes.pauses.append(pause)
    with context:
        pause[1] = time.monotonic()
        yield
    pause[2] = time.monotonic()


@contextlib.contextmanager
def worker_killed(service, chance):
    """Behind it, there is another in its place."""
    server, pid = service.server, chance.choice(service.server.workers())
    service.notes.kills.append(time.monotonic())
    os.kill(pid, 9)
    yield

    def is_replaced():
        workers = server.workers()
        is_full = pid not in workers and len(workers) == server.count
        return is_full and all(map(listens_to_signals, workers))

    wait_until(is_replaced)


FAULTS = {
    "worker-stands": Fault(
        "A worker stands still, sometimes in the middle of what it writes.", STILL, worker_stands
    ),
    "service-stands": Fault(
        "All processes of the service stand still, as when a laptop is shut.", LONG, service_stands
    ),
    KILLED: Fault("A worker is killed.", SHORTEST, worker_killed),
    "clock": Fault(
        "The clock is stepped, by a minute or an hour, forward or back.",
        LONG,
        lambda service, chance: service.clock.moved(chance.choice(STEPS)),
        (CLOCK,),
    ),
    "away": Fault(
        "PostgreSQL is away: it ends at once, and recovers.",
        LONG,
        lambda service, chance: trouble.away(service.cluster),
        (POSTGRESQL,),
    ),
    "read-only": Fault(
        "PostgreSQL takes no writes.",
        LONG,
        lambda service, chance: trouble.read_only(service.url),
        (POSTGRESQL,),
    ),
    "hangs": Fault(
        "PostgreSQL takes connections, and says nothing.",
        LONG,
        lambda service, chance: trouble.hanging(service.cluster),
        (POSTGRESQL,),
    ),
    "table-locked": Fault(
        "Somebody locks a table of PostgreSQL.",
        LONG,
        lambda service, chance: trouble.locked(service.url, chance.choice(TABLES)),
        (POSTGRESQL,),
    ),
    "file-locked": Fault(
        "Somebody writes to the SQLite file, and does not end.",
        LONG,
        lambda service, chance: trouble.locked(service.url),
        (SQLITE,),
    ),
    "disk-full": Fault(
        "The disk of the SQLite file is full.",
        LONG,
        lambda service, chance: trouble.full(service.disk),
        (SQLITE, DISK),
    ),
}


def at_hand(engine):
    """The faults that can be had here, on this engine."""
    return {name: fault for name, fault in FAULTS.items() if not fault.lacks(engine)}


def befall(service, faults, seconds, chance):
    """One of these a minute, none a second time before all were there."""
    left, began = [], time.monotonic()
    for minute in range(max(1, round(seconds / MINUTE)) if faults else 0):
        left = left or chance.sample(sorted(faults), len(faults))
        name = left.pop()
        pause = chance.uniform(2, MINUTE - LONG - BACK - 5)
        lasting = chance.uniform(SHORTEST, faults[name].most)
        wait_for(service, began + minute * MINUTE + pause)
        tell(service, f"{name}, for {lasting:.0f} s")
        workers = service.server.workers()
        with faults[name].begin(service, chance):
            time.sleep(lasting)
        wait_until_well(service, name, chance)
        if name != KILLED and service.server.workers() != workers:
            service.notes.problems.append(f"{name}: it cost a worker")


def wait_for(service, when):
    """Wait until then, and forget what the provider is asked: an hour of it would fill the memory."""
    while (left := when - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        service.provider.requests.clear()


def tell(service, what):
    done = f"{service.notes.since(time.monotonic())}: {what}"
    service.notes.done.append(done)
    print(f"{service.engine}, {done}", flush=True)


def wait_until_well(service, name, chance):
    """Behind a fault /health is 200, and a session is created, within seconds."""
    client, told = Client(service.server.url, lasting_token(CHECKER)), []
    deadline = time.monotonic() + BACK
    while time.monotonic() < deadline:
        body = {"content": f"{new_mark(chance)} Are you well?"}
        with contextlib.suppress(requests.RequestException):
            health = client.get("/health", timeout=BACK)
            made = client.post("/sessions", body, timeout=BACK)
            told = [health.status_code, made.status_code]
            # That the model failed is an answer.
            if told[0] == 200 and (told[1] != 503 or "Location" in made.headers):
                return
        time.sleep(0.3)
    service.notes.problems.append(f"{name}: {BACK} s later, /health and a creation are {told}")
