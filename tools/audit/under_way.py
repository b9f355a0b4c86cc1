"""A session has one reply in progress at a time, and its events are those of the latest."""

import collections

from reading import NEVER, Check

UNDER_WAY = "in_progress"


class UnderWay(Check):
    def __init__(self, book, texts):
        super().__init__(book)
        self._texts = texts
        self._told = collections.defaultdict(
            list
        )  # session → (line, reply) of each reply that was begun
        self._ended = collections.defaultdict(
            list
        )  # session → (sent, line) of each request that saw it at rest
        self._own = {}  # op → the line that showed that its own reply had ended
        self._begun = set()  # streams that had an event

    def answered(self, op):
        if op.turns:
            self._check_shown(op, op.turns)
        if op.asks and op.status == 409:
            self._check_refusal(op)
        if op.asks and not op.is_stream and op.got < NEVER:
            self._take_answer(op)

    def _take_answer(self, op):
        if op.is_refused or (op.status in (502, 503, 504) and "Location" in op.headers):
            self._own[op.number] = op.got
        elif isinstance(op.answer, dict) and op.answer.get("kind") == "assistant":
            self._tell(op, op.answer["id"])
            if op.answer["status"] != UNDER_WAY:
                self._own[op.number] = op.got

    def _tell(self, op, id):
        """An answer names the reply that it requested. With a key, that may be an old one."""
        if self.book.session(op.session).is_alone(op):
            self._told[op.session].append((self.book.line, op.sent, id))

    def event(self, op, event):
        if op.number not in self._begun:
            self._begun.add(op.number)
            if op.asks:
                self._tell(op, event.turn)
            self._check_is_latest(op, event.turn)
        if event.name in ("done", "error"):
            self._own[op.number] = self.book.line
            is_end = event.name == "done" or event.data["status"] not in (404, 500)
            if is_end and self._is_newest(op, event.turn):
                self._ended[op.session].append((op.sent, self.book.line))

    def _is_newest(self, op, id):
        told = self._told[op.session]
        return bool(told) and told[-1][2] == id

    def _check_is_latest(self, op, id):
        """It is not older than a reply that an answer had named before."""
        newest = max((t for t in self._told[op.session] if t[0] < op.sent), default=None)
        reply = self._texts.replies.get(id)  # None if no answer named it before
        if reply is None or newest is None or newest[2] == id or op.key:
            return
        if reply.first < newest[1] and not self._goes_on(op, reply):
            self.report("S-26", f"the reply {id} is streamed, and {newest[2]} is the latest", op)

    def _goes_on(self, op, reply):
        return self.book.session(op.session).goes_on_by(self.book.line, reply.first, reply.first)

    def _check_shown(self, op, turns):
        under_way = [turn["id"] for turn in turns if turn.get("status") == UNDER_WAY]
        for id in under_way:
            if id != turns[-1]["id"]:
                self.report("S-35", f"the reply {id} is in progress, and not the last", op)
            else:
                self._check_is_latest(op, id)
        if not under_way:
            self._ended[op.session].append((op.sent, self.book.line))

    def _check_refusal(self, op):
        """409 with Retry-After: another reply may be in progress."""
        if "Retry-After" not in op.headers or "Location" in op.headers:
            return
        others = self.book.session(op.session).ops
        if not any(other is not op and self._may_be_under_way(other, op) for other in others):
            self.report("S-3", "a reply is said to be in progress, and none is", op)

    def _may_be_under_way(self, other, op):
        if not other.asks or other.sent > op.got or other.is_refused:
            return False
        if self._own.get(other.number, NEVER) < op.sent:
            return False
        return not any(
            sent > other.got and line < op.sent for sent, line in self._ended[op.session]
        )
