"""What has been read of the answers of a model."""

from collections.abc import Callable
from typing import Any

from providers.conversation import Window
from providers.think_tags import ThinkTags
from wire import Call, Fault

# At most, thoughts among them; no model's longest token has more but for white space.
CHARACTERS_A_TOKEN = 64
OTHERS = 65536  # characters that may come besides
MOST = 2**31  # that a database's integer holds, and one more
USAGE_TIMEOUT = 5  # seconds for the usage, which may come behind the end of the text


class Exchange:
    """What is known of the answers to one request for a reply, besides their text. Any thread may
    read it, and hang up its call."""

    def __init__(self, call: Call | None = None) -> None:
        self.call = call or Call()
        # Of its tries, but for those that were refused. Each knows what it has used.
        self.answers: list[Answer] = []
        self.has_used = False  # something of that is new
        self.request_id: str | None = None  # by which the provider knows it
        # What refusals have told of the model: its window, and parameters that it does not take.
        self.window: Window | None = None
        self.refused: tuple[str, ...] = ()
        # How the answer ended, where it was whole.
        self.stop_reason, self.window_is_full = "stop", False
        # The longest answer, in tokens, that the model or the account allows, if a refusal named
        # it; and whether others may learn of it.
        self.longest: int | None = None
        self.longest_teaches = False
        # Called with what the model has thought, each time; and if what it has thought in this
        # answer was text after all.
        self.on_thinking: Callable[[str], None] = ignore
        self.on_no_thinking: Callable[[], None] = ignore
        # Called before each pause between two tries, with its seconds.
        self.on_waiting: Callable[[float], None] = ignore


def ignore(*_: Any) -> None:
    """Nobody wants to know."""


class Answer:
    """What has been read of one answer: the text of the last batch of events, how much there was,
    how it ends, what it used."""

    def __init__(
        self,
        exchange: Exchange,
        timeout: float,
        max_tokens: int,
        prompt: int,
        tags: ThinkTags | None = None,
    ) -> None:
        """`tags` tells the text from thoughts between tags; without it, all is text."""
        # input_tokens, output_tokens, cached_tokens, as far as the provider said.
        self.usage: dict[str, int] = {}
        self.prompt = prompt  # bytes of what the model is sent
        self.text, self.has_text = "", False
        # Whether it has thoughts, and a block for thoughts, which may be empty.
        self.has_thoughts = self.has_thinking_block = False
        self._tags = tags
        self.size: int | None = None  # bytes of text and thoughts, once it begins
        # The protocol's own, for the end; what comes behind it is no text.
        self.reason: str | None = None
        self.over = False  # nothing of use comes any more
        self._exchange, self._timeout = exchange, timeout
        self._room = CHARACTERS_A_TOKEN * max_tokens + OTHERS  # characters that may still come
        exchange.answers.append(self)
        exchange.has_used = True

    def add(self, text: str, thoughts: str = "") -> None:
        """Take text, or thoughts, or neither where the answer begins. Each is a sign that the model
        works."""
        if self.reason:
            return
        if text or thoughts or self.size is None:
            self._exchange.call.allow(self._timeout)
        self.spend(len(text) + len(thoughts))
        self.size = (self.size or 0) + len((text + thoughts).encode("utf-8", "replace"))
        if self._tags:
            text, tagged = self._tags.add(text)
            thoughts += tagged
        if thoughts:
            self.has_thoughts = True
            self._exchange.on_thinking(thoughts)
        self.text += text
        self.has_text |= bool(text)

    @property
    def has_only_thoughts(self) -> bool:
        """Whether nothing came but thoughts, and that is no way to end: it does not go on with an
        earlier text, and there is no open tag, which makes text of them."""
        is_odd = self._tags is not None and not self._tags.is_open and not self._tags.goes_on
        return is_odd and self.has_thoughts and not self.has_text

    def rest(self) -> str:
        """The text that was held back until the answer came to its own end. What was told as
        thoughts is taken back if it was text."""
        if not self._tags:
            return ""
        if self._tags.is_open:
            self._exchange.on_no_thinking()
        return self._tags.rest()

    def spend(self, characters: int) -> None:
        """Raises a Fault where more comes than an answer can have."""
        self._room -= characters
        if self._room < 0:
            raise Fault("endless")

    def end(self, reason: Any) -> None:
        """Take a reason for the end, where there is one. Only the usage may still come."""
        if reason and not self.reason and reason != "null":
            self.reason = str(reason)
            self._exchange.call.allow(USAGE_TIMEOUT)

    def count(self, **usage: Any) -> None:
        """Take over those counts that are whole numbers, as a database holds them."""
        counts = {
            name: value for name, value in usage.items() if type(value) is int and 0 <= value < MOST
        }
        if counts.items() - self.usage.items():
            self.usage = self.usage | counts  # another thread may be reading it
            self._exchange.has_used = True

    def uncounted(self) -> tuple[int, int]:
        """The bytes of what the model was sent, and of what it wrote, whose tokens the provider has
        not counted."""
        sent = 0 if "input_tokens" in self.usage else self.prompt
        written = 0 if "output_tokens" in self.usage else self.size or 0
        return sent, written
