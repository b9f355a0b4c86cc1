"""Parley's client, as `flask chat` uses it."""

from collections.abc import Callable
from typing import Any

from clients.python.parley_client import Parley, ParleyError

TIMEOUT = (5, 40)  # seconds to connect, and to read
PATIENCE = 32  # seconds without an answer


class Refused(Exception):
    """What the user asked for cannot be done; the message says why. `reply_status` is the status in
    the error of a reply that failed."""

    def __init__(self, message: str, reply_status: int | None = None) -> None:
        super().__init__(message)
        self.reply_status = reply_status


class Client(Parley):
    """The requests of one user, in one session at a time; `session_id` is None before the first.
    Each request is sent once, but `patient` sends it again after a lost connection. It calls
    `on_lost` then."""

    def __init__(self, url: str, token: str, on_lost: Callable[[ParleyError], None]) -> None:
        super().__init__(url, token, timeout=TIMEOUT, give_up_after=0)
        self.patient = Parley(url, token, timeout=TIMEOUT, give_up_after=PATIENCE, on_lost=on_lost)
        self.session_id: str | None = None


def with_reason(sentence: str, error: dict[str, Any]) -> str:
    """The sentence about a failure, with the provider's reason, which the server tells only its
    operator."""
    return f"{sentence} {error.get('reason', '')}".rstrip()
