"""How many bytes each user has stored: the texts of their turns, what models thought, and files.

Each session has its number. An import or a fork stores it; after replies, the sweeper counts again.
The number is valid for the `updated_at` at which it was counted, so an older release may use the
session in between.
"""

import time
import uuid

from peewee import SQL, fn

from database import connected, db, transaction
from logs import log
from maintenance.deletion import PAUSE
from models import Refused, Session, Thought, Turn
from tables.files import StoredFile

STEP_SESSIONS = 100  # that one step counts
ON_DISK = 4  # bytes on the disk for one of a text: with the text for searches, and SQLite's log


def check_room(owner: str, size: int, limit: int) -> None:
    """Raises Refused if `size` more bytes are too many for the limit of this owner (0: none), or
    for the disk."""
    with connected():
        used, room = _stored(owner), db.room()
    if limit and used + size > limit:
        raise Refused(
            f"This has {size:,} bytes, and you have stored {used:,} of {limit:,}. "
            "Delete chats that you do not need.",
            status=413,
        )
    if ON_DISK * size > room:
        log.warning("the disk has no room for a chat or file of %d bytes: %d are free", size, room)
        raise Refused(
            "The server's disk has no room for this. Tell the person who runs it.",
            retry_after=60,
            status=503,
        )


def _stored(owner: str) -> int:
    # SQLite and PostgreSQL use a partial index only if the statement has its condition.
    counted = Session.owner == owner, SQL("size IS NOT NULL")
    of_sessions = Session.select(fn.SUM(Session.size)).where(*counted).scalar() or 0
    return int(of_sessions) + StoredFile.size_of_all(owner)


def count_all() -> None:
    """Count the sessions that were used since they were last counted, except those with a reply in
    progress."""
    rows = _uncounted(None)
    while rows:
        with connected():
            _store(rows)
        time.sleep(PAUSE)
        rows = _uncounted(rows[-1].id)


def _uncounted(last: uuid.UUID | None) -> list[Session]:
    """The next sessions to count after this id, each with its number."""
    turns = Turn.select(fn.SUM(db.size_of(Turn.content))).where(Turn.session == Session.id)
    of_thoughts = Thought.select(fn.SUM(db.size_of(Thought.text))).join(Turn)
    thoughts = of_thoughts.where(Turn.session == Session.id)
    counted = fn.COALESCE(turns, 0) + fn.COALESCE(thoughts, 0)
    is_counted = Session.sized_at.is_null(False) & (Session.sized_at == Session.updated_at)
    in_progress = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.is_in_progress())
    query = Session.select(Session.id, Session.updated_at, counted.alias("counted")).where(
        Session.owner != "", ~is_counted, ~fn.EXISTS(in_progress)
    )
    if last is not None:
        query = query.where(Session.id > last)
    with connected():
        return list(query.order_by(Session.id).limit(STEP_SESSIONS))


@transaction
def _store(rows: list[Session]) -> None:
    for row in rows:
        # A session that was used in between is left to the next sweep.
        is_same = Session.id == row.id, Session.updated_at == row.updated_at
        counted = {"size": int(row.counted or 0), "sized_at": row.updated_at}
        db.send(Session.update(counted).where(*is_same))
