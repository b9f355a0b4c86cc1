"""What the model is sent of a conversation, pure functions of its turns; how long its answer may
be, and how one goes on."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

LONGEST = 8 * 2**20  # bytes of all turns
FRAME = 32  # tokens at most that a provider puts around a message
LEAST = 256  # tokens of an answer, where a refusal names no window
GO_ON = (
    "Your answer was cut off. Go on exactly where it stopped, with the very next character: repeat "
    "and explain nothing."
)
LEAST_OVERLAP = 20  # characters; what is shorter may be text that only looks like a repetition
# How often a text is searched, or compared, at most: an odd one repeats itself without end.
TRIES = 100

Turn: TypeAlias = Any  # as models.py has it


def messages_of(turns: Iterable[Turn], so_far: str = "") -> list[dict[str, str]]:
    """The messages of a request, made of turns, oldest first; with the text `so_far` of a reply,
    they ask to go on with that. The first is the user's, empty turns are left out and neighbours of
    one role are joined, since providers refuse all else: the turns user "One", assistant "", user
    "Two" give the one message {"role": "user", "content": "One\\n\\nTwo"}."""
    said = _from_user_on(turn for turn in turns if turn.content.strip())
    messages = []
    for role, group in itertools.groupby(said, lambda turn: turn.kind):
        messages.append({"role": role, "content": "\n\n".join(turn.content for turn in group)})
    if so_far.strip():
        # Many models refuse a conversation that ends with their own words: the wish to go on is the
        # user's.
        messages.append({"role": "assistant", "content": so_far})
        messages.append({"role": "user", "content": GO_ON})
    return messages


def size_of(system: str | None, messages: Iterable[dict[str, str]]) -> int:
    """The bytes of what a model is sent."""
    of_messages = sum(len(message["content"].encode()) for message in messages)
    return len((system or "").encode()) + of_messages


def overlap(text: str, more: str) -> int:
    """How many characters `more` surely repeats of the end of `text`: none where it may be text
    that only looks like that, as a word or two, a rule or an indent without a letter, or a rhythm
    that goes on, "ha ha ha …"."""
    longest, shorter = itertools.islice(itertools.chain(_overlaps(text, more), (0, 0)), 2)
    if not any(character.isalpha() for character in more[:longest]):
        return 0
    goes_on = shorter and more[shorter:].startswith(more[longest : 2 * longest - shorter])
    return 0 if goes_on else longest


def _overlaps(text: str, more: str) -> Iterator[int]:
    """The numbers of characters, from the most on, that `more` may repeat of the end of `text`."""
    head, tail = more[:LEAST_OVERLAP], text[-LEAST_OVERLAP:]
    end, tries = min(len(text), len(more)), TRIES
    if len(tail) < LEAST_OVERLAP:
        return
    while tries and (start := more.rfind(tail, 0, end)) >= 0:
        size = start + LEAST_OVERLAP
        end = size - 1
        if text.startswith(head, len(text) - size):
            tries -= 1
            if text.endswith(more[:size]):
                yield size


class Continuation:
    """What comes after a text with which a model is to go on. What may repeat a part of that text
    is held back until it is known whether it does: the part is known, and nothing is kept."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = self._end = 0  # of the part that is repeated as far as is known
        self._tries = TRIES

    @property
    def is_holding(self) -> bool:
        return self._end > self._start

    @property
    def is_likely(self) -> bool:
        """Whether so much is held back that it is a repetition, as far as it goes: new text would
        have parted from the old."""
        return self._end - self._start >= LEAST_OVERLAP

    def add(self, more: str) -> str:
        """Take what has come; returns what of all that has come is known to be new."""
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
        """What is held back, without the repetition, if it is one. From here on, all that comes is
        new."""
        return self._decide(self._text[self._start : self._end])

    def _decide(self, held: str) -> str:
        new = held[overlap(self._text, held) :]
        self._start = self._end = 0
        self._text = "" if new else self._text
        return new


def newest_half(turns: list[Turn], behind: int = 0) -> list[Turn]:
    """The newest of these turns that have at most half of all characters, from a user turn on;
    perhaps none. So the next cut is far away, and until it the provider's cache of what is sent
    holds. `behind` them are so many characters more."""
    room = (_characters(turns) + behind) // 2 - behind
    sizes = itertools.accumulate(len(turn.content) for turn in reversed(turns))
    start = len(turns) - sum(size <= room for size in sizes)
    return _from_user_on(turns[start:])


def _characters(turns: Iterable[Turn]) -> int:
    return sum(len(turn.content) for turn in turns)


class _Fitting(NamedTuple):
    """The turns of a conversation that a model is sent."""

    turns: list[Turn]  # oldest first
    oldest: Turn  # the first of those that were looked at
    looked_at: int  # how many those are
    has_more: bool  # before it
    size: int  # bytes


