"""If the model said everything, and all of it was read, the reply has not failed."""

from reading import Check, replies_in


class Failures(Check):
    def __init__(self, book, asked):
        super().__init__(book)
        self._asked = asked
        self._told = {}  # (message, op) → (the line before which it had failed, at)

    def answered(self, op):
        for message, reply in replies_in(op.turns):
            if reply["status"] == "failed":
                self._told[message["content"], op] = op.sent, self.book.at
        if op.status in (502, 503, 504) and op.is_kept:
            self._take_failure(op)

    def event(self, op, event):
        if event.name == "error" and event.data["status"] not in (404, 500):
            self._take_failure(op)

    def _take_failure(self, op):
        if op.content is not None:
            self._told[op.content, op] = self.book.line, self.book.at

    def finish(self):
        for (content, op), (line, at) in self._told.items():
            self._check(content, op, line, at)

    def _check(self, content, op, line, at):
        """The last call for a message shows how the visible reply ended."""
        calls = [call for call in self._asked.calls.get(content, []) if call.asked < line]
        if calls and calls[-1].said < line and self._is_all(calls[-1], content, op):
            self.report("S-5", f"a reply failed of which {calls[-1]} had said all", op, at)

    def _is_all(self, call, content, op):
        """Whether it says something new, which was surely read for this session."""
        is_new = bool(call.text.strip()) and not self._asked.so_far(call).endswith(call.text)
        is_its = self._asked.sessions_of(content) == {op.session}
        return is_new and is_its and self._asked.is_read(call)
