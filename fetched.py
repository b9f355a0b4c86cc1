"""What many wait for and somebody else has: a list of models, published keys. It is fetched by one thread for all."""

import concurrent.futures
import threading
import time

from logs import log


class Fetched:
    """What `fetch` returned last. It is called again after `ttl` seconds; by whoever finds that wanting, after `cooldown`. A
    failure leaves what was there before. Then these are `failure_ttl` seconds, and as many as it took."""

    def __init__(self, name, fetch, ttl, failure_ttl=0, cooldown=0):
        self.name, self._fetch, self._ttl, self._failure_ttl, self._cooldown = name, fetch, ttl, failure_ttl, cooldown
        self._value = self._latest = self._failure = None  # the others: a Future, of the failure or None; the last one
        self._due = self._again = 0.0  # when it is too old; when it may be found wanting
        self._lock = threading.Lock()

    def begin(self, wanting=False):
        """Have it fetched, if it is time to."""
        with self._lock:
            is_fetching = self._latest is not None and not self._latest.done()
            if is_fetching or time.monotonic() < (self._again if wanting else self._due):
                return
            self._latest = concurrent.futures.Future()
        try:
            threading.Thread(target=self._run, name="fetch", daemon=True).start()
        except RuntimeError:  # no more threads
            self._run()

    def get(self, wanting=False):
        """What there is. Waits only for the first, or for a better one; raises the failure where that cannot be had. Where a
        failure is kept, the next try is not waited for."""
        failure = self._failure if self._failure_ttl and not wanting else None
        self.begin(wanting)
        if (self._value is None or wanting) and (failure := failure or self._latest.exception()):
            raise failure.with_traceback(None)
        return self._value

    def _run(self):
        begun, failure = time.monotonic(), None
        try:
            self._value = self._fetch()
        except Exception as error:  # whoever asks is told
            failure = error
            if str(self._failure) != str(error):
                log.warning("%s cannot be had: %s", self.name, error)
        self._failure, now = failure, time.monotonic()
        self._again = now + (now - begun if failure else self._cooldown)
        self._due = max(self._again, now + (self._failure_ttl if failure else self._ttl))
        self._latest.set_exception(failure)
