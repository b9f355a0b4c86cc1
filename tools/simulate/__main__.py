"""Runs the code of `replies/`, `tables/` and `database/` without threads; a seed decides what comes
next, and which faults there are. It cannot reach a fault of a route, of HTTP, or of what a provider is
sent and says: `clients.py` and `scripted.py` take their place.

    .venv/bin/python tools/simulate --seeds 10000
    .venv/bin/python tools/simulate --seed 17 --trace --shorten
    .venv/bin/python tools/simulate --seeds 1000 --database postgresql://…

It prints the first seed by which a promise of docs/streams.md is broken, and its status is 1.
`--seed` runs one, `--trace` tells its story, `--shorten` leaves out of it what is not needed, and
prints the choices of that as JSON; `--story` reads them again. The database, by default a file of
SQLite, is emptied.

What we assume: statements of one transaction come without others in between. What is left out:
retention, and the pauses of disks and networks. Commits that hang and failovers are on SQLite alone.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests" / "support")]

from simulate import standing_in
from simulate.chance import Story

real_time = time.perf_counter
standing_in.install()

from simulate.runs import Runs
from simulate.world import Ran

standing_in.install_processes()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--story", type=argparse.FileType(), help="a file of JSON, or -")
    parser.add_argument("--processes", type=int, default=3, help="at a time (3)")
    parser.add_argument("--problems", type=int, default=1, help="behind which it ends (1)")
    parser.add_argument("--database", metavar="URL", help="SQLite's or PostgreSQL's")
    parser.add_argument("--trace", action="store_true", help="tell each story")
    parser.add_argument("--shorten", action="store_true", help="leave out what is not needed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(options.database or f"sqlite:///{folder}/parley.db", options.processes)
        seeds: list[tuple[int, Story | None]]
        if options.story is not None:
            story = json.load(options.story)
            seeds = [(story["seed"], choices_of(story["choices"]))]
        elif options.seed is not None:
            seeds = [(options.seed, None)]
        else:
            seeds = [(options.first + number, None) for number in range(options.seeds)]
        return run_all(runs, seeds, options)


def run_all(
    runs: Runs, seeds: Sequence[tuple[int, Story | None]], options: argparse.Namespace
) -> int:
    began, count, broken = real_time(), 0, 0
    for seed, story in seeds:
        ran = run_one(runs, seed, story, options)
        count += 1
        if ran.problem or len(seeds) == 1 or options.trace:
            print(f"seed {seed}: {ran.problem or 'nothing is broken'}", flush=True)
        broken += bool(ran.problem)
        if broken == options.problems:
            break
    if len(seeds) > 1:
        told = f"{broken} broken" if broken else "nothing is broken"
        print(f"{count:,} seeds, {told}, {real_time() - began:.0f} s")
    return int(broken > 0)


def run_one(runs: Runs, seed: int, story: Story | None, options: argparse.Namespace) -> Ran:
    ran = runs.run(seed, story, is_told=options.trace)
    if ran.problem and options.shorten:
        story = runs.shorten(seed, ran.story, ran.problem)
        ran = runs.run(seed, story, is_told=options.trace)
        choices = {f"{name} {number}": chosen for (name, number), chosen in story.items()}
        print(json.dumps({"seed": seed, "choices": choices}))
    for line in ran.lines:
        print(line)
    return ran


def choices_of(told: dict[str, int]) -> Story:
    """From JSON, such as `{"acts 0": 4}`."""
    named = {tuple(name.rsplit(" ", 1)): chosen for name, chosen in told.items()}
    return {(name, int(number)): chosen for (name, number), chosen in named.items()}


if __name__ == "__main__":
    sys.exit(main())
