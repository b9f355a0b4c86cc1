"""Runs on one database, one after the other."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from database import db, open_database
from maintenance.migrations import MIGRATIONS
from model.steps import Step
from modelled import not_of_the_model
from simulate.chance import Chance, Choice, Story
from simulate.databases import Simulated, SimulatedSQLite
from simulate.eye import Eye
from simulate.machine import Machine
from simulate.standing_in import System
from simulate.world import Ran, World
from tables.idempotency import _secret

TRIES = 400  # of a story, while it is made shorter


class Nowhere:
    """The sea before a run has begun: there are no faults."""

    clock_ahead, breaks = 0.0, 0

    def reach(self, where: str) -> None:
        pass

    def commit(self, engine: Any) -> None:
        pass

    def committed(self) -> None:
        pass


class Runs:
    """Runs on the database of this URL, which is emptied before each."""

    def __init__(self, url: str, processes: int) -> None:
        System.machine = Machine(Chance(0))
        Simulated.sea = Nowhere()
        open_database({"DATABASE_URL": url}, "", MIGRATIONS)
        file, engines = (open_file if url.startswith("sqlite") else open_server)(url, processes)
        self.engines = engines
        self.eye = Eye(file)
        db.initialize(engines[0])
        _secret()  # a process reads it once
        self._known_steps: set[Step] = set()

    def run(
        self, seed: int, story: Mapping[Choice, int] | None = None, is_told: bool = False
    ) -> Ran:
        ran = World(seed, self.engines, self.eye, story, is_told).run()
        new = ran.steps - self._known_steps
        if ran.problem or not new:
            return ran
        unknown = not_of_the_model(new)
        self._known_steps |= new.difference(unknown)
        return ran._replace(problem=f"the table of states lacks: {unknown[0]}") if unknown else ran

    def shorten(self, seed: int, story: Story, problem: str) -> Story:
        """Leave out of the story what is not needed to break the same promise: halves, quarters,
        single choices."""
        kept, size, tries = list(story), max(1, len(story) // 2), 0
        while size and tries < TRIES:
            place, has_shrunk = 0, False
            while place < len(kept) and tries < TRIES:
                rest = kept[:place] + kept[place + size :]
                tries += 1
                ran = self.run(seed, {choice: story[choice] for choice in rest})
                if is_same(ran.problem, problem):
                    kept = [choice for choice in rest if choice in ran.story]
                    has_shrunk = True
                else:
                    place += size
            size = size if has_shrunk and size == 1 else size // 2
        return {choice: story[choice] for choice in kept}


def open_file(url: str, processes: int) -> tuple[Any, list[Any]]:
    """A connection to SQLite's file without faults, and an engine for each process. Nothing waits
    for the disk."""
    path = url.removeprefix("sqlite:///")
    pragmas = SimulatedSQLite.options["pragmas"] | {"synchronous": "off"}
    options = SimulatedSQLite.options | {"database": path, "pragmas": pragmas}
    engines = [SimulatedSQLite(**options) for _ in range(processes)]
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA foreign_keys = 1")
    file.execute("PRAGMA synchronous = off")
    file.create_function("clock", 0, engines[0].now)  # for transactions that come late
    return file, engines


def open_server(url: str, processes: int) -> tuple[Any, list[Any]]:
    """The same for PostgreSQL, whose driver is loaded only here."""
    from simulate import on_postgresql

    return on_postgresql.open_server(url, processes)


def is_same(problem: str | None, other: str) -> bool:
    """Whether they are about the same promise."""
    return problem is not None and problem.split(":")[0] == other.split(":")[0]
