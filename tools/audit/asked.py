"""Which message a call of the model answers, and whether its answer was surely read."""

import collections

from book import AFTERMATH
from reading import Check, replies_in

NEAR = 5  # seconds after the end of a call, in which a cancel may come before it is read


class Asked(Check):
    """This check comes before those that use it."""

    def __init__(self, book):
        super().__init__(book)
        self._ops = collections.defaultdict(list)  # message → the requests that sent it
        self.calls = collections.defaultdict(list)  # message → its calls
        self._found = {}  # number of a call → (its message or None, the text so far)
        self.messages = {}  # reply → its message, as it was first returned
        self.replies = collections.defaultdict(set)  # message → replies to it

    def sent(self, op):
        if op.content is not None:
            self._ops[op.content].append(op)

    def answered(self, op):
        for message, reply in replies_in(op.turns):
            self._learn(reply["id"], message["content"])

    def event(self, op, event):
        if op.content is not None:
            self._learn(event.turn, op.content)

    def turn(self, op, turn):
        if op.content is not None and turn["kind"] == "assistant":
            self._learn(turn["id"], op.content)

    def _learn(self, id, content):
        self.replies[self.messages.setdefault(id, content)].add(id)

    def called(self, call):
        content, so_far = self._found[call.number] = self._find(call)
        self.calls[content].append(call)
        self.book.counts["calls for a message that nobody sent"] += content is None

    def message_of(self, call):
        return self._found[call.number][0]

    def so_far(self, call):
        """The text of the reply that the model is to continue."""
        return self._found[call.number][1]

    def requests(self, message):
        """The requests that sent it."""
        return self._ops.get(message, [])

    def ops_of(self, call):
        return self.requests(self.message_of(call))

    def sessions_of(self, message):
        """The sessions for which it was sent; None for a message that no answer named."""
        return {op.session for op in self._ops.get(message, [])}

    def users_of(self, call):
        return {op.user for op in self.ops_of(call)}

    def is_read(self, call, names=None, aftermath=AFTERMATH):
        """Whether the service surely read to its end what a call said, for one user. `names` are
        the faults that may prevent that, by default all; `aftermath` is for how many seconds after
        them."""
        if not call.is_whole or call.is_hung_up or len(self.users_of(call)) != 1:
            return False
        if self.book.is_faulty(call.at - NEAR, call.ended_at + NEAR, names, aftermath):
            return False
        ops = self.ops_of(call)
        sessions, keys = {op.session for op in ops}, {op.key for op in ops}
        if len(keys) == 1 and None not in keys:
            sessions -= {None}  # an answer was lost: a key has one session
        is_known = sessions and None not in sessions
        return is_known and not any(self._is_stopped(id, call) for id in sessions)

    def _is_stopped(self, id, call):
        """Whether a cancel or a deletion may have come before the end was read."""
        return any(
            op.got > call.asked and op.at < call.ended_at + NEAR
            for op in self.book.session(id).of("cancel", "delete")
            if not op.is_refused and not self._is_of_another(op, self.message_of(call))
        )

    def _is_of_another(self, op, content):
        """Whether a cancel has stopped the reply to another message."""
        id = op.answer.get("id") if op.kind == "cancel" and isinstance(op.answer, dict) else None
        return self.messages.get(id, content) != content

    def _find(self, call):
        """A continued reply is the last message but one, after the user's; the last one asks for
        more."""
        contents = [message["content"] for message in call.messages]
        if found := self._known(contents[-1]):
            return found, ""
        if len(contents) > 2 and call.messages[-2]["role"] == "assistant":
            if found := self._known(contents[-3]):
                return found, contents[-2]
        return None, ""

    def _known(self, text):
        """The message that this text ends with: if replies are empty, neighbours are joined."""
        if text in self._ops:
            return text
        at = text.find("\n\n")
        while at >= 0:
            if text[at + 2 :] in self._ops:
                return text[at + 2 :]
            at = text.find("\n\n", at + 1)
        return None
