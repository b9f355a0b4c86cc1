"""Connections that are kept, and what an engine has to offer."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from peewee import SQL, Database, DatabaseProxy, ModelSelect, NodeList, Query

from database.deadline import is_reading, remaining
from database.failures import Unavailable, mapped_errors

SECOND = 1_000_000  # microseconds, in which times are stored
CONNECTIONS = 8  # that one process holds open at most
# Of these, for requests that change something: many may come at once, and those that only read do
# not wait behind them.
CHANGING = 6

NO_CONNECTION = "no connection became free in time"


class CurrentDatabase(DatabaseProxy):
    """The database that all models are of, once it is opened."""

    @contextlib.contextmanager
    def connection_context(self) -> Iterator[None]:  # type: ignore[override]
        """A connection for this thread. Raises Unavailable where there is none, or the database
        fails within this. What fails within a transaction is for that to see first."""
        mapped = mapped_errors() if self.is_closed() else contextlib.nullcontext()
        with mapped, super().connection_context():
            yield


db = CurrentDatabase()


class Engine:
    """What differs between SQLite and PostgreSQL, besides what peewee knows of them."""

    param: str  # the mark of a parameter, as peewee has it
    concat: str  # the aggregate function that joins texts
    held: str  # the clause that holds the rows of `turn` that a statement reads
    records: tuple[str, str]  # a table of a JSON array of objects, and a column of it
    clock_sql: str  # the time in microseconds since 1970
    options: dict[str, Any]  # of an engine's own connections
    size: str  # the bytes of a text, which is not read for that

    def size_of(self, column: Any) -> NodeList:
        """The same of a column, or an expression."""
        before, _, after = self.size.partition("{}")
        return NodeList((SQL(before), column, SQL(after)))

    def is_usable(self, connection: Any) -> bool:
        """Whether this kept connection, or None, can be used again. Nothing is sent."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises Unavailable where nobody can write."""
        raise NotImplementedError

    def keep_reserve(self) -> None:
        """Reserve some room on the disk, if this has not been done, for what is deleted when the
        disk is full."""

    def give_up_reserve(self) -> bool:
        """Give that room up if the disk is full; returns whether there was any."""
        return False

    def room(self) -> float:
        """How many more bytes can be stored; infinite if that is not known here."""
        return float("inf")

    def is_in_use(self) -> bool:
        """Whether another process has it open, as far as that can be found out. To be asked while
        this process has no connection."""
        raise NotImplementedError

    def forget_read(self) -> None:
        """Hold nothing of what this thread's connection has read, which was much."""
        raise NotImplementedError

    def write(self) -> AbstractContextManager[None]:
        """One short write transaction, within which no other may begin."""
        raise NotImplementedError

    def now(self) -> int:
        """The time in microseconds since 1970, on which all processes agree."""
        raise NotImplementedError

    def lock(self, name: str) -> None:
        """Hold this name until the transaction ends."""
        raise NotImplementedError

    def lock_tables(self, names: Iterable[str]) -> None:
        """Let nobody read or write these tables until the transaction ends. It fails where others
        use one and do not end at once."""
        raise NotImplementedError

    def hold(self, query: ModelSelect | SQL) -> None:
        """Hold the rows of this query until the transaction ends."""
        raise NotImplementedError

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        """Execute the query, and do not wait for it where the engine need not; returns a function
        that returns its rows, once the transaction has ended at the latest."""
        raise NotImplementedError


class Pool(Engine, Database):
    """An engine whose connections are kept. A thread that needs a new one waits for that alone: in
    playhouse's pool, all others would wait with it."""

    _state: Any  # peewee's, of each thread

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(database, autoconnect=False, **options)
        self._lock = contextlib.nullcontext()  # peewee connects within it
        self._of_all = threading.Semaphore(CONNECTIONS)
        self._of_changing = threading.Semaphore(CHANGING)
        # A connection that is idle, or None for one that is not made yet.
        self._places: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._places.put(None)

    def _connect(self) -> Any:
        share = self._of_all if is_reading() else self._of_changing
        if not share.acquire(timeout=remaining()):
            raise Unavailable(NO_CONNECTION)
        try:
            connection = self._places.get(timeout=remaining())
        except queue.Empty:
            share.release()
            raise Unavailable(NO_CONNECTION) from None
        self._state.failed, self._state.share = False, share
        try:
            return connection if self.is_usable(connection) else super()._connect()  # type: ignore[misc]
        except BaseException as error:
            self._places.put(None)
            share.release()
            if isinstance(error, OSError):  # no descriptor is left for it
                raise Unavailable(str(error)) from error
            raise

    def _close(self, connection: Any) -> None:
        failed = self._state.failed
        self._places.put(None if failed else connection)
        self._state.share.release()
        if failed:
            super()._close(connection)  # type: ignore[misc]

    def discard(self) -> None:
        """Do not keep the connection of this thread: after a failure, its server may be one that
        cannot write any more."""
        self._state.failed = True

    def execute(self, query: Query | SQL, **options: Any) -> Any:
        """As peewee's, which takes no statement that is SQL already."""
        if isinstance(query, SQL):
            return self.execute_sql(query.sql, query.params)
        return super().execute(query, **options)
