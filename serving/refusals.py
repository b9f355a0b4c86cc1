"""The error responses that the application does not make: for an invalid request, a timeout, or an
answer that failed."""

import json

from gunicorn.http import errors as http
from werkzeug.exceptions import RequestTimeout

from api import errors
from limits import BUSY, Overloaded
from logs import log

# The status for an exception: that of its class, or of the nearest base class that is here.
STATUSES: dict[type, int] = {
    http.LimitRequestLine: 414,
    http.LimitRequestHeaders: 431,
    http.ExpectationFailed: 417,
    http.UnsupportedTransferCoding: 501,
    http.ConfigurationProblem: 404,
    http.ParseException: 400,
    http.InvalidResponseHeader: 500,
    http.InvalidResponseHeaderName: 500,
    RequestTimeout: 408,
    Overloaded: 503,
    MemoryError: 503,
    BaseException: 500,
}
# Sentences for a client that gets no X-Request-ID to refer to.
SENTENCES = errors.SENTENCES | {
    400: "Send a valid HTTP/1.1 request (RFC 9112).",
    404: "There is nothing outside of this server's prefix. Begin the path with it.",
    414: "Shorten the request line.",
    417: "Leave the header Expect out.",
    431: "Shorten the headers.",
    500: "The server failed. Ask again.",
    503: BUSY,
    501: "Send the body plain, or chunked.",
}
COMMON = (408, 503)  # not logged: many may come at a time


def refusal(error: BaseException) -> bytes:
    """The response to this error, in the same JSON as all error responses. Neither it nor the log
    quotes the request."""
    kinds = type(error).__mro__
    status = next(STATUSES[kind] for kind in kinds if kind in STATUSES)
    if status == 500:
        log.error("a request failed", exc_info=error)
    elif status not in COMMON:
        log.warning("request refused: %s", kinds[0].__name__)
    body = json.dumps(errors.document(status, [(_sentence(status, error), None)]))
    lines = [
        f"HTTP/1.1 {status} {errors.TITLES[status]}",
        "Connection: close",
        "Cache-Control: no-store",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if status == 503:
        lines.append(f"Retry-After: {Overloaded().retry_after}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _sentence(status: int, error: BaseException) -> str:
    """What the client can do about it."""
    return error.description if isinstance(error, Overloaded) else SENTENCES[status]
