"""Retention: sessions that were not used for so many days are deleted, for the first time a day
after the setting was made or lowered. One digit too few would else be everybody's history."""

from peewee import Expression, fn

from database import SECOND, SchemaVersion, connected, db, transaction
from logs import log
from models import Session, Turn
from tables.shown import time_of
from upkeep.deletion import delete_sessions

DAY = 24 * 3600 * SECOND  # in microseconds, as all times in the database
GRACE = DAY


def begin(days: int | None) -> str | None:
    """As a server starts: note for how many days sessions are kept, if they are not kept for ever.
    Returns a sentence: how many are due, and when they go."""
    with connected():
        since = _note(days)
        count = Session.select().where(_is_due(days)).count() if days else 0
        db.discard()  # a process that forks from this one must not share it
    if not days:
        return None
    begins = time_of(since + GRACE)
    due = f"{count} session{' is' if count == 1 else 's are'} due"
    return f"{due}, unused for {days} days; what is due goes from {begins} on"


def sweep(days: int | None) -> None:
    """Delete the sessions that are due, if the day of grace is over, and log how many there
    were."""
    if not days:
        return
    with connected():
        kept = SchemaVersion.select().first()
        # Another process was started without the setting, or this start could not note its own.
        since = _note(days) if _deletes_more(days, kept) else kept.retention_since
        if db.now() < since + GRACE:
            return
        due = _is_due(days)
    count = 0
    try:
        for is_taken in delete_sessions(due):
            count += is_taken
    finally:  # also where the database has gone meanwhile
        log.info("retention", {"days": days, "deleted": count})


def _deletes_more(days: int, kept: SchemaVersion) -> bool:
    """Whether the setting was made or lowered since it was noted."""
    return kept.retention_since is None or days < kept.retention_days


def _is_due(days: int) -> Expression:
    """Nobody has used it for so many days, it is not being deleted, and no reply is under way."""
    under_way = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.under_way())
    until = db.now() - days * DAY
    is_new_here = fn.COALESCE(Session.imported_at, 0) >= until
    unused = (Session.owner != "") & (Session.updated_at < until) & ~is_new_here
    return unused & ~fn.EXISTS(under_way)


@transaction
def _note(days: int | None) -> int | None:
    """Store the setting, where it has changed; returns since when so much may be deleted."""
    kept = SchemaVersion.select().first()
    since = kept.retention_since
    if days is None:
        since = None
    elif _deletes_more(days, kept):
        since = db.now()
    if (days, since) != (kept.retention_days, kept.retention_since):
        kept.retention_days, kept.retention_since = days, since
        kept.save()
    return since
