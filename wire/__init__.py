"""What this server asks of others over HTTP: providers of models, and identity providers.

    Wire.request(Call) ─► Response ─► chunks, or events
    SingleFlight: what many wait for, one thread fetches

A `Call` has a time, and can be hung up by any thread. What goes wrong is a `Fault`, or `HungUp`.
Below them: a `Connection` is kept for the next call, a `Route` makes its sockets, through proxies
and with TLS, and each of these sockets knows its call. http.client writes requests and reads
answers.
"""

from wire.body import NOT_UNDERSTOOD, UNSTORABLE, join, made_storable, parse_json
from wire.call import Call
from wire.connection import Wire
from wire.environment import LOST, arriving, route, without_password
from wire.faults import Fault, HungUp
from wire.response import Response, retry_after
from wire.routes import CONNECT_TIMEOUT
from wire.single_flight import SingleFlight
from wire.streams import parse_sse

__all__ = [
    "CONNECT_TIMEOUT",
    "LOST",
    "NOT_UNDERSTOOD",
    "UNSTORABLE",
    "Call",
    "Fault",
    "SingleFlight",
    "HungUp",
    "Response",
    "Wire",
    "arriving",
    "join",
    "made_storable",
    "parse_json",
    "parse_sse",
    "retry_after",
    "route",
    "without_password",
]
