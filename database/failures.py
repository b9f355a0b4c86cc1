"""What the database raises, and what a log may say of it."""

import re
import sqlite3

from peewee import DatabaseError, DataError, IntegrityError

# SQLite's own errors come where rows are fetched; OSError where a file is gone, or no descriptor is
# left for a connection.
Unavailable = (DatabaseError, sqlite3.Error, OSError)
# The database answers, and does not take a row.
Unstorable = (DataError, IntegrityError)

# The classes of either driver whose texts quote no row.
_QUOTING_NOTHING = {"OperationalError", "InsufficientPrivilege", "OSError"}
# SQLite quotes a text behind "with text"; a password may stand before an @.
_HIDDEN = re.compile("(\n| with text ).*|(?<= ['\"])\\S*(?=@)|[^\\s/'\"]*(?=@)", re.DOTALL)


def reason(error: BaseException) -> str:
    """What the driver says of one of Unavailable, in a line for the log, such as
    `OperationalError: disk I/O error`."""
    cause = getattr(error, "orig", None) or error
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    said = f": {cause}" if kinds & _QUOTING_NOTHING else ""
    return _HIDDEN.sub("", f"{type(error).__name__}{said}")[:200]
