"""A client's connection: what has arrived of its request, and what is still to be sent of the
answer. Nobody waits for the client here.

Either the loop has it or a thread, never both.
"""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

from gunicorn.http import Request, errors
from gunicorn.http.unreader import Unreader
from gunicorn.http.wsgi import Response

from settings import UNIX

AT_ONCE = 65536  # bytes that are received at a time
GIVEN = 8192  # bytes of a request that gunicorn is given at a time
HEAD = 65536  # bytes that a head may have; gunicorn's time for one grows with the square of it
FRAMING = 8  # bytes that one of a body may take with what frames it in chunks
MOST_FRAMED = 2**20  # bytes that are framed one by one at most; a longer body has longer chunks
LINE = 8192  # bytes that the line before a chunk may have, by gunicorn's own limit
NEW = 4096  # bytes of a head without the end of a line, from which on it is read all the same
UNWANTED = 65536  # bytes of a body that nobody reads are taken from a connection that goes on
UNSENT = 65536  # bytes of an answer that the system holds ready, besides what is on its way
PIECE = 65536  # bytes of an answer that are made at a time, and of a stream before others are sent
UNKNOWN = -1
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,32}(?=[\s;])")


class NotYet(BaseException):
    """More of a request is wanted than has arrived. No `except Exception` on the way takes it for a
    fault: whatever asked is asked again, from its beginning, once there is more."""


class Source(Unreader):
    """What gunicorn reads a request from: all that has arrived of it, from its beginning."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__()
        self._connection, self._position, self._is_over = connection, 0, False
        self.end = 0  # of what gunicorn has taken: of the head, once it has read that

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What follows, a little at a time: gunicorn copies all that it has been given with each
        chunk of a body. Nothing where the client has ended, or has sent too much. What is long is
        left to the loop, which counts it."""
        connection = self._connection
        if self._is_over:
            return b""
        if self._position == len(connection.received) and not connection.has_all_there_is():
            if self._position >= AT_ONCE or not connection.receive():
                raise NotYet
        end = self._position + max(size_hint or 0, GIVEN)
        piece = bytes(connection.received[self._position : end])
        self._position += len(piece)
        return piece

    def unread(self, data: bytes) -> None:
        """gunicorn gives back what it was given too much."""
        super().unread(data)
        self.end = self._position - len(data)

    def rest(self) -> bytearray:
        """What has arrived behind what was read."""
        behind = self._connection.received[self._position :]
        self._position = len(self._connection.received)
        self._is_over = True  # `read` returns what was unread, and looks no further
        return bytearray(self.read()) + behind


