"""Deleting: a session, first out of sight, then in steps that hold up nobody for long; keys whose
day is over, and what no limit counts any more; a person's all."""

import time
import uuid
from collections.abc import Callable, Iterator

from peewee import Expression, Field, Model, Tuple

import processes
from database import SECOND, connected, db, limit_time, transaction
from models import Session, Turn
from replies.draft import Draft
from tables.idempotency import CLAIM, KEY_TTL, IdempotencyKey
from tables.ledger import LONGEST_WINDOW, RateLimitHit, Usage

LONGEST_WRITE = 3600 * SECOND  # of what is imported, or copied
_given_up: set[uuid.UUID] = set()  # sessions of which this process has written a part
STEP = 0.05  # seconds that a step may hold up other writers


def delete_session(session_id: uuid.UUID, *conditions: Expression) -> bool:
    """Delete it, where these conditions hold: else another process was faster. Returns whether it
    was taken."""
    is_taken = _withdraw(session_id, *conditions)
    if is_taken:
        _in_steps(lambda count: _delete_some(session_id, count))
    _given_up.discard(session_id)
    return is_taken


def delete_sessions(condition: Expression) -> Iterator[bool]:
    """Delete all sessions for which this holds; tells of each whether it was taken here."""
    ids = [None]
    while ids:
        with connected():
            ids = [row.id for row in Session.select(Session.id).where(condition).limit(100)]
            for session_id in ids:
                limit_time()
                yield delete_session(session_id, condition)


def _in_steps(step: Callable[[int], bool]) -> None:
    """Do this for so many rows as hold up nobody for long, while it returns that more are left."""
    count, more = 1, True
    while more:
        limit_time()  # each step shows that the database answers
        began = time.monotonic()
        more = step(count)
        count = count * 2 if time.monotonic() - began < STEP / 2 else max(1, count // 2)
        time.sleep(0.01)  # a writer who has waited comes first


def sweep() -> None:
    """Delete what dead processes have left of sessions, keys whose day is over, and what no rate
    limit counts any more."""
    for _ in delete_sessions(_is_left()):
        pass
    _delete_old(IdempotencyKey.created_at, KEY_TTL + CLAIM)
    _delete_old(RateLimitHit.at, LONGEST_WINDOW)


def give_up(session_id: uuid.UUID) -> None:
    """This process does not write on what it has begun: the next sweep deletes it."""
    _given_up.add(session_id)


def _is_left() -> Expression:
    """Nobody has it, and nobody writes it any more: its process has given it up, or is dead, or has
    had an hour."""
    is_nobodys = Session.owner == ""
    with connected():
        writers = Session.select(Session.writer).where(is_nobodys, ~Session.writer.is_null())
        dead = [row.writer for row in writers.distinct() if processes.is_dead(row.writer)]
        is_late = Session.imported_at < db.now() - LONGEST_WRITE
    is_given_up = Session.id.in_(list(_given_up))
    is_over = Session.writer.is_null() | Session.writer.in_(dead) | is_late | is_given_up
    return is_nobodys & is_over


def _delete_old(field: Field, age: int) -> None:
    """Delete the rows of this field's table in which it is a time so many microseconds ago."""
    with connected():
        is_old = field <= db.now() - age
        if field.model.select().where(is_old).exists():
            _in_steps(lambda count: _delete_rows(field.model, is_old, count))


def forget(owner: str) -> int | None:
    """Delete all of an owner, but keep the sums of what was used, without the name. Returns how
    many sessions there were, or None where nothing was stored."""
    sweep()  # what a process has left may be this owner's
    with connected():
        ids = [session.id for session in Session.select(Session.id).where(Session.owner == owner)]
        for session_id in ids:
            limit_time()
            delete_session(session_id)
        limit_time()
        found = bool(ids)
        for table in (RateLimitHit, IdempotencyKey):
            deletion = table.delete().where(table.owner == owner)
            found |= bool(transaction(deletion.execute)())
        # And once more, as a process may just have counted a reply that was under way.
        while Usage.forget(owner):
            found = True
            time.sleep(1)
            limit_time()
        db.discard()  # on SQLite, the last who closes it leaves no files beside it
        return len(ids) if found else None


@transaction
def _withdraw(session_id: uuid.UUID, *conditions: Expression) -> bool:
    """Take a session from its owner. A reply under way, which one that nobody uses has not, is
    counted as interrupted, and gone at once, since its end would count it again; what it has used
    besides, its process will say: the ledger knows the owner by then. Returns whether it was
    taken."""
    owner = Session.select(Session.owner).where(Session.id == session_id).scalar()
    if owner:  # else it was taken before
        db.lock(owner)  # as a claim with a key does, before it locks rows of keys and of sessions
    db.hold(Session.select(Session.id).where(Session.id == session_id))
    if not conditions:
        _end_reply_under_way(session_id)
    is_taken = Session.update(owner="").where(Session.id == session_id, *conditions).execute()
    if is_taken and owner:
        IdempotencyKey.let_go(owner, session_id)
    return bool(is_taken)


def _end_reply_under_way(session_id: uuid.UUID) -> None:
    turn = Turn.readable().where(Turn.session == session_id, Turn.under_way()).first()
    if turn is None:
        return
    draft = Draft.of(turn)
    if turn.is_lost():
        draft.estimate_rest()
    Usage.add([draft.entry_of_end()])
    Turn.delete().where(Turn.id == turn.id).execute()


@transaction
def _delete_some(session_id: uuid.UUID, count: int) -> bool:
    """Delete the last so many turns, and the session where there is none left; returns whether more
    is left."""
    turns = Turn.select(Turn.id).where(Turn.session == session_id)
    last = turns.order_by(Turn.id.desc()).limit(count)
    # Where another process was faster with these, others may be left all the same.
    if Turn.delete().where(Turn.id.in_(last)).execute() or turns.exists():
        return True
    Session.delete().where(Session.id == session_id).execute()
    return False


@transaction
def _delete_rows(table: type[Model], condition: Expression, count: int) -> bool:
    """Delete so many rows for which this holds; returns whether more are left."""
    keys = table._meta.get_primary_keys()
    chosen = table.select(*keys).where(condition).limit(count)
    # Where another process was faster with these, others may be left all the same.
    is_all = table.delete().where(Tuple(*keys).in_(chosen)).execute() < count
    return not is_all or table.select().where(condition).exists()
