"""The faults of processes and of the database: when code calls the database, and in between."""

import contextlib
from typing import TYPE_CHECKING, Any

import greenlet

from database import Unavailable, limit_time
from maintenance.deletion import sweep
from replies.keeper import RECENT_TIME
from simulate.databases import Late
from simulate.servers import GRACES, ServerProcess

if TYPE_CHECKING:
    from simulate.world import World

# Seconds for which a process is paused.
STANDS = (1.5, 0.2, 6.0, 12.0, 22.5, 24.5, 28.0, 33.0, 45.0)
LONG = 6  # the first of those after which a lease has lapsed, and others have looked at it
AWAY = (0.5, 3.0, 8.0, 15.0, 30.0)  # seconds that the database is away
STEPS = (30.0, -30.0, 5.0, 300.0)  # seconds by which its clock is stepped
KINDS = (
    "_one_dies",
    "_one_stands",
    "_one_stops",
    "_one_starts",
    "_database_is_away",
    "_clock_is_stepped",
    "_late_comes",
    "_failover",
    "_one_sweeps",
)
BETWEEN = (1.0, 0.1, 0.4, 3.0, 8.0, 20.0)  # seconds between two faults
LAST_COMMITS = 2  # at most, that a failover takes back
# How likely there is no fault when code calls the database; each run draws one of these.
USUAL = (0.985, 0.95, 0.997)


