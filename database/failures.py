"""Telling outages of the database, which end by themselves, from our bugs, which do not."""

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

# Fetching rows raises sqlite3's own errors, which peewee does not wrap; peewee's InterfaceError is
# no DatabaseError.
DRIVER_ERRORS = (DatabaseError, InterfaceError, sqlite3.Error)
# SQLite's primary result codes (sqlite.org/rescode.html): the last byte of an extended one. The
# others, such as for a syntax error or a constraint, are no outages.
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
# Source files of PostgreSQL (src/backend/storage) that report errors of the disk, under misleading
# codes: XX000 if a quota is reached, 42501 if the file system is read-only.
_STORAGE = {"buffile.c", "fd.c", "md.c", "slru.c", "xlog.c"}
# The function that fails if a prepared statement is older than a change of a column
# (src/backend/utils/cache/plancache.c). A new connection prepares it again. The message itself is
# in the server's language.
_OLD_PLAN = "RevalidateCachedQuery"
# SQLite quotes a text after "with text"; before an @ there may be a password.
_HIDDEN = re.compile("(\n| with text ).*|(?<= ['\"])\\S*(?=@)|[^\\s/'\"]*(?=@)", re.DOTALL)


FULL = "the disk is full: free space on that of the database"


class Unavailable(Exception):
    """The database does not answer, or nobody can write to it. The cause is the driver's error; if
    there is none, the message says what is wrong."""


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise outages within this as Unavailable, and all other errors as they are."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise Unavailable from error
        raise


def is_outage(error: BaseException) -> bool:
    """Whether this error of peewee or a driver is an outage, by the database's code. The class does
    not tell: with SQLite, a syntax error is an OperationalError, too."""
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 255 in _SQLITE_OUTAGES
    sqlstate = sqlstate_of(error)
    if sqlstate is not None:
        said = cause.diag
        is_odd = said.source_file in _STORAGE or said.source_function == _OLD_PLAN
        return is_odd or sqlstate.startswith(_POSTGRESQL_OUTAGES)
    if isinstance(error, MemoryError):  # Python raises this for SQLITE_NOMEM
        return True
    # No code: the connection broke, unless peewee itself raised this, without an error of a driver:
    # that is a bug.
    is_drivers = not isinstance(cause, PeeweeException)
    is_general = type(error) is DatabaseError or isinstance(
        error, OperationalError | InterfaceError
    )
    return is_drivers and is_general


def sqlstate_of(error: BaseException | None) -> str | None:
    """PostgreSQL's code of this error of peewee or the driver, or None."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)


def is_full(error: BaseException) -> bool:
    """Whether the disk is full."""
    if isinstance(error, Unavailable):
        error = error.__cause__ or error
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None) or 0
    is_drivers = code & 255 == sqlite3.SQLITE_FULL or sqlstate_of(error) == "53100"
    return is_drivers or str(error).startswith(FULL)


def reason(error: BaseException) -> str:
    """The driver's message, in one line for the log, such as `OperationalError: disk I/O error`,
    without what may quote a row."""
    if isinstance(error, Unavailable):
        error = error.__cause__ or error
    if is_full(error):
        return str(error) if str(error).startswith(FULL) else FULL
    said = "" if isinstance(error, DataError | IntegrityError) else f": {error}"
    return _HIDDEN.sub("", f"{type(error).__name__}{said}")[:200]
