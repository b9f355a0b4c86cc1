"""Exporting: an owner's sessions as lines of JSON, and one session as Markdown; in pieces, read as
they are wanted, so that no more is held than one of them."""

import contextlib
import functools
import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from peewee import Tuple, Value, fn

from database import connected, db, limit_time
from models import IN_PROGRESS, INTERRUPTED, Missing, Session, Thought, Turn
from tables.ledger import SAID
from tables.shown import ShownTurn, pages_of, size_of_all, time_of

PAGE_SIZE = 8 * 2**20  # bytes of the lines that are answered at once
ENOUGH = 2 * 2**20  # bytes of a page to which no further line is added
PAGE_SESSIONS = 500
READ_SIZE = 2**19  # bytes for which a connection is held
ESCAPED = 1.25  # times the bytes of a text that it may have in JSON


class Cursor(NamedTuple):
    """Where a session stands in an export, which has the oldest first."""

    created_at: int
    id: uuid.UUID


class Part(NamedTuple):
    """Of a line; of one that was deleted meanwhile there is nothing."""

    data: bytes
    ends_line: bool


T = TypeVar("T", bytes, Part)


class Page(NamedTuple):
    """Lines of an export. The `rest` is to be made, of a single line that is longer than a page.
    What follows is `behind` this cursor, if anything does."""

    pieces: list[bytes]
    rest: Iterator[bytes] | None
    behind: Cursor | None


def read_page(owner: str, after: Cursor | None, longest: int) -> Page:
    """The lines of the sessions behind this cursor, or from the first on: as many as a page has
    room for, but at least one, if there is any. An import may have `longest` bytes: thinking that
    would make a line longer is left out."""
    while True:
        with contextlib.suppress(Missing):  # a session was deleted in its middle
            return _read_page(owner, after, longest)


def _read_page(owner: str, after: Cursor | None, longest: int) -> Page:
    cursors = _cursors(owner, after)
    pieces: list[bytes] = []
    size = whole = count = 0  # of all bytes; pieces, and sessions, of whole lines
    rest = None
    read = _in_short_reads(_lines(owner, cursors[:PAGE_SESSIONS], longest))
    for part in read:
        pieces.append(part.data)
        size += len(part.data)
        if size > PAGE_SIZE:
            if not whole:
                rest = None if part.ends_line else _rest_of_line(read)
                whole, count = len(pieces), count + 1
            break
        if part.ends_line:
            whole, count = len(pieces), count + 1
            if size > ENOUGH:
                break
    behind = cursors[count - 1] if 0 < count < len(cursors) else None
    return Page(pieces[:whole], rest, behind)


def lines_of(owner: str, longest: int) -> Iterator[bytes]:
    """All lines of an owner's export, in pieces. Raises Missing where a session is deleted in its
    middle."""
    after = None
    while cursors := _cursors(owner, after):
        yield from (part.data for part in _in_short_reads(_lines(owner, cursors, longest)))
        after = cursors[-1]


def markdown_of(session: Session) -> Iterator[bytes]:
    """A session as a document, in pieces: its title, and each turn under its speaker and time, as
    it is. Raises Missing where it is deleted in its middle."""
    return _in_short_reads(_document(session))


def _document(session: Session) -> Iterator[bytes]:
    yield f"# {' '.join(session.title.split())}\n".encode()
    for turns in pages_of(session.key):
        yield b"".join(part for turn in turns for part in _section(turn))
    _check_is_there(session)


def _section(turn: ShownTurn) -> tuple[bytes, ...]:
    """Its parts, since a text may be long: each is encoded by itself."""
    speaker = "User" if turn.kind == "user" else " ".join((turn.model or "").split())
    head = f"\n## {speaker}, {time_of(turn.created_at)}\n\n"
    return head.encode(), turn.content.encode(), b"\n"


def _cursors(owner: str, after: Cursor | None) -> list[Cursor]:
    """Those of the next sessions, of one more than a page has."""
    columns = Session.created_at, Session.id
    query = Session.select(*columns).where(Session.owner == owner)
    if after is not None:
        key = Session.id.db_value(after.id)
        query = query.where(Tuple(*columns) > Tuple(Value(after.created_at), Value(key)))
    with connected():
        return [Cursor(*row) for row in query.order_by(*columns).limit(PAGE_SESSIONS + 1).tuples()]


