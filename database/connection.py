"""The connection pool, and the interface of an engine."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from peewee import SQL, Database, DatabaseProxy, ModelSelect, NodeList, Query

from database.deadline import is_reading, remaining
from database.failures import Unavailable, mapped_errors

SECOND = 1_000_000  # microseconds, in which times are stored
CONNECTIONS = 8  # of one process, at most
# Of these, for requests that change something: many may come at once, and requests that only read
# must not queue after them.
CHANGE_CONNECTIONS = 6

NO_CONNECTION = "no connection became free in time"


class CurrentDatabase(DatabaseProxy):
    """The database of all models; a stand-in until `open_database` sets it."""

    @contextlib.contextmanager
    def connection_context(self) -> Iterator[None]:  # type: ignore[override]
        """A connection for this thread. Raises Unavailable if there is none, or if the database
        fails within this context. Within another context of the thread, errors stay the driver's,
        since its transaction may retry."""
        mapped = mapped_errors() if self.is_closed() else contextlib.nullcontext()
        with mapped, self.obj.connection_context():
            yield


db = CurrentDatabase()


class Engine:
    """What differs between SQLite and PostgreSQL, and peewee does not know."""

    param: str  # the place-holder of a parameter, as in peewee
    concat: str  # the aggregate function that joins texts
    row_lock: str  # the clause that locks the rows of `turn` that a statement reads
    records: tuple[str, str]  # SQL that makes a table of a JSON array of objects; one column of it
    clock_sql: str  # the time in microseconds since 1970
    options: dict[str, Any]  # for the engine's connections
    size: str  # the size of a text in bytes, without reading the text

    def size_of(self, column: Any) -> NodeList:
        """`size` of a column or an expression."""
        before, _, after = self.size.partition("{}")
        return NodeList((SQL(before), column, SQL(after)))

    def is_usable(self, connection: Any) -> bool:
        """Whether this idle connection, or None, can be used again. Sends nothing."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises Unavailable if nobody can write."""
        raise NotImplementedError

    def keep_reserve(self) -> None:
        """Reserve some room on the disk, if that is not done yet: deleting needs room, even on a
        full disk."""

    def give_up_reserve(self) -> bool:
        """Free the reserved room if the disk is full; returns whether there was any."""
        return False

    def room(self) -> float:
        """How many more bytes can be stored; infinite if that is unknown."""
        return float("inf")

    def is_in_use(self) -> bool:
        """Whether another process has the database open, as far as we can tell. Call this while
        this process has no connection."""
        raise NotImplementedError

    def drop_page_cache(self) -> None:
        """Free the memory of what this thread's connection has read, after reading much."""
        raise NotImplementedError

    def write(self) -> AbstractContextManager[None]:
        """One short write transaction. Do not nest it."""
        raise NotImplementedError

    def now(self) -> int:
        """The time in microseconds since 1970, the same for all processes."""
        raise NotImplementedError

    def lock(self, name: str) -> None:
        """Lock this name until the transaction ends."""
        raise NotImplementedError

    def lock_tables(self, names: Iterable[str]) -> None:
        """Lock these tables against readers and writers until the transaction ends. Fails soon if
        others use one of them."""
        raise NotImplementedError

    def lock_rows(self, query: ModelSelect | SQL) -> None:
        """Lock the rows of this query until the transaction ends."""
        raise NotImplementedError

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        """Execute the query, if possible without waiting for the result. Returns a function that
        returns the rows; call it after the transaction."""
        raise NotImplementedError

    # Whole tables, which may not fit in memory

    def long_transaction(self, reads: bool = False) -> AbstractContextManager[None]:
        """A transaction that may take hours. If it only `reads`, it sees a snapshot of the database
        at its first statement."""
        raise NotImplementedError

    def pages(self, sql: str, rows: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows that this statement finds, in pages of at most `rows`. Only one page is in
        memory. Within a transaction."""
        raise NotImplementedError

    def insert_all(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Insert these rows, reading one at a time. Values are texts, bytes, integers or None; a
        UUID is given as hexadecimal digits, a boolean as 0 or 1."""
        raise NotImplementedError

    def skip_used_ids(self, table: str) -> None:
        """Set the table's sequence, so that the next `id` is higher than all that there are."""
        raise NotImplementedError


class Pool(Engine, Database):
    """An engine that keeps its connections open. While a thread opens a new one, other threads go
    on; in playhouse's pool, they would wait for that."""

    _state: Any  # peewee's, one per thread
    # Called with each new connection of the driver. Raises Unavailable if it must not be used.
    check_new: Callable[[Any], None] | None = None

    def __init__(self, database: str, **options: Any) -> None:
        super().__init__(database, autoconnect=False, **options)
        self._lock = contextlib.nullcontext()  # peewee connects under this lock
        self._slots = threading.Semaphore(CONNECTIONS)
        self._change_slots = threading.Semaphore(CHANGE_CONNECTIONS)
        # Idle connections, and a None for each that is not open.
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(None)

    def _connect(self) -> Any:
        share = self._slots if is_reading() else self._change_slots
        if not share.acquire(timeout=remaining()):
            raise Unavailable(NO_CONNECTION)
        try:
            connection = self._idle.get(timeout=remaining())
        except queue.Empty:
            share.release()
            raise Unavailable(NO_CONNECTION) from None
        self._state.failed, self._state.share = False, share
        try:
            return connection if self.is_usable(connection) else self._open_new()
        except BaseException as error:
            self._idle.put(None)
            share.release()
            if isinstance(error, OSError):  # no file descriptor is left
                raise Unavailable(str(error)) from error
            raise

    def _open_new(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        try:
            if self.check_new is not None:
                self.check_new(connection)
        except BaseException:
            super()._close(connection)  # type: ignore[misc]
            raise
        return connection

    def _close(self, connection: Any) -> None:
        failed = self._state.failed
        self._idle.put(None if failed else connection)
        self._state.share.release()
        if failed:
            super()._close(connection)  # type: ignore[misc]

    def discard(self) -> None:
        """Close this thread's connection when it is given back. After a failure, its server may be
        one that takes no more writes."""
        self._state.failed = True

    def execute(self, query: Query | SQL, **options: Any) -> Any:
        """peewee's `execute`, which also takes a statement that is already SQL."""
        if isinstance(query, SQL):
            return self.execute_sql(query.sql, query.params)
        return super().execute(query, **options)
