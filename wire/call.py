"""A call to another server: its deadline, and hanging it up."""

import contextlib
import math
import socket
import threading
import time

from wire.faults import Fault, HungUp


class Call:
    """One call, with a deadline for all its tries together. Any thread can hang it up."""

    def __init__(self, seconds: float = math.inf) -> None:
        # `_end` is the deadline of the whole call, `deadline` that of what it is doing now.
        self._end = self.deadline = time.monotonic() + seconds
        self.answered = False  # the first byte of a response has arrived
        self._hung_up, self._lock = threading.Event(), threading.Lock()
        self._socket: socket.socket | None = None

    def check(self) -> None:
        """Raises HungUp if it was hung up, and a Fault if its deadline has passed."""
        if self._hung_up.is_set():
            raise HungUp
        if not self.remaining():
            raise Fault("silent")

    def pause(self, seconds: float) -> None:
        """Sleep. Raises HungUp as soon as the call is hung up."""
        if self._hung_up.wait(seconds):
            raise HungUp

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def set_timeout(self, seconds: float) -> None:
        """Set the deadline to so many seconds from now."""
        self.deadline = min(self._end, time.monotonic() + seconds)

    def limit_timeout(self, seconds: float) -> None:
        """Shorten the deadline to at most so many seconds from now."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)

    def hang_up(self) -> None:
        """Close the connection at once, even if no response has begun. Any thread may do so."""
        self._hung_up.set()
        # An OSError: the socket is closed already, here or by the other side.
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def connected(self, sock: socket.socket) -> None:
        """Remember the socket, to shut it down, by a duplicate of its file descriptor: TLS wraps it
        in another object, which its reader may close at any time."""
        duplicate = socket.fromfd(sock.fileno(), -1, -1)  # of the same family and type
        self.disconnected()
        with self._lock:
            self._socket = duplicate
        if self._hung_up.is_set():
            self.hang_up()

    def disconnected(self) -> None:
        """Forget the socket: it may serve another call now."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
