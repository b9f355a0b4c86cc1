"""What this server asks of others over HTTP: providers of models, and identity providers.

    Wire.request(Call) ─► Response ─► chunks, or events
    SingleFlight: what many wait for, one thread fetches

A `Call` has a time, and can be hung up by any thread. What goes wrong is a `Fault`, or `HungUp`.
"""

from wire.connection import (
    CONNECT_TIMEOUT,
    LOST,
    NOT_UNDERSTOOD,
    UNSTORABLE,
    Call,
    Fault,
    HungUp,
    Response,
    Wire,
    arriving,
    join,
    made_storable,
    parse_json,
    parse_sse,
    retry_after,
    route,
    without_password,
)
from wire.single_flight import SingleFlight

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
