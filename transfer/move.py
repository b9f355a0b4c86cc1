"""Copy everything from the service's database, the source, into another one, the target, on SQLite
or PostgreSQL.

First the source is marked. From then on, a process that opens it or makes another connection to it
is refused (`database/opening.py`), so we need only check for connections that are already open. One
transaction reads everything, and one writes it. It commits after the target's rows were read back
and found the same. If this process is killed before the commit, the target is empty, and the mark
says what to do. If it is killed just after, the target has everything, and the mark still closes
the source.
"""

import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

from peewee import AutoField, Model

from database import DRIVER_ERRORS, SchemaVersion, Unavailable, db, limit_time, reason
from database.connection import Pool
from database.opening import BEGUN, MOVED
from maintenance.migrations import TABLES
from settings import command
from tables.columns import time_of

CLOSING = 2  # seconds that PostgreSQL may take to notice that a connection was closed
STEP_TIMEOUT = 300  # seconds for a step: a page of rows, a scan of a table, a commit
LONG = 2**16  # bytes; a row that has more is read alone
ROWS = 100  # in a page of shorter rows
COPIED = [model for model in TABLES if model is not SchemaVersion]

IN_USE = "{} is in use. Stop the service first."
NOT_EMPTY = (
    "The other database already has sessions or usage. Name an empty one. (If a move into it was "
    "cut off at its very end, everything is there: set DATABASE_URL to it.)"
)
NOTHING = "Nothing was moved."
PERHAPS = (
    "It was at its very end, so everything may have been moved. Run it again: if it refuses the "
    "other database because that has sessions, everything was moved."
)


class NotMoved(Exception):
    """There was no move; the message tells a person why."""


