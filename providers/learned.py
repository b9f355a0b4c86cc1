"""What a provider's refusals and answers have taught us about its models, for an hour.

A provider may quote the user in a sentence, and we cannot tell its own words from quoted ones. So
what only a sentence says is kept for that user. What the user cannot have written is kept for all.

| what we learn | what says so | who benefits |
|---|---|---|
| a parameter that the model refuses | the fields `code` and `param`, or `type` and `loc` | all |
| that the model thinks and shows nothing | an answer with an empty block of thoughts | all |
| a parameter that the model refuses | a sentence | that user |
| the model's window; its longest answer | a number in a sentence | that user |
| that the model sees no images | a sentence | that user |
| what the account can pay for | a number in a sentence, with status 402 | that request |

A lesson is kept once a request that follows it was answered. A window that a sentence named is
forgotten as soon as the provider counts more tokens than would fit.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from providers.conversation import Window

LEARNED_TTL = 3600  # seconds
LEARNED_MAX = 1000  # entries; any user may name any model


class Lesson(NamedTuple):
    """What sentences have taught us about a model."""

    window: Window | None = None
    longest: int | None = None  # tokens of its longest answer
    refused: tuple[str, ...] = ()  # parameters, in the order in which they were refused
    sees_nothing: bool = False  # it sees no images

    def updated(self, newer: "Lesson") -> "Lesson":
        return Lesson(
            newer.window or self.window,
            newer.longest or self.longest,
            newer.refused or self.refused,
            newer.sees_nothing or self.sees_nothing,
        )

    def limit(self, prompt: int, most: int) -> int:
        """How many tokens, at most `most`, the answer to a prompt of so many may have."""
        most = min(most, self.longest or most)
        return self.window.room(prompt, most) if self.window else most


class Learned:
    """A bounded table of lessons (LRU). Each expires an hour after its key was first learned, so a
    wrong one ends even if it is used all the time."""

    def __init__(
        self,
        ttl: float = LEARNED_TTL,
        most: int = LEARNED_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl, self._most, self._clock = ttl, most, clock
        # Key → (expiry, lesson); the most recently used is last.
        self._entries: dict[Hashable, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def of(self, key: Hashable, default: Any = None) -> Any:
        with self._lock:
            if (known := self._pop(key)) is None:
                return default
            self._entries[key] = known
            return known[1]

    def keep(self, key: Hashable, lesson: Any) -> None:
        """Store or replace the lesson under this key. Replacing does not extend its life."""
        with self._lock:
            until, _ = self._pop(key) or (self._clock() + self._ttl, None)
            self._entries[key] = until, lesson
            if len(self._entries) > self._most:
                del self._entries[next(iter(self._entries))]

    def _pop(self, key: Hashable) -> tuple[float, Any] | None:
        """Remove an entry; returns it unless it has expired."""
        known = self._entries.pop(key, None)
        return known if known and self._clock() < known[0] else None
