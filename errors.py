"""What a client is told when something goes wrong: one shape for all errors, and one handler for each kind."""

import functools
import itertools
import logging
import math

from flask import jsonify, url_for
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.http import HTTP_STATUS_CODES

import auth
import models
from catalog import UnknownModel
from database import TookTooLong, Unavailable
from faults import ModelError
from limits import Overloaded
from schemas import FAULTS, InvalidHeader, InvalidParameter

CHALLENGE = 'Bearer realm="parley"'  # RFC 6750, section 3
TITLES = HTTP_STATUS_CODES | {414: "URI Too Long"}  # as RFC 9110 calls it now
TOO_SLOW = "The request did not arrive in time. Send it again, all of it at once."

log = logging.getLogger("parley")


class MissingToken(Unauthorized):
    def get_headers(self, *args):
        return [("WWW-Authenticate", CHALLENGE)]


def document(status, faults, session_id=None):
    """The one shape of all errors; `faults` are (detail, source) pairs, and a source may be None."""
    entries = []
    for detail, source in faults:
        entry = {"status": str(status), "title": TITLES[status], "detail": detail}
        if source:
            entry["source"] = source
        if session_id:
            entry["meta"] = {"session_id": str(session_id)}
        entries.append(entry)
    return {"errors": entries}


def error_response(status, faults, headers=(), session_id=None):
    response = jsonify(document(status, faults, session_id))
    response.status_code = status
    response.headers.extend(headers)
    if session_id:
        response.headers["Location"] = url_for("api.show_session", session_id=session_id)
    if status == 413:
        response.headers["Connection"] = "close"  # the rest of the body is not read
    return response


def guarded(frames, request_id):
    """The frames of a stream. Where they fail, the log says so here: who sends them does not know the request's id."""
    try:
        yield from frames
    except Exception as error:  # whatever it is, the status has been sent
        log.error("a stream failed", {"id": request_id}, exc_info=error)


def on_http_error(error):
    if error.code is None or error.code < 400:
        return error
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return error_response(error.code, [(FRAMEWORK_DETAILS.get(error.code, error.description), None)], kept)


def on_broken_body(error):
    """For what a server raises where a body is broken; where the next request begins, nobody knows then."""
    detail = "The body is broken: its chunks are not framed as RFC 9112 has it."
    return error_response(400, [(detail, None)], {"Connection": "close"})


def on_slow_body(error):
    """For what the worker raises where a body does not arrive in time."""
    return error_response(408, [(TOO_SLOW, None)], {"Connection": "close"})


def on_invalid(source, error):
    return error_response(400, itertools.islice(faults(error, source), FAULTS))


def faults(error, source):
    """(detail, source) of each fault in a ValidationError. `source` is `pointer`, `parameter` or `header`.

    With `pointer`, names become JSON pointers into the body (RFC 6901): the messages `{"title": ["Give a string."]}`
    give `("Give a string.", {"pointer": "/title"})`.
    """
    for name, details in error.normalized_messages().items():
        if source == "pointer":
            name = "" if name == "_schema" else "/" + name.replace("~", "~0").replace("/", "~1")
        for detail in details:
            yield detail, {source: name}


def on_refused(error):
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return error_response(REFUSALS.get(type(error), 409), [(str(error), None)], headers, error.session_id)


def on_unknown_model(error):
    return error_response(400, [(str(error), {"pointer": "/model"})])


def on_model_error(error):
    return model_failure(error.status, error.message, error.retry_after)


def model_failure(status, message, retry_after, session_id=None):
    headers = {"Retry-After": str(max(1, math.ceil(retry_after or 10)))} if status == 503 else {}
    return error_response(status, [(message, None)], headers, session_id)


def on_invalid_token(error):
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
    return error_response(401, [(str(error), None)], {"WWW-Authenticate": challenge})


def unavailable(detail):
    return error_response(503, [(detail, None)], {"Retry-After": "5"})


def on_unavailable(error):
    return unavailable(str(error))


def on_too_long(error):
    return unavailable("The search took too long. Search for longer words, or for fewer.")


def on_database_error(error):
    log.error("the database does not answer: %s", type(error).__name__, exc_info=error)
    return unavailable("The database does not answer. Ask again in a moment.")


# The framework says of these what happened; a client wants to know what to do.
FRAMEWORK_DETAILS = {
    404: "There is nothing at this path. GET / names the places to begin.",
    405: "This path does not take this method. Use one that the header Allow names.",
    500: "The server failed. Ask again; its log says more under this X-Request-ID.",
}

REFUSALS = {models.Missing: 404, models.KeyReused: 422, models.RateLimited: 429}  # all others are conflicts

HANDLERS = {
    HTTPException: on_http_error,
    ValidationError: functools.partial(on_invalid, "pointer"),
    InvalidParameter: functools.partial(on_invalid, "parameter"),
    InvalidHeader: functools.partial(on_invalid, "header"),
    models.Refused: on_refused,
    UnknownModel: on_unknown_model,
    ModelError: on_model_error,
    auth.InvalidToken: on_invalid_token,
    auth.KeysUnavailable: on_unavailable,
    Overloaded: on_unavailable,
    TookTooLong: on_too_long,
    **dict.fromkeys(Unavailable, on_database_error),
}
