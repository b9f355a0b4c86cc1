"""What is taken along: exports, imports and forks."""

import contextlib
import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

from flask import Response, current_app, g, request, url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

import limits
import schemas
from api import hooks
from api.import_schema import fork_schema, import_schema
from api.receive import idempotency_key, load_body, without_nulls
from api.services import services, step_aside
from database import db
from models import Session
from tables import shown
from upkeep import exports, forks, imports
from upkeep.exports import Cursor
from upkeep.values import TOO_MANY, has_too_many_values

NDJSON = "application/x-ndjson"
MARKDOWN = "text/markdown; charset=utf-8"
SMALL_DOCUMENT = 2**20  # bytes of one that is sent as a whole
EXPORT_WAIT = 5  # seconds
CURSOR = re.compile(r"([0-9]{1,18})-([0-9a-f]{32})", re.ASCII)


def show_export() -> ResponseReturnValue:
    """Export your sessions, the oldest first."""
    after = _cursor_of(request.args.get("page[after]"))
    hooks.take_room(exports.PAGE_SIZE)
    with services().held.slot(g.user):
        step_aside()
        hooks.leave_line()
        with services().exports.slot(g.user, EXPORT_WAIT):
            page = exports.read_page(g.user, after, limits.import_size(current_app.config))
    headers = {}
    if page.behind:
        cursor = f"{page.behind.created_at}-{page.behind.id.hex}"
        following = url_for("api.show_export", **{"page[after]": cursor})
        headers["Link"] = f'<{following}>; rel="next"'
    size = sum(map(len, page.pieces))
    if page.rest is not None:
        response = _in_pieces(itertools.chain(page.pieces, page.rest), NDJSON, headers)
    else:
        response = Response(page.pieces, headers=headers, content_type=NDJSON)
        response.content_length = size
    hooks.keep_room(response, size)
    return response


def _cursor_of(cursor: str | None) -> Cursor | None:
    if cursor is None:
        return None
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise ValidationError({"page[after]": ["Take it from the Link of the page before."]})
    return Cursor(int(match[1]), uuid.UUID(match[2]))


def wants_markdown() -> bool:
    types = ["application/json", "text/markdown"]
    return request.accept_mimetypes.best_match(types) == "text/markdown"


def show_markdown(session: Session) -> Response:
    """The session as a document."""
    size = shown.size_of_all(session.key)
    db.close()
    pieces, headers = exports.markdown_of(session), {"Vary": "Accept"}
    if size > SMALL_DOCUMENT:
        return _in_pieces(pieces, MARKDOWN, headers)
    hooks.make_room(size)
    return Response(list(pieces), headers=headers, content_type=MARKDOWN)


def _in_pieces(pieces: Iterator[bytes], content_type: str, headers: dict[str, str]) -> Response:
    """An answer whose pieces are read from the database as the client takes them."""
    slot = limits.Slot(services().documents, g.user)
    if not slot.take(1):
        raise limits.Overloaded
    response = Response(pieces, headers=headers, content_type=content_type)
    response.call_on_close(slot.close)
    return response


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """To write a session that is there already. Raises Overloaded where it is others' turn."""
    refusal = "Another import or fork is under way, of yours or of others. Ask again in a moment."
    with services().imports.slot(g.user, refusal=refusal):
        step_aside()
        yield


def import_session() -> ResponseReturnValue:
    """Import a session; no model is asked."""
    with _turn():
        if has_too_many_values(g.body):
            raise ValidationError(TOO_MANY)
        given = load_body(import_schema)
        del g.body  # it may be large
        request.environ.get("parley.has_read", int)()  # our server then lets go of it, too
        limit = current_app.config["STORAGE_LIMIT"]
        session, is_new = imports.take(g.user, given, services().catalog, limit)
    return _made(session, 201 if is_new else 200)


def fork_session(session_id: uuid.UUID) -> ResponseReturnValue:
    """Copy a session up to a turn."""
    body = without_nulls(load_body(fork_schema, required=False))
    key, config = idempotency_key(body), current_app.config
    limits_of_user = config["STORAGE_LIMIT"], config["RATE_LIMIT"]
    with _turn():
        forked = forks.fork(g.user, session_id, body.get("turn"), *limits_of_user, key)
    return _made(forked, 201)


def _made(session: Session, status: int) -> tuple[dict[str, Any], int, dict[str, str]]:
    location = url_for("api.show_session", session_id=session.id)
    return schemas.session_schema.dump(session), status, {"Location": location}
