"""Import a session: keep the fields that it has, and make those that are missing."""

import contextlib
import functools
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from peewee import SQL, BigIntegerField

from database import SECOND, connected, db, insertion
from files import File, FileRef, column_of
from llm import Catalog, UnknownModel
from maintenance import storage
from models import COMPLETE, FAILED, Missing, Session, Thought, Turn, TurnFile, outcome_of
from replies.claim import new_turn_id, preview_of
from replies.titles import first_title
from tables.files import UnknownFile, keep, owned
from tables.search import normalize
from transfer import staged_session
from turns import EXPORTED

NO_ERROR = "It failed on another server."  # the error of a failed reply that has none
OWN = "parley:"  # begins the origin of a session from an export of Parley

Fields = dict[str, Any]  # a session or a turn, as `api/import_schema.py` loads it


class _AlreadyImported(Exception):
    """The user already has the session of this origin."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session


def import_session(
    owner: str, fields: Fields, catalog: Catalog, storage_limit: int
) -> tuple[Session, bool]:
    """Store this session for the owner. Returns the session, and whether it is new: if not, it was
    imported from this origin before. Raises UnknownFile if the owner does not have one of its
    files; Refused if the owner, or the disk, has no room for it; ModelError if no provider names a
    default model."""
    origin = fields.get("origin")
    try:
        with connected():
            _refuse_repeated(owner, origin)
            files = _known_files(owner, fields["turns"])
            now = db.now()
        size = sum(
            len(text.encode())
            for turn in fields["turns"]
            for text in (turn["content"], thoughts_of(turn))
        )
        storage.check_room(owner, size, storage_limit)
        session = _session_of(fields, files, catalog, now)
        turns = _turns_of(fields, session, now)
        steps = (_step(owner, some) for some in staged_session.in_steps(turns, _size_of))
        last_changes = functools.partial(_last_changes, owner, session)
        return staged_session.write(owner, session, steps, size, last_changes), True
    except _AlreadyImported as known:
        return known.session, False


def _refuse_repeated(owner: str, origin: str | None) -> None:
    """Raises _AlreadyImported if the owner already has the session that was imported from this
    origin, or the exported session itself."""
    if origin is None:
        return
    # SQLite and PostgreSQL use a partial index only if the statement has its condition.
    is_its = Session.origin == origin, SQL("origin IS NOT NULL AND owner <> ''")
    known = Session.get_or_none(Session.owner == owner, *is_its)
    if known is None and origin.startswith(OWN):
        with contextlib.suppress(ValueError, Missing):
            known = Session.get_owned(owner, uuid.UUID(origin.removeprefix(OWN)))
    if known:
        raise _AlreadyImported(known)


def _known_files(owner: str, turns: list[Fields]) -> dict[str, File]:
    """The files of these turns, by their ids. Raises UnknownFile for the first that the owner does
    not have."""
    found = owned(owner, (ref.id for turn in turns for ref in files_of(turn)))
    for number, turn in enumerate(turns):
        for place, ref in enumerate(files_of(turn)):
            if ref.id not in found:
                raise UnknownFile(f"{_pointer_to(number)}/{place}")
    return found


def files_of(turn: Fields) -> list[FileRef]:
    """The files of a turn, as the request names them."""
    return turn.get("files") or []


def _pointer_to(number: int) -> str:
    """The place of the list of files of a turn in the body of an import."""
    return f"/turns/{number}/files"


def _last_changes(owner: str, session: Session) -> dict[str, Any]:
    """Whether the session is pinned, and its times. Imported times have whole seconds: each is
    moved after those of the owner's other sessions in the same second, so that sessions keep the
    order of their import."""
    _refuse_repeated(owner, session.origin)
    times = {
        field.name: _after_others(owner, field, getattr(session, field.name))
        for field in (Session.created_at, Session.updated_at)
    }
    return times | {"pinned": session.pinned and Session.can_pin(owner)}


def _after_others(owner: str, field: BigIntegerField, time: int) -> int:
    if time % SECOND:
        return time
    last = time + SECOND - 1  # of this second
    is_same = Session.owner == owner, field.between(time, last)
    latest = Session.select(field).where(*is_same).order_by(field.desc()).limit(1).scalar()
    return time if latest is None else min(latest + 1, last)


def _session_of(fields: Fields, files: Mapping[str, File], catalog: Catalog, now: int) -> Session:
    turns = fields["turns"]
    created_at, updated_at = _times_of(fields, now)
    title = fields.get("title") or first_title(turns[0]["content"])
    newest = next(turn for turn in reversed(turns) if turn["content"] or files_of(turn))
    options = fields.get("options") or {}
    return Session(
        title=title,
        title_is_users=bool(fields.get("title_is_users")),
        pinned=bool(fields.get("pinned")),
        search_title=normalize(title),
        **_model_and_provider(fields.get("model"), catalog),
        system=fields.get("system"),
        options={name: value for name, value in options.items() if value is not None},
        preview=preview_of(newest["content"], column_of(files[ref.id] for ref in files_of(newest))),
        created_at=created_at,
        updated_at=updated_at,
        origin=fields.get("origin"),
    )


def _times_of(fields: Fields, now: int) -> tuple[int, int]:
    """When the session was created and last used, by default the times of its turns."""
    times = [turn["created_at"] for turn in fields["turns"] if turn.get("created_at") is not None]
    created_at, updated_at = fields.get("created_at"), fields.get("updated_at")
    if created_at is None:
        created_at = times[0] if times else now
    if updated_at is None:
        updated_at = max([created_at, *times])
    return min(created_at, now), min(updated_at, now)


def _model_and_provider(model: str | None, catalog: Catalog) -> dict[str, str]:
    """This model, or the default if it is not served here, and the name of its provider."""
    if model is not None:
        with contextlib.suppress(UnknownModel):
            return {"model": model, "provider": catalog.allow(model).name}
    default = catalog.default()
    return {"model": default, "provider": catalog.allow(default).name}


def _turns_of(fields: Fields, session: Session, now: int) -> Iterator[Turn]:
    """The turns, without ids. A turn without a time gets that of the turn before it."""
    time = session.created_at
    for number, turn in enumerate(fields["turns"]):
        own_time = turn.get("created_at")
        time = time if own_time is None else min(own_time, now)
        # `_step` sets the id and the files.
        columns = EXPORTED.load(turn) | {"id": None, "files": None, "created_at": time}
        row = Turn(**columns, session=session, search_text=normalize(turn["content"]))
        row.file_refs, row.pointer = files_of(turn), _pointer_to(number)
        if row.kind == "assistant":
            row.model = row.model or fields.get("model") or session.model
            _set_outcome(row)
            _set_thinking(row, turn)
        yield row


def thoughts_of(turn: Fields) -> str:
    """The text of a turn's thinking, or ""."""
    return (turn.get("thinking") or {}).get("text", "")


