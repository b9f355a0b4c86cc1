"""A program whose statements tell the triggers of `observed` which fences they name.

    python tests/support/naming.py python gunicorn.conf.py

The product knows nothing of it: peewee gives each statement to the driver in one place.
"""

import contextlib
import re
import runpy
import sqlite3
import sys

import peewee

BEFORE = f"{sys.executable} {__file__} "  # starts such a server, as `Server.before`
# What a trigger reads. NULL if the statement named nothing.
ON_SQLITE, ON_POSTGRESQL = "(SELECT fences FROM naming)", "current_setting('naming.fences', true)"


def fences_in(values):
    """The fences among a statement's values: random numbers of 63 bits. Nothing else has ten
    digits."""
    return {int(number) for number in re.findall(r"\d{10,}", str(values))}


def install():
    execute = peewee.Database.execute_sql

    def execute_sql(self, sql, params=None):
        if not params or not self.in_transaction():
            return execute(self, sql, params)
        tell(self.connection(), " ".join(map(str, fences_in(params))))
        cursor = execute(self, sql, params)
        tell(self.connection(), None)
        return cursor

    peewee.Database.execute_sql = execute_sql


def tell(connection, fences):
    if isinstance(connection, sqlite3.Connection):
        with contextlib.suppress(sqlite3.OperationalError):  # nothing is observed yet
            connection.execute("UPDATE naming SET fences = ?", [fences])
    else:
        connection.execute("SELECT set_config('naming.fences', %s, true)", [fences])


if __name__ == "__main__":
    install()
    sys.argv[:] = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
