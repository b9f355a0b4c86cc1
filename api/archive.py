"""Exports, imports and forks, from the request to the answer."""

import contextlib
import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

from flask import Response, current_app, g, request, url_for
from marshmallow import EXCLUDE, Schema, ValidationError, fields

import limits
import turns
from api import hooks
from api.contract import parse_body
from api.import_schema import TOO_MANY, has_too_many_values, load_import
from api.receive import idempotency_key, without_nulls
from api.services import release_slot, services
from database import db
from formats.common import LeftOut
from models import Session
from schemas import about
from tables.files import UnknownFile
from transfer import exports, forks, imports
from transfer.exports import Cursor

NDJSON = "application/x-ndjson"
MARKDOWN = "text/markdown; charset=utf-8"
EXAMPLE = {
    "title": "Geography",
    "created_at": "2023-03-06T16:00:00Z",
    "origin": "chatgpt:1",
    "turns": [
        {"kind": "user", "content": "Where is Ulm?"},
        {"kind": "assistant", "content": "On the Danube.", "model": "gpt-4o"},
    ],
}
SMALL_DOCUMENT = 2**20  # bytes; a document up to this size is sent as a whole
EXPORT_WAIT = 5  # seconds for the exports of others
CURSOR = re.compile(r"([0-9]{1,18})-([0-9a-f]{32})", re.ASCII)


class CursorField(fields.Field):
    """Where a page of an export begins."""

    default_error_messages = {"invalid": "Take it from the Link header of the page before."}

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> Cursor:
        match = CURSOR.fullmatch(value)
        if match is None:
            raise self.make_error("invalid")
        return Cursor(int(match[1]), uuid.UUID(match[2]))


class ExportPageSchema(Schema):
    class Meta:
        unknown = EXCLUDE  # other parameters are ignored

    after = CursorField(
        data_key="page[after]",
        metadata=about(
            "Where the page begins: take it from the `Link` header of the page before.",
            type="string",
            pattern="^[0-9]{1,18}-[0-9a-f]{32}$",
        ),
    )


def export(after: Cursor | None) -> Response:
    """A page of the user's export, after this cursor."""
    hooks.reserve_memory(exports.PAGE_SIZE, memory_per_byte=1)
    with services().held.slot(g.user):
        release_slot()
        hooks.leave_line()
        with services().exports.slot(g.user, EXPORT_WAIT):
            page = exports.read_page(g.user, after, limits.import_size(current_app.config))
    headers = {}
    if page.next_after:
        cursor = f"{page.next_after.created_at}-{page.next_after.id.hex}"
        following = url_for("api.show_export", **{"page[after]": cursor})
        headers["Link"] = f'<{following}>; rel="next"'
    size = sum(map(len, page.pieces))
    if page.rest is not None:
        response = _streamed(itertools.chain(page.pieces, page.rest), NDJSON, headers)
    else:
        response = Response(page.pieces, headers=headers, content_type=NDJSON)
        response.content_length = size
    hooks.keep_memory(response, size)
    return response


def wants_markdown() -> bool:
    types = ["application/json", "text/markdown"]
    return request.accept_mimetypes.best_match(types) == "text/markdown"


def show_markdown(session: Session) -> Response:
    """The session as a Markdown document."""
    size = turns.size_of_all(session.key)
    db.close()  # each piece is read with a connection of its own
    pieces, headers = exports.markdown_of(session), {"Vary": "Accept"}
    if size > SMALL_DOCUMENT:
        return _streamed(pieces, MARKDOWN, headers)
    hooks.reserve_memory(size)
    return Response(list(pieces), headers=headers, content_type=MARKDOWN)


def _streamed(pieces: Iterator[bytes], content_type: str, headers: dict[str, str]) -> Response:
    """An answer whose pieces are read from the database as the client reads them. Raises Overloaded
    if the user has too many of them open."""
    slot = limits.Slot(services().documents, g.user)
    if not slot.take(1):
        raise limits.Overloaded
    response = Response(pieces, headers=headers, content_type=content_type)
    response.call_on_close(slot.close)
    return response


@contextlib.contextmanager
def _import_slot() -> Iterator[None]:
    """The slot of an import or a fork. Raises Overloaded if none is free."""
    refusal = (
        "Another import or fork is in progress, yours or another user's. Try again in a moment."
    )
    with services().imports.slot(g.user, refusal=refusal):
        release_slot()
        yield


def import_body() -> tuple[Session, int, dict[str, str]]:
    """Import the session in the body, which is parsed only when this import has its slot."""
    with _import_slot():
        if has_too_many_values(g.body):
            raise ValidationError(TOO_MANY)
        loaded = load_import(parse_body(), g.user)
        # The body may be large: drop it here, and in our server.
        del g.body
        request.environ.get("parley.on_request_read", int)()
        limit = current_app.config["STORAGE_LIMIT"]
        try:
            session, is_new = imports.import_session(
                g.user, loaded.fields, services().catalog, limit
            )
        except UnknownFile as error:
            raise UnknownFile(loaded.place_of(error.pointer)) from None
    if not is_new:
        return _session_answer(session, 200)
    return _session_answer(session, 201, _left_out_header(loaded.left_out))


def _left_out_header(left_out: LeftOut) -> dict[str, str]:
    """`Left-Out` counts what was not imported, as a dictionary of RFC 9651: `files=3, tools=2`."""
    kinds = zip(("files", "tools", "branches"), left_out, strict=True)
    counts = [f"{kind}={count}" for kind, count in kinds if count]
    return {"Left-Out": ", ".join(counts)} if counts else {}


def fork(session_id: uuid.UUID, body: dict[str, Any]) -> tuple[Session, int, dict[str, str]]:
    """Copy the session up to the turn that the body names."""
    body = without_nulls(body)
    key, config = idempotency_key(body), current_app.config
    limits_of_user = config["STORAGE_LIMIT"], config["RATE_LIMIT"]
    with _import_slot():
        forked = forks.fork(g.user, session_id, body.get("turn"), *limits_of_user, key)
    return _session_answer(forked, 201)


def _session_answer(
    session: Session, status: int, headers: dict[str, str] | None = None
) -> tuple[Session, int, dict[str, str]]:
    location = {"Location": url_for("api.show_session", session_id=session.id)}
    return session, status, location | (headers or {})
