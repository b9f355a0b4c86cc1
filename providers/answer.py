"""The state of a request to a model, and of each answer while it is read."""

from collections.abc import Callable
from typing import Any

from providers.learned import Lesson
from providers.think_tags import ThinkTags
from wire import Call, Fault

# At most, thoughts included. No model has a longer token, except of white space.
CHARACTERS_A_TOKEN = 64
EXTRA_CHARACTERS = 65536  # characters that may come in addition
INTEGER_END = 2**31  # one more than a database's integer can hold
USAGE_TIMEOUT = 5  # seconds for the usage, which may come after the end of the text


class Exchange:
    """What is known about one request for a reply, besides the text: over all its tries. Any thread
    may read it, and hang up its call."""

    def __init__(self, call: Call | None = None, user: str = "") -> None:
        """`user` is the owner of the reply, for whom we remember what refusals teach. It is neither
        sent to the provider nor logged."""
        self.call, self.user = call or Call(), user
        # One for each try; each knows the tokens that it used.
        self.answers: list[Answer] = []
        self.has_used = False  # the usage has changed since it was last stored
        self.request_id: str | None = None  # the provider's own id
        # The name by which the provider keeps the answer, so that it can be read again; None if it
        # keeps none.
        self.stream_id: str | None = None
        # What refusals have taught about the model; and the refused parameters that were named by
        # fields of the error, not by a sentence.
        self.lesson = Lesson()
        self.proven: tuple[str, ...] = ()
        # How the answer ended, if it is whole.
        self.stop_reason, self.window_is_full = "stop", False
        # Called with each piece of the model's thoughts; and if those of an answer turn out to be
        # text.
        self.on_thinking: Callable[[str], None] = ignore
        self.on_no_thinking: Callable[[], None] = ignore
        # Called when the provider has accepted a request, which need not be sent again.
        self.on_accepted: Callable[[], object] = ignore
        # Called before each pause between two tries, with its seconds.
        self.on_waiting: Callable[[float], None] = ignore


def ignore(*_: Any) -> None:
    """Nobody wants to know."""


class Answer:
    """One answer while it is read: the text of the last batch of events, its size so far, how it
    ended, and its usage."""

    def __init__(
        self,
        exchange: Exchange,
        timeout: float,
        max_tokens: int,
        prompt: int,
        tags: ThinkTags | None = None,
    ) -> None:
        """`tags` tells the text from thoughts between tags; without it, all is text."""
        # input_tokens, output_tokens, cached_tokens, as far as the provider has sent them.
        self.usage: dict[str, int] = {}
        self.prompt = prompt  # bytes that the model was sent
        self.text, self.has_text = "", False
        # Whether it has thoughts, and a block for thoughts, which may be empty.
        self.has_thoughts = self.has_thinking_block = False
        self._tags = tags
        self.size: int | None = None  # bytes of text and thoughts; None until it begins
        # Why the answer ended, in the protocol's words. After it, no text is taken.
        self.reason: str | None = None
        self.over = False  # the protocol's end: whatever follows is ignored
        self._exchange, self._timeout = exchange, timeout
        self._characters_left = CHARACTERS_A_TOKEN * max_tokens + EXTRA_CHARACTERS
        # If it is read again: the bytes and the characters of thoughts that were read this time;
        # and those of all thoughts that were told.
        self._size_read = self._thoughts_read = self._thoughts_told = 0
        exchange.answers.append(self)
        exchange.has_used = True

    def read_again(self, timeout: float, max_tokens: int, tags: ThinkTags) -> None:
        """Expect all of it once more, from its beginning. Thoughts that were told are not told
        again. Dropping the text that is known is left to the caller."""
        self._timeout, self._tags = timeout, tags
        self._characters_left = CHARACTERS_A_TOKEN * max_tokens + EXTRA_CHARACTERS
        self._size_read = self._thoughts_read = 0
        self.text, self.reason, self.over = "", None, False

    def add(self, text: str, thoughts: str = "") -> None:
        """Take text, or thoughts, or neither if the answer begins. What is new extends the
        deadline: the model is working."""
        if self.reason:
            return
        self.spend(len(text) + len(thoughts))
        self._size_read += len((text + thoughts).encode("utf-8", "replace"))
        if self.size is None or self._size_read > self.size:
            self._exchange.call.set_timeout(self._timeout)
            self.size = self._size_read
        if self._tags:
            text, tagged = self._tags.add(text)
            thoughts += tagged
        if thoughts:
            self.has_thoughts = True
            self._think(thoughts)
        self.text += text
        self.has_text |= bool(text)

    def _think(self, thoughts: str) -> None:
        new = thoughts[max(0, self._thoughts_told - self._thoughts_read) :]
        self._thoughts_read += len(thoughts)
        self._thoughts_told += len(new)
        if new:
            self._exchange.on_thinking(new)

    @property
    def has_only_thoughts(self) -> bool:
        """Whether there are thoughts and no text, though there should be: the answer does not go on
        with an earlier text, and has no open tag, which would turn its thoughts into text."""
        is_odd = self._tags is not None and not self._tags.is_open and not self._tags.goes_on
        return is_odd and self.has_thoughts and not self.has_text

    def rest(self) -> str:
        """The text that was held back until the end of the answer. If its thoughts turn out to be
        text, `on_no_thinking` is called."""
        if not self._tags:
            return ""
        if self._tags.is_open:
            self._exchange.on_no_thinking()
        return self._tags.rest()

    def spend(self, characters: int) -> None:
        """Raises a Fault if more has come than an answer can have."""
        self._characters_left -= characters
        if self._characters_left < 0:
            raise Fault("endless")

    def end(self, reason: Any) -> None:
        """Take the reason for the end, if there is one. After it, only the usage may come."""
        if reason and not self.reason and reason != "null":
            self.reason = str(reason)
            self._exchange.call.set_timeout(USAGE_TIMEOUT)

    def count(self, **usage: Any) -> None:
        """Take the counts that are whole numbers, and fit a database's integer."""
        counts = {
            name: value
            for name, value in usage.items()
            if type(value) is int and 0 <= value < INTEGER_END
        }
        if counts.items() - self.usage.items():
            self.usage = self.usage | counts  # another thread may be reading it
            self._exchange.has_used = True

    def unbilled_bytes(self) -> tuple[int, int]:
        """The bytes that the model was sent, and that it wrote, as far as the provider has not
        counted their tokens."""
        sent = 0 if "input_tokens" in self.usage else self.prompt
        written = 0 if "output_tokens" in self.usage else self.size or 0
        return sent, written
