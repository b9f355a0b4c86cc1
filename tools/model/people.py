"""What people may request, at whichever process."""

from collections.abc import Iterator

from model.states import RUNS, Claim, Draft, Operation, State
from model.transactions import commit
from model.turns import Move, attempts


def of_people(state: State) -> Iterator[Move]:
    """A request goes to any process that runs, unless it is stopping."""
    takers = [place for place, process in enumerate(state.processes) if process.mode == RUNS]
    if not state.database.replies and not state.fences:
        for place in takers:
            yield from _claiming(state, place, "message", is_kept=False)
            yield from _claiming(state, place, "message", is_kept=True)
        return
    if not state.acts:
        return
    asked = state._replace(acts=state.acts - 1)
    for place in takers:
        yield from _claiming(asked, place, "retry", is_kept=False)
        yield from _claiming(asked, place, "continue", is_kept=False)
        yield from _cancelling(asked, place)
        yield from _requesting(asked, place, ("delete",))


def _claiming(state: State, place: int, name: str, is_kept: bool) -> Iterator[Move]:
    process, fence = state.processes[place], state.fences + 1
    if process.draft is not None or process.claim is not None or process.is_cut:
        return
    database = commit(state.database, (name, fence))
    if database is None:
        return
    number = database.under_way
    assert number is not None
    draft = Draft.of(number, database.replies[number], fence)
    done = process._replace(draft=draft)
    given_up = process._replace(claim=Claim(fence, is_kept), is_cut=True)
    claimed = state._replace(fences=fence)
    for how, after in attempts(claimed, place, (name, fence), done, given_up):
        yield Move(f"a {name} is asked for{how}", after, is_own=False)


def _cancelling(state: State, place: int) -> Iterator[Move]:
    number = state.database.under_way
    if number is not None:
        fence = state.database.replies[number].fence
        yield from _requesting(state, place, ("cancel", number, fence))


def _requesting(state: State, place: int, operation: Operation) -> Iterator[Move]:
    process = state.processes[place]
    for how, after in attempts(state, place, operation, process, process._replace(is_cut=True)):
        yield Move(f"a person asks: {operation[0]}{how}", after, is_own=False)
