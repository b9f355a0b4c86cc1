"""The thread in which a keeper's rounds are made."""

import threading
import time

from database import Unavailable, db, limit_time, reason
from limits import Overloaded
from logs import log
from replies.keeper import Keeper

# Seconds for a connection: with the pause behind it, it is tried again before others have looked
# for orphans seven times.
RECONNECTING = 3
PAUSE = 1  # seconds behind a failure


class KeeperThread:
    """Makes the rounds of a keeper by one connection, which is held until it breaks."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._thread: threading.Thread | None = None
        self._lock, self._wake = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Start it, where it does not run. Raises Overloaded where the system gives no thread."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                log.error("%s", error)
                raise Overloaded from None

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        outage = Outage()
        while True:
            try:
                self._make_rounds(outage)
            except Unavailable as error:
                # What has arrived stays in memory, unseen, until the database is back.
                outage.has_begun(error)
            except Exception as error:
                # Whatever it is: without a keeper, no reply of this process would go on.
                log.error("the keeper failed, and begins again", exc_info=error)
            self._keeper.forget()
            time.sleep(PAUSE)

    def _make_rounds(self, outage: "Outage") -> None:
        limit_time(RECONNECTING)
        with db.connection_context():
            limit_time()
            self._keeper.begin()
            while True:
                self._keeper.round(time.monotonic())
                outage.is_over()
                self._wake.wait(self._keeper.rest())
                if pause := self._keeper.after_rest():
                    time.sleep(pause)
                self._wake.clear()


class Outage:
    """Says once in the log that the database is away, and once that it is back."""

    def __init__(self) -> None:
        self._began: float | None = None

    def has_begun(self, error: BaseException) -> None:
        if self._began is None:
            self._began = time.monotonic()
            log.error("the database does not answer: %s", reason(error))

    def is_over(self) -> None:
        if self._began is not None:
            seconds = time.monotonic() - self._began
            log.warning("the database answers again after %.0f s", seconds)
            self._began = None
