"""A stream of a deleted session does not come to the end of its reply."""

from book import LATE
from reading import Check


class Deletions(Check):
    def __init__(self, book, asked):
        super().__init__(book)
        self._asked = asked
        self._done = []  # (op, reply, line, at)

    def event(self, op, event):
        if event.name == "done":
            self._done.append((op, event.turn, self.book.line, self.book.at))

    def finish(self):
        for op, id, line, at in self._done:
            session = self.book.session(op.session)
            deletions = [other for other in session.of("delete") if other.status == 204]
            if deletions and deletions[0].got < line and not session.of("continue"):
                calls = self._asked.calls.get(self._asked.messages.get(id), [])
                calls = [call for call in calls if call.asked < line]
                if calls and self._outlasts(calls[-1], deletions[0], session):
                    sentence = f"the reply {id} is done in a session that was deleted"
                    self.report("S-22", sentence, op, at)

    def _outlasts(self, call, deletion, session):
        """Whether a reply was surely in progress when the deletion was sent, by its last call."""
        if call.said < deletion.sent:
            return False
        if call.is_whole:
            return call.ended_at > deletion.at + LATE
        is_cancelled = any(not op.is_refused for op in session.of("cancel"))
        return not is_cancelled and not self.book.is_faulty(call.at, deletion.at)
