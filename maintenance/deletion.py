"""Deletion of sessions and of expired rows.

One short transaction takes a session from its owner. Then its turns are deleted in steps, each
short enough for other writers; for requests, the thread of `sweeper.py` does that."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

from peewee import Expression, Field, Model, Tuple, fn

import processes
from database import SECOND, Unavailable, connected, db, transaction
from models import INTERRUPTED, Session, Turn
from replies.draft import Draft
from tables.idempotency import CLAIM, KEY_TTL, IdempotencyKey
from tables.ledger import LONGEST_WINDOW, RateLimitHit, Usage

LONGEST_WRITE = 3600 * SECOND  # after which an import or a fork counts as abandoned
FIRST_STEP = 100  # rows
STEP = 0.05  # seconds for which a step may block other writers, not counting its commit
STEP_SIZE = 4 * 2**20  # bytes of text that one step deletes
PAUSE = 0.01  # seconds between two steps, so that other writers get their turn


P = ParamSpec("P")
R = TypeVar("R")


class Step(NamedTuple):
    """The result of one step of a deletion."""

    more: bool  # whether rows are left
    seconds: float  # for which it blocked other writers, not counting its commit


class Taken(NamedTuple):
    """What taking a session from its owner has done."""

    is_ours: bool  # if not, the conditions did not hold, or another process was faster
    reply: Turn | None  # the reply in progress, which is deleted


class Backlog:
    """The sessions that the sweeper of this process has to delete: requests have taken them from
    their owners, or have failed to import them completely."""

    def __init__(self) -> None:
        self._sessions: set[uuid.UUID] = set()
        self.has_come = threading.Event()  # set when a session is added

    def add(self, session_id: uuid.UUID) -> None:
        self._sessions.add(session_id)
        self.has_come.set()

    def discard(self, session_id: uuid.UUID) -> None:
        self._sessions.discard(session_id)

    def all(self) -> list[uuid.UUID]:
        return list(self._sessions)

    def clear(self) -> None:
        self._sessions.clear()


backlog = Backlog()


def delete_later(session_id: uuid.UUID) -> Turn | None:
    """Take a session from its owner now, and leave its turns to the sweeper of this process.
    Returns the reply in progress that this has deleted, if there was one."""
    taken = _retrying_on_full_disk(_take_from_owner, session_id)
    if taken.is_ours:
        backlog.add(session_id)
    return taken.reply


def delete_session(session_id: uuid.UUID, *conditions: Expression) -> bool:
    """Delete a session if these conditions still hold. Returns whether it was deleted here; if not,
    another process was faster."""
    with connected():
        taken = _take_from_owner(session_id, *conditions)
    if taken.is_ours:
        _in_steps(lambda count: _delete_some(session_id, count))
    backlog.discard(session_id)
    return taken.is_ours


def delete_sessions(condition: Expression) -> Iterator[bool]:
    """Delete all sessions for which this holds. Yields for each whether it was deleted here."""
    ids = [None]
    while ids:
        with connected():
            ids = [row.id for row in Session.select(Session.id).where(condition).limit(100)]
        for session_id in ids:
            yield delete_session(session_id, condition)


def delete_from_backlog(session_id: uuid.UUID) -> None:
    """Delete a session that a request has left to the sweeper. Raises Unavailable."""
    _retrying_on_full_disk(delete_session, session_id)


def _in_steps(step: Callable[[int], Step]) -> None:
    """Call `step` with a number of rows, again and again until no rows are left. The number adapts
    to the time that steps take. No connection is held between two steps."""
    count, more = FIRST_STEP, True
    while more:
        with connected():
            more, seconds = step(count)
        count = rows_after(count, seconds)
        time.sleep(PAUSE)


def rows_after(count: int, seconds: float) -> int:
    """The rows of the next step, after a step of `count` rows has blocked other writers for so many
    seconds."""
    if seconds < STEP / 2:
        return count * 2
    return max(1, count // 2) if seconds > STEP else count


def sweep() -> None:
    """Delete abandoned parts of sessions, expired idempotency keys, and requests that no rate limit
    counts any more."""
    for _ in delete_sessions(_is_abandoned()):
        pass
    _delete_old(IdempotencyKey.created_at, KEY_TTL + CLAIM)
    _delete_old(RateLimitHit.at, LONGEST_WINDOW)


def _is_abandoned() -> Expression:
    """The condition that a session has no owner and no writer: the process that wrote it has given
    up, is dead, or has taken longer than an hour."""
    has_no_owner = Session.owner == ""
    with connected():
        writers = Session.select(Session.writer).where(has_no_owner, ~Session.writer.is_null())
        dead = [row.writer for row in writers.distinct() if processes.is_dead(row.writer)]
        is_late = Session.imported_at < db.now() - LONGEST_WRITE
    is_given_up = Session.id.in_(backlog.all())
    has_no_writer = Session.writer.is_null() | Session.writer.in_(dead) | is_late | is_given_up
    return has_no_owner & has_no_writer


def _delete_old(field: Field, age: int) -> None:
    """Delete the rows in the table of this field, a time, in which it is older than `age`."""
    with connected():
        is_old = field <= db.now() - age
        has_old = field.model.select().where(is_old).exists()
    if has_old:
        _in_steps(lambda count: _delete_rows(field.model, is_old, count))


def _retrying_on_full_disk(delete: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `delete`; if the disk is full, release the reserved space and call it again."""
    try:
        return delete(*args, **kwargs)
    except Unavailable:
        if not db.give_up_reserve():
            raise
    return delete(*args, **kwargs)


