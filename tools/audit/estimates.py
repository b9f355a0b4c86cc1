"""What no provider counted is estimated, as a token for four bytes, and once."""

import collections

from reading import Check
from used import told_by

BYTES = 4  # of a token
WHOLE = "complete", 0  # of a reply: its status, and how often it was continued
LOST = 5  # seconds after a fault, in which what a process has read may be lost with it


def estimate(*texts):
    """The tokens of these texts, by their bytes."""
    return -(-sum(len(text.encode()) for text in texts) // BYTES)


class Estimates(Check):
    def __init__(self, book, texts, asked):
        super().__init__(book)
        self._texts, self._asked = texts, asked
        self._calls = []
        self._ops = []  # requests for a reply

    def sent(self, op):
        if op.asks:
            self._ops.append(op)

    def called(self, call):
        self._calls.append(call)

    def finish(self):
        most = self._most()
        for user, op in self.book.usage.items():
            told = sum(row["estimated_tokens"] for row in op.answer["data"])
            if told > most[user] + most[None]:
                sentence = f"{told} tokens are estimated, and {most[user] + most[None]} may be"
                self.report("API, Usage", sentence, op)

    def _most(self):
        """For each user, and for none if a message belongs to no user."""
        most = collections.Counter()
        for call in self._calls:
            for user in self._asked.users_of(call) or {None}:
                most[user] += self._of_call(call)
        for op in self._ops:
            if op.content is not None and self._may_be_lost(op):
                most[op.user] += estimate(op.content, op.body.get("system") or "")
        return most

    def _of_call(self, call):
        """What may be estimated of it, at most."""
        if call.usage and self._asked.is_read(call, aftermath=LOST):
            return 0
        if not (call.has_begun or call.is_hung_up or self._is_faulty(call)):
            return 0  # a call that is refused costs nothing
        if call.usage and self._is_counted(self._asked.message_of(call)):
            return estimate(call.text)  # the last words, if its process died after the count
        texts = [message["content"] for message in call.system + call.messages]
        return estimate(*texts, call.text)

    def _is_faulty(self, call):
        ended = self.book.at if call.ended_at is None else call.ended_at
        return self.book.is_faulty(call.at, ended, aftermath=LOST)

    def _may_be_lost(self, op):
        """Whether its process may have died before the model was asked. A takeover counts as a
        resumption."""
        ids = self._asked.replies.get(op.content, ())
        ends = [self._texts.replies[id].end for id in ids if id in self._texts.replies]
        if ends and all(end and (end["status"], end["continued"]) == WHOLE for end in ends):
            return False
        calls = self._asked.calls.get(op.content)
        if not calls:
            return self.book.is_faulty(op.at, op.at, aftermath=LOST)
        return self.book.is_faulty(op.at, max(op.at, calls[0].at), aftermath=0)

    def _is_counted(self, content):
        """Whether the answers show that the replies to this message have all that the model
        counted."""
        calls = self._asked.calls.get(content, [])
        said = sum(told_by(call.usage)["input_tokens"] for call in calls)
        replies = [self._texts.replies.get(id) for id in self._asked.replies.get(content, ())]
        return said == sum((reply.usage[1].get("input_tokens") or 0) for reply in replies if reply)
