"""What may happen to a database and to the processes that use it: each is a context, within which it is so."""

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
    """These processes stand still, as those of a container that is paused; none of them is writing to this SQLite file."""
    try:
        send_all(pids, signal.SIGSTOP)
        while path and may_write(path) & set(pids):
            send_all(pids, signal.SIGCONT)
            time.sleep(0.01)
            send_all(pids, signal.SIGSTOP)
        yield
    finally:
        send_all(pids, signal.SIGCONT)


@contextlib.contextmanager
def service_stopped(server, path=None):
    """All processes of this server stand still, as when a laptop is shut; none of them is writing to this SQLite file."""
    with stopped(pids_of(server), path):
        try:
            yield
        finally:
            resume(server)


def resume(server):
    """Let them go on: the workers first, since a master that wakes up before would kill them for their silence."""
    signs = signs_of_life(server)
    send_all(server.workers(), signal.SIGCONT)
    try:
        wait_until(lambda: not signs.items() & signs_of_life(server).items(), 10)
    finally:
        send_all(pids_of(server), signal.SIGCONT)


def stop(pids):
    """Have these stand still; returns when each of their threads does."""
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
    """All processes of this server stand still, and one of them is in the middle of writing to this SQLite file.

    Somebody has to keep it writing.
    """
    pids = pids_of(server)
    try:
        stop(pids)
        until = time.monotonic() + 60
        while not may_write(path) & set(pids):
            assert time.monotonic() < until, "it was never stopped while it wrote"
            send_all(pids, signal.SIGCONT)
            time.sleep(random.uniform(0, 0.02))  # so long it may write
            stop(pids)
        yield
    finally:
        resume(server)


def signs_of_life(server):
    """When each worker has last told that it lives, by the file that gunicorn's master looks at: (process, file) → time."""
    files = [path for pid in server.workers() for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    signs = {}
    for path in files:
        with contextlib.suppress(OSError):  # it is closed by now
            if "/wgunicorn-" in os.readlink(path):
                signs[path] = path.stat().st_mtime
    return signs


def may_write(path):
    """The processes that hold the lock by which SQLite has one writer at a time."""
    pids = set()
    memory = inode_of(f"{path}-shm")
    for line in pathlib.Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" in fields or "WRITE" not in fields:  # the first is one who waits
            continue
        pid, place, first = fields[4:7]
        if (
            int(place.rpartition(":")[2]) == memory and first == "120"
        ):  # the byte of the one who writes, in WAL mode
            pids.add(int(pid))
    return pids


def inode_of(path):
    return os.stat(path).st_ino if os.path.exists(path) else -1


@contextlib.contextmanager
def full(folder):
    """The file system of this folder is full."""
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
    """This database of a PostgreSQL takes no writes, and whoever was connected has to connect again."""
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
    """This PostgreSQL is not there: it was ended at once, and recovers when it is started."""
    cluster.stop(immediate=True)
    try:
        yield
    finally:
        cluster.start(60)


@contextlib.contextmanager
def hanging(cluster):
    """This PostgreSQL takes connections and says nothing, as one whose disk hangs: all its processes stand still."""
    try:
        stop(cluster.pids()[:1])  # from now on, it makes no more of them
        stop(cluster.pids())
        yield
    finally:
        send_all(reversed(cluster.pids()), signal.SIGCONT)


@contextlib.contextmanager
def locked(url, table="turn", mode="ACCESS EXCLUSIVE"):
    """Somebody holds what all replies need, and does not end: SQLite's writer, or a table of PostgreSQL. Yields his tables. In
    the mode EXCLUSIVE, others can read (in SQLite's journal, they always can)."""
    with tables_of(url) as tables:
        tables.rows("BEGIN EXCLUSIVE" if tables.is_sqlite else "BEGIN")
        try:
            if not tables.is_sqlite:
                tables.rows(f"LOCK TABLE {table} IN {mode} MODE")
            yield tables
        finally:
            tables.rows("ROLLBACK")


class Clock:
    """What a server that is started with these settings takes for the time: the true one, moved by so many seconds."""

    def __init__(self, folder):
        self.path = folder / "clock"
        self.step(0)
        self.settings = {
            "LD_PRELOAD": find_libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": self.path,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "DONT_FAKE_MONOTONIC": 1,  # as the library's first releases called it
        }

    def step(self, seconds):
        new = self.path.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        os.replace(new, self.path)  # nobody reads half of it

    @contextlib.contextmanager
    def moved(self, seconds):
        self.step(seconds)
        try:
            yield
        finally:
            self.step(0)


def find_libfaketime():
    """The path of the library, or None: it is not installed."""
    return next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


def copy_as_dead(url, session, count):
    """As if so many replies had been under way in a fleet that is gone: copies of this session, by SQL. Returns their ids."""
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
