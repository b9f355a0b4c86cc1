"""The engine of SQLite: one file, with one writer at a time."""

import contextlib
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

EXAMINED_SIZE = 100 * 2**20  # bytes of a file that is looked through at the start
LEAST_FREE = 2**18  # bytes of a disk that is not full
RESERVE = 2**23  # bytes: twice the log of a thousand pages that SQLite moves into the database
LONG = 2**16  # characters
APPLICATION_ID = 0x50726C79  # "Prly", by which `file` tells whose SQLite file it is
OUR_TABLES = {"release", "session", "turn"}


# The bytes of a file that SQLite locks for those who have it open.
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Let no other process open the database, also one that is damaged. Raises BlockingIOError
    where somebody has it open.

    A connection in WAL mode has a shared lock on these bytes of the file for as long as it is open
    (sqlite.org/src/file/src/os.h). SQLite must not open the file in this process meanwhile: closing
    it would end the lock, too. Nor may it have the file open before."""
    import fcntl  # POSIX's own: without it, local work goes on all the same

    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        yield


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class SQLite(Pool, SqliteDatabase):
    """One file, with one writer at a time."""

    concat, held = "group_concat", ""
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
        # A transaction that takes the writer's lock after reading could be refused without waiting.
        "lock_type": "IMMEDIATE",
        "timeout": WAIT,  # of one who cannot read, as another process recovers the file
        "check_same_thread": False,
    }

    def __init__(self, database: str, **options: Any) -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            found = f"this Python has {sqlite3.sqlite_version}"
            raise SettingError("DATABASE_URL", f"SQLite 3.35 or newer is needed, and {found}")
        super().__init__(database, **options)
        if not os.path.exists(database):
            # SQLite itself would let everybody read it; -wal and -shm have its mode.
            os.close(os.open(database, os.O_CREAT | os.O_WRONLY, 0o600))
        elif not os.access(database, os.R_OK | os.W_OK):
            # SQLite would leave files beside it that nobody could write later.
            raise PermissionError("Permission denied")
        self._file = os.stat(database)
        if self._file.st_size:
            self._examine()
        self._writer = threading.Lock()

    # The file

    def _examine(self) -> None:
        """Raises SettingError where the file is not Parley's, or is damaged, and changes
        nothing."""
        found = "ok"
        # The second reads the log, too, and may leave files beside another program's.
        for mode in ("immutable=1", "mode=ro"):
            try:
                found, is_ours = self._look_into(mode)
            except sqlite3.OperationalError:
                return  # it cannot be read now; the thread that opens it is told
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

    def _look_into(self, mode: str) -> tuple[str, bool]:
        """What SQLite finds wrong with the file, "ok" where nothing; and whether it may be ours."""
        found, names, mark = "ok", set(), 0
        uri = pathlib.Path(self.database).absolute().as_uri()
        try:
            with contextlib.closing(sqlite3.connect(f"{uri}?{mode}", uri=True)) as file:
                names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
                (mark,) = file.execute("PRAGMA application_id").fetchone()
                if mode == "mode=ro" and self._file.st_size < EXAMINED_SIZE:
                    (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            found = error.sqlite_errorname
        if mark == APPLICATION_ID:
            return found, True
        return found, not mark and (not names or names >= OUR_TABLES)

    def _find(self) -> None:
        """Raises Unavailable where the file is not there: a new connection would go to another
        one, or make one."""
        try:
            found = os.stat(self.database)
        except OSError as error:
            raise Unavailable(str(error)) from error
        if not os.path.samestat(found, self._file):
            raise Unavailable("the file of the database is another one")

    def is_in_use(self) -> bool:
        try:
            with held(pathlib.Path(self.database)):
                return False
        except BlockingIOError:
            return True

    # Connections

    def _add_conn_hooks(self, connection: sqlite3.Connection) -> None:
        super()._add_conn_hooks(connection)  # type: ignore[misc]
        connection.create_function("clock", 0, self.now)  # SQLite's own counts milliseconds
        connection.set_progress_handler(lambda: not remaining(), 10_000)  # steps of its machine
        # Damage is one reply's, and costs no other.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")

    def is_usable(self, connection: sqlite3.Connection | None) -> bool:
        self._find()
        return connection is not None

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> sqlite3.Cursor:
        """Keep no connection to which a long text was given: its statements would keep that."""
        if any(isinstance(each, str) and len(each) > LONG for each in params or ()):
            self.discard()
        return super().execute_sql(sql, params)

    def check(self) -> None:
        if shutil.disk_usage(self.database).free < LEAST_FREE:
            raise Unavailable(f"{FULL}, {self.database}")
        with self.write():
            pass

    def keep_reserve(self) -> None:
        """A file beside the database: an eighth of the free disk, but no more than SQLite may need
        for its log and for moving the log into the database."""
        free = shutil.disk_usage(self.database).free
        if free < 8 * LEAST_FREE:
            return
        with contextlib.suppress(OSError):  # it is there already, or the disk is full
            # "x" fails if the file exists. Not zeros, for which some file systems take no room.
            with open(self.database + "-reserve", "xb", opener=_for_owner_only) as file:
                file.write(os.urandom(min(RESERVE, free // 8)))

    def give_up_reserve(self) -> bool:
        if shutil.disk_usage(self.database).free >= LEAST_FREE:
            return False
        try:
            os.unlink(self.database + "-reserve")
        except OSError:
            return False
        return True

    def room(self) -> float:
        """The free disk, and the pages of the file that nothing uses."""
        (pages,) = self.execute_sql("PRAGMA freelist_count").fetchone()
        (size,) = self.execute_sql("PRAGMA page_size").fetchone()
        return float(shutil.disk_usage(self.database).free + pages * size)

    def forget_read(self) -> None:
        """A connection keeps two megabytes of the file's pages."""
        self.discard()

    # Transactions

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        self._find()
        if not self._writer.acquire(timeout=remaining()):
            raise Unavailable("the database is being written")
        try:
            with self.atomic():
                yield
        except DRIVER_ERRORS:
            self.discard()  # one that was made while the file took no writes never takes any
            raise
        finally:
            self._writer.release()

    def begin(self, lock_type: str | None = None) -> None:
        """Wait for the writers of other processes by looking each millisecond: SQLite would sleep
        for longer and longer."""
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
        """SQLite itself has ended a transaction in which the disk was full or failed, or that was
        interrupted (sqlite.org/lang_transaction.html): to end it again is an error, which would
        hide the first."""
        if self.connection().in_transaction:
            super().rollback()

    def now(self) -> int:
        """By the clock of the file's host."""
        return time.time_ns() // 1000

    def lock(self, name: str) -> None:
        """Nothing is to be done: the transaction keeps all others out."""

    def lock_tables(self, names: Iterable[str]) -> None:
        """Nothing is to be done, as in `lock`."""

    def hold(self, query: ModelSelect | SQL) -> None:
        """Nothing is to be done, as in `lock`."""

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        rows = self.execute(query).fetchall()
        return lambda: rows
