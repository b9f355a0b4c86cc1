"""What many wait for and somebody else has: a list of models, published keys. It is fetched by one
thread for all."""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

from logs import log


class SingleFlight:
    """The value that `fetch` returned last: many threads want it, and one fetches it for all.

    It is fetched again after `ttl` seconds, and if a caller finds it wanting, `cooldown` seconds
    after the last time. When that fails, the old value stays until it is `lifetime` seconds old,
    and the next try comes after `failure_ttl` seconds, or as many as the failure took."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Any],
        ttl: float,
        failure_ttl: float = 0,
        cooldown: float = 0,
        lifetime: float = float("inf"),
    ) -> None:
        self.name, self._fetch = name, fetch
        self._ttl, self._failure_ttl = ttl, failure_ttl
        self._cooldown, self._lifetime = cooldown, lifetime
        self._value: Any = None
        self._failure: Exception | None = None  # of the last fetch
        self._latest: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._latest.set_result(None)  # none is under way
        self._begun = 0.0  # when the last fetch began
        self._due = self._again = 0.0  # when it is too old; when it may be found wanting
        self._end = 0.0  # when it is not given out any more
        self._lock = threading.Lock()

    def remember(self, value: Any, age: float) -> None:
        """Give out a value that was fetched so many seconds ago by another process, until a newer
        one has come. To be called before all else."""
        self._value, self._end = value, time.monotonic() + self._lifetime - age

    def begin(self, wanting: bool = False) -> None:
        """Have it fetched, if it is time to."""
        with self._lock:
            due = self._again if wanting else self._due
            if not self._latest.done() or time.monotonic() < due:
                return
            self._latest = concurrent.futures.Future()
        try:
            threading.Thread(target=self._run, name="fetch", daemon=True).start()
        except RuntimeError:  # no more threads
            self._run()

    def at_hand(self, wanting: bool = False) -> Any:
        """What there is, without waiting for it, or None; it is fetched if it is time to."""
        self.begin(wanting)
        return self._value if time.monotonic() < self._end else None

    def soon(self, until: float) -> Any:
        """What there is by that time of the monotonic clock, or None."""
        if (value := self.at_hand()) is None:
            concurrent.futures.wait([self._latest], max(0.0, until - time.monotonic()))
            value = self.at_hand()
        return value

    def get(self, wanting: bool = False) -> Any:
        """What there is. Waits only for the first, or a better one, unless a failure is kept;
        raises the failure if there is nothing."""
        failure: BaseException | None
        failure = self._failure if self._failure_ttl and not wanting else None
        value = self.at_hand(wanting)
        if value is not None and not wanting:
            return value
        if failure := failure or self._latest.exception():
            raise failure.with_traceback(None)
        return self._value

    def get_newer(self, since: float, seconds: float, is_enough: Callable[[Any], bool]) -> Any:
        """What is fetched next, since a caller finds the value wanting. If that is not enough, what
        was fetched after this time of the monotonic clock: what was being fetched already may be
        older than what the caller knows. Raises the failure, also one that is kept; TimeoutError so
        many seconds after that time."""
        while True:
            self.begin(wanting=True)
            left = since + seconds - time.monotonic()
            if failure := self._latest.exception(left):
                raise failure.with_traceback(None)
            if self._begun >= since or is_enough(self._value):
                return self._value
            time.sleep(max(0.0, min(left, self._again - time.monotonic())))

    def _run(self) -> None:
        begun, failure = time.monotonic(), None
        self._begun = begun
        try:
            self._value = self._fetch()
            self._end = time.monotonic() + self._lifetime
        except Exception as error:  # those who ask are told
            failure = error
            if str(self._failure) != str(error):
                log.warning("%s cannot be had: %s", self.name, error)
        self._failure, now = failure, time.monotonic()
        self._again = now + max(self._cooldown, now - begun if failure else 0)
        self._due = max(self._again, now + (self._failure_ttl if failure else self._ttl))
        self._latest.set_exception(failure)
