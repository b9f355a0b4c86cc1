"""What can happen to a database and to the processes that use it: each is a context, and lasts as
long.
"""

import contextlib
import glob
import os
import pathlib
import random
import signal
import time
import uuid

import psycopg

from client import wait_until
from raw_tables import tables_of


def pids_of(server):
    return [server.pid, *server.workers()]


def send_all(pids, signal_number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)


@contextlib.contextmanager
def stopped(pids, path=None):
    """Pause these processes, like those of a paused container; none of them is writing to this
    SQLite file."""
    try:
        stop(pids)
        while path and may_write(path) & set(pids):
            send_all(pids, signal.SIGCONT)
            time.sleep(0.01)
            stop(pids)
        yield
    finally:
        send_all(pids, signal.SIGCONT)


@contextlib.contextmanager
def service_stopped(server, path=None):
    """Pause all processes of this server, as when a laptop is shut; none of them is writing to this
    SQLite file."""
    with stopped(pids_of(server), path):
        try:
            yield
        finally:
            resume(server)


def resume(server):
    """Let them continue: the workers first, since a master that wakes up before would kill them for
    their silence."""
    signs = signs_of_life(server)
    send_all(server.workers(), signal.SIGCONT)
    try:
        wait_until(lambda: not signs.items() & signs_of_life(server).items(), 10)
    finally:
        send_all(pids_of(server), signal.SIGCONT)


def stop(pids):
    """Pause these; returns when each of their threads is stopped."""
    send_all(pids, signal.SIGSTOP)
    wait_until(lambda: all(map(stands_still, pids)), 10)


def stands_still(pid):
    states = set()
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            states.add(path.read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "Z"}


def threads_of(server):
    """How many threads its workers have in all."""
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in server.workers())


@contextlib.contextmanager
def stopped_while_writing(server, path):
    """Pause all processes of this server while one of them is in the middle of writing to this
    SQLite file.

    The caller must keep it writing.
    """
    pids = pids_of(server)
    try:
        stop(pids)
        until = time.monotonic() + 60
        while not may_write(path) & set(pids):
            assert time.monotonic() < until, "it was never stopped while it wrote"
            send_all(pids, signal.SIGCONT)
            time.sleep(random.uniform(0, 0.02))  # let it write for a moment
            stop(pids)
        yield
    finally:
        resume(server)


def signs_of_life(server):
    """When each worker last showed that it is alive, by the file that gunicorn's master looks at:
    (process, file) → time."""
    files = [path for pid in server.workers() for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    signs = {}
    for path in files:
        with contextlib.suppress(OSError):  # it is closed by now
            if "/wgunicorn-" in os.readlink(path):
                signs[path] = path.stat().st_mtime
    return signs


def may_write(path):
    """The processes that have the lock by which SQLite has one writer at a time."""
    pids = set()
    memory = inode_of(f"{path}-shm")
    for line in pathlib.Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" in fields or "WRITE" not in fields:  # the first is a process that waits
            continue
        pid, place, first = fields[4:7]
        if (
            int(place.rpartition(":")[2]) == memory and first == "120"
        ):  # the byte of the writer, in WAL mode
            pids.add(int(pid))
    return pids


def inode_of(path):
    return os.stat(path).st_ino if os.path.exists(path) else -1


@contextlib.contextmanager
def full(folder):
    """Fill the file system of this folder."""
    path = folder / "ballast"
    try:
        with open(path, "wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while ballast.write(b"x" * size):
                        pass
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def read_only(url):
    """This PostgreSQL database takes no writes; open connections have to be replaced."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(server + "/postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@contextlib.contextmanager
def away(cluster):
    """This PostgreSQL is away: it was stopped at once, and recovers when it is started."""
    cluster.stop(immediate=True)
    try:
        yield
    finally:
        cluster.start(60)


@contextlib.contextmanager
def hanging(cluster):
    """This PostgreSQL takes connections and says nothing, as if its disk hung: all its processes
    are paused."""
    try:
        stop(cluster.pids()[:1])  # from now on, it starts no more of them
        stop(cluster.pids())
        yield
    finally:
        send_all(reversed(cluster.pids()), signal.SIGCONT)


@contextlib.contextmanager
def locked(url, table="turn", mode="ACCESS EXCLUSIVE"):
    """A transaction that does not end locks what all replies need: SQLite's writer, or a table of
    PostgreSQL. Yields its tables. In the mode EXCLUSIVE, others can read (in SQLite's journal, they
    always can)."""
    with tables_of(url) as tables:
        tables.rows("BEGIN EXCLUSIVE" if tables.is_sqlite else "BEGIN")
        try:
            if not tables.is_sqlite:
                tables.rows(f"LOCK TABLE {table} IN {mode} MODE")
            yield tables
        finally:
            tables.rows("ROLLBACK")


class Clock:
    """The clock of a server that is started with these settings: the true time, moved by so many
    seconds."""

    def __init__(self, folder):
        self.path = folder / "clock"
        self.step(0)
        self.settings = {
            "LD_PRELOAD": find_libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": self.path,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "DONT_FAKE_MONOTONIC": 1,  # the name in the library's first releases
        }

    def step(self, seconds):
        new = self.path.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        os.replace(new, self.path)  # so that a reader never finds half of it

    @contextlib.contextmanager
    def moved(self, seconds):
        self.step(seconds)
        try:
            yield
        finally:
            self.step(0)


def find_libfaketime():
    """The path of the library, or None if it is not installed."""
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


def copy_as_dead(url, session, count):
    """As if so many replies had been in progress in a fleet that is gone: copies of this session,
    by SQL. Returns their ids."""
    ids = [uuid.uuid4() for _ in range(count)]
    with tables_of(url) as tables:
        stored = [each.hex if tables.is_sqlite else each for each in ids]
        original = uuid.UUID(session["id"])
        for table, key in (("session", "id"), ("turn", "session_id")):
            cursor = tables.connection.execute(
                f"SELECT * FROM {table} WHERE {key} = '{original.hex if tables.is_sqlite else original}' ORDER BY id"
            )
            columns = [column[0] for column in cursor.description]
            rows, copies = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()], []
            for number, new in enumerate(stored):
                for place, row in enumerate(rows):
                    copy = row | {key: new}
                    if table == "turn":
                        copy["id"] = rows[-1]["id"] + 1 + number * len(rows) + place
                        if row["kind"] == "assistant":
                            dead = {
                                "status": "in_progress",
                                "content": "",
                                "fence": copy["id"],
                                "lease_until": 1_000_000,
                            }
                            copy |= {name: value for name, value in dead.items() if name in row}
                    copies.append([copy[name] for name in columns])
            tables.fill(table, columns, copies)
    return ids
