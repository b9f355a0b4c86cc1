"""`flask export --all FILE` and `flask import --all FILE`: everything from one database to another,
of either engine, while the service is stopped.

While it is read into a database, that has the file's id for a mark, by which no service starts on
half of it. What was cut off may begin again: rows that are there already stay what they are.
"""

import contextlib
import itertools
import os
import pathlib
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from peewee import SQL, AutoField, Expression, Field, Model, Tuple, Value

from database import (
    SchemaVersion,
    Unavailable,
    connected,
    db,
    insertion,
    limit_time,
    reason,
    transaction,
)
from database.sqlite import SQLite
from models import Session, Turn
from settings import command
from tables.ledger import Usage
from tables.shown import time_of
from upkeep.endings import Columns, Endings
from upkeep.everything import MODELS, NotMoved, Row, Source, end, fields_of, header, row

AT_ONCE = 2**20  # bytes of rows that are read, or written, at once
FIRST_ROWS, MOST_ROWS = 64, 1000  # that are measured for a page
OVERHEAD = 1000  # bytes of a row besides its texts
PATIENCE = 300  # seconds in which all rows of a database are counted
DELETED = Session.select(Session.id).where(Session.owner == "")  # or still being imported
# Which rows are moved; of other tables all.
ALL = SQL("TRUE")
MOVED = {Session: Session.owner != "", Turn: Turn.session.not_in(DELETED)}

Key = tuple[Any, ...]  # the values of a primary key, as the engine has them


class Moved(NamedTuple):
    """What a file has."""

    sessions: int
    turns: int

    def __str__(self) -> str:
        return f"{_several(self.sessions, 'session')}, {_several(self.turns, 'turn')}"


