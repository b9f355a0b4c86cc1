"""The database: a file of SQLite, or PostgreSQL, as one `db` with peewee's interface.

    deadline ─ how long a thread may wait
    connection ─ the connection pool, and what an engine has to offer; engines: sqlite, postgresql
    transactions ─ write transactions, with retries
    statements ─ named SQL from a file
    opening ─ opens and migrates the database of the settings
    failures ─ tells outages from bugs

Times are microseconds since 1970 in UTC, by the database's clock, so that processes and hosts
agree. `db.send` does not wait for a statement's result within a transaction, if the engine can do
without.
"""

import sys

# Without this, peewee would import PostgreSQL's driver whenever it is installed: 8 MB, 0.1 s.
sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]
import peewee  # noqa: F401

if sys.modules["psycopg"] is None:
    del sys.modules["psycopg"]

from database.connection import CONNECTIONS, SECOND, db
from database.deadline import WAIT, begin_request, limit_time, remaining
from database.failures import (
    DRIVER_ERRORS,
    Unavailable,
    is_full,
    is_outage,
    mapped_errors,
    reason,
)
from database.opening import SchemaVersion, open_database, url_of
from database.sqlite import APPLICATION_ID
from database.statements import Statements, insertion
from database.transactions import (
    begin_outage,
    check,
    connected,
    end_outage,
    long_write_lock,
    monitored,
    transaction,
)

__all__ = [
    "APPLICATION_ID",
    "CONNECTIONS",
    "DRIVER_ERRORS",
    "SECOND",
    "WAIT",
    "SchemaVersion",
    "Statements",
    "Unavailable",
    "begin_outage",
    "begin_request",
    "check",
    "connected",
    "db",
    "end_outage",
    "insertion",
    "is_full",
    "is_outage",
    "limit_time",
    "long_write_lock",
    "mapped_errors",
    "monitored",
    "open_database",
    "reason",
    "remaining",
    "transaction",
    "url_of",
]
