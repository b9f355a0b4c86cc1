"""The wire to a provider: connections, a call, its hang-up and its deadline, event streams. No other room touches its socket."""

import codecs
import contextlib
import email.utils
import errno
import http.client
import ipaddress
import itertools
import json
import math
import os
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator

import requests
import urllib3
from urllib3.util.ssl_ import create_urllib3_context

CONNECT_TIMEOUT = 10  # seconds
IDLE_TTL = 180  # seconds; firewalls silently forget a connection after four minutes or more
JOINED_SIZE = (
    8 * 2**20
)  # bytes of what is joined before it is looked at: a list, an answer that is not streamed, an event
INTERIM_MAX = 100  # answers of 100 to 199 before the real one
codecs.lookup(
    "utf-16-le"
)  # for `made_storable`: Python finds it in a file, and later there may be no more files
# What reading an answer raises that is not of the form that its protocol gives it.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # what no database, or not every one, holds
_BOM = b"\xef\xbb\xbf"
# A connection that its network has silently dropped is noticed: while it is idle after 40 seconds, when a request is sent
# on it after 10. In the middle of an answer, the network may be away for 40 seconds.
_TCP = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 2,
}  # the latter: seconds, seconds, probes
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, getattr(socket, name), _TCP[name])
    for name in _TCP
    if hasattr(socket, name)
]
SOCKET_OPTIONS.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))


class HungUp(Exception):
    """The call was hung up from this side."""


class Fault(Exception):
    """The wire failed. `kind` says how: `faults` has what each means. `detail` is what the libraries say of it, for the log."""

    def __init__(self, kind, detail=""):
        super().__init__(f"{kind} {detail}".strip())
        self.kind, self.detail = kind, detail


class Call:
    """One call to another server, which has so many seconds in all its tries, and can be hung up."""

    def __init__(self, seconds=math.inf):
        self._end = self.deadline = (
            time.monotonic() + seconds
        )  # of all that the call may take; of what it does now
        self.reused = False  # its connection has served another call before
        self.answered = False  # the first byte of an answer has come
        self._hung_up, self._socket, self._lock = threading.Event(), None, threading.Lock()

    def check(self):
        """Raises HungUp where it was hung up, and a Fault where its time is over."""
        self.pause(0)
        if time.monotonic() >= self.deadline:
            raise Fault("silent")

    def hang_up(self):
        """Close the connection to the provider now, even where it has not begun to answer. Any thread may do so."""
        self._hung_up.set()
        with self._lock, contextlib.suppress(OSError):  # it is closed, or the other side was faster
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def allow(self, seconds):
        """Give the call so many seconds from now, in the place of those that it still had."""
        self.deadline = min(self._end, time.monotonic() + seconds)

    def remaining(self):
        """The seconds that it still has. They are never none, by which a socket would not wait at all, without a fault."""
        return max(0.001, self.deadline - time.monotonic())

    def connected(self, sock):
        """Remember the socket on which the request is sent, by a duplicate, since TLS puts another object in its place."""
        with self._lock:
            self._socket = socket.fromfd(sock.fileno(), -1, -1)  # of the same family and type
        if self._hung_up.is_set():
            self.hang_up()

    def disconnected(self):
        """From here on the call cannot touch the connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def pause(self, seconds):
        """Wait. Raises HungUp where the call is hung up meanwhile."""
        if self._hung_up.wait(seconds):
            raise HungUp


class _Connection:
    """What is added to urllib3's connections, each of which serves one `call` at a time."""

    def response_class(self, sock, **options):
        return Response(self, sock, **options)

    def _new_conn(self):
        sock = super()._new_conn()
        self.call.connected(sock)  # before the handshake of TLS, which may be hung up too
        return sock

    def send(self, data):
        """The other side may take it slowly: so it is sent in what TLS sends at once, since a timeout begins anew with each."""
        try:
            for start in range(0, len(data), 16384):
                self.sock.settimeout(self.call.remaining())
                super().send(data[start : start + 16384])
        except OSError:
            self._forget_errors()  # an answer may be there already, which is read next
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
        if (context := getattr(self, "ssl_context", None)) is not None:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


