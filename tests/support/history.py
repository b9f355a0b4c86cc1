"""What clients sent and saw, what a model was asked and said, and which faults there were: lines of
JSON in one file, in the order in which it happened. `tools/audit` documents their form, and checks
them.
"""

import contextlib
import datetime
import functools
import itertools
import json
import threading
import time
from urllib.parse import urlencode

import jwt

from readers import LOST

SENT = "Accept", "Prefer", "Idempotency-Key", "Last-Event-ID"
GOT = (
    "Location",
    "Retry-After",
    "Content-Type",
    "Cache-Control",
    "X-Accel-Buffering",
    "Preference-Applied",
    "Link",
)
STREAM = "text/event-stream"


@functools.cache
def subject_of(token):
    """The user that a token names, whoever signed it."""
    return jwt.decode(token, options={"verify_signature": False})["sub"]


def those(headers, names):
    """The headers that matter."""
    found = {name.lower(): value for name, value in headers.items()}
    return {name: found[name.lower()] for name in names if found.get(name.lower()) is not None}


class Operation:
    """One request of a client, and what the client sees of its answer."""

    def __init__(self, write):
        self._write, self._is_open = write, False  # a stream whose end the client does not know

    def got(self, response):
        """A whole answer, as requests returns it."""
        self._got(response.status_code, response.headers, response.content)

    def got_head(self, response):
        """The head of an answer, as http.client returns it, and its body if it is no stream."""
        if response.headers.get("Content-Type", "").startswith(STREAM):
            self._is_open = True
            head = {"status": response.status, "headers": those(response.headers, GOT)}
            self._write(got=head)
        else:
            self._got(response.status, response.headers, response.read())

    def _got(self, status, headers, data):
        is_json = (
            "json" in headers.get("Content-Type", "") and "ndjson" not in headers["Content-Type"]
        )
        body = json.loads(data) if is_json and data else data.decode()
        self._write(got={"status": status, "headers": those(headers, GOT), "body": body})

    def frame(self, lines):
        self._write(frame="\n".join(lines))

    def comment(self, line):
        self._write(comment=line)

    def ended(self):
        """The body has ended, if it is a stream."""
        if self._is_open:
            self._is_open = False
            self._write(ended=True)

    def lost(self, problem):
        self._is_open = False
        self._write(lost=repr(problem))

    def close(self):
        """The client stops reading."""
        if self._is_open:
            self._is_open = False
            self._write(left=True)


class Unrecorded(Operation):
    """One that is not recorded. Its body is left to the caller."""

    def __init__(self):
        super().__init__(lambda **line: None)

    def got(self, response):
        pass

    def got_head(self, response):
        pass


class Call:
    """What the model says to one request, in OpenAI's protocol."""

    def __init__(self):
        self.text, self.is_whole, self.usage = "", False, None
        self.has_begun = False

    def send(self, part):
        """Note what this part of an answer says, if it is data."""
        if not isinstance(part, bytes):
            return
        for line in part.decode().splitlines():
            name, _, data = line.partition(": ")
            if name == "data":
                self._note(data)

    def _note(self, data):
        self.has_begun = True
        if data == "[DONE]":
            self.is_whole = True
            return
        event = json.loads(data)
        self.usage = event.get("usage", self.usage)
        for choice in event.get("choices", []):
            self.text += choice["delta"].get("content") or ""


class History:
    """Written by many threads. Its times are seconds since it began, by the monotonic clock."""

    def __init__(self, path, **settings):
        self._began, self._lock = time.monotonic(), threading.Lock()
        self._file = open(path, "w", encoding="utf-8")
        self._operations, self._calls = itertools.count(1), itertools.count(1)
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._put({"history": 1, "began": began, "settings": settings})

    def _put(self, line):
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _write(self, **line):
        """Lines are in the order of their times. None is written after the end."""
        with self._lock:
            if not self._file.closed:
                self._put({"at": round(time.monotonic() - self._began, 3)} | line)

    def close(self):
        with self._lock:
            self._file.close()

    @contextlib.contextmanager
    def operation(self, token, method, path, params, headers, body):
        """Within this context, a client sends a request and reads its answer."""
        number = next(self._operations)
        path += f"?{urlencode(params)}" if params else ""
        sent = {"method": method, "path": path, "headers": those(headers, SENT), "body": body}
        write = functools.partial(self._write, op=number)
        write(user=subject_of(token), sent=sent)
        operation = Operation(write)
        try:
            yield operation
        except LOST as problem:
            operation.lost(problem)
            raise
        finally:
            operation.close()

    def model(self, answer):
        """Wrap this answer of a provider, so that its calls are recorded."""

        def recorded(request):
            number, call = next(self._calls), Call()
            asked = {name: request.body[name] for name in ("model", "messages")}
            self._write(call=number, asked=asked)
            is_read = False
            try:
                for part in answer(request):
                    call.send(part)
                    yield part
                is_read = True
            finally:
                said = {"text": call.text, "whole": call.is_whole, "usage": call.usage}
                said["begun"] = call.has_begun
                hung_up = not is_read or request.hung_up.is_set()
                self._write(call=number, said=said, **({"hung_up": True} if hung_up else {}))

        return recorded

    @contextlib.contextmanager
    def fault(self, name):
        """Within this context, there is a fault of this name."""
        self._write(fault=name)
        try:
            yield
        finally:
            self._write(over=name)

    def rest(self):
        """From here on nothing is in progress: what is read is what there is in the end."""
        self._write(rest=True)


class Nowhere(History):
    """The history of clients that record none."""

    def __init__(self):
        pass

    def _write(self, **line):
        pass

    def close(self):
        pass

    @contextlib.contextmanager
    def operation(self, *sent):
        yield UNRECORDED

    def model(self, answer):
        return answer


UNRECORDED, NOWHERE = Unrecorded(), Nowhere()
