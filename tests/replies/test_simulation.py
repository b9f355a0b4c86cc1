"""tools/simulate, which replays the code from seeds: it works, and finds again what it found before."""

import json
import os
import subprocess
import sys

from finders import Simulation
from planting import new_copy, read_faults
from product import ROOT

FAULTS = read_faults()
QUICK = "start-in-bytes"  # a fault that the first seeds show
SEEDS = "30"  # to see that it works, here and on PostgreSQL; rare faults are looked for by hand

# What was found: the fault that would bring it back, and the shortest story that shows it.
FOUND = {
    "usage-told-only-where-it-is-new": {
        "seed": 1,
        "choices": {
            "acts 0": 2,
            "call 0 says 0": 2,
            "model pause 0": 1,
            "person waits 0": 3,
            "person wants 0": 1,
            "person wants 1": 2,
        },
    },
    "undone-told-as-deleted": {
        "seed": 92777,
        "choices": {
            "faults 0": 4,
            "acts 0": 3,
            "some of acts 0": 1,
            "acts: message 0": 1,
            "acts: cancel 0": 1,
            "acts: continue 0": 1,
            "acts: retry 0": 1,
            "acts: delete 0": 1,
            "acts: follow 0": 1,
            "person asks 0": 1,
            "person waits 0": 2,
            "person wants 0": 1,
            "befalls committed 7": 3,
            "person waits 2": 1,
            "person wants 2": 5,
        },
    },
    "restart-counted-in-vain": {
        "seed": 4729,
        "choices": {
            "faults 0": 4,
            "acts 0": 5,
            "some of acts 0": 1,
            "acts: rename 0": 1,
            "model answers 0": 1,
            "person waits 0": 3,
            "person waits 1": 3,
            "befalls committed 4": 3,
            "befalls commit 7": 2,
        },
    },
}


def simulate(*arguments, root=ROOT, given="", **environment):
    """The lines that it prints, and its exit status."""
    run = subprocess.run(
        [sys.executable, "tools/simulate", *arguments],
        cwd=root,
        input=given,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.stderr == ""
    return run.stdout.splitlines(), run.returncode


def test_nothing_is_broken(new_database):
    lines, status = simulate("--seeds", SEEDS, "--database", new_database())
    assert (lines[:-1], status) == ([], 0)
    assert lines[-1].startswith(f"{SEEDS} seeds, nothing is broken, ")


def test_a_seed_has_one_story():
    """Whatever ran before it in the same process, and whatever the seed of Python's hashes."""
    alone, _ = simulate("--seed", "2", "--trace", PYTHONHASHSEED="1")
    behind, _ = simulate("--seeds", "3", "--trace", PYTHONHASHSEED="2")
    assert len(alone) > 10
    assert behind[-len(alone) - 1 : -1] == alone


def test_a_planted_fault_is_found_and_its_story_is_shortened():
    with new_copy() as copy:
        found = Simulation(500, 3).look(copy, FAULTS[QUICK])
        seed = found.what.removeprefix("seed ").partition(":")[0]
        with copy.planted(FAULTS[QUICK]):
            lines, status = simulate("--seed", seed, "--trace", "--shorten", root=copy.root)
        nothing = Simulation(3, 3).look(copy, FAULTS[QUICK]._replace(new=FAULTS[QUICK].old))
    assert found.is_found and not nothing.is_found
    assert (lines[-1], status) == (found.what, 1)
    assert "BROKEN: S-12" in lines[-2]
    assert json.loads(lines[0])["choices"] == {}  # no mishap is needed to show it


def test_what_was_found_before_stays_fixed():
    with new_copy() as copy:
        for name, story in FOUND.items():
            given = json.dumps(story)
            assert simulate("--story", "-", given=given)[1] == 0
            with copy.planted(FAULTS[name]):
                assert simulate("--story", "-", root=copy.root, given=given)[1] == 1
