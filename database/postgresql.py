"""The PostgreSQL engine."""

import contextlib
import logging
import re
import select
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import peewee
import psycopg
from peewee import SQL, ModelSelect, Query
from peewee import __exception_wrapper__ as peewee_errors  # type: ignore[attr-defined]
from psycopg.waiting import Ready, Wait

from database.connection import NO_CONNECTION, SECOND, Pool
from database.deadline import CANCELLING, remaining
from database.failures import Unavailable
from settings import SettingError

peewee.psycopg = psycopg  # type: ignore[attr-defined]  # __init__.py has imported it without
# psycopg logs a warning about a failed pipeline in addition to the exception that it raises.
logging.getLogger("psycopg").setLevel(logging.ERROR)

# Give up a server whose host is gone (in seconds; tcp_user_timeout in milliseconds), and refuse one
# that cannot write (postgresql.org/docs/current/libpq-connect.html).
CONNECTION_OPTIONS = " ".join(
    (
        "tcp_user_timeout=10000",
        "keepalives_idle=5",
        "keepalives_interval=2",
        "keepalives_count=3",
        "target_session_attrs=read-write",
    )
)
CONNECT_TIMEOUT, MIN_TIMEOUT = 5, 2  # seconds
OPEN_LOCK = 0x50726C79  # "Prly", as the application_id of a SQLite file
# jit: the planner overestimates the keeper's query, and would JIT-compile it each time.
# tcp_*: if a client's host vanishes in the middle of a transaction, the server keeps its row locks
# until TCP notices, two hours by default. (idle_in_transaction_session_timeout does not help there:
# it counts only after the Sync of a pipeline.)
# application_name: what administrators see, unless the URL sets another one.
# The lock: how `is_in_use` tells other processes of Parley from `psql`. Everybody can share it.
SESSION_SETTINGS = f"""
SELECT set_config('jit', 'off', false),
    set_config('idle_in_transaction_session_timeout', '15s', false),
    set_config('tcp_user_timeout', '10s', false),
    set_config('tcp_keepalives_idle', '5', false),
    set_config('tcp_keepalives_interval', '2', false),
    set_config('tcp_keepalives_count', '3', false),
    set_config(
        'application_name',
        coalesce(nullif(current_setting('application_name'), ''), 'parley'),
        false
    ),
    pg_try_advisory_lock_shared({OPEN_LOCK}, 0)
"""
# Release 2.0.0 does not take the lock, but has the name.
COUNT_OTHERS = f"""
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database()
AND pid <> pg_backend_pid()
AND (
    application_name = current_setting('application_name')
    OR pid IN (
        SELECT pid
        FROM pg_locks
        WHERE (locktype, classid, objid, objsubid) = ('advisory', {OPEN_LOCK}, 0, 2)
    )
)
"""
# Milliseconds. All other statements queue after one that waits for a table's lock; and after a
# second (deadlock_timeout) the server would abort one that holds another of the tables.
LOCK_TIMEOUT = 500
PREPARED_AFTER = 5  # executions of a statement
CLOCK_TTL = 1  # seconds
DRIFT = 1000  # microseconds that two clocks may drift apart in that time


def parse(url: str) -> dict[str, Any]:
    """The connection options in this URL, which may name several hosts, as libpq parses it. Raises
    SettingError."""
    problem = "write it as postgresql://user:password@host:port/database"
    try:
        options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT}
        options |= psycopg.conninfo.conninfo_to_dict(url)
        seconds = int(float(options["connect_timeout"]))
    except (psycopg.ProgrammingError, ValueError, OverflowError) as error:  # may quote the password
        option = re.search('invalid URI query parameter: "([A-Za-z_]+)"$', str(error).strip())
        if option and "@" not in url.partition("?")[2]:
            problem = f"PostgreSQL has no option {option[1]}; leave it out"
        if option and option[1] in ("schema", "currentSchema", "search_path"):
            problem = f"PostgreSQL has no option {option[1]}; write ?options=-csearch_path%3DNAME"
        raise SettingError("DATABASE_URL", problem) from None
    return options | {"database": options.pop("dbname", ""), "connect_timeout": seconds}


