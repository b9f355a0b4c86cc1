"""What must hold in each state, and of each step. The numbers are those of docs/streams.md."""

from collections.abc import Iterator

from model.states import (
    COMPLETE,
    DEAD,
    IN_PROGRESS,
    RELEASED,
    RUNS,
    STOPPING,
    Database,
    State,
    Text,
)
from model.turns import Bounds, is_behind


def broken_in(state: State, bounds: Bounds) -> Iterator[str]:
    """What does not hold in this state."""
    yield from _replies(state, bounds)
    yield from _ledger(state)
    if not state.has_failed_over and is_behind(state):
        yield "S-4: a word was shown, and is lost"
    yield from _writers(state)


def broken_by(before: State, state: State) -> Iterator[str]:
    """What this step breaks."""
    if not state.has_failed_over:
        yield from _ends(before.database, state.database)
        yield from _restarts(before.database, state.database)


def _restarts(before: Database, database: Database) -> Iterator[str]:
    """A process that takes a reply over counts one more automatic resumption, unless the reply was
    released."""
    for was, reply in zip(before.replies, database.replies, strict=False):
        if was.status == reply.status == IN_PROGRESS and was.fence != reply.fence:
            if reply.restarts != was.restarts + (was.lease != RELEASED):
                yield "S-28: a takeover is not counted"


def _replies(state: State, bounds: Bounds) -> Iterator[str]:
    replies = state.database.replies
    if sum(reply.status == IN_PROGRESS for reply in replies) > 1:
        yield "S-35: two replies are in progress"
    if replies and not any(reply.is_shown for reply in replies):
        yield "no reply is shown"
    if sum(reply.is_shown for reply in replies) > 1:
        yield "two replies to one message are shown"
    for reply in replies:
        if not is_of_one_piece(reply.text):
            yield "S-36: words of two writers stand in one place"
        if reply.status == COMPLETE and len(reply.text) != bounds.words:
            yield "S-23: a reply is complete, and not whole"
        if reply.status == COMPLETE and reply.fence not in reply.used:
            yield "what a complete reply has used is not counted"
        if reply.restarts > bounds.limit:
            yield "S-28: a reply went on by itself too often"


def is_of_one_piece(text: Text) -> bool:
    """Whether each word is in its place, and no writer's text comes after that of a later one."""
    places = [place for place, _ in text]
    fences = [fence for _, fence in text]
    return places == list(range(len(text))) and fences == sorted(fences)


def _ledger(state: State) -> Iterator[str]:
    counted = [abs(fence) for fence in state.database.ledger]
    # If the clock is stepped, and a person deletes before the writer has noticed, nobody can know
    # that the request has estimated what the writer then reports.
    is_excused = state.was_stepped and state.database.is_deleted
    if len(counted) != len(set(counted)) and not is_excused:
        yield "a token is counted twice"
    if not state.database.is_deleted:
        used = sorted(fence for reply in state.database.replies for fence in reply.used)
        if not set(used) <= set(state.database.ledger):
            yield "the ledger lacks what a reply has used"


def _ends(before: Database, database: Database) -> Iterator[str]:
    """A reply that has ended stays as it is, until a person has it continued."""
    for was, reply in zip(before.replies, database.replies, strict=False):
        if was.status == IN_PROGRESS or reply.status == IN_PROGRESS:
            continue
        if (was.status, was.content) != (reply.status, reply.content):
            yield "S-17: an end has changed"
    for was, reply in zip(before.replies, database.replies, strict=False):
        if reply.text[: len(was.text)] != was.text:
            yield "S-11: the text has not only grown"


def _writers(state: State) -> Iterator[str]:
    """A writer that has seen what is stored, and may continue, finds all the text there that it has
    shown."""
    for process in state.processes:
        draft = process.draft
        if process.is_cut or process.mode not in (RUNS, STOPPING) or draft is None:
            continue
        row = state.database.written_by(draft)
        if row is not None and row.text[: len(draft.known)] != draft.known:
            yield "S-2: what a writer shows is not stored"


def is_at_rest(state: State) -> bool:
    """Whether the session takes messages, and nothing is left to do for it; or there are no actors."""
    living = [process for process in state.processes if process.mode not in (DEAD, "paused")]
    if not any(process.mode == RUNS for process in living):
        return True
    return state.database.under_way is None and not any(
        process.draft or process.is_cut for process in living
    )
