"""A relay on the loopback interface between clients and a server, which changes requests and answers
as its plan says.
"""

import collections
import contextlib
import http.client
import http.server
import socket
import threading
import time
from urllib.parse import urlsplit

from calling import LOST, connect
from scripted_model import Listener

CUT = object()  # the connection breaks here
END = object()  # the body ends here, as if it were whole
SILENCE = 60  # seconds without a byte of the server
OWN = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}
COMMENT = b": \n\n"


class Plan:
    """How requests and answers are changed; by default they are not. One plan is for all connections of a relay,
    and may count them."""

    lifetime = None  # seconds after the head of an answer, after which its connection breaks

    def refuse(self, request):
        """A status, headers and a body in place of the server's answer; CUT if the server is not
        even asked; else None."""
        return None

    def asked(self, request, body):
        """The body of the request that is passed on; None is none."""
        return body

    def head(self, request, status, headers):
        """The status and the headers that are passed on, or CUT."""
        return status, headers

    def body(self, request, pieces):
        """The pieces of a body that are passed on, CUT or END."""
        return pieces


class Request:
    """A client's request; `number` counts those of this method, `is_stream` is set once a stream
    answers."""

    def __init__(self, number, method, path):
        self.number, self.method, self.path, self.is_stream = number, method, path, False


class Relay:
    """Stands in front of the server of this URL; `url` is its own."""

    def __init__(self, target, plan=None):
        self.target, self.plan = urlsplit(target), plan or Plan()
        self.requests = collections.Counter()  # by their methods
        self.passed = bytearray()  # the bytes of streams that clients were sent
        self._lock = threading.Lock()
        handler = type("Handler", (Handler,), {"relay": self})
        self._server = Listener(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def request(self, method, path):
        with self._lock:
            self.requests[method] += 1
            return Request(self.requests[method], method, path)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    relay: Relay

    def log_message(self, *arguments):
        pass

    def pass_on(self):
        """Handle one request, whose connection then ends."""
        self.close_connection = True
        relay, plan = self.relay, self.relay.plan
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        request = relay.request(self.command, self.path)
        if refusal := plan.refuse(request):
            if refusal is not CUT:
                status, headers, text = refusal
                self.send(status, headers, iter([text]))
            return
        with contextlib.suppress(*LOST), contextlib.closing(connect(relay.target, SILENCE)) as way:
            self.answer(way, request, plan.asked(request, body))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = pass_on

    def answer(self, way, request, body):
        own = OWN | {"host", "accept-encoding"}
        names = {name: value for name, value in self.headers.items() if name.lower() not in own}
        way.request(request.method, self.relay.target.path + request.path, body, names)
        with contextlib.closing(way.getresponse()) as response:
            request.is_stream = response.headers.get_content_type() == "text/event-stream"
            headers = [each for each in response.getheaders() if each[0].lower() not in OWN]
            head = self.relay.plan.head(request, response.status, headers)
            if head is CUT:
                return
            with self.living(self.relay.plan.lifetime):
                pieces = self.relay.plan.body(request, pieces_of(response))
                self.send(*head, self.kept(pieces) if request.is_stream else pieces)

    @contextlib.contextmanager
    def living(self, seconds):
        """Within this context, connections break after so many seconds, if a number is given."""
        timer = threading.Timer(seconds or 0, self.hang_up)
        if seconds:
            timer.start()
        yield
        timer.cancel()

    def kept(self, pieces):
        for piece in pieces:
            if isinstance(piece, bytes):
                self.relay.passed += piece
            yield piece

    def send(self, status, headers, pieces):
        self.send_response_only(status)
        for name, value in [*headers, ("Connection", "close")]:
            self.send_header(name, value)
        has_body = status != 204
        if has_body:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces if has_body else ():
            if piece is CUT:
                return
            if piece is END:
                break
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
        if has_body:
            self.wfile.write(b"0\r\n\r\n")

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def pieces_of(response):
    """The pieces of a body, as they come. If it breaks, it breaks for the client, too."""
    try:
        while data := response.read1(65536):
            yield data
    except (OSError, http.client.HTTPException):
        yield CUT


def frames_of(pieces):
    """The pieces as frames, each with its empty line; an incomplete frame comes last."""
    rest = b""
    for piece in pieces:
        if piece is CUT:
            yield piece
            return
        *frames, rest = (rest + piece).split(b"\n\n")
        yield from (frame + b"\n\n" for frame in frames)
    if rest:
        yield rest


def is_event(frame):
    return frame is not CUT and b"data:" in frame


# What becomes of connections


class Straight(Plan):
    """Nothing is changed."""


class BehindEachFrame(Plan):
    """A stream breaks after its first event, or ends there as if it were whole."""

    how = CUT

    def body(self, request, pieces):
        if not request.is_stream:
            yield from pieces
            return
        for frame in frames_of(pieces):
            yield frame
            if is_event(frame):
                yield self.how
                return


class EndBehindEachFrame(BehindEachFrame):
    how = END


class WithinEachFrame(Plan):
    """A stream breaks after its first event and a half of the next frame, within its data."""

    def body(self, request, pieces):
        if not request.is_stream:
            yield from pieces
            return
        events = 0
        for frame in frames_of(pieces):
            events += is_event(frame)
            if events == 2:
                yield frame[: frame.index(b"data:") + 9]
                yield CUT
                return
            yield frame


class AfterATime(Plan):
    """Each connection breaks 0.4 seconds after its head, whatever it carries."""

    lifetime = 0.4


class HeldBack(Plan):
    """Each piece is delayed by 0.2 seconds, and its last seven bytes until more comes."""

    def body(self, request, pieces):
        held = b""
        for piece in pieces:
            time.sleep(0.2)
            if piece is CUT:
                yield piece
                return
            held += piece
            yield held[:-7]
            held = held[-7:]
        yield held


class ByteByByte(Plan):
    """Each byte comes alone."""

    def body(self, request, pieces):
        for piece in pieces:
            yield from [piece] if piece is CUT else (bytes([byte]) for byte in piece)


def is_first(request):
    """Whether it is the first that requests a reply."""
    return request.method == "POST" and request.number == 1


class FirstAnswerLost(Plan):
    """The server handles the first POST, and its answer is lost."""

    def head(self, request, status, headers):
        return CUT if is_first(request) else (status, headers)


class NobodyThere(Plan):
    """The first POST does not reach the server; the second is refused by something in front of it."""

    def refuse(self, request):
        if is_first(request):
            return CUT
        page = [("Content-Type", "text/html"), ("Retry-After", "1")]
        is_second = request.method == "POST" and request.number == 2
        return (503, page, b"<html>No upstream.</html>") if is_second else None


class LaterRelease(Plan):
    """Adds comments, and events and fields that a later release might have."""

    def body(self, request, pieces):
        if not request.is_stream:
            yield from pieces
            return
        for frame in frames_of(pieces):
            if is_event(frame):
                last = frame.rstrip().rpartition(b"id: ")[2]
                is_end = b"-turn" in last or b"-end" in last
                yield COMMENT + b": so it is\n\n"
                yield frame.replace(b'data: {"', b'data: {"later": [1, null], "')
                if not is_end:
                    yield b'event: later\ndata: {"delta": "No!"}\nid: ' + last + b"\n\n"
            else:
                yield frame


PLANS = {
    each.__name__: each
    for each in (
        Straight,
        BehindEachFrame,
        EndBehindEachFrame,
        WithinEachFrame,
        AfterATime,
        HeldBack,
        ByteByByte,
        FirstAnswerLost,
        NobodyThere,
        LaterRelease,
    )
}
