"""PostgreSQL, with the clock of the machine, which is stored in a table."""

from typing import Any

import psycopg

from database import postgresql
from database.deadline import WAIT
from database.postgresql import PostgreSQL, parse
from simulate.databases import Simulated

CLOCK = "simulated_clock"


class SimulatedPostgreSQL(Simulated, PostgreSQL):
    """A server, whose clock is set before each request to it."""

    clock_sql = f"(SELECT now FROM {CLOCK})"
    clock: "Clock"

    def reach(self, where: str) -> None:
        super().reach(where)
        self.clock.tell(self.now())

    def fault(self) -> Exception:
        return psycopg.OperationalError("the connection is closed")


class Clock:
    """The row in which the statements of all processes find the time."""

    def __init__(self, file: psycopg.Connection) -> None:
        self._file, self._told = file, 0
        file.execute(f"CREATE TABLE IF NOT EXISTS {CLOCK} (now bigint)")
        file.execute(f"TRUNCATE {CLOCK}")
        file.execute(f"INSERT INTO {CLOCK} VALUES (0)")

    def tell(self, now: int) -> None:
        if now != self._told:
            self._told = now
            self._file.execute(f"UPDATE {CLOCK} SET now = %s", [now])


def open_server(url: str, processes: int) -> tuple[Any, list[Any]]:
    """A connection to the database of this URL without faults, and an engine for each process.
    Nothing waits for the disk."""
    hurried = "-c synchronous_commit=off"
    # The server answers at once, by the machine's time. A task that was paused may have no second
    # left: then the real clock would decide whether the answer was there in time.
    postgresql.remaining = lambda: WAIT  # type: ignore[attr-defined]
    file = psycopg.connect(url, autocommit=True, options=hurried)
    SimulatedPostgreSQL.clock = Clock(file)
    options = SimulatedPostgreSQL.options | parse(url) | {"options": hurried}
    return file, [SimulatedPostgreSQL(**options) for _ in range(processes)]
