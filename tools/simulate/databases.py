"""The database of the product, with faults: before a transaction, as it is committed, and after
that.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import peewee

from database.sqlite import SQLite
from naming import fences_in
from simulate.standing_in import EPOCH, System

MICROSECONDS = 1_000_000
CONTROL = ("BEGIN", "COMMIT", "PRAGMA", "ROLLBACK", "SAVEPOINT", "RELEASE")


class Sea(Protocol):
    """What all processes reach, with the faults there."""

    clock_ahead: float  # seconds by which the database's clock was stepped
    breaks: int  # how often all connections broke

    def reach(self, where: str) -> None:
        """Raises an outage if the database is away. Any fault may happen here."""

    def commit(self, engine: "Simulated") -> None:
        """Raises what keeps this transaction from being committed."""

    def committed(self) -> None:
        """The faults after a commit."""


def microseconds(sea: Sea) -> int:
    """The time of the database, since 1970."""
    return int((EPOCH + System.machine.now + sea.clock_ahead) * MICROSECONDS)


class Simulated:
    """What both engines have in common here. It comes before one of the product's engines in a
    class's bases."""

    sea: Sea
    may_hang = False  # whether a transaction can be kept back, and come later

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        self.reach("writes")
        self.fences: set[int] = set()  # that the statements of the transaction have named
        self.begins()
        with super().write():  # type: ignore[misc]
            yield
            self.sea.commit(self)
        self.sea.committed()

    def reach(self, where: str) -> None:
        """The code calls the database."""
        self.sea.reach(where)

    def begins(self) -> None:
        """A transaction is about to begin."""

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any:
        if self.in_transaction():  # type: ignore[attr-defined]
            self.fences |= fences_in(params or ())
        elif not sql.startswith(CONTROL):
            self.reach("reads")
        return super().execute_sql(sql, params)  # type: ignore[misc]

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        self._state.breaks = self.sea.breaks  # type: ignore[attr-defined]
        return connection

    def has_broken(self, breaks: int) -> bool:
        """Whether the connection of this thread is older than a break; true only once."""
        state = self._state  # type: ignore[attr-defined]
        has_broken = not state.closed and getattr(state, "breaks", breaks) < breaks
        state.breaks = breaks
        return has_broken

    def now(self) -> int:
        return microseconds(self.sea)

    def outage(self) -> Exception:
        """An error as peewee raises it if the driver has raised one."""
        cause = self.fault()
        error = peewee.OperationalError(str(cause))
        error.orig = cause  # type: ignore[attr-defined]
        return error

    def fault(self) -> Exception:
        """An outage as the driver raises it."""
        raise NotImplementedError


class SimulatedSQLite(Simulated, SQLite):
    """A file, with the clock of the machine."""

    may_hang = True

    def begins(self) -> None:
        self._sent: list[tuple[str, Any]] = []
        self._has_waited = False  # whether it has waited for a statement's result, as a transaction that reads does
        self._changes_before = self.connection().total_changes

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any:
        if self.in_transaction():
            if sql.startswith("SELECT"):
                self._has_waited = True
            else:
                self._sent.append((sql, params))
        return super().execute_sql(sql, params)

    def send(self, query: Any) -> Callable[[], list[tuple[Any, ...]]]:
        rows = super().send(query)

        def wait() -> list[tuple[Any, ...]]:
            self._has_waited |= self.in_transaction()
            return rows()

        return wait

    def late(self, seen: int) -> "Late":
        """The transaction in progress, which is given up. `seen` is how often others have changed
        what is stored."""
        changes = self.connection().total_changes - self._changes_before
        return Late(self._sent, changes, seen if self._has_waited else None)

    def fault(self) -> Exception:
        fault = sqlite3.OperationalError("disk I/O error")
        fault.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return fault


class Late:
    """A transaction that hangs: its client has given it up, and it may still arrive. One that had
    been answered something keeps its rows locked meanwhile, so that nobody else changes them. One
    that was only sent locks nothing, and arrives as if it had been sent late."""

    def __init__(self, sent: Sequence[tuple[str, Any]], changes: int, seen: int | None) -> None:
        self._sent, self._changes, self._seen = list(sent), changes, seen
        self.fences = fences_in([values for _, values in self._sent])

    def come(self, file: sqlite3.Connection, seen: int) -> bool:
        """Commit it; returns whether it came."""
        if self._seen not in (None, seen):
            return False
        before = file.total_changes
        file.execute("BEGIN IMMEDIATE")
        try:
            for sql, params in self._sent:
                file.execute(sql, params or ()).fetchall()
            is_same = self._seen is None or file.total_changes - before == self._changes
        except sqlite3.IntegrityError:
            is_same = False
        file.execute("COMMIT" if is_same else "ROLLBACK")
        return is_same
