"""The wire to a provider: connections, a call and its hang-up, event streams. No other room touches a provider's socket.

Connections are kept. What decides whether one may serve another call is here, in `_Idle.put`, `_Idle.get` and `Wire._send`.
"""

import contextlib
import email.utils
import errno
import functools
import http.client
import math
import os
import queue
import re
import socket
import threading
import time

import requests
import urllib3
from urllib3.util.ssl_ import create_urllib3_context

CONNECT_TIMEOUT = 10  # seconds
IDLE_TTL = 180  # seconds; firewalls silently forget a connection after four minutes or more
IDLE_MAX = 256  # idle connections to one server; a process has as many threads
# A connection that its network has silently dropped is noticed: while it is idle after 40 seconds, when a request is sent
# on it after 10. In the middle of an answer, the network may be away for 40 seconds.
SOCKET_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", 30),  # seconds
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 10_000),  # milliseconds
    )
    if hasattr(socket, name)  # each system has its own selection
]


class HungUp(Exception):
    """The call was hung up from this side."""


class Fault(Exception):
    """The wire failed."""


class Unreachable(Fault):
    """No connection came about, or none on which the request could be sent."""


class Exhausted(Fault):
    """The system gives this process no more files or memory."""


class Silent(Fault):
    """The other side sent nothing for as long as the timeout."""


class Broken(Fault):
    """The connection broke before the answer was whole, or what came was no HTTP."""


