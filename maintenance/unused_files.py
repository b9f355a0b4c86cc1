"""Deletion of files: those that no turn has had for a day, and those of a person who is forgotten.

A file is taken from its owner first, so that no message can get it any more. Then its bytes are
deleted in steps."""

import time

from peewee import Expression, fn

from database import SECOND, connected, db, transaction
from maintenance.deletion import LONGEST_WRITE, PAUSE
from models import TurnFile
from tables.files import FilePart, StoredFile

KEPT = 24 * 3600 * SECOND  # for which a file is kept without a turn
STEP_FILES = 500  # that are looked at in one step
STEP_PARTS = 16  # that one step deletes


def sweep() -> None:
    """Note which files no turn has; delete those that have had none for a day, and what was left of
    uploads that did not come to their end."""
    _note_unused()
    with connected():
        now = db.now()
    is_old = StoredFile.unused_since <= now - KEPT
    is_left = (StoredFile.owner == "") & (StoredFile.unused_since <= now - LONGEST_WRITE)
    for condition in (is_old & ~_is_used(), is_left):
        with connected():
            ids = [file.id for file in StoredFile.select(StoredFile.id).where(condition)]
        for file_id in ids:
            delete(file_id, condition)


def forget(owner: str) -> int:
    """Delete all files of an owner that no turn has. Returns how many there were."""
    is_owned = (StoredFile.owner == owner) & ~_is_used()
    with connected():
        ids = [file.id for file in StoredFile.select(StoredFile.id).where(is_owned)]
    return sum(delete(file_id, is_owned) for file_id in ids)


def _is_used() -> Expression:
    return fn.EXISTS(TurnFile.select().where(TurnFile.file == StoredFile.id))


def _note_unused() -> None:
    """Note of each file whether a turn has it."""
    last, rows = 0, [0]
    while rows:
        with connected():
            now = db.now()
            query = StoredFile.select(StoredFile.id, StoredFile.unused_since, _is_used())
            some = query.where(StoredFile.id > last, StoredFile.owner != "")
            rows = list(some.order_by(StoredFile.id).limit(STEP_FILES).tuples())
            unused = [row[0] for row in rows if row[1] is None and not row[2]]
            used = [row[0] for row in rows if row[1] is not None and row[2]]
            if unused or used:
                _store(unused, used, now)
        last = rows[-1][0] if rows else last
        time.sleep(PAUSE)


@transaction
def _store(unused: list[int], used: list[int], now: int) -> None:
    # A message may have got it, or its turn may have gone, since it was looked at.
    db.lock_rows(StoredFile.select(StoredFile.id).where(StoredFile.id.in_(unused + used)))
    begins, ends = StoredFile.update(unused_since=now), StoredFile.update(unused_since=None)
    begins.where(StoredFile.id.in_(unused), ~_is_used()).execute()
    ends.where(StoredFile.id.in_(used), _is_used()).execute()


def delete(file_id: int, condition: Expression) -> bool:
    """Delete a file if this condition still holds. Returns whether it did."""
    with connected():
        is_taken = _take(file_id, condition)
    more = is_taken
    while more:
        with connected():
            more = _delete_parts(file_id)
        time.sleep(PAUSE)
    return is_taken


@transaction
def _take(file_id: int, condition: Expression) -> bool:
    # A message that is getting it has locked it. Afterwards, the condition sees the message.
    db.lock_rows(StoredFile.select(StoredFile.id).where(StoredFile.id == file_id))
    # Without an owner, and unused for ever: if we do not come to the end, the next sweep does.
    taken = StoredFile.update(owner="", unused_since=0).where(StoredFile.id == file_id, condition)
    return bool(taken.execute())


@transaction
def _delete_parts(file_id: int) -> bool:
    """Delete some parts of a file, and the file after its last. Returns whether there were any."""
    numbers = FilePart.select(FilePart.number).where(FilePart.file == file_id).limit(STEP_PARTS)
    count = (
        FilePart.delete().where(FilePart.file == file_id, FilePart.number.in_(numbers)).execute()
    )
    if not count:
        StoredFile.delete().where(StoredFile.id == file_id).execute()
    return bool(count)
