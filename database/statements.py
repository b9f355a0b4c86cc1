"""Named SQL statements, read from a file: peewee takes longer to write them than the database to
execute them."""

import functools
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from peewee import SQL, Model

from database.connection import Engine, db

_QUERY = re.compile(r"^-- (\w+)\(([^)]*)\)\n(.+?);$", re.MULTILINE | re.DOTALL)


TEXTS = ("text", "content", "error_message", "system")  # columns with a {size_of_…} for statements


class Statement(NamedTuple):
    columns: dict[str, str]  # of the table `given`: name → type
    text: str


class Statements:
    """The statements of a file, by name. In the file, each follows a comment with its name and the
    columns of `given`, the table of rows that it is executed for:

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

    def given(
        self,
        name: str,
        rows: Sequence[Sequence[Any]],
        more: tuple[tuple[str, str], ...] = (),
        **values: Any,
    ) -> SQL:
        """The statement of this name for these rows, with these values for its {…}. `more` are
        columns (name, type) that the rows have in addition to those in the file.

        All rows together are one parameter, as JSON: with thousands, psycopg would search for each,
        and SQLite's driver would cache a statement of hundreds of kB for each number of rows. The
        LIMIT, a power of two, tells PostgreSQL's planner how many rows to expect: it would assume
        a hundred."""
        columns = [*self._statements[name].columns, *dict(more)]
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        most = 1 << (len(rows) - 1).bit_length()
        text = self._text(db.obj, name, most, more, **values)
        return SQL(text, [json.dumps(objects, ensure_ascii=False, default=str)])

    def plain(self, name: str, **values: Any) -> str:
        """The statement of this name, which has parameters instead of rows, with these values for
        its {…}."""
        return self._plain(db.obj, name, **values)

    def _fill_in(self, engine: Engine, name: str, **values: Any) -> str:
        sizes = {f"size_of_{text}": engine.size.format(text) for text in TEXTS}
        words = {"clock": engine.clock_sql, "concat": engine.concat, "row_lock": engine.row_lock}
        return self._statements[name].text.format(**words, **sizes, param=engine.param, **values)

    def _make_text(
        self, engine: Engine, name: str, most: int, more: tuple[tuple[str, str], ...], **values: Any
    ) -> str:
        columns = [*self._statements[name].columns.items(), *more]
        records, column = engine.records
        records = records.format(", ".join(column.format(*each) for each in columns))
        statement = self._fill_in(engine, name, **values)
        return f"WITH given AS MATERIALIZED (SELECT * FROM {records} LIMIT {most}) {statement}"


def _columns(text: str) -> dict[str, str]:
    """Name → type of `id bigint, fence bigint`, which may be spread over several lines."""
    return dict(column.split() for column in text.replace("--", "").split(",") if column.strip())


def insertion(*rows: Model) -> SQL:
    """An INSERT of these instances, all of one model, with the columns that any of them sets."""
    meta, given = rows[0]._meta, set().union(*(row.__data__ for row in rows))
    fields = [field for field in meta.sorted_fields if field.name in given]
    columns = ", ".join([field.column_name for field in fields])
    values = ", ".join([f"({', '.join([db.param] * len(fields))})"] * len(rows))
    statement = f"INSERT INTO {meta.table_name} ({columns}) VALUES {values}"
    params = [field.db_value(row.__data__.get(field.name)) for row in rows for field in fields]
    return SQL(statement, params)
