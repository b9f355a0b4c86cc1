"""The database: a file of SQLite, or PostgreSQL, behind one `db` with peewee's interface.

    deadline ─ how long a thread may wait
    connection ─ a pool of either engine: sqlite, postgresql
    transactions ─► db.write() ─► statements of peewee, or of a file
    opening ─ the settings' database, migrated
    failures ─ what is raised

Times are microseconds since 1970 in UTC, by the database's clock, so that processes and hosts
agree. Within a transaction, what is sent (`db.send`) is not waited for.
"""

import sys

# Else peewee would load PostgreSQL's driver wherever it is installed: 8 MB, 0.1 s.
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
from database.transactions import check, connected, monitored, transaction, turn_to_store

__all__ = [
    "APPLICATION_ID",
    "CONNECTIONS",
    "DRIVER_ERRORS",
    "SECOND",
    "WAIT",
    "SchemaVersion",
    "Statements",
    "Unavailable",
    "begin_request",
    "check",
    "connected",
    "db",
    "insertion",
    "is_full",
    "is_outage",
    "limit_time",
    "mapped_errors",
    "monitored",
    "open_database",
    "reason",
    "remaining",
    "transaction",
    "turn_to_store",
    "url_of",
]
