"""Error responses: one shape for all of them, and a handler for each kind of exception."""

import math
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from flask import current_app, g, request, url_for
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.routing import UUIDConverter

import auth
import database
import models
from api import sign_in
from api.services import services
from images import BadImage
from limits import Overloaded
from llm import UnknownModel
from logs import log
from providers.faults import ModelError
from schemas import MOST_ERRORS
from tables.files import UnknownFile

CHALLENGE = 'Bearer realm="parley"'  # RFC 6750, section 3
TITLES = HTTP_STATUS_CODES | {414: "URI Too Long"}  # RFC 9110 renamed it
# In place of werkzeug's descriptions, which say what happened, but not what to do.
SENTENCES = {
    404: "There is nothing at this path. GET / names the places to begin.",
    408: "The request did not arrive in time. Send it again, all of it at once.",
    500: "The server failed. Ask again; its log says more under this X-Request-ID.",
}
METHOD_ORDER = ("GET", "POST", "PATCH", "DELETE")
DOCUMENTS = ("/docs", "/redoc", "/swagger")
# Paths of OpenAI's, Anthropic's and Ollama's APIs, with or without `/v1`.
OTHER_APIS = re.compile(r"/v1(/.*)?|/chat/completions|/completions|/api/(chat|generate|tags)")
BELOW_SESSIONS = re.compile("/sessions/[^/]")
BELOW_A_SESSION = re.compile(f"/sessions/{UUIDConverter.regex}(/|$)")
RETRY_AFTER = 10  # seconds, if a provider that is overloaded names none

# A sentence for the client, and the `source`: the part of the request that is at fault.
Detail = tuple[str, dict[str, str] | None]


