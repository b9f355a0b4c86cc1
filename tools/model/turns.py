"""What a state becomes by a step, and how a transaction goes."""

from collections.abc import Iterator
from typing import NamedTuple

from model.states import LAPSED, RUNS, STOPPING, Database, Operation, Process, State
from model.transactions import commit


class Bounds(NamedTuple):
    """How far the model goes."""

    processes: int = 3
    words: int = 2  # of a whole answer
    limit: int = 1  # CONTINUE_LIMIT
    acts: int = 1  # of people, besides the first message
    faults: int = 2
    failover: int = 0  # whether the database may be one that lacks the last commits, as a fault


class Move(NamedTuple):
    name: str
    state: State
    is_own: bool = True  # a process that runs does it by itself: no fault, and no person's wish


def put(state: State, place: int, process: Process) -> State:
    processes = list(state.processes)
    processes[place] = process
    return state._replace(processes=tuple(processes))


def changed(state: State, database: Database) -> State:
    """Behind a commit: everybody may have seen it at once. A lease that is another is looked at
    anew."""
    shown = tuple(
        max(reply.text, before, key=len)
        for reply, before in zip(
            database.replies,
            [*state.shown, *[()] * len(database.replies)],
            strict=False,
        )
    )
    processes = state.processes
    if _sign(database) != _sign(state.database):
        processes = tuple(process._replace(looks=0) for process in processes)
    past = (state.database, *state.past)[: len(state.past)]
    return state._replace(database=database, shown=shown, processes=processes, past=past)


def _sign(database: Database) -> tuple[object, ...]:
    """What one who looks for orphans sees of the reply under way."""
    number = database.under_way
    return () if number is None else (number, database.replies[number].lease)


def attempts(
    state: State, place: int, operation: Operation, done: Process, given_up: Process
) -> Iterator[tuple[str, State]]:
    """How a transaction that changes something goes: it is committed and answered, or the answer is
    lost, or it comes late. `done` and `given_up` are the process afterwards, by what it knows."""
    database = commit(state.database, operation)
    if database is None:
        return
    yield "", changed(put(state, place, done), database)
    if not state.faults:
        return
    cut = put(state, place, given_up)._replace(faults=state.faults - 1)
    yield ", but the answer is lost", changed(cut, database)
    if state.late is None:
        yield ", but it hangs", cut._replace(late=operation)


def is_heard(state: State, fence: int) -> bool:
    """Whether the writer runs and reaches the database: it renews its lease before others have
    looked so often."""
    return any(
        process.draft is not None
        and process.draft.fence == fence
        and process.mode in (RUNS, STOPPING)
        and not process.is_cut
        for process in state.processes
    )


def lapsed(state: State, number: int) -> State:
    """No rule of the table: it is time that passes."""
    reply = state.database.replies[number]
    database = state.database.put(number, reply._replace(lease=LAPSED))
    return overdue(state._replace(database=database), reply.fence)


def overdue(state: State, fence: int) -> State:
    """Its writer has not renewed the lease for so long that it may not say any more what it used."""
    processes = tuple(
        process._replace(draft=process.draft._replace(is_fresh=False))
        if process.draft is not None and process.draft.fence == fence
        else process
        for process in state.processes
    )
    return state._replace(processes=processes)


def is_behind(state: State) -> bool:
    """Whether the database lacks what somebody was shown."""
    if state.database.is_deleted:
        return False
    texts = [reply.text for reply in state.database.replies]
    texts += [()] * (len(state.shown) - len(texts))
    return any(len(text) < len(shown) for text, shown in zip(texts, state.shown, strict=False))
