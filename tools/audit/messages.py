"""Each message that was acknowledged is stored once, where it was sent; what was refused is not."""

import collections

from reading import NEVER, Check


class Messages(Check):
    def __init__(self, book, asked):
        super().__init__(book)
        self._asked = asked
        self._tried = collections.defaultdict(list)  # content → the requests that send it
        self._retried = set()  # contents that replaced others
        self._said = {}  # id of a user's turn → its content, as it was last returned
        self._ids = {}  # session → the line that last returned it, and the ids of its user's turns

    def sent(self, op):
        if op.content is not None and op.kind == "retry":
            self._retried.add(op.content)
        elif op.content is not None:
            self._tried[op.content].append(op)

    # While the soak runs

    def answered(self, op):
        if op.turns and not op.answer["meta"]["has_more"]:
            self._check_kinds(op, op.turns)
            self._check_acknowledged(op, self.book.session(op.session))
            self._check_places(op)

    def _check_kinds(self, op, turns):
        kinds = [turn["kind"] for turn in turns]
        if kinds != ["user", "assistant"] * (len(kinds) // 2):
            self.report("S-1", f"the turns are {kinds}"[:200], op)

    def _check_acknowledged(self, op, session):
        """What was acknowledged before is there."""
        contents = {turn["content"] for turn in op.turns if turn["kind"] == "user"}
        for other in session.of("create", "message"):
            is_due = other.is_kept and other.got < op.sent
            if is_due and other.content not in contents and not self._is_changed(other, op.got):
                self.report("S-1", f"the message {other.content[:40]!r} is lost", op)

    def _is_changed(self, op, line):
        """Whether another text may have replaced a message before this line."""
        return any(
            other.content is not None and other.sent < line and other.got > op.sent
            for other in self.book.session(op.session).of("retry")
            if not other.is_refused
        )

    def _check_places(self, op):
        """Messages stay in their places."""
        line, before = self._ids.get(op.session, (-1, []))
        ids = [turn["id"] for turn in op.turns if turn["kind"] == "user"]
        if line < op.sent and ids[: len(before)] != before:
            self.report("API, A session", "a message is not where it was", op)
        self._ids[op.session] = self.book.line, ids

    def turn(self, op, turn):
        if turn["kind"] != "user":
            return
        content = turn["content"]
        if content not in self._tried and content not in self._retried:
            self.report("S-1", f"nobody sent {content[:40]!r}", op)
        if self._said.setdefault(turn["id"], content) != content:
            if content not in self._retried:
                self.report("S-1", f"the message {turn['id']} is another", op)
            self._said[turn["id"]] = content

    # In the end

    def finish(self):
        if self.book.rest == NEVER:
            return
        there = collections.defaultdict(list)  # content → the sessions in which it is
        for session in self.book.sessions.values():
            for turn in session.turns or []:
                if turn["kind"] == "user":
                    there[turn["content"]].append(session)
            if session.turns:
                self._check_order(session)
        for content, sessions in there.items():
            if content not in self._retried:
                self._check_count(content, sessions)
        for content in set(self._asked.calls) & set(self._tried) - set(there):
            self._check_called(content, self._tried[content])

    def _check_called(self, content, tried):
        """It was committed before the model was asked, whatever its client knows of it."""
        sessions = {op.session for op in tried} - {None}
        are_shown = sessions and all(self.book.session(id).turns for id in sessions)
        if are_shown and not any(self._is_changed(op, NEVER) for op in tried):
            self.report("S-1", f"the model was asked for {content[:40]!r}, which is lost", tried[0])

    def _check_count(self, content, sessions):
        """A message is there once for each key, and once for each request without one."""
        tried = self._tried.get(content, [])
        taken = [op for op in tried if not op.is_refused]
        keys = {op.key for op in taken if op.key}
        most = len(keys) + sum(not op.key for op in taken)
        where = tried[0] if tried else f"session {sessions[0].id}"
        if tried and not taken:
            self.report("S-35", f"{content[:40]!r} was refused, and is there", where)
        elif len(sessions) > most:
            promise = "S-39" if keys else "API, Operations"
            self.report(promise, f"{content[:40]!r} is there {len(sessions)} times", where)
        self._check_session(content, sessions, taken, where)

    def _check_session(self, content, sessions, taken, where):
        meant = {op.session for op in taken}
        if None not in meant and (wrong := {each.id for each in sessions} - meant):
            self.report("S-1", f"{content[:40]!r} is in {min(wrong)}", where)

    def _check_order(self, session):
        """A message that was sent after the answer to another comes after that one."""
        places = {turn["content"]: place for place, turn in enumerate(session.turns)}
        ops = [op for op in session.of("create", "message") if op.is_kept and op.content in places]
        once = [op for op in ops if len(self._tried[op.content]) == 1]
        for before, after in zip(once, once[1:], strict=False):
            is_behind = before.got < after.sent
            if is_behind and places[before.content] > places[after.content]:
                self.report("API, A session", f"{after.content[:40]!r} stands too early", after)