def without_password(text):
    """The same with neither user nor password in its URLs."""
    return re.sub(r"//[^/?#\s]*@", "//…@", text)  # up to the last @: a password may have some


def route(url):
    """How requests gets there: `proxies`, `stream`, `verify` and `cert`, by the environment. This machine needs no proxy."""
    found = requests.Session().merge_environment_settings(url, {}, True, None, None)
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            found["proxies"] = {}
    return found


# What a request, or reading its response, raises where there is no server.
LOST = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def arriving(response: requests.Response) -> Iterator[bytes]:
    """The body of a response, in chunks as they come. Raises requests.ConnectionError where it
    breaks."""
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from None


class Response(http.client.HTTPResponse):
    """The answer to a request: its status, its headers, and its body while it arrives. It ends with the time of its call."""

    def __init__(self, connection, sock, **options):
        super().__init__(sock, **options)
        self.connection, self._call, read = connection, connection.call, self.fp.raw.readinto
        self.is_read = self.is_followed = False  # to its end; by what nobody asked for
        self.is_json = False  # its body is one value, which `events` has found
        self.is_whole = False  # whoever reads it says so where it is the answer, to its end

        def readinto(buffer):
            sock.settimeout(
                self._call.remaining()
            )  # before each read: a timeout alone would begin anew with each byte
            return read(buffer)

        self.fp.raw.readinto = readinto

    def begin(self):
        self._call.answered = bool(self.fp.peek(1))
        super().begin()
        lengths = {
            each.strip()
            for line in self.headers.get_all("Content-Length", [])
            for each in line.split(",")
        }
        if len(lengths) > 1 and not self.chunked:
            raise http.client.HTTPException("contradicting lengths")
        if (
            self.length is None and not self.chunked and "".join(lengths).isdecimal()
        ):  # "5, 5", of which http.client makes none
            self.length = int(lengths.pop())

    def _read_status(self):
        """That of the real answer: http.client itself passes over 100 only."""
        for _ in range(INTERIM_MAX + 1):
            version, status, reason = super()._read_status()
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim answers")

    def _close_conn(self):
        """As http.client does at the end of the body. What it has read beyond tells that more follows, of which some is late."""
        self.fp.raw.readinto = lambda buffer: 0
        self.is_followed |= bool(self.fp.peek(1))
        super()._close_conn()

    def chunks(self):
        """What each read of the socket brings; nothing waits for a buffer to fill. Raises HungUp or a Fault."""
        if re.search(
            "gzip|deflate|compress|br|zstd", self.headers.get("Content-Encoding", ""), re.IGNORECASE
        ):
            raise Fault("encoded")  # none was asked for; a few bytes could become gigabytes
        try:
            while chunk := self.read1(65536):
                self._call.check()
                yield chunk
        except _RAW_FAULTS as error:
            raise _fault(error, self._call) from None
        self._call.check()  # what is shut down looks like what has ended
        if self.length:  # bytes did not come, about which http.client is silent
            raise Fault("broken")
        self.is_read = True

    def events(self):
        """The events of the body, in batches as they come. The first byte tells what it is, since servers name its type wrong."""
        chunks = self.chunks()
        first = next(filter(None, (chunk.removeprefix(_BOM).lstrip() for chunk in chunks)), b"")
        if first.startswith(b"<"):
            raise Fault("page")
        chunks = itertools.chain([first], chunks)
        if first.startswith((b"{", b"[")):
            chunks = [join(chunks)]
            if (value := parse_json(chunks[0])) is not None:
                self.is_json = True
                return [[{"json": value}]]  # else the JSON of each event may be a line
        return parse_sse(chunks)

    def read_some(self, limit, seconds):
        """So many bytes of the body, or what of them came within these seconds, before the wire failed."""
        body = bytearray()
        self._call.allow(min(seconds, self._call.remaining()))
        with contextlib.suppress(Fault, HungUp):
            join(self.chunks(), limit, body)
        return body


