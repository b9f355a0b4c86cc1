"""The database, a SQLite file or a PostgreSQL: opening, writing, locking, the clock, migrations.

All that differs between the two engines is said here, in one class for each. Times are microseconds since 1970 in UTC,
by the database's clock, so that processes and hosts agree.
"""

import contextlib
import functools
import os
import pathlib
import random
import re
import sqlite3
import threading
import time

import psycopg
from peewee import SQL, DataError, DatabaseError, DatabaseProxy, IntegerField, IntegrityError, OperationalError
from peewee import __exception_wrapper__ as peewee_errors
from playhouse.db_url import parse
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase, PooledSqliteDatabase

from settings import SettingError, ensure_folder

try:
    import fcntl
except ImportError:  # Windows has none: there the threads of one process queue, and other processes wait for SQLite
    fcntl = None

SECOND = 1_000_000
TRIES = 5  # of a transaction that the database gives up for another's sake

# The drivers' own errors come where rows are fetched. The last one, where no file is left for a connection.
Unavailable = (DatabaseError, sqlite3.Error, psycopg.Error, MaxConnectionsExceeded, OSError)
Unstorable = (DataError, IntegrityError)  # the database answers, and does not take a row


class TookTooLong(Exception):
    """A query was given up, since it took longer than it may."""


class SQLite(PooledSqliteDatabase):
    """One file, with one writer at a time."""

    ask_for_encoding = "PRAGMA encoding"
    concat, held = "group_concat", ""
    clock_sql = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
    options = {
        "pragmas": {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1, "journal_size_limit": 2**24},
        # A transaction that took the writer's lock after it had read could be refused without waiting.
        "lock_type": "IMMEDIATE",
        "check_same_thread": False,
    }

    def __init__(self, database, **kwargs):
        if sqlite3.sqlite_version_info < (3, 35):
            raise ValueError(f"SQLite 3.35 or newer is needed, and this Python has {sqlite3.sqlite_version}")
        super().__init__(database, **kwargs)
        with contextlib.suppress(FileExistsError):  # SQLite itself would let everybody read it; -wal and -shm have its mode
            os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._threads = threading.Lock()
        self._queue = None  # the descriptor of the file by which processes queue

    @contextlib.contextmanager
    def write(self):
        """One short write transaction, within which no other may begin.

        SQLite itself does not queue its writers: each sleeps and looks again. Here all threads and processes queue.
        """
        queued = self._queued() if fcntl else contextlib.nullcontext()
        with self._threads, queued, self.atomic():
            yield

    @contextlib.contextmanager
    def _queued(self):
        if self._queue is None:
            # It is a file of its own, and stays open: whoever closes a file ends all locks that the process holds on it.
            self._queue = os.open(f"{self.database}-lock", os.O_CREAT | os.O_WRONLY, 0o600)
        fcntl.lockf(self._queue, fcntl.LOCK_EX)  # belongs to the process: a child that inherits the file must queue too
        try:
            yield
        finally:
            fcntl.lockf(self._queue, fcntl.LOCK_UN)

    def clock(self):
        """The time in microseconds, for a statement: by the clock of the host, which all its processes share."""
        return time.time_ns() // 1000

    now = clock

    def lock(self, name):
        """Nothing is to be done: the transaction keeps all others out."""

    hold = lock

    def send(self, query):
        """Execute the query; returns a function that returns its rows."""
        rows = self.execute(query).fetchall()
        return lambda: rows

    @contextlib.contextmanager
    def limited(self, seconds):
        """Within this context a query that goes on for longer is given up. Raises TookTooLong."""
        deadline, connection = time.monotonic() + seconds, self.connection()
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)  # steps of SQLite's machine
        try:
            yield
        except (OperationalError, sqlite3.OperationalError):  # the driver's own, where rows are fetched
            if time.monotonic() > deadline:
                raise TookTooLong from None
            raise
        finally:
            connection.set_progress_handler(None, 0)


