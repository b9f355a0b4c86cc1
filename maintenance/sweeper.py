"""The sweeper: one thread of each process that deletes in the background.

It deletes the sessions that requests of this process leave to it, as soon as none has come for a
second, or after ten. When it starts, and then once an hour, it also runs the sweeps: what other
processes have left, and what is too old.
"""

import threading
import time
from collections.abc import Callable, Sequence

from database import SECOND, Unavailable, db
from limits import Overloaded
from logs import log
from maintenance.deletion import LONGEST_WRITE, backlog, delete_from_backlog
from replies.fault_isolation import contained

INTERVAL = 3600  # seconds between two sweeps
RETRY = 5  # seconds until the next attempt after an outage
LULL = 1  # seconds without another deletion, for which it waits
LONGEST_WAIT = 10  # seconds after which it waits for no further lull

# The sum: seconds from the death of its process, on another machine, until half an import or a fork
# is deleted at the latest. On the same machine it is INTERVAL, or until a process starts.
HALF_DELETED_ELSEWHERE = LONGEST_WRITE // SECOND + INTERVAL


class Sweeper:
    """Runs these functions once an hour. An exception in one does not stop the others."""

    def __init__(self, sweeps: Sequence[Callable[[], None]]) -> None:
        self._sweeps = sweeps
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._next_sweep = 0.0

    def start(self) -> None:
        """Start the thread unless it runs. Raises Overloaded if the system has no thread left."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                log.error("%s", error)
                raise Overloaded from None

    def _run(self) -> None:
        while True:
            self._wait_for_lull()
            try:
                self._work()
                rest = self._next_sweep - time.monotonic()
            except Unavailable:
                rest = RETRY
            backlog.has_come.wait(max(0, rest))

    def _wait_for_lull(self) -> None:
        """Wait until nobody deletes. People delete dozens of chats in a row: on a slow disk, a step
        between two of these requests would double their time."""
        until = time.monotonic() + LONGEST_WAIT
        while backlog.has_come.is_set() and time.monotonic() < until:
            backlog.has_come.clear()
            backlog.has_come.wait(LULL)
        backlog.has_come.clear()

    def _work(self) -> None:
        """Delete what is due. Raises Unavailable; the next call tries the rest again."""
        for session_id in backlog.all():
            with contained("a session is not deleted"):
                delete_from_backlog(session_id)
        if time.monotonic() >= self._next_sweep:
            for sweep in self._sweeps:
                with contained("a sweep failed"):
                    sweep()
            self._next_sweep = time.monotonic() + INTERVAL
        db.keep_reserve()
