"""What a process carries at a time: replies, held requests, searches. No user takes more than half of any."""

import collections
import contextlib
import threading

REPLIES = 400  # under way in one process; each has a thread, a connection to a provider, and some 200 kB
TITLES = 100  # asked of a model at a time
HELD = 240  # requests that wait for a reply or stream one; a worker of gunicorn sets it by the number of its threads
SEARCHES = 2


class Overloaded(Exception):
    """This process carries as much as it can; the text says what to do."""

    def __init__(self, message="The server has too much to do. Ask again in a moment."):
        super().__init__(message)


class Room:
    """Room for so many at a time, and for half as many of one user."""

    def __init__(self, size):
        self.size = size
        self._users = collections.Counter()
        self._changed = threading.Condition()

    def take(self, user, seconds=0):
        """Take a place, waiting so long for one; returns whether there was one. It is given back with `leave`."""
        with self._changed:
            taken = self._changed.wait_for(lambda: self._has_place(user), seconds)
            if taken:
                self._users[user] += 1
            return taken

    def leave(self, user):
        with self._changed:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]
            self._changed.notify_all()

    @contextlib.contextmanager
    def place(self, user, seconds=0):
        """A place as long as the context lasts. Raises Overloaded."""
        if not self.take(user, seconds):
            raise Overloaded
        try:
            yield
        finally:
            self.leave(user)

    def _has_place(self, user):
        return self._users.total() < self.size and self._users[user] < max(1, self.size // 2)
