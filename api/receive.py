"""Asking for a reply, and receiving it as the client wants: whole, as a stream, or deferred."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from flask import Response, current_app, g, request, url_for
from marshmallow import Schema, ValidationError
from werkzeug import exceptions
from werkzeug.http import parse_dict_header, parse_list_header

import database
import limits
import schemas
from api import errors, events, hooks
from api.services import services, step_aside
from llm import UnknownModel
from models import FAILED, Missing, Session
from replies import Feed, ReplyRequest
from replies.titles import local_title
from tables.idempotency import IdempotencyKey

NAMED = 10  # models that the sentence about one that is gone names
STREAM = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def load_body(schema: Schema, required: bool = True) -> dict[str, Any]:
    """The body as this schema loads it. Raises ValidationError, or UnsupportedMediaType where it is
    not called JSON."""
    if not g.body and not required:
        return {}
    if not request.is_json:
        raise exceptions.UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    try:
        return schema.loads(g.body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValidationError(_why_no_json(error)) from None


class _NoJSON(ValueError):
    """The text says what of a body is no JSON."""


def _refuse_constant(name: str) -> NoReturn:
    """NaN and the infinities are Python's own."""
    raise _NoJSON(name)


def _why_no_json(error: Exception) -> str:
    """What to send in the place of a body that Python's reader of JSON refuses by this error."""
    valid = "Send one valid JSON value in UTF-8"
    if not g.body:
        return "Send a JSON value: the body is empty."
    match error:
        case _NoJSON():
            return f"{valid}: {error} is no JSON."
        case UnicodeDecodeError():
            place = f"byte {error.start} of the body, counted from 0"
            return f"{valid}: {place}, is not UTF-8 ({error.object[error.start]:#04x})."
        case json.JSONDecodeError():
            # Python says "Expecting ',' delimiter", "Invalid control character at".
            problem = error.msg.removesuffix(" at").rstrip(": ")
            return f"{valid}. At line {error.lineno}, column {error.colno}: {problem}."
        case RecursionError():
            return f"{valid}: this one is nested too deeply."
        case _:  # `int` refuses so many digits
            return f"{valid}, with numbers of at most {sys.get_int_max_str_digits()} digits."


def without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Those fields that are given: null is the same as leaving one out, also within another."""
    given = {
        name: without_nulls(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return {name: value for name, value in given.items() if value not in (None, {})}


def idempotency_key(body: dict[str, Any]) -> IdempotencyKey | None:
    """The key under which the client asks."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255:
        problem = {"Idempotency-Key": ["Give from 1 to 255 characters."]}
        raise ValidationError(problem, source="header")
    # However the client spelled it: a UUID may be in capitals.
    path = url_for(request.endpoint, **request.view_args)
    return IdempotencyKey.sent(g.user, path, key, json.dumps(body, sort_keys=True).encode())


def preferences() -> tuple[bool, int]:
    """By the header Prefer (RFC 7240): whether the answer is deferred at once, and how many seconds
    the reply is waited for."""
    preferred, allowed = {}, current_app.config["REPLY_WAIT"]
    # Of two with one name, the first counts.
    for each in reversed(parse_list_header(request.headers.get("Prefer", ""))):
        preferred |= parse_dict_header(each.lower().partition(";")[0])
    if "respond-async" in preferred:
        return True, 0
    wait = preferred.get("wait") or ""
    return False, min(allowed, int(wait)) if re.fullmatch("[0-9]{1,9}", wait) else allowed


def wants_stream() -> bool:
    types = ["application/json", "text/event-stream"]
    return request.accept_mimetypes.best_match(types) == "text/event-stream"


def make_reply(
    session: Session | None, body: dict[str, Any], retry: bool = False, goes_on: bool = False
) -> Any:
    """Have the model reply, in this session or in a new one (None), and answer in the way the
    client wants to receive it."""
    body = without_nulls(body)
    wanted = reply_request(session, body, retry=retry, goes_on=goes_on)
    is_new, streams = session is None, wants_stream()
    is_async, wait = preferences()
    with contextlib.ExitStack() as stack:
        if streams:
            stack.enter_context(services().streams.slot(g.user))
        elif wait:
            try:
                stack.enter_context(services().held.slot(g.user))
            except limits.Overloaded:
                wait = 0  # it is answered at once
        # The connection is given back before the request waits.
        with database.turn_to_store(wanted.content), database.db.connection_context():
            session, feed = services().replies.start(wanted, streams, g.pop("memory"))
        del body, wanted, g.body  # it may be large, and the reply take long
        endpoint = "api.show_session" if is_new else "api.follow_events"
        headers = {"Location": url_for(endpoint, session_id=session.id)}
        if streams:
            position = feed.start if goes_on else 0
            made = session if is_new else None
            frames = events.frames(feed, position, session=made, patience=patience())
            return stream(stack, feed, frames, 201 if is_new else 200, headers)
        if is_async:
            headers["Preference-Applied"] = "respond-async"
        return answer(session, feed, is_new, is_async, wait, headers)