class Digest:
    """A count and a digest of rows, which do not depend on their order."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0

    def add(self, row: list[Any]) -> None:
        digest = hashlib.sha256()
        for value in row:  # one at a time: a text may have megabytes
            if value is None:
                data = b""
            else:
                data = value if isinstance(value, bytes) else str(value).encode()
            digest.update(b"%d " % (-1 if value is None else len(data)))
            digest.update(data)
        self.count += 1
        self.sum = (self.sum + int.from_bytes(digest.digest())) % 2**256


def move(source: Pool, target: Pool) -> dict[str, int]:
    """Copy everything from the source into the target, to which all models must be bound, and mark
    the source as moved. Returns how many rows each table has. Raises NotMoved: then the target is
    unchanged, and the source is marked only if it was before; but if the message is PERHAPS, the
    commit of the copy may have succeeded, and the source stays marked as being moved."""
    limit_time(STEP_TIMEOUT)
    _check_unused(source, target)
    found = _mark_of(source)
    if found is not None and not found.startswith(BEGUN):
        raise NotMoved(
            f"Everything was already moved from this database. To move it again, first run "
            f"`{command()} move --undo`."
        )
    mark = found or f"{BEGUN} {_now()}"
    is_copied = False
    try:
        _set_mark(source, mark)
        _check_unused(source, target)
        with source.connection_context(), db.connection_context(), target.long_transaction():
            counts = _copy_all(source, target)
            if _mark_of(source) != mark:
                raise NotMoved(f"Somebody has undone the move. {NOTHING}")
            limit_time(STEP_TIMEOUT)
            is_copied = True
        _set_mark(source, f"{MOVED} {_now()}")
        return counts
    except BaseException as error:
        if found is None and not is_copied:
            with contextlib.suppress(Unavailable, *DRIVER_ERRORS):
                _set_mark(source, None)
        outcome = PERHAPS if is_copied else NOTHING
        if isinstance(error, KeyboardInterrupt):
            raise NotMoved(f"It was stopped. {outcome}") from None
        if isinstance(error, (Unavailable, *DRIVER_ERRORS, OSError)):
            raise NotMoved(f"It failed: {reason(error)}. {outcome}") from error
        raise


def undo(source: Pool) -> bool:
    """Remove the mark, so that a service can start on this database again. Returns whether there
    was one. Raises NotMoved while a move is in progress."""
    limit_time()
    _check_unused(source)
    is_marked = _mark_of(source) is not None
    _set_mark(source, None)
    return is_marked


# The mark


def _check_unused(source: Pool, target: Pool | None = None) -> None:
    """Raises NotMoved if a process has one of these open, as the keeper of each server process
    always has. This process must have closed them."""
    if _stays_in_use(source):
        raise NotMoved(IN_USE.format("The database"))
    if target is not None and _stays_in_use(target):
        raise NotMoved(IN_USE.format("The other database"))


def _stays_in_use(engine: Pool) -> bool:
    """Whether a process has it open, and does not just close it."""
    until = time.monotonic() + CLOSING
    while engine.is_in_use():
        if time.monotonic() > until:
            return True
        time.sleep(0.1)
    return False


def _mark_of(engine: Pool) -> str | None:
    with engine.connection_context():
        ((mark,),) = engine.execute_sql("SELECT moving FROM release").fetchall()
        engine.discard()
    return mark


def _set_mark(engine: Pool, mark: str | None) -> None:
    limit_time()
    with engine.connection_context():
        engine.execute_sql(f"UPDATE release SET moving = {engine.param}", (mark,))
        engine.discard()


def _now() -> str:
    return time_of(time.time_ns() // 1000)


# The rows


def _copy_all(source: Pool, target: Pool) -> dict[str, int]:
    """Copy all tables, in a transaction of the target, and check that they are the same. Returns
    how many rows each has."""
    target.lock_tables(model._meta.table_name for model in TABLES)
    if _mark_of(target) is not None:
        raise NotMoved("The other database is the same one, or was itself moved elsewhere.")
    if any(model.select().exists() for model in COPIED):
        raise NotMoved(NOT_EMPTY)
    with source.long_transaction(reads=True):
        of_release = "SELECT secret, retention_days FROM release"
        ((secret, days),) = source.execute_sql(of_release).fetchall()
        counts = {model._meta.table_name: _copy(model, source, target) for model in COPIED}
    # The clocks of the two databases may differ: retention begins its grace period again.
    begins = {"retention_days": days, "retention_since": None}
    SchemaVersion.update(secret=secret, **begins).execute()
    return counts


def _copy(model: type[Model], source: Pool, target: Pool) -> int:
    """Copy the rows of this model. Returns how many there are."""
    table = model._meta.table_name
    columns = [field.column_name for field in model._meta.sorted_fields]
    read, stored = Digest(), Digest()
    target.insert_all(table, columns, _rows(model, source, read))
    for _ in _rows(model, target, stored):
        pass
    if vars(read) != vars(stored):
        raise NotMoved(f"The other database did not store the rows of {table} exactly. {NOTHING}")
    if isinstance(model._meta.primary_key, AutoField):
        target.skip_used_ids(table)
    return read.count


def _rows(model: type[Model], engine: Pool, digest: Digest) -> Iterator[list[Any]]:
    """All rows of this model, in any order, with values as SQLite has them. Adds each to the
    digest. A long row is in memory alone."""
    fields = model._meta.sorted_fields
    columns = ", ".join(f'"{field.column_name}"' for field in fields)
    long = [f'"{field.column_name}"' for field in fields if field.field_type in ("TEXT", "BLOB")]
    size = " + ".join(f"coalesce({engine.size.format(column)}, 0)" for column in long) or "0"
    for condition, count in ((f"{size} < {LONG}", ROWS), (f"{size} >= {LONG}", 1)):
        sql = f'SELECT {columns} FROM "{model._meta.table_name}" WHERE {condition}'
        for page in engine.pages(sql, count):
            limit_time(STEP_TIMEOUT)
            while page:
                row = [_as_in_sqlite(value) for value in page.pop()]
                digest.add(row)
                yield row
                row.clear()  # before the next one is read


def _as_in_sqlite(value: Any) -> Any:
    """This value as SQLite stores it."""
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, memoryview):
        return bytes(value)
    return int(value) if isinstance(value, bool) else value
