"""The gunicorn worker: clients that cannot hold it up, refusals in the shape of all errors, replies that end before it does. A
connection has a thread only while a request of it is read and answered. Until it speaks, and once it is to be closed, gunicorn's
poller watches it; an event stream is sent by gunicorn's loop, as far as its client takes it at once. A thread waits for its
client for a limited time, and not all threads at once."""

import collections
import concurrent.futures
import contextlib
import errno
import functools
import json
import selectors
import signal
import socket
import threading
import time

from gunicorn.http import errors as http
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker
from urllib3.util import wait_for_read, wait_for_write
from werkzeug.exceptions import RequestTimeout

import errors
from settings import MISTAKES

TURN = 50  # streams that are sent before the loop looks at what else there is
WATCH = 10  # seconds in which a connection without a thread must send something
CLOSING = 30  # seconds after which a connection is closed for good, whatever is still being sent
STORING = 5  # seconds of the grace that are kept for handing over what has not ended
REQUEST = 60  # seconds in which a request must be whole
SILENCE = 30  # seconds in which a client that is waited for must send or take something
UNSENT = 65536  # bytes of an answer that the system holds ready, besides what is on its way
UNWANTED = 65536  # bytes of a body that nobody reads are taken from a connection that goes on

REFUSALS = MISTAKES["requests"] | {"RequestTimeout": [408, MISTAKES["statuses"]["408"]]}  # it may come later, too


class Threads(concurrent.futures.ThreadPoolExecutor):
    """Where the system gives no more threads, a request waits for one that becomes free; else its worker would die."""

    def _adjust_thread_count(self):
        with contextlib.suppress(RuntimeError):
            super()._adjust_thread_count()


