"""The wire to a provider: connections, a call and its hang-up, event streams. No other room touches a provider's socket."""

import contextlib
import email.utils
import math
import re
import socket
import threading
import time

import requests
import urllib3

CONNECT_TIMEOUT = 10  # seconds


class HungUp(Exception):
    """The call was hung up from this side."""


class Fault(Exception):
    """The wire failed."""


class Unreachable(Fault):
    """No connection came about, or none on which the request could be sent."""


class Silent(Fault):
    """The other side sent nothing for as long as the timeout."""


class Broken(Fault):
    """The connection broke before the answer was whole, or what came was no HTTP."""


class Call:
    """One call to a provider. Any thread may hang it up; it holds what is known of the answer besides its text."""

    def __init__(self):
        self.usage = {}  # input_tokens, output_tokens, cached_tokens, as far as the provider said
        self.request_id = None
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

    def connected(self, sock):
        """Remember this connection, by a duplicate: wrapping a socket in TLS detaches the one that is wrapped."""
        with self._lock:
            self._socket = sock.dup()
            if self.hung_up:
                self._shut_down()

    def disconnected(self):
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def pause(self, seconds):
        """Wait. Raises HungUp where the call is hung up meanwhile."""
        if self._hung_up.wait(seconds):
            raise HungUp

    def _shut_down(self):
        with contextlib.suppress(OSError):  # the other side was faster
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


class _Adapter(requests.adapters.HTTPAdapter):
    """A transport that tells its call about the connection as soon as there is one."""

    def __init__(self, call):
        super().__init__(max_retries=0)
        self.call = call

    def get_connection_with_tls_context(self, *args, **kwargs):
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        call = self.call

        class Connection(pool.ConnectionCls):
            def _new_conn(self):
                sock = super()._new_conn()
                call.connected(sock)
                return sock

        pool.ConnectionCls = Connection
        return pool


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

    def body(self):
        return b"".join(self.chunks())


class Wire:
    """The way to one server, by the proxies and the certificates that the environment names."""

    def __init__(self, base_url, timeout):
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout  # seconds of silence
        # `proxies`, `stream`, `verify` and `cert` of a request.
        self._route = requests.Session().merge_environment_settings(self.base_url, {}, True, None, None)

    @contextlib.contextmanager
    def request(self, call, method, path, headers, body=None, timeout=None):
        """Send a request; within the context its Response can be read. Raises HungUp or a Fault."""
        common = {"User-Agent": "parley", "Accept-Encoding": "identity", "Connection": "close"}
        timeouts = min(CONNECT_TIMEOUT, self.timeout), timeout or self.timeout
        with contextlib.closing(_Adapter(call)) as adapter:
            try:
                # A requests session would follow redirects, with key and conversation, and put ~/.netrc in the key's place.
                request = requests.Request(method, self.base_url + path, common, data=body).prepare()
                request.headers.update(headers)  # after `prepare`, which puts a password of the URL in the key's place
                response = adapter.send(request, timeout=timeouts, **self._route)
            except _RAW_FAULTS as error:
                call.disconnected()
                raise _fault(error, call) from None
            with response:
                try:
                    yield Response(response, call)
                finally:
                    call.disconnected()


_RAW_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def _fault(error, call):
    """What is raised in the place of an error of the libraries."""
    if call.hung_up:
        return HungUp()
    if isinstance(error, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return Silent()
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
