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
# Bytes on the wire for each byte of a chunked body in the worst case: each chunk has one byte.
WIRE_BYTES_PER_BYTE = 8
# Bytes of a body that may come in chunks of one byte. The rest has to come in longer chunks.
TINY_CHUNK_BYTES_MAX = 2**20
CHUNK_LINE_MAX = 8192  # bytes of the line before a chunk at most, as in gunicorn
# An incomplete head of twice as many bytes is parsed, too, since it may be too long.
HEAD_CHECK_SIZE = 4096
UNREAD_BODY_MAX = 65536  # bytes of an unread body that are dropped to keep the connection alive
NOTSENT_MAX = 65536  # bytes in the system's send buffer, besides those on their way
PIECE_SIZE = 65536  # bytes of an answer that are made or sent before it is another client's turn
UNKNOWN = -1
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,32}(?=[\s;])")


class NeedMoreData(BaseException):
    """More of the request is needed than has arrived. Once there is more, the application is called
    again from the start. A BaseException, so that no `except Exception` on the way catches it."""


class RequestReader(Unreader):
    """Gives gunicorn the bytes of a request that have arrived, from the first byte on."""

    def __init__(self, connection: "ClientConnection") -> None:
        super().__init__()
        self._connection, self._position, self._is_over = connection, 0, False
        self.end = 0  # how far gunicorn has read: to the end of the head, once it has parsed it

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes, a few at a time, since gunicorn copies all that it holds with each chunk
        of a body. Empty if the client has shut down its side or has sent too much. Raises
        NeedMoreData if no more has arrived, or if the body is long: then the loop waits for the
        rest of the body, and counts its memory."""
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
        self._default_body_max = longest_body
        accepted.setblocking(False)
        with contextlib.suppress(OSError):  # a Unix socket has no such option
            # By default the system buffers megabytes, and says only late that it can take more: a
            # client that reads slowly would seem to read nothing.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_MAX)
        self.at_eof = False  # the client has shut down its side: it sends nothing more
        self.unsent = bytearray()  # of the answer
        self.number = 0  # of the request on this connection
        self.reset_for_next_request(bytearray())

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on. `receive` does the handshake."""
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def reset_for_next_request(self, received: bytearray) -> None:
        """Forget the request that was answered; `received` is what has arrived of the next."""
        self.number += 1
        self.received = received
        # When the first byte of the request arrived, or we began to wait for it; and when the
        # latest byte arrived.
        self.first_byte_at = self.last_byte_at = time.monotonic()
        self._reader: Any = RequestReader(self)
        self.request: Any = None  # gunicorn's own
        self.response: Any = None
        self.frames: Iterator[bytes] | None = None  # of the event stream that is the answer
        # The parts of an answer that is no event stream, as long as there are more.
        self.parts: Iterator[bytes] | None = None
        self._app_iter: Any = None  # what the application returned
        self.keep_alive = False  # after this answer
        # How many bytes have been searched for the end of the head, and how many had arrived when
        # the head was last parsed.
        self._searched_size = self._parsed_size = 0
        self._head_end = 0
        self._is_request_read = False  # if so, `received` has only what follows the request
        # UNKNOWN until the application wants the body. Then the position at which the body ends;
        # or, if it is chunked, the position of the first chunk that has not arrived.
        self._body_end = UNKNOWN
        self._is_chunked, self._body_size = False, 0
        self._set_limits(self._default_body_max)

    def _set_limits(self, longest: int) -> None:
        """Set the limits for the size of the body, and of the whole request."""
        framing = (WIRE_BYTES_PER_BYTE - 1) * min(longest, TINY_CHUNK_BYTES_MAX)
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
            # These refer back to the connection. In such a reference cycle, all of it would stay in
            # memory until the garbage collector runs.
            self._reader = self.request = self.response = None
            self.received, self.unsent = bytearray(), bytearray()

    # What the client sends

    def receive(self) -> bool:
        """Read what has arrived. Returns True if anything has, or if the client has shut down its
        side."""
        try:
            data = self.socket.recv(RECV_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # the connection was reset, or TLS failed: that is an end, too
            data = b""
        self.last_byte_at = time.monotonic()
        if not self.received:
            self.first_byte_at = self.last_byte_at
        self.received += data
        self.at_eof = not data
        return True

    def begins_with(self, line: bytes) -> bool:
        """Whether the next request begins with these bytes. They stay in the system's buffer. With
        TLS one cannot peek like that: only bytes that were received before are compared."""
        if self.received or isinstance(self.socket, ssl.SSLSocket):
            return self.received.startswith(line)
        try:
            return self.socket.recv(len(line), socket.MSG_PEEK) == line
        except OSError:  # nothing has arrived, or the client has gone
            return False

    def discard_input(self) -> bool:
        """Read what has arrived, and forget it. Returns whether the client has shut down its
        side."""
        try:
            return not self.socket.recv(RECV_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:  # it was reset
            return True

    def is_input_over(self) -> bool:
        """Whether we receive no more: the client has shut down its side, or has sent too much."""
        return self.at_eof or len(self.received) >= self._longest_request

    def is_parse_due(self) -> bool:
        """Whether it is time to parse: all that is needed may have arrived, or no more will."""
        if self.is_input_over():
            return True
        if self._body_end == UNKNOWN:
            return self._may_parse_head()
        if self._is_chunked:
            return self._may_parse_chunks()
        return len(self.received) >= self._body_end

    def _may_parse_head(self) -> bool:
        """Whether to parse the head now. It is parsed when it is complete; also once when its first
        line has arrived, since that may be invalid; and each time that it has doubled in length,
        since it may be too long."""
        size, start = len(self.received), max(0, self._searched_size - 3)
        self._searched_size = size
        has_end = self.received.find(b"\r\n\r\n", start) >= 0
        is_first = not self._parsed_size and self.received.find(b"\n", start) >= 0
        if has_end or is_first or size >= 2 * max(self._parsed_size, HEAD_CHECK_SIZE):
            self._parsed_size = size
            return True
        return False

    def _may_parse_chunks(self) -> bool:
        """Whether the last chunk has arrived, with its trailers (RFC 9112, section 7.1). It is also
        True if the body is too long or invalid: then gunicorn raises an error when it reads it."""
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
        """Parse the head of the request, from its first byte. Raises NeedMoreData if it is
        incomplete, and gunicorn's errors if it is invalid."""
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

    def expect_body(self, environ: dict[str, Any]) -> None:
        """Remember that the application reads the body, and that a part of it has not arrived."""
        self._is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._body_size = 0
        self._set_limits(environ.get("parley.longest_body", self._default_body_max))
        length = 0 if self._is_chunked else int(environ.get("CONTENT_LENGTH", 0))
        self._body_end = self._head_end + length

    def is_body_wanted(self) -> bool:
        """Whether the application has begun to read the body."""
        return self._body_end != UNKNOWN

    def has_whole_body(self) -> bool:
        """Whether the whole body has arrived, so that another request may follow. This drops the
        part of it that the application has not read."""
        try:
            rest = self.request.body.read(UNREAD_BODY_MAX + 1)
        except (NeedMoreData, OSError, errors.ParseException):
            return False
        return len(rest) <= UNREAD_BODY_MAX and len(self.received) < self._longest_request

    def forget_request(self) -> None:
        """Forget the request, which has been read. What arrived after it stays in `received`."""
        if not self._is_request_read:
            self._is_request_read, self.received = True, self._reader.take_rest()

    # What the client is sent

    def send(self, data: bytes) -> None:
        """gunicorn calls this with `100 Continue` each time that it makes an environ. This sends it
        only the first time: before the application has wanted the body."""
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
        self.response, self._app_iter, self.keep_alive = response, body, not response.should_close()
        self.forget_request()
        if is_stream:
            self.frames = iter(body)
        else:
            self.parts = iter(body)

    def make_piece(self) -> None:
        """Make the next piece of an answer, or the rest. Does nothing for a stream."""
        if self.parts is None:
            return
        for part in self.parts:
            self.response.write(part)
            if len(self.unsent) >= PIECE_SIZE and not self._is_whole():
                return
        self.end_answer()
        self.response.close()

    def _is_whole(self) -> bool:
        """Whether Content-Length says that the whole answer is made."""
        length = self.response.response_length
        return length is not None and self.response.sent >= length

    def send_some(self) -> bool:
        """Send as much as possible without waiting; if the answer is a stream, at most about
        PIECE_SIZE bytes. Returns whether more of the stream may be ready to send. Raises OSError if
        the client has gone."""
        self.flush()
        size = 0
        while self.frames is not None and not self.unsent and size < PIECE_SIZE:
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
