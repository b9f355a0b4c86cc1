"""Deleting: a session is taken from its owner, which is one short transaction; then its turns are
deleted in steps that hold up nobody. The thread of `sweeper.py` does that for requests. Also here:
what is too old to be of use, and everything that is stored about a person."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

from peewee import Expression, Field, Model, Tuple, fn

import processes
from database import SECOND, Unavailable, connected, db, limit_time, transaction
from models import INTERRUPTED, Session, Turn
from replies.draft import Draft
from tables.idempotency import CLAIM, KEY_TTL, IdempotencyKey
from tables.ledger import LONGEST_WINDOW, RateLimitHit, Usage

LONGEST_WRITE = 3600 * SECOND  # of an import, or a fork
IMPORTS_PATIENCE = 300  # seconds for which `forget` waits for those in progress
FIRST_STEP = 100  # rows
STEP = 0.05  # seconds for which a step may hold up other writers, without its commit
STEP_SIZE = 4 * 2**20  # bytes of text that one step deletes
PAUSE = 0.01  # seconds between two steps: another writer who has waited comes first


P = ParamSpec("P")
R = TypeVar("R")


class Step(NamedTuple):
    """What became of one step of a deletion."""

    more: bool  # rows are left
    seconds: float  # it held up other writers, without its commit


class Backlog:
    """The sessions that this process is to delete: requests have taken them from their owners, or
    have given up writing them."""

    def __init__(self) -> None:
        self._sessions: set[uuid.UUID] = set()
        self.has_come = threading.Event()  # something was added

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


def delete_later(session_id: uuid.UUID) -> None:
    """Take a session from its owner, and have the sweeper of this process delete its turns."""
    if _even_on_full_disk(_withdraw, session_id):
        backlog.add(session_id)


def delete_session(session_id: uuid.UUID, *conditions: Expression) -> bool:
    """Delete it if these conditions hold: otherwise another process was faster. Returns whether it
    was deleted here."""
    with connected():
        is_taken = _withdraw(session_id, *conditions)
    if is_taken:
        _in_steps(lambda count: _delete_some(session_id, count))
    backlog.discard(session_id)
    return is_taken


def delete_sessions(condition: Expression) -> Iterator[bool]:
    """Delete all sessions for which this holds; tells of each whether it was deleted here."""
    ids = [None]
    while ids:
        with connected():
            ids = [row.id for row in Session.select(Session.id).where(condition).limit(100)]
        for session_id in ids:
            yield delete_session(session_id, condition)


def delete_from_backlog(session_id: uuid.UUID) -> None:
    """Delete a session that a request has left to the sweeper. Raises Unavailable."""
    _even_on_full_disk(delete_session, session_id)


def _in_steps(step: Callable[[int], Step]) -> None:
    """Do this for so many rows as hold up nobody for long, while it says that more are left. No
    connection is held between two steps."""
    count, more = FIRST_STEP, True
    while more:
        with connected():
            more, seconds = step(count)
        count = rows_after(count, seconds)
        time.sleep(PAUSE)


def rows_after(count: int, seconds: float) -> int:
    """How many rows the next step has, if so many have held up other writers for so long."""
    if seconds < STEP / 2:
        return count * 2
    return max(1, count // 2) if seconds > STEP else count


def sweep() -> None:
    """Delete what dead processes have left of sessions, keys that have expired, and what no rate
    limit counts any more."""
    for _ in delete_sessions(_is_left()):
        pass
    _delete_old(IdempotencyKey.created_at, KEY_TTL + CLAIM)
    _delete_old(RateLimitHit.at, LONGEST_WINDOW)


def _is_left() -> Expression:
    """Nobody has it, and nobody writes it any more: its process has given it up, or is dead, or has
    had an hour."""
    is_nobodys = Session.owner == ""
    with connected():
        writers = Session.select(Session.writer).where(is_nobodys, ~Session.writer.is_null())
        dead = [row.writer for row in writers.distinct() if processes.is_dead(row.writer)]
        is_late = Session.imported_at < db.now() - LONGEST_WRITE
    is_given_up = Session.id.in_(backlog.all())
    is_over = Session.writer.is_null() | Session.writer.in_(dead) | is_late | is_given_up
    return is_nobodys & is_over


def _delete_old(field: Field, age: int) -> None:
    """Delete the rows of this field's table in which it is a time so many microseconds ago."""
    with connected():
        is_old = field <= db.now() - age
        has_old = field.model.select().where(is_old).exists()
    if has_old:
        _in_steps(lambda count: _delete_rows(field.model, is_old, count))


