"""Importing a session: what it says of itself is kept, and what it does not say is made."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from peewee import SQL, BigIntegerField

from database import SECOND, connected, db, insertion
from llm import Catalog, UnknownModel
from models import COMPLETE, FAILED, PREVIEW, Missing, Session, Thought, Turn, outcome_of
from replies.claim import new_turn_id
from replies.titles import local_title
from tables.search import normalize
from upkeep import copies, storage

WHY = "It failed where it was written."  # a reply that does not say so itself
OWN = "parley:"  # origins that are sessions of an export

Fields = dict[str, Any]  # what a client gives, as `api/import_schema.py` loads it


class _IsThere(Exception):
    """The user has a session of this origin already."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session


def take(owner: str, given: Fields, catalog: Catalog, storage_limit: int) -> tuple[Session, bool]:
    """Store a session that was given as the owner's. Returns it, and whether it is new: otherwise
    it is the one that was imported from this origin before. Raises Refused if the owner, or the
    disk, has no room for it; ModelError if no provider tells the default model."""
    origin = given.get("origin")
    try:
        with connected():
            _refuse_known(owner, origin)
            now = db.now()
        size = sum(
            len(text.encode())
            for turn in given["turns"]
            for text in (turn["content"], thoughts_of(turn))
        )
        storage.check_room(owner, size, storage_limit)
        session = _session_of(given, catalog, now)
        turns = _turns_of(given, session, now)
        steps = (_step(some) for some in copies.in_steps(turns, _size_of))
        return copies.write(owner, session, steps, size, lambda: _settle(owner, session)), True
    except _IsThere as known:
        return known.session, False


def _refuse_known(owner: str, origin: str | None) -> None:
    """Raises _IsThere where the owner has the session that was imported from there, or that is
    itself what was exported."""
    if origin is None:
        return
    # Either engine uses a partial index only where the statement has its condition.
    is_its = Session.origin == origin, SQL("origin IS NOT NULL AND owner <> ''")
    known = Session.get_or_none(Session.owner == owner, *is_its)
    if known is None and origin.startswith(OWN):
        with contextlib.suppress(ValueError, Missing):
            known = Session.get_owned(owner, uuid.UUID(origin.removeprefix(OWN)))
    if known:
        raise _IsThere(known)


def _settle(owner: str, session: Session) -> dict[str, int]:
    """Its times, which are of whole seconds: behind those of the owner's sessions that are of the
    same second, so that what was imported in an order keeps it."""
    _refuse_known(owner, session.origin)
    return {
        field.name: _behind_others(owner, field, getattr(session, field.name))
        for field in (Session.created_at, Session.updated_at)
    }


def _behind_others(owner: str, field: BigIntegerField, time: int) -> int:
    if time % SECOND:
        return time
    last = time + SECOND - 1  # of this second
    is_same = Session.owner == owner, field.between(time, last)
    latest = Session.select(field).where(*is_same).order_by(field.desc()).limit(1).scalar()
    return time if latest is None else min(latest + 1, last)


def _session_of(given: Fields, catalog: Catalog, now: int) -> Session:
    turns = given["turns"]
    created_at, updated_at = _times_of(given, now)
    title = given.get("title") or local_title(turns[0]["content"])
    texts = [turn["content"] for turn in turns if turn["content"]]
    options = given.get("options") or {}
    return Session(
        title=title,
        title_is_users=bool(given.get("title_is_users")),
        search_title=normalize(title),
        **_served(given.get("model"), catalog),
        system=given.get("system"),
        options={name: value for name, value in options.items() if value is not None},
        preview=texts[-1][:PREVIEW],
        created_at=created_at,
        updated_at=updated_at,
        origin=given.get("origin"),
    )


def _times_of(given: Fields, now: int) -> tuple[int, int]:
    """When the session was made, and last used: by default when its turns were."""
    times = [turn["created_at"] for turn in given["turns"] if turn.get("created_at") is not None]
    created_at, updated_at = given.get("created_at"), given.get("updated_at")
    if created_at is None:
        created_at = times[0] if times else now
    if updated_at is None:
        updated_at = max([created_at, *times])
    return min(created_at, now), min(updated_at, now)


def _served(model: str | None, catalog: Catalog) -> dict[str, str]:
    """This model, or the default where it is not served here; and its provider's name."""
    if model is not None:
        with contextlib.suppress(UnknownModel):
            return {"model": model, "provider": catalog.allow(model).name}
    default = catalog.default()
    return {"model": default, "provider": catalog.allow(default).name}


def _turns_of(given: Fields, session: Session, now: int) -> Iterator[Turn]:
    """The turns, without ids. One that has no time has that of the turn before it."""
    time = session.created_at
    for turn in given["turns"]:
        said = turn.get("created_at")
        time = time if said is None else min(said, now)
        row = Turn(
            session=session,
            kind=turn["kind"],
            content=turn["content"],
            search_text=normalize(turn["content"]),
            created_at=time,
        )
        if turn["kind"] == "assistant":
            row.model = turn.get("model") or given.get("model") or session.model
            _end(row, turn)
            _set_thinking(row, turn)
        yield row


def thoughts_of(turn: Fields) -> str:
    """The text of its thinking, as far as it has any."""
    return (turn.get("thinking") or {}).get("text", "")


def _set_thinking(row: Turn, turn: Fields) -> None:
    row.thoughts = thoughts_of(turn)
    if row.thoughts:
        row.thinking_characters = len(row.thoughts)
        row.thinking_milliseconds = turn["thinking"].get("seconds") or 0


def _end(row: Turn, turn: Fields) -> None:
    """How a reply ended, and what it used."""
    status = turn.get("status") or COMPLETE
    if status == FAILED:
        error = turn.get("error") or {"status": 502, "message": WHY}
        outcome = outcome_of(status, error["status"], error["message"])
    else:
        stop_reason = turn.get("stop_reason") if status == COMPLETE else None
        outcome = outcome_of(status, stop_reason=stop_reason)
    for name, value in (outcome | (turn.get("usage") or {})).items():
        setattr(row, name, value)


def _size_of(turn: Turn) -> int:
    texts = turn.content, turn.search_text, turn.thoughts
    return sum(len(text.encode()) for text in texts)


def _step(turns: list[Turn]) -> copies.Step:
    def step(session: Session, last: int) -> int:
        now = db.now()
        for turn in turns:
            turn.id = last = new_turn_id(now, last)
        db.send(insertion(*turns))
        thoughts = [
            Thought(turn=turn, start=0, text=turn.thoughts) for turn in turns if turn.thoughts
        ]
        if thoughts:
            db.send(insertion(*thoughts))
        return last

    return step
