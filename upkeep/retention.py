"""Retention: sessions that nobody has used for so many days are deleted.

A digit too few, a clock that is wrong, or an old backup would otherwise delete everybody's chats.
So the first deletion comes a day after the setting was made or lowered, and after each time in
which no server has watched the clock; and another day later if more than half of all sessions are
due.
"""

from typing import NamedTuple

from peewee import Expression, fn

from database import SECOND, SchemaVersion, connected, db, transaction
from logs import log
from models import Session, Turn
from tables.shown import time_of
from upkeep.deletion import delete_sessions

DAY = 24 * 3600 * SECOND  # in microseconds, as all times in the database
DRIFT = 60 * SECOND  # by which a clock may be set back without being taken for a wrong one


class Plan(NamedTuple):
    """What is to be deleted, and from when on."""

    begins: int
    has_begun: bool
    due: int  # sessions


def begin(days: int | None) -> str | None:
    """As a server starts: note for how many days sessions are kept, if they are not kept for ever.
    Returns a sentence: how many are due, and when they go."""
    with connected():
        plan = _plan(days) if days else None
        if plan is None:
            _forget()
        db.discard()  # a process that forks from this one must not share it
    if plan is None:
        return None
    due = f"{plan.due} session{' is' if plan.due == 1 else 's are'} due"
    return f"{due}, unused for {days} days; what is due goes from {time_of(plan.begins)} on"


def sweep(days: int | None) -> None:
    """Delete the sessions that are due, if the days of grace are over, and log how many there
    were."""
    if not days:
        return
    with connected():
        if not _plan(days).has_begun:
            return
        due = _is_due(days)
    count = 0
    try:
        for is_taken in delete_sessions(due):
            count += is_taken
    finally:  # also if the database has gone meanwhile
        log.info("retention", {"days": days, "deleted": count})


def _plan(days: int) -> Plan:
    due = Session.select().where(_is_due(days)).count()
    is_most = 2 * due > Session.select().where(Session.owner != "").count()
    begins, has_begun = _note(days, is_most)
    return Plan(begins, has_begun, due)


def _is_due(days: int) -> Expression:
    """Nobody has used it for so many days, it is not being deleted, and no reply is in progress."""
    in_progress = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.under_way())
    until = db.now() - days * DAY
    is_new_here = fn.COALESCE(Session.imported_at, 0) >= until
    unused = (Session.owner != "") & (Session.updated_at < until) & ~is_new_here
    return unused & ~fn.EXISTS(in_progress)


@transaction
def _note(days: int, is_most: bool) -> tuple[int, bool]:
    """Note the setting, and that the clock was watched now. `is_most`: more than half of all
    sessions are due. Returns from when on they are deleted, and whether that has come."""
    kept, now = SchemaVersion.select().first(), db.now()
    since, most_since = kept.retention_since, kept.most_due_since
    if since is None or days < kept.retention_days:
        since, most_since = now, None
    elif not _is_watched(kept, now):
        since, most_since = now, None
        text = "nobody has watched the clock for a day, or it was set: nothing is deleted before %s"
        log.warning("RETENTION_DAYS: " + text, time_of(now + DAY))
    if not is_most:
        most_since = None
    elif most_since is None and now >= since + DAY:
        most_since = now
        text = "more than half of all sessions are due: nothing is deleted before %s"
        log.warning("RETENTION_DAYS: " + text, time_of(now + DAY))
    noted = {"retention_days": days, "retention_since": since, "most_due_since": most_since}
    SchemaVersion.update(noted | {"watched_at": now}).execute()
    begins = max(since, most_since or 0) + DAY
    if is_most and most_since is None:
        begins += DAY
    return begins, now >= begins


def _is_watched(kept: SchemaVersion, now: int) -> bool:
    """Whether a server has looked at the clock within the last day, and the clock has not been set
    back since."""
    latest = kept.watched_at or 0
    return now - DAY < latest <= now + DRIFT and kept.retention_since <= now + DRIFT


@transaction
def _forget() -> None:
    """The setting is not made any more: if it is made again, it has a day of grace."""
    forgotten = {"retention_days": None, "retention_since": None, "most_due_since": None}
    if SchemaVersion.select(SchemaVersion.retention_since).scalar() is not None:
        SchemaVersion.update(forgotten).execute()
