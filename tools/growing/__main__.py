"""What one PostgreSQL takes for a service of many processes: `python tools/growing` prints a table.

It makes a PostgreSQL of its own, on which 100 processes write 100 replies each, by the product's
own statements. Two cores cannot do that in real time, so it runs in slow motion: the work of a
second takes 80 seconds, and then 40. The processor time for that work is the same in both, as long
as the figures are right. Nothing that the tool itself uses is counted. It takes three minutes, and
leaves nothing. `--slower 1` with a few processes is real time, in which tables grow as they do.
`--small` measures what one process carries, and several on one SQLite file, in real time. `--costs`
measures what one reply, one check and one poll take next to 10 to 1,000 replies in progress.
"""

import argparse
import contextlib
import logging
import os
import pathlib
import re
import signal
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from cluster import new_cluster
from costs import measure_costs
from database import CONNECTIONS
from service import Service
from small import measure_file, measure_processes

SETTLING = 5  # seconds of ours, after a change of the pace
DOCUMENT = (ROOT / "docs" / "growing.md").read_text("utf-8")
HOT = "turn", "piece", "session"
DAY = 24 * 3600
# pg_stat_user_tables has these for each table since its server began.
CHANGES = "n_tup_upd", "n_tup_hot_upd", "n_dead_tup", "pg_total_relation_size(relid)"


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/growing", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--replies", type=int, default=100, help="in progress in each process")
    parser.add_argument("--pace", type=float, default=20, help="words a second of each reply")
    parser.add_argument("--length", type=int, default=500, help="words of a reply")
    parser.add_argument(
        "--slower",
        type=float,
        nargs="+",
        default=[80, 40],
        help="how many times, one after the other",
    )
    parser.add_argument(
        "--seconds", type=float, default=40, help="for which each of these is measured"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="without the settings that docs/growing.md has for PostgreSQL",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="measure, in its place, one and two processes on SQLite",
    )
    parser.add_argument(
        "--costs",
        action="store_true",
        help="measure, in its place, a reply, a check and a poll beside others",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and with it the server
    logging.disable()
    if options.small:
        show_small()
    elif options.costs:
        show_costs()
    else:
        measure_large(options)


def measure_large(options):
    # The tables are vacuumed as often as in the service's time. There is no checkpoint, after which
    # whole pages would be logged.
    pauses = {
        "autovacuum_naptime": f"{int((60 if options.plain else 10) * options.slower[0])}s",
        "max_wal_size": "30GB",
    }
    with new_cluster(
        shared_buffers="512MB", max_connections=2 * options.processes + 20, **pauses
    ) as cluster:
        url = cluster.url()
        service = Service(
            url, options.processes, options.replies, options.length, options.pace, options.slower[0]
        )
        for line in (
            []
            if options.plain
            else re.findall(r"^ALTER (?:DATABASE|TABLE) .+;", DOCUMENT, re.MULTILINE)
        ):
            cluster.ask(line, "parley")
        service.begin()
        cluster.ask("ANALYZE", "parley")
        measured = []
        for slower in options.slower:
            service.clock.set(slower)
            time.sleep(SETTLING)
            before = sample(cluster, service)
            time.sleep(options.seconds)
            after = sample(cluster, service)
            measured.append({name: after[name] - before.get(name, 0) for name in after})
        tables = cluster.ask(
            f"SELECT relname, {', '.join(CHANGES)} FROM pg_stat_user_tables", "parley"
        )
        service.end()
        cluster.ask("VACUUM", "parley")
        kept = "sum(pg_total_relation_size(relid)), (SELECT count(*) FROM turn WHERE kind = 'assistant')"
        ((size, replies),) = cluster.ask(
            f"SELECT {kept} FROM pg_stat_user_tables WHERE relname <> 'piece'", "parley"
        )
        show(options, measured, tables, float(size) / replies)


def sample(cluster, service):
    """The work done so far, and its cost."""
    seconds, times, words = service.asked()
    ((wal,),) = cluster.ask("SELECT pg_current_wal_lsn() - '0/0'")
    done = {
        "time": service.clock.now(),
        "words": words,
        "WAL": float(wal),
        "processors": processor_seconds(cluster),
    }
    return (
        done
        | {(kind, "seconds"): seconds[kind] for kind in times}
        | {(kind, "times"): times[kind] for kind in times}
    )


def processor_seconds(cluster):
    """The processor time of all processes of the server, also of those that have ended."""
    total = 0
    for pid in cluster.pids():
        with contextlib.suppress(FileNotFoundError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11 : 15 if pid == cluster.process.pid else 13]))
    return total / os.sysconf("SC_CLK_TCK")


