"""How fast Parley is, compared with the least that such a service can do: `python tools/benchmark`
prints a table.

It takes about eleven minutes, and listens on the loopback interface only. What is compared is
measured in turns, and every figure is the median of its rounds. Run it on a machine that has nothing else to
do: the last line says how far that was so. `--only far` measures only the rows of a provider that
is far away and has TLS, `--only near` those of one that is near, `--only pictures` those of
messages with pictures, `--only database` those of a PostgreSQL that is near and of one that is far
away, and `--only streams` those of many streams, on SQLite and on a PostgreSQL. For the latter two,
`--postgres URL` or TEST_DATABASE_URL names a PostgreSQL; in all other rows, Parley keeps its data
there only with `--postgres URL`. Everything that is created there is dropped.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import os
import pathlib
import platform
import signal
import sqlite3
import sys
import tempfile
import time
import uuid

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import psycopg

import many_streams
import measures
import on_postgresql
from load import Client, at_once
from measured import FarStub, Floor, Parley, Stub, TLSStub

LIBRARIES = ("flask", "gunicorn", "marshmallow", "peewee", "psycopg", "pyjwt", "requests")


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/benchmark", description=__doc__.partition(":")[0]
    )
    parser.add_argument(
        "--postgres", metavar="URL", help="measure Parley on this server, in databases of their own"
    )
    parser.add_argument(
        "--turns", type=int, default=100_000, help="measure a search in so many turns of one user"
    )
    parser.add_argument(
        "--only",
        choices=("far", "near", "pictures", "database", "streams"),
        help="measure these rows, and no others",
    )
    options = parser.parse_args()
    url = options.postgres
    began = time.monotonic(), busy_seconds()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and with it the servers
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database_url = (
            stack.enter_context(new_database(url)) if url else f"sqlite:///{folder}/parley.db"
        )
        stub = stack.enter_context(Stub(folder))
        print(
            f"{machine()} {libraries()} Parley on {database_url.partition(':')[0]}. {speeds(folder, stub)}\n"
        )
        print_row("", "against", "Parley", "compared", "goal", "met")
        print_row(*["---"] * 6)
        for part, measure in (
            ("far", measure_far),
            ("near", functools.partial(measure_near, options.turns)),
            ("pictures", measure_pictures),
        ):
            if options.only in (None, part):
                for row in measure(folder, stub, database_url):
                    print_row(*row)
        if options.only in (None, "database"):
            for row in measure_database(
                options.turns, folder, stub, url or os.environ.get("TEST_DATABASE_URL")
            ):
                print_row(*row)
        if options.only in (None, "streams"):
            for row in measure_many_streams(
                folder, stub, url or os.environ.get("TEST_DATABASE_URL")
            ):
                print_row(*row)
    seconds, busy = (
        now - then for now, then in zip((time.monotonic(), busy_seconds()), began, strict=True)
    )
    print(
        f"\nIt took {seconds:.0f} s, in which other processes used {max(0, busy) / seconds:.2f} cores."
    )


def measure_far(folder, stub, database_url):
    """The rows of a provider like real ones (far away, and with TLS), as soon as they are known."""
    with TLSStub(folder) as tls_stub:
        with (
            FarStub(folder, tls_stub, measures.ROUND_TRIP) as far,
            Parley(folder, far, database_url) as parley,
        ):
            measures.warm_up(parley)
            yield from measures.measure_far_first_word(folder, far, parley)
        with (
            Parley(folder, stub, database_url) as plain,
            Parley(folder, tls_stub, database_url) as over_tls,
        ):
            measures.warm_up(plain)
            measures.warm_up(over_tls)
            yield from measures.measure_tls(plain, over_tls)


def measure_pictures(folder, stub, database_url):
    """The rows of messages with pictures, as soon as they are known."""
    with Parley(folder, stub, database_url) as parley:
        measures.warm_up(parley)
        yield from measures.measure_message_with_picture(stub, parley)
        yield from measures.measure_turns_with_pictures(parley, database_url)


def measure_near(turns, folder, stub, database_url):
    """The rows of a provider that is near, as soon as they are known."""
    start_floor = functools.partial(Floor, folder, stub)
    start_parley = functools.partial(Parley, folder, stub, database_url)
    last = measures.measure_start(start_floor, start_parley)
    with start_floor() as floor, start_parley() as parley:
        measures.warm_up(floor)
        measures.warm_up(parley)
        yield from measures.measure_one_at_a_time(stub, floor, parley)
        yield from measures.measure_work(floor, parley)
        yield from measures.measure_many_at_once(floor, parley)
        yield from measures.measure_waiting(floor, parley)
        yield from measures.measure_bursts(floor, parley)
        yield from measures.measure_streams(stub, floor, parley)
        # Before the lists, which the floor does not have.
        memory = measures.measure_memory(floor, parley)
        yield from measures.measure_lists(stub, parley, database_url)
        yield from measures.measure_search(parley, database_url, turns)
        yield from last
        yield from memory


def measure_database(turns, folder, stub, url):
    """The rows of PostgreSQL, as soon as they are known."""
    if not url:
        print(
            "\nThe rows of PostgreSQL are left out: there is neither --postgres URL nor TEST_DATABASE_URL."
        )
        return
    with contextlib.ExitStack() as stack:
        of_floor, of_near, of_far = (stack.enter_context(new_database(url)) for _ in range(3))
        yield from on_postgresql.measure(turns, folder, stub, of_floor, of_near, of_far)


def measure_many_streams(folder, stub, url):
    """The rows of many streams, as soon as they are known; those of PostgreSQL if there is one."""
    with contextlib.ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{folder}/many.db"} | (
            {"PostgreSQL": stack.enter_context(new_database(url))} if url else {}
        )
        yield from many_streams.measure(folder, stub, urls)


@contextlib.contextmanager
def new_database(url):
    """The URL of an empty database on this PostgreSQL server, which is dropped in the end."""
    name = f"parley_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.rpartition("/")[0] + "/" + name
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def print_row(*cells):
    print("|", " | ".join(cells), "|", flush=True)


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}."


def libraries():
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return f"SQLite {sqlite3.sqlite_version}, {versions}."


def speeds(folder, stub):
    """What the figures also depend on: the disk and the stub."""
    rate = (
        32
        * 50
        / at_once([Client(stub.port) for _ in range(32)], 50, measures.anew(measures.ask_directly))
    )
    disk = f"A write of 4 kB to the disk takes {measures.sync_time(folder) * 1000:.2g} ms"
    return f"{disk}, the stub alone gives {rate:,.0f} answers a second."


def busy_seconds():
    """The processor time that all processes took but this one and its children that have ended."""
    user, nice, system, _, _, interrupts, soft_interrupts = (
        int(ticks) for ticks in pathlib.Path("/proc/stat").read_text().split()[1:8]
    )
    all_of_them = (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")
    return all_of_them - sum(os.times()[:4])


if __name__ == "__main__":
    main()
