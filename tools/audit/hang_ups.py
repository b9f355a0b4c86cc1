"""Parley hangs up on a model whose text is no longer wanted: after a cancel, or if another process
continues.
"""

from book import LATE
from reading import NEVER, Check

CANCELLED, TAKEN_OVER = 1, 5  # seconds, as the protocol says
REACHED = {"clock"}  # faults during which each process still reaches the database


class HangUps(Check):
    def __init__(self, book, texts, asked):
        super().__init__(book)
        self._texts, self._asked = texts, asked
        self._calls = {}  # those in progress → until when each may be, and by which promise
        self._streams = {}  # those that have sent something → the same

    def called(self, call):
        """A call for a reply takes it over from the call before."""
        message, until = self._asked.message_of(call), self.book.at + TAKEN_OVER + LATE
        for other, limit in self._calls.items():
            if message is not None and self._asked.message_of(other) == message:
                self._calls[other] = min(limit, (until, "S-37"))
        self._calls[call] = NEVER, ""

    def said(self, call):
        self._check(call, *self._calls.pop(call))

    def event(self, op, event):
        self._streams.setdefault(op, (NEVER, ""))
        if event.name in ("done", "error"):
            self._check(op, *self._streams.pop(op))

    def closed(self, op):
        self._streams.pop(op, None)

    def answered(self, op):
        """A cancel has been answered: all calls that were in progress then end."""
        if op.kind != "cancel" or op.status != 200:
            return
        until = self.book.at + CANCELLED + LATE
        for call, (limit, _) in self._calls.items():
            sessions = {other.session for other in self._asked.ops_of(call)}
            if sessions == {op.session} and call.asked < op.sent and limit == NEVER:
                self._calls[call] = until, "S-42"
        for stream in self._streams:
            reply = self._texts.streams[stream.number].reply
            if reply and reply.id == op.answer["id"] and stream.got < op.sent:
                self._streams[stream] = min(self._streams[stream], (until, "S-42"))

    def finish(self):
        """Calls that have not ended."""
        for call, limit in self._calls.items():
            self._check(call, *limit)

    def _check(self, where, until, promise):
        if self.book.at > until and not self._is_excused(where):
            self.report(promise, f"it goes on for {self.book.at - until + LATE:.1f} s", where)

    def _is_excused(self, where):
        """By any fault during which a process may not reach the database, where it learns that its
        reply is no longer wanted."""
        names = {name for name, *_ in self.book.faults} - REACHED
        return self.book.is_faulty(where.at, self.book.at, names)
