"""The database: opening, waiting, writing, migrations. Each engine has a class for what is its own, PostgreSQL's in its file.
Times are microseconds since 1970 in UTC, by the database's clock, so that processes and hosts agree."""

import contextlib
import functools
import json
import os
import pathlib
import queue
import random
import re
import shutil
import sqlite3
import sys
import threading
import time

sys.modules.setdefault("psycopg", None)  # else peewee would load PostgreSQL's driver wherever it is installed: 8 MB, 0.1 s
from peewee import SQL, DataError, DatabaseError, DatabaseProxy, IntegerField, IntegrityError, OperationalError, SqliteDatabase
if sys.modules["psycopg"] is None:
    del sys.modules["psycopg"]

from settings import SettingError, ensure_folder, mistake, whose

SECOND = 1_000_000
TRIES = 5  # of a transaction that the database gives up for another's sake
WAIT = 9  # seconds that a request waits for the database in all, whatever it waits for; its answer comes within ten
CONNECTIONS = 8  # that one process holds open at most
CHANGING = 6  # of these, for requests that change something: many may come at once, and who only reads does not wait behind them
STUCK = 5  # seconds after which a transaction that waits, or writes, is taken for one that does not end
EXAMINED_SIZE = 100 * 2**20  # bytes of a SQLite file that is looked through at the start
LEAST_FREE = 2**18  # bytes of a disk that is not full
APPLICATION_ID = 0x50726C79  # "Prly", by which `file` tells whose SQLite file it is

# SQLite's own errors come where rows are fetched. The last one, where a file is gone, or none is left for a connection.
Unavailable = (DatabaseError, sqlite3.Error, OSError)
Unstorable = (DataError, IntegrityError)  # the database answers, and does not take a row

# Of a thread, `deadline`: until when it may wait for the database; `reads`: whether the request that it serves only reads.
thread = threading.local()
_begun = {}  # what is `watched` → since when
_failed = {}  # `at`: when one failed, as long as no transaction has succeeded since


def limit_time(seconds=WAIT):
    """From now on, all that this thread waits for the database takes so long at most; then it is one of Unavailable."""
    thread.deadline = time.monotonic() + seconds


def remaining():
    """The seconds that this thread may still wait; for ever, as it were, where nobody has limited them."""
    return max(0.0, getattr(thread, "deadline", threading.TIMEOUT_MAX) - time.monotonic())


def reason(error):
    """What the driver says of one of Unavailable, in a line for the log."""
    cause = getattr(error, "orig", None) or error
    kinds = {kind.__name__ for kind in type(cause).__mro__}  # of either driver; the texts of these quote no row
    said = f": {cause}" if kinds & {"OperationalError", "InsufficientPrivilege", "OSError"} else ""
    # What SQLite says of a text is behind "with text"; a password may stand before an @.
    hidden = "(\n| with text ).*|(?<= ['\"])\\S*(?=@)|[^\\s/'\"]*(?=@)"
    return re.sub(hidden, "", f"{type(error).__name__}{said}", flags=re.DOTALL)[:200]


@contextlib.contextmanager
def watched():
    """`check` is told where what is done within this takes too long, or fails."""
    step = object()
    _begun[step] = time.monotonic()
    try:
        yield
    except OperationalError:
        _failed["at"] = time.monotonic()
        raise
    finally:
        del _begun[step]


class Pool:
    """Connections, which are kept. Who needs a new one waits for that alone; in playhouse's pool, all others would, too."""

    def __init__(self, database, **options):
        super().__init__(database, autoconnect=False, **options)
        self._lock = contextlib.nullcontext()  # peewee connects within it
        self._shares = {True: threading.Semaphore(CONNECTIONS), False: threading.Semaphore(CHANGING)}  # whether it only reads →
        self._places = queue.LifoQueue()  # each is a connection that is idle, or None where none is made yet
        for _ in range(CONNECTIONS):
            self._places.put(None)

    def _connect(self):
        share = self._shares[getattr(thread, "reads", True)]
        if not share.acquire(timeout=remaining()):
            raise OperationalError("no connection became free in time")
        try:
            connection = self._places.get(timeout=remaining())
        except queue.Empty:
            share.release()
            raise OperationalError("no connection became free in time") from None
        self._state.failed, self._state.share = False, share
        try:
            return connection if self.is_usable(connection) else super()._connect()
        except BaseException:
            self._places.put(None)
            share.release()
            raise

    def _close(self, connection):
        failed = self._state.failed
        self._places.put(None if failed else connection)
        self._state.share.release()
        if failed:
            super()._close(connection)

    def discard(self):
        """Do not keep the connection of this thread: after a failure, its server may be one that cannot write any more."""
        self._state.failed = True

    def execute(self, query, **options):
        """What is SQL already, peewee need not make."""
        if isinstance(query, SQL):
            return self.execute_sql(query.sql, query.params)
        return super().execute(query, **options)


