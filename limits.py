"""Limits: what a process carries at a time, by default as much as the machine allows."""

import collections
import contextlib
import queue
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from werkzeug.exceptions import ServiceUnavailable

LEAST_CONNECTIONS = 16
# Of a process; a worker of gunicorn sets the first four by the number of its connections, or
# threads.
REPLIES = 400  # under way; each has a thread, a connection to a provider, and some 100 kB
STREAMS = 400  # of replies
IN_LINE = 300  # requests of one user that wait for others of the same user
HELD = 240  # requests that wait for a reply, or search
TITLES = 100  # asked of a model at a time
SEARCHES = 2
TEXTS = 2**28  # bytes of large texts
SMALL = 2**14  # bytes of texts that need no room
IMPORT_SIZE = 16  # times the bytes of another body, that an import may have
IMPORTS = 2  # imports and forks at a time; of one user, one
EXPORTS = 4  # pages of exports that are made at a time; of one user, two
STRANGERS = 16  # who wait for an identity provider, to know how to sign in
DOCUMENTS = 2  # answers in pieces that are made of the database; of one user, one
# Requests of one user that are answered at a time, by their method. Together they leave others a
# part of a process's connections to the database.
OF_ONE_USER = {"GET": 3, "DELETE": 1}
OTHERS_OF_ONE_USER = 3
THREAD_TTL = 60  # seconds


BUSY = "The server has too much to do. Ask again in a moment."


def import_size(settings: Mapping[str, Any]) -> int:
    """The bytes that an import may have."""
    return IMPORT_SIZE * int(settings["MAX_CONTENT_LENGTH"])


class Capacity(NamedTuple):
    """What a process has room for."""

    connections: int
    why_so_few: str | None  # where the machine allows fewer than usual


def fit(most: int) -> Capacity:
    """As many connections for a process as it may open files, of which each may need two; up to so
    many."""
    import resource  # POSIX's own, as gunicorn is

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] % 2**63  # endless is -1
    if hard >= 2 * most:
        return Capacity(most, None)
    why = f"ulimit -Hn is {hard} files, raise it to {2 * most}"
    return Capacity(max(LEAST_CONNECTIONS, hard // 2), why)


class Overloaded(ServiceUnavailable):
    """This process carries as much as it can; the text says what to do."""

    def __init__(self, message: str = BUSY) -> None:
        super().__init__(message, retry_after=5)


class CachedThreads:
    """Threads that do one thing after the other, as many as there are things, and end when they
    were idle for a while. To start a thread takes longer than many a thing does."""

    def __init__(self) -> None:
        self._idle, self._things = threading.Semaphore(0), queue.SimpleQueue()

    def start(self, *thing: Any) -> None:
        """Do this, a function and its arguments. Raises RuntimeError where the system gives no more
        threads."""
        if self._idle.acquire(blocking=False):
            self._things.put(thing)
        else:
            threading.Thread(target=self._work, args=([thing],), daemon=True).start()

    def _work(self, first: list) -> None:
        function, *arguments = first.pop()  # Thread itself keeps `first` for as long as it runs
        while True:
            function(*arguments)
            del function, arguments  # they may be large, and the next thing may be far away
            self._idle.release()
            try:
                function, *arguments = self._things.get(timeout=THREAD_TTL)
            except queue.Empty:
                if self._idle.acquire(blocking=False):
                    return
                function, *arguments = self._things.get()  # is on its way


def memory_of(texts: Iterable[str | None]) -> int:
    """The bytes that these texts take in this process, which may be four for a character; 0 where
    these are few, since only large texts have to wait for each other."""
    size = sum(sys.getsizeof(text) for text in texts if text)
    return size if size > SMALL else 0


class Bulkhead:
    """Room in a process for so much at a time, and for half as much of one user, so that no user
    fills it for all. One thing that is larger than that has it alone.

    With a size of 100: Alice has 50, Bob may have 50 more, and a further thing of either waits."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.users: collections.Counter[str] = collections.Counter()  # what each has of it
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, user: str, seconds: float = 0, refusal: str = BUSY) -> Iterator[None]:
        """Room for one thing within this. Raises Overloaded where there is none within these
        seconds."""
        with contextlib.closing(Slot(self, user)) as slot:
            if not slot.take(1, seconds):
                raise Overloaded(refusal)
            yield

    def has_room(self, user: str, amount: int) -> bool:
        of_all, of_user, share = self.users.total(), self.users[user], max(1, self.size // 2)
        has_share = not of_user or of_user + amount <= share
        return has_share and (not of_all or of_all + amount <= self.size)


class Line:
    """The requests of one user: the first few are answered, and some others wait."""

    def __init__(self, at_a_time: int, most_waiting: int) -> None:
        self.places = threading.Semaphore(at_a_time)
        self.room = threading.Semaphore(most_waiting)


class Lines:
    """Three lines for each user: of requests that only read, since these need not wait for a
    database that takes no writes; of deletions, which people send by the dozen; and of others."""

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._lock = threading.Lock()
        # Those of users with no request are forgotten.
        self._of: weakref.WeakValueDictionary[tuple[str, str], Line]
        self._of = weakref.WeakValueDictionary()

    def of(self, user: str, method: str) -> Line:
        """The line of a user for requests of this method, for as long as somebody holds it."""
        kind = method if method in OF_ONE_USER else ""
        at_a_time = OF_ONE_USER.get(method, OTHERS_OF_ONE_USER)
        with self._lock:
            return self._of.setdefault((user, kind), Line(at_a_time, self.most_waiting))


class Slot:
    """What one user has of a bulkhead, for one thing: at first nothing, and nothing once it is
    closed, which any thread may do."""

    def __init__(self, bulkhead: Bulkhead, user: str) -> None:
        self.amount, self._bulkhead, self._user = 0, bulkhead, user
        self._is_closed = self._waits = False

    def take(self, amount: int, seconds: float = 0) -> bool:
        """Have so much instead of what it had. That is free for others while it waits, so no two
        slots wait for each other. Returns whether there was room within these seconds, as there
        always is for less; where there was none, it has nothing."""
        with self._bulkhead.changed:
            if amount == self.amount == 0:  # as of most requests
                return not self._is_closed
            is_less = amount <= self.amount
            self._give_back()
            self._waits = True
            fits = self._bulkhead.changed.wait_for(
                lambda: self._is_closed or is_less or self._bulkhead.has_room(self._user, amount),
                seconds,
            )
            self._waits = False
            if self._is_closed or not fits:
                return False
            self._bulkhead.users += {self._user: amount}
            self.amount = amount
            return True

    def close(self) -> None:
        with self._bulkhead.changed:
            self._is_closed = True
            if self.amount or self._waits:
                self._give_back()

    def _give_back(self) -> None:
        # Which forgets a user who has none any more.
        self._bulkhead.users -= {self._user: self.amount}
        self.amount = 0
        self._bulkhead.changed.notify_all()
