"""How long a thread may wait for the database, and whether it serves a request that only reads.

Both are set once, when a thread begins a request or a step of its own; only `shorter_deadline`
changes one for a moment. Any wait below that asks `remaining` for its timeout.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

WAIT = 9  # seconds for all waits of a request together
CANCELLING = 0.5  # seconds more, in which PostgreSQL is told that nobody waits any more
# The sum: seconds after a thread took a request until it is answered, however the database hangs.
ANSWERED = WAIT + CANCELLING

# Per thread: `deadline`, until when it may wait; `reads`, whether its request only reads.
_thread = threading.local()


def begin_request(reads: bool) -> None:
    """This thread serves a request from now on; `reads` says whether it changes nothing."""
    _thread.reads = reads


def is_reading() -> bool:
    """Whether this thread's request changes nothing, or it serves no request."""
    return getattr(_thread, "reads", True)


def limit_time(seconds: float = WAIT) -> None:
    """From now on, this thread may wait for the database so long in all; after that, a wait raises
    Unavailable."""
    _thread.deadline = time.monotonic() + seconds


@contextlib.contextmanager
def shorter_deadline(seconds: float) -> Iterator[None]:
    """Within this block, the thread may wait for so many seconds at most. After it, the deadline is
    again what it was before."""
    before = getattr(_thread, "deadline", threading.TIMEOUT_MAX)
    _thread.deadline = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _thread.deadline = before


def remaining() -> float:
    """The seconds that this thread may still wait; without a limit, centuries."""
    deadline = getattr(_thread, "deadline", threading.TIMEOUT_MAX)
    return max(0.0, deadline - time.monotonic())
