"""What is done for every request: it gets an id and a time, and its body is read.

A stranger costs no database and no body: `users` knows the user before either.
"""

import functools
import re
import time
import uuid
from typing import Any

from flask import Response, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from werkzeug import exceptions
from werkzeug.datastructures import MIMEAccept

import database
import limits
import logs
from api import users
from api.services import services, step_aside

# Bytes that one of a request's body may become until it is stored: the body, what is read of it,
# and what is searched, of which each may take four; or one of a session's turns until it is shown.
MADE_OF_A_BYTE = 10
CHUNKED = 2**20  # bytes that a body may have whose length is not known
ROOM_WAIT = 2  # seconds
LINE_WAIT = 5  # seconds
REQUEST_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)

EVERY_ANSWER = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# What the page of another origin may send, as its browser asks beforehand (for so many seconds).
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
    ),
    "Access-Control-Max-Age": "7200",
}
# What it may read besides an answer's body.
EXPOSED = {
    "Access-Control-Expose-Headers": ("Location, Retry-After, X-Request-ID, First-Turn-Sent, Link")
}
# What else than JSON and event streams is answered: where, and what its client accepts.
OTHER_TYPES = {
    "public.show_file": "*/*",
    "public.show_index": "text/html",
    "public.show_metrics": "text/plain",
    "api.show_session": "text/markdown",
    "api.show_export": "application/x-ndjson",
}


class JSON(DefaultJSONProvider):
    """Answers in UTF-8: escapes would take up to three times the bytes."""

    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        fields = self._prepare_response_obj(args, kwargs)
        dumps = functools.partial(self.dumps, fields, separators=(",", ":"))
        try:
            data = dumps(ensure_ascii=False).encode()
        except UnicodeEncodeError:  # of half a character, in what is quoted of a request
            data = dumps().encode()
        return Response(data + b"\n", mimetype=self.mimetype)


# Before any request


def begin_request() -> tuple | None:
    """Name the request, and know whether a page of its origin may read the answer. A preflight has
    its answer here."""
    g.began, g.user = time.monotonic(), None
    database.begin_request(reads=request.method == "GET")
    sent = request.headers.get("X-Request-ID", "")
    g.id = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
    g.origin = _allowed_origin()
    asks_method = "Access-Control-Request-Method" in request.headers
    is_preflight = request.method == "OPTIONS" and asks_method
    # A preflight is no user's: the request behind it is.
    g.is_by_proxy = not is_preflight and users.is_by_proxy()
    if g.origin and is_preflight:
        return "", 204, PREFLIGHT
    return None


def _allowed_origin() -> str | None:
    """What the answer says to a browser of the origin of the page that asks, where it may ask."""
    origin = request.headers.get("Origin", "")
    allowed = current_app.config["ALLOWED_ORIGINS"] or []
    if not origin:
        return None
    if "*" in allowed:
        return "*"
    return origin if origin.lower() in allowed else None


def check_request() -> tuple | None:
    """Refuse what has no path here, wants a WebSocket, or accepts no answer that there is. A prefix
    alone leads to the page."""
    path, prefix = request.environ["PATH_INFO"], request.script_root
    if prefix and not path:  # from there on, the page finds its files and the API
        return "", 308, {"Location": f"{prefix}/"}
    if "//" in path or (prefix and path[0] != "/"):
        # werkzeug would redirect to the host that the client names, or add and take slashes.
        raise exceptions.NotFound
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise exceptions.BadRequest(
            "This path takes no WebSocket. Send a plain request, Accept: text/event-stream for a "
            "stream."
        )
    # All is in UTF-8: "application/json; charset=utf-8" is for werkzeug another type, and none
    # here.
    types = [
        (kind.partition(";")[0].rstrip(), quality) for kind, quality in request.accept_mimetypes
    ]
    accept = request.accept_mimetypes = MIMEAccept(types)
    if accept and not _is_acceptable(accept):
        raise exceptions.NotAcceptable("Accept application/json or text/event-stream.")
    return None


def _is_acceptable(accept: MIMEAccept) -> bool:
    types = "application/json", "text/event-stream", OTHER_TYPES.get(str(request.endpoint))
    return any(accept[each] for each in types if each)


# Before a request of a user