class Call:
    """One call to a provider. Any thread may hang it up; it holds what is known of the answer besides its text."""

    def __init__(self):
        self.usage = {}  # input_tokens, output_tokens, cached_tokens, as far as the provider said
        self.request_id = None
        self.reused = False  # its connection has served another call before
        self.answered = False  # the first byte of an answer has come
        self._hung_up = threading.Event()
        self._socket = None
        self._lock = threading.Lock()

    @property
    def hung_up(self):
        return self._hung_up.is_set()

    def hang_up(self):
        """Close the connection to the provider now, even where it has not begun to answer."""
        with self._lock:
            self._hung_up.set()
            self._shut_down()

    def connected(self, sock, reused):
        """Remember the socket on which the request is sent, by a duplicate, since TLS puts another object in its place."""
        with self._lock:
            self._forget()
            self._socket = socket.fromfd(sock.fileno(), sock.family, sock.type)
            self.reused, self.answered = reused, False
            if self.hung_up:
                self._shut_down()

    def disconnected(self):
        """Forget the socket: from here on the call cannot touch it. Returns whether the call was hung up before."""
        with self._lock:
            self._forget()
            return self.hung_up

    def pause(self, seconds):
        """Wait. Raises HungUp where the call is hung up meanwhile."""
        if self._hung_up.wait(seconds):
            raise HungUp

    def _forget(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _shut_down(self):
        with contextlib.suppress(OSError):  # the other side was faster
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


# Connections, below requests and urllib3


class _Current(threading.local):
    """What this thread is sending. urllib3 hands no argument of ours to its pools and connections."""

    call = None
    fresh = False  # only a new connection will do


_current = _Current()


class _Answer(http.client.HTTPResponse):
    """An answer that tells its call when its first byte has come."""

    def __init__(self, call, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._call = call

    def begin(self):
        try:
            self._call.answered = bool(self.fp.peek(1))
        except TimeoutError as error:
            if error.errno is None:  # nothing came for as long as the timeout
                raise
            raise ConnectionResetError("the network is gone") from error  # ETIMEDOUT, of keep-alive or TCP_USER_TIMEOUT
        super().begin()


class _Connection:
    """What is added to urllib3's connections: each tells its call on which socket the request is sent."""

    call = None  # the one that it serves

    def _new_conn(self):
        sock = super()._new_conn()
        self._serve(sock, reused=False)  # before the handshake of TLS, which may be hung up too
        return sock

    def request(self, *args, **kwargs):
        if self.sock is not None and self.call is None:
            self._serve(self.sock, reused=True)
        self.response_class = functools.partial(_Answer, _current.call)
        super().request(*args, **kwargs)

    def _serve(self, sock, reused):
        self.call = _current.call
        self.call.connected(sock, reused)


class _Idle:
    """The idle connections to one server, the last used on top, in the place of urllib3's queue.

    A queue would keep those at its bottom for ever.
    """

    def __init__(self, maxsize):
        self._maxsize = maxsize
        self._connections = []  # (since when it is idle, connection)
        self._process = os.getpid()
        self._lock = threading.Lock()

    def get(self, block=False, timeout=None):
        """A connection to use again. Raises queue.Empty, upon which urllib3 makes a new one."""
        with self._lock:
            if self._process != os.getpid():  # this process was forked, and these are its parent's
                self._connections, self._process = [], os.getpid()
            self._close_old()
            if _current.fresh or not self._connections:
                raise queue.Empty
            return self._connections.pop()[1]

    def put(self, connection, block=False):
        """Take a connection whose call is over, to use it again if its answer was read to the end and nothing follows."""
        if connection is None or connection.call is None:  # urllib3 fills its queue with None
            return
        hung_up = connection.call.disconnected()
        connection.call = None
        sock = connection.sock
        # What follows an answer may already be decrypted, where `is_connected`, which looks at the socket, does not see it.
        if hung_up or sock is None or getattr(sock, "pending", int)():
            connection.close()
            return
        with self._lock:
            self._close_old()
            self._connections.append((time.monotonic(), connection))
            if len(self._connections) > self._maxsize:
                self._connections.pop(0)[1].close()

    def qsize(self):
        return len(self._connections)

    def _close_old(self):
        oldest = time.monotonic() - IDLE_TTL
        while self._connections and self._connections[0][0] < oldest:
            self._connections.pop(0)[1].close()


@functools.cache
def _kept(pool_class):
    """This class of urllib3's pools, with our idle connections."""
    connection_class = type("Connection", (_Connection, pool_class.ConnectionCls), {})
    return type("Pool", (pool_class,), {"ConnectionCls": connection_class, "QueueCls": _Idle})


class _Adapter(requests.adapters.HTTPAdapter):
    """The connections to one server, with one TLS context: to make one for each takes milliseconds of the processor."""

    def __init__(self):
        self._context, self._lock = None, threading.Lock()
        super().__init__(pool_maxsize=IDLE_MAX, max_retries=0)

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, socket_options=SOCKET_OPTIONS, **kwargs)
        self._keep(self.poolmanager)

    def proxy_manager_for(self, proxy, **kwargs):
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, socket_options=SOCKET_OPTIONS, **kwargs)
        if is_new:
            self._keep(manager)
        return manager

    @staticmethod
    def _keep(manager):
        manager.pool_classes_by_scheme = {name: _kept(pool) for name, pool in manager.pool_classes_by_scheme.items()}

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        host_params, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host_params, {"ssl_context": self._tls_context(verify)} if host_params["scheme"] == "https" else {}

    def cert_verify(self, *args):
        """Nothing is to be done: the TLS context has the certificates."""

    def _tls_context(self, verify):
        with self._lock:  # with another context urllib3 would have another pool
            if self._context is None:
                context = create_urllib3_context()
                if verify is True:
                    context.load_default_certs()  # the system's own
                    verify = requests.certs.where()
                context.load_verify_locations(**{"capath" if os.path.isdir(verify) else "cafile": verify})
                self._context = context
            return self._context


class Response:
    """The answer to a request: its status, its headers, and its body while it arrives."""

    def __init__(self, response, call):
        self.status = response.status_code
        self.headers = response.headers
        self._raw = response.raw
        self._call = call

    def chunks(self):
        """What each read of the socket brings; nothing waits for a buffer to fill. Raises HungUp or a Fault."""
        try:
            while chunk := self._raw.read1(65536, decode_content=True):
                if self._call.hung_up:
                    break
                yield chunk
        except _RAW_FAULTS as error:
            raise _fault(error, self._call) from None
        if self._call.hung_up:
            raise HungUp

    def body(self, limit):
        """The body, or so much of it as has so many bytes."""
        parts, size = [], 0
        for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                break
        return b"".join(parts)


