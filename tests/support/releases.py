"""What release 1.0.0 does in a database, by SQL."""

import time
import uuid

from client import ALICE

SECOND = 1_000_000


LEASE = 20 * SECOND


def now():
    return time.time_ns() // 1000  # the database runs on this host


class Release100:
    """A process of release 1.0.0, which knows only its own columns. Its statements are 1.0.0's."""

    def __init__(self, old_tables):
        self.old_tables = old_tables

    def create(self, content, owner=ALICE, **options):
        """A session whose first reply is in progress: returns both their ids."""
        session_id, at = uuid.uuid4(), now()
        self.old_tables.insert(
            "session",
            id=session_id.hex,
            owner=owner,
            title=content,
            folded_title=content.lower(),
            title_is_users=False,
            model="m-1",
            created_at=at,
            updated_at=at,
        )
        return session_id, self.ask(session_id, content, **options)

    def ask(self, session_id, content, lease=LEASE):
        """A message, and its reply, whose lease ends so many microseconds from now; returns the
        reply's id."""
        at = now()
        self.old_tables.rows(
            "UPDATE session SET updated_at = ?, preview = NULL WHERE id = ?", at, session_id.hex
        )
        self._insert_turn(session_id, "user", content, at, folded=content.lower())
        return self._begin(session_id, at, lease)

    def retry(self, session_id, replaced, lease=LEASE):
        self.old_tables.rows("UPDATE turn SET shown = ? WHERE id = ?", False, replaced)
        return self._begin(session_id, now(), lease, replaces=replaced)

    def write(self, turn_id, *pieces):
        """Store these pieces of a reply, after those that it has."""
        start = self.old_tables.value(
            "SELECT coalesce(sum(length(text)), 0) FROM piece WHERE turn_id = ?", turn_id
        )
        for text in pieces:
            self.old_tables.insert("piece", turn_id=turn_id, start=int(start), text=text)
            start += len(text)

    def end(self, turn_id, status="complete", **columns):
        pieces = self.old_tables.rows(
            "SELECT text FROM piece WHERE turn_id = ? ORDER BY start", turn_id
        )
        content = "".join(text for (text,) in pieces)
        columns |= {
            "status": status,
            "content": content,
            "folded": content.lower(),
            "lease_until": None,
        }
        changes = ", ".join(f"{name} = ?" for name in columns)
        self.old_tables.rows(f"UPDATE turn SET {changes} WHERE id = ?", *columns.values(), turn_id)
        self.old_tables.rows("DELETE FROM piece WHERE turn_id = ?", turn_id)
        where = "WHERE id = (SELECT session_id FROM turn WHERE id = ?)"
        self.old_tables.rows(f"UPDATE session SET preview = ? {where}", content[:100], turn_id)

    def answered(self, content, *pieces, status="complete", **columns):
        """A session whose only reply has ended: returns both their ids."""
        session_id, turn_id = self.create(content)
        self.write(turn_id, *pieces)
        self.end(turn_id, status, **columns)
        return session_id, turn_id

    def _begin(self, session_id, at, lease, **columns):
        columns |= {
            "model": "m-1",
            "status": "in_progress",
            "lease_until": at + lease,
            "folded": "",
        }
        self._insert_turn(session_id, "assistant", "", at, **columns)
        return self.old_tables.value(
            "SELECT max(id) FROM turn WHERE session_id = ? AND status = 'in_progress'",
            session_id.hex,
        )

    def _insert_turn(self, session_id, kind, content, at, **columns):
        columns |= {
            "session_id": session_id.hex,
            "kind": kind,
            "content": content,
            "created_at": at,
        }
        self.old_tables.insert("turn", **columns, shown=True, cancelled=False)


def ids(turns):
    """The ids of turns as numbers; in JSON they are strings, since JavaScript would round such
    large numbers."""
    assert all(type(turn["id"]) is str for turn in turns), turns
    return [int(turn["id"]) for turn in turns]
