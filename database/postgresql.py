"""The engine of PostgreSQL: a server, which one host or many use."""

import contextlib
import logging
import re
import select
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import peewee
import psycopg
from peewee import SQL, ModelSelect, Query
from peewee import __exception_wrapper__ as peewee_errors  # type: ignore[attr-defined]
from psycopg.waiting import Ready, Wait

from database.connection import NO_CONNECTION, SECOND, Pool
from database.deadline import remaining
from database.failures import Unavailable
from settings import SettingError

peewee.psycopg = psycopg  # type: ignore[attr-defined]  # the package has it loaded without
# It warns that a pipeline has failed, too, where what has failed is raised.
logging.getLogger("psycopg").setLevel(logging.ERROR)

# A server whose host is gone is given up (after seconds; milliseconds for tcp_user_timeout), one
# that cannot write not taken (postgresql.org/docs/current/libpq-connect.html).
PATIENCE = " ".join(
    (
        "tcp_user_timeout=10000",
        "keepalives_idle=5",
        "keepalives_interval=2",
        "keepalives_count=3",
        "target_session_attrs=read-write",
    )
)
CONNECT_TIMEOUT, LEAST_TIMEOUT = 5, 2  # seconds
# What a keeper asks seems so dear that it would be compiled each time. A transaction whose host has
# vanished in the middle of it holds its rows for as long as TCP knows nothing of that, two hours by
# default; and the limit of an idle transaction counts only behind the Sync of a pipeline. By its
# name, which a URL may have given it, others are told apart from `psql`.
SESSION = """
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
    )
"""
OTHERS = """
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database()
AND application_name = current_setting('application_name')
AND pid <> pg_backend_pid()
"""
# Milliseconds. All others queue behind who waits for a table; and after a second (deadlock_timeout)
# the server would give up a transaction of theirs that holds another one of the tables.
LOCK_TIMEOUT = 500
PREPARED_AFTER = 5  # uses of a statement
CLOCK_TTL = 1  # seconds
DRIFT = 1000  # microseconds that two clocks may part in such a time


def parse(url: str) -> dict[str, Any]:
    """The options in this URL, which may name several hosts, as the server's own programs read it.
    Raises SettingError."""
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


class Connection(psycopg.Connection):
    """A connection on which nothing takes longer than its thread may wait: a server may hang, and
    say nothing."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if self.pgconn.pipeline_status:
            gen = self._sending_all(gen)
        try:
            return super().wait(gen, interval, remaining())
        except OSError as error:  # no descriptor is left with which to wait
            raise psycopg.OperationalError(str(error)) from error
        except psycopg.OperationalError:
            if not remaining():  # what is still to come is not waited for
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=0.5)
                self.close()
            raise

    def _sending_all(self, gen: Any) -> Generator[Any, Any, Any]:
        """What psycopg does in a pipeline: it tries once to send what the system's buffer may have
        no room for, and then waits for the answer alone, as the server does for the rest of a long
        text. So what is left is sent meanwhile."""
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
    def connect(self, db: "PostgreSQL", **options: Any) -> Connection:
        left = remaining()
        if left < LEAST_TIMEOUT:  # libpq would wait for longer
            raise Unavailable(NO_CONNECTION)
        # Of several hosts, one is tried after the other.
        each = min(left / (options.get("host", "").count(",") + 1), options["connect_timeout"])
        options["connect_timeout"] = max(LEAST_TIMEOUT, int(each))
        connection = Connection.connect(PATIENCE, dbname=db.database, autocommit=True, **options)
        if _is_server_itself(connection):
            connection.execute(SESSION)
            connection.prepare_threshold = PREPARED_AFTER
        return connection


def _is_server_itself(connection: Connection) -> bool:
    """Whether no pooler is between. PgBouncer may give to others what a connection has prepared, or
    set; the number that it gives is none of a server's process."""
    ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return bool(pid == connection.pgconn.backend_pid)


class PostgreSQL(Pool, peewee.PostgresqlDatabase):
    """A server, which one host or many use."""

    psycopg3_adapter = Adapter
    concat, held = "string_agg", "FOR UPDATE OF turn"
    records = "json_to_recordset(%s) AS given ({})", "{0} {1}"
    size = "octet_length({})"  # for which no text is unpacked
    clock_sql = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    options = {
        # Of transactions; that of a lone statement is the database's default.
        "isolation_level": "READ COMMITTED",
        "prepare_threshold": None,
    }
    # When the server's clock was asked, and how far it is ahead of this process's own.
    _clock: tuple[float, int] = (-CLOCK_TTL, 0)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """In a pipeline: if nothing is read, the transaction takes one round trip."""
        connection = self.connection()
        try:
            with connection.pipeline() as pipeline, self.atomic():
                try:
                    yield
                except BaseException:
                    # Else the server would skip peewee's ROLLBACK after a failure.
                    with contextlib.suppress(psycopg.Error):
                        pipeline.sync()
                    raise
        except psycopg.Error:  # of an answer that peewee did not see
            self.discard()
            with peewee_errors:
                raise
        except (peewee.DatabaseError, peewee.InterfaceError, Unavailable):
            self.discard()
            raise
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()  # does nothing where the transaction has ended

    def execute(self, query: Query | SQL, **options: Any) -> Any:
        """Within a pipeline, wait for the answer: peewee looks at what it is before it fetches
        it."""
        cursor = super().execute(query, **options)
        if self.connection().pgconn.pipeline_status:
            with peewee_errors, self.connection().pipeline() as pipeline:
                pipeline.sync()
        return cursor

    def execute_sql(self, *statement: Any) -> psycopg.Cursor:
        """Keep no connection whose prepared statements fail, as where a newer release has changed
        the type of a column: the next one prepares them anew."""
        try:
            return super().execute_sql(*statement)
        except peewee.NotSupportedError:
            self.discard()
            raise

    def send(self, query: Query | SQL) -> Callable[[], list[tuple[Any, ...]]]:
        return super().execute(query).fetchall

    def now(self) -> int:
        """By the server's clock, which is asked once a second and reckoned on meanwhile."""
        asked_at, ahead = self._clock
        if time.monotonic() - asked_at >= CLOCK_TTL:
            ((then,),) = self.execute_sql(f"SELECT {self.clock_sql}").fetchall()
            asked_at = time.monotonic()
            # Too little, where the answer has waited: else processes would not agree.
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

    def hold(self, query: ModelSelect | SQL) -> None:
        self.send(query if isinstance(query, SQL) else query.for_update())

    def is_usable(self, connection: Connection | None) -> bool:
        """The last that a server says, and its end, can be read where else there is nothing to
        read."""
        if connection is None or connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def is_in_use(self) -> bool:
        """PgBouncer has connections of its own, also for those who have gone: of who comes through
        it, nothing is found out."""
        with self.connection_context():
            ((count,),) = self.execute_sql(OTHERS).fetchall()
            return _is_server_itself(self.connection()) and count > 0

    def forget_read(self) -> None:
        """Nothing is to be done: the server keeps what is read."""

    def check(self) -> None:
        ((read_only,),) = self.execute_sql("SHOW transaction_read_only").fetchall()
        if read_only == "on":
            self.discard()
            raise Unavailable("the database is read-only")
