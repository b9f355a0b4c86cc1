"""The faults of a service in a soak: one a minute. Each is a context, and lasts as long."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import requests

import trouble
from askers import recorded
from database_faults import connections_cut, promoted, refusing
from needs import CLOCK, DISK, NEEDS, POSTGRESQL, SQLITE, STANDBY, STRACE
from process_faults import (
    deployed,
    host_killed,
    host_stands,
    host_stopped,
    reloaded,
    worker_killed,
    worker_stands,
)
from stalls import disk_stalls
from talker import new_mark

MINUTE = 60  # seconds from one fault to the next
SHORTEST, LONG = 3, 25  # seconds that a fault lasts: at least, and at most
STILL = 20  # at most, while one worker is stopped
AWAY = 15  # at most, while a host is stopped
BACK = 15  # seconds after a fault, within which all is well again
STEPS = 60, -60, 3600, -3600  # seconds, of the clock
TABLES = "session", "turn", "piece", "usage", "key"
CHECKER = "https://github.com/checker"


class Fault(NamedTuple):
    sentence: str
    most: int  # seconds that it lasts at most
    begin: Callable  # (service, chance) → its context
    needs: tuple = ()  # of NEEDS
    replaces: bool = False  # whether other workers have replaced the old ones after it

    def lacks(self, engine):
        """What is missing for it on this engine, or None."""
        others = [each for each in (SQLITE, POSTGRESQL) if each in self.needs and each != engine]
        return f"it befalls {others[0]}" if others else self.lacks_here()

    def lacks_here(self):
        """What is missing for it on this machine, or None."""
        return next(filter(None, (NEEDS[need]() for need in self.needs)), None)


FAULTS = {
    "worker-stands": Fault(
        "A worker stands still, sometimes in the middle of what it writes.", STILL, worker_stands
    ),
    "host-stands": Fault(
        "All processes of a host stand still, as when a laptop is shut.", LONG, host_stands
    ),
    "worker-killed": Fault("A worker is killed.", SHORTEST, worker_killed, replaces=True),
    "host-killed": Fault(
        "All processes of a host are killed, and it is started again.",
        AWAY,
        host_killed,
        replaces=True,
    ),
    "host-stopped": Fault(
        "A host is told to stop, and started again.", AWAY, host_stopped, replaces=True
    ),
    "deployed": Fault(
        "Each host is replaced, one after the other.", SHORTEST, deployed, replaces=True
    ),
    "reloaded": Fault(
        "gunicorn gets SIGHUP, and has new workers.", SHORTEST, reloaded, replaces=True
    ),
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
        lambda service, chance: trouble.read_only(service.cluster.url()),
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
    "promoted": Fault(
        "PostgreSQL is killed, and its synchronous standby promoted.",
        LONG,
        promoted,
        (POSTGRESQL, STANDBY),
    ),
    "refused": Fault(
        "PostgreSQL refuses transactions for each other's sake (40001, 40P01).",
        LONG,
        refusing,
        (POSTGRESQL,),
    ),
    "connections-cut": Fault(
        "All connections to PostgreSQL end at once, several times.",
        LONG,
        connections_cut,
        (POSTGRESQL,),
    ),
    "disk-stalls": Fault(
        "The disk takes up to seconds to confirm what is written.", LONG, disk_stalls, (STRACE,)
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
    """One of these a minute; none comes again before all have been used."""
    left, began = [], time.monotonic()
    for minute in range(max(1, round(seconds / MINUTE)) if faults else 0):
        left = left or chance.sample(sorted(faults), len(faults))
        name = left.pop()
        pause = chance.uniform(2, MINUTE - LONG - BACK - 5)
        lasting = chance.uniform(SHORTEST, faults[name].most)
        wait_for(service, began + minute * MINUTE + pause)
        tell(service, f"{name}, for {lasting:.0f} s")
        workers = service.workers()
        with service.notes.history.fault(name), faults[name].begin(service, chance):
            time.sleep(lasting)
        wait_until_well(service, name, chance)
        if not faults[name].replaces and service.workers() != workers:
            service.notes.problems.append(f"{name}: it cost a worker")


def wait_for(service, when):
    """Wait until then, and drop what the provider was asked: an hour of it would fill the memory."""
    while (left := when - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        service.provider.requests.clear()


def tell(service, what):
    done = f"{service.notes.since(time.monotonic())}: {what}"
    service.notes.done.append(done)
    print(f"{service.engine}, {done}", flush=True)


def wait_until_well(service, name, chance):
    """After a fault each host is well within seconds."""
    deadline = time.monotonic() + BACK
    for url in service.urls:
        if told := wait_for_host(recorded(url, CHECKER, service.notes), deadline, chance):
            problem = f"{name}: {BACK} s later, /health and a creation are {told} at {url}"
            service.notes.problems.append(problem)


def wait_for_host(client, deadline, chance):
    """Wait until its /health is 200, and a session can be created there; returns its last answer if
    that does not happen in time."""
    told = ["nothing"]
    while time.monotonic() < deadline:
        body = {"content": f"{new_mark(chance)} Are you well?"}
        with contextlib.suppress(requests.RequestException):
            health = client.get("/health", timeout=BACK)
            made = client.post("/sessions", body, timeout=BACK)
            told = [health.status_code, made.status_code]
            # That the model failed is an answer.
            if told[0] == 200 and (told[1] != 503 or "Location" in made.headers):
                return None
        time.sleep(0.3)
    return told
