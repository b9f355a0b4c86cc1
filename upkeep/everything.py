"""The file by which everything moves from one database to another, line by line:

    {"parley": 3, "everything": true, "id": "5c1…", "exported_at": "2026-11-30T12:00:00Z"}
    {"release": {"secret": "0f7…", "retention_days": 90, "retention_since": 1796040000000000}}
    {"session": {"id": "8b6…", "owner": "https://github.com/alice", …}}
    {"end": true, "rows": {"release": 1, "session": 1, …}}

Behind the header each line is a row, under the name of its table, with all columns of its model,
and rows come behind those that they name. Without its last line, a file is not whole.
"""

import collections
import functools
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from peewee import (
    BigAutoField,
    BigIntegerField,
    BooleanField,
    Field,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
    UUIDField,
)

from database import SchemaVersion
from models import OptionsField, Piece
from settings import command
from upkeep.migrations import TABLES
from wire import UNSTORABLE

FORMAT = 3  # also of a user's export
READABLE = (2, 3)  # 2 has no thinking
MODELS: dict[str, type[Model]] = {
    model._meta.table_name: model for model in TABLES if model is not Piece
}
# What each database says of itself.
OWN_COLUMNS = {SchemaVersion: {"id", "migrations", "moving"}}
LONGEST_HEADER = 1000  # bytes
LONGEST_LINE = 2**28  # a message of 32 MB, what is searched of it, and all of that escaped


class NotMoved(Exception):
    """Why everything could not be written, or read: a sentence for the person who wants it."""


class Row(NamedTuple):
    number: int  # of its line
    size: int  # bytes of its line
    model: type[Model]
    values: dict[str, Any]  # by the names of fields


def fields_of(model: type[Model]) -> list[Field]:
    """Those that are moved."""
    own = OWN_COLUMNS.get(model, set())
    return [field for field in model._meta.sorted_fields if field.column_name not in own]


# Writing


def header(file_id: str, exported_at: str) -> bytes:
    return _line({"parley": FORMAT, "everything": True, "id": file_id, "exported_at": exported_at})


def row(name: str, columns: dict[str, Any]) -> bytes:
    return _line({name: columns})


def end(counts: dict[str, int]) -> bytes:
    return _line({"end": True, "rows": counts})


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode() + b"\n"


# Reading


class Source:
    """A file of everything. Raises NotMoved, also while it is read, where it is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        with open(path, "rb") as file:
            if not file.seekable():
                raise NotMoved(f"{path} is a pipe, and it is read twice. Name a file.")
            self.id = self._read_header(file)

    def counts(self) -> dict[str, int]:
        """How many rows of each table there are, once all of them were read, and are right."""
        counts = dict.fromkeys(MODELS, 0)
        for each in self.rows():
            counts[each.model._meta.table_name] += 1
        return counts

    def rows(self) -> Iterator[Row]:
        """All rows, read as they are wanted."""
        counts: collections.Counter[str] = collections.Counter()
        with open(self.path, "rb") as file:
            self._read_header(file)
            number = 1
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                name, content = self._parse(number, line)
                if name == "end":
                    self._check_end(number, content, counts, file)
                    return
                counts[name] += 1
                model = MODELS[name]
                yield Row(number, len(line), model, self._values(number, model, content))
        raise NotMoved(
            f"{self.path} is not whole: it ends with line {number}, and its last one is lacking. "
            "Export it anew."
        )

    def _read_header(self, file: BinaryIO) -> str:
        """The file's id."""
        content = _load(file.readline(LONGEST_HEADER))
        if not isinstance(content, dict) or "parley" not in content:
            raise NotMoved(f"{self.path} was not written by `{command()} export --all`.")
        if not content.get("everything"):
            raise NotMoved(
                f"{self.path} has the chats of one person. `{command()} import FILE SUBJECT` "
                "takes it."
            )
        if content["parley"] not in READABLE:
            raise NotMoved(f"{self.path} was written by another release of Parley. Install that.")
        if not _is_text(content.get("id")):
            raise self._wrong(1, "has no right id")
        return content["id"]

    def _parse(self, number: int, line: bytes) -> tuple[str, Any]:
        """The name of the row's table, or "end", and its content."""
        content = _load(line) if len(line) <= LONGEST_LINE else None
        if isinstance(content, dict) and content.get("end") is True:
            return "end", content.get("rows")
        if not isinstance(content, dict) or len(content) != 1:
            raise self._wrong(number, "is damaged: it is no row in JSON")
        [(name, columns)] = content.items()
        if name not in MODELS or not isinstance(columns, dict):
            raise self._wrong(number, "has no row of a table that this release knows")
        return name, columns

    def _values(self, number: int, model: type[Model], columns: dict[str, Any]) -> dict[str, Any]:
        """The values by their fields. A column that is lacking, of an older release, has what a
        new row has there."""
        table, values = model._meta.table_name, {}
        for column, name, is_right, is_needed in _columns_of(model):
            if column in columns:
                value = values[name] = columns[column]
                if not is_right(value):
                    raise self._wrong(number, f"has no right {column} of a {table}")
            elif is_needed:
                raise self._wrong(number, f"has no {column} of a {table}")
        if not values:
            raise self._wrong(number, f"has no column of a {table}")
        if len(values) < len(columns):
            raise self._wrong(number, f"has a column of a {table} that this release does not know")
        return values

    def _check_end(
        self, number: int, told: Any, counts: collections.Counter[str], file: BinaryIO
    ) -> None:
        if not isinstance(told, dict) or collections.Counter(told) != counts:
            raise NotMoved(
                f"{self.path} is not whole: its last line, {number}, tells of other rows than "
                "those before it. Export it anew."
            )
        if file.read(1):
            raise self._wrong(number + 1, "stands behind the end")

    def _wrong(self, number: int, problem: str) -> NotMoved:
        return NotMoved(f"Line {number} of {self.path} {problem}.")


def _load(line: bytes) -> Any:
    """What this JSON says; None where it is none."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


# Values


class Column(NamedTuple):
    name: str
    field: str
    is_right: Callable[[Any], bool]  # whether both engines can have this value there
    is_needed: bool


@functools.cache
def _columns_of(model: type[Model]) -> list[Column]:
    """Those that are moved."""
    return [
        Column(
            field.column_name,
            field.name,
            _check_of(field),
            is_needed=not field.null and field.default is None,
        )
        for field in fields_of(model)
    ]


def _check_of(field: Field) -> Callable[[Any], bool]:
    kept = field.rel_field if isinstance(field, ForeignKeyField) else field
    check = next(check for kind, check in _CHECKS if isinstance(kept, kind))
    return (lambda value: value is None or check(value)) if field.null else check


def _is_integer(bits: int) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return type(value) is int and -(1 << bits) <= value < 1 << bits

    return check


def _is_text(value: Any) -> bool:
    """Neither NUL, which PostgreSQL does not take, nor half of a character."""
    return isinstance(value, str) and not UNSTORABLE.search(value)


def _is_uuid(value: Any) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except (ValueError, AttributeError, TypeError):
        return False


# The first that a field is of.
_CHECKS: list[tuple[type[Field] | tuple[type[Field], ...], Callable[[Any], bool]]] = [
    (BooleanField, lambda value: isinstance(value, bool)),
    ((BigIntegerField, BigAutoField), _is_integer(63)),
    (IntegerField, _is_integer(31)),
    (UUIDField, _is_uuid),
    (OptionsField, lambda value: isinstance(value, dict)),
    (TextField, _is_text),
]
