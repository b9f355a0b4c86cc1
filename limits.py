"""Limits: how much a process does at a time; by default, as much as the machine allows."""

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
# Per process. A gunicorn worker sets the first four, and STRANGERS, by its connections and threads.
REPLIES = 400  # in progress; each has a thread, a connection to a provider, and some 100 kB
STREAMS = 400  # event streams of replies
IN_LINE = 300  # requests of one user that queue for others of the same user
HELD = 240  # requests that wait for a reply, or search
TITLES = 100  # requests to a model for a title
SEARCHES = 2
TEXTS = 2**28  # bytes of large texts in memory
SMALL = 2**14  # bytes; smaller texts are not counted
COPIES = 2  # of a text in memory: itself, and what is sent of it
IMPORT_SIZE = 16  # how many times as large as other bodies an import may be
IMPORTS = 2  # imports and forks; one per user
UPLOADS = 4  # two per user
EXPORTS = 4  # pages of exports; two per user
STRANGERS = 16  # unauthenticated requests that wait for OpenID Connect discovery
DOCUMENTS = 2  # long answers made in pieces from the database; one per user
# Requests of one user that are answered at a time, by method. Together they leave some of the
# process's database connections to other users.
OF_ONE_USER = {"GET": 3, "DELETE": 1}
OTHERS_OF_ONE_USER = 3
THREAD_TTL = 60  # seconds


BUSY = "The server has too much to do. Ask again in a moment."


def import_size(settings: Mapping[str, Any]) -> int:
    """The size in bytes that an import may have."""
    return IMPORT_SIZE * int(settings["MAX_CONTENT_LENGTH"])


def file_line_size(settings: Mapping[str, Any]) -> int:
    """The size in bytes that the line of a file may have in an export: it is in base64."""
    return 4 * int(settings["MAX_FILE"]) // 3 + 1024


class Capacity(NamedTuple):
    """How many connections a process can have."""

    connections: int
    why_so_few: str | None  # a sentence, if the machine allows fewer than usual


def fit(most: int) -> Capacity:
    """Up to `most` connections for a process, as its limit of open files allows: each may need
    two."""
    import resource  # POSIX only, like gunicorn

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] % 2**63  # -1 means unlimited
    if hard >= 2 * most:
        return Capacity(most, None)
    why = f"ulimit -Hn is {hard} files, raise it to {2 * most}"
    return Capacity(max(LEAST_CONNECTIONS, hard // 2), why)


class Overloaded(ServiceUnavailable):
    """This process has as much to do as it can; the message says what to do."""

    def __init__(self, message: str = BUSY) -> None:
        super().__init__(message, retry_after=5)


class CachedThreads:
    """An unbounded pool: as many threads as there are tasks. They are reused, since to start one
    may take longer than its task, and end after THREAD_TTL seconds without one."""

    def __init__(self) -> None:
        self._idle, self._tasks = threading.Semaphore(0), queue.SimpleQueue()

    def start(self, *task: Any) -> None:
        """Call a function with its arguments in a thread. Raises RuntimeError if the system has no
        more threads."""
        if self._idle.acquire(blocking=False):
            self._tasks.put(task)
        else:
            threading.Thread(target=self._work, args=([task],), daemon=True).start()

    def _work(self, first: list) -> None:
        function, *arguments = first.pop()  # Thread itself keeps `first` for as long as it runs
        while True:
            function(*arguments)
            del function, arguments  # they may be large, and the next task may come late
            self._idle.release()
            try:
                function, *arguments = self._tasks.get(timeout=THREAD_TTL)
            except queue.Empty:
                if self._idle.acquire(blocking=False):
                    return
                function, *arguments = self._tasks.get()  # `start` is just putting it


def memory_of(texts: Iterable[str | None]) -> int:
    """The memory in bytes that the copies of these texts take, up to four per character; 0 if they
    are small, since only large texts have to wait for each other."""
    size = sum(sys.getsizeof(text) for text in texts if text)
    return COPIES * size if size > SMALL else 0


class Bulkhead:
    """A bounded resource of a process, of which one user gets at most half, so that nobody can fill
    it for all others. A request for more than that waits until it has the bulkhead, or its user's
    share, to itself.

    With a size of 100: Alice has 50, Bob may have 50 more, and the next request of either waits."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.users: collections.Counter[str] = collections.Counter()  # what each user has
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, user: str, seconds: float = 0, refusal: str = BUSY) -> Iterator[None]:
        """Take 1 of it within this context. Raises Overloaded if there is no room within these
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
    """The queue of one user's requests: a few are answered at a time, and some others wait."""

    def __init__(self, at_a_time: int, most_waiting: int) -> None:
        self.places = threading.Semaphore(at_a_time)
        self.room = threading.Semaphore(most_waiting)


class Lines:
    """Three queues for each user: for requests that only read, which need not wait while the
    database takes no writes; for deletions, which people send by the dozen; and for all others."""

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._lock = threading.Lock()
        # A queue goes when no request has it any more.
        self._lines: weakref.WeakValueDictionary[tuple[str, str], Line]
        self._lines = weakref.WeakValueDictionary()

    def of(self, user: str, method: str) -> Line:
        """The queue of a user for requests of this method. Keep it until the request is done."""
        kind = method if method in OF_ONE_USER else ""
        at_a_time = OF_ONE_USER.get(method, OTHERS_OF_ONE_USER)
        with self._lock:
            return self._lines.setdefault((user, kind), Line(at_a_time, self.most_waiting))


class Slot:
    """One user's share of a bulkhead for one purpose. It starts with nothing, and `close`, from any
    thread, gives back all."""

    def __init__(self, bulkhead: Bulkhead, user: str) -> None:
        self.amount, self._bulkhead, self._user = 0, bulkhead, user
        self._is_closed = self._is_waiting = False

    def take(self, amount: int, seconds: float = 0) -> bool:
        """Take this amount instead of the old one, waiting up to these seconds. Meanwhile the old
        amount is free for others, so that no two slots deadlock. Returns whether there was room, as
        there always is for less; if not, the slot has nothing."""
        with self._bulkhead.changed:
            if amount == self.amount == 0:  # the usual case
                return not self._is_closed
            is_less = amount <= self.amount
            if self.amount:
                self._give_back()
            self._is_waiting = True
            fits = self._bulkhead.changed.wait_for(
                lambda: self._is_closed or is_less or self._bulkhead.has_room(self._user, amount),
                seconds,
            )
            self._is_waiting = False
            if self._is_closed or not fits:
                return False
            self._bulkhead.users += {self._user: amount}
            self.amount = amount
            return True

    def close(self) -> None:
        with self._bulkhead.changed:
            self._is_closed = True
            if self.amount or self._is_waiting:
                self._give_back()

    def _give_back(self) -> None:
        # Counter subtraction also drops users with nothing left.
        self._bulkhead.users -= {self._user: self.amount}
        self.amount = 0
        self._bulkhead.changed.notify_all()
