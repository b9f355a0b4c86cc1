"""The steps that tools/model knows."""

import functools

from model.explore import Exploration
from model.steps import KINDS, steps_of
from model.turns import Bounds

SMALL = (
    Bounds(processes=1, faults=1, acts=2),
    Bounds(processes=2, faults=0, acts=2),
    Bounds(processes=1, faults=1, acts=1, limit=0),
)
# From one second to twenty, each for steps that no other has.
LARGE = (
    Bounds(processes=1, words=1, faults=1, acts=3),
    Bounds(processes=1, words=1, faults=2, acts=2),
    Bounds(processes=1, words=1, faults=2, acts=3),
)


@functools.cache
def steps_within(bounds):
    rows = set()
    Exploration(bounds, lambda *pair: rows.add(pair)).run()
    return steps_of(rows)


def not_of_the_model(steps, within=SMALL + LARGE):
    """The steps that no rule of the model takes within these bounds."""
    unknown = set(steps)
    for bounds in within:
        if unknown:
            unknown -= steps_within(bounds)
    return sorted(unknown)


def kinds_of(steps):
    """The rules that these steps follow."""
    return {name for name, is_its in KINDS.items() if any(map(is_its, steps))}
