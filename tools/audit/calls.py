"""What is stored of a reply is what the model said."""

import collections
import itertools

from book import LATE
from reading import Check


class Calls(Check):
    def __init__(self, book, texts, asked):
        super().__init__(book)
        self._texts, self._asked = texts, asked

    def finish(self):
        for id, content in self._asked.messages.items():
            reply = self._texts.replies.get(id)
            if reply is not None and reply.end is not None:
                self._check(content, reply)
        for content, ids in self._asked.replies.items():
            self._check_so_far(content, [self._texts.replies[id] for id in ids])

        self._check_turns()

    def _check_turns(self):
        """A reply is requested when the one before it in its session has ended."""
        sessions = collections.defaultdict(list)
        for id, content in self._asked.messages.items():
            reply = self._texts.replies.get(id)
            if reply is not None and len(self._asked.sessions_of(content)) == 1:
                sessions[reply.session].append((int(id), content, reply))
        for replies in sessions.values():
            for (_, content, before), (_, other, after) in itertools.pairwise(sorted(replies)):
                if content != other and before.end and before.end["status"] == "complete":
                    self._check_is_over(content, before, other, after)

    def _check_is_over(self, content, before, other, after):
        calls, text = self._asked.calls, before.end["content"]
        ends = [
            call.ended_at
            for call in calls.get(content, [])
            if call.is_whole and self._is_all(call, text)
        ]
        asked = [call.at for call in calls.get(other, [])]
        if ends and asked and min(ends) > min(asked) + LATE:
            where = f"the reply {after.id} in {after.session}"
            self.report("S-35", f"it was asked for while {before.id} was in progress", where)

    def _check(self, content, reply):
        calls, end = self._asked.calls.get(content, []), reply.end
        where = f"the reply {reply.id} in {reply.session}"
        if end["status"] == "complete":
            self._check_complete(calls, end["content"], where)
        elif end["content"] and not any(self._begins(call, end["content"]) for call in calls):
            self.report("S-5", "the model never said what is stored", where)

    def _check_complete(self, calls, text, where):
        whole = [call for call in calls if call.is_whole]
        if not calls:
            self.report("S-5", "no model was asked for it", where)
        elif not whole:
            self.report("S-23", "it is complete, and no answer was whole", where)
        elif not any(self._is_all(call, text) for call in whole):
            is_cut = any(self._begins(call, text) for call in calls)
            promise = "S-23" if is_cut else "S-5"
            self.report(promise, "it is complete, and is not what the model said", where)

    def _is_all(self, call, text):
        """Whether this text is all that was said, without what the model repeated."""
        so_far = self._asked.so_far(call)
        return text in (so_far + call.text, so_far + _new(so_far, call.text, text))

    def _begins(self, call, text):
        so_far = self._asked.so_far(call)
        new = _new(so_far, call.text, text)
        return (so_far + call.text).startswith(text) or (so_far + new).startswith(text)

    def _check_so_far(self, content, replies):
        """A call continues the text of a reply. If there are several replies, it may be any of
        them."""
        calls = self._asked.calls.get(content, [])
        for number, call in enumerate(calls):
            so_far = self._asked.so_far(call)
            if not self._is_said(so_far, calls[:number]):
                sentence = "the model is asked to go on with what it never said"
                self.report("S-5", sentence, call, call.at)
            if not any(reply.text.startswith(so_far) for reply in replies) and self._is_all_known(
                content, replies
            ):
                self.report(
                    "S-27", "the model is asked to go on with what no reply has", call, call.at
                )

    def _is_said(self, text, calls):
        """Whether one of these calls may have said what a later one continues."""
        return not text or any(call.ended_at is None or self._begins(call, text) for call in calls)

    def _is_all_known(self, content, replies):
        """Whether there is no other reply to this message, as far as it may have been requested."""
        sessions = [self.book.session(reply.session) for reply in replies]
        if any(not op.is_refused for session in sessions for op in session.of("retry")):
            return False
        ops = [op for s in sessions for op in s.of("create", "message") if op.content == content]
        keys = collections.Counter(op.key for op in ops)
        is_shown = all(session.turns is not None for session in sessions)
        return is_shown and max(keys.values(), default=0) < 2


def _new(so_far, said, text):
    """What was said, without its beginning if that repeats the end of the text so far, so that the
    result is this text."""
    for size in range(min(len(so_far), len(said)), 0, -1):
        if so_far.endswith(said[:size]) and (so_far + said[size:]).startswith(text):
            return said[size:]
    return said
