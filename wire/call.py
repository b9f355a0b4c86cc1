"""A call to another server: its time, and its hang-up."""

import contextlib
import math
import socket
import threading
import time

from wire.faults import Fault, HungUp


class Call:
    """One call, which has so many seconds in all its tries, and can be hung up."""

    def __init__(self, seconds: float = math.inf) -> None:
        # Of all that the call may take; of what it does now.
        self._end = self.deadline = time.monotonic() + seconds
        self.answered = False  # the first byte of an answer has come
        self._hung_up, self._lock = threading.Event(), threading.Lock()
        self._socket: socket.socket | None = None

    def check(self) -> None:
        """Raises HungUp where it was hung up, and a Fault where its time is over."""
        self.pause(0)
        if not self.remaining():
            raise Fault("silent")

    def pause(self, seconds: float) -> None:
        """Wait. Raises HungUp where the call is hung up meanwhile."""
        if self._hung_up.wait(seconds):
            raise HungUp

    def remaining(self) -> float:
        """The seconds that it still has."""
        return max(0.0, self.deadline - time.monotonic())

    def allow(self, seconds: float) -> None:
        """Give the call so many seconds from now, in the place of those that it still had."""
        self.deadline = min(self._end, time.monotonic() + seconds)

    def hurry(self, seconds: float) -> None:
        """Leave the call so many seconds from now, where it had more."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)

    def hang_up(self) -> None:
        """Close the connection now, even where no answer has begun. Any thread may do so."""
        self._hung_up.set()
        # It is closed, or the other side was faster.
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def connected(self, sock: socket.socket) -> None:
        """Remember the connection by a duplicate: TLS puts another object in the place of its
        socket, and whoever reads that may close it."""
        duplicate = socket.fromfd(sock.fileno(), -1, -1)  # of the same family and type
        self.disconnected()
        with self._lock:
            self._socket = duplicate
        if self._hung_up.is_set():
            self.hang_up()

    def disconnected(self) -> None:
        """From here on the call cannot touch the connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
