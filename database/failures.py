"""What the database raises: an outage, which ends by itself, or a bug of ours, which does not."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from peewee import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PeeweeException,
)

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
    "25P04",  # the transaction took too long
    "40",  # the transaction was given up
    "53",  # insufficient resources
    "55P03",  # lock not available
    "57",  # operator intervention
    "58",  # system error
    "XX001",  # corrupted data
    "XX002",  # a corrupted index
)
# Files of PostgreSQL (src/backend/storage) that raise what a disk says, by a code that says
# something else: XX000 where a quota is reached, 42501 where the file system is read-only.
_STORAGE = {"buffile.c", "fd.c", "md.c", "slru.c", "xlog.c"}
# A prepared statement is older than a column (src/backend/utils/cache/plancache.c): a new
# connection prepares it anew. The message is in the server's language.
_OLD_PLAN = "RevalidateCachedQuery"
# SQLite quotes a text behind "with text"; a password may stand before an @.
_HIDDEN = re.compile("(\n| with text ).*|(?<= ['\"])\\S*(?=@)|[^\\s/'\"]*(?=@)", re.DOTALL)


FULL = "the disk is full: free space on that of the database"


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
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 255 in _SQLITE_OUTAGES
    sqlstate = sqlstate_of(error)
    if sqlstate is not None:
        said = cause.diag
        is_odd = said.source_file in _STORAGE or said.source_function == _OLD_PLAN
        return is_odd or sqlstate.startswith(_POSTGRESQL_OUTAGES)
    if isinstance(error, MemoryError):  # as Python tells SQLITE_NOMEM
        return True
    # A connection broke. What peewee itself raises has no driver's error behind it, and is a bug.
    is_drivers = not isinstance(cause, PeeweeException)
    is_general = type(error) is DatabaseError or isinstance(
        error, OperationalError | InterfaceError
    )
    return is_drivers and is_general


def sqlstate_of(error: BaseException | None) -> str | None:
    """The code that PostgreSQL gave this, raised by peewee or by the driver."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)


def is_full(error: BaseException) -> bool:
    """Whether this tells that the disk is full."""
    if isinstance(error, Unavailable):
        error = error.__cause__ or error
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None) or 0
    is_drivers = code & 255 == sqlite3.SQLITE_FULL or sqlstate_of(error) == "53100"
    return is_drivers or str(error).startswith(FULL)


def reason(error: BaseException) -> str:
    """What the driver says of this, in a line for the log, such as `OperationalError: disk I/O
    error`. What may quote a row is left out."""
    if isinstance(error, Unavailable):
        error = error.__cause__ or error
    if is_full(error):
        return str(error) if str(error).startswith(FULL) else FULL
    said = "" if isinstance(error, DataError | IntegrityError) else f": {error}"
    return _HIDDEN.sub("", f"{type(error).__name__}{said}")[:200]
