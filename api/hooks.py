"""Before and after every request: its id, its limits, its body, its line in the log.

`users` authenticates before the database and the body are touched: an unauthenticated request
costs neither.
"""

import functools
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from flask import Response, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from werkzeug import exceptions
from werkzeug.datastructures import MIMEAccept

import database
import limits
import logs
from api import users
from api.services import release_slot, services

# Bytes of memory for each byte of a text: a body is in memory as it came, as it is parsed, and as
# it is searched, each with up to four bytes for one; a turn that is shown takes no more.
MEMORY_PER_BYTE = 10
MEMORY_PER_BYTE_OF_FILE = 3  # as it came, without what is cut off, and the parts that are stored
CHUNKED = 2**20  # bytes for which room is made if a body does not say its length
MEMORY_TIMEOUT = 2  # seconds for memory
LINE_TIMEOUT = 5  # seconds for the user's other requests
REQUEST_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)

ALL_ANSWERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# The answer to a browser that asks what a page of another origin may send (CORS).
PREFLIGHT_ANSWER = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
    ),
    "Access-Control-Max-Age": "7200",
}
# The headers of an answer that such a page may read.
EXPOSED_HEADERS = {
    "Access-Control-Expose-Headers": ("Location, Retry-After, X-Request-ID, First-Turn-Sent, Link")
}
# Endpoints that answer with other types than JSON or an event stream.
OTHER_TYPES = {
    "public.show_file": ("*/*",),
    "public.show_index": ("text/html",),
    "public.show_metrics": ("text/plain",),
    "api.show_session": ("text/markdown",),
    "api.show_export": ("application/x-ndjson",),
    "api.download_file": ("image/jpeg", "image/png"),
}


class JSON(DefaultJSONProvider):
    """Answers in UTF-8, without escapes, which take up to three times the bytes."""

    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        fields = self._prepare_response_obj(args, kwargs)
        dumps = functools.partial(self.dumps, fields, separators=(",", ":"))
        try:
            data = dumps(ensure_ascii=False).encode()
        except UnicodeEncodeError:  # a lone surrogate, in what is quoted of a request
            data = dumps().encode()
        return Response(data + b"\n", mimetype=self.mimetype)


# Before any request


def begin_request() -> tuple | None:
    """Give the request an id, and find out whether a page of its origin may read the answer. Answer
    a preflight request."""
    g.began, g.user = time.monotonic(), None
    method, headers = request.method, request.headers
    database.begin_request(reads=method == "GET")
    sent = headers.get("X-Request-ID", "")
    g.id = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
    origin = g.origin = _allowed_origin(headers.get("Origin"))
    is_preflight = method == "OPTIONS" and "Access-Control-Request-Method" in headers
    # A preflight has no user: only the request that follows it has one.
    g.is_by_proxy = not is_preflight and users.is_by_proxy()
    if origin and is_preflight:
        return "", 204, PREFLIGHT_ANSWER
    return None


def _allowed_origin(origin: str | None) -> str | None:
    """`Access-Control-Allow-Origin` for this origin, if it is an allowed one."""
    if not origin:
        return None
    allowed = current_app.config["ALLOWED_ORIGINS"] or []
    if "*" in allowed:
        return "*"
    return origin if origin.lower() in allowed else None


def check_request() -> tuple | None:
    """Refuse malformed paths, WebSockets, and requests that accept no type of answer that we have.
    Redirect from the prefix alone to the page."""
    path, prefix = request.environ["PATH_INFO"], request.script_root
    if prefix and not path:  # relative URLs of the page need the slash
        return "", 308, {"Location": f"{prefix}/"}
    if "//" in path or (prefix and path[0] != "/"):
        # werkzeug would redirect, to a path with other slashes, on the host that the client names.
        raise exceptions.NotFound
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise exceptions.BadRequest(
            "This path takes no WebSocket. Send a plain request, Accept: text/event-stream for a "
            "stream."
        )
    # To werkzeug, "application/json; charset=utf-8" is another type than "application/json". All
    # answers are in UTF-8, so parameters are dropped.
    types = [
        (kind.partition(";")[0].rstrip(), quality) for kind, quality in request.accept_mimetypes
    ]
    accept = request.accept_mimetypes = MIMEAccept(types)
    others = OTHER_TYPES.get(str(request.endpoint), ())
    if accept and not any(
        accept[each] for each in ("application/json", "text/event-stream", *others)
    ):
        raise exceptions.NotAcceptable("Accept application/json or text/event-stream.")
    return None


# Before a request of a user


