"""The model is asked as often as a reply was continued, and no more."""

from book import AFTERMATH
from reading import Check, replies_in

TRIES = 3  # for one call, at most, as long as no word has come
BACK = "promoted"  # the fault at which a database may lose that a reply was continued
TAKEOVERS = 2  # at one fault, at most, by processes that do not ask the model


class GoingsOn(Check):
    """It knows the replies that are visible in the end."""

    def __init__(self, book, asked):
        super().__init__(book)
        self._asked = asked

    def finish(self):
        for session in self.book.sessions.values():
            for message, reply in replies_in(session.turns):
                content = message["content"]
                if self._asked.sessions_of(content) == {session.id}:
                    self._check(session, content, reply)

    def _check(self, session, content, reply):
        calls = self._asked.calls.get(content, [])
        if calls and self._is_sole(session, content):
            self._check_calls(session, calls, reply)
        self._check_most(session, content, calls, reply)

    def _is_sole(self, session, content):
        """Whether it is the only reply to this message, and nobody continued it."""
        ops = [op for op in self._asked.requests(content) if not op.is_refused]
        return len(ops) == 1 and not self._count(session, content, "retry", "continue")

    def _count(self, session, content, *kinds):
        """The requests of these kinds that may be for the reply to this message."""
        ops = self._asked.requests(content)
        sent, passed = ops[0].sent, session.passed(min(op.got for op in ops))
        return sum(
            op.got > sent and op.sent < passed and not op.is_refused for op in session.of(*kinds)
        )

    def _check_calls(self, session, calls, reply):
        """After the first word, each further call is a resumption."""
        times = 1 + reply["continued"] + self._count_faults(calls, {BACK})
        told = sum(bool(call.text) for call in calls)
        if told > times or len(calls) > TRIES * times:
            sentence = (
                f"the model is asked {len(calls)} times, {told} of which brought words, for the "
                f"reply {reply['id']}, which went on {reply['continued']} times"
            )
            self.report("S-28", sentence, f"session {session.id}")

    def _check_most(self, session, content, calls, reply):
        """Each resumption is a call, except if it is cancelled, or its process is gone."""
        cancels = self._count(session, content, "cancel")
        most = max(0, len(calls) - 1) + cancels + TAKEOVERS * self._count_faults(calls)
        if reply["continued"] > most:
            sentence = f"the reply {reply['id']} went on {reply['continued']} times"
            sentence += f", and its model was asked {len(calls)} times"
            self.report("API, A turn", sentence, f"session {session.id}")
        limit = self.book.settings.get("CONTINUE_LIMIT")
        asked = self._count(session, content, "continue")
        if limit is not None and reply["continued"] > limit * (1 + asked) + asked:
            sentence = f"the reply {reply['id']} went on {reply['continued']} times"
            self.report("S-28", f"{sentence}, the limit is {limit}", f"session {session.id}")

    def _count_faults(self, calls, names=None):
        """The faults that may have affected a reply with these calls."""
        since = min((call.at for call in calls), default=0)
        ends = [call.ended_at or self.book.at for call in calls]
        until = max(ends, default=self.book.at) + AFTERMATH
        return self.book.count_faults(since, until, names)
