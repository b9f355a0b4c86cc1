"""The SQLite engine: one file, with one writer at a time."""

import contextlib
import functools
import os
import pathlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from peewee import SQL, ModelSelect, OperationalError, Query, SqliteDatabase

from database.connection import Pool
from database.deadline import WAIT, remaining
from database.failures import DRIVER_ERRORS, FULL, Unavailable
from settings import SettingError

CHECKED_SIZE = 100 * 2**20  # bytes; a smaller file is checked for damage at the start
MIN_FREE = 2**18  # bytes; a disk with less free space counts as full
RESERVE = 2**23  # bytes: twice the write-ahead log of 1,000 pages, which SQLite then checkpoints
LONG_TEXT = 2**16  # characters of a long text
APPLICATION_ID = 0x50726C79  # "Prly", by which `file` recognizes the database
OUR_TABLES = {"release", "session", "turn"}


# The bytes of a file on which SQLite has a shared lock while the file is open.
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510


@contextlib.contextmanager
def exclusive_file(path: pathlib.Path) -> Iterator[None]:
    """Lock the file of a database, even a damaged one, so that no other process can open it. Raises
    BlockingIOError if another process has it open.

    In WAL mode, a connection has a shared lock on these bytes of the file for as long as it is open
    (sqlite.org/src/file/src/os.h). SQLite must not open the file in this process before or within
    this context: POSIX drops all locks of a process when it closes the file."""
    import fcntl  # POSIX only: imported here, so that local work goes on without it

    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        yield


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class SQLite(Pool, SqliteDatabase):
    """The engine of a SQLite file."""

    concat, row_lock = "group_concat", ""
    records = (
        "(SELECT {} FROM json_each(?))",
        "CAST(json_extract(value, '$.{0}') AS {1}) AS {0}",
    )
    clock_sql = "clock()"
    size = "octet_length({})"
    if sqlite3.sqlite_version_info < (3, 43):
        size = "length(CAST({} AS BLOB))"
    options = {
        "pragmas": {
            "journal_mode": "wal",
            "synchronous": "full",
            "foreign_keys": 1,
            "journal_size_limit": 2**24,
        },
        # SQLite fails at once, without waiting, if a transaction wants to write after it has read
        # and another one has written meanwhile (SQLITE_BUSY_SNAPSHOT).
        "lock_type": "IMMEDIATE",
        "timeout": WAIT,  # of a reader, while another process recovers the file
        "check_same_thread": False,
    }

    def __init__(self, database: str, **options: Any) -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            found = f"this Python has {sqlite3.sqlite_version}"
            raise SettingError("DATABASE_URL", f"SQLite 3.35 or newer is needed, and {found}")
        super().__init__(database, **options)
        if not os.path.exists(database):
            # SQLite would make it readable for everybody. -wal and -shm get the same mode.
            os.close(os.open(database, os.O_CREAT | os.O_WRONLY, 0o600))
        elif not os.access(database, os.R_OK | os.W_OK):
            # SQLite would leave files next to it that could not be written later.
            raise PermissionError("Permission denied")
        self._file = os.stat(database)
        if self._file.st_size:
            self._check_content()
        self._writer = threading.Lock()

    # The file

    def _check_content(self) -> None:
        """Raises SettingError if the file is not Parley's, or is damaged. Changes nothing."""
        found = "ok"
        # mode=ro also reads the write-ahead log, and may leave files next to the database: so it
        # comes second, once we know that the file is ours.
        for mode in ("immutable=1", "mode=ro"):
            try:
                found, is_ours = self._inspect(mode)
            except sqlite3.OperationalError:
                return  # it cannot be read now; opening it will raise the error
            if not is_ours:
                problem = "this file is another program's database. Name a file of Parley's own"
                raise SettingError("DATABASE_URL", problem)
        if found != "ok":
            said = " ".join(found.split())[:60]
            advice = (
                f"put a backup in its place, or save what is left: sqlite3 {self.database} .recover"
            )
            problem = f"this file is damaged, or no SQLite database ({said}); {advice}"
            raise SettingError("DATABASE_URL", problem)

    def _inspect(self, mode: str) -> tuple[str, bool]:
        """What SQLite finds wrong with the file, or "ok"; and whether it may be Parley's."""
        found, names, mark = "ok", set(), 0
        uri = pathlib.Path(self.database).absolute().as_uri()
        try:
            with contextlib.closing(sqlite3.connect(f"{uri}?{mode}", uri=True)) as file:
                names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
                (mark,) = file.execute("PRAGMA application_id").fetchone()
                if mode == "mode=ro" and self._file.st_size < CHECKED_SIZE:
                    (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            found = error.sqlite_errorname
        if mark == APPLICATION_ID:
            return found, True
        return found, not mark and (not names or names >= OUR_TABLES)

    def _check_file(self) -> None:
        """Raises Unavailable if the file is gone or was replaced: a new connection would open
        another file, or make one."""
        try:
            found = os.stat(self.database)
        except OSError as error:
            raise Unavailable(str(error)) from error
        if not os.path.samestat(found, self._file):
            raise Unavailable("the file of the database is another one")

    def is_in_use(self) -> bool:
        try:
            with exclusive_file(pathlib.Path(self.database)):
                return False
        except BlockingIOError:
            return True

    # Connections

    def _add_conn_hooks(self, connection: sqlite3.Connection) -> None:
        super()._add_conn_hooks(connection)  # type: ignore[misc]
        connection.create_function("clock", 0, self.now)  # SQLite's own has milliseconds only
        connection.set_progress_handler(lambda: not remaining(), 10_000)  # instructions of its VM
        # A damaged text must fail no query: it would fail other replies, too.
        connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")

    def is_usable(self, connection: sqlite3.Connection | None) -> bool:
        self._check_file()
        return connection is not None

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> sqlite3.Cursor:
        """Close a connection after a long text: its cached statements would keep the text in
        memory."""
        sizes = [len(each) for each in params or () if isinstance(each, str)]
        if max(sizes, default=0) > LONG_TEXT:
            self.discard()
        return super().execute_sql(sql, params)

    def check(self) -> None:
        if shutil.disk_usage(self.database).free < MIN_FREE:
            raise Unavailable(f"{FULL}, {self.database}")
        with self.write():
            pass

    def keep_reserve(self) -> None:
        """A file next to the database: an eighth of the free disk, but no more than SQLite may need
        for its write-ahead log and a checkpoint."""
        free = shutil.disk_usage(self.database).free
        if free < 8 * MIN_FREE:
            return
        with contextlib.suppress(OSError):  # it exists already, or the disk is full
            # "x" fails if the file exists. Random bytes, since some file systems store no zeros.
            with open(self.database + "-reserve", "xb", opener=_for_owner_only) as file:
                file.write(os.urandom(min(RESERVE, free // 8)))

    def give_up_reserve(self) -> bool:
        if shutil.disk_usage(self.database).free >= MIN_FREE:
            return False
        try:
            os.unlink(self.database + "-reserve")
        except OSError:
            return False
        return True

    def room(self) -> float:
        """The free disk, and the unused pages of the file."""
        (pages,) = self.execute_sql("PRAGMA freelist_count").fetchone()
        (size,) = self.execute_sql("PRAGMA page_size").fetchone()
        return float(shutil.disk_usage(self.database).free + pages * size)

    def drop_page_cache(self) -> None:
        """Close the connection: it caches two megabytes of pages."""
        self.discard()

    # Transactions

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        self._check_file()
        if not self._writer.acquire(timeout=remaining()):
            raise Unavailable("the database is being written")
        try:
            with self.atomic():
                yield
        except DRIVER_ERRORS:
            self.discard()  # one that was opened while the file was read-only stays read-only
            raise
        finally:
            self._writer.release()

    def begin(self, lock_type: str | None = None) -> None:
        """Wait for writers of other processes by trying each millisecond: SQLite's own handler
        sleeps longer with each try."""
        connection = self.connection()
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    return super().begin(lock_type)
                except OperationalError as error:
                    code = error.orig.sqlite_errorcode  # type: ignore[attr-defined]
                    is_busy = code & 255 == sqlite3.SQLITE_BUSY
                    if not is_busy or not remaining():
                        raise
                time.sleep(0.001)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000}")

    def rollback(self) -> None:
        """SQLite itself rolls back if the disk is full or fails, or after an interrupt
        (sqlite.org/lang_transaction.html). A second ROLLBACK is an error, which would hide the
        first."""
        if self.connection().in_transaction:
            super().rollback()

    @contextlib.contextmanager
    def long_transaction(self, reads: bool = False) -> Iterator[None]:
        with self.atomic("DEFERRED" if reads else None):
            yield

    def pages(self, sql: str, rows: int) -> Iterator[list[tuple[Any, ...]]]:
        cursor = self.execute_sql(sql)
        while page := cursor.fetchmany(rows):
            yield page

    def insert_all(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        statement = f'INSERT INTO "{table}" ({names}) VALUES ({marks})'
        self.connection().executemany(statement, rows)

    def skip_used_ids(self, table: str) -> None:
        """Nothing to do: SQLite takes the highest id in the table, plus one."""

    def now(self) -> int:
        """The clock of this host, which has the file."""
        return time.time_ns() // 1000

    def lock(self, name: str) -> None:
        """Nothing to do: a write transaction excludes all other writers."""

    def lock_tables(self, names: Iterable[str]) -> None:
        """Nothing to do, see `lock`."""

    def lock_rows(self, query: ModelSelect | SQL) -> None:
        """Nothing to do, see `lock`."""

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        rows = self.execute(query).fetchall()
        return lambda: rows
