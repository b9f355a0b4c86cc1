"""No user sees another's sessions, ids, words that they sent, or words that their model said.

A word shows whose it is if it has ten characters or more, and only one user sent it, or got it from
a model. Words that several users have show nothing.
"""

import collections
import json
import re

from reading import Check

WORD = re.compile(r"[\w-]{10,}")


class Owners(Check):
    def __init__(self, book, texts, asked):
        super().__init__(book)
        self._texts, self._asked = texts, asked
        self._owners = collections.defaultdict(set)  # word → the users who sent it
        self._seen = collections.defaultdict(dict)  # word → user → (where, at), the first time
        self._turns = {}  # id → its session

    def sent(self, op):
        self._learn(op, json.dumps(op.body, ensure_ascii=False) if op.body else "")

    def answered(self, op):
        if op.session and op.status in (200, 201, 202, 204):
            owner = self.book.session(op.session).user
            if owner not in (None, op.user):
                self.report("S-38", f"the session {op.session} is another's, and no 404", op)
        if not op.is_stream and op.answer:
            self._see(op, json.dumps(op.answer, ensure_ascii=False))
        self._see(op, op.headers.get("Location", ""))

    def event(self, op, event):
        for line in event.lines:
            self._see(op, line)

    def turn(self, op, turn):
        session = self._turns.setdefault(turn["id"], op.session)
        if session != op.session:
            self.report("S-38", f"the turn {turn['id']} is in two sessions", op)

    def called(self, call):
        users = self._asked.users_of(call)
        if len(users) == 1:
            self._see(call, json.dumps(call.messages, ensure_ascii=False), *users)

    def said(self, call):
        users = self._asked.users_of(call)
        for word in set(WORD.findall(call.text)):
            self._owners[word] |= users

    def finish(self):
        for id, session in self._turns.items():
            self._own(id, session)
        for id in self.book.sessions:
            self._own(id, id)
        for word, users in self._seen.items():
            owners = self._owners.get(word)
            if owners and len(owners) == 1:
                for user in users.keys() - owners:
                    self.report("S-38", f"{word!r} is of {min(owners)}", *users[user])

    def _own(self, id, session):
        if user := self.book.session(session).user:
            self._owners[id] = {user}

    def _learn(self, op, text):
        for word in set(WORD.findall(text)):
            self._owners[word].add(op.user)

    def _see(self, where, text, user=None):
        user = user or where.user
        for word in set(WORD.findall(text)):
            users = self._seen[word]
            if user not in users:
                users[user] = where, self.book.at
