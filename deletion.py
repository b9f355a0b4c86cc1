"""Deleting: a session, first out of sight, then in steps that hold up nobody for long; those that nobody uses; a person's all."""

import time

from peewee import fn

from database import SECOND, db, limit_time, transaction
from idempotency import IdempotencyKey
from ledger import RateLimitHit, Usage
from models import Session, Turn

STEP = 0.05  # seconds that a step may hold up other writers


def delete_session(session_id, *conditions):
    """Delete it, where these conditions hold: else another process was faster."""
    count, more = 1, _withdraw(session_id, *conditions)
    while more:
        limit_time()  # each step shows that the database answers
        began = time.monotonic()
        more = _delete_some(session_id, count)
        count = count * 2 if time.monotonic() - began < STEP / 2 else max(1, count // 2)
        time.sleep(0.01)  # a writer who has waited comes first


def sweep(days):
    """Delete what dead processes have left of sessions; with `days`, also those unused for so long without a reply under way."""
    ids = [None]
    while ids:
        limit_time()
        with db.connection_context():
            due = Session.owner == ""
            if days:
                under_way = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.under_way())
                due |= (Session.updated_at < db.now() - days * 86400 * SECOND) & ~fn.EXISTS(under_way)
            ids = [session.id for session in Session.select(Session.id).where(due).limit(100)]
            for session_id in ids:
                limit_time()
                delete_session(session_id, due)


def forget(owner):
    """Delete all of an owner, but keep the sums of what was used, without the name. Returns how many sessions there were, or None
    where nothing was stored."""
    sweep(None)  # what a process has left may be this owner's
    limit_time()
    with db.connection_context():
        ids = [session.id for session in Session.select(Session.id).where(Session.owner == owner)]
        for session_id in ids:
            limit_time()
            delete_session(session_id)
        limit_time()
        others = [table.delete().where(table.owner == owner) for table in (RateLimitHit, IdempotencyKey)]
        found = any([ids, *(transaction(delete.execute)() for delete in others)])
        while Usage.forget(owner):  # and once more, as a process may just have counted a reply that was under way
            found = True
            time.sleep(1)
            limit_time()
        db.discard()  # on SQLite, the last who closes it leaves no files beside it
        return len(ids) if found else None


@transaction
def _withdraw(session_id, *conditions):
    """Take a session from its owner. A reply under way, which one that nobody uses has not, is counted as interrupted; what it
    has used besides, its process will say: the ledger knows the owner by then. Returns whether it was taken."""
    db.hold(Session.select(Session.id).where(Session.id == session_id))
    if not conditions and (turn := Turn.readable().where(Turn.session == session_id, Turn.under_way()).first()):
        turn.counted = turn.usage
        if turn.is_lost():
            turn.estimate_rest()
        Usage.add(ended=[turn])
    return Session.update(owner="").where(Session.id == session_id, *conditions).execute()


@transaction
def _delete_some(session_id, count):
    """Delete the last so many turns, and the session where there is none left; returns whether more is left."""
    turns = Turn.select(Turn.id).where(Turn.session == session_id)
    # Where another process was faster with these, others may be left all the same.
    if Turn.delete().where(Turn.id.in_(turns.order_by(Turn.id.desc()).limit(count))).execute() or turns.exists():
        return True
    Session.delete().where(Session.id == session_id).execute()
    return False
