"""The tables of a server's database, by SQL alone: what no client can see, and what another release
does there.
"""

import contextlib
import sqlite3

import psycopg

# Without SQLite's own: the sequence of 1.0.0 is no longer used.
SQLITE_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"


class Tables:
    """A connection of the tests' own, which commits each statement. A `?` stands for a value on
    both engines."""

    def __init__(self, connection):
        self.connection = connection
        self.is_sqlite = isinstance(connection, sqlite3.Connection)

    def rows(self, sql, *values):
        cursor = self.connection.execute(sql if self.is_sqlite else sql.replace("?", "%s"), values)
        return list(cursor.fetchall()) if cursor.description else []

    def value(self, sql, *values):
        """The first column of the only row."""
        [row] = self.rows(sql, *values)
        return row[0]

    def key_of(self, session):
        """The id of this session as it is stored."""
        return session["id"].replace("-", "") if self.is_sqlite else session["id"]

    def insert(self, table, **columns):
        """Insert this row, as a release that knows only these columns does."""
        marks = ", ".join("?" * len(columns))
        self.rows(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", *columns.values())

    def fill(self, table, columns, rows):
        """Insert many rows, in this order."""
        names = ", ".join(columns)
        if self.is_sqlite:
            self.rows("BEGIN")
            self.connection.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", rows
            )
            self.rows("COMMIT")
        else:
            with self.connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    def run(self, script):
        """Run a file of statements."""
        self.connection.executescript(script) if self.is_sqlite else self.connection.execute(script)

    def columns(self):
        """All columns: (table, name, type, whether it may be null, default)."""
        if self.is_sqlite:
            tables = [name for (name,) in self.rows(SQLITE_TABLES)]
            return {
                (table, *row[1:5])
                for table in tables
                for row in self.rows(f"PRAGMA table_info({table})")
            }
        names = "table_name, column_name, data_type, is_nullable, column_default"
        return set(
            self.rows(
                f"SELECT {names} FROM information_schema.columns WHERE table_schema = 'public'"
            )
        )


@contextlib.contextmanager
def tables_of(url):
    """The tables of the database of this URL."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(
            url.removeprefix("sqlite:///"),
            timeout=10,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = 1")
    else:
        connection = psycopg.connect(url, autocommit=True)
    with contextlib.closing(connection):
        yield Tables(connection)


def lengthen(url, session, count):
    """Put so many turns before those of the session: `turn 0`, `turn 1`, and so on. Their numbers
    are lower than all others, also those of other sessions."""
    with tables_of(url) as tables:
        key = tables.key_of(session)
        first = tables.value("SELECT min(id) FROM turn")
        rows = (
            (
                first - count + number,
                key,
                kind,
                f"turn {number}",
                number,
                True,
                "m-1",
                "complete",
                False,
                f"turn {number}",
            )
            for number in range(count)
            for kind in [("user", "assistant")[number % 2]]
        )
        columns = (
            "id",
            "session_id",
            "kind",
            "content",
            "created_at",
            "shown",
            "model",
            "status",
            "cancelled",
            "folded",
        )
        tables.fill("turn", columns, rows)