def turns_that_fit(turns: Iterable[Turn], model: str, trim: int) -> _Fitting:
    """Those of these turns, the newest first, that are sent: from `trim` on, and no more than are
    sent at most, without those that this model refused as too long. The first, the last message of
    the user, is among them in any case."""
    kept, count, size, newer = [], 0, 0, None
    for turn in turns:
        if newer and (turn.id < trim or size > LONGEST):
            return _Fitting(kept[::-1], newer, count, True, size)
        count += 1
        if turn.kind != "user" or not _is_refusal(newer, model):
            kept.append(turn)
            size += len(turn.content.encode())
        newer = turn
    return _Fitting(kept[::-1], newer, count, False, size)


def _is_refusal(reply: Turn | None, model: str) -> bool:
    """Whether this model refused, with this reply, the message before it as too long."""
    if reply is None:
        return False
    return (reply.error_status, reply.model, reply.content) == (413, model, "")


def _from_user_on(turns: Iterable[Turn]) -> list[Turn]:
    return list(itertools.dropwhile(lambda turn: turn.kind != "user", turns))


class Prompt:
    """What this model is sent of a conversation, `turns_that_fit`. `count_before` counts the turns
    before one of them."""

    def __init__(
        self,
        turns: Iterable[Turn],
        model: str,
        system: str | None,
        trim: int = 0,
        count_before: Callable[[int], int] | None = None,
    ) -> None:
        # Replies that nothing follows: a retry answers the message before them.
        turns = itertools.dropwhile(lambda turn: turn.kind != "user", turns)
        fitting = turns_that_fit(turns, model, trim)
        kept = fitting.turns
        if fitting.size > LONGEST:
            kept = newest_half(kept) or kept[-1:]
        self.turns = _from_user_on(kept)
        before = 0
        if fitting.has_more and count_before is not None:
            before = count_before(fitting.oldest.id)
        self.left_out = before + fitting.looked_at - len(self.turns)
        self._is_whole = not before and self.turns[:1] == [fitting.oldest]
        self.tokens = self._most_tokens(model, system)  # it has at most, as far as is known

    def _most_tokens(self, model: str, system: str | None) -> int:
        """A token has a byte or more; four, where the provider has counted less of a prompt with
        which this one begins."""
        known, size = 0, len((system or "").encode())
        same = model, self.left_out, 0
        for turn in self.turns:
            is_of_same = (turn.model, turn.turns_left_out, turn.continued) == same
            if turn.input_tokens and is_of_same:
                known = size - turn.input_tokens  # bytes that are no tokens
            size += len(turn.content.encode()) + FRAME
        return max(size - known, size // 4)

    def shorten(self) -> bool:
        """Leave out the older half; returns whether that makes it shorter."""
        kept = newest_half(self.turns) or self.turns[-1:]
        if _characters(kept) == _characters(self.turns):
            return False
        self.tokens = self.tokens * _characters(kept) // _characters(self.turns)
        self.left_out += len(self.turns) - len(kept)
        self.turns, self._is_whole = kept, False
        return True

    def trim(self, reply_id: int, full: str | None = None) -> int:
        """Where what the model is sent is to begin from here on: an id, or 0 for the first turn.
        `full` is the text of the reply where it has filled the window: half of it all is left out
        then, and the reply itself where it is longer than that."""
        if full is None:
            return 0 if self._is_whole else self.turns[0].id
        kept = newest_half(self.turns, behind=len(full))
        return kept[0].id if kept else reply_id + 1


@dataclasses.dataclass(frozen=True)
class Window:
    """A model's window as far as a refusal tells, where a server counts prompt and answer
    together beforehand."""

    tokens: float = math.inf  # of prompt and answer together
    least: int = 0  # of these, that an answer gets
    teaches: bool = False  # others may learn of it, once a request that heeds it is answered

    @classmethod
    def of_refusal(cls, named: int, prompt: int, teaches: bool = False) -> "Window":
        """What it tells that such a prompt was refused beside an answer; `named` is 0 where no
        window is named."""
        least = named // 4 or LEAST
        return cls(named or prompt + least, least, teaches)

    def room(self, prompt: int, most: int) -> int:
        """How many tokens of an answer, at most `most`, fit beside a prompt of so many."""
        return int(min(most, max(self.least, self.tokens - prompt)))

    def lower(self, prompt: int, limit: int) -> int:
        """The room there is, now that a prompt was refused beside `limit` tokens: as much, where
        it is itself too long."""
        room = self.room(prompt, limit)
        # The server may add to the prompt what we do not know.
        return room if room < limit else min(limit, self.least)
