"""Retention: delete sessions that have not been used for RETENTION_DAYS.

There are safeguards, since a typo, a wrong clock or an old backup could delete everybody's chats.
Nothing is deleted until a day after the setting was set or lowered, or after a gap in which no
server has watched the clock; and for one more day if more than half of all sessions are due.
"""

from typing import NamedTuple

from peewee import Expression, fn

from database import SECOND, SchemaVersion, connected, db, transaction
from logs import log
from maintenance.deletion import delete_sessions
from models import Session, Turn
from tables.columns import time_of

DAY = 24 * 3600 * SECOND  # in microseconds, as all times in the database
DRIFT = 60 * SECOND  # by which a clock may be set back and still counts as right


class Plan(NamedTuple):
    """When sessions are deleted, and how many."""

    begins: int
    has_begun: bool
    due: int  # sessions


def note_setting(days: int | None) -> str | None:
    """At the start of a server, store the setting (None: sessions are kept for ever). Returns a
    sentence that says how many sessions are due, and when they are deleted."""
    with connected():
        plan = _plan(days) if days else None
        if plan is None:
            _forget_setting()
        db.discard()  # a process forked from this one must not share the connection
    if plan is None:
        return None
    due = f"{plan.due} session{' is' if plan.due == 1 else 's are'} due"
    return f"{due}, unused for {days} days; deletion begins at {time_of(plan.begins)}"


def sweep(days: int | None) -> None:
    """Delete the sessions that are due, if the grace period is over, and log how many."""
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
    finally:  # also after a failure of the database
        log.info("retention", {"days": days, "deleted": count})


def _plan(days: int) -> Plan:
    due = Session.select().where(_is_due(days)).count()
    is_most = 2 * due > Session.select().where(Session.owner != "").count()
    begins, has_begun = _store_setting(days, is_most)
    return Plan(begins, has_begun, due)


def _is_due(days: int) -> Expression:
    """The condition that a session was not used for so many days, has an owner, and has no reply in
    progress."""
    in_progress = Turn.select(Turn.id).where(Turn.session == Session.id, Turn.is_in_progress())
    until = db.now() - days * DAY
    is_new_here = fn.COALESCE(Session.imported_at, 0) >= until
    unused = (Session.owner != "") & (Session.updated_at < until) & ~is_new_here
    return unused & ~fn.EXISTS(in_progress)


@transaction
def _store_setting(days: int, is_most: bool) -> tuple[int, bool]:
    """Store the setting, and that the clock was watched now. `is_most` says that more than half of
    all sessions are due. Returns when deletion begins, and whether it has begun."""
    kept, now = SchemaVersion.select().first(), db.now()
    since, most_since = kept.retention_since, kept.most_due_since
    if since is None or days < kept.retention_days:
        if since is None and kept.retention_days is not None:
            _warn("the database was restored or moved", now)
        since, most_since = now, None
    elif not _is_watched(kept, now):
        since, most_since = now, None
        _warn("no server ran for a day, or the clock was set back", now)
    if not is_most:
        most_since = None
    elif most_since is None and now >= since + DAY:
        most_since = now
        _warn("more than half of all sessions are due", now)
    noted = {"retention_days": days, "retention_since": since, "most_due_since": most_since}
    SchemaVersion.update(noted | {"watched_at": now}).execute()
    begins = max(since, most_since or 0) + DAY
    if is_most and most_since is None:
        begins += DAY
    return begins, now >= begins


def _warn(why: str, now: int) -> None:
    text = "RETENTION_DAYS: %s: nothing is deleted before %s"
    log.warning(text, why, time_of(now + DAY))


def _is_watched(kept: SchemaVersion, now: int) -> bool:
    """Whether a server has stored the time within the last day, and the clock has not been set back
    since."""
    latest = kept.watched_at or 0
    return now - DAY < latest <= now + DRIFT and kept.retention_since <= now + DRIFT


@transaction
def _forget_setting() -> None:
    """Forget the setting, which is gone: if it comes back, its grace period begins again."""
    forgotten = {"retention_days": None, "retention_since": None, "most_due_since": None}
    if SchemaVersion.select(SchemaVersion.retention_days).scalar() is not None:
        SchemaVersion.update(forgotten).execute()
