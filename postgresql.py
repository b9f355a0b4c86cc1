"""The engine of PostgreSQL: its connections, its transactions, its locks."""

import contextlib
import time

import peewee
import psycopg
from peewee import SQL
from peewee import __exception_wrapper__ as peewee_errors
from urllib3.util import wait_for_read

from database import SECOND, Pool, remaining
from settings import SettingError

peewee.psycopg = psycopg  # `database` has it loaded without
# A PostgreSQL whose host is gone is given up (after seconds; milliseconds for tcp_user_timeout), one that cannot write not taken.
PATIENCE = "tcp_user_timeout=10000 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 target_session_attrs=read-write"
CLOCK_TTL = 1  # seconds
DRIFT = 1000  # microseconds that two clocks may part in such a time


def parse(url):
    """The options in this URL, which may name several hosts, as the server's own programs read it. Raises SettingError."""
    with contextlib.suppress(psycopg.ProgrammingError, ValueError, OverflowError):  # whose text may quote the password
        options = {"connect_timeout": 5} | psycopg.conninfo.conninfo_to_dict(url)
        return options | {"database": options.pop("dbname", ""), "connect_timeout": int(float(options["connect_timeout"]))}
    raise SettingError("DATABASE_URL", "write it as postgresql://user:password@host:port/database")


class Connection(psycopg.Connection):
    """A connection to PostgreSQL on which nothing takes longer than its thread may wait: a server may hang, and say nothing."""

    def wait(self, gen, interval=0.1, timeout=None):
        try:
            return super().wait(gen, interval, remaining())
        except psycopg.OperationalError:
            if not remaining():  # what is still to come is not waited for
                with contextlib.suppress(psycopg.Error):
                    self.cancel_safe(timeout=0.5)
                self.close()
            raise


class Adapter(peewee.Psycopg3Adapter):
    def connect(self, db, **options):
        each = remaining() / (options.get("host", "").count(",") + 1)  # of several hosts, one is tried after the other
        options["connect_timeout"] = max(2, int(min(each, options["connect_timeout"])))
        connection = Connection.connect(PATIENCE, dbname=db.database, autocommit=True, **options)
        # PgBouncer may give to others what a connection has prepared, or set. The number it gives is none of a server's process.
        if connection.execute("SELECT pg_backend_pid()").fetchone() == (connection.pgconn.backend_pid,):
            connection.execute("SET jit = off")  # what a keeper asks seems so dear that it would be compiled each time
            connection.prepare_threshold = 5  # uses of a statement
        return connection


class PostgreSQL(Pool, peewee.PostgresqlDatabase):
    """A server, which one host or many use."""

    psycopg3_adapter = Adapter
    concat, held = "string_agg", "FOR UPDATE OF turn"
    records = "json_to_recordset(%s) AS given ({})", "{0} {1}"
    clock_sql = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    options = {
        "isolation_level": "READ COMMITTED",  # of transactions; that of a lone statement is the database's default
        "prepare_threshold": None,
    }
    _clock = -CLOCK_TTL, 0  # when it was asked, and how far it is ahead of this process's own

    @contextlib.contextmanager
    def write(self):
        """One short write transaction, within which no other may begin. A pipeline: if nothing is read, one round trip."""
        connection = self.connection()
        try:
            with connection.pipeline() as pipeline, self.atomic():
                try:
                    yield
                except BaseException as error:
                    if isinstance(error, peewee.DatabaseError):
                        self.discard()
                    with contextlib.suppress(psycopg.Error):  # else the server would skip peewee's ROLLBACK after a failure
                        pipeline.sync()
                    raise
        except psycopg.Error:  # of an answer that peewee did not see
            self.discard()
            with peewee_errors:
                raise
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()  # does nothing where the transaction has ended

    def execute(self, query, **options):
        """Within a pipeline, wait for the answer: peewee looks at what it is before it fetches it."""
        cursor = super().execute(query, **options)
        if self.connection().pgconn.pipeline_status:
            with peewee_errors, self.connection().pipeline() as pipeline:
                pipeline.sync()
        return cursor

    def execute_sql(self, *statement):
        """Keep no connection whose prepared statements fail, as where a newer release has changed the type of a column."""
        try:
            return super().execute_sql(*statement)
        except peewee.NotSupportedError:
            self.discard()
            raise

    def send(self, query):
        """Execute the query without waiting; returns a function that returns its rows, once the answer is there."""
        return super().execute(query).fetchall

    def now(self):
        """The time in microseconds, by the server's clock, which is asked once a second and reckoned on meanwhile."""
        asked_at, ahead = self._clock
        if time.monotonic() - asked_at >= CLOCK_TTL:
            (then,) = self.execute_sql(f"SELECT {self.clock_sql}").fetchone()
            asked_at = time.monotonic()
            found = then - int(asked_at * SECOND)  # too little, where the answer has waited: else processes would not agree
            ahead = max(found, ahead - DRIFT) if abs(found - ahead) < SECOND // 2 else found
            self._clock = asked_at, ahead
        return ahead + int(time.monotonic() * SECOND)

    def lock(self, name):
        """Hold `name` until the transaction ends."""
        self.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    def hold(self, query):
        """Hold the rows of this query until the transaction ends."""
        self.send(query if isinstance(query, SQL) else query.for_update())

    def is_usable(self, connection):
        """Nothing is asked: the last that a server says, and its end, can be read where else there is nothing to read."""
        return connection is not None and not connection.closed and not wait_for_read(connection, 0)

    def check(self):
        """Raises one of Unavailable where nobody can write."""
        if self.execute_sql("SHOW transaction_read_only").fetchone()[0] == "on":
            self.discard()
            raise peewee.OperationalError("the database is read-only")