class Connection:
    """A body has at most `longest_body` bytes, unless the application wants another one."""

    def __init__(
        self, accepted: socket.socket, address: Any, server: Any, longest_body: int
    ) -> None:
        self.socket, self.address, self.server = accepted, address, server
        self._usual_body = longest_body
        accepted.setblocking(False)
        with contextlib.suppress(OSError):  # it is not TCP
            # Else the system takes megabytes, and long does not tell that some of them were read.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self.has_ended = False  # the client sends nothing more
        self.unsent = bytearray()  # of the answer
        self.number = 0  # of the request
        self.next_request(bytearray())

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on. Its handshake is part of what is received."""
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def next_request(self, received: bytearray) -> None:
        """Forget the request that was answered; so much of the next has arrived."""
        self.number += 1
        self.received = received
        self.began = self.heard = time.monotonic()
        self._source: Any = Source(self)
        self.request: Any = None  # gunicorn's own
        self.response: Any = None
        self.frames: Iterator[bytes] | None = None  # of the event stream that is the answer
        self.parts: Iterator[bytes] | None = None  # of another answer, while more is to be made
        self._body: Any = None  # what these are of
        self.is_kept = False  # for another request
        self._searched = self._tried = 0  # bytes of a head that has no end; when it was last read
        self._head_end = 0
        self._is_read = False  # all of the request; `received` is what follows it
        # Where the body ends, once it is wanted; of one in chunks, where its next chunk begins.
        self._end = UNKNOWN
        self._is_chunked, self._body_size = False, 0
        self._allow_body(self._usual_body)

    def _allow_body(self, longest: int) -> None:
        """The body may have so many bytes; a request, what frames them besides."""
        framing = (FRAMING - 1) * min(longest, MOST_FRAMED)
        self._longest_body, self._longest = longest, HEAD + longest + framing

    def size(self) -> int:
        """The bytes that are held for the client."""
        return len(self.received) + len(self.unsent)

    def shut(self) -> None:
        """Say that nothing more is sent. Raises OSError where the client has gone."""
        if isinstance(self.socket, ssl.SSLSocket):
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.socket.unwrap()  # it is not waited for the client's own word
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        try:
            self.end_answer()
        finally:
            self.socket.close()
            # These hold the connection in turn: all of it would stay until Python looks for cycles.
            self._source = self.request = self.response = None
            self.received, self.unsent = bytearray(), bytearray()

    # What the client sends

    def receive(self) -> bool:
        """Take what has arrived; returns whether anything has, be it the end."""
        try:
            data = self.socket.recv(AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # it was reset, or breaks TLS: nothing more may be read of that
            data = b""
        self.heard = time.monotonic()
        if not self.received:
            self.began = self.heard
        self.received += data
        self.has_ended = not data
        return True

    def begins_with(self, line: bytes) -> bool:
        """Whether the next request does, as far as that can be seen without reading it: in TLS it
        cannot."""
        if self.received or isinstance(self.socket, ssl.SSLSocket):
            return self.received.startswith(line)
        try:
            return self.socket.recv(len(line), socket.MSG_PEEK) == line
        except OSError:  # nothing has come, or the client has gone
            return False

    def drop(self) -> bool:
        """Take what has arrived, which nobody wants; returns whether the client has ended."""
        try:
            return not self.socket.recv(AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # it was reset
            return True

    def has_all_there_is(self) -> bool:
        """Whether nothing more is taken: the client has ended, or has sent too much."""
        return self.has_ended or len(self.received) >= self._longest

    def has_all(self) -> bool:
        """Whether all that is wanted may have arrived, or nothing more of it is taken."""
        if self.has_all_there_is():
            return True
        if self._end == UNKNOWN:
            return self._has_head()
        return self._has_chunks() if self._is_chunked else len(self.received) >= self._end

    def _has_head(self) -> bool:
        """Whether the head should be read: its end is there, or its first line, which may be wrong;
        or it has become twice as long, which may be too much."""
        size, start = len(self.received), max(0, self._searched - 3)
        self._searched = size
        has_end = self.received.find(b"\r\n\r\n", start) >= 0
        is_first = not self._tried and self.received.find(b"\n", start) >= 0
        if has_end or is_first or size >= 2 * max(self._tried, NEW):
            self._tried = size
            return True
        return False

    def _has_chunks(self) -> bool:
        """Whether the last chunk has arrived, with the trailers behind it (RFC 9112, section 7.1);
        or more than a body may have, or what is no chunk: who reads it says so."""
        while (line := self.received.find(b"\r\n", self._end)) >= 0:
            size = CHUNK_SIZE.match(self.received, self._end)
            if size is None:
                return True
            count, left = int(size[0], 16), self._longest_body - self._body_size
            if not count:
                has_end = self.received.find(b"\r\n\r\n", line) >= 0
                return has_end or len(self.received) > line + HEAD
            if count > left:
                return len(self.received) > line + 2 + left
            self._body_size += count
            self._end = line + 2 + count + 2
        return len(self.received) > self._end + LINE

    def read_head(self, cfg: Any) -> None:
        """Read the request from its beginning. Raises NotYet, or what is wrong with it."""
        if len(self.received) > HEAD and self.received.find(b"\r\n\r\n", 0, HEAD) < 0:
            raise errors.LimitRequestHeaders("of a head")
        self._source = Source(self)
        self.request = Request(cfg, self._source, self.address, self.number)
        self._head_end = self._source.end
        if self._head_end > HEAD:
            raise errors.LimitRequestHeaders("of a head")

    def head(self) -> bytes:
        """The head of the request, as it was sent: gunicorn drops a header with `_` in its name."""
        return bytes(self.received[: self._head_end])

    def peer(self) -> str:
        """The address of who has connected, whatever a header or the PROXY protocol says; UNIX
        for a socket of Unix, whose clients choose a name themselves, if any."""
        return str(self.address[0]) if isinstance(self.address, tuple) else UNIX

    def want_body(self, environ: dict[str, Any]) -> None:
        """The body is wanted, and has not all arrived."""
        self._is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._body_size = 0
        self._allow_body(environ.get("parley.longest_body", self._usual_body))
        length = 0 if self._is_chunked else int(environ.get("CONTENT_LENGTH", 0))
        self._end = self._head_end + length

    def wants_body(self) -> bool:
        """Whether the body has been asked for."""
        return self._end != UNKNOWN

    def has_whole_body(self) -> bool:
        """Whether all of the body has arrived, so that another request may follow. What nobody has
        read of it is dropped."""
        try:
            rest = self.request.body.read(UNWANTED + 1)
        except (NotYet, OSError, errors.ParseException):
            return False
        return len(rest) <= UNWANTED and len(self.received) < self._longest

    def forget_request(self) -> None:
        """All of it has been read. What has arrived behind it is kept."""
        if not self._is_read:
            self._is_read, self.received = True, self._source.rest()

    # What the client is sent

    def send(self, data: bytes) -> None:
        """gunicorn says `100 Continue` by this, each time that it is asked to make an environ."""
        if self._end == UNKNOWN:
            with contextlib.suppress(OSError):
                self.socket.send(data)

    def sendall(self, data: bytes) -> None:
        """gunicorn says all else by this."""
        self.unsent += data

    def flush(self) -> None:
        """Send as much as the client takes. Raises OSError where it has gone, or has not come to
        the end of its handshake."""
        try:
            while self.unsent:
                with memoryview(self.unsent) as unsent:
                    count = self.socket.send(unsent)
                del self.unsent[:count]
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass

    def begin_answer(self, response: Response, body: Any, is_stream: bool) -> None:
        """The answer is this, what the application returned (PEP 3333)."""
        self.response, self._body, self.is_kept = response, body, not response.should_close()
        self.forget_request()
        if is_stream:
            self.frames = iter(body)
        else:
            self.parts = iter(body)

    def make(self) -> None:
        """Make a piece of the answer, or the rest of it; of a stream, nothing."""
        if self.parts is None:
            return
        for part in self.parts:
            self.response.write(part)
            if len(self.unsent) >= PIECE and not self._is_whole():
                return
        self.end_answer()
        self.response.close()

    def _is_whole(self) -> bool:
        """Whether nothing more of the answer is to be made, as its length tells."""
        length = self.response.response_length
        return length is not None and self.response.sent >= length

    def send_some(self) -> bool:
        """Send what there is, as far as the client takes it: of an event stream, a piece at a time.
        Returns whether there is more of that at once. Raises OSError where the client has gone."""
        self.flush()
        size = 0
        while self.frames is not None and not self.unsent and size < PIECE:
            frame = next(self.frames, None)
            if frame == b"":  # there is nothing more yet
                return False
            if frame is None:
                self.end_answer()
                self.response.close()
            else:
                self.response.write(frame)
                size += len(frame)
            self.flush()
        return self.frames is not None and not self.unsent

    def end_answer(self) -> None:
        """Give back what the answer holds; nothing more is made of it."""
        body, self._body = self._body, None
        self.frames = self.parts = None
        if hasattr(body, "close"):
            body.close()
