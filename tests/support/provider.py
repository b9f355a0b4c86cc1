"""A model provider on the loopback interface that speaks both protocols and fails in every way that
a test wants.
"""

import contextlib
import datetime
import ipaddress
import json
import re
import select
import socket
import ssl
import struct
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vanishing import drop_all_that_comes

# Seconds to wait for an Event, so that no thread hangs if a test stops in its middle.
PATIENCE = 120
KEEP = object()  # the last part of an answer after which the connection may have another request


class Request:
    """What the provider was sent, and whether the other side has hung up since."""

    def __init__(self, connection, method, path, headers, body):
        self.connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.at = time.monotonic()
        self.hung_up = threading.Event()


class Connection:
    """One connection to the provider. A thread reads its requests and sees its end; others answer,
    one after the other."""

    def __init__(self, sock, provider):
        self.sock = sock
        self.provider = provider
        self.over = threading.Event()
        # Bytes of the next request that are read before the connection is reset.
        self.breaks_after = None
        self._data = b""
        self._ending = False
        self._lock = threading.Lock()  # OpenSSL does not allow two threads in one connection

    def serve(self):
        request = answering = None
        try:
            if self.provider.tls:
                self.sock = self.provider.tls.wrap_socket(self.sock, server_side=True)
            with self.sock:
                while (following := self._read()) is not None:
                    if answering is not None:
                        answering.join()
                    if self._ending:  # as a server that has closed it, and reads nothing more
                        break
                    request = following
                    answering = threading.Thread(target=self._answer, args=(request,), daemon=True)
                    answering.start()
        except OSError:
            pass
        finally:
            if request is not None:
                request.hung_up.set()
            self.over.set()

    def close(self):
        """End it as a server that has had enough."""
        if not self._ending:
            self._ending = True
            # close() alone would not end the connection: the reading thread uses the socket, too.
            self._shut_down(socket.SHUT_RDWR)

    def reset(self):
        """End it with a reset, as a server that has died, or a router that has forgotten it."""
        self._ending = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._shut_down(
            socket.SHUT_RD
        )  # sends nothing, but has the reading thread close the socket
        self.over.wait(5)

    def vanish(self):
        """From now on the kernel drops what arrives, as if a firewall had forgotten the connection.
        Linux only."""
        drop_all_that_comes(self.sock)

    def send(self, data):
        with self._lock:
            self.sock.sendall(data)

    def _shut_down(self, how):
        with contextlib.suppress(OSError):  # the other side was faster
            socket.socket.shutdown(
                self.sock, how
            )  # an SSLSocket's own would send unencrypted from here on

    def _answer(self, request):
        is_kept = False
        with contextlib.suppress(OSError):
            for part in self.provider.answer(request):
                if part is KEEP:
                    is_kept = request.headers.get("connection", "").lower() != "close"
                elif isinstance(part, bytes):
                    self.send(part)
                elif isinstance(part, threading.Event):
                    deadline = time.monotonic() + PATIENCE
                    while not part.wait(0.01) and not request.hung_up.is_set():
                        if time.monotonic() > deadline:
                            raise TimeoutError
                elif callable(part):
                    part(self)
                else:
                    request.hung_up.wait(part)
        if not is_kept:
            self.close()

    def _read(self):
        """The next request, or None if there are no more."""
        while b"\r\n\r\n" not in self._data:
            if not self._receive():
                return None
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])
        }
        length = int(headers.get("content-length", 0))
        while len(self._data) < length:
            if not self._receive():
                return None
        body, self._data = self._data[:length], self._data[length:]
        return Request(self, method, path, headers, json.loads(body) if body else None)

    def _receive(self):
        if not (self.provider.tls and self.sock.pending()):
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            poll.poll()  # outside of the lock, so that an answer can be sent meanwhile
        with self._lock:
            data = self.sock.recv(2**20)  # a request with images has many megabytes
        self._data += data
        if self.breaks_after is not None and len(self._data) >= self.breaks_after:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        return data


