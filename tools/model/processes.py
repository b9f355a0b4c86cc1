"""What a running process may do next: write a reply, store it, look for orphaned ones."""

from collections.abc import Iterator

from model.states import (
    COMPLETE,
    DEAD,
    HANDED_OVER,
    IN_PROGRESS,
    INTERRUPTED,
    LAPSED,
    RELEASED,
    RUNS,
    STOPPING,
    Claim,
    Database,
    Draft,
    Fences,
    Operation,
    Process,
    Reply,
    State,
)
from model.transactions import commit
from model.turns import Bounds, Move, attempts, changed, is_heard, overdue, put

CHECKS_UNTIL_DEAD = (
    2  # checks of a lapsed lease, after which its writer counts as dead: seven in the product
)


def of_process(state: State, place: int, bounds: Bounds) -> Iterator[Move]:
    process = state.processes[place]
    if process.is_cut:
        yield Move("it sees what is stored", _catch_up(state, place))
        return
    if process.draft is not None:
        yield from _writing(state, place, process.draft, bounds)
    if process.claim is not None:
        yield from _undoing(state, place, process.claim)
    if process.mode == RUNS:
        yield from _looking(state, place, bounds)
    elif process.draft is None:
        yield Move("it has stopped", put(state, place, Process(DEAD)))


def _writing(state: State, place: int, draft: Draft, bounds: Bounds) -> Iterator[Move]:
    row = state.database.reply(draft.number)
    if state.database.written_by(draft) is None:
        yield from _losing(state, place, draft, row)
    if draft.outcome is None:
        yield from _arriving(state, place, draft, bounds)
        yield from _storing(state, place, draft)
    else:
        yield from _ending(state, place, draft)
    if row and row.lease == LAPSED:
        renewing: Operation = ("renew", draft.number, draft.fence)
        yield from _committing(state, place, "it renews its lease", renewing, draft)


def _storing(state: State, place: int, draft: Draft) -> Iterator[Move]:
    """What can come of a reply that continues."""
    if draft.arrived:
        yield from _growing(state, place, draft)
    if draft.fence not in draft.used:
        counting: Operation = ("count", draft.number, draft.fence, draft.used, draft.all_used)
        counted = draft._replace(used=draft.all_used, maybe_counted=(), carried=())
        name = "it counts what it has used"
        yield from _committing(state, place, name, counting, counted, draft.all_used)


def _growing(state: State, place: int, draft: Draft) -> Iterator[Move]:
    piece = len(draft.known), draft.arrived
    growing: Operation = ("grow", draft.number, draft.fence, piece)
    stored = draft._replace(known=draft.text, arrived=())
    yield from _committing(state, place, "it stores text", growing, stored)


def _committing(
    state: State,
    place: int,
    name: str,
    operation: Operation,
    stored: Draft | None,
    maybe_counted: Fences = (),
) -> Iterator[Move]:
    """Commit this; its process keeps this draft. If it changes nothing, the row is another
    process's, has ended, or has more than is believed: then it is read. `maybe_counted` may be
    counted if no answer comes."""
    process = state.processes[place]
    draft = process.draft
    assert draft is not None
    done = process._replace(draft=stored)
    if stored is None and state.past:
        done = done._replace(ended=draft)
    unsure = draft._replace(maybe_counted=maybe_counted or draft.maybe_counted)
    given_up = process._replace(draft=unsure, is_cut=True)
    tries = [*attempts(state, place, operation, done, given_up)]
    for how, after in tries:
        yield Move(name + how, after)
    if not tries:
        yield Move(f"{name}, in vain", _catch_up(state, place))


def _arriving(state: State, place: int, draft: Draft, bounds: Bounds) -> Iterator[Move]:
    process, length = state.processes[place], len(draft.text)
    if length < bounds.words:
        word = length, draft.fence
        more = process._replace(draft=draft._replace(arrived=(*draft.arrived, word)))
        yield Move("a word arrives", put(state, place, more))
    else:
        whole = process._replace(draft=draft._replace(outcome=COMPLETE))
        yield Move("the answer is whole", put(state, place, whole))
    if process.mode == STOPPING:
        outcome = HANDED_OVER if bounds.limit else INTERRUPTED
        ending = process._replace(draft=draft._replace(outcome=outcome))
        yield Move("its grace is over", put(state, place, ending))


def _outcome(draft: Draft) -> str:
    """As `Reply.finish` does: a reply that a person continued ends as before if nothing came."""
    assert draft.outcome is not None
    no_progress = draft.base > 0 and draft.base == len(draft.text)
    return draft.before if no_progress and draft.outcome != HANDED_OVER else draft.outcome


def _ending(state: State, place: int, draft: Draft) -> Iterator[Move]:
    """How it ends. The text of a reply that is handed over is stored even if it is not released."""
    process, use = state.processes[place], (draft.used, draft.all_used)
    if draft.outcome == HANDED_OVER:
        if draft.arrived:
            yield from _growing(state, place, draft)
            return
        operation: Operation = ("release", draft.number, draft.fence, *use)
    elif process.mode == STOPPING and draft.outcome == INTERRUPTED:
        operation = "stop", draft.number, draft.fence, draft.text, *use
    else:
        operation = "finish", draft.number, draft.fence, _outcome(draft), draft.text, *use
    name = f"it stores the end, {draft.outcome}"
    yield from _committing(state, place, name, operation, None, draft.all_used)