@transaction
def _take_from_owner(session_id: uuid.UUID, *conditions: Expression) -> Taken:
    """Take a session from its owner.

    A reply in progress is counted as interrupted, and deleted at once, since its end would count it
    again; its process adds the rest of its usage when it notices. If that process counts as dead,
    the rest is estimated here. With conditions, such as those of retention, no reply is in
    progress."""
    owner = Session.select(Session.owner).where(Session.id == session_id).scalar()
    if owner:  # otherwise it was taken before
        # Before any rows of keys and sessions, in the same order as a claim with a key.
        db.lock(owner)
    db.lock_rows(Session.select(Session.id).where(Session.id == session_id))
    reply = None if conditions else _end_reply_in_progress(session_id)
    is_taken = Session.update(owner="").where(Session.id == session_id, *conditions).execute()
    if is_taken and owner:
        IdempotencyKey.let_go(owner, session_id)
    return Taken(bool(is_taken), reply)


def _end_reply_in_progress(session_id: uuid.UUID) -> Turn | None:
    turn = Turn.readable().where(Turn.session == session_id, Turn.is_in_progress()).first()
    if turn is None:
        return None
    turn.ended_stream = turn.stream_id
    draft = Draft.of(turn)
    if turn.is_lost():
        draft.account.estimate_rest()
    # Also if it was continued, and nothing has come since.
    Usage.add([draft.entry()._replace(outcome=INTERRUPTED)])
    Turn.delete().where(Turn.id == turn.id).execute()
    return turn


@transaction
def _delete_some(session_id: uuid.UUID, count: int) -> Step:
    """Delete the last `count` turns, or fewer if they have more than STEP_SIZE bytes together, but
    at least one. Delete the session if it has no turns left."""
    began = time.monotonic()
    turns = (
        Turn.select(Turn.id, db.size_of(Turn.content) + fn.COALESCE(Turn.thinking_characters, 0))
        .where(Turn.session == session_id)
        .order_by(Turn.id.desc())
    )
    first, left = None, STEP_SIZE
    for turn_id, bytes_of_texts in turns.limit(count).tuples():
        left -= bytes_of_texts
        if first is not None and left < 0:
            break
        first = turn_id
    if first is None:
        Session.delete().where(Session.id == session_id).execute()
    else:
        Turn.delete().where(Turn.session == session_id, Turn.id >= first).execute()
    return Step(first is not None, time.monotonic() - began)


@transaction
def _delete_rows(table: type[Model], condition: Expression, count: int) -> Step:
    """Delete `count` rows for which this condition holds."""
    began = time.monotonic()
    keys = table._meta.get_primary_keys()
    chosen = table.select(*keys).where(condition).limit(count)
    # Fewer may be deleted than chosen, if another process was faster: then others may be left.
    is_all = table.delete().where(Tuple(*keys).in_(chosen)).execute() < count
    more = not is_all or table.select().where(condition).exists()
    return Step(more, time.monotonic() - began)