class Wire:
    """The way to one server, by the proxies and the certificates that the environment names."""

    def __init__(self, base_url):
        self.base_url, self._lock = base_url, threading.Lock()
        self._pool = None  # is opened with the first request
        self._idle = []  # connections, the last used at the end

    @contextlib.contextmanager
    def request(self, call, method, path, headers, body=None):
        """Send a request; within the context its Response can be read. Raises HungUp or a Fault. A kept connection may be closed
        at the moment in which it is used again: where no byte of an answer comes, it is sent once more, on a fresh one.

        The connection is kept where the Response `is_whole`. Nothing in HTTP/1.1 ties an answer to
        its request: behind any other, such as an error that a gateway sends of its own accord, the
        one to this request may still come, and would be taken for the answer to the next."""
        for fresh in (False, True):
            call.check()
            try:
                response = self._send(fresh, call, method, path, headers, body)
                break
            except _RAW_FAULTS as error:
                if call.answered or fresh or not call.reused:
                    raise _fault(error, call) from None
        del body  # it may be large, and the answer takes its time
        try:
            yield response
        finally:
            connection, sock = response.connection, response.connection.sock
            call.disconnected()
            response.close()
            is_last = response.is_whole and response.is_read and not response.is_followed
            # What follows may already be decrypted, where `is_connected`, which looks at the socket, does not see it.
            if is_last and sock is not None and not getattr(sock, "pending", int)():
                connection.call, connection.idle_since = None, time.monotonic()
                response._call = None  # a connection that is kept keeps its last response
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()

    def _send(self, fresh, call, method, path, headers, body):
        """Send it on the idle connection that was used last, or on a new one."""
        with self._lock:
            self._pool = self._pool or self._open()
            while self._idle and self._idle[0].idle_since < time.monotonic() - IDLE_TTL:
                self._idle.pop(0).close()
            connection = self._pool._new_conn() if fresh or not self._idle else self._idle.pop()
        connection.call, connection.timeout = (
            call,
            min(CONNECT_TIMEOUT, call.remaining()),
        )  # the rest is the call's affair
        try:
            call.answered, call.reused = False, connection.is_connected
            if call.reused:
                call.connected(connection.sock)
            else:
                connection.close()
                self._connect(connection)
            if hasattr(
                socket, "TCP_USER_TIMEOUT"
            ):  # in ms; it counts, too, while the other side does not take a long request
                patience = 60_000 if len(body or b"") > 65536 else 10_000
                call._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it may have answered before it had all
                connection.request(method, self._target + path, body, self._headers | headers)
            return http.client.HTTPConnection.getresponse(
                connection
            )  # urllib3's own would put another one around it
        except BaseException:
            call.disconnected()
            connection.close()
            raise

    def _open(self):
        """urllib3's pool, which only makes connections: all with one TLS context, since each takes milliseconds to make."""
        adapter, found = requests.adapters.HTTPAdapter(), route(self.base_url)
        # Not by a session of requests: it would follow redirects, with key and conversation, and put ~/.netrc in the key's place.
        request = requests.Request(
            "GET", self.base_url, {"User-Agent": "parley", "Accept-Encoding": "identity"}
        ).prepare()
        # With `verify` it would have each connection read the certificates again.
        pool = adapter.get_connection_with_tls_context(request, True, found["proxies"])
        is_tunnel = pool.proxy and pool.scheme == "https"
        self._connect = pool._prepare_proxy if is_tunnel else pool.ConnectionCls.connect
        self._headers = dict(request.headers) | (
            {} if is_tunnel else pool.proxy_headers
        )  # the URL's password among them
        target = adapter.request_url(request, found["proxies"])
        self._target = (
            target if self.base_url.endswith("/") else target.removesuffix("/")
        )  # of a URL without a path
        if pool.scheme == "https":
            context, verify = create_urllib3_context(), found["verify"]
            if verify is True:
                context.load_default_certs()  # the system's own
                verify = requests.certs.where()
            context.load_verify_locations(
                **{"capath" if os.path.isdir(verify) else "cafile": verify}
            )
            pool.conn_kw["ssl_context"] = context
        pool.conn_kw["socket_options"] = SOCKET_OPTIONS
        pool.ConnectionCls = type("Connection", (_Connection, pool.ConnectionCls), {})
        return pool


