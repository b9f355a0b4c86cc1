"""The connection of a client: a thread waits for it within limits, and not all threads do at once."""

import contextlib
import errno
import socket
import threading
import time

from urllib3.util import wait_for_read, wait_for_write
from werkzeug.exceptions import RequestTimeout

REQUEST = 60  # seconds in which a request must be whole
SILENCE = 30  # seconds in which a client that is waited for must send or take something
UNSENT = 65536  # bytes of an answer that the system holds ready, besides what is on its way


class ClientSocket(socket.socket):
    """The connection of a client. For the system it never blocks; where gunicorn has it block, it waits with limits."""

    waiting = set()  # those that a thread waits for
    most_waiting = 1  # for one more, the one that has kept its thread for the longest is given up
    lock = threading.Lock()  # over these

    def __init__(self, accepted):
        super().__init__(fileno=accepted.detach())
        super().setblocking(False)
        with contextlib.suppress(OSError):  # it is not TCP
            # Else the system takes megabytes, and long does not tell that some of them were read.
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def setblocking(self, flag):
        """gunicorn says True when a thread begins to read a request, and False when the poller is to watch."""
        self.blocking = flag
        self.deadline = time.monotonic() + (REQUEST if flag else threading.TIMEOUT_MAX)

    def recv(self, size, flags=0):
        """Raises RequestTimeout where the client is too slow."""
        while (now := time.monotonic()) < self.deadline:
            try:
                return super().recv(size, flags)
            except BlockingIOError:
                if not self.blocking:
                    raise
            if not self._wait(wait_for_read, self.deadline - REQUEST, min(SILENCE, self.deadline - now)):
                break
        raise RequestTimeout

    def sendall(self, data, flags=0):
        """Raises ConnectionResetError, about which gunicorn is quiet, where the client takes nothing any more."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.send(rest, flags) :]
            except BlockingIOError:
                if not self._wait(wait_for_write, time.monotonic(), SILENCE):
                    raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing") from None

    def _wait(self, wait, since, seconds):
        """Wait until the client lets the thread go on; returns whether it does so within these seconds."""
        self.since, self.is_read = since, wait is wait_for_read
        with self.lock:
            self.waiting.add(self)
            if len(self.waiting) > self.most_waiting:
                min(self.waiting, key=lambda client: client.since)._give_up()
        try:
            return wait(self, seconds)  # by poll, which takes no descriptor
        finally:
            with self.lock:
                self.waiting.discard(self)

    def _give_up(self):
        """End the waiting of its thread: a client that sent too little is told so, one that takes nothing cannot be."""
        self.waiting.discard(self)
        self.deadline = 0
        with contextlib.suppress(OSError):  # it has gone
            self.shutdown(socket.SHUT_RD if self.is_read else socket.SHUT_RDWR)