def _in_short_reads(pieces: Iterator[T]) -> Iterator[T]:
    """These pieces, which read the database. No connection is held while one is sent."""
    while True:
        with connected():
            some = list(_some(pieces))
            db.forget_read()
        if not some:
            return
        yield from some


def _some(pieces: Iterator[T]) -> Iterator[T]:
    """The next of these pieces, until they have so many bytes as are read at once."""
    size = 0
    for part in pieces:
        yield part
        size += len(part.data if isinstance(part, Part) else part)
        if size > READ_SIZE:
            return


def _rest_of_line(pieces: Iterator[Part]) -> Iterator[bytes]:
    for part in pieces:
        yield part.data
        if part.ends_line:
            return


def _lines(owner: str, cursors: list[Cursor], longest: int) -> Iterator[Part]:
    """The lines of these sessions, in pieces. Raises Missing where one is deleted in its middle."""
    for cursor in cursors:
        limit_time()
        is_its = Session.owner == owner, Session.id == cursor.id
        session = Session.select(*Session.short_columns()).where(*is_its).first()
        pages = pages_of(session.key) if session else iter(())
        first = next(pages, None)
        if first is None:  # it was deleted meanwhile
            yield Part(b"", True)
            continue
        session.read_system()
        yield Part(_dumped(_head_of(session))[:-1] + b',"turns":[', False)
        comma = b""
        # Asked only if a model has thought at all.
        has_thinking_from = functools.cache(
            functools.partial(_first_with_thinking, session, longest)
        )
        for turns in itertools.chain([first], pages):
            for some in _dumped_turns(turns, has_thinking_from):
                yield Part(comma + some, False)
                comma = b","
        _check_is_there(session)
        yield Part(b"]}\n", True)


def _check_is_there(session: Session) -> None:
    """Raises Missing where the last turns may have been deleted before they were read."""
    Session.get_owned(session.owner, session.id)


def _first_with_thinking(session: Session, longest: int) -> int:
    """The id of the turn from which on a line has thinking, so that it is not longer than an import
    may be: 0 if it has all."""
    left = longest - ESCAPED * (size_of_all(session.key) + session.system_size)
    size = fn.SUM(db.size_of(Thought.text))
    sizes = Thought.select(Thought.turn, size).join(Turn).where(Turn.session == session.id)
    for turn_id, bytes_of_thoughts in (
        sizes.group_by(Thought.turn).order_by(Thought.turn.desc()).tuples()
    ):
        left -= ESCAPED * bytes_of_thoughts
        if left < 0:
            return turn_id + 1
    return 0


def _dumped_turns(turns: list[ShownTurn], has_thinking_from: Callable[[], int]) -> Iterator[bytes]:
    """These turns in pieces, since what a model has thought may be long: none has that of two."""
    some: list[bytes] = []
    for turn in turns:
        dumped = _dump(turn)
        has_thinking = bool(turn.thinking_characters) and turn.id >= has_thinking_from()
        if has_thinking:
            dumped |= _thinking_of(turn)
        some.append(_dumped(dumped))
        if has_thinking:
            yield b",".join(some)
            some = []
    if some:
        yield b",".join(some)


def _dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _head_of(session: Session) -> dict[str, Any]:
    return {
        "id": str(session.id),
        "title": session.title,
        "title_is_users": session.title_is_users,
        "model": session.model,
        "system": session.system,
        "options": session.options,
        "created_at": time_of(session.created_at),
        "updated_at": time_of(session.updated_at),
    }


def _dump(turn: ShownTurn) -> dict[str, Any]:
    said = {
        "id": str(turn.id),
        "kind": turn.kind,
        "content": turn.content,
        "created_at": time_of(turn.created_at),
    }
    if turn.kind == "user":
        return said
    # One that goes on has not ended, though its row has how it did before.
    has_ended = turn.status != IN_PROGRESS
    has_failed = has_ended and turn.error_status is not None
    error = {"status": turn.error_status, "message": turn.error_message} if has_failed else None
    return said | {
        "model": turn.model,
        "status": turn.status if has_ended else INTERRUPTED,
        "stop_reason": turn.stop_reason if has_ended else None,
        "usage": {name: getattr(turn, name) for name in SAID},
        "error": error,
    }


def _thinking_of(turn: ShownTurn) -> dict[str, Any]:
    """What its model has thought, as a member of its turn; nothing if that is not kept."""
    text, seconds = Thought.text_of(turn.id), (turn.thinking_milliseconds or 0) / 1000
    return {"thinking": {"text": text, "seconds": round(seconds, 1)}} if text else {}
