"""A reply as it is being worked out: the row as it will be stored, and what that rests on."""

import dataclasses
from typing import Any, Self

from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Status, Turn, outcome_of
from tables.ledger import MOST_TOKENS, OTHER, TOKENS, Entry, estimate

LONG = 2**16  # characters of a text that is stored by a statement of its own

Tokens = dict[str, int | None]


@dataclasses.dataclass(eq=False)
class Draft:
    """The `turn` is the reply with the columns that it will have, and its session. Nothing of it is
    stored by being set here."""

    turn: Turn
    counted: Tokens  # those that its row is believed to have, and so the ledger
    # Of a reply that a person had continued: how many characters it had before. Else 0.
    base: int = 0
    trim: int | None = None  # what the session's is set to when the reply ends
    has_pieces: bool = True  # some of its text may be stored in pieces
    # The tokens that row and ledger may have besides, by a commit whose answer did not come.
    offered: Tokens | None = None
    thoughts: str = ""  # that are stored of it, if it goes on
    # Nothing has come since it was continued: the provider, or this server, has refused the model.
    is_refused: bool = False

    @classmethod
    def of(cls, turn: Turn, **columns: Any) -> Self:
        """The draft of a stored turn, with these columns in the place of its own."""
        changed = Turn(**turn.__data__ | {"session": turn.session} | columns)
        return cls(changed, turn.usage, turn.base)

    @property
    def counted_tokens(self) -> int:
        """The sum of the tokens that its row is believed to have. Tokens only grow, so an equal sum
        means equal tokens."""
        return sum(count or 0 for count in self.counted.values())

    @property
    def fence(self) -> int:
        return self.turn.fence or 0  # a reply of 1.0.0 has none

    @property
    def model(self) -> str:
        return str(self.turn.model)  # each reply has one

    @property
    def in_vain(self) -> bool:
        """Whether nothing has come since a person had it continued."""
        return self.base > 0 and self.base == len(self.turn.content)

    @property
    def outcome(self) -> Status:
        """What has become of what was last asked for, as the ledger counts it."""
        if self.in_vain and not self.turn.cancelled:
            return FAILED  # the row says how it ended before
        if self.turn.status == IN_PROGRESS:
            return INTERRUPTED  # its session is deleted, or another process ends it
        return Status(str(self.turn.status))

    def set(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self.turn, name, value)

    def column(self, name: str) -> Any:
        """What `queries.sql` stores in the column of this name. It does not store a long text."""
        if name in ("content", "search_text") and self.is_long:
            return None
        return self.counted_tokens if name == "counted_tokens" else getattr(self.turn, name)

    @property
    def is_long(self) -> bool:
        return len(self.turn.content) > LONG

    def entry_of_end(self) -> Entry:
        """The same as `entry`, and a reply that has ended so."""
        return self.entry()._replace(outcome=self.outcome)

    def entry(self) -> Entry:
        """The tokens that the ledger has not counted yet."""
        turn = self.turn
        tokens = [(turn.usage[name] or 0) - (self.counted[name] or 0) for name in TOKENS]
        # Any user may name what no provider knows: such a name is not kept, or measured. What an
        # imported reply has used says nothing of its name.
        is_unknown = turn.error_status == 400 and not any(turn.usage.values())
        model = OTHER if is_unknown or self.is_refused else self.model
        session = turn.session
        return Entry(turn.id, session.owner, session.updated_at, model, tokens)

    def estimate_rest(self) -> None:
        """Count what a process that died has not: what its last call was sent, and has written, as
        far as it is stored."""
        turn = self.turn
        size = len(turn.content.encode())
        tokens = turn.estimated_tokens + estimate(turn.uncounted + size)
        turn.estimated_tokens = min(tokens, MOST_TOKENS)
        turn.uncounted = -size

    def fallback(self) -> dict[str, Any]:
        """The columns of its end if nothing more comes: those of its last end, where nothing has
        come since it was continued."""
        turn = self.turn
        if not self.in_vain:
            return outcome_of(INTERRUPTED)
        continued = {"continued": turn.continued - turn.restarts - 1}
        if turn.stop_reason:
            return outcome_of(COMPLETE, stop_reason=turn.stop_reason) | continued
        if turn.error_status and not turn.cancelled:
            error = turn.error_status, turn.error_message, turn.retry_after, turn.error_pointer
            return outcome_of(FAILED, *error, stop_reason=turn.stop_reason) | continued
        return outcome_of(INTERRUPTED, stop_reason=turn.stop_reason) | continued