class PostgreSQL(PooledPostgresqlDatabase):
    """A server, which one host or many use."""

    ask_for_encoding = "SHOW server_encoding"
    concat, held = "string_agg", "FOR UPDATE OF turn"
    clock_sql = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    # The driver gives up a server whose host is gone: seconds, but milliseconds for tcp_user_timeout.
    options = {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "isolation_level": "READ COMMITTED",  # of transactions; that of a lone statement is the database's default
        "prepare_threshold": None,  # PgBouncer may give a prepared statement's connection to others
        "target_session_attrs": "read-write",  # a server that cannot write is not taken
    }

    @contextlib.contextmanager
    def write(self):
        """One short write transaction, within which no other may begin.

        The driver collects its statements, and sends them when an answer is read, or at the end (a pipeline, in
        PostgreSQL's words): a transaction of which nothing is read costs one round trip.
        """
        connection = self.connection()
        try:
            with connection.pipeline() as pipeline, self.atomic():
                try:
                    yield
                except BaseException:
                    with contextlib.suppress(psycopg.Error):  # else the server would skip peewee's ROLLBACK after a failure
                        pipeline.sync()
                    raise
        except psycopg.Error as error:  # of an answer that peewee did not see
            if not isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
                connection.failed = True
            with peewee_errors:
                raise
        finally:
            if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                with contextlib.suppress(psycopg.Error):
                    connection.rollback()

    def execute_sql(self, *args):
        try:
            return super().execute_sql(*args)
        except DatabaseError as error:
            if not isinstance(error, Unstorable) and not self.is_closed():
                self.connection().failed = True
            raise

    def execute(self, query, **options):
        """Within a pipeline, wait for the answer: peewee looks at what it is before it fetches it."""
        cursor = super().execute(query, **options)
        if self.connection().pgconn.pipeline_status:
            with peewee_errors, self.connection().pipeline() as pipeline:
                pipeline.sync()
        return cursor

    def send(self, query):
        """Execute the query without waiting; returns a function that returns its rows, once the answer is there."""
        return self.execute_sql(*self.get_sql_context().sql(query).query()).fetchall

    def clock(self):
        """The time in microseconds, for a statement: by the clock of the server, also within a transaction."""
        return SQL(self.clock_sql)

    def now(self):
        """The same time, asked for."""
        return self.execute_sql(f"SELECT {self.clock_sql}").fetchone()[0]

    def lock(self, name):
        """Hold `name` until the transaction ends."""
        self.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    def hold(self, query):
        """Hold the rows of this query until the transaction ends."""
        self.send(query.for_update())

    def _can_reuse(self, connection):
        """One that failed is not used again: its server may be one that cannot write any more."""
        return not getattr(connection, "failed", False) and super()._can_reuse(connection)

    def _is_closed(self, connection):
        """The system knows whether the server has closed it, or is gone: nothing is asked."""
        with contextlib.suppress(psycopg.Error):
            for _ in range(2):  # the first may take what the server said last
                connection.pgconn.consume_input()
            return connection.closed
        return True

    @contextlib.contextmanager
    def limited(self, seconds):
        """Within this context a query that goes on for longer is given up. Raises TookTooLong."""
        with self.atomic():
            self.execute_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
            try:
                yield
            except OperationalError as error:
                if error.orig.sqlstate == "57014":  # query_canceled
                    raise TookTooLong from None
                raise


ENGINES = {"sqlite": SQLite, "postgres": PostgreSQL, "postgresql": PostgreSQL}

# name → the types of the columns of its `given`, and the statement
QUERIES = {
    name: (dict(column.split() for column in columns.split(",")), statement)
    for name, columns, statement in re.findall(
        r"^-- (\w+)\(([^)]+)\)\n(.+?);$", pathlib.Path(__file__).with_name("queries.sql").read_text("utf-8"), re.M | re.S
    )
}

db = DatabaseProxy()
_probe = DatabaseProxy()  # the same database, by a connection that no request holds
_probing = threading.Lock()


def open_database(settings, folder, migrations):
    """Open the database of these settings, by default one in this folder, and migrate it. Raises SettingError."""
    try:
        url = settings["DATABASE_URL"]
        connect(url, None if url else os.path.join(ensure_folder(folder, "DATABASE_URL"), "parley.db"))
        migrate(migrations)
        db.close_idle()  # a connection must not be shared with the processes that fork from this one
    except ValueError as error:
        raise SettingError("DATABASE_URL", error) from None
    except Unavailable as error:
        raise SettingError("DATABASE_URL", f"the database cannot be opened ({type(error).__name__})") from None