def document(
    status: int, details: list[Detail], meta: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The one shape of all errors."""
    shared = {"status": str(status), "title": TITLES[status]}
    besides = {"meta": meta} if meta else {}
    return {
        "errors": [
            shared | {"detail": detail} | ({"source": source} if source else {}) | besides
            for detail, source in details
        ]
    }


def error_response(
    status: int,
    details: list[Detail],
    retry_after: float | None = None,
    session_id: uuid.UUID | None = None,
    headers: dict[str, str] | None = None,
    meta: dict[str, Any] | None = None,
) -> tuple:
    """The body, status and headers of an error. `retry_after` is in seconds."""
    g.setdefault("why", " ".join(dict.fromkeys(detail for detail, _ in details)))  # for the log
    headers, meta = dict(headers or {}), dict(meta or {})
    if retry_after:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if session_id:
        headers["Location"] = url_for("api.show_session", session_id=session_id)
        meta["session_id"] = str(session_id)
    if status == 401 and request.endpoint == "api.show_me":  # how a page can sign in
        meta["sign_in"] = sign_in.describe()
    if status == 413:  # the rest of the body is not read
        headers["Connection"] = "close"
    return document(status, details, meta), status, headers


def log_failure(frames: Iterator[bytes], request_id: str) -> Iterator[bytes]:
    """These frames of a stream. If one raises, it is logged here, with the request's id, which the
    server that sends them does not know."""
    try:
        yield from frames
    except Exception as error:  # the status has been sent: no handler can answer any more
        log.error("a stream failed", {"id": request_id}, exc_info=error)


def on_http_error(error: HTTPException) -> tuple:
    if error.__cause__:
        g.why = f"{error.description} {error.__cause__}"
    kept = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    match error:
        case MethodNotAllowed():
            sentence = _method_advice(error.valid_methods)
        case NotFound():
            sentence = _path_advice(request.path)
        case _:
            sentence = SENTENCES.get(error.code, error.description)
    return error_response(error.code, [(sentence, None)], headers=kept)


def _method_advice(methods: Iterable[str]) -> str:
    *others, last = [method for method in METHOD_ORDER if method in methods]
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"This path does not take {request.method}. Use {listed}."


def _path_advice(path: str) -> str:
    """What to do about a path that does not exist: what the client may have meant by it."""
    whole = path.rstrip("/")
    if whole in DOCUMENTS:
        return "GET /openapi.json describes the API. GET / is the page, in a browser."
    if OTHER_APIS.fullmatch(whole):
        return (
            "Parley has its own API: POST /sessions starts a chat. GET /openapi.json describes it."
        )
    if whole and whole != path and current_app.create_url_adapter(request).allowed_methods(whole):
        return "Leave out the slash at the end of this path."
    if BELOW_SESSIONS.match(path) and not BELOW_A_SESSION.match(path):
        return "The id of a session is a UUID, as in the answer to POST /sessions or GET /sessions."
    return SENTENCES[404]


def on_validation_error(error: ValidationError) -> tuple:
    """An error may say by its `source` which part of the request it is about. By default, that is
    the parameters of a GET, and the body of any other request."""
    default = "parameter" if request.method == "GET" else "pointer"
    return error_response(400, details_of(error, default)[:MOST_ERRORS])


def details_of(error: ValidationError, default: str = "pointer") -> list[Detail]:
    """All that is wrong. The most deeply nested comes last, since clients show the first."""
    source = error.kwargs.get("source", default)
    found = list(_details(error.normalized_messages(), source))
    found.sort(key=lambda each: each[0])
    return [detail for _, detail in found]


def _details(messages: dict, source: str, place: str = "", depth: int = 0) -> Iterator:
    """The depth of each fault, and its detail. Names of a body become JSON pointers (RFC 6901):
    `{"title": ["Give a string."]}` gives `("Give a string.", {"pointer": "/title"})`."""
    for name, faults in messages.items():
        at = pointer_to(place, str(name)) if source == "pointer" else name
        if isinstance(faults, dict):
            yield from _details(faults, source, at, depth + 1)
        else:
            yield from ((depth, (fault, {source: at})) for fault in faults)


def pointer_to(place: str, name: str) -> str:
    """The pointer (RFC 6901) to the field of this name in the object at `place`."""
    if name == "_schema":
        return place
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def model_failure(
    status: int,
    message: str,
    retry_after: float | None,
    pointer: str | None,
    reason: str | None,
    session_id: uuid.UUID | None = None,
) -> tuple:
    """The answer after a failure of the model's provider. Only the operator gets its reason."""
    source = {"pointer": pointer} if pointer else None
    wait = (retry_after or RETRY_AFTER) if status == 503 else None
    meta = {"reason": reason} if reason and g.is_operator else None
    return error_response(status, [(message, source)], wait, session_id, meta=meta)


def on_invalid_token(error: auth.InvalidToken) -> tuple:
    g.why = f"{error} {services().tokens.compare(g.token)}".strip()
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
    return error_response(401, [(str(error), None)], headers={"WWW-Authenticate": challenge})


def on_refused(error: models.Refused) -> tuple:
    details = [(str(error), None)]
    return error_response(error.status, details, error.retry_after, error.session_id)


def on_unknown_file(error: UnknownFile) -> tuple:
    sentence = "You have no such file. Upload it first, with POST /files."
    return error_response(400, [(sentence, {"pointer": error.pointer})])


def on_bad_image(error: BadImage) -> tuple:
    return error_response(400, [(str(error), None)])


def on_unknown_model(error: UnknownModel) -> tuple:
    return error_response(400, [(str(error), {"pointer": "/model"})])


def on_model_error(error: ModelError) -> tuple:
    return model_failure(*error.told(g.get("is_operator", False)))


def on_unavailable(error: Exception) -> tuple:
    g.why = database.reason(error)
    log.error("the database does not answer: %s", g.why, exc_info=error)
    sentence = "The database does not answer. Ask again in a moment."
    if database.is_full(error):
        sentence = "The server's disk is full. The person who runs it must free space on it."
    if g.get("is_operator", False):
        sentence += f" The log says why, under {g.id}."
    return error_response(503, [(sentence, None)], retry_after=5)


def on_memory_error(error: MemoryError) -> tuple:
    """Refuse this request as one too many: other requests need the memory that is left."""
    log.error("there is no memory left for a request", exc_info=error)
    return on_http_error(Overloaded())


def on_driver_error(error: Exception) -> tuple:
    """The database's drivers raise this from a connection that a request holds to its end, outside
    of `database.connected`. Unless it is an outage, it is a bug, and becomes a 500."""
    if not database.is_outage(error):
        raise error
    return on_unavailable(error)


HANDLERS = {
    HTTPException: on_http_error,
    ValidationError: on_validation_error,
    models.Refused: on_refused,
    UnknownFile: on_unknown_file,
    BadImage: on_bad_image,
    UnknownModel: on_unknown_model,
    ModelError: on_model_error,
    auth.InvalidToken: on_invalid_token,
    MemoryError: on_memory_error,
    database.Unavailable: on_unavailable,
    **dict.fromkeys(database.DRIVER_ERRORS, on_driver_error),
}
