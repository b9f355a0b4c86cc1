"""What is shown of a session's turns, read as named tuples: peewee would make a model of each row.

A page has the turns that have so many bytes together at most, but at least one. All their texts
count, also labels and errors. No text is read of those that are left out.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from database import SECOND, db
from tables import statements

READ_ROWS, READ_SIZE = 64, 2**20  # turns that are read at once, and bytes, if all are wanted
OVERHEAD = 400  # bytes of a turn's JSON besides its texts
LAST = 2**63 - 1  # an id behind all others


class ShownTurn(NamedTuple):
    """A visible turn. Of a reply under way, the text is what has been stored of it."""

    id: int
    kind: str
    created_at: int
    model: str | None
    status: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    error_status: int | None
    error_message: str | None
    error_pointer: str | None
    stop_reason: str | None
    continued: int
    turns_left_out: int
    thinking_characters: int | None
    thinking_milliseconds: int | None
    of_all: int  # how many the rows are that were looked at for this page
    size_of_all: int  # bytes of those
    content: str  # None if it was too long to be read

    @property
    def thinking(self) -> dict[str, Any] | None:
        return thinking_of(self)


def thinking_of(turn: Any) -> dict[str, Any] | None:
    """How much the model of a turn has thought, and for how long; None if it has not."""
    if turn.thinking_characters is None:
        return None
    seconds = round((turn.thinking_milliseconds or 0) / 1000, 1)
    return {"characters": turn.thinking_characters, "seconds": seconds}


def time_of(microseconds: int) -> str:
    """As RFC 3339 writes it, in UTC, with whole seconds: `2026-03-06T16:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(microseconds // SECOND))


def newest(
    session_id: str, before: int, rows: int, limit: int, most: int, most_of_one: int = LAST
) -> list[ShownTurn]:
    """Of the newest so many rows before this id, the newest: up to this limit, and so many bytes.
    If the newest alone has more bytes than `most_of_one`, its texts are not read. The id of the
    session is as the database has it."""
    return _read("<", "DESC", most_of_one, session_id, before, rows, limit, most)


def pages_before(session_id: str, turn_id: int) -> Iterator[list[ShownTurn]]:
    """All turns before this one, the newest first; in pages, read as they are wanted, so that no
    more texts are held than are."""
    return _pages("<", "DESC", session_id, turn_id)


def pages_of(session_id: str) -> Iterator[list[ShownTurn]]:
    """All turns, the oldest first; in pages, in the same way."""
    return _pages(">", "ASC", session_id, -1)


def size_of_newest(session_id: str) -> int:
    """The bytes of the texts of the newest turn that is shown."""
    row = db.execute_sql(statements.plain("size_newest_turn"), (session_id,)).fetchone()
    return int(row[0]) if row else 0


def size_of_all(session_id: str) -> int:
    """The bytes of all turns that are shown, without a reply in progress."""
    statement = statements.plain("size_turns", overhead=OVERHEAD)
    return int(db.execute_sql(statement, (session_id,)).fetchone()[0])


def count_before(session_id: str, turn_id: int) -> int:
    """How many turns there are before this one."""
    (count,) = db.execute_sql(statements.plain("count_turns"), (session_id, turn_id)).fetchone()
    return int(count)


def _pages(side: str, order: str, session_id: str, beyond: int) -> Iterator[list[ShownTurn]]:
    limits = READ_ROWS, READ_ROWS, READ_SIZE
    has_more = True
    while has_more and (page := _read(side, order, LAST, session_id, beyond, *limits)):
        yield page
        has_more = page[0].of_all == READ_ROWS or page[0].of_all > len(page)
        beyond = page[-1].id


def _read(side: str, order: str, most_of_one: int, *params: str | int) -> list[ShownTurn]:
    statement = statements.plain("read_turns", side=side, order=order, overhead=OVERHEAD)
    rows = db.execute_sql(statement, (most_of_one, most_of_one, *params)).fetchall()
    return [ShownTurn(*row) for row in rows]
