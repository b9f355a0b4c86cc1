"""The draft of a reply: the row as it is to be stored, and the other data that a commit needs."""

import dataclasses
from typing import Any, Self

from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Status, Turn, outcome_of
from replies.account import Account
from tables.ledger import OTHER, Entry

LONG = 2**16  # characters; a longer text is stored by a statement of its own


@dataclasses.dataclass(eq=False)
class Draft:
    """`turn` is the reply, with its session, and with columns as they are to be stored. Setting
    them here stores nothing. The tokens are in `account`."""

    turn: Turn
    context_start: int | None = None  # the session gets it when the reply ends
    has_pieces: bool = True  # some of its text may be stored as pieces
    thoughts: str = ""  # stored by earlier writers
    # The last continuation was refused with 400, for example because of an unknown model, and
    # brought no text.
    is_refused: bool = False
    # The restarts, 0 or 1, by which this process has taken the reply over without counting that.
    uncounted_restarts: int = 0

    def __post_init__(self) -> None:
        self.account = Account(self.turn)

    @classmethod
    def of(cls, turn: Turn, **columns: Any) -> Self:
        """A draft of a copy of this turn, with these columns changed."""
        changed = Turn(**turn.__data__ | {"session": turn.session} | columns)
        changed.base = turn.base
        return cls(changed)

    def copy(self) -> Self:
        """A copy for a commit, which no other thread changes meanwhile."""
        copy = type(self).of(self.turn)
        copy.account.counted = self.account.counted
        return copy

    @property
    def fence(self) -> int:
        return self.turn.fence or 0  # a reply of 1.0.0 has none

    @property
    def model(self) -> str:
        return str(self.turn.model)  # null only in user turns

    @property
    def no_progress(self) -> bool:
        """Whether no text has come since the last continuation."""
        return 0 < self.turn.base == len(self.turn.content)

    @property
    def outcome(self) -> Status:
        """The outcome of the last request or continuation, as the ledger counts it."""
        if self.no_progress and not self.turn.cancelled:
            return FAILED  # the row keeps its earlier status
        if self.turn.status == IN_PROGRESS:
            return INTERRUPTED  # its session is deleted, or another process ends it
        return Status(str(self.turn.status))

    def set(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self.turn, name, value)

    def column(self, name: str) -> Any:
        """The value of this column in the table `given` of a statement of `queries.sql`. None for a
        long text."""
        if name in ("content", "search_text") and self.is_long:
            return None
        return self.account.counted_tokens if name == "counted_tokens" else getattr(self.turn, name)

    @property
    def is_long(self) -> bool:
        return len(self.turn.content) > LONG

    def entry_of_end(self) -> Entry:
        """Like `entry`, but it also counts the reply, by its outcome."""
        return self.entry()._replace(outcome=self.outcome)

    def entry(self) -> Entry:
        """An entry of the ledger with the tokens that it has not counted yet."""
        turn = self.turn
        # Users may send any string as a model's name. One that was refused, and has used nothing,
        # does not become a name in the ledger or in metrics. If the last continuation was refused,
        # the usage may be that of an imported reply, so it does not show that the model exists.
        is_unknown = turn.error_status == 400 and not any(turn.usage.values())
        model = OTHER if is_unknown or self.is_refused else self.model
        session = turn.session
        return Entry(turn.id, session.owner, session.updated_at, model, self.account.uncounted)

    def fallback(self) -> dict[str, Any]:
        """How the reply ends if no more text comes, as columns. It is interrupted; but if it was
        continued and no text has come since, it ends as it had before that continuation."""
        turn = self.turn
        if not self.no_progress:
            return outcome_of(INTERRUPTED)
        continued = {"continued": turn.continued - turn.restarts - 1}
        if turn.stop_reason:
            return outcome_of(COMPLETE, stop_reason=turn.stop_reason) | continued
        if turn.error_status and not turn.cancelled:
            error = turn.error_status, turn.error_message, turn.retry_after, turn.error_pointer
            outcome = outcome_of(FAILED, *error, turn.error_reason, stop_reason=turn.stop_reason)
            return outcome | continued
        return outcome_of(INTERRUPTED, stop_reason=turn.stop_reason) | continued