class SQLite(Pool, SqliteDatabase):
    """One file, with one writer at a time."""

    concat, held = "group_concat", ""
    records = "(SELECT {} FROM json_each(?))", "CAST(json_extract(value, '$.{0}') AS {1}) AS {0}"  # of a JSON array of objects
    clock_sql = "clock()"
    options = {"pragmas": {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1, "journal_size_limit": 2**24}}
    options |= {"lock_type": "IMMEDIATE"}  # who took the writer's lock after reading could be refused without waiting
    options |= {"timeout": WAIT, "check_same_thread": False}  # of one who cannot read, as another process recovers the file

    def __init__(self, database, **kwargs):
        if sqlite3.sqlite_version_info < (3, 35):
            raise SettingError("DATABASE_URL", f"SQLite 3.35 or newer is needed, and this Python has {sqlite3.sqlite_version}")
        super().__init__(database, **kwargs)
        if not os.path.exists(database):  # SQLite itself would let everybody read it; -wal and -shm have its mode
            os.close(os.open(database, os.O_CREAT | os.O_WRONLY, 0o600))
        elif not os.access(database, os.R_OK | os.W_OK):  # SQLite would leave files beside it that nobody could write later
            raise PermissionError("Permission denied")
        self._file = os.stat(database)
        if self._file.st_size:
            self._examine()
        self._writer = threading.Lock()

    def _examine(self):
        """Raises SettingError where the file is not Parley's, or is damaged, and changes nothing."""
        uri = pathlib.Path(self.database).absolute().as_uri()
        for mode in ("immutable=1", "mode=ro"):  # the latter reads the log too, and may leave files beside another program's
            found, names, mark = "ok", set(), 0
            try:
                with contextlib.closing(sqlite3.connect(f"{uri}?{mode}", uri=True)) as file:
                    names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
                    (mark,) = file.execute("PRAGMA application_id").fetchone()
                    if mode == "mode=ro" and self._file.st_size < EXAMINED_SIZE:
                        (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.OperationalError:
                return  # it cannot be read now; whoever opens it is told
            except sqlite3.DatabaseError as error:
                found = error.sqlite_errorname
            if mark != APPLICATION_ID and (mark or (names and not names >= {"release", "session", "turn"})):
                raise SettingError("DATABASE_URL", "this file is another program's database. Name a file of Parley's own")
        if found != "ok":
            problem = " ".join(found.split())[:60]
            advice = f"put a backup in its place, or save what is left: sqlite3 {self.database} .recover"
            raise SettingError("DATABASE_URL", f"this file is damaged, or no SQLite database ({problem}); {advice}")

    def _find(self):
        """Raises one of Unavailable where the file is not there: a new connection would go to another one, or make one."""
        if not os.path.samestat(os.stat(self.database), self._file):
            raise OperationalError("the file of the database is another one")

    def _add_conn_hooks(self, connection):
        super()._add_conn_hooks(connection)
        connection.create_function("clock", 0, self.now)  # SQLite's own counts milliseconds
        connection.set_progress_handler(lambda: not remaining(), 10_000)  # steps of SQLite's machine
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # damage is one reply's, and costs no other

    def is_usable(self, connection):
        self._find()
        return connection is not None

    def check(self):
        """Raises one of Unavailable where nobody can write."""
        if shutil.disk_usage(self.database).free < LEAST_FREE:
            raise OperationalError("the disk is full")
        with self.write():
            pass

    @contextlib.contextmanager
    def write(self):
        """One short write transaction, within which no other may begin."""
        self._find()
        if not self._writer.acquire(timeout=remaining()):
            raise OperationalError("the database is being written")
        try:
            with self.atomic():
                yield
        finally:
            self._writer.release()

    def begin(self, lock_type=None):
        """Wait for the writers of other processes by looking each millisecond: SQLite would sleep for longer and longer."""
        connection = self.connection()
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    return super().begin(lock_type)
                except OperationalError as error:
                    if error.orig.sqlite_errorcode & 255 != sqlite3.SQLITE_BUSY or not remaining():
                        raise
                time.sleep(0.001)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000}")

    def now(self):
        """The time in microseconds, by the clock of the file's host."""
        return time.time_ns() // 1000

    def lock(self, name):
        """Nothing is to be done: the transaction keeps all others out."""

    hold = lock

    def send(self, query):
        """Execute the query; returns a function that returns its rows."""
        rows = self.execute(query).fetchall()
        return lambda: rows


