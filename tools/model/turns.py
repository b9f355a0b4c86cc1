"""What a step makes of a state, and how a transaction goes."""

from collections.abc import Iterator
from typing import NamedTuple

from model.states import LAPSED, RUNS, STOPPING, Database, Operation, Process, State
from model.transactions import commit


class Bounds(NamedTuple):
    """The bounds of the model."""

    processes: int = 3
    words: int = 2  # of a whole answer
    limit: int = 1  # CONTINUE_LIMIT
    acts: int = 1  # of people, besides the first message
    faults: int = 2
    # Whether one of the faults is a failover to a database that lacks the last commits.
    failover: int = 0


class Move(NamedTuple):
    name: str
    state: State
    # A running process does it by itself: it is no fault, and no person's request.
    is_own: bool = True


def put(state: State, place: int, process: Process) -> State:
    processes = list(state.processes)
    processes[place] = process
    return state._replace(processes=tuple(processes))


def changed(state: State, database: Database) -> State:
    """After a commit: everybody may have seen it at once. If the lease has changed, looks at it
    start again."""
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
        processes = tuple(process._replace(checks=0) for process in processes)
    past = (state.database, *state.past)[: len(state.past)]
    return state._replace(database=database, shown=shown, processes=processes, past=past)


def _sign(database: Database) -> tuple[object, ...]:
    """What a process that looks for orphans sees of the reply in progress."""
    number = database.under_way
    return () if number is None else (number, database.replies[number].lease)


def attempts(
    state: State, place: int, operation: Operation, done: Process, given_up: Process
) -> Iterator[tuple[str, State]]:
    """How a transaction that changes something goes: it is committed and answered, or its answer is
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
    looked at it often enough."""
    return any(
        process.draft is not None
        and process.draft.fence == fence
        and process.mode in (RUNS, STOPPING)
        and not process.is_cut
        for process in state.processes
    )


def lapsed(state: State, number: int) -> State:
    """No rule of the table: only time has passed."""
    reply = state.database.replies[number]
    database = state.database.put(number, reply._replace(lease=LAPSED))
    return overdue(state._replace(database=database), reply.fence)


def overdue(state: State, fence: int) -> State:
    """The writer has not renewed its lease for so long that it may no longer report its usage."""
    processes = tuple(
        process._replace(draft=process.draft._replace(is_fresh=False))
        if process.draft is not None and process.draft.fence == fence
        else process
        for process in state.processes
    )
    return state._replace(processes=processes)


def is_behind(state: State) -> bool:
    """Whether the database lacks something that was shown."""
    if state.database.is_deleted:
        return False
    texts = [reply.text for reply in state.database.replies]
    texts += [()] * (len(state.shown) - len(texts))
    return any(len(text) < len(shown) for text, shown in zip(texts, state.shown, strict=False))
