"""The turns of a session as clients see them: read in pages, and as JSON.

A page has a limit in bytes, but always has at least one turn. All texts count, including labels and
errors. The statement does not read the contents of turns that do not fit. Rows are named tuples,
which are cheaper than a model instance for each.
"""

import collections
import operator
from collections.abc import Callable, Iterator
from typing import Any

import peewee

from database import db
from models import IN_PROGRESS, LONGEST_PAGE, Missing, Session, Turn
from tables import statements
from tables.columns import described_for, description_of, listed

READ_ROWS, READ_SIZE = 256, 2**20  # turns, and bytes, in a page if all turns are read
OVERHEAD = 400  # bytes of a turn's JSON besides its texts, mostly the names of fields
LAST = 2**63 - 1  # an id after all others
MANY = 2**31  # more turns than a session has

# The conditions of visible turns, and of those that others have replaced.
VISIBLE, REPLACED = "shown", "NOT shown AND status = 'complete'"

# The content is an expression in the statement, and its last column.
_COLUMNS = [column for column in described_for(Turn, "shown") if column is not Turn.content]
_TEXTS = [column for column in _COLUMNS if isinstance(column, peewee.TextField)]
_Row: Any = collections.namedtuple(
    "_Row", [*(column.name for column in _COLUMNS), "of_all", "size_of_all", "content"]
)


class ShownTurn(_Row):
    """A visible turn, with the columns that clients see. The content of a reply in progress is its
    stored text."""

    __slots__ = ()

    id: int
    kind: str
    created_at: int
    of_all: int  # how many rows the statement looked at for this page
    size_of_all: int  # the bytes of these
    content: str  # None if it was too long to read


# Pages


def read_page(
    session: Session,
    limit: int = MANY,
    before: int = LAST,
    most: int = LONGEST_PAGE,
    most_of_one: int = LAST,
) -> "Page":
    """The newest visible turns of this session, before the id `before`: at most `limit`, with at
    most `most` bytes together, but at least one. The content of the newest is not read if it alone
    has more than `most_of_one` bytes. Raises Missing if the session has been deleted."""
    limits = before, limit + 1, limit, most
    turns = _read_turns(VISIBLE, "<", "DESC", most_of_one, session.key, *limits)
    if not turns and before == LAST:
        raise Missing("The session was deleted.")
    return Page(turns, limit)


def read_versions(session: Session, turn: Turn, most: int = LAST) -> "Page":
    """The versions of this visible turn: all, or as many of the newest as have at most `most` bytes
    together."""
    limits = turn.id, turn.versions, turn.versions, most
    return Page(_read_turns(REPLACED, "<", "DESC", most, session.key, *limits), turn.versions)


class Page:
    """Turns of a session, oldest first."""

    def __init__(self, newest_first: list[ShownTurn], limit: int) -> None:
        first = newest_first[0] if newest_first else None
        self.turns = newest_first[::-1]
        self.has_more = first is not None and first.of_all > len(newest_first)
        is_unread = first is not None and first.content is None
        # Whether turns were left out because of their size, or the newest was not read.
        self.is_cut = is_unread or (self.has_more and len(newest_first) < limit)
        self.size_of_all = first.size_of_all if first else 0  # bytes, with turns left out


def pages_before(session_id: str, turn_id: int) -> Iterator[list[ShownTurn]]:
    """All turns before this one, the newest first, in pages that are read one by one as the caller
    needs them. `session_id` is the id as the database stores it, here and below."""
    return _pages("<", "DESC", session_id, turn_id)


def pages_of(session_id: str) -> Iterator[list[ShownTurn]]:
    """All turns, the oldest first, in pages that are read one by one."""
    return _pages(">", "ASC", session_id, -1)


def size_of_newest(session_id: str) -> int:
    """The bytes of the texts of the newest visible turn."""
    row = db.execute_sql(statements.plain("size_newest_turn"), (session_id,)).fetchone()
    return int(row[0]) if row else 0


def size_of_all(session_id: str) -> int:
    """The bytes of all visible turns, without a reply in progress."""
    statement = statements.plain("size_turns", overhead=OVERHEAD)
    return int(db.execute_sql(statement, (session_id,)).fetchone()[0])


def count_before(session_id: str, turn_id: int) -> int:
    """How many turns there are before this one."""
    (count,) = db.execute_sql(statements.plain("count_turns"), (session_id, turn_id)).fetchone()
    return int(count)