def read_body() -> None:
    """Read the body, before any connection to the database is taken and its time begins. Where it
    has not all arrived, our server asks again once it has; one of development waits for it."""
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    if request.endpoint == "api.import_session":
        limit = limits.import_size(current_app.config)
    request.environ["parley.longest_body"] = limit  # so much our server receives of it
    # One byte more tells a chunked body that is too large from one that fits.
    request.max_content_length = limit + 1
    length = request.content_length or 0
    g.memory = limits.Slot(services().replies.memory, g.user)
    is_chunked = "Transfer-Encoding" in request.headers  # then its length is not known
    expected = min(limit, CHUNKED) if is_chunked else length
    waited = make_room(expected) if expected <= limit else 0
    try:
        g.body = request.stream.read(limit + 1) if length <= limit else b""
    except exceptions.ClientDisconnected:  # or its connection failed
        raise exceptions.BadRequest("The body did not arrive. Send it whole.") from None
    if max(length, len(g.body)) > limit:
        raise exceptions.RequestEntityTooLarge(f"Send at most {limit} bytes.")
    if len(g.body) < length:
        raise exceptions.BadRequest("The body ended before its Content-Length. Send it whole.")
    if is_chunked:
        waited += make_room(len(g.body))
    database.limit_time(database.WAIT - waited)


def stand_in_line() -> None:
    """Wait while too many requests of this user are being answered. Raises Overloaded."""
    line = services().lines.of(g.user, request.method)
    if not line.places.acquire(blocking=False):
        if not line.room.acquire(blocking=False):
            raise limits.Overloaded
        step_aside()
        has_place = line.places.acquire(timeout=LINE_WAIT)
        line.room.release()
        if not has_place:
            raise limits.Overloaded
    g.line = line


def leave_line() -> None:
    """The next request of this user is answered: this one is over, or waits, within limits of its
    own, for something that may take long."""
    if "line" in g:
        g.pop("line").places.release()


def make_room(size: int) -> float:
    """Have room for so many bytes of texts, and for what is made of them, until the request is
    answered; returns for how many seconds it was waited for. Raises Overloaded."""
    return take_room(MADE_OF_A_BYTE * size if size > limits.SMALL else 0)


def take_room(needed: int) -> float:
    """Have room for so many bytes, until the request is answered; returns for how many seconds it
    was waited for. Raises Overloaded."""
    began = time.monotonic()
    if not g.memory.take(needed):
        with services().held.slot(g.user):
            step_aside()
            if not g.memory.take(needed, ROOM_WAIT):
                raise limits.Overloaded
    return time.monotonic() - began


def keep_room(response: Response, size: int) -> None:
    """Have room for so many bytes of this answer for as long as the client takes to read it."""
    slot = g.pop("memory")
    slot.take(size)
    response.call_on_close(slot.close)


def leave(error: BaseException | None) -> None:
    """Give back what the request has of this process."""
    leave_line()
    if "memory" in g:
        g.memory.close()


# Behind any request


def end_request(response: Response) -> Response:
    response.headers.update({"X-Request-ID": g.id} | EVERY_ANSWER)
    response.headers.setdefault("Cache-Control", "no-store")  # files and streams have their own
    if current_app.config["ALLOWED_ORIGINS"]:
        response.vary.add("Origin")
    if g.is_by_proxy:
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    elif g.origin:
        response.headers.update({"Access-Control-Allow-Origin": g.origin} | EXPOSED)
    if response.status_code == 204:
        del response.headers["Content-Type"]
    response.call_on_close(_log_line(response.status_code))
    return response


def _log_line(status: int) -> functools.partial:
    """What logs this request when its response is closed, which may be long after it."""
    line = {"method": request.method, "path": request.path, "status": status}
    user = {"user": g.user, "id": g.id}
    why = {"why": g.why} if "why" in g else {}
    return functools.partial(_log, line, g.began, user | why)


def _log(line: dict[str, Any], began: float, rest: dict[str, Any]) -> None:
    seconds = round(time.monotonic() - began, 4)
    logs.log.info("request", line | {"seconds": seconds} | rest)


def close_database(error: BaseException | None) -> None:
    """Give the request's connection back to the pool, if it took one."""
    database.db.close()
