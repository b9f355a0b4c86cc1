"""Limits: what a process carries at a time."""

import collections
import contextlib
import threading

from werkzeug.exceptions import ServiceUnavailable

# Of a process; a worker of gunicorn sets the first three by the number of its connections, or threads.
REPLIES = 400  # under way; each has a thread, a connection to a provider, and some 100 kB
STREAMS = 400  # of replies
HELD = 240  # requests that wait for a reply, or search
TITLES = 100  # asked of a model at a time
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