_QUERY = re.compile(r"^-- (\w+)\(([^)]+)\)\n(.+?);$", re.MULTILINE | re.DOTALL)
_found = _QUERY.findall(pathlib.Path(__file__).with_name("queries.sql").read_text("utf-8"))
# name → the types of the columns of its `given`, and the statement
QUERIES = {name: (dict(column.split() for column in columns.split(",")), statement) for name, columns, statement in _found}

db = DatabaseProxy()


def url_of(settings, folder):
    """The URL of the database of these settings, by default of a file in the folder."""
    return settings["DATABASE_URL"] or f"sqlite:///{folder}/parley.db"


def open_database(settings, folder, migrations):
    """Point all models at the database of these settings, migrated. Raises SettingError."""
    url = url_of(settings, folder)
    try:
        if not settings["DATABASE_URL"]:
            ensure_folder(folder, "DATABASE_URL")
        if url.startswith("sqlite"):
            engine, options = SQLite, {"database": url.removeprefix("sqlite:///")}
        else:
            import postgresql

            engine, options = postgresql.PostgreSQL, postgresql.parse(url)
        db.initialize(engine(**engine.options | options))
        migrate(migrations)
    except Unavailable as error:
        raise SettingError("DATABASE_URL", mistake("database", reason(error), whose=whose(options["database"]))) from None


@functools.lru_cache(1000)
def _text(engine, name, most, **values):
    types, statement = QUERIES[name]
    records, column = engine.records
    records = records.format(", ".join(column.format(*each) for each in types.items()))
    statement = statement.format(clock=engine.clock_sql, concat=engine.concat, held=engine.held, **values)
    return f"WITH given AS MATERIALIZED (SELECT * FROM {records} LIMIT {most}) {statement}"


def given(name, rows, **values):
    """The statement of this name in `queries.sql`, with these rows, and with these values in the place of {…}. All rows are one
    parameter: psycopg would look for each of thousands, and SQLite's driver keep hundreds of kB for each number of them. That
    they are at most so many, a power of two, is for PostgreSQL's planner, which would expect a hundred."""
    objects = [dict(zip(QUERIES[name][0], row)) for row in rows]
    text = _text(type(db.obj), name, 1 << (len(rows) - 1).bit_length(), **values)
    return SQL(text, [json.dumps(objects, ensure_ascii=False, default=str)])


def insertion(*rows):
    """The statement that inserts these instances of one model, which peewee would take longer to write."""
    meta = rows[0]._meta
    values = ", ".join([f"({', '.join([db.param] * len(meta.columns))})"] * len(rows))
    statement = f"INSERT INTO {meta.table_name} ({', '.join(meta.columns)}) VALUES {values}"
    return SQL(statement, [field.db_value(row.__data__.get(field.name)) for row in rows for field in meta.sorted_fields])


def transaction(function):
    """Do the function in one write transaction: again where it is given up for another's sake, or chance gave an id twice."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with watched():
            for number in range(1, TRIES + 1):
                try:
                    with db.write():
                        result = function(*args, **kwargs)
                    _failed.clear()
                    return result
                except (IntegrityError, OperationalError) as error:
                    code = getattr(getattr(error, "orig", None), "sqlstate", None)  # our own errors have no other behind them
                    if number == TRIES or not (isinstance(error, IntegrityError) or code in ("40001", "40P01")):
                        raise
                time.sleep(random.uniform(0, 0.01 * 2**number))

    return wrapper


def check():
    """Raises one of Unavailable where nobody can write, or a step of this process does not end, or has failed lately."""
    limit_time()
    with db.connection_context():
        db.check()
    now = time.monotonic()
    if any(since < now - STUCK for since in list(_begun.values())) or _failed.get("at", 0) > now - STUCK - 2:
        raise OperationalError("what is to be written does not end, or failed")


class SchemaVersion(db.Model):
    """How many of the migrations this database has had."""

    migrations = IntegerField()

    class Meta:
        table_name = "release"


def migrate(migrations):
    """Apply the migrations that are missing, once however many processes start together. Raises SettingError where it cannot."""
    with db.connection_context(), db.write():
        if not isinstance(db.obj, SQLite) and db.execute_sql("SHOW server_encoding").fetchone()[0] != "UTF8":
            raise SettingError("DATABASE_URL", "the encoding of this database is not UTF8; make one with ENCODING 'UTF8'")
        db.lock("parley migrations")
        db.create_tables([SchemaVersion])
        version = SchemaVersion.select().first() or SchemaVersion(migrations=0)
        if version.migrations > len(migrations):
            raise SettingError("DATABASE_URL", "it belongs to a newer release of Parley; start that one")
        for step in migrations[version.migrations :]:
            step()
        version.migrations = len(migrations)
        version.save()
        db.discard()  # a process that forks from this one must not share it
