"""Sockets that know the call that they serve: nothing that they do takes longer than it may.

What another side sends a byte at a time would have a timeout begin anew with each byte. So before
each read and each write, what is left of the call is the timeout.
"""

import contextlib
import errno
import io
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from urllib3.util.ssltransport import SSLTransport

from wire.call import Call

# A connection that its network has silently dropped is noticed: while it is idle after 40 seconds,
# when a request is sent on it after 10. In the middle of an answer, the network may be away for 40.
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}  # seconds, seconds, probes
LONG = 65536  # bytes of a request that another side may take slowly
PATIENCE, LONG_PATIENCE = 10_000, 60_000  # ms in which a request must be taken


class Reader(io.BufferedReader):
    """What http.client reads an answer by. When it is closed, it looks whether more than the answer
    has come."""

    def __init__(self, sock: "AnySocket", raw: Any) -> None:
        super().__init__(raw)
        self._socket = sock

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError), self._socket.without_waiting():
                self._socket.is_followed |= bool(self.peek(1))
            self._socket.take_reader()
        super().close()


class _Readable:
    """What both kinds of sockets have for http.client."""

    is_followed = False  # something came behind an answer
    _reader: Reader | None = None

    def makefile(self, *args: Any, **options: Any) -> Reader:
        """What http.client reads by. It asks for nothing else."""
        self._reader = Reader(self, super().makefile("rb", buffering=0))  # type: ignore[misc,arg-type]
        return self._reader

    def take_reader(self) -> Reader | None:
        """The one that was made last: a socket that kept it would keep itself."""
        reader, self._reader = self._reader, None
        return reader


class CallSocket(_Readable, socket.socket):  # type: ignore[misc]
    """A TCP connection."""

    call: Call | None = None  # none while it is idle

    def reach(self, address: Any, call: Call) -> None:
        """Connect to this address, for this call. Raises OSError."""
        self._watch_network()
        self.setblocking(False)
        code = self.connect_ex(address)
        self.serve(call)  # from here on it can be hung up: before, there was nothing to shut down
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            if not poll.poll(1000 * call.remaining()):
                raise TimeoutError("timed out")
            code = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _watch_network(self) -> None:
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not every system has all of them
                self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def serve(self, call: Call, size: int = 0) -> None:
        """Work for this call, which sends so many bytes."""
        self.call, self.is_followed = call, False
        call.connected(self)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # it counts, too, while a long request is not taken
            patience = LONG_PATIENCE if size > LONG else PATIENCE
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)

    def rest(self) -> None:
        """Nothing of the call outlives it."""
        self.call = None

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        call, self.call = self.call, None
        self.settimeout(0)
        try:
            yield
        finally:
            self.call = call

    def limit(self) -> None:
        """Let what is next take what is left of the call. Raises TimeoutError."""
        if self.call is not None:
            seconds = self.call.remaining()
            if not seconds:
                raise TimeoutError("the time of the call is over")
            self.settimeout(min(seconds, threading.TIMEOUT_MAX))

    def recv_into(self, *args: Any) -> int:
        self.limit()
        return super().recv_into(*args)

    def recv(self, *args: Any) -> bytes:
        self.limit()
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        self.limit()
        return super().send(*args)

    def sendall(self, *args: Any) -> None:
        self.limit()
        super().sendall(*args)


class TLSSocket(CallSocket, ssl.SSLSocket):  # type: ignore[misc]
    """Of a context whose `sslsocket_class` it is."""

    def send(self, *args: Any) -> int:
        """It sends 16 kB at a time."""
        try:
            return super().send(*args)
        except OSError as error:
            self._forget_errors()  # an answer may be there already, which is read next
            if getattr(error, "library", "") == "SYS":  # so CPython called it before that
                raise BrokenPipeError from error
            raise

    def close(self) -> None:
        super().close()
        self._forget_errors()

    def _forget_errors(self) -> None:
        """Have this thread's next read see nothing of an error that was raised here.

        OpenSSL has a queue of errors for each thread. Where the system failed a write, as behind a
        hang-up, CPython raises an OSError and leaves the error in the queue (python/cpython#127257,
        since 3.11.12, 3.12.9 and 3.13.2). Then a read of another connection, which only had to
        wait, raises it once more: SSL_get_error looks into the queue first (python/cpython#148594).
        CPython empties it where it makes a TLS object; here one of no use is made.
        """
        self.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


class TLSWithinTLS(_Readable, SSLTransport):
    """TLS to a server, through a proxy to which TLS is spoken. `outer` is the socket to that."""

    def __init__(self, outer: TLSSocket, context: ssl.SSLContext, name: str) -> None:
        self.outer = outer
        super().__init__(outer, context, name)

    @property
    def call(self) -> Call | None:
        return self.outer.call

    def serve(self, call: Call, size: int = 0) -> None:
        self.is_followed = False
        self.outer.serve(call, size)

    def rest(self) -> None:
        self.outer.rest()

    def without_waiting(self) -> contextlib.AbstractContextManager[None]:
        return self.outer.without_waiting()


AnySocket = CallSocket | TLSWithinTLS


def is_quiet(sock: AnySocket) -> bool:
    """Whether nothing has come, not even an end."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)
