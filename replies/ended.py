"""How replies ended here lately, which a failover of the database may take back."""

import collections
from typing import NamedTuple

from replies.draft import Draft

MEMORY = 10  # seconds for which that may be
MEMORY_SIZE = 2**23  # characters of such replies, with what is searched of them


class _Kept(NamedTuple):
    since: float
    size: int  # characters
    draft: Draft


class Ended:
    """The last of them, without the first where they are too much to be kept."""

    def __init__(self) -> None:
        self._kept: collections.deque[_Kept] = collections.deque()
        self._size = 0  # characters

    def add(self, draft: Draft, now: float) -> None:
        size = len(draft.turn.content) + len(draft.turn.search_text)
        self._kept.append(_Kept(now, size, draft))
        self._size += size

    def let_go(self, now: float) -> None:
        """Keep no more than that."""
        while self._kept and (self._kept[0].since <= now - MEMORY or self._size > MEMORY_SIZE):
            self._size -= self._kept.popleft().size

    def drafts(self) -> list[Draft]:
        return [kept.draft for kept in self._kept]
