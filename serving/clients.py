"""What goes on with each client, from its first byte to its last.

    welcome ─► receive ─► answer, in a thread ─► send ─► sent ─► receive, or linger

The loop receives and sends, for all; a thread has a request only while it makes the answer. An
answer is whole; or it is made in pieces, the next of which a thread makes once the last is sent; or
it is an event stream, whose frames the loop takes when it is woken. No thread waits for a client.
"""

import contextlib
import functools
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from werkzeug.exceptions import RequestTimeout

from limits import SMALL, Overloaded
from logs import log
from serving.answer_threads import SOON, AnswerThreads
from serving.connection import Connection, NotYet
from serving.doors import Doors
from serving.loop import ENDLESS, TICK, Call, Loop
from serving.refusals import refusal

WATCH = 10  # seconds in which a new connection must say something
SILENCE = 30  # seconds in which a client that is waited for must send or take something
REQUEST = 60  # seconds in which a request must be whole
CLOSING = 30  # seconds after which a connection is closed for good, whatever is still being sent
HELD = 2**28  # bytes of requests and answers that are held for clients who are waited for
PIECES = 8  # of a request, that are received before another client has its turn
PIPELINED = 65536  # bytes that may follow a request whose answer is a stream
COMMENT = b":\n\n"  # an event stream may have it between any frames (WHATWG HTML, 9.2.6)
BEAT = 1  # seconds between two looks at all streams


