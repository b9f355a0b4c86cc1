"""A model whose answers show by each character from which call it came, and at which place of the
whole answer it belongs; and what the model was paid.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from files import File
from providers.answer import Answer, Exchange
from providers.conversation import GO_ON, Message, size_of
from providers.faults import ModelError
from simulate.machine import Machine
from simulate.standing_in import Event

MODEL, TITLE_MODEL = "m-1", "t-1"
TITLED = "Titled "  # the beginning of each title that a model writes
FIRST = 0x4E00  # of a block of letters, three bytes each
LONGEST = 64  # characters of an answer
LENGTHS = (48, 64, 9, 24, 1)
CHUNKS = (12, 24, 1, 30, 48)  # characters that come together
PAUSES = (0.1, 0.0, 0.6, 2.0, 12.0, 24.0, 32.0)  # seconds between them
MOST_CALLS = 14  # so many calls' tokens can be told apart in a sum
REPEATED = 21  # characters: a shorter one may be text that only looks like a repetition

CALM, BREAKS, FAILS, IS_CUT, REFUSES = range(5)
SAID_LAST, SAID_AT_ONCE, SAID_EACH_TIME, UNSAID = range(4)


def character(call: int, place: int) -> str:
    return chr(FIRST + call * LONGEST + place)


def origin(letter: str) -> tuple[int, int]:
    """The call that a character came from, and its place."""
    return divmod(ord(letter) - FIRST, LONGEST)


@dataclasses.dataclass(eq=False)
class ModelCall:
    """One call, which is paid for from its beginning on."""

    number: int
    began: float  # when
    question: str
    exchange: Exchange
    home: Any  # the process that made it
    turn_id: int | None
    fence: int | None
    so_far: str  # the part of the answer that it was sent
    sent: int  # bytes
    length: int  # characters of the whole answer
    said: int = 0  # characters so far, without repetitions
    written: int = 0  # bytes
    is_over: bool = False
    told: set[str] = dataclasses.field(default_factory=set)  # which of its tokens were reported
    saying: int = UNSAID  # how it reports its tokens
    lost_at: float | None = None  # since when nothing of it can be stored

    @property
    def start(self) -> int:
        return len(self.so_far)

    @property
    def tokens(self) -> int:
        """How many there are of each kind: each call has a digit of its own in sums to the base 4."""
        return 4**self.number

    def may_have_more(self, is_hurried: bool) -> bool:
        """Whether it may have written more than it has counted, without its process having reported
        that. In a hurry, a reply is continued before its writer knows that it is cancelled."""
        is_late = is_hurried or self.home.is_dead or self.home.troubled_at > 0
        return self.saying == SAID_EACH_TIME and is_late

    @property
    def hung_up(self) -> Event:
        return self.exchange.call._hung_up  # type: ignore[return-value]

    @property
    def is_open(self) -> bool:
        return not (self.is_over or self.hung_up.is_set() or self.home.is_dead)


class Scripted:
    """The provider of all models. What it does is left to chance; by default it does nothing odd."""

    name, base_url, prefix = "openai", "http://model.invalid", ""
    known_as, lacks_models = "model.invalid", ""

    def __init__(self, machine: Machine, breaks: Callable[[str], None]) -> None:
        """`breaks` is called with a promise that is broken by what the model is sent."""
        self.machine, self._breaks = machine, breaks
        self.calls: list[ModelCall] = []
        self.lengths: dict[str, int] = {}
        self.is_calm = False  # there are no more faults
        self.steadiness = machine.chance.pick("steadiness", (0.7, 0.35, 0.95), 0.5)

    def list_models(self) -> dict[str, bool | None]:
        return dict.fromkeys((MODEL, TITLE_MODEL))

    def sees_nothing(self, user: str, model: str) -> bool:
        return False

    def stream(
        self,
        exchange: Exchange,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
        prompt: int = 0,
        retries: int = 0,
        read: Callable[[File], bytes] | None = None,
    ) -> Iterator[str]:
        call = self._begin(exchange, system, messages)
        fate = self._choose("answers", 5, 0.8)
        saying = call.saying = self.machine.chance.choose(f"call {call.number} says", 4, 0.4)
        answer = Answer(exchange, math.inf, 2 * LONGEST, size_of(system, messages))
        if call.number > MOST_CALLS:
            saying = call.saying = UNSAID
        self._pause(call)
        if fate == REFUSES:
            call.is_over = True
            exchange.answers.remove(answer)
            raise ModelError(400, "The provider openai refuses.")
        if saying in (SAID_AT_ONCE, SAID_EACH_TIME):
            self._count(call, answer, "input_tokens")
        texts = [TITLED + call.question] if model == TITLE_MODEL else self._texts(call, fate)
        for text in texts:
            if call.said or not call.written:  # what is repeated comes within HOLD
                self._pause(call)
            answer.add(text)
            answer.text = ""
            call.written += len(text.encode())
            if saying == SAID_EACH_TIME:
                self._count(call, answer, "output_tokens")
            yield text
        exchange.call.pause(0)  # nothing comes after a hang-up
        if fate in (BREAKS, FAILS):
            call.is_over = True
            raise ModelError(502, "The provider openai broke off.", retryable=fate == BREAKS)
        if saying == SAID_LAST:
            self._count(call, answer, "input_tokens")
        if saying != UNSAID:
            self._count(call, answer, "output_tokens")
        exchange.stop_reason = "length" if fate == IS_CUT else "stop"
        answer.end(exchange.stop_reason)
        call.is_over = True
        self.machine.tell(f"call {call.number} is over")

    def _begin(self, exchange: Exchange, system: str | None, messages: list[Message]) -> ModelCall:
        goes_on = messages[-1]["content"] == GO_ON
        said = messages[-3 if goes_on else -1]["content"]
        question = said.split("\n\n")[-1]
        so_far = messages[-2]["content"] if goes_on else ""
        if question not in self.lengths:
            name = f"length of {question}"
            self.lengths[question] = self.machine.chance.pick(name, LENGTHS, 0.5)
        home = self.machine.home
        reply = next(
            (each for each in home.replies.registry.written() if each.exchange is exchange), None
        )
        call = ModelCall(
            len(self.calls),
            self.machine.now,
            question,
            exchange,
            home,
            reply and reply.id,
            reply and reply.fence,
            so_far,
            size_of(system, messages),
            self.lengths[question],
        )
        self.calls.append(call)
        self.machine.tell(f"call {call.number} of the model, for {question}, behind {len(so_far)}")
        if problem := self.problem_with(so_far):
            self._breaks(f"the model is sent what it has not said: {problem}")
        return call

    def _texts(self, call: ModelCall, fate: int) -> Iterator[str]:
        """The rest of the answer, in pieces; perhaps the beginning is repeated."""
        if call.start >= REPEATED and self._choose("repeats", 2, 0.7):
            tail = call.so_far[-REPEATED:]
            half = self._choose("repeats in two parts", 2, 0.5) * 8
            yield from filter(None, (tail[:half], tail[half:]))
        end = call.length
        if fate in (BREAKS, IS_CUT, FAILS):
            end = call.start + (call.length - call.start) // 2
        while call.start + call.said < end:
            place = call.start + call.said
            size = min(end - place, self.machine.chance.pick("chunk", CHUNKS, 0.6))
            call.said += size
            yield "".join(character(call.number, place + each) for each in range(size))

    def _pause(self, call: ModelCall) -> None:
        seconds = PAUSES[self._choose("pause", len(PAUSES), self.steadiness)]
        self.machine.wait(seconds, call.hung_up.is_set)
        call.exchange.call.pause(0)  # which raises HungUp
        if not call.exchange.call.remaining():
            call.is_over = True
            raise ModelError(504, "The provider openai did not answer in time.")

    def _choose(self, name: str, count: int, likely: float) -> int:
        return 0 if self.is_calm else self.machine.chance.choose(f"model {name}", count, likely)

    def _count(self, call: ModelCall, answer: Answer, name: str) -> None:
        """All that was read is reported as cached."""
        names = (name, "cached_tokens") if name == "input_tokens" else (name,)
        call.told.update(names)
        answer.count(**dict.fromkeys(names, call.tokens))

    def problem_with(self, text: str) -> str | None:
        """Why this is not the beginning of an answer: a character is in the wrong place, or comes
        after one of a later call, or was never sent."""
        last = 0
        for place, letter in enumerate(text):
            number, there = origin(letter)
            if not 0 <= number < len(self.calls):
                return f"character {place} is none of the model's"
            call = self.calls[number]
            if there != place:
                return f"character {place} is that of place {there}"
            if number < last:
                return f"character {place} is of call {number}, behind one of call {last}"
            if not call.start <= place < call.start + call.said:
                return f"character {place} was never said by call {number}"
            last = number
        return None
