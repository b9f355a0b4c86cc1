"""The threads that receive requests and make answers, of which few run at a time.

Of many threads that want to run, Python lets one run after the other, and the loop would be one of
these: it would have its turn seldom. So requests queue for a few slots. Whoever waits for a reply,
for room or for a search gives its slot up; and where nobody has taken a request for a while, as
where the database does not answer, there are more of them. A thread is started by another one where
that can be: to start one takes until it has run.

Who begins comes before who goes on, such as with a long body: else those who send much at a time
would be in front of all others. `GET /health` has threads of its own.
"""

import collections
import queue
import threading
import time
from collections.abc import Callable

from limits import THREAD_TTL, CachedThreads
from serving.connection import Connection

SLOTS = 8  # requests that are answered at a time: as many as there are connections to the database
WHILE = 0.25  # seconds in which no request was taken, behind which there are more slots
RESERVED = 4  # threads that only answer what is not to wait for other requests
SOON = 0.05  # seconds after which it is looked whether that is so
FAIR = 4  # of so many who are taken, one goes on, whoever begins meanwhile


class AnswerThreads:
    """Up to so many, each of which calls `answer` with a connection that has something to read, or
    an answer that goes on."""

    def __init__(self, most: int, answer: Callable[[Connection], None]) -> None:
        self._most, self._answer = most, answer
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()  # as many as there are in these
        self._beginning: collections.deque[Connection] = collections.deque()
        self._going_on: collections.deque[Connection] = collections.deque()
        self._slots, self._lent = threading.Semaphore(SLOTS), 0  # those that are too many
        self._lock, self._count, self._idle = threading.Lock(), 0, 0  # threads; those without work
        self._taken, self._taken_at = 0, 0.0
        self._reserve, self._reserved = CachedThreads(), threading.Semaphore(RESERVED)
        self._local = threading.local()

    def have_queue(self) -> bool:
        return not self._queue.empty()

    def answer_at_once(self, connection: Connection) -> bool:
        """Have this answered past the queue and the slots, if few such are being answered and the
        system has a thread; returns whether it is."""
        if not self._reserved.acquire(blocking=False):
            return False
        try:
            self._reserve.start(self._answer_reserved, connection)
        except RuntimeError:
            self._reserved.release()
            return False
        return True

    def _answer_reserved(self, connection: Connection) -> None:
        self._local.has_slot = False
        try:
            self._answer(connection)
        finally:
            self._reserved.release()

    def answer(self, connection: Connection, goes_on: bool = False) -> None:
        if self._queue.empty():
            self._taken_at = time.monotonic()
        (self._going_on if goes_on else self._beginning).append(connection)
        self._queue.put(None)
        self._grow()

    def look(self) -> None:
        """Lend as many slots as there are, if all are taken by those who seem to wait."""
        if not self._queue.empty() and time.monotonic() > self._taken_at + WHILE:
            self._taken_at = time.monotonic()
            with self._lock:
                more = SLOTS + self._lent
                self._lent += more
            self._slots.release(more)
            self._grow()

    def rest(self) -> None:
        """The thread that calls this waits: its slot is another's."""
        if self._local.has_slot:
            self._local.has_slot = False
            self._give_back()
            self._grow()

    def _give_back(self) -> None:
        with self._lock:
            if self._lent:
                self._lent -= 1
                return
        self._slots.release()

    def _grow(self) -> None:
        """One more thread, where none is idle."""
        with self._lock:
            if self._idle or self._count >= self._most or self._queue.empty():
                return
            self._count += 1
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError:  # the system has no more of them: one will be free
            with self._lock:
                self._count -= 1

    def _work(self) -> None:
        while connection := self._take():
            self._local.has_slot = True
            self._grow()
            self._answer(connection)
            del connection  # it may be large, and the next one far away
            if self._local.has_slot:
                self._give_back()
        with self._lock:
            self._count -= 1

    def _take(self) -> Connection | None:
        """The next one, in a slot; none where there is none for long."""
        with self._lock:
            self._idle += 1
        try:
            if not self._slots.acquire(timeout=THREAD_TTL):
                return None
            try:
                self._queue.get(timeout=THREAD_TTL)
            except queue.Empty:
                self._give_back()
                return None
            return self._next()
        finally:
            with self._lock:
                self._idle -= 1

    def _next(self) -> Connection:
        with self._lock:
            self._taken, self._taken_at = self._taken + 1, time.monotonic()
            is_turn = not self._beginning or (self._going_on and self._taken % FAIR == 0)
            return (self._going_on if is_turn else self._beginning).popleft()
