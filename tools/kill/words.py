"""What the model says, `word1 word2 … word40`, and how much of it a text has."""

import re
from collections import Counter
from typing import NamedTuple

WORDS = 40


class Counted(NamedTuple):
    once: int
    twice: int  # or more often
    missing: int


def numbers_in(text):
    """The numbers of the words in a text, in its order."""
    return [int(number) for number in re.findall(r"\bword(\d+)\b", text)]


def count(text):
    """How many of the words a text has once, how many twice, and how many it lacks."""
    times = Counter(numbers_in(text))
    once = sum(times[number] == 1 for number in range(1, WORDS + 1))
    twice = sum(times[number] > 1 for number in range(1, WORDS + 1))
    return Counted(once, twice, WORDS - once - twice)