def reply_request(
    session: Session | None, body: dict[str, Any], retry: bool, goes_on: bool
) -> ReplyRequest:
    """What is asked for. Raises UnknownModel, ModelError or ValidationError."""
    key = idempotency_key(body)
    chosen = choose_model(key, body, session)
    content, new = body.pop("content", None), None
    if session is None:
        new = body | {"title": local_title(content)} | chosen
    database.db.close()  # others may have the connection while a long text is normalized
    return ReplyRequest(
        owner=g.user,
        content=content,
        new=new,
        session_id=session.id if session else None,
        retry=retry,
        goes_on=goes_on,
        key=key,
        rate_limit=current_app.config["RATE_LIMIT"],
        token_limit=current_app.config["TOKEN_LIMIT"],
        request_id=g.id,
        tells_reasons=g.is_operator,
    )


def choose_model(
    key: IdempotencyKey | None, body: dict[str, Any], session: Session | None
) -> dict[str, str]:
    """The model of a new session, and its provider's name; that of another session is held against
    what is served by now. Nothing where the key is known, whose outcome is there. Raises
    UnknownModel, or ModelError where no provider tells the default."""
    if key is not None and key.is_known():
        return {}
    catalog = services().catalog
    if session:
        try:
            catalog.allow(session.model, session.provider)
        except UnknownModel as error:
            raise UnknownModel(describe_gone(session)) from error
        return {}
    left = database.remaining()
    model = body.get("model") or catalog.default()
    provider = catalog.allow(model)
    # What a provider took that was asked for its list is none of the database's time.
    database.limit_time(left)
    return {"model": model, "provider": provider.name}


def describe_gone(session: Session) -> str:
    """What a client is told whose session has a model that is not served any more."""
    database.db.close()  # others may have the connection while providers are asked for their lists
    served = services().catalog.known()
    named = ", ".join(served[:NAMED]) or "GET /models lists them"
    rest = f" and {len(served) - NAMED} more" if len(served) > NAMED else ""
    url = url_for("api.change_session", session_id=session.id)
    return (
        f"{session.model}, the model of this session, is not served any more. "
        f"Give it another one by PATCH {url}: {named}{rest}."
    )


def answer(
    session: Session,
    feed: Feed,
    is_new: bool,
    is_async: bool,
    wait: float,
    headers: dict[str, str],
) -> Any:
    """The answer once the reply is over; after so many seconds a deferred one: it is followed on
    the session's events."""
    request.environ.get("parley.has_read", int)()  # our server then lets go of the body
    step_aside()
    hooks.leave_line()
    turn = feed.wait(wait)
    if feed.over == "deleted":
        raise Missing("The session was deleted while its reply was being written.")
    if feed.over == "undone":
        raise database.Unavailable("a failover has lost the reply and its message")
    if turn and not is_async:
        if turn.status == FAILED:
            failure = turn.error_status, turn.error_message, turn.retry_after, turn.error_pointer
            return errors.model_failure(*failure, session_id=session.id)
        if not is_new:
            return schemas.dump_turn(turn), 201
    if not is_new:
        return {"accepted": True}, 202, headers
    session.title = feed.told.title or session.title
    return schemas.created_session_schema.dump(session), 201, headers


def patience() -> float:
    """How long the frames of a stream may wait for news: not at all where the server wants to be
    woken by them."""
    return 0 if request.environ.get("parley.wake") else events.KEEPALIVE_INTERVAL


def stream(
    stack: contextlib.ExitStack,
    feed: Feed,
    frames: Iterator[bytes],
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """The event stream of these frames of a feed. What is in the stack is left when it ends."""
    stack.enter_context(feed.streaming())
    stack.enter_context(feed.waking(request.environ.get("parley.wake")))
    response = Response(
        errors.guarded(frames, g.id),
        status,
        (headers or {}) | STREAM,
        mimetype="text/event-stream",
    )
    response.call_on_close(stack.pop_all().close)
    return response
