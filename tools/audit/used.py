"""The usage that a user is shown is that of their replies, and what the model counted."""

import collections

from reading import Check, replies_in

TOKENS = "input_tokens", "output_tokens", "cached_tokens"


def told_by(usage):
    """What the model counts, by our names."""
    details = (usage or {}).get("prompt_tokens_details") or {}
    counts = {
        "input_tokens": (usage or {}).get("prompt_tokens"),
        "output_tokens": (usage or {}).get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens"),
    }
    return {name: count or 0 for name, count in counts.items()}


def _is_complete(op):
    """Whether this request was answered with a complete reply, which is not made again."""
    return isinstance(op.answer, dict) and op.answer.get("status") == "complete"


class Used(Check):
    def __init__(self, book, texts, asked):
        super().__init__(book)
        self._texts, self._asked = texts, asked
        self._calls = []
        self._asks = collections.Counter()  # user → requests for a reply that were not refused
        self._hiding = set()  # users who may have a reply that is counted, but not shown
        self._keys = {}  # (user, key) → the first request with it

    def sent(self, op):
        if op.asks:
            self._asks[op.user] += 1
        first = self._keys.setdefault((op.user, op.key), op) if op.asks and op.key else op
        if op.kind in ("delete", "retry") or not (first is op or _is_complete(first)):
            self._hiding.add(op.user)

    def answered(self, op):
        if op.asks and op.is_refused:
            self._asks[op.user] -= 1
        if op.kind == "usage" and op.status == 200:
            self._check_sum(op)

    def said(self, call):
        self._calls.append(call)

    def finish(self):
        for user, op in self.book.usage.items():
            self._check_user(user, op)
        for session in self.book.sessions.values():
            for message, reply in replies_in(session.turns):
                self._check_reply(session, message["content"], reply)

    def _check_sum(self, op):
        rows, meta = op.answer["data"], op.answer["meta"]
        names = "input_tokens", "output_tokens", "estimated_tokens"
        used = sum(row[name] for row in rows for name in names)
        if meta["limit"] is None and meta["used"] != used:
            self.report("API, Usage", f"{meta['used']} are used, and the rows have {used}", op)

    def _check_user(self, user, op):
        rows = op.answer["data"]
        least, most = self._bounds(user)
        for name in TOKENS:
            told = sum(row[name] for row in rows)
            shown = self._shown(user, name)
            if told > most[name]:
                self.report("API, Usage", f"{name} are {told}, and the model said {most[name]}", op)
            if user not in self._hiding and told != shown:
                self.report("API, Usage", f"{name} are {told}, and all replies have {shown}", op)
            if told < max(least[name], shown):
                sentence = f"{name} are {told}; the model said {least[name]}, replies have {shown}"
                self.report("API, Usage", sentence, op)
        self._check_replies(user, op, sum(row["replies"] for row in rows))

    def _check_replies(self, user, op, told):
        replies = sum(
            reply.end is not None and self.book.session(reply.session).user == user
            for reply in self._texts.replies.values()
        )
        if not replies <= told <= self._asks[user]:
            sentence = (
                f"{told} replies are counted, {self._asks[user]} were asked for, {replies} told"
            )
            self.report("API, Usage", sentence, op)

    def _shown(self, user, name):
        return sum(
            (turn.get("usage") or {}).get(name) or 0
            for session in self.book.sessions.values()
            if session.user == user
            for turn in session.turns or []
        )

    def _bounds(self, user):
        """What the model counted for this user: at least (all that was surely read), and at most."""
        least, most = collections.Counter(), collections.Counter()
        names = self.book.names_of_faults()
        for call in self._calls:
            if user in self._asked.users_of(call):
                counts = told_by(call.usage)
                most.update(counts)
                if self._asked.is_read(call, names):
                    self.book.counts["calls whose tokens are surely counted"] += 1
                    least.update(counts)
        return least, most

    def _check_reply(self, session, content, reply):
        """A reply has what its calls said, and a complete one at least its last whole call's."""
        calls = self._asked.calls.get(content, [])
        where = f"session {session.id}"
        for name in TOKENS:
            has = (reply["usage"] or {}).get(name) or 0
            counts = [told_by(call.usage)[name] for call in calls]
            whole = [told_by(call.usage)[name] for call in calls if call.is_whole]
            if has > sum(counts):
                sentence = f"{name} of {reply['id']} are {has}, and the model said {sum(counts)}"
                self.report("API, A turn", sentence, where)
            elif reply["status"] == "complete" and has < min(whole, default=0):
                sentence = f"{name} of {reply['id']} are {has}, and the model said {min(whole)}"
                self.report("API, A turn", sentence, where)