class Clients:
    """The clients of a process."""

    def __init__(
        self,
        cfg: Any,
        application: Callable[..., Any],
        listeners: Sequence[Any],
        tls: SSLContext | None,
        longest_body: int,
    ) -> None:
        self.loop = Loop(cfg.worker_connections * 7 // 16, HELD, self.close)
        self.served, self._stopping = 0, False  # requests; whether it takes no further ones
        self._cfg, self._application, self._tls = cfg, application, tls
        self._longest_body = longest_body
        self._health = f"GET {os.environ.get('SCRIPT_NAME', '')}/health ".encode()
        self._doors = Doors(listeners, self.loop, self._has_room, self._welcome)
        self._open: set[Connection] = set()
        self._kept: set[Connection] = set()  # those without a request
        self._most_kept = cfg.worker_connections // 4
        self._streams: set[Connection] = set()
        self._left: set[Connection] = set()  # streams whose clients send nothing any more
        self._next_beat = 0.0
        self._threads = AnswerThreads(cfg.threads, self._answer)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._open)

    def _has_room(self) -> bool:
        """Whether one more may connect."""
        return len(self._open) < self._cfg.worker_connections

    def turn(self) -> None:
        """Do what there is to do, or wait for it."""
        self._doors.look()
        self._threads.look()
        self.loop.turn(SOON if self._threads.have_queue() else TICK)
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + BEAT
            for connection in self._left:
                self.loop.call(self._comment, connection)
            for connection in self._streams:  # they may be due for a comment
                self.loop.call(self._send_news, connection)

    def stop(self) -> None:
        """Take nobody any more behind those who have connected already, and close the listeners,
        which refuses all others at once."""
        self._stopping = True
        self._doors.close()

    # Connections

    def _welcome(self, accepted: socket.socket, address: Any, server: Any) -> None:
        """Somebody has connected from this address to that one of this server."""
        connection = Connection(accepted, address, server, self._longest_body)
        self._open.add(connection)
        try:
            if self._tls:
                connection.encrypt(self._tls)
            self._wait_for_request(connection)
        except OSError:  # the client has gone, or the system watches no more sockets
            self.close(connection)

    def close(self, connection: Connection, error: Exception | None = None) -> None:
        for connections in (self._open, self._kept, self._streams, self._left):
            connections.discard(connection)
        self.loop.unwatch(connection)
        connection.close()

    def _linger(self, connection: Connection) -> None:
        """Close once the client does: else it might lose the answer (RFC 9112, section 9.6)."""
        try:
            connection.shut()
        except OSError:  # the client has gone
            return self.close(connection)
        connection.next_request(bytearray())
        self._watch_end(connection)

    def _watch_end(self, connection: Connection) -> None:
        left = connection.began + CLOSING - time.monotonic()
        seconds = min(WATCH, left)
        self.loop.watch(connection, selectors.EVENT_READ, self._discard, seconds, self.close)

    def _discard(self, connection: Connection) -> None:
        if any(connection.drop() for _ in range(PIECES)):
            self.close(connection)
        else:
            self._watch_end(connection)

    # Requests

    def _wait_for_request(self, connection: Connection) -> None:
        """Wait for the first byte of a request, of a client that is new or kept."""
        is_kept = connection in self._kept
        seconds = self._cfg.keepalive if is_kept else WATCH
        left = connection.began + seconds - time.monotonic()
        # Streams that end together may be more than a quarter, and were told to be kept.
        has_right = is_kept and len(self._kept) <= self._most_kept
        self.loop.watch(
            connection, selectors.EVENT_READ, self._receive, left, self.close, has_right
        )

    def _receive(self, connection: Connection) -> None:
        """Have what has arrived read, and answered once it is a request."""
        if self.loop.hold(connection):
            is_urgent = connection.begins_with(self._health)
            if not (is_urgent and self._threads.answer_at_once(connection)):
                self._threads.answer(connection, goes_on=connection.wants_body())
        else:
            self.loop.release(connection)
            self._refuse(connection, Overloaded())

    def _wait_for_more(self, connection: Connection) -> None:
        until = min(connection.heard + SILENCE, connection.began + REQUEST)
        seconds = until - time.monotonic()
        if seconds <= 0:  # else who sends a byte at each look would never be given up
            return self._refuse(connection, RequestTimeout())
        self.loop.watch(connection, selectors.EVENT_READ, self._receive, seconds, self._refuse)

    def _refuse(self, connection: Connection, error: BaseException) -> None:
        """Refuse what cannot be answered: it is no request, or comes too late."""
        connection.end_answer()
        connection.response = None
        connection.unsent[:] = refusal(error)
        connection.is_kept = False
        self._send(connection)

    # In a thread

    def _answer(self, connection: Connection) -> None:
        """Receive a request, and make its answer, or make the next piece of one, and send what the
        client takes of it. The loop goes on from there."""
        try:
            go_on = None if connection.parts is not None else self._read(connection)
            if go_on is None:
                go_on = self._send
                if connection.parts is None:
                    self._call(connection)
                connection.make()
                with contextlib.suppress(OSError):  # the loop will see that the client has gone
                    connection.flush()
        except NotYet:
            go_on = self._wait_for_more
        except BaseException as error:  # whatever it is, it is this request's alone
            go_on = functools.partial(self._fail, error=error)
        self.loop.call(functools.partial(self._answered, go_on), connection)

    def _read(self, connection: Connection) -> Call | None:
        """What to do where no request has come. Raises NotYet."""
        # A pipelined request may have come with the one before; more of a body is to be received.
        has_all = connection.request is None and connection.has_all()
        for _ in range(PIECES):
            if has_all or not connection.receive():
                break
            has_all = connection.has_all()
        if not connection.received:  # it is TLS, and no data of it, or the client has gone
            return self.close if connection.has_ended else self._wait_for_request
        if not has_all:
            raise NotYet
        try:
            connection.read_head(self._cfg)
        except (NoMoreData, StopIteration):  # the client has gone
            return self.close
        except Exception as error:
            return functools.partial(self._refuse, error=error)
        return None

    def _answered(self, go_on: Call, connection: Connection) -> None:
        """Back in the loop."""
        self.loop.release(connection)
        if go_on != self._wait_for_request:
            self._kept.discard(connection)
        go_on(connection)

    def _call(self, connection: Connection) -> None:
        """Have the application answer. Raises NotYet where it wants a body that has not come."""
        # gunicorn would decode the names of sockets, which may be no text.
        at_ports = isinstance(connection.address, tuple)
        place = (connection.address, connection.server) if at_ports else ("", "")
        response, environ = wsgi.create(connection.request, connection, *place, self._cfg)
        environ["wsgi.multithread"] = True
        environ["parley.wake"] = functools.partial(self.loop.call, self._send_news, connection)
        environ["parley.has_read"] = functools.partial(self._let_go, connection)
        environ["parley.waits"] = self._threads.rest
        environ["parley.peer"] = connection.peer()
        environ["parley.head"] = connection.head

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            is_last = ("Connection", "close") in headers  # which gunicorn drops
            if is_last or not self._may_keep() or not connection.has_whole_body():
                response.force_close()
            return response.start_response(status, headers, exc_info)

        try:
            body = self._application(environ, start)
        except NotYet:
            connection.want_body(environ)
            raise
        self.served += 1
        kind = dict(response.headers).get("Content-Type", "")
        connection.begin_answer(response, body, kind.startswith("text/event-stream"))

    def _let_go(self, connection: Connection) -> None:
        """The application has all of the request, and may wait for long."""
        is_large = connection.size() > SMALL
        connection.forget_request()
        if is_large:  # else it is counted until it is answered: the loop need not wake for that
            self.loop.call(self.loop.release, connection)

    def _may_keep(self) -> bool:
        """Whether a connection may wait for a next request. One that does is never closed for
        others, since its client may be sending that; so only a quarter of all may."""
        has_place = len(self._kept) < self._most_kept
        return bool(self._cfg.keepalive) and has_place and not self._stopping

    def _fail(self, connection: Connection, error: BaseException) -> None:
        """The application has failed, or the answer. Of one that has begun, the client sees that it
        is cut."""
        if connection.response is None or not connection.response.headers_sent:
            return self._refuse(connection, error)
        log.error("an answer failed", exc_info=error)
        self.close(connection)

    # Sending

    def _send(self, connection: Connection) -> None:
        """Send what there is; what follows, once the client has taken that."""
        try:
            has_more = connection.send_some()
        except OSError:  # the client has gone
            return self.close(connection)
        if connection.unsent:
            self._streams.discard(connection)  # until that is taken
            is_counted = connection.frames is None
            self.loop.watch(
                connection,
                selectors.EVENT_WRITE,
                self._send,
                SILENCE,
                self.close,
                is_counted=is_counted,
            )
        elif connection.parts is not None:
            self._threads.answer(connection, goes_on=True)
        elif connection.frames is None:
            self._sent(connection)
        else:
            self._wait_for_news(connection)
            if has_more:
                self.loop.call(self._send_news, connection)

    def _sent(self, connection: Connection) -> None:
        """An answer is sent: its connection takes another request, or is closed."""
        self._streams.discard(connection)
        self._left.discard(connection)
        self.loop.unwatch(connection)
        if not connection.is_kept:
            return self._linger(connection)
        connection.next_request(connection.received)
        if connection.received:
            self._receive(connection)
        else:
            self._kept.add(connection)
            self._wait_for_request(connection)

    def _wait_for_news(self, connection: Connection) -> None:
        """Until there is something to send, see whether the client goes."""
        if connection in self._streams or connection in self._left:
            return
        self._streams.add(connection)
        self.loop.watch(
            connection, selectors.EVENT_READ, self._hear, ENDLESS, self.close, is_counted=False
        )

    def _send_news(self, connection: Connection) -> None:
        """There may be more in a stream; its client may have yet to take the last."""
        is_open = connection in self._streams or connection in self._left
        if is_open and not connection.unsent:
            self._send(connection)

    def _hear(self, connection: Connection) -> None:
        """The client of a stream sends its next request, or nothing any more. In that case it has
        gone, or listens only (RFC 9112, section 9.5): the answer to a comment tells."""
        self._streams.discard(connection)
        connection.receive()
        if connection.has_ended or len(connection.received) > PIPELINED:
            self._left.add(connection)
            self._comment(connection)
        else:
            self._wait_for_news(connection)

    def _comment(self, connection: Connection) -> None:
        if connection in self._left and not connection.unsent:
            connection.response.write(COMMENT)
            self._send(connection)