def _set_thinking(row: Turn, turn: Fields) -> None:
    row.thoughts = thoughts_of(turn)
    if row.thoughts:
        row.thinking_characters = len(row.thoughts)
        row.thinking_milliseconds = turn["thinking"].get("seconds") or 0


def _set_outcome(row: Turn) -> None:
    """Set how a reply ended. Only a complete one has a stop reason, and only a failed one an
    error."""
    status = row.status or COMPLETE
    if status == FAILED:
        error = (row.error_status, row.error_message) if row.error_status else (502, NO_ERROR)
        outcome = outcome_of(status, *error)
    else:
        outcome = outcome_of(status, stop_reason=row.stop_reason if status == COMPLETE else None)
    for name, value in outcome.items():
        setattr(row, name, value)


def _size_of(turn: Turn) -> int:
    alts = (ref.alt for ref in turn.file_refs)
    texts = turn.content, turn.search_text, turn.thoughts, *alts
    return sum(len(text.encode()) for text in texts)


def _step(owner: str, turns: list[Turn]) -> staged_session.Step:
    def step(session: Session, last: int) -> int:
        now = db.now()
        files: list[TurnFile] = []
        for turn in turns:
            turn.id = last = new_turn_id(now, last)
            # Again: a sweep may have deleted one meanwhile.
            stored = keep(owner, turn.file_refs, turn.pointer)
            turn.files = column_of(each.file for each in stored)
            files += TurnFile.rows(turn.id, stored)
        db.send(insertion(*turns))
        thoughts = [
            Thought(turn=turn, start=0, text=turn.thoughts) for turn in turns if turn.thoughts
        ]
        if thoughts:
            db.send(insertion(*thoughts))
        if files:
            db.send(insertion(*files))
        return last

    return step
