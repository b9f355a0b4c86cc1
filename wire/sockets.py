"""Sockets that know their call, and never take longer than its deadline.

A peer that drips bytes would reset a plain timeout with each byte. So before each read and write,
the timeout is set to what is left of the call.
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

# How soon we notice that the network has silently dropped a connection: an idle one, or one in the
# middle of a response, after 40 seconds; one on which a request is being sent, after 10.
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}  # seconds, seconds, probes
LONG_BODY = 65536  # bytes of a request; a longer one may take the server longer to acknowledge
SEND_TIMEOUT, LONG_SEND_TIMEOUT = 10_000, 60_000  # ms until sent bytes must be acknowledged


class Reader(io.BufferedReader):
    """http.client reads a response from this. When http.client closes it, it checks whether bytes
    have arrived after the response."""

    def __init__(self, sock: "AnySocket", raw: Any) -> None:
        super().__init__(raw)
        self._socket = sock

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError), self._socket.without_waiting():
                self._socket.is_followed |= bool(self.peek(1))
            self._socket.take_reader()
        super().close()


class _MakesReader:
    """What http.client needs of both kinds of sockets."""

    is_followed = False  # bytes came after the response
    _reader: Reader | None = None

    def makefile(self, *args: Any, **options: Any) -> Reader:
        """A Reader; http.client calls this with "rb" only."""
        self._reader = Reader(self, super().makefile("rb", buffering=0))  # type: ignore[misc,arg-type]
        return self._reader

    def take_reader(self) -> Reader | None:
        """The Reader that was made last, which the socket forgets: they refer to each other."""
        reader, self._reader = self._reader, None
        return reader


class CallSocket(_MakesReader, socket.socket):  # type: ignore[misc]
    """A TCP connection."""

    call: Call | None = None  # None while the connection is idle

    def reach(self, address: Any, call: Call) -> None:
        """Connect to this address, for this call. Raises OSError."""
        self._set_options()
        self.setblocking(False)
        code = self.connect_ex(address)
        self.serve(call)  # from here on it can be hung up: there is a connection to shut down
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            if not poll.poll(1000 * call.remaining()):
                raise TimeoutError("timed out")
            code = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _set_options(self) -> None:
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not every system has all of them
                self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def serve(self, call: Call, size: int = 0) -> None:
        """Serve this call, whose request has a body of `size` bytes."""
        self.call, self.is_followed = call, False
        call.connected(self)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # also while a request is being sent
            timeout = LONG_SEND_TIMEOUT if size > LONG_BODY else SEND_TIMEOUT
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout)

    def become_idle(self) -> None:
        """Become idle."""
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
        """Set the timeout to what is left of the call. Raises TimeoutError if that is nothing."""
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
    """TLS on a CallSocket; the context's `sslsocket_class` names it."""

    def send(self, *args: Any) -> int:
        """Send up to 16 kB, a TLS record."""
        try:
            return super().send(*args)
        except OSError as error:
            self._forget_errors()  # a response may be there already, to be read next
            if getattr(error, "library", "") == "SYS":  # a BrokenPipeError before gh-127257
                raise BrokenPipeError from error
            raise

    def close(self) -> None:
        super().close()
        self._forget_errors()

    def _forget_errors(self) -> None:
        """Clear OpenSSL's error queue of this thread, so that its next read does not raise an error
        that was raised here already.

        If a write fails in the system, as after a hang-up, CPython raises an OSError but leaves the
        error in the queue (python/cpython#127257, since 3.11.12, 3.12.9 and 3.13.2). Then a read on
        another connection, which only has to wait, raises it again, since SSL_get_error looks into
        the queue first (python/cpython#148594). CPython clears the queue when it makes a TLS
        object, so we make one and drop it.
        """
        self.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


class TLSWithinTLS(_MakesReader, SSLTransport):
    """TLS to a server, within the TLS to a proxy. `outer` is the socket to the proxy."""

    def __init__(self, outer: TLSSocket, context: ssl.SSLContext, name: str) -> None:
        self.outer = outer
        super().__init__(outer, context, name)

    @property
    def call(self) -> Call | None:
        return self.outer.call

    def serve(self, call: Call, size: int = 0) -> None:
        self.is_followed = False
        self.outer.serve(call, size)

    def become_idle(self) -> None:
        self.outer.become_idle()

    def without_waiting(self) -> contextlib.AbstractContextManager[None]:
        return self.outer.without_waiting()


AnySocket = CallSocket | TLSWithinTLS


def is_quiet(sock: AnySocket) -> bool:
    """Whether nothing has arrived, not even an end."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)
