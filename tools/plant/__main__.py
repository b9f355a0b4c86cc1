"""Plants faults in copies of the product, one at a time, and shows what finds each, and how soon.

    .venv/bin/python tools/plant [NAME …] [--by suite,model,simulation,audit] [--minutes 5] [--write FILE]
    .venv/bin/python tools/plant conditions [WORD …]

`faults.toml` and `more_faults.toml` have the faults. A patch that no longer applies is named and
skipped. The status is 1 if one of the others is not found: that is a gap of the tests, or no fault;
or if one is not well planted. `conditions.py` says what the second form does.
"""

import argparse
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "support"))

import conditions
from finders import Audit, Model, Simulation, Suite
from planting import NoPlace, new_copy, read_faults

FINDERS = ("suite", "model", "simulation", "audit")


def look_for(fault, finders):
    """What each finder reports of a fault, in a copy of its own."""
    with new_copy() as copy:
        for finder in finders:
            found = finder.look(copy, fault)
            print(f"{fault.name}: {found.told()}", flush=True)
            yield found


def row_of(fault, told):
    """A row of the table in Markdown."""
    by = "; ".join(each.told() for each in told if each.is_found) or "**nobody**"
    return f"| {fault.name} | `{fault.file}` | {fault.promise} | {by} |"


def table_of(rows):
    head = ["| fault | file | promise | found by |", "|---|---|---|---|"]
    return "\n".join([*head, *(row_of(*row) for row in rows)])


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/plant",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    faults = read_faults()
    parser.add_argument("names", metavar="NAME", nargs="*", help="by default all")
    parser.add_argument("--by", default="suite", help=f"names with commas of {', '.join(FINDERS)}")
    parser.add_argument("--minutes", type=float, default=5, help="of each finder but the audit")
    parser.add_argument("--seeds", type=int, default=10_000, help="of the simulation (10000)")
    parser.add_argument("--near", action="store_true", help="of the suite the near tests only")
    parser.add_argument("--write", type=pathlib.Path, help="a file for the table, in Markdown")
    options = parser.parse_args()
    for name in options.names:
        if name not in faults:
            parser.error(f"there is no fault {name}")
    at_hand = {
        "suite": Suite(options.minutes, is_near_only=options.near),
        "model": Model(options.minutes),
        "simulation": Simulation(options.seeds, options.minutes),
        "audit": Audit(),
    }
    if unknown := set(options.by.split(",")) - set(FINDERS):
        parser.error(f"there is no finder {', '.join(unknown)}")
    finders = [at_hand[name] for name in options.by.split(",")]
    rows = []
    for name in options.names or faults:
        try:
            rows.append((faults[name], list(look_for(faults[name], finders))))
        except NoPlace as problem:
            print(f"{name} is passed over: {problem}", flush=True)
    print(table := table_of(rows))
    if options.write:
        options.write.write_text(table + "\n", "utf-8")
    unfound = [
        fault.name
        for fault, told in rows
        if not fault.harmless and not any(each.is_found for each in told)
    ]
    ill = [fault.name for fault, told in rows if any(each.is_ill for each in told)]
    if unfound:
        print(f"nobody has found {', '.join(unfound)}")
    if ill:
        print(f"not well planted: {', '.join(ill)}")
    return 1 if unfound or ill else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was stopped"))
    is_of_conditions = sys.argv[1:2] == ["conditions"]
    sys.exit(conditions.main(sys.argv[2:]) if is_of_conditions else main())
