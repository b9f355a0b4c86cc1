"""All that may come next."""

from collections.abc import Iterator

from model.befalling import faults, of_others
from model.people import of_people
from model.processes import of_process
from model.states import RUNS, STOPPING, State
from model.turns import Bounds, Move


def moves(state: State, bounds: Bounds) -> Iterator[Move]:
    """All that may come next."""
    for place, process in enumerate(state.processes):
        if process.mode in (RUNS, STOPPING):
            yield from of_process(state, place, bounds)
    yield from of_people(state)
    yield from of_others(state)
    if state.faults:
        yield from faults(state._replace(faults=state.faults - 1), bounds)
