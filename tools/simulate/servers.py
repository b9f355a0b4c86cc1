"""A process of the service, as gunicorn starts it: its replies, its keeper, its connections."""

import math
from typing import Any

from peewee import _ConnectionState

from database import db, deadline
from limits import Slot
from llm import Catalog
from replies import Replies
from replies.reply import Reply
from simulate.machine import Machine, Task
from simulate.scripted import MODEL, Scripted
from simulate.standing_in import Threads

SETTINGS = {"MAX_TOKENS": 1000, "THINKING": "keep"}
RENEWING = 3.5  # seconds, in which a process without faults has renewed its leases
GRACES = (0.0, 1.0, 5.0)  # seconds


class ServerProcess:
    """One process. Those of one host see each other's deaths."""

    def __init__(
        self,
        machine: Machine,
        number: int,
        host: str,
        engine: Any,
        provider: Scripted,
        settings: dict[str, Any],
    ) -> None:
        self.machine, self.host, self.engine = machine, host, engine
        self.name = f"{host}/{number}/0"
        self.started_at = machine.now
        self.is_dead = self.is_stopping = False
        self.paused_until = 0.0
        self.stopping_at = math.inf
        self.paused_at = 0.0  # when it was last paused
        self.was_calm = False  # whether it could renew its leases until then
        self.troubled_at = 0.0  # until when a fault affected it
        self.died_at: float | None = None
        self.has_left: dict[
            int, int
        ] = {}  # the replies that it left when it stopped, and its fence of each
        self.everybody: dict[str, ServerProcess] = {}
        catalog = Catalog([provider], (), MODEL)  # type: ignore[list-item]
        self.replies = Replies(catalog, SETTINGS | settings, threads=Threads())  # type: ignore[arg-type]
        machine.spawn("start", self, self.replies.start_keeper)

    def enter(self, task: Task) -> None:
        """All models use the process's database, and a thread's data are those of the task."""
        db.obj = self.engine
        self.engine._state = task.states.setdefault(self.engine, _ConnectionState())
        deadline._thread = task.own  # type: ignore[assignment]

    def knows_dead(self, name: str | None) -> bool:
        """Whether it knows for sure that the process of this name is gone."""
        other = self.everybody.get(name or "")
        return other is not None and other.host == self.host and other.is_dead

    @property
    def is_paused(self) -> bool:
        return self.paused_until > self.machine.now

    @property
    def takes_requests(self) -> bool:
        return not (self.is_dead or self.is_stopping or self.is_paused)

    def memory(self, owner: str) -> Slot:
        return Slot(self.replies.memory_bulkhead, owner)

    def written(self) -> list[Reply]:
        return self.replies.registry.written()

    # Its faults

    def die(self) -> None:
        self.machine.tell(f"{self.name} dies")
        self.is_dead, self.died_at = True, self.machine.now

    def stand_still(self, seconds: float) -> None:
        self.machine.tell(f"{self.name} stands still for {seconds} s")
        self.was_calm = self.machine.now > self.troubled_at + RENEWING
        self.paused_at = self.machine.now
        self.paused_until = self.troubled_at = self.machine.now + seconds

    def stop(self, grace: float) -> None:
        """As after SIGTERM: its replies end or are handed over, and then it is gone."""
        self.machine.tell(f"{self.name} is to stop within {grace} s")
        self.is_stopping = True
        self.machine.spawn("stop", self, self._stop, grace)

    def _stop(self, grace: float) -> None:
        self.stopping_at = self.machine.now
        self.replies.stop_taking_over()
        self.machine.wait(grace, self.replies.are_over)
        self.replies.stop()
        self.has_left = {reply.id: reply.fence for reply in self.written()}
        self.die()
