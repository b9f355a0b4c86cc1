"""The feeds of one process."""

import threading
import weakref
from typing import Any

from models import IN_PROGRESS, Turn
from replies.feed import Feed
from replies.reply import Reply


class Registry:
    """Which replies are known here, and which of them are written here. A feed that is followed
    only is forgotten when nobody has it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: weakref.WeakValueDictionary[int, Feed] = weakref.WeakValueDictionary()
        # Those of ended replies, by how they ended.
        self._ended: weakref.WeakValueDictionary[tuple[Any, ...], Feed] = (
            weakref.WeakValueDictionary()
        )
        self._written: dict[Reply, None] = {}  # in the order in which they came

    def add(self, reply: Reply) -> None:
        """It is written here. Those who followed it here before, when another process wrote it, go
        on with the feed that they have."""
        with self._lock:
            self._under_way.setdefault(reply.id, reply)
            self._written[reply] = None

    def share(self, turn: Turn, feed: Feed) -> Feed:
        """The feed of this turn that all have: this one, where there is none yet."""
        with self._lock:
            if turn.status == IN_PROGRESS:
                return self._under_way.setdefault(turn.id, feed)
            return self._ended.setdefault(_state_of(turn), feed)

    def find(self, turn: Turn) -> Feed | None:
        with self._lock:
            if turn.status == IN_PROGRESS:
                return self._under_way.get(turn.id)
            return self._ended.get(_state_of(turn))

    def remove(self, feed: Feed) -> None:
        """It is over."""
        with self._lock:
            if self._under_way.get(feed.id) is feed:  # else another one has taken its place
                del self._under_way[feed.id]
            if isinstance(feed, Reply):
                self._written.pop(feed, None)

    def is_written(self, reply: Reply) -> bool:
        with self._lock:
            return reply in self._written

    def known(self) -> list[Feed]:
        with self._lock:
            return list(dict.fromkeys([*self._under_way.values(), *self._written]))

    def written(self) -> list[Reply]:
        with self._lock:
            return list(self._written)


def _state_of(turn: Turn) -> tuple[Any, ...]:
    """What differs between two ends of one reply: one that goes on has another fence afterwards,
    and what it used may be counted later."""
    return turn.id, turn.fence, turn.status, turn.turns_left_out, *turn.usage.values()
