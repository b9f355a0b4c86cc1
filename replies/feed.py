"""A feed: what one process knows of one reply, for all its followers in that process."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from limits import Overloaded, Slot, memory_of
from models import IN_PROGRESS, Turn
from replies.thinking import Thoughts

SLICE = 16384  # characters of text, or bytes of an event, that a follower gets at a time


class Progress(NamedTuple):
    """What followers are told besides the text."""

    title: str | None  # the session's new title; None as long as no change is known
    thinking: Thoughts = Thoughts()
    waiting: float = 0  # when the pause of its provider ends, by `time.monotonic`


class Snapshot(NamedTuple):
    """What a follower gets at a time."""

    text: str  # after its position, at most a slice
    progress: Progress
    state: str | None  # as in Feed, but None until the last slice


class Feed:
    """The stored text of a reply, and its turn once that has ended. Any thread may follow it: it
    waits for news, or has a function called when there is news."""

    def __init__(self, turn: Turn) -> None:
        self.id = turn.id
        self.session_id: uuid.UUID = turn.session_id
        self.start = len(turn.content)  # the position at which new text begins
        self.text = turn.content
        self.turn: Turn | None = None  # the turn as it ended
        # None as long as news may come. Then one of these: "ended"; "deleted" (the session was
        # deleted, too); "undone" (the session remains); "detached" (another process is, or will be,
        # its writer).
        self.state: str | None = None
        self.progress = Progress(None)
        self.known_fence = turn.fence  # of its writer, as last read
        self.watched = False  # a follower here waits for each word
        self.first_text_sent = threading.Event()  # by a follower
        # Frames that all streams share; the first stream that needs them makes them. `ending` has
        # the last frames of the reply, `thinking_frame` the frame of its thinking so far.
        self.ending: bytes | None = None
        self.thinking_frame: tuple[Thoughts, bytes] | None = None
        # Memory for its text, if this process read it only for followers.
        self.slot: Slot | None = None
        self._streams = 0  # how many are being sent
        self._followers: list[Callable[[], None]] = []
        self._news = threading.Condition()
        if turn.status != IN_PROGRESS:
            self.end(turn)

    # Telling

    def update(self, **news: Any) -> None:
        """Set these attributes, and wake the followers."""
        with self._news:
            self._set(**news)
        self._wake()

    def add(self, text: str) -> None:
        """Show more text, perhaps none, which is stored already."""
        with self._news:
            self._add(text)
        self._wake()

    def update_progress(self, **changes: Any) -> None:
        """Change these fields of what followers are told besides the text."""
        with self._news:
            self._set(progress=self.progress._replace(**changes))
        self._wake()

    def end(self, turn: Turn | None, is_undone: bool = False) -> None:
        """Tell followers that no more news will come here. `turn` is the reply as it ended; or one
        in progress, which has another writer now; or None if its row was deleted. With `is_undone`,
        its session remains: its claim was undone, or lost by a failover."""
        if turn is None:
            self.update(state="undone" if is_undone else "deleted")
        elif turn.status == IN_PROGRESS:
            self.update(state="detached")
        else:
            longest = max(self.text, turn.content, key=len)
            self.update(text=longest, turn=turn, state="ended")

    def _add(self, text: str) -> None:
        if text:
            self._set(text=self.text + text)

    def _set(self, **news: Any) -> None:
        """Set these attributes. The caller holds the lock, and calls `_wake` once it has released
        it."""
        vars(self).update(news)
        self._news.notify_all()

    def _wake(self) -> None:
        # Without the lock: these functions may call any method of the feed.
        for wake in [*self._followers]:
            wake()

    # Following

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None] | None) -> Iterator[None]:
        """Within this, `wake` is called when there is news."""
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
        """Reserve memory for the text, as long as it is now, while a stream is sent. All streams of
        this feed share it. Nothing is reserved if this process writes the reply. Raises Overloaded
        if there is no room."""
        with self._news:
            error = self.turn.error_message if self.turn else None
            size = memory_of([self.text, error])
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
        """Wait at most `seconds` until no more news can come here. Returns the turn if it has
        ended."""
        with self._news:
            self._news.wait_for(lambda: self.state, seconds)
            return self.turn

    def read(self, position: int, told: Progress, seconds: float) -> Snapshot:
        """Wait at most `seconds` for text after the position, for anything that differs from what
        was `told` before, or for the end."""
        if position:
            # A follower asks for the next text once it has sent the first.
            self.first_text_sent.set()
        with self._news:
            self._news.wait_for(
                lambda: self.state or len(self.text) > position or told != self.progress, seconds
            )
            text = self.text[position : position + SLICE]
            is_all = position + len(text) >= len(self.text)
            return Snapshot(text, self.progress, self.state if is_all else None)
