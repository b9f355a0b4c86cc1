"""Pure functions of a conversation's turns: what the model is sent, how long its answer may be, and
how a reply is continued."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from files import LEFT_OUT, File, files_of

PROMPT_MAX = 8 * 2**20  # bytes of the texts of all turns
# Images of a request, and their bytes. Anthropic takes larger ones only up to 20 in a request, and
# 32 MB in all, of which base64 makes 24 (docs.anthropic.com/en/docs/build-with-claude/vision).
IMAGES_MAX, IMAGES_SIZE_MAX = 20, 16 * 2**20
MESSAGE_OVERHEAD = 32  # tokens that a provider adds to a message at most
ANSWER_MIN = 256  # tokens of an answer at least, unless a refusal names a smaller window
GO_ON = (
    "Your answer was cut off. Go on exactly where it stopped, with the very next character: repeat "
    "and explain nothing."
)
OVERLAP_MIN = 20  # characters; a shorter match may be chance
# Searches and comparisons of a text at most: a degenerate one repeats itself without end.
SEARCHES_MAX = 100

Turn: TypeAlias = Any  # as models.py has it


# A message for a model. Its content is a text or, if it has images, a list of Files and of texts,
# each as {"type": "text", "text": …}.
Message: TypeAlias = dict[str, Any]


def messages_of(
    turns: Iterable[Turn], so_far: str = "", sent: Callable[[Turn], list[File]] | None = None
) -> list[Message]:
    """The messages of a request, from turns, oldest first. With the text `so_far` of a reply, they
    ask the model to continue it. `sent` returns the images of a turn that are sent, by default
    none; the others become the text LEFT_OUT.

    Providers want the user's message first, no empty ones, and alternating roles. So the turns user
    "One", assistant "", user "Two" give one message {"role": "user", "content": "One\n\nTwo"}."""
    said = _from_user_on(turn for turn in turns if turn.content.strip() or turn.files)
    messages: list[Message] = []
    for role, group in itertools.groupby(said, lambda turn: turn.kind):
        parts: list[File | str] = []
        for turn in group:
            text = turn.content if turn.content.strip() else ""
            if turn.files:
                images = sent(turn) if sent else []
                parts += images
                left_out = [LEFT_OUT] * (len(files_of(turn.files)) - len(images))
                text = "\n".join(filter(None, [*left_out, text]))
            if text and parts and isinstance(parts[-1], str):
                parts[-1] += f"\n\n{text}"
            elif text:
                parts.append(text)
        messages.append({"role": role, "content": _content_of(parts)})
    if so_far.strip():
        # Many models refuse a conversation that ends with an assistant's message. So the request to
        # go on is a user's message.
        messages.append({"role": "assistant", "content": so_far})
        messages.append({"role": "user", "content": GO_ON})
    return messages


def _content_of(parts: list[File | str]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [part if isinstance(part, File) else {"type": "text", "text": part} for part in parts]


def parts_of(message: Message) -> list[File | str]:
    """The images and texts of a message."""
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [part if isinstance(part, File) else part["text"] for part in content]


def size_of(system: str | None, messages: Iterable[Message]) -> int:
    """The size in bytes of what a model is sent. For an image it is that of a text with as many
    tokens."""
    parts = [part for message in messages for part in parts_of(message)]
    sizes = [4 * part.tokens if isinstance(part, File) else len(part.encode()) for part in parts]
    return len((system or "").encode()) + sum(sizes)


def overlap(text: str, more: str) -> int:
    """How many characters at the beginning of `more` repeat the end of `text`; 0 in doubt, as of a
    word or two, a rule or indent without a letter, or a rhythm that goes on, "ha ha ha …"."""
    longest, shorter = itertools.islice(itertools.chain(_overlaps(text, more), (0, 0)), 2)
    if not any(character.isalpha() for character in more[:longest]):
        return 0
    goes_on = shorter and more[shorter:].startswith(more[longest : 2 * longest - shorter])
    return 0 if goes_on else longest


def _overlaps(text: str, more: str) -> Iterator[int]:
    """The lengths of all matches between the end of `text` and the beginning of `more`, longest
    first."""
    head, tail = more[:OVERLAP_MIN], text[-OVERLAP_MIN:]
    end, tries = min(len(text), len(more)), SEARCHES_MAX
    if len(tail) < OVERLAP_MIN:
        return
    while tries and (start := more.rfind(tail, 0, end)) >= 0:
        size = start + OVERLAP_MIN
        end = size - 1
        if text.startswith(head, len(text) - size):
            tries -= 1
            if text.endswith(more[:size]):
                yield size


class Continuation:
    """Removes what a model repeats of a text that it is to continue. What may be a repetition is
    held back until we know; it equals a part of the text, so only its position is kept."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = self._end = 0  # of the part of the text that seems to be repeated
        self._tries = SEARCHES_MAX

    @property
    def is_holding(self) -> bool:
        return self._end > self._start

    @property
    def is_likely(self) -> bool:
        """Whether so much is held back that it must be a repetition: new text would differ from the
        old by now."""
        return self._end - self._start >= OVERLAP_MIN

    def add(self, more: str) -> str:
        """Take a piece of the answer; returns the text that is now known to be new."""
        if not self._text:
            return more
        if self._text.startswith(more, self._end):
            self._end += len(more)
            return ""
        held = self._text[self._start : self._end] + more
        if self._tries and (start := self._text.find(held, self._start)) >= 0:
            self._tries -= 1
            self._start, self._end = start, start + len(held)
            return ""
        return self._decide(held)

    def decide(self) -> str:
        """What was held back, without the repetition, if it is one. Whatever comes later is new."""
        return self._decide(self._text[self._start : self._end])

    def _decide(self, held: str) -> str:
        new = held[overlap(self._text, held) :]
        self._start = self._end = 0
        self._text = "" if new else self._text
        return new


