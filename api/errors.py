"""What a client is told when something goes wrong: one shape for all errors, and one handler for
each kind."""

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
from limits import Overloaded
from llm import UnknownModel
from logs import log
from providers.faults import ModelError
from schemas import MOST_ERRORS

CHALLENGE = 'Bearer realm="parley"'  # RFC 6750, section 3
TITLES = HTTP_STATUS_CODES | {414: "URI Too Long"}  # as RFC 9110 calls it now
# What the framework says of these is what happened; a client wants to know what to do.
SENTENCES = {
    404: "There is nothing at this path. GET / names the places to begin.",
    408: "The request did not arrive in time. Send it again, all of it at once.",
    500: "The server failed. Ask again; its log says more under this X-Request-ID.",
}
IN_ORDER = ("GET", "POST", "PATCH", "DELETE")
DOCUMENTS = ("/docs", "/redoc", "/swagger")
# What clients of OpenAI, Anthropic and Ollama ask for, with or without `/v1`.
OTHER_APIS = re.compile(r"/v1(/.*)?|/chat/completions|/completions|/api/(chat|generate|tags)")
IN_SESSIONS = re.compile("/sessions/[^/]")
IN_A_SESSION = re.compile(f"/sessions/{UUIDConverter.regex}(/|$)")
SOON = 10  # seconds after which a provider that names none may be asked again

# What is told of a mistake: a sentence, and where in the request it is.
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
) -> tuple:
    """What the application answers; `retry_after` are the seconds to wait, where there are any."""
    g.setdefault("why", " ".join(dict.fromkeys(detail for detail, _ in details)))  # for the log
    headers, meta = dict(headers or {}), {}
    if retry_after:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if session_id:
        headers["Location"] = url_for("api.show_session", session_id=session_id)
        meta["session_id"] = str(session_id)
    if status == 401 and request.endpoint == "api.show_me":  # how a page can sign in
        meta["sign_in"] = sign_in.told_to_strangers()
    if status == 413:  # the rest of the body is not read
        headers["Connection"] = "close"
    return document(status, details, meta), status, headers


def guarded(frames: Iterator[bytes], request_id: str) -> Iterator[bytes]:
    """The frames of a stream. Where they fail, the log says so here: the server that sends them
    does not know the request's id."""
    try:
        yield from frames
    except Exception as error:  # whatever it is, the status has been sent
        log.error("a stream failed", {"id": request_id}, exc_info=error)


def on_http_error(error: HTTPException) -> tuple:
    if error.__cause__:
        g.why = f"{error.description} {error.__cause__}"
    kept = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    match error:
        case MethodNotAllowed():
            sentence = _use_one_of(error.valid_methods)
        case NotFound():
            sentence = _why_not_found(request.path)
        case _:
            sentence = SENTENCES.get(error.code, error.description)
    return error_response(error.code, [(sentence, None)], headers=kept)


def _use_one_of(methods: Iterable[str]) -> str:
    *others, last = [method for method in IN_ORDER if method in methods]
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"This path does not take {request.method}. Use {listed}."


def _why_not_found(path: str) -> str:
    """What a client may have meant by a path that is not there."""
    whole = path.rstrip("/")
    if whole in DOCUMENTS:
        return "GET /openapi.json describes the API. GET / is the page, in a browser."
    if OTHER_APIS.fullmatch(whole):
        return (
            "Parley has its own API: POST /sessions starts a chat. GET /openapi.json describes it."
        )
    if whole and whole != path and current_app.create_url_adapter(request).allowed_methods(whole):
        return "Leave out the slash at the end of this path."
    if IN_SESSIONS.match(path) and not IN_A_SESSION.match(path):
        return "The id of a session is a UUID, as in the answer to POST /sessions or GET /sessions."
    return SENTENCES[404]


def on_validation_error(error: ValidationError) -> tuple:
    """Its `source` says where all of it is; else a GET's is in the parameters, another one's in the
    body."""
    default = "parameter" if request.method == "GET" else "pointer"
    return error_response(400, details_of(error, default)[:MOST_ERRORS])


def details_of(error: ValidationError, default: str = "pointer") -> list[Detail]:
    """What is wrong, the deepest last: a client shows the first."""
    source = error.kwargs.get("source", default)
    found = list(_details(error.normalized_messages(), source))
    found.sort(key=lambda each: each[0])
    return [detail for _, detail in found]


def _details(messages: dict, source: str, place: str = "", depth: int = 0) -> Iterator:
    """How deep each fault is, and its detail. A body's names become JSON pointers (RFC 6901):
    `{"title": ["Give a string."]}` gives `("Give a string.", {"pointer": "/title"})`."""
    for name, faults in messages.items():
        at = _pointer(place, str(name)) if source == "pointer" else name
        if isinstance(faults, dict):
            yield from _details(faults, source, at, depth + 1)
        else:
            yield from ((depth, (fault, {source: at})) for fault in faults)


def _pointer(place: str, name: str) -> str:
    if name == "_schema":
        return place
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def model_failure(
    status: int,
    message: str,
    retry_after: float | None,
    pointer: str | None,
    session_id: uuid.UUID | None = None,
) -> tuple:
    """What is answered where the model's provider has failed."""
    source = {"pointer": pointer} if pointer else None
    wait = (retry_after or SOON) if status == 503 else None
    return error_response(status, [(message, source)], wait, session_id)


def on_invalid_token(error: auth.InvalidToken) -> tuple:
    g.why = f"{error} {services().tokens.compare(g.token)}".strip()
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
    return error_response(401, [(str(error), None)], headers={"WWW-Authenticate": challenge})


def on_refused(error: models.Refused) -> tuple:
    details = [(str(error), None)]
    return error_response(error.status, details, error.retry_after, error.session_id)


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
    """Other requests have what is left."""
    log.error("there is no memory left for a request", exc_info=error)
    return on_http_error(Overloaded())


def on_driver_error(error: Exception) -> tuple:
    """Of a connection that a request holds until it ends. A bug is raised on: it is a 500."""
    if not database.is_outage(error):
        raise error
    return on_unavailable(error)


HANDLERS = {
    HTTPException: on_http_error,
    ValidationError: on_validation_error,
    models.Refused: on_refused,
    UnknownModel: on_unknown_model,
    ModelError: on_model_error,
    auth.InvalidToken: on_invalid_token,
    MemoryError: on_memory_error,
    database.Unavailable: on_unavailable,
    **dict.fromkeys(database.DRIVER_ERRORS, on_driver_error),
}
