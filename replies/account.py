"""The tokens that one reply has used, and which of them its row and the ledger have counted."""

from collections.abc import Sequence

from models import Turn
from providers.answer import Answer
from tables.ledger import MOST_TOKENS, REPORTED, TOKENS, estimate

Tokens = dict[str, int | None]


class Account:
    """The tokens of one reply, which are in three places:

    - `used`: all that its calls have used. These are columns of the turn in memory, which the next
      commit stores.
    - `counted`: what we assume that the row in the database, and so the ledger, has.
    - `maybe_counted`: what both have instead, if a commit that was not answered has come through.

    One transaction sets the row to `used` and adds what the ledger lacks, `used` minus `counted`,
    on the condition that the row has as many tokens as `counted`. Tokens only grow, so an equal sum
    means equal tokens. If an earlier commit has come through after all, the condition fails, and
    the keeper reads the row. So each token is counted once.

    For example, a provider reports 90 tokens of input, then 20 of output:

        event                                       used  counted  maybe_counted  row  ledger
        the input is reported                         90        0                   0       0
        a commit                                      90       90                  90      90
        the output is reported                       110       90                  90      90
        a commit, which is not answered              110       90            110  110     110
        the next commit: its condition fails         110       90            110  110     110
        the row is read                              110      110            110  110     110

    If the session is deleted before the row is read, we assume that the ledger has `maybe_counted`.

    Tokens that a provider does not report are estimated when its call is over. In case the process
    dies before that, the row has `unbilled_bytes`: the bytes that were sent with the call, minus
    those of the text before the call. The process that takes the reply over adds the bytes of the
    stored text, and estimates the sum (`estimate_rest`).
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.counted: Tokens = turn.usage
        self.maybe_counted: Tokens | None = None
        self._before: Tokens = turn.usage  # used by processes before this one

    @property
    def used(self) -> Tokens:
        return self._turn.usage

    @property
    def uncounted(self) -> list[int]:
        """For each kind in TOKENS, how many the ledger has not counted yet."""
        return [(self.used[name] or 0) - (self.counted[name] or 0) for name in TOKENS]

    @property
    def counted_tokens(self) -> int:
        return sum(count or 0 for count in self.counted.values())

    # Using tokens

    def add_up(self, answers: Sequence[Answer], finished: Sequence[Answer]) -> None:
        """Set `used` to the tokens of these answers and of earlier writers: those that providers
        have reported and, for the `finished` answers, an estimate of the rest. It never falls
        below `counted`, even if a provider lowers its figures. Leave out an answer that another
        process may read again: it would be counted twice."""
        for name in REPORTED:
            reported = [answer.usage[name] for answer in answers if name in answer.usage]
            if reported:
                self._set(name, sum(reported))
        self._set(
            "estimated_tokens", sum(estimate(sum(each.unbilled_bytes())) for each in finished)
        )

    def _set(self, name: str, tokens: int) -> None:
        count = min((self._before[name] or 0) + tokens, MOST_TOKENS)
        setattr(self._turn, name, max(count, self.counted[name] or 0))

    def note_unbilled(self, answer: Answer, text: str, text_before: str, is_kept: bool) -> None:
        """Set `unbilled_bytes` from this answer, which is not over. `text_before` is the part of
        the text that is older than this answer. `is_kept`: the answer is left out of `used`."""
        sent = answer.prompt if is_kept else answer.unbilled_bytes()[0]
        is_billed = "output_tokens" in answer.usage and not is_kept
        self._turn.unbilled_bytes = sent - len((text if is_billed else text_before).encode())

    def estimate_rest(self) -> None:
        """Estimate, from the text that a writer has stored, the tokens that it has not counted."""
        size = len(self._turn.content.encode())
        tokens = self._turn.estimated_tokens + estimate(self._turn.unbilled_bytes + size)
        self._turn.estimated_tokens = min(tokens, MOST_TOKENS)
        self._turn.unbilled_bytes = -size
        self._before = self.used

    # Counting tokens

    def mark_counted(self, used: Tokens) -> None:
        """Note that a commit has stored these tokens."""
        self.counted, self.maybe_counted = used, None

    def mark_counted_late(self, row: Turn | None) -> None:
        """Note which tokens of a reply are counted after a request has ended it. `row` is its row,
        None if the row was deleted."""
        if row is None:
            self.counted = self.maybe_counted or self.counted
            return
        self.counted = row.usage
        for name, count in row.usage.items():
            if count:
                setattr(self._turn, name, max(count, self.used[name] or 0))
