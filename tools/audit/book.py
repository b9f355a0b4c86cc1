"""What an audit has found, and what all of its checks know: the sessions, and the requests for
each.
"""

import collections
from typing import NamedTuple

from reading import NEVER

MANY = 50  # problems of one promise that are printed one by one
LATE = 5  # seconds, at most, by which a client sees a thing later than the service does, on a busy machine
AFTERMATH = 30  # seconds after a fault, in which the replies of dead processes are taken over

# Faults during which every process runs on: they affect the clock, or the storage.
HARMLESS = {
    "clock",
    "away",
    "read-only",
    "hangs",
    "table-locked",
    "file-locked",
    "disk-full",
    "promoted",
    "refused",
    "connections-cut",
}


class Problem(NamedTuple):
    promise: str  # S-12, or a heading of docs/api.md
    sentence: str
    where: str  # an operation, or a call
    at: float  # seconds

    def __str__(self):
        return f"{self.promise}: {self.sentence} ({self.where}, at {self.at:.3f} s)"


class Session:
    def __init__(self, id):
        self.id, self.user = id, None  # the owner, once an answer has named it
        self.ops = []  # those that change it, or request a reply, in the order in which they were sent
        self.turns = None  # as they are in the end

    def of(self, *kinds):
        return [op for op in self.ops if op.kind in kinds]

    def goes_on_by(self, line, since=-1, first=None):
        """Whether somebody may have asked to continue a reply between these lines: a reply that an
        answer first named at the line `first`, or any reply."""
        passed = NEVER if first is None else self.passed(first)
        return passed > since and self._may_have(("continue",), min(line, passed), since)

    def is_alone(self, op):
        """Whether no other request had its key."""
        return not op.key or not any(o.key == op.key for o in self.ops if o is not op)

    def passed(self, line):
        """The first line from which we know that a newer message comes after everything named
        before this line: after that, nobody continues or retries what was there before."""
        return min(
            (
                op.got
                for op in self.of("message")
                if op.sent > line and op.is_kept and self.is_alone(op)
            ),
            default=NEVER,
        )

    def is_deleted_by(self, line):
        """Whether somebody may have deleted it before this line."""
        return self._may_have(("delete",), line)

    def _may_have(self, kinds, line, since=-1):
        return any(
            op.sent < line and op.got > since and not op.is_refused for op in self.of(*kinds)
        )

    @property
    def deleted(self):
        """The line at which its owner knew that it is deleted."""
        own = [op for op in self.of("delete") if op.user == self.user]
        return min((op.got for op in own if op.status in (204, 404)), default=NEVER)


class Book:
    """Problems and figures, and the sessions."""

    def __init__(self):
        self.problems, self.counts = [], collections.Counter()
        self.settings, self.faults, self.rest = {}, [], NEVER  # the line from which all is at rest
        self.at, self.line = 0.0, 0  # of the current line
        self.sessions, self.users = {}, set()
        self.usage = {}  # user → the request at the end that returned all of it

    def report(self, promise, sentence, where, at=None):
        at = self.at if at is None else at
        self.problems.append(Problem(promise, sentence, str(where), at))

    def session(self, id):
        if id not in self.sessions:
            self.sessions[id] = Session(id)
        return self.sessions[id]

    def own(self, id, user):
        """An answer has shown that this session is this user's."""
        session = self.session(id)
        session.user = session.user or user
        return session

    def names_of_faults(self):
        """The faults at which a process may be paused, or end; an unknown fault counts as one of
        them."""
        return {name for name, *_ in self.faults} - HARMLESS

    def is_faulty(self, since, until, names=None, aftermath=AFTERMATH):
        """Whether there was a fault with one of these names meanwhile, or shortly before."""
        return self.count_faults(since, until, names, aftermath) > 0

    def count_faults(self, since, until, names=None, aftermath=AFTERMATH):
        return sum(
            began <= until and since <= ended + aftermath
            for name, began, ended in self.faults
            if names is None or name in names
        )
