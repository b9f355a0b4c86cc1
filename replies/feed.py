"""A feed: what one process knows of one reply, for all who follow it there."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from limits import Overloaded, Slot, memory_of
from models import IN_PROGRESS, Turn
from replies.thinking import Thoughts

SLICE = 16384  # characters of a reply that are made at a time for one who follows it
COPIES = 2  # of a text that are held at a time: itself, and what is sent of it


class Told(NamedTuple):
    """What a follower has been told besides the text."""

    title: str | None  # of the session, as far as it is known to have changed
    thinking: Thoughts = Thoughts()
    waiting: float = 0  # until when its provider is waited for, by `time.monotonic`


class Look(NamedTuple):
    """What there is for a follower."""

    text: str  # behind its position, a slice at most
    told: Told
    over: str | None  # with the last slice, how the reply is over


class Feed:
    """The text of a reply that is stored, and the turn once it has ended. Any thread may follow it:
    it waits for news, or has a function called when there are some."""

    def __init__(self, turn: Turn) -> None:
        self.id = turn.id
        self.session_id: uuid.UUID = turn.session_id
        self.start = len(turn.content)  # where what comes from now on begins
        self.text = turn.content
        self.turn: Turn | None = None  # the turn as it ended
        # "ended", "deleted" with its session, "undone" without it, or "detached": nobody will learn
        # here how it ends.
        self.over: str | None = None
        self.told = Told(None)
        self.known_fence = turn.fence  # of its writer, as it was last seen
        self.watched = False  # somebody reads the text here, as it comes
        self.begun = threading.Event()  # somebody has sent the first of it
        self.ending: bytes | None = None  # its last frames, once somebody has come to them
        # All of the thinking as it is now, and its frame, once somebody has come to it.
        self.thinking_frame: tuple[Thoughts, bytes] | None = None
        self.slot: Slot | None = None  # room for its text, where that was read to be followed
        self._streams = 0  # that are sent of it
        self._followers: list[Callable[[], None]] = []
        self._news = threading.Condition()
        if turn.status != IN_PROGRESS:
            self.end(turn)

    # What there is

    def tell(self, **news: Any) -> None:
        """Set these, and wake all who wait for news."""
        with self._news:
            self._set(**news)
        self._wake()

    def add(self, text: str) -> None:
        """Add a text that is stored, perhaps none."""
        with self._news:
            self._add(text)
        self._wake()

    def note(self, **told: Any) -> None:
        """Tell this title, what was thought, or until when the provider is waited for, besides what
        was told."""
        with self._news:
            self._set(told=self.told._replace(**told))
        self._wake()

    def end(self, turn: Turn | None, is_undone: bool = False) -> None:
        """`turn` is the reply as it ended, or None where there is none any more; in progress it has
        another writer now. `is_undone`: its claim was undone, or lost by a failover, and its
        session is there."""
        if turn is None:
            self.tell(over="undone" if is_undone else "deleted")
        elif turn.status == IN_PROGRESS:
            self.tell(over="detached")
        else:
            longest = max(self.text, turn.content, key=len)
            self.tell(text=longest, turn=turn, over="ended")

    def _add(self, text: str) -> None:
        if text:
            self._set(text=self.text + text)

    def _set(self, **news: Any) -> None:
        """For who holds the lock, and wakes the followers behind it."""
        vars(self).update(news)
        self._news.notify_all()

    def _wake(self) -> None:
        # Behind the lock: a follower may do whatever it likes.
        for wake in [*self._followers]:
            wake()

    # Following

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None] | None) -> Iterator[None]:
        """Within this, the function is called when there is news."""
        if wake is None:
            yield
            return
        self._followers.append(wake)
        try:
            yield
        finally:
            self._followers.remove(wake)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Room for the text while a stream is sent of it: one for all its streams. Raises
        Overloaded where there is none."""
        with self._news:
            error = self.turn.error_message if self.turn else None
            size = COPIES * memory_of([self.text, error])
            if self.slot and not self._streams and not self.slot.take(size):
                raise Overloaded
            self._streams += 1
        try:
            yield
        finally:
            with self._news:
                self._streams -= 1
                if self.slot and not self._streams:
                    self.slot.take(0)

    def wait(self, seconds: float) -> Turn | None:
        """Wait until the reply is over, or this process stops following it; returns the turn, if it
        has ended."""
        with self._news:
            self._news.wait_for(lambda: self.over, seconds)
            return self.turn

    def read(self, position: int, told: Told, seconds: float) -> Look:
        """Wait for text behind the position, or for more than was told."""
        if position:
            self.begun.set()  # a follower that asks for what follows has sent what is before
        with self._news:
            self._news.wait_for(
                lambda: self.over or len(self.text) > position or told != self.told, seconds
            )
            text = self.text[position : position + SLICE]
            is_all = position + len(text) >= len(self.text)
            return Look(text, self.told, self.over if is_all else None)
