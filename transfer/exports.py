"""Exports: an owner's sessions as lines of JSON, or one session as Markdown. They are made in
pieces, so that a large export is never in memory as a whole."""

import base64
import contextlib
import functools
import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from peewee import Tuple, Value, fn

from database import connected, db, limit_time
from files import files_of
from models import IN_PROGRESS, INTERRUPTED, Missing, Session, Thought, Turn, TurnFile
from tables.columns import seconds_of, time_of
from tables.files import FilePart, StoredFile
from turns import EXPORTED, ShownTurn, pages_of, size_of_all

FORMAT = 3  # the version in the header of a file of all sessions
READABLE = (2, 3)  # versions that can be imported; 2 has no thinking
PAGE_SIZE = 8 * 2**20  # bytes of lines in one answer, at most
ENOUGH = 2 * 2**20  # bytes; a page that has more gets no further line
PAGE_SESSIONS = 500
READ_SIZE = 2**19  # bytes that are read with one connection
ESCAPED = 1.25  # bytes in JSON for each byte of a text, at most


class Cursor(NamedTuple):
    """The place of a session in an export, which has the oldest first."""

    created_at: int
    id: uuid.UUID


class LinePart(NamedTuple):
    """A part of a line; empty for a session that has just been deleted."""

    data: bytes
    ends_line: bool


T = TypeVar("T", bytes, LinePart)


class Page(NamedTuple):
    """Lines of an export."""

    pieces: list[bytes]
    rest: Iterator[bytes] | None  # of a single line that is longer than a page, not made yet
    next_after: Cursor | None  # the cursor of the last line, if more follow


def read_page(owner: str, after: Cursor | None, longest: int) -> Page:
    """The lines of the sessions after this cursor, or from the first: as many as a page has room
    for, but at least one if there are any. An import may have `longest` bytes: thinking is left out
    of a line that would be longer."""
    while True:
        with contextlib.suppress(Missing):  # a session was deleted while it was read: start again
            return _read_page(owner, after, longest)


def _read_page(owner: str, after: Cursor | None, longest: int) -> Page:
    cursors = _cursors(owner, after)
    pieces: list[bytes] = []
    size = whole = count = 0  # bytes; the pieces, and the sessions, of complete lines
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
    next_after = cursors[count - 1] if 0 < count < len(cursors) else None
    return Page(pieces[:whole], rest, next_after)


def lines_of(owner: str, longest: int) -> Iterator[LinePart]:
    """All lines of an owner's export, in pieces. Before the first session that has a file, there is
    a line with the file, which no part ends. Raises Missing if a session is deleted while it is
    read."""
    after = None
    exported: set[int] = set()  # files
    while cursors := _cursors(owner, after):
        yield from _in_short_reads(_lines(owner, cursors, longest, exported))
        after = cursors[-1]


def markdown_of(session: Session) -> Iterator[bytes]:
    """A session as a document, in pieces: its title, and the unchanged text of each turn under its
    speaker and time. Raises Missing if it is deleted while it is read."""
    return _in_short_reads(_document(session))


def _document(session: Session) -> Iterator[bytes]:
    yield f"# {' '.join(session.title.split())}\n".encode()
    for turns in pages_of(session.key):
        yield b"".join(part for turn in turns for part in _section(turn))
    _check_not_deleted(session)


def _section(turn: ShownTurn) -> tuple[bytes, ...]:
    """The parts of a turn's section, encoded one by one, since a text may be long."""
    speaker = "User" if turn.kind == "user" else " ".join((turn.model or "").split())
    labels = "".join(f"{file.label}\n\n" for file in files_of(turn.files))
    head = f"\n## {speaker}, {time_of(turn.created_at)}\n\n{labels}"
    return head.encode(), turn.content.encode(), b"\n"


def _cursors(owner: str, after: Cursor | None) -> list[Cursor]:
    """The cursors of the next sessions, one more than a page has."""
    columns = Session.created_at, Session.id
    query = Session.select(*columns).where(Session.owner == owner)
    if after is not None:
        key = Session.id.db_value(after.id)
        query = query.where(Tuple(*columns) > Tuple(Value(after.created_at), Value(key)))
    with connected():
        return [Cursor(*row) for row in query.order_by(*columns).limit(PAGE_SESSIONS + 1).tuples()]


