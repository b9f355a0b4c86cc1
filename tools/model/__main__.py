"""Explores the life of a reply: all that processes and people may do, and all that can happen to
them, within bounds, in every order that there is.

    .venv/bin/python tools/model --processes 3 --faults 2

It prints how many states there are, and how often each step was taken. If a promise of
docs/streams.md is broken in one, it prints the shortest story that leads there, and its status is
1. `--table` prints the table of a reply's states, as the document has it.

What we assume: a transaction is committed whole or not at all; a writer that runs and reaches the
database renews its lease before others have checked it CHECKS_UNTIL_DEAD times; text that is committed is
shown to somebody at once. What the model leaves out: what a reply holds back while it may repeat
itself, thinking, limits, titles, room, and all their pauses.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from model.explore import Exploration
from model.table import table
from model.turns import Bounds

HELP = {
    "processes": "at most, on however many hosts",
    "words": "of a whole answer",
    "limit": "CONTINUE_LIMIT",
    "acts": "of people, behind the first message: cancel, continue, retry, delete",
    "faults": "deaths, stops, pauses, breaks, lost and late commits, outages, steps of the clock",
    "failover": "1: a failover that takes the last commits back is a fault, too",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", action="store_true", help="print the table, and nothing else")
    for name, value in Bounds._field_defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{HELP[name]} ({value})")
    options = vars(parser.parse_args())
    if options.pop("table"):
        print(table())
        return 0
    began = time.monotonic()
    explored = Exploration(Bounds(**options)).run()
    for name, count in sorted(explored.by_name.items()):
        print(f"{count:10,}  {name}")
    seconds = time.monotonic() - began
    print(f"{explored.states:,} states, {explored.steps:,} steps, {seconds:.0f} s")
    for promise, story in explored.broken:
        print("\n    ".join([promise, *story]))
    return int(bool(explored.broken))


if __name__ == "__main__":
    sys.exit(main())
