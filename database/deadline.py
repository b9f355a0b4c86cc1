"""How long a thread may wait for the database, and whether it serves a request that only reads.

Both are set once, where a thread begins a request or a step of its own. Whatever waits below asks
here for how much longer it may.
"""

import threading
import time

WAIT = 9  # seconds of a request, whatever it waits for: its answer comes within ten

# Of a thread, `deadline`: until when it may wait; `reads`: whether the request that it serves only
# reads.
_thread = threading.local()


def begin_request(reads: bool) -> None:
    """This thread serves a request from here on, which only `reads` or may change something."""
    _thread.reads = reads


def is_reading() -> bool:
    """Whether this thread serves a request that only reads, or no request."""
    return getattr(_thread, "reads", True)


def limit_time(seconds: float = WAIT) -> None:
    """From now on, all that this thread waits for the database takes so long at most. Then what it
    waits for raises Unavailable."""
    _thread.deadline = time.monotonic() + seconds


def remaining() -> float:
    """The seconds that this thread may still wait: some centuries where nobody has limited them."""
    deadline = getattr(_thread, "deadline", threading.TIMEOUT_MAX)
    return max(0.0, deadline - time.monotonic())
