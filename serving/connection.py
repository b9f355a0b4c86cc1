"""A client's connection: what has arrived of its request, and what is still to be sent of the
answer. Nothing here blocks.

At any time either the loop or one thread uses a connection, never both.
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

RECV_SIZE = 65536  # bytes per recv()
PARSER_READ_SIZE = 8192  # bytes that gunicorn gets per read of a request
HEAD_MAX = 65536  # bytes of a head at most; gunicorn parses one in quadratic time
TINY_CHUNK_SIZE = 8  # bytes on the wire per byte of a chunked body, at worst: chunks of one byte
TINY_CHUNKS_MAX = 2**20  # bytes of a body that may come in such chunks; the rest needs longer ones
CHUNK_LINE_MAX = 8192  # bytes of the line before a chunk at most, as in gunicorn
HEAD_CHECK_SIZE = 4096  # bytes; a head twice as long is parsed before its end: it may be too long
UNREAD_BODY_MAX = 65536  # bytes of an unread body that are dropped to keep the connection alive
NOTSENT_MAX = 65536  # bytes in the system's send buffer, besides those on their way
SLICE = 65536  # bytes of an answer, or of a stream, before it is another client's turn
UNKNOWN = -1
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,32}(?=[\s;])")


class NeedMoreData(BaseException):
    """More of the request is needed than has arrived. Once there is more, the application is called
    again from the start. A BaseException, so that no `except Exception` on the way catches it."""


class RequestReader(Unreader):
    """gunicorn reads a request from this: all bytes that have arrived of it, from the first."""

    def __init__(self, connection: "ClientConnection") -> None:
        super().__init__()
        self._connection, self._position, self._is_over = connection, 0, False
        self.end = 0  # how far gunicorn has read: to the end of the head, once it has parsed it

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes, a few at a time, since gunicorn copies all that it holds with each chunk
        of a body. Empty if the client has ended or has sent too much. Raises NeedMoreData if no
        more has arrived, or if the body is long: the loop receives that, and counts its memory."""
        connection = self._connection
        if self._is_over:
            return b""
        if self._position == len(connection.received) and not connection.is_input_over():
            if self._position >= RECV_SIZE or not connection.receive():
                raise NeedMoreData
        end = self._position + max(size_hint or 0, PARSER_READ_SIZE)
        piece = bytes(connection.received[self._position : end])
        self._position += len(piece)
        return piece

    def unread(self, data: bytes) -> None:
        """gunicorn gives back the bytes that it did not need."""
        super().unread(data)
        self.end = self._position - len(data)

    def take_rest(self) -> bytearray:
        """The bytes that have arrived after the request."""
        after = self._connection.received[self._position :]
        self._position = len(self._connection.received)
        self._is_over = True  # now `read` returns what gunicorn gave back, and no more
        return bytearray(self.read()) + after