class Wire:
    """The way to one server, by the proxies and the certificates that the environment names."""

    def __init__(self, base_url, timeout):
        self.base_url = base_url
        self.timeout = timeout  # seconds of silence
        self._adapter = _Adapter()
        # `proxies`, `stream`, `verify` and `cert` of a request.
        self._route = requests.Session().merge_environment_settings(base_url, {}, True, None, None)

    @contextlib.contextmanager
    def request(self, call, method, path, headers, body=None, timeout=None):
        """Send a request; within the context its Response can be read. Raises HungUp or a Fault."""
        common = {"User-Agent": "parley", "Accept-Encoding": "identity"}
        # A requests session would follow redirects, with key and conversation, and put ~/.netrc in the key's place.
        request = requests.Request(method, self.base_url + path, common, data=body).prepare()
        request.headers.update(headers)  # after `prepare`, which puts a password of the URL in the key's place
        with self._send(call, request, timeout or self.timeout) as response:
            try:
                yield Response(response, call)
            finally:
                call.disconnected()

    def _send(self, call, request, timeout):
        """The response of requests. Its connection is kept if it is read to the end, and closed if not.

        The server may close a kept connection at the moment in which it is used again. Then no byte of an answer comes,
        and the request is sent once more, on a fresh connection.
        """
        for fresh in (False, True):
            if call.hung_up:
                raise HungUp
            _current.call, _current.fresh = call, fresh
            try:
                return self._adapter.send(request, timeout=(min(CONNECT_TIMEOUT, self.timeout), timeout), **self._route)
            except _RAW_FAULTS as error:
                call.disconnected()
                fault = _fault(error, call)
                if isinstance(fault, (HungUp, Silent)) or call.answered or not call.reused:
                    raise fault from None
            finally:
                _current.call, _current.fresh = None, False


_RAW_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def _fault(error, call):
    """What is raised in the place of an error of the libraries."""
    if call.hung_up:
        return HungUp()
    if isinstance(error, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return Silent()
    cause = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            return Exhausted()
        cause = cause.__cause__ or cause.__context__
    return Unreachable() if isinstance(error, requests.ConnectionError) else Broken()


def parse_sse(chunks):
    """Parse an event stream: yields, for each chunk of bytes, the list of the `data` of the events that it completed.

    WHATWG HTML, 9.2.6: a line ends in CR, LF or CRLF, wherever the chunks are cut; a last event without its blank line
    is dropped, and so is an empty one. The event's name is not needed: both protocols repeat it in the data.
    """
    rest, data, is_first, after_cr = b"", [], True, False
    for chunk in filter(None, chunks):
        if after_cr:
            chunk = chunk.removeprefix(b"\n")
        after_cr = chunk.endswith(b"\r")
        *lines, rest = re.split(rb"\r\n|\r|\n", rest + chunk)
        complete = []
        for line in lines:
            if is_first:
                line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
            if line == b"data" or line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line:
                if any(data):
                    complete.append(b"\n".join(data).decode("utf-8", "replace"))
                data = []
        yield complete


def made_storable(texts):
    """The same texts as every database holds them: NUL and lone surrogates become U+FFFD.

    JSON may write a character as two surrogates, and a provider may send these in two texts: the first is held back
    until the second has come, so that "\\ud83d" and "\\ude00" give "😀".
    """
    half = ""
    for text in texts:
        text = half + text
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text.removesuffix(half)
        if not text.isascii() or "\0" in text:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        if text:
            yield text
    if half:
        yield "\ufffd"


def retry_after(headers):
    """The seconds after which a server wants to be asked again (RFC 9110, 10.2.3), a day at most, or None."""
    value = headers.get("retry-after", "")
    for read in (
        lambda: float(headers["retry-after-ms"]) / 1000,  # OpenAI and Anthropic send it besides, to be exact
        lambda: float(value),
        lambda: email.utils.parsedate_to_datetime(value).timestamp() - time.time(),
    ):
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            seconds = read()
            if math.isfinite(seconds):
                return min(max(seconds, 0.0), 86400.0)
    return None