def show(options, measured, tables, size):
    rates = [{name: value / each["time"] for name, value in each.items()} for each in measured]
    last = rates[-1]
    kinds = sorted(
        {name[0] for name in last if isinstance(name, tuple)},
        key=lambda kind: -last[kind, "seconds"],
    )
    print(
        f"{options.processes} processes with {options.replies} replies each, of {options.pace:g} words a second:\n"
    )
    print_row(
        "asked of PostgreSQL",
        "a second",
        "each takes",
        *(f"cores, {slower:g} times slower" for slower in options.slower),
    )
    print_row(*["---"] * (3 + len(rates)))
    for kind in kinds:
        each = last[kind, "seconds"] / max(1e-9, last[kind, "times"]) * 1000
        cores = (f"{rate.get((kind, 'seconds'), 0):.2f}" for rate in rates)
        print_row(kind, f"{last[kind, 'times']:,.0f}", f"{each:.2f} ms", *cores)
    others = [
        rate["processors"] - sum(rate.get((kind, "seconds"), 0) for kind in kinds) for rate in rates
    ]
    print_row(
        "what nobody asked for: tidying, writing WAL and pages",
        "",
        "",
        *(f"{max(0, other):.2f}" for other in others),
    )
    print_row("all of it", "", "", *(f"{rate['processors']:.1f}" for rate in rates))
    print_row("words stored a second", "", "", *(f"{rate['words']:,.0f}" for rate in rates))
    print_row("WAL a second", "", "", *(f"{rate['WAL'] / 1e6:.0f} MB" for rate in rates))
    words, stored = last["words"], size * last["words"] / options.length * DAY
    print(
        f"\nA core stores {words / last['processors']:,.0f} words a second; each takes {last['WAL'] / words:.0f} bytes of WAL."
    )
    print(
        f"A reply of {options.length} words and its question leave {size / 1000:.1f} kB; all of a day {stored / 1e9:,.0f} GB."
    )
    print(
        f"{2 * options.processes} connections were open, of {CONNECTIONS * options.processes} that these may open.\n"
    )
    print_row("table", "rows updated", "of these in place (HOT)", "dead rows", "size")
    print_row(*["---"] * 5)
    for name, updated, in_place, dead, bytes in tables:
        if name in HOT:
            share = f"{100 * in_place / updated:.0f} %" if updated else ""
            print_row(name, f"{updated:,}", share, f"{dead:,}", f"{bytes / 1e6:,.0f} MB")


def print_row(*cells):
    print("|", " | ".join(cells), "|", flush=True)


def show_small():
    """The limits of one process, and of several on one SQLite file, in two minutes."""
    print_row(
        "processes on a SQLite file",
        "replies",
        "words a second",
        "lag of a word, median and p95",
        "cores that they take",
    )
    print_row(*["---"] * 5)
    for processes, replies, words, typical, late, cores in measure_processes():
        print_row(
            f"{processes}",
            f"{replies}",
            f"{words:,}",
            f"{typical * 1000:.0f}, {late * 1000:.0f} ms",
            f"{cores:.2f}",
        )
    print()
    print_row("keepers that store all the time", "commits a second", "words a second")
    print_row(*["---"] * 3)
    for writers, commits, words in measure_file(6):
        print_row(f"{writers}", f"{commits:,.0f}", f"{words:,.0f}")


def show_costs():
    """What one reply, one check and one poll take next to others, in half a minute."""
    names = "processes", "replies in progress", "a reply", "a check", "a poll"
    print_row("database", *names)
    print_row(*["---"] * 6)
    for engine, processes, replies, *costs in measure_costs():
        times = (f"{milliseconds:.1f} ms" for milliseconds in costs)
        print_row(engine, f"{processes}", f"{replies:,}", *times)


if __name__ == "__main__":
    main()