def _losing(state: State, place: int, draft: Draft, row: Reply | None) -> Iterator[Move]:
    """Another process writes the reply, or it has been ended. If a person ended it, this process
    may still report its usage, as long as it counts as alive."""
    process = state.processes[place]
    over = process._replace(draft=None)
    is_ended = row is None or row.status != IN_PROGRESS
    tries: list[tuple[str, State]] = []
    if draft.is_fresh and is_ended:
        believed = draft.maybe_counted or draft.used
        use = believed, draft.all_used
        operation: Operation = ("settle", draft.number, draft.fence, *use, row is None)
        given_up = process._replace(draft=draft._replace(maybe_counted=draft.all_used), is_cut=True)
        tries = [*attempts(state, place, operation, over, given_up)]
    for how, after in tries:
        yield Move("it has lost the reply, and says what it used" + how, after)
    if not tries:
        yield Move("it has lost the reply", put(state, place, over))


def _catch_up(state: State, place: int) -> State:
    """It sees what is stored, and stores again what a failover took back."""
    process = state.processes[place]
    database = state.database
    if process.draft is not None:
        draft, database = _believe(database, process.draft)
        process = process._replace(draft=draft)
    if process.ended is not None:
        database = _end_again(database, process.ended)
    state = put(state, place, process._replace(is_cut=False, checks=0))
    return changed(state, database) if database != state.database else state


def _believe(database: Database, draft: Draft) -> tuple[Draft, Database]:
    row = database.written_by(draft)
    if row is None:
        return draft, database  # the next look at it will show that
    database = commit(database, ("renew", draft.number, draft.fence)) or database
    more = len(row.text) - len(draft.known)
    arrived = draft.arrived
    if more > 0:
        arrived = arrived[more:]
    elif lost := draft.known[len(row.text) :]:
        operation = "grow", draft.number, draft.fence, (len(row.text), lost)
        database = commit(database, operation) or database
    known = max(draft.known, row.text, key=len)
    believed = draft._replace(known=known, arrived=arrived, used=row.used, is_fresh=True)
    return believed, database


def _end_again(database: Database, draft: Draft) -> Database:
    """A failover took the end back, and the reply is in progress as before."""
    row = database.written_by(draft)
    if row is None or draft.outcome == HANDED_OVER:
        return database  # the text of a reply that is handed over is stored; its lease lapses
    used = tuple(sorted({*row.used, *draft.all_used}))
    use = row.used, used
    operation = "finish", draft.number, draft.fence, _outcome(draft), draft.text, *use
    return commit(database, operation) or database


def _undoing(state: State, place: int, claim: Claim) -> Iterator[Move]:
    """What was committed of a claim is undone."""
    process = state.processes[place]
    done = process._replace(claim=None)
    operation = "undo", claim.fence, claim.is_kept
    for how, after in attempts(state, place, operation, done, process._replace(is_cut=True)):
        yield Move("it undoes a claim" + how, after)


def _looking(state: State, place: int, bounds: Bounds) -> Iterator[Move]:
    process, number = state.processes[place], state.database.under_way
    if number is None or process.draft is not None:
        return
    row = state.database.replies[number]
    is_dead = not any(_holds(other, row.fence) for other in state.processes if other.mode != DEAD)
    if (
        row.lease == LAPSED
        and process.checks < CHECKS_UNTIL_DEAD
        and not is_heard(state, row.fence)
    ):
        yield Move("it checks", put(state, place, process._replace(checks=process.checks + 1)))
    if row.lease == RELEASED or is_dead or process.checks >= CHECKS_UNTIL_DEAD:
        yield from _rescuing(state, place, number, row, bounds)


def _holds(process: Process, fence: int) -> bool:
    drafts = process.draft, process.claim
    return any(held is not None and held.fence == fence for held in drafts)


def _rescuing(state: State, place: int, number: int, row: Reply, bounds: Bounds) -> Iterator[Move]:
    process, fence = state.processes[place], state.fences + 1
    given_up = process._replace(is_cut=True)
    carried = (-row.untold,) if row.untold else ()
    draft = Draft.of(number, row, fence, carried)
    state = overdue(state, row.fence)
    taken = state._replace(fences=fence)
    operation: Operation = ("take over", number, row.lease, fence, bounds.limit)
    over = process._replace(draft=draft, checks=0)
    tries = [*attempts(taken, place, operation, over, given_up)]
    for how, after in tries:
        yield Move("it takes the reply over" + how, after)
    if not tries:
        operation = "give up", number, row.fence, row.lease
        for how, after in attempts(state, place, operation, process._replace(checks=0), given_up):
            yield Move("it ends an orphan" + how, after)
