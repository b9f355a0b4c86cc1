"""One run: processes, people and faults, until all is at rest."""

import gc
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from database.transactions import _failed, _running
from logs import log
from maintenance.deletion import backlog
from model.steps import Step
from replies.fault_isolation import _logged
from simulate.chance import Chance, Choice, Story
from simulate.eye import Eye
from simulate.fate import LAST_COMMITS, Fate
from simulate.final import broken_at_the_end
from simulate.machine import Machine
from simulate.people import Person
from simulate.promises import Promises
from simulate.scripted import TITLE_MODEL, Scripted
from simulate.servers import ServerProcess
from simulate.standing_in import System

HOSTS = ("one", "two")  # in turns, as processes start
MOST_ACTS, MOST_FAULTS = 6, 4
LONGEST = 400.0  # seconds of a run, after which there are no more faults
SETTLING = 120.0  # seconds within which all comes to rest


class Ran(NamedTuple):
    """The result of a run."""

    problem: str | None
    story: Story
    lines: list[str]
    steps: set[Step]  # of rows


class Bugs(logging.Handler):
    """A bug in the log breaks a promise, too."""

    def __init__(self, breaks: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._breaks = breaks

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self._breaks(f"a bug: {record.getMessage()}: {type(error).__name__}: {error}")


class World:
    """`engines` are for as many processes at a time, and are used again."""

    def __init__(
        self,
        seed: int,
        engines: Sequence[Any],
        eye: Eye,
        story: Mapping[Choice, int] | None = None,
        is_told: bool = False,
    ) -> None:
        self.chance = Chance(seed, story)
        random.seed(seed)
        self.machine = System.machine = Machine(self.chance, is_told)
        self.engines, self.eye = list(engines), eye
        self.processes: list[ServerProcess] = []
        self.everybody: dict[str, ServerProcess] = {}
        self.troubled_at = 0.0  # until when there was a fault
        self.continue_limit = self.chance.pick("CONTINUE_LIMIT", (2, 1, 0, 3), 0.6)
        self.promises = Promises(self)
        self.provider = Scripted(self.machine, self.promises.breaks)
        self.fate = Fate(self, self.chance.choose("faults", MOST_FAULTS + 1, 0.15))
        self.person = Person(self, 1 + self.chance.choose("acts", MOST_ACTS, 0.2))
        fails_over = self.chance.choose("may fail over", 2, 0.8)
        self.eye.keeps = LAST_COMMITS if fails_over and self.eye.may_keep else 0
        self.title_model = TITLE_MODEL if self.chance.choose("titles", 2, 0.5) else None
        for engine in engines:
            engine.sea = self.fate

    # What others need

    def start_process(self) -> ServerProcess | None:
        """A new process, if there is a place for it."""
        self.processes = [each for each in self.processes if not each.is_dead]
        taken = {id(each.engine) for each in self.processes}
        free = [engine for engine in self.engines if id(engine) not in taken]
        if not free:
            return None
        number = len(self.everybody) + 1
        host = HOSTS[number % len(HOSTS)]
        settings = {"CONTINUE_LIMIT": self.continue_limit, "TITLE_MODEL": self.title_model}
        process = ServerProcess(self.machine, number, host, free[0], self.provider, settings)
        process.everybody = self.everybody
        self.everybody[process.name] = process
        self.processes.append(process)
        self.machine.tell(f"{process.name} starts")
        return process

    def any_process(self, name: str) -> ServerProcess:
        """One that takes requests; if there is none, start one."""
        self.processes = [each for each in self.processes if not each.is_dead]
        taking = [each for each in self.processes if each.takes_requests]
        if not taking:
            started = self.start_process()
            taking = [started] if started else list(self.processes)
        return self.chance.pick(name, taking, 0.6)

    def is_unconfirmed(self, turn_id: int) -> bool:
        """Whether a process may undo the claim of this reply."""
        keepers = [process.replies.keeper for process in self.everybody.values()]
        return any(
            claim.turn_id == turn_id
            for keeper in keepers
            for _, claim in keeper._rescuer._unconfirmed
        )

    def see(self, fences: set[int]) -> None:
        """A commit succeeded, and its statements have named these fences."""
        self.promises.see(self.eye.look(), fences)
        self.eye.keep()

    # The run

    def run(self) -> Ran:
        gc.disable()
        log.handlers = [Bugs(self.promises.breaks)]
        log.propagate = False
        forget_what_modules_know()
        self.eye.empty()
        self.eye.keep()
        self.machine.on_time = self.promises.tick
        try:
            self._run()
            self.machine.end()
        finally:
            gc.enable()
        problem = self.promises.problem
        return Ran(problem, self.chance.made, self.machine.lines or [], self.promises.steps)

    def _run(self) -> None:
        for _ in self.engines:
            self.start_process()
        self.machine.spawn("person", None, self.person.act)
        self.machine.spawn("fate", None, self.fate.act)
        self.machine.run(lambda: self.person.is_done or self._is_broken(), LONGEST)
        if self._is_broken():
            return
        self.machine.tell("nothing more befalls")
        self.fate.heal()
        self.provider.is_calm = True
        if not any(process.takes_requests for process in self.processes):
            self.start_process()
        self.machine.run(lambda: self._is_at_rest() or self._is_broken(), SETTLING)
        if self._is_broken():
            return
        self.machine.run(self._is_broken, 2.5)  # late news arrives
        for problem in broken_at_the_end(self):
            self.promises.breaks(problem)

    def _is_broken(self) -> bool:
        return self.promises.problem is not None

    def _is_at_rest(self) -> bool:
        under_way = any(row.status == "in_progress" for row in self.promises.seen.rows.values())
        known = any(
            process.replies.registry.known() for process in self.processes if not process.is_dead
        )
        known |= any(process.is_paused for process in self.processes)
        known |= any(call.is_open for call in self.provider.calls)  # of a title
        reading = any(not reader.is_over for reader in self.person.readers)
        return self.person.is_done and not (under_way or known or reading)


def forget_what_modules_know() -> None:
    """Forget what modules remember of the run before."""
    for known in (_logged, _failed, _running, backlog):
        known.clear()