def newest_half(
    turns: list[Turn], behind: int = 0, length: Callable[[Turn], int] | None = None
) -> list[Turn]:
    """The newest of these turns, with at most half of all characters, from a user turn on; perhaps
    none. By halves, so that the next cut is far away: until then, the provider's prompt cache is
    valid. So many characters more follow the turns (`behind`). `length` is that of a turn, by
    default of its text."""
    lengths = [(length or _characters)(turn) for turn in turns]
    room = (sum(lengths) + behind) // 2 - behind
    sizes = itertools.accumulate(reversed(lengths))
    start = len(turns) - sum(size <= room for size in sizes)
    return _from_user_on(turns[start:])


def _characters(turn: Turn) -> int:
    return len(turn.content)


class _Selection(NamedTuple):
    """The turns that a model is sent, and how far we looked for them."""

    turns: list[Turn]  # oldest first
    oldest: Turn  # of those that we looked at
    looked_at: int  # how many those are
    has_more: bool  # there are turns before `oldest`
    size: int  # bytes of `turns`


def turns_that_fit(turns: Iterable[Turn], model: str, context_start: int) -> _Selection:
    """The turns to send, of these, which come newest first: from `context_start` on, up to
    PROMPT_MAX bytes, without messages that this model refused as too long. The newest, the user's
    last message, is always included."""
    kept, count, size, newer = [], 0, 0, None
    for turn in turns:
        if newer and (turn.id < context_start or size > PROMPT_MAX):
            return _Selection(kept[::-1], newer, count, True, size)
        count += 1
        if turn.kind != "user" or not _is_refusal(newer, model):
            kept.append(turn)
            size += len(turn.content.encode())
        newer = turn
    return _Selection(kept[::-1], newer, count, False, size)


def _is_refusal(reply: Turn | None, model: str) -> bool:
    """Whether this reply says that this model refused the message before it as too long."""
    if reply is None:
        return False
    return (reply.error_status, reply.model, reply.content) == (413, model, "")


def _from_user_on(turns: Iterable[Turn]) -> list[Turn]:
    return list(itertools.dropwhile(lambda turn: turn.kind != "user", turns))


def images_start_of(turns: list[Turn], start: int) -> int:
    """The first turn, of these, whose images are sent, if it was `start` before: it moves only if
    the images from there on are too many or too large. Then at most half of what is allowed is
    left, but always those of the newest turn that has any. By halves, for the reason that
    `newest_half` has."""
    newer: list[File] = []
    start_of_half = 0
    for turn in reversed(turns):
        if turn.id < start or not turn.files:
            continue
        newer += files_of(turn.files)
        if not start_of_half or _fit(newer, 2):
            start_of_half = turn.id
    return start if _fit(newer, 1) else max(start, start_of_half)


def _fit(files: list[File], fraction: int) -> bool:
    """Whether a request may have these images, or only this fraction of what it may have."""
    size = sum(file.size for file in files)
    return len(files) * fraction <= IMAGES_MAX and size * fraction <= IMAGES_SIZE_MAX