def forget(owner: str) -> int | None:
    """Delete everything of an owner, but keep the sums of what was used, without the name. Returns
    how many sessions there were, or None if nothing was stored."""
    sweep()  # what a process has left may be this owner's
    count = _delete_all_of(owner)
    _wait_for_imports()
    count += _delete_all_of(owner)
    found = bool(count)
    with connected():
        for table in (RateLimitHit, IdempotencyKey):
            deletion = table.delete().where(table.owner == owner)
            found |= bool(transaction(deletion.execute)())
        # And once more, as a process may just have counted a reply that was in progress.
        while Usage.forget(owner):
            found = True
            time.sleep(1)
            limit_time()
        db.discard()  # on SQLite, the last process to close the file leaves no others beside it
    return count if found else None


def _delete_all_of(owner: str) -> int:
    """Delete all sessions of an owner; returns how many there were."""
    with connected():
        ids = [session.id for session in Session.select(Session.id).where(Session.owner == owner)]
    for session_id in ids:
        delete_session(session_id)
    return len(ids)


def _wait_for_imports() -> None:
    """Wait until the imports and forks that are being written now are their owners', or gone."""
    is_nobodys = Session.owner == "", ~Session.writer.is_null()
    with connected():
        ids = [row.id for row in Session.select(Session.id).where(*is_nobodys)]
    until = time.monotonic() + IMPORTS_PATIENCE
    while ids and time.monotonic() < until:
        time.sleep(1)
        with connected():
            left = Session.select(Session.id).where(Session.id.in_(ids), *is_nobodys)
            ids = [row.id for row in left]


def _even_on_full_disk(delete: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do this; if the disk is full, once more with the room that was reserved for it."""
    try:
        return delete(*args, **kwargs)
    except Unavailable:
        if not db.give_up_reserve():
            raise
    return delete(*args, **kwargs)


@transaction
def _withdraw(session_id: uuid.UUID, *conditions: Expression) -> bool:
    """Take a session from its owner. A reply in progress is counted as interrupted, and deleted at
    once, since its end would count it again; what it has used besides, its process will say: the
    ledger knows the owner by then. With conditions, as of sessions that nobody uses, there is no
    such reply. Returns whether it was taken."""
    owner = Session.select(Session.owner).where(Session.id == session_id).scalar()
    if owner:  # otherwise it was taken before
        db.lock(owner)  # as a claim with a key does, before it locks rows of keys and of sessions
    db.hold(Session.select(Session.id).where(Session.id == session_id))
    if not conditions:
        _end_reply_in_progress(session_id)
    is_taken = Session.update(owner="").where(Session.id == session_id, *conditions).execute()
    if is_taken and owner:
        IdempotencyKey.let_go(owner, session_id)
    return bool(is_taken)


def _end_reply_in_progress(session_id: uuid.UUID) -> None:
    turn = Turn.readable().where(Turn.session == session_id, Turn.under_way()).first()
    if turn is None:
        return
    draft = Draft.of(turn)
    if turn.is_lost():
        draft.estimate_rest()
    # Also if nothing has come yet since a person had it continued.
    Usage.add([draft.entry()._replace(outcome=INTERRUPTED)])
    Turn.delete().where(Turn.id == turn.id).execute()


@transaction
def _delete_some(session_id: uuid.UUID, count: int) -> Step:
    """Delete the last so many turns, as many of these as have STEP_SIZE bytes together, but at
    least one; and the session, if no turn is left."""
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
    """Delete so many rows for which this holds."""
    began = time.monotonic()
    keys = table._meta.get_primary_keys()
    chosen = table.select(*keys).where(condition).limit(count)
    # If another process was faster with these, others may be left all the same.
    is_all = table.delete().where(Tuple(*keys).in_(chosen)).execute() < count
    more = not is_all or table.select().where(condition).exists()
    return Step(more, time.monotonic() - began)
