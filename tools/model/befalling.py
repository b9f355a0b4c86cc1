"""The faults of processes, providers and the database."""

from collections.abc import Iterator

from model.states import (
    CUT_BY_LENGTH,
    DEAD,
    FAILED,
    LAPSED,
    LIVE,
    PAUSED,
    RUNS,
    STOPPING,
    Draft,
    Operation,
    Process,
    State,
)
from model.transactions import commit
from model.turns import Bounds, Move, attempts, changed, is_heard, lapsed, put


def of_others(state: State) -> Iterator[Move]:
    if state.late is not None:
        database = commit(state.database, state.late)
        came = state._replace(late=None)
        if database is not None:
            came = changed(came, database)
        yield Move("what hung comes through", came, is_own=False)
    for place, process in enumerate(state.processes):
        if process.mode == PAUSED:
            awake = process._replace(mode=RUNS)
            yield Move("it goes on", put(state, place, awake), is_own=False)
        elif process.mode == DEAD:
            yield Move("one starts", put(state, place, Process()), is_own=False)
    number = state.database.under_way
    if number is not None and state.database.replies[number].lease == LIVE:
        if not is_heard(state, state.database.replies[number].fence):
            yield Move("its lease lapses", lapsed(state, number))


def faults(state: State, bounds: Bounds) -> Iterator[Move]:
    """The faults that are possible now. `state` already has one fewer to come."""
    for place, process in enumerate(state.processes):
        if process.mode != DEAD:
            yield Move("a process dies", put(state, place, Process(DEAD)), is_own=False)
        if process.mode == RUNS:
            paused = process._replace(mode=PAUSED)
            yield Move("a process stands still", put(state, place, paused), is_own=False)
            stops = process._replace(mode=STOPPING)
            yield Move("a process is to stop", put(state, place, stops), is_own=False)
        if process.mode in (RUNS, STOPPING) and not process.is_cut:
            cut = process._replace(is_cut=True, checks=0)
            yield Move("its connection breaks", put(state, place, cut), is_own=False)
            if process.draft is not None and process.draft.outcome is None:
                yield from _breaks(state, place, process.draft, bounds)
    yield from _of_database(state)


def _breaks(state: State, place: int, draft: Draft, bounds: Bounds) -> Iterator[Move]:
    """The provider breaks its answer off, or cuts it by length."""
    process, length = state.processes[place], len(draft.text)
    failed = process._replace(draft=draft._replace(outcome=FAILED))
    if length > draft.began:
        again = draft._replace(began=length)
        operation = "restart", draft.number, draft.fence, bounds.limit
        yield from _going_on(state, place, operation, again)
        cut = process._replace(draft=draft._replace(outcome=CUT_BY_LENGTH))
        yield Move("the answer is cut by length", put(state, place, cut), is_own=False)
    yield Move("the provider fails", put(state, place, failed), is_own=False)


def _going_on(state: State, place: int, operation: Operation, again: Draft) -> Iterator[Move]:
    process = state.processes[place]
    done = process._replace(draft=again)
    for how, after in attempts(state, place, operation, done, done._replace(is_cut=True)):
        yield Move("the provider breaks off, and it asks again" + how, after, is_own=False)


def _of_database(state: State) -> Iterator[Move]:
    number = state.database.under_way
    if number is not None and state.database.replies[number].lease == LIVE:
        stepped = state.database.replies[number]._replace(lease=LAPSED)
        database = state.database.put(number, stepped)
        clock = state._replace(database=database, was_stepped=True)
        yield Move("the clock is stepped", clock, is_own=False)
        away = _all_cut(lapsed(state, number))
        yield Move("the database is away for long", away, is_own=False)
    for back, before in enumerate(state.past, 1):
        if before == state.database:
            continue
        over = _all_cut(state)._replace(database=before, late=None, past=(), has_failed_over=True)
        yield Move(f"a failover takes {back} back", over, is_own=False)


def _all_cut(state: State) -> State:
    processes = tuple(
        process if process.mode == DEAD else process._replace(is_cut=True, checks=0)
        for process in state.processes
    )
    return state._replace(processes=processes)
