"""What a client is told when something goes wrong: one shape for all errors, and one handler for each kind."""

import math

from flask import current_app, g, request, url_for
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

import auth
import database
import models
from catalog import UnknownModel
from faults import REFUSED_OPTION, ModelError
from logs import log
from schemas import FAULTS
from settings import MISTAKES

CHALLENGE = 'Bearer realm="parley"'  # RFC 6750, section 3
TITLES = HTTP_STATUS_CODES | {414: "URI Too Long"}  # as RFC 9110 calls it now


def document(status, faults, session_id=None):
    """The one shape of all errors; `faults` are (detail, source) pairs, and a source may be None."""
    shared = {"status": str(status), "title": TITLES[status]}
    meta = {"meta": {"session_id": str(session_id)}} if session_id else {}
    return {"errors": [shared | {"detail": detail} | ({"source": source} if source else {}) | meta for detail, source in faults]}


def error_response(status, faults, retry_after=None, session_id=None, headers={}):
    """What the application answers; `retry_after` are the seconds to wait, where there are any."""
    g.setdefault("why", " ".join(dict.fromkeys(detail for detail, _ in faults)))  # for the log
    headers = headers | ({"Retry-After": str(max(1, math.ceil(retry_after)))} if retry_after else {})
    headers |= {"Location": url_for("api.show_session", session_id=session_id)} if session_id else {}
    headers |= {"Connection": "close"} if status == 413 else {}  # the rest of the body is not read
    return document(status, faults, session_id), status, headers


def guarded(frames, request_id):
    """The frames of a stream. Where they fail, the log says so here: who sends them does not know the request's id."""
    try:
        yield from frames
    except Exception as error:  # whatever it is, the status has been sent
        log.error("a stream failed", {"id": request_id}, exc_info=error)


def on_http_error(error):
    if error.__cause__:
        g.why = f"{error.description} {error.__cause__}"
    kept = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return error_response(error.code, [(MISTAKES["statuses"].get(str(error.code), error.description), None)], headers=kept)


def faults(error):
    """(detail, source) of each fault in a ValidationError: its `source`, else a GET's parameters, else the body. A body's names
    become JSON pointers (RFC 6901): `{"title": ["Give a string."]}` gives `("Give a string.", {"pointer": "/title"})`."""
    source = error.kwargs.get("source", "parameter" if request.method == "GET" else "pointer")
    places = [(error.normalized_messages(), "")]
    for messages, place in places:
        for name, details in messages.items():
            if source == "pointer":
                name = place + ("" if name == "_schema" else "/" + name.replace("~", "~0").replace("/", "~1"))
            if isinstance(details, dict):
                places.append((details, name))
            else:
                yield from ((detail, {source: name}) for detail in details)


def model_failure(status, message, retry_after, session_id=None):
    option = REFUSED_OPTION.match(message)
    source = option and {"pointer": f"/options/{option[1]}"}
    return error_response(status, [(message, source)], (retry_after or 10) if status == 503 else None, session_id)


def on_invalid_token(error):
    g.why = f"{error} {current_app.tokens.compare(request.authorization.token or '')}".strip()
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
    return error_response(401, [(str(error), None)], headers={"WWW-Authenticate": challenge})


def on_database_error(error):
    g.why = database.reason(error)
    log.error("the database does not answer: %s", g.why, exc_info=error)
    return error_response(503, [("The database does not answer. Ask again in a moment.", None)], retry_after=5)


HANDLERS = {
    HTTPException: on_http_error,
    ValidationError: lambda error: error_response(400, list(faults(error))[:FAULTS]),
    models.Refused: lambda error: error_response(error.status, [(str(error), None)], error.retry_after, error.session_id),
    UnknownModel: lambda error: error_response(400, [(str(error), {"pointer": "/model"})]),
    ModelError: lambda error: model_failure(error.status, error.message, error.retry_after),
    auth.InvalidToken: on_invalid_token,
    **dict.fromkeys(database.Unavailable, on_database_error),
}
