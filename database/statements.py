"""How a statement is built that peewee would take longer to write than the database to execute."""

import functools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from peewee import SQL, Model

from database.connection import Engine, db

_QUERY = re.compile(r"^-- (\w+)\(([^)]*)\)\n(.+?);$", re.MULTILINE | re.DOTALL)


TEXTS = ("text", "content", "model", "error_message")  # columns whose sizes statements ask for


class Statement(NamedTuple):
    columns: dict[str, str]  # of the table `given`, with their types
    text: str


class Statements:
    """The statements of a file, by name. Each stands behind its name and the columns of `given`,
    the table of what it is executed for:

        -- drop_pieces(id bigint)
        DELETE FROM piece WHERE turn_id IN (SELECT id FROM given);
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._statements = {
            name: Statement(_columns(columns), text)
            for name, columns, text in _QUERY.findall(path.read_text("utf-8"))
        }
        self._text = functools.lru_cache(1000)(self._make_text)
        self._plain = functools.lru_cache(self._fill_in)

    def columns(self, name: str) -> list[str]:
        return list(self._statements[name].columns)

    def given(self, name: str, rows: Sequence[Sequence[Any]], **values: Any) -> SQL:
        """The statement of this name for these rows, with these values in the place of {…}.

        All rows are one parameter: psycopg would look for each of thousands, and SQLite's driver
        keep hundreds of kB for each number of them. That they are at most so many, a power of two,
        is for PostgreSQL's planner, which would expect a hundred."""
        columns = self._statements[name].columns
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        most = 1 << (len(rows) - 1).bit_length()
        text = self._text(db.obj, name, most, **values)
        return SQL(text, [json.dumps(objects, ensure_ascii=False, default=str)])

    def plain(self, name: str, **values: Any) -> str:
        """The statement of this name, which takes parameters instead of rows, with these values in
        the place of {…}."""
        return self._plain(db.obj, name, **values)

    def _fill_in(self, engine: Engine, name: str, **values: Any) -> str:
        sizes = {f"size_of_{text}": engine.size.format(text) for text in TEXTS}
        words = {"clock": engine.clock_sql, "concat": engine.concat, "held": engine.held}
        return self._statements[name].text.format(**words, **sizes, param=engine.param, **values)

    def _make_text(self, engine: Engine, name: str, most: int, **values: Any) -> str:
        columns = self._statements[name].columns
        records, column = engine.records
        records = records.format(", ".join(column.format(*each) for each in columns.items()))
        statement = self._fill_in(engine, name, **values)
        return f"WITH given AS MATERIALIZED (SELECT * FROM {records} LIMIT {most}) {statement}"


def _columns(text: str) -> dict[str, str]:
    """The types by name of `id bigint, fence bigint`, which may stand on several lines."""
    return dict(column.split() for column in text.replace("--", "").split(",") if column.strip())


def insertion(*rows: Model) -> SQL:
    """The statement that inserts these instances of one model."""
    meta = rows[0]._meta
    values = ", ".join([f"({', '.join([db.param] * len(meta.columns))})"] * len(rows))
    statement = f"INSERT INTO {meta.table_name} ({', '.join(meta.columns)}) VALUES {values}"
    params = [
        field.db_value(row.__data__.get(field.name)) for row in rows for field in meta.sorted_fields
    ]
    return SQL(statement, params)
