"""How many bytes each user has stored: the texts of their turns, and what models have thought.

The number is kept with each session. An import or a fork stores it; after a reply, the sweeper
counts anew. It holds for the `updated_at` that it was counted for, so it does not matter which
release of Parley has used the session since.
"""

import time
import uuid

from peewee import SQL, fn

from database import connected, db, transaction
from logs import log
from models import Refused, Session, Thought, Turn
from upkeep.deletion import PAUSE

AT_ONCE = 100  # sessions that are counted in one step
ON_DISK = 4  # bytes that one of a text may take until it is stored: it is searched, too, and logged


def check_room(owner: str, size: int, limit: int) -> None:
    """Raises Refused if so many bytes more are too many for this owner, of whom `limit` is the most
    (0: any number), or for the disk."""
    with connected():
        used, room = _stored(owner), db.room()
    if limit and used + size > limit:
        raise Refused(
            f"This has {size:,} bytes, and you have stored {used:,} of {limit:,}. "
            "Delete chats that you do not need.",
            status=413,
        )
    if ON_DISK * size > room:
        log.warning("the disk has no room for a chat of %d bytes: %d are free", size, room)
        raise Refused(
            "The server's disk has no room for this. Tell the person who runs it.",
            retry_after=60,
            status=503,
        )


def _stored(owner: str) -> int:
    # Either engine uses a partial index only if the statement has its condition.
    counted = Session.owner == owner, SQL("size IS NOT NULL")
    return int(Session.select(fn.SUM(Session.size)).where(*counted).scalar() or 0)


def count_all() -> None:
    """Count the sessions that were used since they were counted, but for those with a reply in
    progress."""
    rows = _uncounted(None)
    while rows:
        with connected():
            _store(rows)
        time.sleep(PAUSE)
        rows = _uncounted(rows[-1].id)


def _uncounted(last: uuid.UUID | None) -> list[Session]:
    """Some of these sessions, after this one, each with what it has."""
    turns = Turn.select(fn.SUM(db.size_of(Turn.content))).where(Turn.session == Session.id)
    of_thoughts = Thought.select(fn.SUM(db.size_of(Thought.text))).join(Turn)
    thoughts = of_thoughts.where(Turn.session == Session.id)
    counted = fn.COALESCE(turns, 0) + fn.COALESCE(thoughts, 0)
    is_counted = Session.sized_at.is_null(False) & (Session.sized_at == Session.updated_at)
    in_progress = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.under_way())
    query = Session.select(Session.id, Session.updated_at, counted.alias("counted")).where(
        Session.owner != "", ~is_counted, ~fn.EXISTS(in_progress)
    )
    if last is not None:
        query = query.where(Session.id > last)
    with connected():
        return list(query.order_by(Session.id).limit(AT_ONCE))


@transaction
def _store(rows: list[Session]) -> None:
    for row in rows:
        # One that was used meanwhile is counted by the next sweep.
        is_same = Session.id == row.id, Session.updated_at == row.updated_at
        counted = {"size": int(row.counted or 0), "sized_at": row.updated_at}
        db.send(Session.update(counted).where(*is_same))