def _pages(side: str, order: str, session_id: str, beyond: int) -> Iterator[list[ShownTurn]]:
    limits = READ_ROWS, READ_ROWS, READ_SIZE
    has_more = True
    while has_more and (
        page := _read_turns(VISIBLE, side, order, LAST, session_id, beyond, *limits)
    ):
        yield page
        has_more = page[0].of_all == READ_ROWS or page[0].of_all > len(page)
        beyond = page[-1].id


def _read_turns(
    which: str, side: str, order: str, most_of_one: int, *params: str | int
) -> list[ShownTurn]:
    sizes = (db.size.format(column.column_name) for column in _TEXTS)
    statement = statements.plain(
        "read_turns",
        columns=listed(_COLUMNS, "turn.{}"),
        size_of_others=" + ".join(f"coalesce({size}, 0)" for size in sizes),
        which=which,
        side=side,
        order=order,
        overhead=OVERHEAD,
    )
    rows = db.execute_sql(statement, (most_of_one, *params)).fetchall()
    return [ShownTurn._make(row) for row in rows]


# JSON


class TurnJSON:
    """Dumps turns to JSON and loads them, by the descriptions of their columns. `columns` has them
    by their paths in JSON, such as `usage.input_tokens`."""

    def __init__(self, columns: dict[str, peewee.Field]) -> None:
        self.columns = columns
        parts: dict[str, dict[str, peewee.Field]] = {}
        for path, column in columns.items():
            name, _, key = path.partition(".")
            parts.setdefault(name, {})[key] = column
        self._parts = parts
        makers = [(name, *_maker_of_name(name, part)) for name, part in parts.items()]

        def those(use: str) -> list[tuple[str, Callable[[Any], Any], bool]]:
            return [
                each
                for each, part in zip(makers, parts.values(), strict=True)
                if any(getattr(description_of(column), use) for column in part.values())
            ]

        self._of_messages, self._of_replies = those("of_messages"), those("of_replies")

    def dump(self, turn: Any) -> dict[str, Any]:
        """The JSON of this turn, a Turn or a ShownTurn."""
        if turn.kind == "user":
            return {name: make(turn) for name, make, _ in self._of_messages}
        # The row of a continued reply still has how it ended before.
        has_ended = turn.status != IN_PROGRESS
        return {
            name: make(turn) if has_ended or not once_ended else None
            for name, make, once_ended in self._of_replies
        }

    def load(self, json: dict[str, Any]) -> dict[str, Any]:
        """The values of this JSON of a turn, by the names of their columns."""
        found = {}
        for name, columns in self._parts.items():
            part = json.get(name)
            for key, column in columns.items():
                value = part.get(key) if key and part is not None else part
                if value is not None:
                    found[column.name] = value
        return found


def _maker_of_name(
    name: str, columns: dict[str, peewee.Field]
) -> tuple[Callable[[Any], Any], bool]:
    """A function from a turn to the value of this name in its JSON, and whether the value is null
    until the reply has ended. `columns` has one column for the name itself under "", or one for
    each key of a part."""
    makers = {key: _value_maker(column) for key, column in columns.items()}
    once_ended = all(description_of(column).once_ended for column in columns.values())
    if "" in makers:
        return makers[""], once_ended
    decisive = Turn.PARTS[name].null_without

    def make(turn: Any) -> dict[str, Any] | None:
        if decisive and getattr(turn, decisive) is None:
            return None
        return {key: make_value(turn) for key, make_value in makers.items()}

    return make, once_ended


def _value_maker(column: peewee.Field) -> Callable[[Any], Any]:
    get, as_json = operator.attrgetter(column.name), description_of(column).as_json
    return (lambda turn: as_json(get(turn))) if as_json else get


SHOWN = TurnJSON(
    {
        description_of(each).shown: each
        for each in described_for(Turn, "shown")
        if not description_of(each).for_operator
    }
)
EXPORTED = TurnJSON(
    {
        description_of(each).exported_as or description_of(each).shown: each
        for each in described_for(Turn, "exported")
    }
)


def dump(turn: Any, for_operator: bool) -> dict[str, Any]:
    """A turn as clients see it. The operator also gets the reason of a failure."""
    dumped = SHOWN.dump(turn)
    if for_operator and dumped.get("error") and turn.error_reason:
        dumped["error"]["reason"] = turn.error_reason
    return dumped
