"""What a provider's refusals have taught of its models, for a while."""

import threading
import time
from collections.abc import Callable
from typing import Any

LEARNED_TTL = 3600  # seconds
LEARNED_MAX = 1000  # models of a provider; any user may name more


class Learned:
    """What refusals have taught of a provider's models. What one user has brought about, all live
    with: so it holds for an hour, from the first of it. Of more models than are kept, the one that
    was not used for the longest makes room."""

    def __init__(
        self,
        ttl: float = LEARNED_TTL,
        most: int = LEARNED_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl, self._most, self._clock = ttl, most, clock
        # Of a model until when, and what; the one that was used last is at the end.
        self._kept: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def of(self, model: str, default: Any = None) -> Any:
        """What is known of this model."""
        with self._lock:
            if (known := self._take(model)) is None:
                return default
            self._kept[model] = known
            return known[1]

    def keep(self, model: str, lesson: Any) -> None:
        """Have all know this of the model, in the place of what they knew, and no longer."""
        with self._lock:
            until, _ = self._take(model) or (self._clock() + self._ttl, None)
            self._kept[model] = until, lesson
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]

    def _take(self, model: str) -> tuple[float, Any] | None:
        """Take out what is known of it, unless that is too old."""
        known = self._kept.pop(model, None)
        return known if known and self._clock() < known[0] else None
