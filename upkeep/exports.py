"""Exporting: an owner's sessions as lines of JSON, and one session as Markdown; in pieces, read as
they are wanted, so that no more is held than one of them."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from peewee import Tuple, Value

from database import connected
from models import IN_PROGRESS, INTERRUPTED, Missing, Session
from tables.ledger import SAID
from tables.shown import ShownTurn, pages_of, time_of

PAGE_SIZE = 8 * 2**20  # bytes of the lines that are answered at once
PAGE_SESSIONS = 500


class Place(NamedTuple):
    """Where a session stands in an export, which has the oldest first."""

    created_at: int
    id: uuid.UUID


class Page(NamedTuple):
    """Some lines of an export, in pieces. The `rest` is to be made of a single line that is longer
    than a page. What follows is `behind` this place, if anything does."""

    pieces: list[bytes]
    rest: Iterator[bytes] | None
    behind: Place | None


def read_page(owner: str, after: Place | None) -> Page:
    """The lines of the sessions behind this place, or of the first: as many as a page has room for,
    but at least one, if there is any."""
    places = _places(owner, after)
    pieces: list[bytes] = []
    left, count = PAGE_SIZE, 0
    for place in places[:PAGE_SESSIONS]:
        line = _line_of(owner, place.id)
        made = list(_up_to(left, line))
        size = sum(map(len, made))
        if size > left and pieces:
            break
        pieces += made
        left -= size
        count += 1
        if size > PAGE_SIZE:
            behind = place if len(places) > 1 else None
            return Page(pieces, line, behind)
    behind = places[count - 1] if 0 < count < len(places) else None
    return Page(pieces, None, behind)


def lines_of(owner: str) -> Iterator[bytes]:
    """All lines of an owner's export, in pieces."""
    after = None
    while places := _places(owner, after):
        for after in places:
            yield from _line_of(owner, after.id)


def markdown_of(session: Session) -> Iterator[bytes]:
    """A session as a document: its title, and each turn under its speaker and time, as it is."""
    yield f"# {' '.join(session.title.split())}\n".encode()
    for turns in _pages(session):
        yield "".join(map(_section, turns)).encode()


def _section(turn: ShownTurn) -> str:
    speaker = "User" if turn.kind == "user" else turn.model
    return f"\n## {speaker}, {time_of(turn.created_at)}\n\n{turn.content}\n"


def _places(owner: str, after: Place | None) -> list[Place]:
    """Those of the next sessions, of one more than a page has."""
    columns = Session.created_at, Session.id
    query = Session.select(*columns).where(Session.owner == owner)
    if after is not None:
        key = Session.id.db_value(after.id)
        query = query.where(Tuple(*columns) > Tuple(Value(after.created_at), Value(key)))
    with connected():
        return [Place(*row) for row in query.order_by(*columns).limit(PAGE_SESSIONS + 1).tuples()]


def _up_to(size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """These pieces, until they have more bytes than these together, or end."""
    for piece in pieces:
        yield piece
        size -= len(piece)
        if size < 0:
            return


def _line_of(owner: str, session_id: uuid.UUID) -> Iterator[bytes]:
    """The line of a session, in pieces; none where it was deleted meanwhile."""
    with contextlib.suppress(Missing):
        with connected():
            session = Session.get_owned(owner, session_id)
        yield _dumped(_head_of(session))[:-1] + b',"turns":['
        comma = b""
        for turns in _pages(session):
            yield comma + b",".join(_dumped(_dump(turn)) for turn in turns)
            comma = b","
        yield b"]}\n"


def _pages(session: Session) -> Iterator[list[ShownTurn]]:
    """The turns of a session, in pages. None holds a connection longer than it is read."""
    pages = pages_of(session.key)
    while True:
        with connected():
            page = next(pages, None)
        if not page:
            return
        yield page


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
