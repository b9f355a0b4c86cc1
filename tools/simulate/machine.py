"""A machine without threads: tasks take turns, and time is a number, which moves when all wait."""

import contextlib
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Protocol

import greenlet

from simulate.chance import Chance

BEGINNING = 1000.0  # seconds, by the clock of a machine that has just begun
# How likely the task that has waited longest is next; each run draws one of these.
GOING_ON = (0.6, 0.3, 0.9)


class Home(Protocol):
    """A process, as a machine sees it."""

    name: str
    is_dead: bool
    paused_until: float

    def enter(self, task: "Task") -> None:
        """From here on, the code's process and thread are this task's."""


class Task(greenlet.greenlet):
    """What a thread does, or a client: a part of a process, or of none. It runs until it waits."""

    def __init__(
        self, machine: "Machine", name: str, home: Home | None, function: Callable[[], Any]
    ) -> None:
        super().__init__(function, machine.hub)
        self.name, self.home = name, home
        self.due = machine.now  # when it has waited long enough
        self.until: Callable[[], bool] = never  # or when this is true
        self.own = SimpleNamespace()  # the data of a thread
        self.states: dict[Any, Any] = {}  # of its connections

    def is_ready(self, now: float) -> bool:
        if self.home is not None and self.home.paused_until > now:
            return False
        return self.due <= now or self.until()

    def wakes_at(self) -> float:
        return max(self.due, self.home.paused_until if self.home else 0.0)


def never() -> bool:
    return False


class Machine:
    """The tasks and their time."""

    def __init__(self, chance: Chance, is_told: bool = False) -> None:
        self.chance, self.now = chance, BEGINNING
        self._going_on = chance.pick("order", GOING_ON, 0.5)
        self.hub = greenlet.getcurrent()
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.on_time: Callable[[], None] = lambda: None  # it is called when time has moved
        self.lines: list[str] | None = [] if is_told else None  # of the story
        self._names: dict[str, int] = {}

    def tell(self, text: str) -> None:
        if self.lines is not None:
            home = self.current.home.name + ": " if self.current and self.current.home else ""
            self.lines.append(f"{self.now - BEGINNING:8.3f}  {home}{text}")

    # Tasks

    def spawn(
        self, name: str, home: Home | None, function: Callable[..., Any], *given: Any
    ) -> Task:
        """Run this in a task of its own."""
        whose = f"{home.name} {name}" if home else name
        number = self._names[whose] = self._names.get(whose, 0) + 1
        task = Task(self, f"{whose} {number}", home, lambda: function(*given))
        self.tasks.append(task)
        return task

    @property
    def home(self) -> Any:
        """The process whose task is running, or None."""
        return self.current.home if self.current else None

    def is_dying(self) -> bool:
        return self.home is not None and self.home.is_dead

    def wait(self, seconds: float | None, until: Callable[[], bool] = never) -> bool:
        """Let other tasks run for so many seconds (None: without a limit), or until something has
        come; returns whether it has."""
        task = self.current
        if task is None or until():
            return until()
        self._check()
        task.due = math.inf if seconds is None else self.now + max(0.0, seconds)
        task.until = until
        self.hub.switch()
        self._check()
        return until()

    def rest(self) -> None:
        """Let other tasks run; no time passes."""
        self.wait(0)

    def _check(self) -> None:
        """End the task if its process has died."""
        if self.is_dying():
            raise greenlet.GreenletExit

    def run(self, is_over: Callable[[], bool], seconds: float = math.inf) -> None:
        """Run until it is over, nothing is left to do, or so much time has passed."""
        end = self.now + seconds
        while not is_over():
            now = self.now
            ready = [task for task in self.tasks if task.is_ready(now)]
            if ready:
                self._go_on(ready)
                continue
            next_time = min((task.wakes_at() for task in self.tasks), default=math.inf)
            if next_time > end or next_time == math.inf:
                self.now = min(end, max(now, next_time)) if end < math.inf else now
                return
            self.now = next_time
            self.on_time()

    def _go_on(self, ready: list[Task]) -> None:
        ready.sort(key=lambda task: task.due)
        number = self.chance.choose("next", len(ready), self._going_on) if len(ready) > 1 else 0
        with self._under_way(ready[number]) as task:
            task.switch()

    @contextlib.contextmanager
    def _under_way(self, task: Task) -> Iterator[Task]:
        self.current = task
        if task.home is not None:
            task.home.enter(task)
        try:
            yield task
        finally:
            self.current = None
            if task.dead:
                self.tasks.remove(task)
            self._bury()

    def _bury(self) -> None:
        """End the tasks of processes that have died. This releases what they had, and has no other
        effect."""
        for task in list(self.tasks):
            if task.home is not None and task.home.is_dead:
                self.tasks.remove(task)
                self.current = task
                task.home.enter(task)
                task.throw()
                self.current = None

    def end(self) -> None:
        """End all tasks, of clients too."""
        for task in self.tasks:
            if task.home is not None:
                task.home.is_dead = True
        self._bury()
        for task in self.tasks:
            task.throw()
        self.tasks.clear()
