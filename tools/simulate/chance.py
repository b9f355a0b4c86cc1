"""What is left to chance in a run: drawn from a seed, or known from a story that is told again."""

import collections
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Choice = tuple[str, int]  # what was to be chosen, and how often it was before
Story = dict[Choice, int]  # what was chosen, but for 0, by which nothing befalls

Option = TypeVar("Option")


class Chance:
    """Choices by name, so that a story of which some are left out stays the same otherwise."""

    def __init__(self, seed: int, story: Mapping[Choice, int] | None = None) -> None:
        self.random = random.Random(seed)
        self.numbers = random.Random(-1 - seed)  # that the code itself draws
        self.made: Story = {}
        self._known = story
        self._asked: collections.Counter[str] = collections.Counter()

    def choose(self, name: str, count: int, likely: float) -> int:
        """One of so many: 0, what is usual, as `likely` as that, or any of the others."""
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
        """One of these, of which the first is the usual one."""
        return options[self.choose(name, len(options), likely)]

    def some(self, name: str, options: Sequence[Option]) -> list[Option]:
        """About half of these, for one run: what is rare meets what is rare more often where there
        is less of all else (Groce, Swarm Testing, 2012). By default all."""
        if not self.choose(f"some of {name}", 2, 0.3):
            return list(options)
        return [each for each in options if self.choose(f"{name}: {each}", 2, 0.5)]
