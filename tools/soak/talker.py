"""The model of a soak: it repeats the mark of a message, and counts; some of its answers break.

So we can check of each word of a reply whether it is in its place.
"""

import collections
import random
import re
import threading
import time

from history import NOWHERE
from provider import asked, cut, fails, reply, so_far, status

MARK = re.compile(r"\[\w+\]")
MOST = 30  # words of an answer
FAST, SLOW = [0.01], [0.01, 0.2, 0.5, 0.5]  # seconds from one word to the next

BREAKS = [  # what happens to an answer after some of its words
    lambda some: cut(*some, " half"),
    lambda some: fails(*some, " half"),
    lambda some: cut(),
    lambda some: status(500),
    lambda some: status(429, {}, retry_after_ms="1"),
]


def new_mark(chance):
    return f"[{chance.getrandbits(48):012x}]"


def mark_of(content):
    """The mark of a message."""
    return MARK.findall(content)[0]


def counting(request, count, pause):
    """The words of an answer: the mark of the message, so many numbers with it, and an end.

    Each number comes after a pause. If an answer is continued, so are its numbers.
    """
    mark, said = MARK.findall(asked(request))[-1], so_far(request)
    known = said.count(mark)
    first = [] if known else [f" {mark}"]
    numbers = range(max(0, known - 1), max(0, known - 1) + count * (not said.endswith("end.")))
    return [*first, *(part for number in numbers for part in (pause, f" {mark}{number}")), " end."]


def wrong_words(mark, text, is_complete):
    """What is wrong with the text of a reply to the message of this mark."""
    words = text.split()
    if {MARK.match(word)[0] for word in words if MARK.match(word)} - {mark}:
        yield "a word of another's"
    own = [word.removeprefix(mark) for word in words if word.startswith(mark) and word != mark]
    if own != [str(number) for number in range(len(own))]:
        yield "a word is lost, or doubled"
    if words.count(mark) != (mark in words):
        yield "the beginning is doubled"
    if is_complete and not (mark in words and words[-1] == "end."):
        yield "it is complete, and not whole"


class Talker:
    """A provider's default, which knows what it is asked. `failing`: how likely a call fails.

    `in_a_row`: whether two calls for one message may fail, one after the other. If not, each
    message is answered in the end. What it is asked and says is written in the history.
    """

    def __init__(self, seed, pauses, failing, in_a_row, history=NOWHERE):
        self.seed, self.pauses, self.failing, self.in_a_row = seed, pauses, failing, in_a_row
        self.calls = collections.Counter()  # mark → how many there were
        self.talking = set()  # (mark, number) of the calls in progress
        self.is_well = False
        self._lock = threading.Lock()
        self._recorded = history.model(self._talk)

    def __call__(self, request):
        return self._recorded(request)

    def _talk(self, request):
        mark = MARK.findall(asked(request))[-1]
        with self._lock:
            self.calls[mark] += 1
            call = mark, self.calls[mark]
            self.talking.add(call)
        try:
            yield from self._answer(request, *call)(request)
        finally:
            self.talking.discard(call)

    def _answer(self, request, mark, number):
        chance = random.Random(f"{self.seed} {mark} {number}")
        pause = FAST[0] if self.is_well else chance.choice(self.pauses)
        words = counting(request, chance.randrange(1, MOST), pause)
        may_fail = not self.is_well and (self.in_a_row or number % 2 == 1)
        if may_fail and chance.random() < self.failing:
            return chance.choice(BREAKS)(words[: chance.randrange(len(words))])
        return reply(*words)

    def wait_until_silent(self, seconds):
        """Returns the calls that have not ended by then."""
        deadline = time.monotonic() + seconds
        while self.talking and time.monotonic() < deadline:
            time.sleep(0.1)
        return list(self.talking)
