"""Ask for a reply, and answer with it as the client wants: whole, as a stream, or deferred."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from flask import Response, current_app, g, request, url_for
from marshmallow import ValidationError
from werkzeug.http import parse_dict_header, parse_list_header

import database
import limits
from api import errors, events, hooks
from api.services import release_slot, services
from llm import UnknownModel
from models import FAILED, Missing, Session
from replies import Feed, ReplyRequest
from replies.titles import first_title
from tables.idempotency import IdempotencyKey

NAMED = 10  # models that the error about a model that is gone suggests
STREAM = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """These fields without those that are null, at any depth: null means the same as no field."""
    cleaned = {
        name: without_nulls(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return {name: value for name, value in cleaned.items() if value not in (None, {})}


def idempotency_key(body: dict[str, Any]) -> IdempotencyKey | None:
    """The client's `Idempotency-Key`, if it sent one. Raises ValidationError."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255:
        problem = {"Idempotency-Key": ["Give from 1 to 255 characters."]}
        raise ValidationError(problem, source="header")
    # Not `request.path`: the client may have written the UUID in capitals.
    path = url_for(request.endpoint, **request.view_args)
    return IdempotencyKey.sent(g.user, path, key, json.dumps(body, sort_keys=True).encode())


def preferences() -> tuple[bool, int]:
    """The header `Prefer` (RFC 7240): whether to answer at once, before the reply is complete, and
    how many seconds to wait for the reply otherwise."""
    preferred, allowed = {}, current_app.config["REPLY_WAIT"]
    # If a preference is there twice, the first counts.
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
    session: Session | None, body: dict[str, Any], retry: bool = False, continues_last: bool = False
) -> Any:
    """Have the model reply, in this session or in a new one (None), and answer as the client
    prefers. Empties `body`."""
    fields = without_nulls(body)
    body.clear()  # it may be large, and the callers refer to it until the request ends
    wanted = reply_request(session, fields, retry=retry, continues_last=continues_last)
    is_new, streams = session is None, wants_stream()
    is_async, wait = preferences()
    with contextlib.ExitStack() as stack:
        if streams:
            stack.enter_context(services().streams.slot(g.user))
        elif wait:
            try:
                stack.enter_context(services().held.slot(g.user))
            except limits.Overloaded:
                wait = 0
        # The request has no connection to the database while it waits.
        with database.long_write_lock(wanted.content), database.db.connection_context():
            session, feed = services().replies.start(wanted, streams, g.pop("memory"))
        del fields, wanted, g.body  # the reply may take long
        endpoint = "api.show_session" if is_new else "api.follow_events"
        headers = {"Location": url_for(endpoint, session_id=session.id)}
        if streams:
            position = feed.start if continues_last else 0
            made = session if is_new else None
            frames = events.frames(
                feed, position, session=made, patience=patience(), for_operator=g.is_operator
            )
            return stream(stack, feed, frames, 201 if is_new else 200, headers)
        if is_async:
            headers["Preference-Applied"] = "respond-async"
        return answer(session, feed, is_new, is_async, wait, headers)


def reply_request(
    session: Session | None, body: dict[str, Any], retry: bool, continues_last: bool
) -> ReplyRequest:
    """The request for a reply that this body makes. Raises UnknownModel, ModelError or
    ValidationError."""
    key, config = idempotency_key(body), current_app.config
    chosen = choose_model(key, body, session)
    content, files, new = body.pop("content", None), body.pop("files", None), None
    if session is None:
        new = body | {"title": first_title(content)} | chosen
    database.db.close()  # others may have the connection while a long text is normalized
    return ReplyRequest(
        owner=g.user,
        content=content,
        files=files,
        new=new,
        session_id=session.id if session else None,
        retry=retry,
        continues_last=continues_last,
        key=key,
        rate_limit=config["RATE_LIMIT"],
        token_limit=config["TOKEN_LIMIT"],
        request_id=g.id,
        shows_provider_errors=g.is_operator,
    )


def choose_model(
    key: IdempotencyKey | None, body: dict[str, Any], session: Session | None
) -> dict[str, str]:
    """The model of a new session, and the name of its provider. For an existing session, only
    checks that its model is still served. Does neither if the idempotency key was used before: then
    the outcome is stored. Raises UnknownModel, or ModelError if no provider names a default."""
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
    # The catalog may have asked a provider for its list: that is not the database's time.
    database.limit_time(left)
    return {"model": model, "provider": provider.name}


def describe_gone(session: Session) -> str:
    """The error about a session whose model is not served any more."""
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
    """The answer when the reply has ended, or after `wait` seconds a deferred one, whose client may
    follow the session's events. The route's schema dumps it."""
    request.environ.get("parley.on_request_read", int)()  # our server drops the body
    release_slot()
    hooks.leave_line()
    turn = feed.wait(wait)
    if feed.state == "deleted":
        raise Missing("The session was deleted while its reply was being written.")
    if feed.state == "undone":
        raise database.Unavailable("a failover has lost the reply and its message")
    if turn and not is_async:
        if turn.status == FAILED:
            error = turn.error_status, turn.error_message, turn.retry_after, turn.error_pointer
            return errors.model_failure(*error, turn.error_reason, session_id=session.id)
        if not is_new:
            return turn, 201
    if not is_new:
        return {"accepted": True}, 202, headers
    session.title = feed.progress.title or session.title
    return session, 201, headers


def patience() -> float:
    """How many seconds the frames of a stream may block for news: 0 under our server, whose loop is
    woken by the feed."""
    return 0 if request.environ.get("parley.wake") else events.KEEPALIVE_INTERVAL


def stream(
    stack: contextlib.ExitStack,
    feed: Feed,
    frames: Iterator[bytes],
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """The response that streams these frames of a feed. Closes the stack when the stream ends."""
    stack.enter_context(feed.streaming())
    stack.enter_context(feed.waking(request.environ.get("parley.wake")))
    response = Response(
        errors.log_failure(frames, g.id),
        status,
        (headers or {}) | STREAM,
        mimetype="text/event-stream",
    )
    response.call_on_close(stack.pop_all().close)
    return response