def _in_short_reads(pieces: Iterator[T]) -> Iterator[T]:
    """These pieces, which read the database as they are made. No connection is held while the
    caller sends them."""
    while True:
        with connected():
            some = list(_next_pieces(pieces))
            db.drop_page_cache()
        if not some:
            return
        yield from some


def _next_pieces(pieces: Iterator[T]) -> Iterator[T]:
    """The next pieces, with about READ_SIZE bytes together."""
    size = 0
    for part in pieces:
        yield part
        size += len(part.data if isinstance(part, LinePart) else part)
        if size > READ_SIZE:
            return


def _rest_of_line(pieces: Iterator[LinePart]) -> Iterator[bytes]:
    for part in pieces:
        yield part.data
        if part.ends_line:
            return


def _lines(
    owner: str, cursors: list[Cursor], longest: int, exported: set[int] | None = None
) -> Iterator[LinePart]:
    """The lines of these sessions, in pieces. If there is a set of the files that are `exported`
    already, the lines of others come first. Raises Missing if a session is deleted while it is
    read."""
    for cursor in cursors:
        limit_time()
        try:
            session = Session.get_owned(owner, cursor.id)
            pages = pages_of(session.key)
            first = next(pages)
        except (Missing, StopIteration):  # it has been deleted
            yield LinePart(b"", True)
            continue
        if exported is not None:
            yield from _file_lines(session, exported)
        session.read_system()
        yield LinePart(_json_of(_fields_of(session))[:-1] + b',"turns":[', False)
        comma = b""
        # Computed only if a turn has thinking.
        has_thinking_from = functools.cache(
            functools.partial(_first_with_thinking, session, longest)
        )
        for turns in itertools.chain([first], pages):
            for some in _dumped_turns(turns, has_thinking_from):
                yield LinePart(comma + some, False)
                comma = b","
        _check_not_deleted(session)
        yield LinePart(b"]}\n", True)


def _file_lines(session: Session, exported: set[int]) -> Iterator[LinePart]:
    """The lines of the files of this session, except those that are `exported`."""
    of_session = TurnFile.select(TurnFile.file).join(Turn)
    of_session = of_session.where(Turn.session == session.id, Turn.visible)
    files = StoredFile.select().where(StoredFile.id.in_(of_session)).order_by(StoredFile.id)
    for stored in list(files):
        if stored.id not in exported:
            exported.add(stored.id)
            begin = {"file": stored.digest, "media_type": stored.media_type}
            data = base64.b64encode(FilePart.read(stored.id))
            yield LinePart(b'%s,"data":"%s"}\n' % (_json_of(begin)[:-1], data), False)


def _check_not_deleted(session: Session) -> None:
    """Raises Missing if the session was deleted, in which case the last turns may be missing."""
    Session.get_owned(session.owner, session.id)


def _first_with_thinking(session: Session, longest: int) -> int:
    """The first turn whose thinking a line has, so that the line is not longer than an import may
    be; 0 if it has all thinking."""
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
    """These turns in pieces. Thinking may be long, so no piece has that of two turns."""
    some: list[bytes] = []
    for turn in turns:
        dumped = EXPORTED.dump(turn)
        if turn.status == IN_PROGRESS:
            dumped["status"] = INTERRUPTED  # the line has only a part of it
        has_thinking = bool(turn.thinking_characters) and turn.id >= has_thinking_from()
        if has_thinking and (text := Thought.text_of(turn.id)):
            seconds = seconds_of(turn.thinking_milliseconds or 0)
            dumped["thinking"] = {"text": text, "seconds": seconds}
        some.append(_json_of(dumped))
        if has_thinking:
            yield b",".join(some)
            some = []
    if some:
        yield b",".join(some)


def _json_of(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _fields_of(session: Session) -> dict[str, Any]:
    return {
        "id": str(session.id),
        "title": session.title,
        "title_is_users": session.title_is_users,
        "model": session.model,
        "system": session.system,
        "options": session.options,
        "created_at": time_of(session.created_at),
        "updated_at": time_of(session.updated_at),
        "pinned": session.pinned,
    }