def _several(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


# From a database


def write_everything(path: str) -> Moved:
    """Write everything that this database has into a new file, which only its owner can read; but
    not sessions that are being deleted or imported. A reply under way is there as interrupted, and
    stays here what it is. Raises NotMoved, and leaves no file: also where it is interrupted."""
    with _told(f"{path} was not written."), _new_file(path) as file:
        _check_in_use("The database is in use. Stop the service first.")
        with connected():
            exported_at = time_of(db.now())
        file.write(header(secrets.token_hex(16), exported_at))
        endings = Endings.read()
        counts = dict.fromkeys(MODELS, 0)
        for name, model in MODELS.items():
            for columns in _rows_of(model, endings):
                file.write(row(name, columns))
                counts[name] += 1
        _leave()
        _check_in_use(
            "The service was started meanwhile, so that something may be lacking. Stop it, and "
            f"export again. {path} was not written."
        )
        file.write(end(counts))
    return Moved(counts["session"], counts["turn"])


def _check_in_use(problem: str) -> None:
    """Raises NotMoved where it is. This process must have no connection."""
    limit_time()
    if db.obj.is_in_use():
        raise NotMoved(problem)


def _leave() -> None:
    with connected():
        db.discard()  # on SQLite, the last who closes it leaves no files beside it


@contextlib.contextmanager
def _told(advice: str) -> Iterator[None]:
    """Raise NotMoved, with this advice, for what the database or the system refuses, and where a
    person has enough of it."""
    try:
        yield
    except Unavailable as error:
        raise NotMoved(f"The database does not answer: {reason(error)}. {advice}") from error
    except OSError as error:
        raise NotMoved(f"{error.strerror or error}. {advice}") from error
    except KeyboardInterrupt:
        raise NotMoved(f"It was stopped. {advice}") from None


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """A file that is whole in the end, and on the disk, or is not there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise NotMoved(f"{path} is there already. Name a new file.") from None
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        pathlib.Path(path).unlink(missing_ok=True)
        raise


def _rows_of(model: type[Model], endings: Endings) -> Iterator[Columns]:
    """All rows of this model as they are moved."""
    changes = {
        Session: endings.change_session,
        Turn: endings.change_turn,
        Usage: endings.change_usage,
    }
    change = changes.get(model, lambda columns: columns)
    yield from map(change, _stored_rows(model))
    if model is Usage:
        yield from endings.rest_of_usage()


def _stored_rows(model: type[Model]) -> Iterator[Columns]:
    """The rows of this model by their primary key, read in pages of AT_ONCE bytes at most, or of
    one row."""
    keys, fields = model._meta.get_primary_keys(), fields_of(model)
    last: Key = ()
    count = FIRST_ROWS
    while True:
        with connected():
            behind = _behind(model, last)
            count = _fitting(model, behind, count)
            if not count:
                return
            query = model.select(*keys, *fields).where(behind).order_by(*keys).limit(count)
            rows = db.execute(query).fetchall()
        last, count = rows[-1][: len(keys)], min(2 * count, MOST_ROWS)
        rows.reverse()
        while rows:  # none is held any more as the next page is read
            yield _columns(fields, rows.pop()[len(keys) :])


def _columns(fields: list[Field], values: Key) -> Columns:
    return {
        field.column_name: field.python_value(value)
        for field, value in zip(fields, values, strict=True)
    }


def _behind(model: type[Model], last: Key) -> Expression | SQL:
    """Which rows are still to be read, behind the one with this primary key."""
    is_moved = MOVED.get(model, ALL)
    if not last:
        return is_moved
    keys = model._meta.get_primary_keys()
    return is_moved & (Tuple(*keys) > Tuple(*map(Value, last)))


def _fitting(model: type[Model], condition: Expression | SQL, count: int) -> int:
    """How many of the next rows, `count` at most, have AT_ONCE bytes together: at least one, where
    there is one."""
    texts = [f"coalesce({db.obj.size.format(name)}, 0)" for name in _texts_of(model)]
    size = SQL(" + ".join([str(OVERHEAD), *texts]))
    keys = model._meta.get_primary_keys()
    query = model.select(size).where(condition).order_by(*keys).limit(count)
    sizes = [size for (size,) in db.execute(query).fetchall()]
    fitting = sum(total <= AT_ONCE for total in itertools.accumulate(sizes))
    return max(fitting, min(1, len(sizes)))


def _texts_of(model: type[Model]) -> list[str]:
    """The columns of texts, as SQL."""
    return [f'"{field.column_name}"' for field in fields_of(model) if field.field_type == "TEXT"]


# Into a database


def read_everything(path: str) -> Moved:
    """Read everything of such a file into this database, which is empty, or has a part of the same
    file from a reading that was cut off. Nothing is changed where the file is not right. Raises
    NotMoved."""
    with _told(f"Run `{command()} import --all {path}` again: it goes on where it was."):
        try:
            source = Source(path)
            counts = source.counts()
        except OSError as error:
            raise NotMoved(f"{path} cannot be read: {error.strerror or error}.") from None
        _check_in_use("The database is in use. Stop the service first.")
        with connected():
            _begin(source.id)
        for rows in _batches(source.rows()):
            with connected():
                _write(rows, path)
        with connected(PATIENCE):
            _end(counts, path)
        _leave()
    return Moved(counts["session"], counts["turn"])


@transaction
def _begin(file_id: str) -> None:
    """Set the mark. Raises NotMoved where there is another, or the database is not empty."""
    mark = SchemaVersion.select(SchemaVersion.moving).scalar()
    if mark == file_id:
        return
    if mark is not None:
        raise NotMoved(
            "Another file is being moved into this database, the one whose first line has the id "
            f"{mark}. Take that, or a new database."
        )
    others = [model for model in MODELS.values() if model is not SchemaVersion]
    if any(model.select().exists() for model in others):
        raise NotMoved(
            "This database has sessions, or usage, of its own. Everything can be moved into a new "
            "one only: name one in DATABASE_URL."
        )
    SchemaVersion.update(moving=file_id).execute()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows of one table, of AT_ONCE bytes at most, or one."""
    batch: list[Row] = []
    size = 0
    for each in rows:
        is_other = batch and batch[0].model is not each.model
        if is_other or (batch and size + each.size > AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


@transaction
def _write(rows: list[Row], path: str) -> None:
    """Insert these, where they are not there already. Raises NotMoved."""
    model = rows[0].model
    if model is SchemaVersion:
        SchemaVersion.update(rows[0].values).execute()
        return
    if model is Turn:
        _check_sessions(rows, path)
    for each in rows:
        statement = insertion(model(**each.values))
        db.send(SQL(f"{statement.sql} ON CONFLICT DO NOTHING", statement.params))


def _check_sessions(turns: list[Row], path: str) -> None:
    ids = {turn.values["session"] for turn in turns}
    there = {str(row.id) for row in Session.select(Session.id).where(Session.id.in_(list(ids)))}
    for turn in turns:
        if turn.values["session"] not in there:
            raise NotMoved(
                f"Line {turn.number} of {path} has a turn of a session that the file does not "
                "have. Was the service running as it was written? Export it anew, and take a new "
                "database."
            )


@transaction
def _end(counts: dict[str, int], path: str) -> None:
    """Clear the mark, as all is there. Raises NotMoved."""
    for name, model in MODELS.items():
        there = model.select().count()
        if there != counts[name]:
            raise NotMoved(
                f"The database has {there} rows of {name}, and {path} has {counts[name]}: some of "
                "them are equal. Export it anew, and take a new database."
            )
        if not isinstance(db.obj, SQLite) and isinstance(model._meta.primary_key, AutoField):
            _lead_past(name)
    # Nobody has watched the clock between the two databases: retention begins anew.
    SchemaVersion.update(moving=None, retention_since=None).execute()


def _lead_past(table: str) -> None:
    """Have PostgreSQL's sequence give ids behind those that are there."""
    highest = f'SELECT coalesce(max(id), 0) + 1 FROM "{table}"'
    db.execute_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), ({highest}), false)")
