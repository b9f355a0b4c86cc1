"""Breadth first, until there is nothing new."""

import collections
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from model.moves import moves
from model.promises import broken_by, broken_in, is_at_rest
from model.states import Database, Process, State
from model.turns import Bounds

LAST_COMMITS = 2  # at most, that a failover takes back


class Broken(NamedTuple):
    """A promise, and the shortest story that breaks it."""

    promise: str
    story: list[str]


class Explored(NamedTuple):
    states: int
    steps: int
    by_name: dict[str, int]  # how many steps of each name there were
    broken: list[Broken]  # the first of each promise


def beginning(bounds: Bounds) -> State:
    return State(
        Database(),
        (Process(),) * bounds.processes,
        past=(Database(),) * LAST_COMMITS * bounds.failover,
        acts=bounds.acts,
        faults=bounds.faults,
    )


def ignore(before: Database, after: Database) -> None:
    pass


class Exploration:
    """It keeps only a hash of 64 bits of each state that it has left. Two states share one in some
    100,000 explorations of ten million states."""

    def __init__(self, bounds: Bounds, see: Callable[[Database, Database], None] = ignore) -> None:
        """`see` is called with the database before and after each step."""
        self.bounds, self.see = bounds, see
        first = beginning(bounds)
        self.numbers = {hash(first): 0}
        self.coming = collections.deque([first])
        self.came_by: list[tuple[int, str]] = [(-1, "")]  # from which state, by which move
        self.behind: list[list[int]] = []  # the states to which a process comes by itself
        self.at_rest: list[int] = []
        self.names: collections.Counter[str] = collections.Counter()
        self.problems: dict[str, Broken] = {}

    def run(self, until: str | None = None) -> Explored:
        """Run to the end, or until a promise that begins so is broken."""
        while self.coming and not (until and any(each.startswith(until) for each in self.problems)):
            self._go_on(self.coming.popleft())
        if not self.coming:
            for stuck in itertools.islice(self._stuck(), 1):
                self._tell("S-43: a session is stuck", stuck)
        steps, problems = sum(self.names.values()), list(self.problems.values())
        return Explored(len(self.numbers), steps, dict(self.names), problems)

    def _go_on(self, state: State) -> None:
        number, own = len(self.behind), []
        if is_at_rest(state):
            self.at_rest.append(number)
        for problem in broken_in(state, self.bounds):
            self._tell(problem, number)
        for name, after, is_own in moves(state, self.bounds):
            self.names[name] += 1
            if after.database != state.database:
                self.see(state.database, after.database)
                for problem in broken_by(state, after):
                    self._tell(problem, number, name)
            known = self._number(after.sorted(), number, name)
            if is_own:
                own.append(known)
        self.behind.append(own)

    def _number(self, state: State, before: int, name: str) -> int:
        """The number of this state, which is new, or known."""
        known = self.numbers.setdefault(hash(state), len(self.numbers))
        if known == len(self.came_by):
            self.came_by.append((before, name))
            self.coming.append(state)
        return known

    def _tell(self, promise: str, number: int, *last: str) -> None:
        if promise not in self.problems:
            self.problems[promise] = Broken(promise, [*self.story(number), *last])

    def story(self, number: int) -> list[str]:
        """The moves that lead to this state."""
        told = []
        while number > 0:
            number, name = self.came_by[number]
            told.append(name)
        return told[::-1]

    def _stuck(self) -> Iterator[int]:
        """States from which no process comes to rest by itself."""
        before: list[list[int]] = [[] for _ in self.behind]
        for number, after in enumerate(self.behind):
            for other in after:
                before[other].append(number)
        coming = list(self.at_rest)
        comes = set(coming)
        while coming:
            for number in before[coming.pop()]:
                if number not in comes:
                    comes.add(number)
                    coming.append(number)
        yield from (number for number in range(len(before)) if number not in comes)