class Provider:
    """Answers each request with the next of its `script`, or else with `default`.

    An answer is a function of the request that yields what goes over the wire: it sends bytes,
    sleeps for a number, waits for an Event, and calls a function with the connection. Then the
    connection is closed, unless the last part is KEEP. The models it lists are `models`.
    """

    def __init__(self, tls=None):
        self.models = ["m-1", "m-2"]
        self.script = []
        self.requests = []
        self.connections = []  # those that were accepted; with TLS, each had a handshake of its own
        self.tls = tls
        self._arrived = threading.Condition()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.default = reply("The answer.")
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        self.script, self.requests, self.models = [], [], ["m-1", "m-2"]
        self.default = reply("The answer.")

    def disconnect(self):
        """Close all connections. Clients know that by the time it returns, and `connections` is
        empty."""
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.close()
        for connection in connections:
            assert connection.over.wait(5)

    def wait_for_request(self, number=1, seconds=10):
        """The request with this number, once it has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.posts) >= number, seconds), (
                "no request came"
            )
            return self.posts[number - 1]

    @property
    def posts(self):
        return [request for request in self.requests if request.method == "POST"]

    def answer(self, request):
        if request.path.endswith("/health"):  # asked once, for the name of the server
            return status(404)(request)
        with self._arrived:
            self.requests.append(request)
            is_list = request.method == "GET"
            answer = (
                models(self.models)
                if is_list
                else self.script.pop(0)
                if self.script
                else self.default
            )
            self._arrived.notify_all()
        return answer(request)

    def close(self):
        """Accept nothing more, and close all connections."""
        with contextlib.suppress(OSError):  # Linux wakes up the thread that accepts; others refuse
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.disconnect()

    def _accept(self):
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # else the parts of an answer wait for each other
            connection = Connection(sock, self)
            self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


def head(status=200, content_type="text/event-stream", **headers):
    lines = [f"HTTP/1.1 {status} ", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data, name=None):
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + b"data: " + text.encode() + b"\n\n"


def anthropic_events(pieces, stop="end_turn", usage=(11, 7, 3)):
    """The events of an answer; pieces that are not text are passed on."""
    start = {
        "input_tokens": usage[0],
        "cache_read_input_tokens": usage[2],
        "cache_creation_input_tokens": 1,
        "output_tokens": 1,
    }
    yield event(
        {"type": "message_start", "message": {"id": "msg_1", "usage": start}}, "message_start"
    )
    yield event(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    )
    yield event({"type": "ping"}, "ping")
    for piece in pieces:
        if isinstance(piece, str):
            delta = {"type": "text_delta", "text": piece}
            yield event(
                {"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta"
            )
        else:
            yield piece
    yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    yield event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop},
            "usage": {"output_tokens": usage[1]},
        },
        "message_delta",
    )
    yield event({"type": "message_stop"}, "message_stop")


def openai_events(pieces, stop="stop", usage=(15, 7, 3)):
    def choice(delta, finish_reason=None):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        return event({"object": "chat.completion.chunk", "choices": choices})

    yield choice({"role": "assistant", "content": None})
    for piece in pieces:
        yield choice({"content": piece}) if isinstance(piece, str) else piece
    yield choice({}, stop)
    counts = {
        "prompt_tokens": usage[0],
        "completion_tokens": usage[1],
        "prompt_tokens_details": {"cached_tokens": usage[2]},
    }
    yield event({"choices": [], "usage": counts})
    yield event("[DONE]")


def thought(**delta):
    """An event of OpenAI's protocol with this, which is no text, in its delta."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def events_of(request, pieces, **options):
    """The events of an answer in the protocol of the request; pieces that are not text are passed
    on."""
    return (anthropic_events if request.path.endswith("/messages") else openai_events)(
        pieces, **options
    )


