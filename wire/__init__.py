"""The HTTP client for other servers: providers of models, and identity providers.

    HTTPClient.request(Call) ─► Response ─► chunks, or events
    SingleFlight: one thread fetches a value that many wait for

A `Call` has a deadline, and any thread can hang it up. Errors are a `Fault`, or `HungUp`.
Below them, a `ServerConnection` is kept alive for the next call, a `Route` opens its sockets,
through proxies and with TLS, and each socket knows its call. http.client writes requests and parses
responses.
"""

from wire.body import NOT_UNDERSTOOD, UNSTORABLE, join, made_storable, parse_json, storable
from wire.call import Call
from wire.connection import HTTPClient
from wire.environment import without_password
from wire.faults import Fault, HungUp
from wire.response import Response, retry_after
from wire.routes import CONNECT_TIMEOUT
from wire.single_flight import SingleFlight
from wire.streams import parse_sse

__all__ = [
    "CONNECT_TIMEOUT",
    "NOT_UNDERSTOOD",
    "UNSTORABLE",
    "Call",
    "Fault",
    "HTTPClient",
    "SingleFlight",
    "HungUp",
    "Response",
    "join",
    "made_storable",
    "parse_json",
    "parse_sse",
    "retry_after",
    "storable",
    "without_password",
]
