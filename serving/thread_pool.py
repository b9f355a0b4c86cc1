"""The threads that read requests and make answers, of which few run at a time.

The loop competes for the GIL with every runnable thread. So requests queue for a few slots. A
request that waits for a reply, for room or for a search gives up its slot (`release_slot`). If no
request has got a slot for a while, perhaps because the database does not answer, slots are added.
Threads are mostly started by other threads, not by the loop, since `Thread.start` waits until the
new thread has run.

New requests have priority over those in progress, such as ones with a long body: otherwise a client
that sends much would hold up all others. `GET /health` has threads of its own.
"""

import collections
import queue
import threading
import time
from collections.abc import Callable

from limits import THREAD_TTL, CachedThreads
from serving.connection import ClientConnection

SLOTS = 8  # requests that are worked on at a time: as many as database connections
STALL = 0.25  # seconds without a request getting a slot, after which slots are added
URGENT_MAX = 4  # threads for requests that must not queue
STALL_CHECK_INTERVAL = (
    0.05  # seconds between two calls of `add_slots_if_stalled` while requests queue
)
FAIRNESS = 4  # every fourth slot goes to a request in progress, even if new ones queue


class ThreadPool:
    """Up to `max_threads` threads. Each calls `answer` with a connection that has something to
    read, or more of an answer to make."""

    def __init__(self, max_threads: int, answer: Callable[[ClientConnection], None]) -> None:
        self._max_threads, self._answer = max_threads, answer
        # One None for each connection in the two deques below.
        self._queue: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._new: collections.deque[ClientConnection] = collections.deque()
        self._in_progress: collections.deque[ClientConnection] = collections.deque()
        self._slots, self._extra_slots = threading.Semaphore(SLOTS), 0
        self._lock, self._count, self._idle = threading.Lock(), 0, 0  # threads; idle ones
        self._taken, self._taken_at = 0, 0.0
        self._urgent_threads, self._urgent_slots = CachedThreads(), threading.Semaphore(URGENT_MAX)
        self._local = threading.local()

    def has_queue(self) -> bool:
        return not self._queue.empty()

    def answer_urgently(self, connection: ClientConnection) -> bool:
        """Answer this without queueing, in a reserved thread. Returns False if they are all busy,
        or the system has no more threads."""
        if not self._urgent_slots.acquire(blocking=False):
            return False
        try:
            self._urgent_threads.start(self._answer_urgent, connection)
        except RuntimeError:
            self._urgent_slots.release()
            return False
        return True

    def _answer_urgent(self, connection: ClientConnection) -> None:
        self._local.has_slot = False
        try:
            self._answer(connection)
        finally:
            self._urgent_slots.release()

    def answer(self, connection: ClientConnection, in_progress: bool = False) -> None:
        if self._queue.empty():
            self._taken_at = time.monotonic()
        (self._in_progress if in_progress else self._new).append(connection)
        self._queue.put(None)
        self._grow()

    def add_slots_if_stalled(self) -> None:
        """Double the slots if none became free for a while: the requests that have them seem to
        wait for something. Slots that are given up later are dropped until there are SLOTS
        again."""
        if not self._queue.empty() and time.monotonic() > self._taken_at + STALL:
            self._taken_at = time.monotonic()
            with self._lock:
                more = SLOTS + self._extra_slots
                self._extra_slots += more
            self._slots.release(more)
            self._grow()

    def release_slot(self) -> None:
        """Give up the slot of the calling thread, which is about to wait."""
        if self._local.has_slot:
            self._local.has_slot = False
            self._free_slot()
            self._grow()

    def _free_slot(self) -> None:
        with self._lock:
            if self._extra_slots:
                self._extra_slots -= 1
                return
        self._slots.release()

    def _grow(self) -> None:
        """Start one more thread, if requests queue and no thread is idle."""
        with self._lock:
            if self._idle or self._count >= self._max_threads or self._queue.empty():
                return
            self._count += 1
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError:  # the system has no more: a busy one will become free
            with self._lock:
                self._count -= 1

    def _work(self) -> None:
        while connection := self._take():
            self._local.has_slot = True
            self._grow()
            self._answer(connection)
            del connection  # it may be large, and the next one may come late
            if self._local.has_slot:
                self._free_slot()
        with self._lock:
            self._count -= 1

    def _take(self) -> ClientConnection | None:
        """Take a slot and the next connection. Returns None after THREAD_TTL seconds without a slot
        or a connection."""
        with self._lock:
            self._idle += 1
        try:
            if not self._slots.acquire(timeout=THREAD_TTL):
                return None
            try:
                self._queue.get(timeout=THREAD_TTL)
            except queue.Empty:
                self._free_slot()
                return None
            return self._next()
        finally:
            with self._lock:
                self._idle -= 1

    def _next(self) -> ClientConnection:
        with self._lock:
            self._taken, self._taken_at = self._taken + 1, time.monotonic()
            takes_in_progress = not self._new or (self._in_progress and self._taken % FAIRNESS == 0)
            return (self._in_progress if takes_in_progress else self._new).popleft()
