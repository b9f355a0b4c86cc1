"""What happens to each connection, from its first byte to its last.

    connect ─► receive ─► answer (in a thread) ─► send ─► receive (kept alive), or linger

The loop does all waiting; a thread has a connection only while it reads the request and makes the
answer. There are three kinds of answers. A short one is made whole. A long one is made in pieces: a
thread makes the next piece once the client has read the previous one. The loop itself gets the
frames of an event stream, when it is woken. No thread ever waits for a client.
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
from serving.connection import ClientConnection, NeedMoreData
from serving.listeners import Listeners
from serving.loop import ENDLESS, TICK, TIMEOUT_CHECK_INTERVAL, Callback, Loop
from serving.refusals import refusal
from serving.thread_pool import STALL_CHECK_INTERVAL, ThreadPool

FIRST_BYTE_TIMEOUT = 10  # seconds until the first byte of a new connection
# Seconds that may pass between two bytes of a request that arrive, or of an answer that the
# client's socket takes.
IDLE_TIMEOUT = 30
REQUEST_TIMEOUT = 60  # seconds until the last byte of a request
LINGER_TIMEOUT = 30  # seconds until a lingering connection is closed, whatever it still sends
MEMORY_MAX = 2**28  # bytes of requests and answers in memory, of all connections
READS_MAX = 8  # reads of one socket before it is another client's turn
PIPELINED_MAX = 65536  # bytes that may follow a request whose answer is a stream
COMMENT = b":\n\n"  # an event stream may have it between any frames (WHATWG HTML, 9.2.6)
STREAMS_INTERVAL = 1  # seconds between two rounds of all event streams
# Seconds after which a client that reads nothing is disconnected, at the latest: its socket has
# taken no byte. The same happens to one that reads too slowly, such as a byte a second, once the
# buffers on the way are full: TCP asks for more only after the client has freed some kilobytes.
DISCONNECT_AFTER = IDLE_TIMEOUT + TIMEOUT_CHECK_INTERVAL + TICK


class Dispatcher:
    """Has all connections of a process, and moves each from one step to the next."""

    def __init__(
        self,
        cfg: Any,
        application: Callable[..., Any],
        listeners: Sequence[Any],
        tls: SSLContext | None,
        longest_body: int,
    ) -> None:
        # Half of the connections may be streams; of the rest, an eighth stays free for new clients.
        self.loop = Loop(cfg.worker_connections * 7 // 16, MEMORY_MAX, self.close)
        self.served, self._stopping = 0, False  # `served` counts requests
        self._cfg, self._application, self._tls = cfg, application, tls
        self._longest_body = longest_body
        self._health = f"GET {os.environ.get('SCRIPT_NAME', '')}/health ".encode()
        self._listeners = Listeners(listeners, self.loop, self._has_room, self._on_connect)
        self._open: set[ClientConnection] = set()
        self._kept_alive: set[ClientConnection] = set()  # those that wait for another request
        self._max_kept_alive = cfg.worker_connections // 4
        self._streams: set[ClientConnection] = set()
        self._half_closed: set[ClientConnection] = set()  # streams whose clients send no more
        self._next_round = 0.0
        self._threads = ThreadPool(cfg.threads, self._answer)

    def __bool__(self) -> bool:
        """Whether any connection is open."""
        return bool(self._open)

    def _has_room(self) -> bool:
        """Whether one more client may connect."""
        return len(self._open) < self._cfg.worker_connections

    def run_once(self) -> None:
        """One turn of the loop: run what is due, or wait for something."""
        self._listeners.listen_if_room()
        self._threads.add_slots_if_stalled()
        self.loop.run_once(STALL_CHECK_INTERVAL if self._threads.has_queue() else TICK)
        now = time.monotonic()
        if now >= self._next_round:
            self._next_round = now + STREAMS_INTERVAL
            for connection in self._half_closed:
                self.loop.call(self._comment, connection)
            for connection in self._streams:  # the application may have a comment due
                self.loop.call(self._send_news, connection)

    def stop(self) -> None:
        """Accept the clients that have connected already, and close our listeners. The system
        refuses all others once the master and the other processes have closed their copies."""
        self._stopping = True
        self._listeners.close()

    # Connections

    def _on_connect(self, accepted: socket.socket, address: Any, server: Any) -> None:
        """A client has connected from `address` to the listener at `server`."""
        connection = ClientConnection(accepted, address, server, self._longest_body)
        self._open.add(connection)
        try:
            if self._tls:
                connection.encrypt(self._tls)
            self._wait_for_request(connection)
        except OSError:  # the client has gone, or epoll takes no more sockets
            self.close(connection)

    def close(self, connection: ClientConnection, error: Exception | None = None) -> None:
        for connections in (self._open, self._kept_alive, self._streams, self._half_closed):
            connections.discard(connection)
        self.loop.unwatch(connection)
        connection.close()

    def _linger(self, connection: ClientConnection) -> None:
        """Shut down our side, and close the connection once the client has shut down its side. If
        we closed it immediately, it might be reset before the client has read the answer (RFC 9112,
        section 9.6)."""
        try:
            connection.shut_down()
        except OSError:  # the client has gone
            return self.close(connection)
        connection.reset_for_next_request(bytearray())
        self._wait_for_close(connection)

    def _wait_for_close(self, connection: ClientConnection) -> None:
        left = connection.first_byte_at + LINGER_TIMEOUT - time.monotonic()
        seconds = min(FIRST_BYTE_TIMEOUT, left)
        self.loop.watch(connection, selectors.EVENT_READ, self._discard_input, seconds, self.close)

    def _discard_input(self, connection: ClientConnection) -> None:
        if any(connection.discard_input() for _ in range(READS_MAX)):
            self.close(connection)
        else:
            self._wait_for_close(connection)

    # Requests

    def _wait_for_request(self, connection: ClientConnection) -> None:
        """Wait for the first byte of a request, on a new connection or one kept alive."""
        keep_alive = connection in self._kept_alive
        seconds = self._cfg.keepalive if keep_alive else FIRST_BYTE_TIMEOUT
        left = connection.first_byte_at + seconds - time.monotonic()
        # `_may_keep_alive` observes this limit. Streams that end at the same time may exceed it,
        # since the client of each was told at its start that the connection is kept alive.
        is_protected = keep_alive and len(self._kept_alive) <= self._max_kept_alive
        self.loop.watch(
            connection, selectors.EVENT_READ, self._hand_to_thread, left, self.close, is_protected
        )

    def _hand_to_thread(self, connection: ClientConnection) -> None:
        """Have a thread read what has arrived, and answer it if the request is whole."""
        if self.loop.reserve_memory(connection):
            is_urgent = connection.begins_with(self._health)
            if not (is_urgent and self._threads.answer_urgently(connection)):
                self._threads.answer(connection, in_progress=connection.is_body_wanted())
        else:
            self.loop.release_memory(connection)
            self._refuse(connection, Overloaded())

    def _wait_for_more(self, connection: ClientConnection) -> None:
        idle_until = connection.last_byte_at + IDLE_TIMEOUT
        until = min(idle_until, connection.first_byte_at + REQUEST_TIMEOUT)
        seconds = until - time.monotonic()
        if seconds <= 0:  # without this, a client that trickles bytes would never time out
            return self._refuse(connection, RequestTimeout())
        self.loop.watch(
            connection, selectors.EVENT_READ, self._hand_to_thread, seconds, self._refuse
        )

    def _refuse(self, connection: ClientConnection, error: BaseException) -> None:
        """Send an error response, and close the connection: this is no valid request, or it came
        too late."""
        connection.end_answer()
        connection.response = None
        connection.unsent[:] = refusal(error)
        connection.keep_alive = False
        self._send(connection)

    # In a thread of the pool

    def _answer(self, connection: ClientConnection) -> None:
        """Read the request and make its answer, or make the next piece of an answer. Send as much
        as can be sent without waiting; the loop sends the rest."""
        try:
            next_step = None if connection.parts is not None else self._read_request(connection)
            if next_step is None:
                next_step = self._send
                if connection.parts is None:
                    self._call(connection)
                connection.make_piece()
                with contextlib.suppress(OSError):  # the loop will see that the client has gone
                    connection.flush()
        except NeedMoreData:
            next_step = self._wait_for_more
        except BaseException as error:  # whatever it is, it fails this request alone
            next_step = functools.partial(self._fail, error=error)
        self.loop.call(functools.partial(self._on_thread_done, next_step), connection)

    def _read_request(self, connection: ClientConnection) -> Callback | None:
        """Read the head of the request. Returns None, or what to do next if there is no request.
        Raises NeedMoreData if more has to arrive."""
        # A pipelined request may be here already. If `request` is set, the application was called
        # and wants more of the body, which has to be received first.
        is_parse_due = connection.request is None and connection.is_parse_due()
        for _ in range(READS_MAX):
            if is_parse_due or not connection.receive():
                break
            is_parse_due = connection.is_parse_due()
        if not connection.received:  # a part of a TLS handshake, or the client has gone
            return self.close if connection.at_eof else self._wait_for_request
        if not is_parse_due:
            raise NeedMoreData
        try:
            connection.read_head(self._cfg)
        except (NoMoreData, StopIteration):  # the client has gone
            return self.close
        except Exception as error:
            return functools.partial(self._refuse, error=error)
        return None

    def _on_thread_done(self, next_step: Callback, connection: ClientConnection) -> None:
        """A thread is done with the connection; called by the loop."""
        self.loop.release_memory(connection)
        if next_step != self._wait_for_request:
            self._kept_alive.discard(connection)
        next_step(connection)

    def _call(self, connection: ClientConnection) -> None:
        """Call the application (PEP 3333). Raises NeedMoreData if it reads what has not arrived."""
        # gunicorn would decode the names of Unix sockets, which may be no text.
        is_tcp = isinstance(connection.address, tuple)
        addresses = (connection.address, connection.server) if is_tcp else ("", "")
        response, environ = wsgi.create(connection.request, connection, *addresses, self._cfg)
        environ["wsgi.multithread"] = True
        environ["parley.wake"] = functools.partial(self.loop.call, self._send_news, connection)
        environ["parley.on_request_read"] = functools.partial(self._on_request_read, connection)
        environ["parley.release_slot"] = self._threads.release_slot
        environ["parley.peer"] = connection.peer()
        environ["parley.head"] = connection.head

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            is_last = ("Connection", "close") in headers  # gunicorn drops this header
            if is_last or not self._may_keep_alive() or not connection.has_whole_body():
                response.force_close()
            return response.start_response(status, headers, exc_info)

        try:
            body = self._application(environ, start)
        except NeedMoreData:
            connection.expect_body(environ)
            raise
        self.served += 1
        kind = dict(response.headers).get("Content-Type", "")
        connection.begin_answer(response, body, kind.startswith("text/event-stream"))

    def _on_request_read(self, connection: ClientConnection) -> None:
        """The application has read the whole request, and may now take long: free its memory."""
        is_large = connection.size() > SMALL
        connection.forget_request()
        if is_large:  # a small one stays counted until the answer: not worth waking the loop
            self.loop.call(self.loop.release_memory, connection)

    def _may_keep_alive(self) -> bool:
        """Whether a connection may be kept alive. Such a connection is never dropped to make room
        for others, since its client may be sending a request at that moment. So at most a quarter
        of all connections may be kept alive."""
        has_room = len(self._kept_alive) < self._max_kept_alive
        return bool(self._cfg.keepalive) and has_room and not self._stopping

    def _fail(self, connection: ClientConnection, error: BaseException) -> None:
        """The application raised an error when it was called, or later, while it made its answer.
        If a part of the answer was sent, close the connection, so that the client sees that the
        answer was cut off."""
        if connection.response is None or not connection.response.headers_sent:
            return self._refuse(connection, error)
        log.error("an answer failed", exc_info=error)
        self.close(connection)

    # Sending

    def _send(self, connection: ClientConnection) -> None:
        """Send what there is. Once the client has read it, send what follows."""
        try:
            has_more = connection.send_some()
        except OSError:  # the client has gone
            return self.close(connection)
        if connection.unsent:
            self._streams.discard(connection)  # until the client has read this
            is_counted = connection.frames is None
            self.loop.watch(
                connection,
                selectors.EVENT_WRITE,
                self._send,
                IDLE_TIMEOUT,
                self.close,
                is_counted=is_counted,
            )
        elif connection.parts is not None:
            self._threads.answer(connection, in_progress=True)
        elif connection.frames is None:
            self._on_answer_sent(connection)
        else:
            self._wait_for_news(connection)
            if has_more:
                self.loop.call(self._send_news, connection)

    def _on_answer_sent(self, connection: ClientConnection) -> None:
        """The answer is sent: wait for the next request, or close the connection."""
        self._streams.discard(connection)
        self._half_closed.discard(connection)
        self.loop.unwatch(connection)
        if not connection.keep_alive:
            return self._linger(connection)
        connection.reset_for_next_request(connection.received)
        if connection.received:
            self._hand_to_thread(connection)
        else:
            self._kept_alive.add(connection)
            self._wait_for_request(connection)

    def _wait_for_news(self, connection: ClientConnection) -> None:
        """Wait until the stream has something to send, and notice if the client leaves."""
        if connection in self._streams or connection in self._half_closed:
            return
        self._streams.add(connection)
        self.loop.watch(
            connection,
            selectors.EVENT_READ,
            self._receive_on_stream,
            ENDLESS,
            self.close,
            is_counted=False,
        )

    def _send_news(self, connection: ClientConnection) -> None:
        """Send the new frames of a stream, unless older ones are still unsent."""
        is_open = connection in self._streams or connection in self._half_closed
        if is_open and not connection.unsent:
            self._send(connection)

    def _receive_on_stream(self, connection: ClientConnection) -> None:
        """The client of a stream has sent something, or has shut down its side. After a shutdown it
        may have gone, or it may still be reading (RFC 9112, section 9.5). So we send a comment: if
        the client has gone, its system answers with a reset."""
        self._streams.discard(connection)
        connection.receive()
        if connection.at_eof or len(connection.received) > PIPELINED_MAX:
            self._half_closed.add(connection)
            self._comment(connection)
        else:
            self._wait_for_news(connection)

    def _comment(self, connection: ClientConnection) -> None:
        if connection in self._half_closed and not connection.unsent:
            connection.response.write(COMMENT)
            self._send(connection)
