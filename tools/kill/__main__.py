"""What a reader has after its server was killed (`kill -9`), with Parley and with three others that
go on, too: `python tools/kill` prints a table.

    .venv/bin/python tools/kill [--runs N] [--only NAME]

One after the other, each program is asked for a reply of 40 words by the same provider (stub.py).
When the model has said 15 of them, the program is killed, with all its processes, and started again
at once; the reader comes back as the program's own documentation says. A run takes about 70 seconds,
and listens on the loopback interface only. Run it on a machine that has nothing else to do.

The other programs are installed in `~/.cache/parley-kill` if they are not there yet, from PyPI and
npm, in the versions that `requirements.txt` and `flue/package-lock.json` pin. That needs npm, and on
other systems than Linux a Node.js of 22.19 or newer.
"""

import argparse
import datetime
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from killing import kill_once
from programs import PROGRAMS
from words import WORDS

COLUMNS = (
    "program",
    "words once",
    "twice",
    "missing",
    "seconds to the next word",
    "words sent with the second call",
)


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/kill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="kills of each (1)")
    parser.add_argument("--only", choices=PROGRAMS, help="run this program, and no other")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and with it the programs
    print(f"{datetime.date.today()}, {WORDS} words, {options.runs} of each\n")
    print_row(*COLUMNS)
    print_row(*["---"] * len(COLUMNS))
    for name in [options.only] if options.only else PROGRAMS:
        runs = [kill_once(PROGRAMS[name]) for _ in range(options.runs)]
        print_row(runs[0][0], *cells([seen for _, seen in runs]))


def cells(runs):
    for counts in zip(*(seen.counted for seen in runs), strict=True):
        yield span(counts)
    yield span([round(seen.seconds, 1) for seen in runs])
    yield span([seen.sent for seen in runs])


def span(numbers):
    """`15`, or `14–18` if the runs differ."""
    return f"{min(numbers)}–{max(numbers)}" if len(set(numbers)) > 1 else f"{numbers[0]}"


def print_row(*cells):
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