class DeadlineConnection(psycopg.Connection):
    """A connection that never waits longer than its thread may (`deadline.remaining`), even if the
    server hangs."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if self.pgconn.pipeline_status:
            gen = self._sending_all(gen)
        try:
            return super().wait(gen, interval, remaining())
        except OSError as error:  # no file descriptor is left for epoll
            raise psycopg.OperationalError(str(error)) from error
        except psycopg.OperationalError:
            if not remaining():  # cancel the query; do not wait for the rest of its result
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=CANCELLING)
                self.close()
            raise

    def _sending_all(self, gen: Any) -> Generator[Any, Any, Any]:
        """psycopg's generator, which also sends while it waits. In a pipeline, psycopg tries once
        to send; if the system's buffer is full, it then only waits for a result, while the server
        waits for the rest of a long text."""
        try:
            awaited = next(gen)
            while True:
                while awaited == Wait.R and self.pgconn.flush():
                    ready = yield Wait.RW
                    if ready & Ready.R:
                        break
                else:
                    ready = yield awaited
                awaited = gen.send(ready)
        except StopIteration as end:
            return end.value


class Adapter(peewee.Psycopg3Adapter):
    def connect(self, db: "PostgreSQL", **options: Any) -> DeadlineConnection:
        left = remaining()
        if left < MIN_TIMEOUT:  # libpq waits at least so long
            raise Unavailable(NO_CONNECTION)
        # libpq tries several hosts one after the other, each with this timeout.
        each = min(left / (options.get("host", "").count(",") + 1), options["connect_timeout"])
        options["connect_timeout"] = max(MIN_TIMEOUT, int(each))  # libpq takes whole seconds
        connection = DeadlineConnection.connect(
            CONNECTION_OPTIONS, dbname=db.database, autocommit=True, **options
        )
        if _is_direct(connection):
            connection.execute(SESSION_SETTINGS)
            connection.prepare_threshold = PREPARED_AFTER
        return connection


def _is_direct(connection: DeadlineConnection) -> bool:
    """Whether there is no pooler in between. PgBouncer may hand a server connection, with its
    prepared statements and settings, to another client; and it makes up the process number."""
    ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return bool(pid == connection.pgconn.backend_pid)


class PostgreSQL(Pool, peewee.PostgresqlDatabase):
    """The engine of a PostgreSQL server, which processes on several hosts may share."""

    psycopg3_adapter = Adapter
    concat, row_lock = "string_agg", "FOR UPDATE OF turn"
    records = "json_to_recordset(%s) AS given ({})", "{0} {1}"
    size = "octet_length({})"  # the server does not decompress a text for this
    clock_sql = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    options = {
        # For transactions; single statements have the default of the database.
        "isolation_level": "READ COMMITTED",
        "prepare_threshold": None,
    }
    # When the server's clock was last read, and how far it is ahead of our monotonic clock.
    _clock: tuple[float, int] = (-CLOCK_TTL, 0)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """A pipeline: if no result is read within it, the transaction takes one round trip."""
        connection = self.connection()
        try:
            with connection.pipeline() as pipeline, self.atomic():
                try:
                    yield
                except BaseException:
                    # After a failure, the server skips all until a Sync, also peewee's ROLLBACK.
                    with contextlib.suppress(psycopg.Error):
                        pipeline.sync()
                    raise
        except psycopg.Error:  # of a result that was read outside of peewee
            self.discard()
            with peewee_errors:
                raise
        except (peewee.DatabaseError, peewee.InterfaceError, Unavailable):
            self.discard()
            raise
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()  # no-op if the transaction has ended

    def execute(self, query: Query | SQL, **options: Any) -> Any:
        """Within a pipeline, wait for the result: peewee looks at its description before it fetches
        rows."""
        cursor = super().execute(query, **options)
        if self.connection().pgconn.pipeline_status:
            with peewee_errors, self.connection().pipeline() as pipeline:
                pipeline.sync()
        return cursor

    def execute_sql(self, *statement: Any) -> psycopg.Cursor:
        """Close a connection whose prepared statements fail, after a newer release has changed the
        type of a column, say: the next connection prepares them again."""
        try:
            return super().execute_sql(*statement)
        except peewee.NotSupportedError:
            self.discard()
            raise

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        return super().execute(query).fetchall

    def now(self) -> int:
        """The server's clock, read once a second; in between, our monotonic clock counts on."""
        asked_at, ahead = self._clock
        if time.monotonic() - asked_at >= CLOCK_TTL:
            ((then,),) = self.execute_sql(f"SELECT {self.clock_sql}").fetchall()
            asked_at = time.monotonic()
            # Too small if the result was delayed: so the offset may shrink by DRIFT only. Otherwise
            # processes would disagree.
            found = then - int(asked_at * SECOND)
            is_same_clock = abs(found - ahead) < SECOND // 2
            ahead = max(found, ahead - DRIFT) if is_same_clock else found
            self._clock = asked_at, ahead
        return ahead + int(time.monotonic() * SECOND)

    def lock(self, name: str) -> None:
        self.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    def lock_tables(self, names: Iterable[str]) -> None:
        self.execute_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        for name in names:
            self.execute_sql(f'LOCK TABLE "{name}" IN ACCESS EXCLUSIVE MODE')

    def lock_rows(self, query: ModelSelect | SQL) -> None:
        self.send(query if isinstance(query, SQL) else query.for_update())

    @contextlib.contextmanager
    def long_transaction(self, reads: bool = False) -> Iterator[None]:
        """No pipeline: neither COPY nor a server-side cursor works in one."""
        with self.atomic():
            if reads:
                self.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # A move between two databases leaves one idle while the other works.
            self.execute_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield

    def pages(self, sql: str, rows: int) -> Iterator[list[tuple[Any, ...]]]:
        """A server-side cursor; with a client-side one, all rows would be sent at once."""
        with peewee_errors, self.connection().cursor(name="pages") as cursor:
            cursor.execute(sql)
            while page := cursor.fetchmany(rows):
                yield page

    def insert_all(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        statement = f'COPY "{table}" ({names}) FROM STDIN'
        with peewee_errors, self.connection().cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def skip_used_ids(self, table: str) -> None:
        highest = f'SELECT coalesce(max(id), 0) + 1 FROM "{table}"'
        sequence = f"pg_get_serial_sequence('{table}', 'id')"
        self.execute_sql(f"SELECT setval({sequence}, ({highest}), false)")

    def is_usable(self, connection: DeadlineConnection | None) -> bool:
        """An idle connection has nothing to read, unless the server has closed it."""
        if connection is None or connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def is_in_use(self) -> bool:
        """Whether there are other connections. Through PgBouncer that is unknown: its connections
        to the server outlive those of its clients."""
        with self.connection_context():
            ((count,),) = self.execute_sql(COUNT_OTHERS).fetchall()
            self.discard()  # kept open, it would count as another process for whoever asks next
            return _is_direct(self.connection()) and count > 0

    def drop_page_cache(self) -> None:
        """Nothing to do: the server, not this process, caches pages."""

    def check(self) -> None:
        ((read_only,),) = self.execute_sql("SHOW transaction_read_only").fetchall()
        if read_only == "on":
            self.discard()
            raise Unavailable("the database is read-only")