# Those of requests are OSErrors.
_RAW_FAULTS = (
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    RuntimeError,
)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)  # no more files, or memory
# What another try cannot mend: a URL or a certificate (in Python and its libraries a ValueError), a file of certificates,
# and what is no certificate in it or a proxy that wants a password, which only their texts tell.
_MISCONFIGURED = (ValueError, FileNotFoundError, PermissionError)
_MISCONFIGURED_TEXT = re.compile(
    "NO_CERTIFICATE_OR_CRL_FOUND|PEM lib|Tunnel connection failed: 407"
)


def _fault(error, call):
    """What is raised in the place of an error of the libraries, where the call itself does not say why."""
    call.check()
    kind, cause = "broken" if call.answered else "unreachable", error
    while cause is not None:
        if getattr(cause, "errno", None) in _EXHAUSTED or isinstance(
            cause, RuntimeError
        ):  # the latter: no more threads
            return Fault("exhausted", str(cause))
        if not call.answered and (
            isinstance(cause, _MISCONFIGURED) or _MISCONFIGURED_TEXT.search(str(cause))
        ):
            kind, error = "misconfigured", cause
        cause = cause.__cause__ or cause.__context__
    return Fault(
        kind, "a URL is not understood" if "parse" in str(error) else str(error)
    )  # the former may show a password


def join(chunks, limit=JOINED_SIZE, joined=None):
    """All of the chunks, behind what is `joined` already. Raises a Fault where that has more bytes than the limit."""
    joined = bytearray() if joined is None else joined
    for chunk in chunks:
        joined += chunk
        if len(joined) > limit:
            raise Fault("endless")
    return joined


def parse_sse(chunks):
    """Parse an event stream (WHATWG HTML, 9.2.6): yields, for each chunk of bytes, the list of the events that it completed, each
    a dict of its fields, as {"event": "done", "data": "{}"}. Beyond that, as servers have it: the last may lack its blank line,
    `error` is a field (llama.cpp), and a line of plain JSON is an event. Raises a Fault where an event has no end."""
    rest, fields, size, after_cr = bytearray(), {}, 0, False
    for chunk, is_end in itertools.chain(
        zip(filter(None, chunks), itertools.repeat(False), strict=False), [(b"\n\n", True)]
    ):
        if after_cr:
            chunk = chunk.removeprefix(b"\n")
        after_cr = chunk.endswith(b"\r")
        rest += chunk
        size += len(chunk)
        if size > JOINED_SIZE:
            raise Fault("endless")
        if b"\n" not in chunk and b"\r" not in chunk:
            continue
        *lines, rest = re.split(rb"\r\n|\r|\n", rest)
        complete = []
        for line in lines:
            line = line.removeprefix(_BOM)  # the first may have one; in another it is nothing
            name, _, value = line.partition(b":")
            if name in (b"data", b"event", b"id", b"error"):
                fields.setdefault(name.decode(), []).append(
                    value.removeprefix(b" ").decode("utf-8", "replace")
                )
            elif line.startswith(b"{") and (value := parse_json(line)) is not None:
                complete.append({"json": value})
            elif not line and fields:
                event = {name: "\n".join(values) for name, values in fields.items()}
                content = event.get("error") or event.get("data", "").strip()
                if content and (
                    not is_end or content == "[DONE]" or parse_json(content) is not None
                ):  # else it was cut
                    complete.append(event)
                fields = {}
        if complete:
            size = len(rest)
            yield complete


def parse_json(text):
    """What this JSON says, or None where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)


def made_storable(texts):
    """The same texts as every database holds them: NUL and lone surrogates become U+FFFD, halves in two texts their character."""
    coded = (text.encode("utf-16-le", "surrogatepass") for text in texts)
    for text in codecs.iterdecode(coded, "utf-16-le", "replace"):
        yield text.replace("\0", "\ufffd")


def retry_after(headers):
    """The seconds after which a server wants to be asked again (RFC 9110, 10.2.3), a day at most, or None."""
    for read in (
        lambda: (
            float(headers["retry-after-ms"]) / 1000
        ),  # OpenAI and Anthropic send it besides, to be exact
        lambda: float(headers["retry-after"]),
        lambda: email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time(),
    ):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            seconds = read()
            if math.isfinite(seconds):
                return min(max(seconds, 0.0), 86400.0)
