"""What is left to chance in a run: drawn from a seed, or taken from a story that is run again."""

import collections
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Choice = tuple[str, int]  # the name of the choice, and how many of this name there were before
Story = dict[Choice, int]  # what was chosen, but for 0, which means no fault

Option = TypeVar("Option")


class Chance:
    """Choices by name, so that a story stays the same otherwise if some of them are left out."""

    def __init__(self, seed: int, story: Mapping[Choice, int] | None = None) -> None:
        self.random = random.Random(seed)
        self.numbers = random.Random(-1 - seed)  # the random numbers that the code itself draws
        self.made: Story = {}
        self._known = story
        self._asked: collections.Counter[str] = collections.Counter()

    def choose(self, name: str, count: int, likely: float) -> int:
        """One of so many numbers: 0, the usual one, with the probability `likely`, or any of the
        others."""
        number = self._asked[name]
        self._asked[name] = number + 1
        if self._known is not None:
            chosen = self._known.get((name, number), 0)
            chosen = chosen if chosen < count else 0
        elif self.random.random() < likely or count < 2:
            chosen = 0
        else:
            chosen = self.random.randrange(1, count)
        if chosen:
            self.made[name, number] = chosen
        return chosen

    def pick(self, name: str, options: Sequence[Option], likely: float) -> Option:
        """One of these. The first is the usual one."""
        return options[self.choose(name, len(options), likely)]

    def some(self, name: str, options: Sequence[Option]) -> list[Option]:
        """About half of these, for one run: rare choices meet more often if there are fewer others
        (Groce, Swarm Testing, 2012). By default all."""
        if not self.choose(f"some of {name}", 2, 0.3):
            return list(options)
        return [each for each in options if self.choose(f"{name}: {each}", 2, 0.5)]