def reply(*pieces, stop=None, usage=None, **headers):
    """A whole answer in the protocol of the request. It waits for numbers and Events among the
    pieces."""
    options = {
        name: value for name, value in (("stop", stop), ("usage", usage)) if value is not None
    }

    def answer(request):
        yield head(Transfer_Encoding="chunked", Request_Id="req_1", **headers)
        for part in events_of(request, pieces, **options):
            yield chunk(part) if isinstance(part, bytes) else part
        yield chunk(b"")
        yield KEEP

    return answer


def cut(*pieces):
    """An answer whose connection breaks after these pieces."""

    def answer(request):
        yield head(Transfer_Encoding="chunked")
        for part in events_of(request, (*pieces, StopIteration)):
            if part is StopIteration:
                return
            yield chunk(part) if isinstance(part, bytes) else part

    return answer


def fails(*pieces):
    """An answer that the provider ends after these pieces, with an error that would come again: the
    reply is not continued."""

    def answer(request):
        yield from cut(*pieces)(request)
        error = {"type": "invalid_request_error", "message": "It is odd."}
        yield chunk(event({"type": "error", "error": error}, "error")) + chunk(b"")
        yield KEEP

    return answer


def so_far(request):
    """The part of the answer that this request already has as the model's own text, or nothing."""
    messages = [message for message in request.body["messages"] if message["role"] != "system"]
    return (
        messages[-2]["content"]
        if len(messages) > 1 and messages[-1]["content"].startswith("Your answer was cut off.")
        else ""
    )


def asked(request):
    """The message that this request wants answered, from the beginning or from the point where an
    answer had stopped."""
    return request.body["messages"][-3 if so_far(request) else -1]["content"]


def writes(text, *breaks, pace=0, repeats=0):
    """A model that writes this text word by word, and continues after what a request already has of
    it, less `repeats` characters.

    The connections of the first requests break after so many words each. `pace` is how long it
    waits before each word.
    """
    breaks = list(breaks)

    def answer(request):
        said = so_far(request)
        words = re.findall(r"\s*\S+\s*", text[max(0, len(said) - repeats) if said else 0 :])
        paced = [part for word in words for part in ((pace, word) if pace else (word,))]
        if breaks:
            yield from cut(*paced[: breaks.pop(0) * (2 if pace else 1)])(request)
        else:
            yield from reply(*paced)(request)

    return answer


def status(code, body=None, **headers):
    """An error; the body is JSON, or text."""

    def answer(request):
        data = (body if isinstance(body, str) else json.dumps(body or {})).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        yield head(code, kind, Content_Length=len(data), **headers) + data
        yield KEEP

    return answer


REFUSED = status(
    400, {"error": {"message": "Not today."}}
)  # after a `cut`, the reply is not continued


def silence(until):
    """Nothing at all, until this Event, or for so many seconds."""

    def answer(request):
        yield until

    return answer


def raw(*parts):
    """These bytes, numbers, Events, functions and KEEP, whatever they mean."""

    def answer(request):
        yield from parts

    return answer


def models(ids, **headers):
    def answer(request):
        if callable(ids):
            yield from ids(request)
            return
        data = json.dumps({"object": "list", "data": [{"id": model} for model in ids]}).encode()
        yield head(200, "application/json", Content_Length=len(data), **headers) + data
        yield KEEP

    return answer


def stream(*events):
    """An event stream of just these: objects and texts as the data of an event, all else unchanged."""

    def answer(request):
        yield head(Transfer_Encoding="chunked")
        for part in events:
            if isinstance(part, (dict, str)):
                part = event(part, part.get("type") if isinstance(part, dict) else None)
            yield chunk(part) if isinstance(part, bytes) else part
        yield chunk(b"")
        yield KEEP

    return answer


def certificate(folder, address="127.0.0.1", days=1):
    """A self-signed certificate of a loopback address and provider.invalid, valid for so many days:
    its file, and a TLS context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("provider.invalid")]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context
