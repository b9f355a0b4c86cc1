"""A client that knows only HTTP, and keeps what it has seen, byte for byte."""

import contextlib
import http.client
import json
import re
import ssl
import time
from urllib.parse import quote, urlsplit

TIMEOUT = 30  # seconds without a byte
STREAM = "text/event-stream"
# Events with an id of their own. A later release may have more of the others.
KEPT = {"content_delta", "assistant_turn", "done", "error"}
LOST = OSError, http.client.HTTPException  # raised if a connection breaks, or is refused
KINDS = (
    (r"POST /sessions", "create"),
    (r"POST /sessions/[^/]+/(messages|retry)", "ask"),
    (r"POST /sessions/[^/]+/continue", "continue"),
    (r"GET /sessions/[^/]+/events", "follow"),
)


class Answer:
    """An answer that is no stream."""

    def __init__(self, sent, response):
        self.sent, self.status = sent, response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    @property
    def source(self):
        """The place of the first error: the pointer, the parameter or the header."""
        return next(iter(self.json["errors"][0].get("source", {}).values()), None)

    def __repr__(self):
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


class Event:
    """An event of a stream. `raw` has the lines of its frame; `data` is None if it is no JSON."""

    def __init__(self, raw):
        self.raw, self.at = raw, time.monotonic()
        fields = dict(line.partition(": ")[::2] for line in raw)
        self.name, self.id = fields.get("event"), fields.get("id")
        self.data = None
        with contextlib.suppress(ValueError):
            self.data = json.loads(fields.get("data", ""))

    def __repr__(self):
        return f"{self.name} {self.id} {json.dumps(self.data)[:200]}"


class Stream:
    """A stream that is being read. `kind` is create, ask, continue or follow."""

    def __init__(self, sent, last_id, response):
        self.sent, self.last_id, self.status = sent, last_id, response.status
        place = f"{sent[0]} {sent[1]}"
        self.kind = next((kind for each, kind in KINDS if re.fullmatch(each, place)), None)
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.events = []
        self.arrivals = [time.monotonic()]
        self.first = None  # what came first, a "comment" or an "event"
        self.is_over = False  # its body ended
        self.is_broken = False  # or the connection broke
        self._response, self._rest = response, b""

    def __iter__(self):
        while data := self.read():
            self.arrivals.append(time.monotonic())
            *frames, self._rest = (self._rest + data).split(b"\n\n")
            for frame in frames:
                if event := self._event(frame):
                    self.events.append(event)
                    yield event
        self.is_over = not self.is_broken

    def read(self):
        """The next bytes; none if the body has ended, or the connection broke."""
        try:
            return self._response.read1(65536)
        except LOST:
            self.is_broken = True
            return b""

    def _event(self, frame):
        lines = frame.decode("utf-8", "replace").split("\n")
        own = [line for line in lines if not line.startswith(":")]
        self.first = self.first or ("comment" if len(own) < len(lines) else "event")
        return Event(own) if any(own) else None

    def until(self, name, count=1):
        """Read until so many more events of this name have come; returns the last one, or None."""
        for event in self:
            count -= event.name == name
            if not count:
                return event
        return None

    def rest(self):
        """Read to the end; returns the stream."""
        for _ in self:
            pass
        return self

    @property
    def names(self):
        return [event.name for event in self.events]

    @property
    def kept(self):
        """The names of the events that have an id of their own."""
        return [event.name for event in self.events if event.name in KEPT]

    @property
    def text(self):
        """Its deltas, put together."""
        return text_of(self.events)

    @property
    def end(self):
        """The last event, or None."""
        return self.events[-1] if self.events else None

    @property
    def turn(self):
        """The data of its assistant_turn, or None."""
        turns = [event.data for event in self.events if event.name == "assistant_turn"]
        return turns[-1] if turns else None

    @property
    def session(self):
        """The path of its session."""
        place = self.headers.get("location") or self.sent[1]
        return re.search(r"/sessions/[^/?]+", place)[0]

    def __repr__(self):
        return f"{self.kind} {self.status}: {self.events}"[:500]


def text_of(events):
    return "".join(event.data["delta"] for event in events if event.name == "content_delta")


def thoughts_of(events):
    """What a client that reads these `thinking` events has in the end."""
    thoughts = ""
    for event in events:
        if event.name == "thinking":
            thoughts = thoughts[: event.data["start"]] + event.data["delta"]
    return thoughts


class Caller:
    """One user of a server. `streams` and `answers` keep all that was seen."""

    def __init__(self, url, token, streams, answers):
        self.url, self.token = url.rstrip("/"), token
        self.streams, self.answers = streams, answers

    @contextlib.contextmanager
    def _sent(self, method, path, body, headers):
        place = urlsplit(self.url)
        connection = connect(place, TIMEOUT)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Authorization": f"Bearer {self.token}"} | headers
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers = {"Content-Type": "application/json"} | headers
        headers = {name: value for name, value in headers.items() if value is not None}
        with contextlib.closing(connection):
            connection.request(method, place.path + quote(path, safe="/?&=%[]"), body, headers)
            with contextlib.closing(connection.getresponse()) as response:
                yield response

    def call(self, method, path, body=None, **headers):
        """The answer; if it is a stream, its bytes to the end."""
        with self._sent(method, path, body, headers) as response:
            answer = Answer((method, path), response)
        self.answers.append(answer)
        return answer

    @contextlib.contextmanager
    def stream(self, method, path, body=None, **headers):
        """A Stream, which hangs up at the end of the context; an Answer if it is not a stream."""
        headers = {"Accept": STREAM} | headers
        with self._sent(method, path, body, headers) as response:
            if response.status >= 300 or response.status == 204:
                answer = Answer((method, path), response)
                self.answers.append(answer)
                yield answer
                return
            stream = Stream((method, path), headers.get("Last_Event_ID"), response)
            self.streams.append(stream)
            yield stream

    def read(self, method, path, body=None, **headers):
        """The stream, read to its end."""
        with self.stream(method, path, body, **headers) as stream:
            return stream.rest() if isinstance(stream, Stream) else stream


def connect(place, timeout):
    """A connection to the server of this URL (split)."""
    if place.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            place.hostname, place.port, timeout=timeout, context=context
        )
    return http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
