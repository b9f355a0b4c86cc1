"""What the database raises: an outage, which ends by itself, or a bug of ours, which does not."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator

from peewee import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError

# SQLite's own errors come where rows are fetched; peewee's InterfaceError is no DatabaseError.
DRIVER_ERRORS = (DatabaseError, InterfaceError, sqlite3.Error)
# SQLite's primary result codes (sqlite.org/rescode.html), which are the last byte of any other.
# Of the rest, as of a mistyped statement, a constraint or a type, none ends by itself.
_SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
# Classes of PostgreSQL's SQLSTATEs, and some codes
# (postgresql.org/docs/current/errcodes-appendix.html).
_POSTGRESQL_OUTAGES = (
    "08",  # connection exception
    "25006",  # read-only transaction, as on a standby
    "25P03",  # the transaction was idle for too long
    "40",  # the transaction was given up
    "53",  # insufficient resources
    "55P03",  # lock not available
    "57",  # operator intervention
    "58",  # system error
    "XX001",  # corrupted data
    "XX002",  # a corrupted index
)
# A prepared statement is older than a column (src/backend/utils/cache/plancache.c): a new
# connection prepares it anew.
_OLD_PLAN = ("0A000", "cached plan")
# SQLite quotes a text behind "with text"; a password may stand before an @.
_HIDDEN = re.compile("(\n| with text ).*|(?<= ['\"])\\S*(?=@)|[^\\s/'\"]*(?=@)", re.DOTALL)


class Unavailable(Exception):
    """The database does not answer, or nobody can write to it. Its cause is what the driver raised;
    where it has none, its text says what it is."""


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """An outage within this is raised as Unavailable. All else stays what it is."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise Unavailable from error
        raise


def is_outage(error: BaseException) -> bool:
    """Whether this, raised by peewee or by a driver, tells of an outage: by the code that the
    database gave it. In SQLite, a mistyped statement is an OperationalError, too."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 255 in _SQLITE_OUTAGES
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        is_old_plan = sqlstate == _OLD_PLAN[0] and _OLD_PLAN[1] in str(cause)
        return is_old_plan or sqlstate.startswith(_POSTGRESQL_OUTAGES)
    # A connection broke. What peewee itself raises has no driver's error behind it, and is a bug.
    is_drivers = cause is not error
    is_general = type(error) is DatabaseError or isinstance(
        error, OperationalError | InterfaceError
    )
    return is_drivers and is_general


def reason(error: BaseException) -> str:
    """What the driver says of this, in a line for the log, such as `OperationalError: disk I/O
    error`. What may quote a row is left out."""
    if isinstance(error, Unavailable):
        error = error.__cause__ or error
    said = "" if isinstance(error, DataError | IntegrityError) else f": {error}"
    return _HIDDEN.sub("", f"{type(error).__name__}{said}")[:200]
