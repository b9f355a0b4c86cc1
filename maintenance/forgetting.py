"""Deletion of everything about a person, for `flask forget`."""

import time

from database import connected, db, limit_time, transaction
from maintenance import unused_files
from maintenance.deletion import delete_session, sweep
from models import Session
from tables.idempotency import IdempotencyKey
from tables.ledger import RateLimitHit, Usage

IMPORTS_TIMEOUT = 300  # seconds for which `forget` waits for imports in progress


def forget(owner: str) -> int | None:
    """Delete everything about an owner, except the sums of usage, which lose the name. Returns how
    many sessions there were, or None if nothing was stored."""
    sweep()  # abandoned sessions may be this owner's
    count = _delete_all_of(owner)
    _wait_for_imports()
    count += _delete_all_of(owner)
    found = bool(count)
    found |= bool(unused_files.forget(owner))
    with connected():
        for table in (RateLimitHit, IdempotencyKey):
            deletion = table.delete().where(table.owner == owner)
            found |= bool(transaction(deletion.execute)())
        # Again until nothing is found: a process may be counting a reply that was in progress.
        while Usage.forget(owner):
            found = True
            time.sleep(1)
            limit_time()
        db.discard()  # SQLite removes its extra files (-wal, -shm) when the last connection closes
    return count if found else None


def _delete_all_of(owner: str) -> int:
    """Delete all sessions of an owner. Returns how many there were."""
    with connected():
        ids = [session.id for session in Session.select(Session.id).where(Session.owner == owner)]
    for session_id in ids:
        delete_session(session_id)
    return len(ids)


def _wait_for_imports() -> None:
    """Wait until the imports and forks that are in progress now have an owner, or are gone."""
    has_no_owner = Session.owner == "", ~Session.writer.is_null()
    with connected():
        ids = [row.id for row in Session.select(Session.id).where(*has_no_owner)]
    until = time.monotonic() + IMPORTS_TIMEOUT
    while ids and time.monotonic() < until:
        time.sleep(1)
        with connected():
            left = Session.select(Session.id).where(Session.id.in_(ids), *has_no_owner)
            ids = [row.id for row in left]