def read_body() -> None:
    """Read the body, before the request takes a connection to the database and its time starts. If
    the body has not all arrived, our server calls the application again when it has; a development
    server blocks."""
    config, endpoint = current_app.config, request.endpoint
    limit, memory_per_byte = config["MAX_CONTENT_LENGTH"], MEMORY_PER_BYTE
    if endpoint == "api.import_session":
        limit = limits.import_size(config)
    elif endpoint == "api.upload_file":
        limit, memory_per_byte = config["MAX_FILE"], MEMORY_PER_BYTE_OF_FILE
    request.environ["parley.longest_body"] = limit  # our server receives no more than this
    # One byte more than the limit shows that a chunked body is too large.
    request.max_content_length = limit + 1
    length = request.content_length or 0
    g.memory = limits.Slot(services().replies.memory_bulkhead, g.user)
    is_chunked = "Transfer-Encoding" in request.headers
    expected = min(limit, CHUNKED) if is_chunked else length
    waited = reserve_memory(expected, memory_per_byte) if expected <= limit else 0
    try:
        body = request.stream.read(limit + 1) if length <= limit else b""
    except exceptions.ClientDisconnected:
        raise exceptions.BadRequest("The body did not arrive. Send it whole.") from None
    if max(length, len(body)) > limit:
        raise exceptions.RequestEntityTooLarge(
            f"Send at most {limit} bytes."
            if limit
            else "This server takes no images: its MAX_FILE is 0."
        )
    if len(body) < length:
        raise exceptions.BadRequest("The body ended before its Content-Length. Send it whole.")
    if is_chunked:
        waited += reserve_memory(len(body), memory_per_byte)
    g.body = body
    database.limit_time(database.WAIT - waited)


def stand_in_line() -> None:
    """Wait while too many other requests of this user are being answered. Raises Overloaded."""
    line = services().lines.of(g.user, request.method)
    if not line.places.acquire(blocking=False):
        if not line.room.acquire(blocking=False):
            raise limits.Overloaded
        release_slot()
        has_place = line.places.acquire(timeout=LINE_TIMEOUT)
        line.room.release()
        if not has_place:
            raise limits.Overloaded
    g.line = line


def leave_line() -> None:
    """Let the user's next request be answered: this one is over, or may take long and has a limit
    of its own."""
    if line := g.pop("line", None):
        line.places.release()


def reserve_memory(size: int, memory_per_byte: int = MEMORY_PER_BYTE) -> float:
    """Reserve memory for a text of `size` bytes and all that is made of it, until the request is
    answered. Returns the seconds that it waited for that; meanwhile, other requests may use its
    connection to the database. Raises Overloaded."""
    needed = memory_per_byte * size if size > limits.SMALL else 0
    if g.memory.take(needed):
        return 0
    began, was_connected = time.monotonic(), not database.db.is_closed()
    database.db.close()
    with services().held.slot(g.user):
        release_slot()
        if not g.memory.take(needed, MEMORY_TIMEOUT):
            raise limits.Overloaded
    if was_connected:
        database.db.connect()
    return time.monotonic() - began


def keep_memory(response: Response, size: int) -> None:
    """Keep `size` bytes reserved until the client has read this answer."""
    slot = g.pop("memory")
    slot.take(size)
    response.call_on_close(slot.close)


def leave(error: BaseException | None) -> None:
    """Release the place and the memory that the request holds."""
    leave_line()
    if "memory" in g:
        g.memory.close()


# After any request


def end_request(response: Response) -> Response:
    response.headers.update({"X-Request-ID": g.id} | ALL_ANSWERS)
    response.headers.setdefault("Cache-Control", "no-store")  # files and streams have their own
    if current_app.config["ALLOWED_ORIGINS"]:
        response.vary.add("Origin")
    if g.is_by_proxy:
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    elif g.origin:
        response.headers.update({"Access-Control-Allow-Origin": g.origin} | EXPOSED_HEADERS)
    if response.status_code == 204:
        del response.headers["Content-Type"]
    response.call_on_close(_request_logger(response.status_code))
    return response


def _request_logger(status: int) -> Callable[[], None]:
    """A function that logs this request. It runs when the response is closed, after the request's
    context is gone: so it takes the values now."""
    began, why = g.began, g.get("why")
    line = {"method": request.method, "path": request.path, "status": status}
    rest = {"user": g.user, "id": g.id} | ({"why": why} if why else {})

    def log() -> None:
        seconds = round(time.monotonic() - began, 4)
        logs.log.info("request", line | {"seconds": seconds} | rest)

    return log


def close_database(error: BaseException | None) -> None:
    """Give the request's connection back to the pool, if it took one."""
    database.db.close()