class Prompt:
    """The part of a conversation that a model is sent, see `turns_that_fit`. `count_before` counts
    the turns before the one with this id. The images of turns before `images_start` are not
    sent."""

    def __init__(
        self,
        turns: Iterable[Turn],
        model: str,
        system: str | None,
        context_start: int = 0,
        count_before: Callable[[int], int] | None = None,
        images_start: int = 0,
    ) -> None:
        # Without the replies at the end: a retry answers the message before them.
        turns = itertools.dropwhile(lambda turn: turn.kind != "user", turns)
        selection = turns_that_fit(turns, model, context_start)
        kept = selection.turns
        if selection.size > PROMPT_MAX:
            kept = newest_half(kept) or kept[-1:]
        self.turns = _from_user_on(kept)
        before = 0
        if selection.has_more and count_before is not None:
            before = count_before(selection.oldest.id)
        self.left_out = before + selection.looked_at - len(self.turns)
        self._is_whole = not before and self.turns[:1] == [selection.oldest]
        self.images_start = images_start_of(self.turns, images_start)
        self.tokens = self._most_tokens(model, system)  # an upper bound

    def _most_tokens(self, model: str, system: str | None) -> int:
        """An upper bound of the prompt's tokens: one per byte, or fewer if the provider has counted
        the tokens of an earlier prompt with which this one begins; at least one per four bytes."""
        known, size = 0, len((system or "").encode())
        same = model, self.left_out, 0
        for turn in self.turns:
            is_of_same = (turn.model, turn.turns_left_out, turn.continued) == same
            if turn.input_tokens and is_of_same:
                known = size - turn.input_tokens  # bytes that turned out to be no tokens
            size += len(turn.content.encode()) + MESSAGE_OVERHEAD
            if turn.files:
                size += sum(file.tokens for file in self.sent_images(turn))
        return max(size - known, size // 4)

    # Images

    def sent_images(self, turn: Turn) -> list[File]:
        """The images of a turn that are sent: if they alone are too large, the newest of them."""
        images = files_of(turn.files) if turn.files and turn.id >= self.images_start else []
        while not _fit(images, 1):
            del images[0]
        return images

    def images(self) -> list[File]:
        """All images that are sent."""
        return [image for turn in self.turns if turn.files for image in self.sent_images(turn)]

    def leave_out_images(self) -> bool:
        """Send no images of earlier turns; if there are none, no images of the last message either.
        Returns whether there were any of these."""
        last = self.turns[-1]
        has_earlier = any(self.sent_images(turn) for turn in self.turns[:-1])
        if not has_earlier and not self.sent_images(last):
            return False
        self.images_start = last.id if has_earlier else last.id + 1
        return True

    @property
    def lacks_own_images(self) -> bool:
        """Whether the last message has images, and they are not sent."""
        last = self.turns[-1]
        return bool(last.files) and self.images_start > last.id

    def messages(self, so_far: str = "") -> list[Message]:
        """The messages of a request, see `messages_of`."""
        return messages_of(self.turns, so_far, self.sent_images)

    # A full window

    def _length(self, turn: Turn) -> int:
        """The length of a turn in characters, with images as texts of as many tokens."""
        return len(turn.content) + 4 * sum(file.tokens for file in self.sent_images(turn))

    def shorten(self) -> bool:
        """Leave out the older half; returns whether the prompt is shorter now."""
        kept = newest_half(self.turns, length=self._length) or self.turns[-1:]
        size, size_of_kept = (sum(map(self._length, turns)) for turns in (self.turns, kept))
        if size_of_kept == size:
            return False
        self.tokens = self.tokens * size_of_kept // size
        self.left_out += len(self.turns) - len(kept)
        self.turns, self._is_whole = kept, False
        return True

    def context_start(self, reply_id: int, full: str | None = None) -> int:
        """The id of the turn with which the next prompt should begin; 0 means the first turn.

        `full` is the text of the reply if it has filled the window. Then half of everything is left
        out; the reply, too, if it alone is longer than half."""
        if full is None:
            return 0 if self._is_whole else self.turns[0].id
        kept = newest_half(self.turns, behind=len(full), length=self._length)
        return kept[0].id if kept else reply_id + 1


@dataclasses.dataclass(frozen=True)
class Window:
    """What a refusal tells about a model's window, on a server that counts the prompt and the
    longest possible answer together."""

    tokens: int  # of prompt and answer together
    least: int  # tokens of it that we keep for an answer
    is_named: bool  # the refusal names it; otherwise it is a guess, perhaps too low

    @classmethod
    def of_refusal(cls, named: int, prompt: int) -> "Window":
        """The window of a model that has refused a prompt of so many tokens and an answer together.
        `named` is its size if the refusal names it, or 0."""
        least = named // 4 or ANSWER_MIN
        return cls(named or prompt + least, least, named > 0)

    def room(self, prompt: int, most: int) -> int:
        """How many tokens, at most `most`, an answer may have next to a prompt of so many."""
        return min(most, max(self.least, self.tokens - prompt))

    def lower(self, prompt: int, limit: int) -> int:
        """The new limit, after the prompt was refused together with an answer of `limit` tokens.
        The same limit, if the prompt alone is too long."""
        room = self.room(prompt, limit)
        # If there should be room, the server adds tokens to the prompt that we do not know of.
        return room if room < limit else min(limit, self.least)
