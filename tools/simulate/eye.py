"""What the database has, read after each commit on a connection without faults."""

import collections
import dataclasses
import sqlite3
from typing import Any, NamedTuple

from model.steps import lease_of

TABLES = ("piece", "turn", "session", "key", "asked", "usage")  # these are emptied before a run
TURNS = """
SELECT id, session_id, status, fence, lease_until, restarts, cancelled, shown, content, replaces,
    writer, stop_reason,
    coalesce(input_tokens, 0), coalesce(output_tokens, 0), coalesce(cached_tokens, 0),
    estimated_tokens
FROM turn
WHERE kind = 'assistant'
ORDER BY id
"""
PIECES = "SELECT turn_id, start, text FROM piece ORDER BY turn_id, start"
MESSAGES = "SELECT session_id, content FROM turn WHERE kind = 'user' ORDER BY id"
SESSIONS = "SELECT id, owner, title FROM session"
LEDGER = """
SELECT coalesce(sum(replies), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
    coalesce(sum(cached_tokens), 0), coalesce(sum(estimated_tokens), 0)
FROM usage
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A reply, with the names that tools/model uses for its columns."""

    id: int
    session_id: str
    status: str
    fence: int
    lease: str | int
    restarts: int
    is_cancelled: bool
    is_shown: bool
    text: str
    replaces: int | None
    writer: str | None
    stop_reason: str | None
    used: tuple[int, ...]  # input, output, cached, estimated
    has_hole: bool  # a piece does not begin where the one before ends

    @property
    def use(self) -> int:
        return sum(self.used)


class Seen(NamedTuple):
    """All of it at one time."""

    rows: dict[int, Row]
    owners: dict[str, str]  # by session
    titles: dict[str, str]


class Eye:
    """If a failover is possible, it keeps what was stored before the last commits."""

    def __init__(self, file: Any) -> None:
        """`file` is a connection to either engine, on which each statement is committed."""
        self.file = file
        self.may_keep = isinstance(file, sqlite3.Connection)
        self.past: collections.deque[sqlite3.Connection] = collections.deque()
        self.keeps = 0  # commits that may be taken back

    def empty(self) -> None:
        self.file.execute("BEGIN")
        for table in TABLES:
            self.file.execute(f"DELETE FROM {table}")
        self.file.execute("COMMIT")
        self.past.clear()

    def look(self) -> Seen:
        pieces: dict[int, list[tuple[int, str]]] = {}
        for turn_id, start, text in self._rows(PIECES):
            pieces.setdefault(turn_id, []).append((start, text))
        rows = {row[0]: row_of(row, pieces.get(row[0], [])) for row in self._rows(TURNS)}
        sessions = [(str(name), owner, title) for name, owner, title in self._rows(SESSIONS)]
        owners = {name: owner for name, owner, _ in sessions}
        return Seen(rows, owners, {name: title for name, _, title in sessions})

    def messages(self) -> list[tuple[str, str]]:
        """All users' messages: the session, and the text."""
        return [(str(session), text) for session, text in self._rows(MESSAGES)]

    def ledger(self) -> tuple[int, ...]:
        """Replies, and the four kinds of tokens."""
        [row] = self._rows(LEDGER)
        return tuple(map(int, row))

    def _rows(self, sql: str) -> list[Any]:
        return self.file.execute(sql).fetchall()

    # What a failover takes back

    def keep(self) -> None:
        if not self.keeps:
            return
        copy = sqlite3.connect(":memory:")
        self.file.backup(copy)
        self.past.append(copy)
        if len(self.past) > self.keeps + 1:
            self.past.popleft().close()

    def take_back(self, commits: int) -> None:
        """What is stored now is the last one kept."""
        for _ in range(min(commits, len(self.past) - 1)):
            self.past.pop().close()
        self.past[-1].backup(self.file)


def row_of(columns: tuple[Any, ...], pieces: list[tuple[int, str]]) -> Row:
    number, session, status, fence, lease, restarts, cancelled, shown, text, *rest = columns
    replaces, writer, stop_reason, *used = rest
    has_hole = False
    if status == "in_progress":
        text = ""
        for start, piece in pieces:
            has_hole |= start != len(text)
            text += piece
    return Row(
        id=number,
        session_id=str(session),
        status=status,
        fence=fence or 0,
        lease=lease_of(lease),
        restarts=restarts,
        is_cancelled=bool(cancelled),
        is_shown=bool(shown),
        text=text,
        replaces=replaces,
        writer=writer,
        stop_reason=stop_reason,
        used=tuple(used),
        has_hole=has_hole,
    )
