"""The sweeper: one thread of a process, which deletes what is due. No request waits for it.

Soon, it deletes the sessions that requests of this process have left to it; once an hour, what
other processes have left, and what is too old.
"""

import threading
import time
from collections.abc import Callable, Sequence

from database import Unavailable, db
from limits import Overloaded
from logs import log
from replies.contained import contained
from upkeep.deletion import backlog, delete_from_backlog

INTERVAL = 3600  # seconds between two sweeps
RETRY = 5  # seconds after an outage was seen


class Sweeper:
    """Runs these functions, the sweeps, once an hour. A bug in one costs no other."""

    def __init__(self, sweeps: Sequence[Callable[[], None]]) -> None:
        self._sweeps = sweeps
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._next_sweep = 0.0

    def start(self) -> None:
        """Start the thread if it does not run. Raises Overloaded if the system gives no thread."""
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
            backlog.has_come.clear()
            try:
                self._work()
                rest = self._next_sweep - time.monotonic()
            except Unavailable:
                rest = RETRY
            backlog.has_come.wait(max(0, rest))

    def _work(self) -> None:
        """Raises Unavailable: what is left is tried again."""
        for session_id in backlog.all():
            with contained("a session is not deleted"):
                delete_from_backlog(session_id)
        if time.monotonic() >= self._next_sweep:
            for sweep in self._sweeps:
                with contained("a sweep failed"):
                    sweep()
            self._next_sweep = time.monotonic() + INTERVAL
        db.keep_reserve()