def connect(url, path=None, connections=8):
    """Point all models at the database of this URL, or else at the SQLite file of this path. Raises ValueError for a bad URL.

    `connections` is the most that one process holds open. User name and password may be percent-encoded.
    """
    engine, options = _read(url) if url else (SQLite, {"database": path})
    options = engine.options | options | {"autoconnect": False, "timeout": 10}
    try:
        db.initialize(engine(**options, max_connections=connections - 1))
        _probe.initialize(engine(**options, max_connections=1))
        with db.connection_context():  # only now the driver looks at some options
            db.execute_sql("SELECT 1")
    except Unavailable:
        raise
    except Exception:  # for an option that they do not take, the libraries raise whatever they fall over
        raise ValueError("the options behind its ? are not understood") from None


def _read(url):
    scheme, _, rest = url.partition("://")
    if scheme not in ENGINES:
        raise ValueError("begin with sqlite:///, postgres:// or postgresql://")
    if scheme == "sqlite" and (rest in ("", "/", "/:memory:") or not rest.startswith("/")):
        raise ValueError("name a file: sqlite:///relative/path or sqlite:////absolute/path")
    if scheme == "sqlite":
        return SQLite, parse(url)
    try:
        options = psycopg.conninfo.conninfo_to_dict(url)  # as the server's own programs read it, with several hosts
    except psycopg.Error:  # which may quote the password
        raise ValueError("it is not written as PostgreSQL has it: postgresql://user:password@host:port/database") from None
    return PostgreSQL, {"database": options.pop("dbname", "")} | options


def given(name, rows, **values):
    """The statement of this name in `queries.sql`, with these rows, and with these values in the place of {…}."""
    types, statement = QUERIES[name]
    row = ", ".join(f"CAST({db.param} AS {type})" for type in types.values())
    table = f"WITH given ({', '.join(types)}) AS (VALUES {', '.join([f'({row})'] * len(rows))})"
    statement = statement.format(held=db.held, clock=db.clock_sql, **values)
    return SQL(f"{table} {statement}", [value for row in rows for value in row])


def insertion(*rows):
    """The statement that inserts these instances of one model, which peewee would take longer to write."""
    table, fields = rows[0]._meta.table_name, rows[0]._meta.sorted_fields
    row = f"({', '.join([db.param] * len(fields))})"
    statement = f"INSERT INTO {table} ({', '.join(field.column_name for field in fields)}) VALUES {', '.join([row] * len(rows))}"
    return SQL(statement, [field.db_value(row.__data__.get(field.name)) for row in rows for field in fields])


def transaction(function):
    """Do all of the function in one write transaction: again, from its start, where the database gives it up for another's
    sake (40001, 40P01), or has a row under the same key, as an id may be that chance has given twice."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        for number in range(1, TRIES + 1):
            try:
                with db.write():
                    return function(*args, **kwargs)
            except (IntegrityError, OperationalError) as error:
                is_passing = isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in ("40001", "40P01")
                if number == TRIES or not is_passing:
                    raise
            time.sleep(random.uniform(0, 0.01 * 2**number))

    return wrapper


def check():
    """Raises one of Unavailable where the database does not answer. It does not queue for a connection behind requests."""
    with _probing, _probe.connection_context():
        _probe.execute_sql("SELECT 1")


class SchemaVersion(db.Model):
    """How many of the migrations this database has had."""

    migrations = IntegerField()

    class Meta:
        table_name = "release"


def migrate(migrations):
    """Apply the migrations that are missing, exactly once however many processes start together.

    Raises ValueError where a newer release has written the database, or it does not take every text, and touches nothing.
    """
    with db.connection_context(), db.write():
        if not db.execute_sql(db.ask_for_encoding).fetchone()[0].startswith("UTF"):
            raise ValueError("the encoding of this database is not UTF8; make one with ENCODING 'UTF8'")
        db.lock("parley migrations")
        db.create_tables([SchemaVersion])
        version = SchemaVersion.select().first() or SchemaVersion(migrations=0)
        if version.migrations > len(migrations):
            raise ValueError("it belongs to a newer release of Parley; start that one")
        for step in migrations[version.migrations :]:
            step()
        version.migrations = len(migrations)
        version.save()