class Fate:
    """The `sea` of all engines. At most so many faults come."""

    def __init__(self, world: "World", faults: int) -> None:
        self.world, self.left = world, faults
        self._kinds = world.chance.some("faults", KINDS)
        self._stands = world.chance.pick("stands", (STANDS, STANDS[LONG:]), 0.7)
        self._usual = world.chance.pick("rate of faults", USUAL, 0.5)
        self.clock_ahead = 0.0
        self.away_until = 0.0
        self.breaks = 0  # how often all connections broke
        self.late: list[Late] = []
        self.had_failover = self.had_step = self.took_old_end = False
        self.happened = 0

    @property
    def may_lose_text(self) -> bool:
        """Whether text that was shown may be gone: no process has it any more, since the database
        has lost it, and its writer may be gone, too, or have dropped it."""
        has_more = self.happened > 1 or self.world.person.has_asked("cancel", "delete")
        return self.had_failover and (has_more or self.took_old_end)

    # At the database

    def reach(self, where: str) -> None:
        world = self.world
        process = world.machine.home
        if process is None or process.is_dead:
            return
        if world.chance.choose(f"{process.name} {where}", 2, 0.9):
            world.machine.rest()
        kind = self._befalls(f"before {where}", 4)
        if kind == 1:
            self._dies_here(process)
        elif kind == 2:
            self._stands_here(process)
        elif kind == 3:
            self._trouble(process, f"the connection breaks, as it {where}")
            raise process.engine.outage()
        if self.away_until > world.machine.now:
            process.troubled_at = self.away_until
            raise process.engine.outage()
        if process.engine.has_broken(self.breaks):
            process.troubled_at = world.machine.now
            raise process.engine.outage()

    def commit(self, engine: Any) -> None:
        process = self.world.machine.home
        kind = self._befalls("commit", 3)
        if kind == 1:
            self._trouble(process, "a commit is refused")
            raise engine.outage()
        if kind == 2 and engine.may_hang:
            self._trouble(process, "a commit hangs, and is given up")
            self.late.append(engine.late(self.world.promises.changes))
            raise engine.outage()

    def committed(self) -> None:
        """It is stored, whatever happens now."""
        world = self.world
        process = world.machine.home
        world.see(process.engine.fences)
        kind = self._befalls("committed", 4)
        if kind == 1:
            self._dies_here(process)
        elif kind == 2:
            self._stands_here(process)
        elif kind == 3:
            self._trouble(process, "the answer of a commit is lost")
            raise process.engine.outage()
        if world.chance.choose(f"{process.name} has committed", 2, 0.8):
            world.machine.rest()

    def _befalls(self, name: str, kinds: int) -> int:
        if not self.left:
            return 0
        kind = self.world.chance.choose(f"befalls {name}", kinds, self._usual)
        self._spend(kind)
        return kind

    def _spend(self, kind: int) -> None:
        if kind:
            self.left -= 1
            self.happened += 1
            self.world.troubled_at = max(self.world.troubled_at, self.world.machine.now)

    def _dies_here(self, process: ServerProcess) -> None:
        process.die()
        raise greenlet.GreenletExit

    def _stands_here(self, process: ServerProcess) -> None:
        process.stand_still(self.world.chance.pick("stands still for", self._stands, 0.2))
        self.world.troubled_at = process.paused_until
        self.world.machine.rest()

    def _trouble(self, process: ServerProcess, text: str) -> None:
        self.world.machine.tell(text)
        process.troubled_at = self.world.machine.now

    # In between

    def act(self) -> None:
        """A task of no process: the faults that come at any time."""
        world = self.world
        while self.left and not world.person.is_done:
            world.machine.wait(world.chance.pick("until something befalls", BETWEEN, 0.3))
            kind = world.chance.choose("befalls", len(self._kinds) + 1, 0.5)
            if kind and self.left:
                self._spend(kind)
                getattr(self, self._kinds[kind - 1])()

    def _living(self, name: str) -> ServerProcess | None:
        """Preferably one that writes a reply."""
        living = [each for each in self.world.processes if not each.is_dead]
        living.sort(key=lambda each: not each.written())
        return self.world.chance.pick(name, living, 0.4) if living else None

    def _one_dies(self) -> None:
        if process := self._living("dies"):
            process.die()

    def _one_stands(self) -> None:
        if process := self._living("stands still"):
            process.stand_still(self.world.chance.pick("stands still for", self._stands, 0.2))
            self.world.troubled_at = process.paused_until

    def _one_stops(self) -> None:
        process = self._living("stops")
        if process is not None and not process.is_stopping:
            process.stop(self.world.chance.pick("grace", GRACES, 0.5))

    def _one_starts(self) -> None:
        self.world.start_process()

    def _one_sweeps(self) -> None:
        """As each process does once an hour."""
        if process := self._living("sweeps"):
            self.world.machine.tell(f"{process.name} sweeps")
            self.world.machine.spawn("sweep", process, sweep_once)

    def _database_is_away(self) -> None:
        seconds = self.world.chance.pick("away for", AWAY, 0.3)
        self.world.machine.tell(f"the database is away for {seconds} s")
        self.away_until = self.world.machine.now + seconds
        self.breaks += 1
        self._all_are_troubled(self.away_until)

    def _clock_is_stepped(self) -> None:
        seconds = self.world.chance.pick("clock", STEPS, 0.4)
        self.world.machine.tell(f"the database's clock is stepped by {seconds} s")
        self.clock_ahead += seconds
        self.had_step = True
        self._all_are_troubled(self.world.machine.now)

    def _late_comes(self) -> None:
        if self.late:
            place = self.world.chance.choose("comes late", len(self.late), 0.6)
            late = self.late.pop(place)
            came = late.come(self.world.eye.file, self.world.promises.changes)
            self.world.machine.tell("what hung comes through" if came else "what hung is void")
            if came:
                self.world.see(late.fences)

    def _failover(self) -> None:
        """The last commits are lost, and all connections break."""
        if not self.world.eye.past:
            return
        self.had_failover = True
        back = self.world.chance.choose("commits lost", LAST_COMMITS, 0.6) + 1
        self.world.machine.tell(f"a failover takes {back} commits back")
        self.world.eye.take_back(back)
        self.away_until = self.world.machine.now + 0.5
        self.breaks += 1
        self._all_are_troubled(self.away_until)
        self.late.clear()
        self.world.promises.forget_text()
        self.took_old_end |= self.world.promises.is_begun_anew(self.world.machine.now - RECENT_TIME)

    def _all_are_troubled(self, until: float) -> None:
        self.world.troubled_at = max(self.world.troubled_at, until)
        for process in self.world.processes:
            process.troubled_at = max(process.troubled_at, until)

    def heal(self) -> None:
        """There are no more faults. A process that is paused continues when its time has come."""
        self.left = 0
        self.late.clear()


def sweep_once() -> None:
    """A task of a process. What is left will be swept another time."""
    limit_time()
    with contextlib.suppress(Unavailable):
        sweep()
