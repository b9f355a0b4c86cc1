"""A cache for a value that another server has, such as a list of models or published keys: one
thread fetches it, and all others wait for that."""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

from logs import log


class SingleFlight:
    """Caches the value that `fetch` returned last. If many threads want it, one fetches it for all.

    The value is fetched again after `ttl` seconds; or `cooldown` seconds after the last fetch, if a
    caller finds that it lacks something (`wanting`). If a fetch fails, the old value is used until
    it is `lifetime` seconds old, and the next try comes after `failure_ttl` seconds, or after as
    many as the failure took."""

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
        self._fetching: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._fetching.set_result(None)  # no fetch is in progress
        self._began_at = 0.0  # when the last fetch began
        # When to fetch again; when to, if a caller finds that the value lacks something.
        self._stale_at = self._refetch_at = 0.0
        self._expires_at = 0.0  # when the value expires
        self._lock = threading.Lock()

    @property
    def failure(self) -> Exception | None:
        """Why the last fetch failed, also if an older value is still used."""
        return self._failure

    def remember(self, value: Any, age: float) -> None:
        """Use a value that another process fetched `age` seconds ago, until there is a newer one.
        Call this before any other method, or within `fetch`."""
        self._value, self._expires_at = value, time.monotonic() + self._lifetime - age

    def begin(self, wanting: bool = False) -> None:
        """Start a fetch if one is due."""
        with self._lock:
            due = self._refetch_at if wanting else self._stale_at
            if not self._fetching.done() or time.monotonic() < due:
                return
            self._fetching = concurrent.futures.Future()
        try:
            threading.Thread(target=self._run, name="fetch", daemon=True).start()
        except RuntimeError:  # no more threads
            self._run()

    def at_hand(self, wanting: bool = False) -> Any:
        """The value, or None, without waiting. Starts a fetch if one is due."""
        self.begin(wanting)
        return self._value if time.monotonic() < self._expires_at else None

    def soon(self, until: float) -> Any:
        """The value, or None if there is none by this time of the monotonic clock."""
        if (value := self.at_hand()) is None:
            concurrent.futures.wait([self._fetching], max(0.0, until - time.monotonic()))
            value = self.at_hand()
        return value

    def get(self, wanting: bool = False) -> Any:
        """The value. Waits for a fetch only if there is no value yet, or the caller finds it
        `wanting`. Without a value, raises the failure of that fetch, or of the last one while it is
        kept for `failure_ttl` seconds."""
        failure: BaseException | None
        failure = self._failure if self._failure_ttl and not wanting else None
        value = self.at_hand(wanting)
        if value is not None and not wanting:
            return value
        if failure := failure or self._fetching.exception():
            raise failure.with_traceback(None)
        return self._value

    def get_newer(self, since: float, seconds: float, is_enough: Callable[[Any], bool]) -> Any:
        """A value that `is_enough`, or at least one whose fetch began after `since`, a time of the
        monotonic clock: a fetch that was in progress then may have an older one. Raises the failure
        of a fetch, even of an earlier one that is kept, or TimeoutError `seconds` after `since`."""
        while True:
            self.begin(wanting=True)
            left = since + seconds - time.monotonic()
            if failure := self._fetching.exception(left):
                raise failure.with_traceback(None)
            if self._began_at >= since or is_enough(self._value):
                return self._value
            time.sleep(max(0.0, min(left, self._refetch_at - time.monotonic())))

    def _run(self) -> None:
        begun, failure = time.monotonic(), None
        self._began_at = begun
        try:
            self._value = self._fetch()
            self._expires_at = time.monotonic() + self._lifetime
        except Exception as error:  # raised to the callers
            failure = error
            if str(self._failure) != str(error):
                log.warning("%s cannot be had: %s", self.name, error)
        self._failure, now = failure, time.monotonic()
        self._refetch_at = now + max(self._cooldown, now - begun if failure else 0)
        self._stale_at = max(self._refetch_at, now + (self._failure_ttl if failure else self._ttl))
        self._fetching.set_exception(failure)
