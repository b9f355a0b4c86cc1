"""Sessions exist until they are deleted: shown, listed and exported alike, with their titles."""

import json

from reading import NEVER, Check

PREVIEW = 100  # characters


class Stored(Check):
    def __init__(self, book):
        super().__init__(book)
        self._pages = {}  # user → the sessions that are listed in the end
        self._exported = {}  # user → session → its line, in the end

    def answered(self, op):
        if op.status in (200, 204) and op.kind == "sessions":
            self._see_list(op)
        elif op.status == 200 and op.kind == "export":
            self._see_export(op)
        elif op.turns and op.sent > self.book.rest:
            self.book.session(op.session).turns = op.turns
        if op.status == 404 and op.session and not self._may_be_gone(op):
            self.report("API, Errors", f"the session {op.session} is gone", op)
        if op.status in (200, 201, 202) and op.session:
            self._check_is_not_deleted(op, op.session)

    def _may_be_gone(self, op):
        session = self.book.session(op.session)
        is_known = session.user == op.user and any(
            other.kind == "create" and other.got < op.sent for other in session.ops
        )
        return not is_known or session.is_deleted_by(op.got)

    def _check_is_not_deleted(self, op, id):
        if self.book.session(id).deleted < op.sent:
            self.report("API, Operations", f"the session {id} was deleted, and is there", op)

    def _see_list(self, op):
        if op.sent > self.book.rest:
            self._pages.setdefault(op.user, {})
        for listed in op.answer["data"]:
            self._check_is_not_deleted(op, listed["id"])
            self.book.own(listed["id"], op.user)
            if op.sent > self.book.rest:
                self._pages[op.user][listed["id"]] = listed

    def _see_export(self, op):
        if op.sent > self.book.rest:
            self._exported.setdefault(op.user, {})
        for line in filter(None, op.answer.split("\n")):
            session = json.loads(line)
            self._check_is_not_deleted(op, session["id"])
            if op.sent > self.book.rest:
                self._exported[op.user][session["id"]] = session

    # In the end

    def finish(self):
        if self.book.rest == NEVER:
            return
        for session in self.book.sessions.values():
            self._check_listed(session)
            if session.turns is not None:
                self._check_turns(session)
                self._check_listing(session)

    def _check_listed(self, session):
        """If an answer said that it was created, and nobody deletes it, it is there."""
        [created] = session.of("create")[:1] or [None]
        if created is None or session.is_deleted_by(NEVER) or created.user not in self._pages:
            return
        where = created, created.at
        if session.id not in self._pages[created.user]:
            self.report("API, Operations", f"the session {session.id} is not listed", *where)
        if session.turns is None:
            self.report("API, Operations", f"the session {session.id} is not shown", *where)
        if session.id not in self._exported.get(created.user, {session.id}):
            self.report("API, Take it with you", f"the session {session.id} is lost", *where)

    def _check_turns(self, session):
        where = f"session {session.id}"
        ids = [turn["id"] for turn in session.turns]
        if len(set(ids)) < len(ids):
            self.report("API, A turn", "an id is given twice", where)
        for turn in session.turns:
            if turn.get("status") == "in_progress":
                self.report("S-43", f"the reply {turn['id']} is in progress at rest", where)

    def _check_listing(self, session):
        listed = self._pages.get(session.user, {}).get(session.id)
        exported = self._exported.get(session.user, {}).get(session.id)
        if listed is None or exported is None:
            return
        where = f"session {session.id}"
        last = [turn["content"] for turn in session.turns if turn["content"]][-1]
        if listed["last_message_preview"] != last[:PREVIEW]:
            self.report("API, A session", "its preview is not the last turn's", where)
        shown = [(turn["id"], turn["content"]) for turn in session.turns]
        if shown != [(turn["id"], turn["content"]) for turn in exported["turns"]]:
            self.report("API, Take it with you", "its export is not what is shown", where)
        self._check_title(session, listed["title"])

    def _check_title(self, session, title):
        """It is the last one that its user gave, or one that may have come later."""
        given = [op for op in session.of("change") if "title" in op.body and not op.is_refused]
        told = [op for op in given if op.status == 200]
        last = max((op.sent for op in told), default=-1)
        possible = {op.body["title"] for op in given if op.got > last}
        if told and title not in possible:
            self.report("API, A session", f"its title is {title!r}"[:200], told[-1], told[-1].at)
