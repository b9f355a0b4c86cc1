"""What an audit has found, and what all of its checks know: sessions, and what was asked of them."""

import collections
from typing import NamedTuple

from reading import NEVER

MANY = 50  # problems of one promise that are told one by one
LATE = 5  # seconds by which others see a thing later than the service does, on a busy machine
AFTERMATH = 30  # seconds behind a fault, in which replies of the dead are taken over

# Those at which every process goes on: they befall the clock, or what the service stores with.
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
        self.id, self.user = id, None  # the owner, once an answer has told
        self.ops = []  # those that change it, or ask for a reply, as they were sent
        self.turns = None  # as they are in the end

    def of(self, *kinds):
        return [op for op in self.ops if op.kind in kinds]

    def goes_on_by(self, line, since=-1, first=None):
        """Whether somebody may have asked to continue a reply, between these lines: one that was
        told of at the line `first`, or any."""
        passed = NEVER if first is None else self.passed(first)
        return passed > since and self._may_have(("continue",), min(line, passed), since)

    def is_alone(self, op):
        """Whether no other request had its key."""
        return not op.key or not any(o.key == op.key for o in self.ops if o is not op)

    def passed(self, line):
        """The line by which it was told that a message stands behind all that was told before this
        line: nobody goes on with that, or asks for it again."""
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
        """The line by which its owner knew that it is deleted."""
        own = [op for op in self.of("delete") if op.user == self.user]
        return min((op.got for op in own if op.status in (204, 404)), default=NEVER)


class Book:
    """Problems and figures, and the sessions."""

    def __init__(self):
        self.problems, self.counts = [], collections.Counter()
        self.settings, self.faults, self.rest = {}, [], NEVER  # the line from which all is at rest
        self.at, self.line = 0.0, 0  # of the line that is read
        self.sessions, self.users = {}, set()
        self.usage = {}  # user → the request that told all of it, in the end

    def report(self, promise, sentence, where, at=None):
        at = self.at if at is None else at
        self.problems.append(Problem(promise, sentence, str(where), at))

    def session(self, id):
        if id not in self.sessions:
            self.sessions[id] = Session(id)
        return self.sessions[id]

    def own(self, id, user):
        """An answer has told that this session is this user's."""
        session = self.session(id)
        session.user = session.user or user
        return session

    def names_of_faults(self):
        """Those at which a process may stand still, or end, as it may at one that is not known."""
        return {name for name, *_ in self.faults} - HARMLESS

    def is_faulty(self, since, until, names=None, aftermath=AFTERMATH):
        """Whether a fault, of these names, befell the service meanwhile, or shortly before."""
        return self.count_faults(since, until, names, aftermath) > 0

    def count_faults(self, since, until, names=None, aftermath=AFTERMATH):
        return sum(
            began <= until and since <= ended + aftermath
            for name, began, ended in self.faults
            if names is None or name in names
        )
