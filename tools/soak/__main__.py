"""A soak: users do at random all that can be done, strangers disturb, the model breaks or fails,
and each minute a fault hits the service. In the end it checks that all holds that must, and
tools/audit checks the history of what all of them sent and saw.

    .venv/bin/python tools/soak --seconds 3600 --database sqlite --faults clock,disk-full --seed 1

By default one soak runs on each database, at the same time, with all faults that are possible here.
Without faults, users are more and faster. The seed decides what is done; what it meets also depends
on the machine.
"""

import argparse
import pathlib
import random
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tools")]

from faults import FAULTS, at_hand
from needs import ENGINES, NEEDS
from soaking import soak_on


def told(name, fault):
    """The line of --help for a fault."""
    lacks = fault.lacks_here()
    on = [need for need in fault.needs if need in ENGINES]
    notes = [f"on {each} only" for each in on] + [f"not here: {lacks}"] * bool(lacks)
    return f"  {name:15} {fault.sentence}" + f" ({'; '.join(notes)})" * bool(notes)


def chosen(parser, names):
    """A function that returns the faults of these names for an engine."""
    if names is None:
        return at_hand
    names = [] if names == "none" else names.split(",")
    for name in names:
        if name not in FAULTS:
            parser.error(f"there is no fault {name}")
        if lacks := FAULTS[name].lacks_here():
            parser.error(f"{name} cannot be had: {lacks}")
    return lambda engine: {name: FAULTS[name] for name in names if not FAULTS[name].lacks(engine)}


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/soak",
        description=__doc__,
        epilog="faults:\n" + "\n".join(told(*each) for each in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--database", choices=ENGINES, help="by default one soak runs on each")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--faults", help="none, or names with commas; by default all that can be had here"
    )
    parser.add_argument(
        "--history", type=pathlib.Path, metavar="FILE", help="keep it here; tools/audit reads it"
    )
    options = parser.parse_args()
    faults_of = chosen(parser, options.faults)
    engines = [options.database] if options.database else ENGINES
    for engine in engines:
        if lacks := NEEDS[engine]():
            parser.error(f"there is no soak on {engine}: {lacks}")
        if options.faults not in (None, "none") and not faults_of(engine):
            parser.error(f"none of these befalls {engine}: name a --database, too")
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        soak_on(
            pathlib.Path(folder),
            engines,
            options.seconds,
            options.seed,
            faults_of,
            options.history,
        )


if __name__ == "__main__":
    main()
