"""Limits: what a process carries at a time, by default as much as the machine allows."""

import collections
import contextlib
import os
import pathlib
import queue
import re
import threading

from werkzeug.exceptions import ServiceUnavailable

CONNECTIONS = 4096  # of a process where the machine allows as many; each may need two files, and 7/12 of a thread
OTHERS = 120  # threads of a process besides: those of titles, of the log, and so on
# Of a process; a worker of gunicorn sets the first three by the number of its connections, or threads.
REPLIES = 400  # under way; each has a thread, a connection to a provider, and some 100 kB
STREAMS = 400  # of replies
HELD = 240  # requests that wait for a reply, or search
TITLES = 100  # asked of a model at a time
SEARCHES = 2
THREAD_TTL = 60  # seconds


def fit(processes):
    """(connections of each of these processes, why it is so few, or None): as many as the files and threads allow."""
    import resource  # POSIX's own, as gunicorn is

    files, threads = 2 * CONNECTIONS, processes * (CONNECTIONS * 7 // 12 + OTHERS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] % 2**63  # endless is -1
    sizes = {None: CONNECTIONS, f"ulimit -Hn is {hard} files, raise it to {files}": hard // 2}
    for name, pattern in thread_limits():
        with contextlib.suppress(OSError, TypeError):  # there is none, or it is "max"
            most = int(re.search(pattern, pathlib.Path(name).read_text())[1])
            each = most // processes
            sizes[f"{name} says {most} threads, raise it to {threads}"] = (each - min(OTHERS, each // 4)) * 12 // 7
    why = min(sizes, key=sizes.get)
    return max(16, sizes[why]), why


def thread_limits():
    """(file, pattern): what may say how many threads there may be, of the system, of a user but root, and of control groups."""
    yield "/proc/sys/kernel/threads-max", "([0-9]+)"
    if os.geteuid():
        yield "/proc/self/limits", "Max processes +([0-9]+)"  # ulimit -u
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if not kinds or "pids" in kinds.split(","):
                group = pathlib.Path("/sys/fs/cgroup" + ("/pids" if kinds else "") + path)
                yield from ((f"{each}/pids.max", "([0-9]+)") for each in (group, *group.parents))


class Overloaded(ServiceUnavailable):
    """This process carries as much as it can; the text says what to do."""

    def __init__(self, message="The server has too much to do. Ask again in a moment."):
        super().__init__(message, retry_after=5)


class KeptThreads:
    """Threads that do one thing after the other, and end when idle for a while: to start one takes longer than many a thing."""

    def __init__(self):
        self._idle, self._things = threading.Semaphore(0), queue.SimpleQueue()

    def start(self, *thing):
        """Do this, a function and its arguments. Raises RuntimeError where the system gives no more threads."""
        if self._idle.acquire(blocking=False):
            self._things.put(thing)
        else:
            threading.Thread(target=self._work, args=thing, daemon=True).start()

    def _work(self, function, *arguments):
        while True:
            function(*arguments)
            self._idle.release()
            try:
                function, *arguments = self._things.get(timeout=THREAD_TTL)
            except queue.Empty:
                if self._idle.acquire(blocking=False):
                    return
                function, *arguments = self._things.get()  # is on its way


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