class ClientConnection:
    """A connection of a client. A request's body may have `longest_body` bytes, unless the
    application sets another limit in `parley.longest_body`."""

    def __init__(
        self, accepted: socket.socket, address: Any, server: Any, longest_body: int
    ) -> None:
        self.socket, self.address, self.server = accepted, address, server
        self._usual_body = longest_body
        accepted.setblocking(False)
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            # By default the system buffers megabytes, and says only late that it can take more: a
            # client that reads slowly would seem to read nothing.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_MAX)
        self.has_ended = False  # the client sends nothing more
        self.unsent = bytearray()  # of the answer
        self.number = 0  # of the request on this connection
        self.next_request(bytearray())

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on. `receive` does the handshake."""
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def next_request(self, received: bytearray) -> None:
        """Forget the request that was answered; `received` is what has arrived of the next."""
        self.number += 1
        self.received = received
        self.began = self.heard = time.monotonic()  # when its first, and its last, byte arrived
        self._reader: Any = RequestReader(self)
        self.request: Any = None  # gunicorn's own
        self.response: Any = None
        self.frames: Iterator[bytes] | None = None  # of the event stream that is the answer
        self.parts: Iterator[bytes] | None = None  # of another answer, while more is to be made
        self._app_iter: Any = None  # what the application returned
        self.is_kept = False  # alive, for another request
        # How many bytes were searched for the end of the head; and had arrived when it was last
        # parsed.
        self._searched_size = self._parsed_size = 0
        self._head_end = 0
        self._is_read = False  # all of the request; `received` is what follows it
        # The position at which the body ends, once the application wants it; of a chunked one, the
        # position of the first chunk that is not there yet.
        self._body_end = UNKNOWN
        self._is_chunked, self._body_size = False, 0
        self._allow_body(self._usual_body)

    def _allow_body(self, longest: int) -> None:
        """Set the limit of the body, and that of all bytes of the request."""
        framing = (TINY_CHUNK_SIZE - 1) * min(longest, TINY_CHUNKS_MAX)
        self._longest_body, self._longest_request = longest, HEAD_MAX + longest + framing

    def size(self) -> int:
        """The bytes in memory."""
        return len(self.received) + len(self.unsent)

    def shut_down(self) -> None:
        """Shut down our side. Raises OSError if the client has gone."""
        if isinstance(self.socket, ssl.SSLSocket):
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.socket.unwrap()  # we do not wait for the client's close_notify
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        try:
            self.end_answer()
        finally:
            self.socket.close()
            # These refer to the connection: as a cycle, all would stay until the garbage collector
            # runs.
            self._reader = self.request = self.response = None
            self.received, self.unsent = bytearray(), bytearray()

    # What the client sends

    def receive(self) -> bool:
        """Read what has arrived; returns whether anything has, even if only the end."""
        try:
            data = self.socket.recv(RECV_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # the connection was reset, or TLS failed: that is an end, too
            data = b""
        self.heard = time.monotonic()
        if not self.received:
            self.began = self.heard
        self.received += data
        self.has_ended = not data
        return True

    def begins_with(self, line: bytes) -> bool:
        """Whether the next request begins with these bytes, seen by a peek. If it comes by TLS,
        only what was received before counts."""
        if self.received or isinstance(self.socket, ssl.SSLSocket):
            return self.received.startswith(line)
        try:
            return self.socket.recv(len(line), socket.MSG_PEEK) == line
        except OSError:  # nothing has arrived, or the client has gone
            return False

    def discard_input(self) -> bool:
        """Read what has arrived, and forget it; returns whether the client has ended."""
        try:
            return not self.socket.recv(RECV_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # it was reset
            return True

    def is_input_over(self) -> bool:
        """Whether we receive no more: the client has ended, or has sent too much."""
        return self.has_ended or len(self.received) >= self._longest_request

    def is_parse_due(self) -> bool:
        """Whether it is time to parse: all that is needed may have arrived, or no more will."""
        if self.is_input_over():
            return True
        if self._body_end == UNKNOWN:
            return self._is_head_due()
        if self._is_chunked:
            return self._is_last_chunk_due()
        return len(self.received) >= self._body_end

    def _is_head_due(self) -> bool:
        """Whether to parse the head: if it is complete; once, when its first line is there, which
        may be invalid; and whenever it has doubled in length, since it may be too long."""
        size, start = len(self.received), max(0, self._searched_size - 3)
        self._searched_size = size
        has_end = self.received.find(b"\r\n\r\n", start) >= 0
        is_first = not self._parsed_size and self.received.find(b"\n", start) >= 0
        if has_end or is_first or size >= 2 * max(self._parsed_size, HEAD_CHECK_SIZE):
            self._parsed_size = size
            return True
        return False

    def _is_last_chunk_due(self) -> bool:
        """Whether the last chunk has arrived, with its trailers (RFC 9112, section 7.1). Also if
        the body is too long or invalid: gunicorn says so when it is read."""
        while (line := self.received.find(b"\r\n", self._body_end)) >= 0:
            size = CHUNK_SIZE.match(self.received, self._body_end)
            if size is None:
                return True
            count, left = int(size[0], 16), self._longest_body - self._body_size
            if not count:
                has_end = self.received.find(b"\r\n\r\n", line) >= 0
                return has_end or len(self.received) > line + HEAD_MAX
            if count > left:
                return len(self.received) > line + 2 + left
            self._body_size += count
            self._body_end = line + 2 + count + 2
        return len(self.received) > self._body_end + CHUNK_LINE_MAX

    def read_head(self, cfg: Any) -> None:
        """Parse the head of the request, from its first byte. Raises NeedMoreData; or gunicorn's
        errors, if the head is invalid."""
        if len(self.received) > HEAD_MAX and self.received.find(b"\r\n\r\n", 0, HEAD_MAX) < 0:
            raise errors.LimitRequestHeaders("of a head")
        self._reader = RequestReader(self)
        self.request = Request(cfg, self._reader, self.address, self.number)
        self._head_end = self._reader.end
        if self._head_end > HEAD_MAX:
            raise errors.LimitRequestHeaders("of a head")

    def head(self) -> bytes:
        """The head as it was sent: gunicorn's environ lacks headers with `_` in their names."""
        return bytes(self.received[: self._head_end])

    def peer(self) -> str:
        """The address of the other end of the socket, whatever a header or the PROXY protocol says;
        UNIX for a Unix socket, whose clients could bind to any name."""
        return str(self.address[0]) if isinstance(self.address, tuple) else UNIX

    def start_body(self, environ: dict[str, Any]) -> None:
        """The application reads the body, which has not all arrived."""
        self._is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._body_size = 0
        self._allow_body(environ.get("parley.longest_body", self._usual_body))
        length = 0 if self._is_chunked else int(environ.get("CONTENT_LENGTH", 0))
        self._body_end = self._head_end + length

    def is_body_started(self) -> bool:
        """Whether the application has begun to read the body."""
        return self._body_end != UNKNOWN

    def has_whole_body(self) -> bool:
        """Whether the whole body has arrived, so that another request may follow. What the
        application has not read of it is dropped."""
        try:
            rest = self.request.body.read(UNREAD_BODY_MAX + 1)
        except (NeedMoreData, OSError, errors.ParseException):
            return False
        return len(rest) <= UNREAD_BODY_MAX and len(self.received) < self._longest_request

    def forget_request(self) -> None:
        """Forget the request, which was read. What has arrived after it stays in `received`."""
        if not self._is_read:
            self._is_read, self.received = True, self._reader.take_rest()

    # What the client is sent

    def send(self, data: bytes) -> None:
        """gunicorn calls this with `100 Continue`, each time that it makes an environ: it is sent
        once, before the body is wanted."""
        if self._body_end == UNKNOWN:
            with contextlib.suppress(OSError):
                self.socket.send(data)

    def sendall(self, data: bytes) -> None:
        """gunicorn calls this with the bytes of the answer."""
        self.unsent += data

    def flush(self) -> None:
        """Send as much as the system takes now. Raises OSError if the client has gone, or has not
        finished the TLS handshake."""
        try:
            while self.unsent:
                with memoryview(self.unsent) as unsent:
                    count = self.socket.send(unsent)
                del self.unsent[:count]
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass

    def begin_answer(self, response: Response, body: Any, is_stream: bool) -> None:
        """The answer is `body`, which the application returned (PEP 3333)."""
        self.response, self._app_iter, self.is_kept = response, body, not response.should_close()
        self.forget_request()
        if is_stream:
            self.frames = iter(body)
        else:
            self.parts = iter(body)

    def make_piece(self) -> None:
        """Make the next piece of an answer, or the rest. Of a stream, nothing."""
        if self.parts is None:
            return
        for part in self.parts:
            self.response.write(part)
            if len(self.unsent) >= SLICE and not self._is_whole():
                return
        self.end_answer()
        self.response.close()

    def _is_whole(self) -> bool:
        """Whether Content-Length says that the whole answer is made."""
        length = self.response.response_length
        return length is not None and self.response.sent >= length

    def send_some(self) -> bool:
        """Send what there is, as far as the client takes it. Of a stream, send at most a SLICE,
        and return whether there may be more at once. Raises OSError if the client has gone."""
        self.flush()
        size = 0
        while self.frames is not None and not self.unsent and size < SLICE:
            frame = next(self.frames, None)
            if frame == b"":  # nothing more for now
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
        """Close what the application returned; no more of the answer is made."""
        body, self._app_iter = self._app_iter, None
        self.frames = self.parts = None
        if hasattr(body, "close"):
            body.close()
