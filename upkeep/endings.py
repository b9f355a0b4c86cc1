"""Replies under way, in rows that are moved: as if they had ended there. In the database that is
left they stay what they are."""

from typing import Any, Self

from database import connected
from models import IN_PROGRESS, PREVIEW, Turn
from replies.draft import Draft
from tables.ledger import Usage
from tables.search import normalize
from upkeep.everything import fields_of

Columns = dict[str, Any]  # of a row, by their names
COUNTS = [field.column_name for field in Usage._meta.sorted_fields[3:]]


class Endings:
    """What becomes of sessions, turns and usage as replies are interrupted, as `end` in
    `replies/commits.py` has it. Turns come before usage."""

    def __init__(self, under_way: list[Turn]) -> None:
        self._shown = {turn.session_id: turn.replaces or turn.id for turn in under_way}
        self._shown_again = {turn.replaces for turn in under_way if turn.replaces}
        self._uncounted: dict[tuple[str, str, str], list[int]] = {}  # by owner, day and model

    @classmethod
    def read(cls) -> Self:
        with connected():
            columns = Turn.id, Turn.session, Turn.replaces
            return cls(list(Turn.select(*columns).where(Turn.under_way())))

    def change_session(self, session: Columns) -> Columns:
        """The preview is that of the reply that is shown, where it has text."""
        if session["id"] not in self._shown:
            return session
        with connected():
            shown = Turn.read(self._shown[session["id"]])
        preview = shown.content[:PREVIEW] if shown else ""
        return session | {"preview": preview or session["preview"]}

    def change_turn(self, turn: Columns) -> Columns:
        """A reply under way is interrupted, and one that it would have replaced is shown again."""
        if turn["id"] in self._shown_again:
            return turn | {"shown": True}
        if turn["status"] != IN_PROGRESS:
            return turn
        with connected():
            reply = Turn.read(turn["id"])
        assert reply is not None, "nobody else writes"
        draft = Draft.of(
            reply,
            search_text=normalize(reply.content),
            visible=reply.replaces is None,
            lease_until=None,
            fence=None,
            writer=None,
        )
        draft.set(**draft.fallback())
        draft.estimate_rest()
        entry = draft.entry_of_end()
        self._count((entry.owner, entry.day, entry.model), entry.counts)
        return {field.column_name: draft.turn.__data__[field.name] for field in fields_of(Turn)}

    def _count(self, key: tuple[str, str, str], counts: list[int]) -> None:
        known = self._uncounted.get(key, [0] * len(counts))
        self._uncounted[key] = [sum(pair) for pair in zip(known, counts, strict=True)]

    def change_usage(self, usage: Columns) -> Columns:
        """What interrupted replies have used is among it."""
        counts = self._uncounted.pop((usage["owner"], usage["day"], usage["model"]), None)
        if counts is None:
            return usage
        added = dict(zip(COUNTS, counts, strict=True))
        return usage | {name: usage[name] + count for name, count in added.items()}

    def rest_of_usage(self) -> list[Columns]:
        """What is left when all usage was changed: days on which an owner has used nothing else of
        a model."""
        rest = []
        for (owner, day, model), counts in sorted(self._uncounted.items()):
            key = {"owner": owner, "day": day, "model": model}
            rest.append(key | dict(zip(COUNTS, counts, strict=True)))
        return rest
