"""Descriptions of columns: who sees a column, and where it is copied, exported or stored.

stop_reason = described(
    TextField(null=True),
    "Null unless complete.",
    shown="stop_reason",  # its name in the JSON of GET and `assistant_turn`
    exported=True,  # exports contain it, and imports accept it
    copied=True,  # a fork copies it
    at_end=True,  # the statement that ends a reply stores it
)
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import peewee

from database import SECOND

F = TypeVar("F", bound=peewee.Field)


class Description(NamedTuple):
    """The description of a column. A name in JSON may have a part: `usage.input_tokens`."""

    sentence: str = ""  # its description in openapi.json
    shown: str = ""  # its name in JSON; empty if clients do not see it
    # Exports contain it, and imports accept it: a text of up to 200 characters or a whole number,
    # unless `api/import_schema.py` says otherwise.
    exported: bool = False
    exported_as: str = ""  # its name in exports, if not `shown`
    copied: bool = False  # a fork copies it
    at_end: bool = False  # the statement that ends a reply stores it, whichever process ends it
    # Only the reply's writer knows it. It also stores it while the reply goes on, and after another
    # process has ended the reply by a cancel.
    told_late: bool = False
    of_messages: bool = False  # a user's message has it, too
    of_replies: bool = True  # a reply has it
    for_operator: bool = False  # only the person who runs the server sees it
    null: bool = False  # it may be null in JSON; `Part.null_without` says when a whole part is
    # It is null in JSON while the reply is in progress. A part is null if all its columns are.
    once_ended: bool = False
    # Converts the database's value to JSON. `schemas.py` has the type of the result.
    as_json: Callable[[Any], Any] | None = None
    document: dict[str, Any] = {}  # further keywords of its schema in openapi.json


NOTHING = Description()


def described(field: F, sentence: str = "", **what: Any) -> F:
    """The field, with a Description of these values. What is no field of Description becomes a
    keyword in `document`."""
    document = {name: what.pop(name) for name in list(what) if name not in Description._fields}
    field.description = Description(sentence, **what, document=document)
    return field


def described_for(model: type[peewee.Model], use: str) -> list[peewee.Field]:
    """The fields of a model whose descriptions have `use` set, such as "copied", in their order."""
    return [field for field in model._meta.sorted_fields if getattr(description_of(field), use)]


def description_of(field: peewee.Field) -> Description:
    return getattr(field, "description", NOTHING)


def listed(fields: Sequence[peewee.Field], form: str = "{}") -> str:
    """The columns of these fields, for a statement: separated by commas, each in this form."""
    return ", ".join(form.replace("{}", field.column_name) for field in fields)


def time_of(microseconds: int) -> str:
    """A time in RFC 3339, in UTC, to the second: `2026-03-06T16:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(microseconds // SECOND))


def seconds_of(milliseconds: int) -> float:
    return round(milliseconds / 1000, 1)
