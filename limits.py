"""Limits: what a process carries at a time, and how many replies a user may ask for."""

import collections
import contextlib
import threading

from peewee import BigIntegerField, TextField
from werkzeug.exceptions import ServiceUnavailable

from database import SECOND, db

REPLIES = 400  # under way in one process; each has a thread, a connection to a provider, and some 200 kB
TITLES = 100  # asked of a model at a time
HELD = 240  # requests that wait for a reply or stream one; a worker of gunicorn sets it by the number of its threads
SEARCHES = 2


class Overloaded(ServiceUnavailable):
    """This process carries as much as it can; the text says what to do."""

    def __init__(self, message="The server has too much to do. Ask again in a moment."):
        super().__init__(message, retry_after=5)


class Room:
    """Room in a process for so many at a time, and for half as many of one user."""

    def __init__(self, size):
        self.size = size
        self._users = collections.Counter()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def place(self, user, seconds=0):
        """A place as long as the context lasts. Raises Overloaded where there is none within these seconds."""
        share = max(1, self.size // 2)
        with self._changed:
            if not self._changed.wait_for(lambda: self._users.total() < self.size and self._users[user] < share, seconds):
                raise Overloaded
            self._users[user] += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= {user: 1}  # which also forgets a user who has none any more
                self._changed.notify_all()


class RateLimitHit(db.Model):
    """One reply that an owner asked for. It outlives its session: deleting a session gives nothing back."""

    owner = TextField()
    at = BigIntegerField()

    class Meta:
        table_name = "asked"
        indexes = ((("owner", "at"), False),)

    @classmethod
    def count(cls, owner, limit, seconds, now):
        """Count one more, under the lock of the owner; or return the seconds to wait, if `limit` came within `seconds`."""
        window = now - seconds * SECOND
        db.send(cls.delete().where(cls.owner == owner, cls.at <= window))
        # The oldest of the last `limit`: where there is one, the limit is reached.
        hits = cls.select(cls.at).where(cls.owner == owner).order_by(cls.at.desc())
        if (oldest := hits.offset(limit - 1).limit(1).scalar()) is not None:
            return max(1, -((window - oldest) // SECOND))
        db.send(cls.insert(owner=owner, at=now))
        return 0
