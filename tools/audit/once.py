"""An idempotency key has one outcome."""

import collections

from reading import Check

KEPT = 24 * 3600  # seconds


class Once(Check):
    def __init__(self, book, texts):
        super().__init__(book)
        self._texts = texts
        self._under = collections.defaultdict(list)  # (user, key) → the requests with it
        self._turns = {}  # op → the turn that its answer names

    def sent(self, op):
        if op.key and op.asks:
            self._under[op.user, op.key].append(op)

    def event(self, op, event):
        if op.key and event.turn:
            self._turns.setdefault(op.number, event.turn)

    def turn(self, op, turn):
        if op.key:
            self._turns.setdefault(op.number, turn["id"])

    def finish(self):
        self.book.counts["keys"] = len(self._under)
        for ops in self._under.values():
            first, *others = ops
            for op in others:
                self._check_request(first, op)
            same = [op for op in ops if request_of(op) == request_of(first)]
            if len(same) > 1:
                self.book.counts["keys that were sent twice"] += 1
                self._check_sessions(same)
                self._check_turns(same)

    def _check_request(self, first, op):
        """A key with another body is refused once its first request is known; with the same body,
        it never is."""
        is_other = request_of(first) != request_of(op)
        if is_other and first.is_kept and first.got < op.sent and op.is_kept:
            self.report("S-39", "a key is taken for another request", op, op.at)
        elif not is_other and op.status == 422:
            self.report("API, Idempotency-Key", "the same request is a 422", op, op.at)

    def _check_sessions(self, ops):
        sessions = {op.session for op in ops if op.session}
        if len(sessions) > 1:
            self.report("S-39", f"a key has the sessions {sessions}", ops[-1], ops[-1].at)

    def _check_turns(self, ops):
        """Another turn comes only if the reply before had failed, or was interrupted."""
        told = [op for op in ops if op.number in self._turns]
        for before, after in zip(told, told[1:], strict=False):
            old, new = self._turns[before.number], self._turns[after.number]
            if old != new and before.got < after.sent and self._is_settled(old):
                self.report("S-39", f"a key has the replies {old} and {new}", after, after.at)

    def _is_settled(self, id):
        reply = self._texts.replies[id]
        is_complete = reply.end is not None and reply.end["status"] == "complete"
        return is_complete or reply.cancelled >= 0


def request_of(op):
    """What the requests of a key are compared by."""
    body = {name: value for name, value in (op.body or {}).items() if value is not None}
    return op.path, body