class Worker(ThreadWorker):
    """A worker with threads. What it overrides is what gunicorn itself registers or calls."""

    # From its start to its end

    def load_wsgi(self):
        super().load_wsgi()
        self.replies = self.wsgi.replies
        self.replies.start_keeper()
        # Of eight threads, two may wait for clients, five be held by waits: one is left for short requests.
        self.wsgi.held.size = max(1, self.cfg.threads * 5 // 8)
        # Half of the files are for connections, half of which may be streams. A reply has two, and a third of all is for replies.
        self.wsgi.streams.size = self.cfg.worker_connections // 2
        if self.cfg.is_ssl:  # then a stream has a thread, and its place is one of those of waits
            self.wsgi.streams = self.wsgi.held
        self.replies.room.size = max(1, self.cfg.worker_connections // 3)
        self.grace = max(0, self.cfg.graceful_timeout - STORING)
        broken_body = [(MISTAKES["broken_body"], None)]
        self.wsgi.register_error_handler(http.ParseException, lambda error: errors.error_response(400, broken_body))
        self.wsgi = functools.partial(self.call, self.wsgi)
        self.streams, self.ready, self.is_woken, self.next_look = set(), collections.deque(), False, 0.0

    def init_signals(self):
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that is closed; gunicorn's master gets it too

    def get_thread_pool(self):
        ClientSocket.most_waiting = max(1, self.cfg.threads // 4)
        return Threads(self.cfg.threads)

    def run(self):
        """Serve until told to stop, then let the replies under way end, whoever follows them."""
        # A thread that ends after the loop writes into this queue, whose descriptor might be a database's by then.
        self.method_queue.close = lambda: None
        super().run()
        ending = threading.Thread(target=self.replies.stop, args=(self.grace,))
        ending.start()
        while ending.is_alive():
            self.notify()
            ending.join(1)

    def handle_quit(self, signum, frame):
        """On SIGINT and SIGQUIT, hand over all replies, and quit when the loop, which waits for this, has ended their streams."""
        if not self.booted:
            return super().handle_quit(signum, frame)
        self.replies.stop(0)
        self.method_queue.defer(super().handle_quit, signum, frame)

    # Connections without a thread

    def accept(self, listener):
        try:
            accepted, address = listener.accept()
        except OSError as error:  # the worker would die of it; where no file is left, the client waits until one is closed
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                time.sleep(0.05)
            return
        self.nr_conns += 1
        client = accepted if self.cfg.is_ssl else ClientSocket(accepted)
        self.watch(TConn(self.cfg, client, address, listener.getsockname()), self.on_pending_socket_readable)

    def finish_request(self, conn, future):
        """Close in the background: gunicorn would wait for the client to close, in the loop that accepts all others."""
        if getattr(conn.sock, "stream", None):
            conn.sock.conn, conn.sock.unsent = conn, b""
            self.streams.add(conn.sock)
            return self.send(conn.sock)
        if future.exception() or not future.result():
            with contextlib.suppress(OSError):  # the client has gone, and gunicorn need not wait
                conn.sock.setblocking(False)
                conn.sock.shutdown(socket.SHUT_WR)
                conn.discard_until = time.monotonic() + CLOSING
                return self.watch(conn, self.discard)
        super().finish_request(conn, future)

    def discard(self, conn, client):
        """Read what nobody wants, until the client closes too: else it might lose the answer (RFC 9112, section 9.6)."""
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        with contextlib.suppress(OSError):
            if client.recv(65536) and time.monotonic() < conn.discard_until:
                return self.watch(conn, self.discard)
        self.nr_conns -= 1
        conn.close()

    def watch(self, conn, callback):
        """Have the poller watch this connection for a while. Of too many, the first are closed."""
        conn.timeout = time.monotonic() + (WATCH if self.alive else STOP_KEEPALIVE_LINGER)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, functools.partial(callback, conn))
        if (excess := len(self.pending_conns) - self.worker_connections // 2) > 0:
            self.pending_conns[excess - 1].timeout = 0  # those before it have that already

    def murder_keepalived(self, force=False):
        if not force:  # what came while this process stood still is served before its connection counts as silent
            self.wait_for_and_dispatch_events(timeout=0)
        super().murder_keepalived(force)
        if time.monotonic() >= self.next_look:  # comments may be due
            self.next_look = time.monotonic() + 1
            for client in self.streams:
                self.wake(client)

    def _cap_keepalive(self, deadline):
        """As it begins to stop: what is watched ends with what is kept alive; a reply that outlasts the grace is handed over."""
        super()._cap_keepalive(deadline)
        self.replies.stopping = True
        hand_over = threading.Timer(self.grace, self.replies.stop, (0,))
        hand_over.daemon = True
        hand_over.start()
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    # Event streams

    def call(self, app, environ, start_response):
        """Close where the application says so, whose `Connection` header gunicorn drops, and where a body is still to come. An
        event stream is taken out of its thread."""
        response = start_response.__self__
        client = response.sock
        if isinstance(client, ClientSocket):
            environ["parley.wake"] = functools.partial(self.wake, client)

        def start(status, headers, exc_info=None):
            if ("Connection", "close") in headers or not has_whole_body(response):
                response.force_close()
            return start_response(status, headers, exc_info)

        body = app(environ, start)
        if "parley.wake" in environ and dict(response.headers).get("Content-Type", "").startswith("text/event-stream"):
            client.stream, client.response = steps(client, response, body), response
            raise BrokenPipeError(errno.EPIPE, "the loop sends it")  # about which gunicorn is quiet
        return body

    def wake(self, client):
        """Have the loop send what there is for this client; any thread may do so."""
        self.ready.append(client)
        if not self.is_woken:
            self.is_woken = True
            self.method_queue.defer(self.send_ready)

    def send_ready(self):
        self.is_woken = False
        for _ in range(len(self.ready) if self.replies.stopping else min(len(self.ready), TURN)):
            self.send(self.ready.popleft())
        if self.ready:
            self.wake(self.ready.popleft())

    def send(self, client):
        """Send what there is of a client's stream. Where it does not take all of it, a thread of gunicorn's waits for it."""
        if client.unsent is None:  # a thread has it, or it is over
            return
        try:
            next(client.stream)
        except Exception as ended:  # whatever it is, it is this stream's alone
            if not isinstance(ended, (StopIteration, OSError)):  # the latter: the client has gone
                self.log.error("a stream failed", exc_info=ended)
            return self.end(client, isinstance(ended, StopIteration))
        if client.unsent:
            rest, client.unsent = client.unsent, None
            self.tpool.submit(self.catch_up, client, rest)

    def catch_up(self, client, rest):
        try:
            client.sendall(rest)
        except OSError:
            return self.method_queue.defer(self.end, client, False)
        client.unsent = b""
        self.wake(client)

    def end(self, client, is_whole):
        """A stream is over: its connection may serve another request, or is closed."""
        client.stream.close()
        self.streams.discard(client)
        client.stream, client.unsent, ended = None, None, concurrent.futures.Future()
        ended.set_result(self._keepalive_after(client.conn, is_whole and not client.response.should_close()))
        self.finish_request(client.conn, ended)

    # Refusals

    def handle_error(self, req, client, addr, exc):
        """Refuse what is no request. Nothing of it is quoted, here or in the log."""
        status, detail = next(REFUSALS[kind.__name__] for kind in type(exc).__mro__ if kind.__name__ in REFUSALS)
        if status != 408:  # many may come at a time
            self.log.warning("request refused: %s", type(exc).__name__, exc_info=exc if status == 500 else None)
        body = json.dumps(errors.document(status, [(detail, None)]))
        head = f"HTTP/1.1 {status} {errors.TITLES[status]}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        head += "Content-Type: application/json\r\n"
        with contextlib.suppress(OSError):  # the client has gone
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def steps(client, response, frames):
    """Send these frames. A step ends where nothing more is to be sent yet, or the client does not take it."""
    with contextlib.closing(frames):
        for frame in frames:
            response.write(frame)
            if client.unsent or not frame:
                yield
        response.close()
    while client.unsent:
        yield


def has_whole_body(response):
    """Whether the body of the request has arrived, to an end that is known. The rest is discarded; nothing is waited for."""
    response.sock.setblocking(False)
    try:
        return not response.req.body.failed and len(response.req.body.read(UNWANTED + 1)) <= UNWANTED
    except (OSError, http.ParseException):
        return False
    finally:
        response.sock.setblocking(True)


class ClientSocket(socket.socket):
    """The connection of a client. For the system it never blocks; where gunicorn has it block, it waits with limits."""

    stream = None  # steps in which the loop sends an event stream, and what the client has not taken of it
    unsent = None

    waiting = {}  # those that a thread waits for → (since when, how the connection is shut where it is given up)
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
            # One that sent too little can still be told so.
            if not self._wait(wait_for_read, min(SILENCE, self.deadline - now), self.deadline - REQUEST, socket.SHUT_RD):
                break
        raise RequestTimeout

    def sendall(self, data, flags=0):
        """Raises ConnectionResetError, about which gunicorn is quiet, where the client takes nothing any more."""
        rest = memoryview(data)
        while rest:
            try:
                if self.unsent:
                    raise BlockingIOError
                rest = rest[self.send(rest, flags) :]
            except BlockingIOError:
                if self.unsent is not None:
                    self.unsent += rest
                    return
                if not self._wait(wait_for_write, SILENCE, time.monotonic(), socket.SHUT_RDWR):
                    raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing") from None

    def _wait(self, wait, seconds, since, how):
        """Wait until the client lets the thread go on; returns whether it does so within these seconds."""
        with self.lock, contextlib.suppress(OSError):  # the one that is given up has gone
            self.waiting[self] = since, how
            if len(self.waiting) > self.most_waiting:
                first = min(self.waiting, key=self.waiting.get)
                first.deadline = 0
                first.shutdown(self.waiting.pop(first)[1])
        try:
            return wait(self, seconds)  # by poll, which takes no descriptor
        finally:
            with self.lock:
                self.waiting.pop(self, None)
