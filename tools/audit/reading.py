"""A history, line by line: requests with their results, and calls of the model."""

import itertools
import json
import re

SESSION = re.compile(r"/sessions/([0-9a-f]{8}-[0-9a-f-]{27})")
ASKS = "create", "message", "retry", "continue"  # requests that ask for a reply
KINDS = {"/messages": "message", "/retry": "retry", "/continue": "continue", "/cancel": "cancel"}
STREAM = "text/event-stream"
FIELDS = ["event", "data", "id"]
DATA = {  # of an event → the types of its fields
    "session": {"id": str, "title": str},
    "thinking": {"characters": int},
    "waiting": {"seconds": int},
    "content_delta": {"delta": str},
    "assistant_turn": {"id": str, "kind": str, "content": str, "status": str},
    "done": {},
    "error": {"status": int, "message": str},
}
OWN_ID = (
    "content_delta",
    "assistant_turn",
    "done",
    "error",
)  # others have the id of the event before
SHOWN_THOUGHTS = {"start": int, "delta": str}  # with THINKING=count, it has neither
NEVER = float("inf")  # the line of something that did not happen


def session_in(path):
    """The id of the session that a path names, or None."""
    found = SESSION.search(path or "")
    return found and found[1]


def kind_of(method, path):
    """What a request is for."""
    place = path.partition("?")[0]
    if method == "GET":
        if place.endswith("/events"):
            return "events"
        return "show" if session_in(place) else place.strip("/").partition("/")[0]
    if method in ("DELETE", "PATCH"):
        return {"DELETE": "delete", "PATCH": "change"}[method]
    if place.endswith("/sessions"):
        return "create"
    return next((kind for end, kind in KINDS.items() if place.endswith(end)), "other")


class Op:
    """One request. `sent` and `got` are the numbers of its lines, as is `closed`."""

    def __init__(self, line, number):
        self.number, self.user, self.at, self.sent = line["op"], line["user"], line["at"], number
        sent = line["sent"]
        self.method, self.path, self.body = sent["method"], sent["path"], sent["body"]
        self.key = sent["headers"].get("Idempotency-Key")
        self.last_id = sent["headers"].get("Last-Event-ID")
        self.kind = kind_of(self.method, self.path)
        self.session = session_in(self.path)
        self.got = self.closed = NEVER
        self.status, self.headers, self.answer, self.how = None, {}, None, None
        self.is_stream = False

    @property
    def asks(self):
        return self.kind in ASKS

    @property
    def content(self):
        """The message that it sends, or None."""
        return self.body.get("content") if self.asks and self.body else None

    @property
    def turns(self):
        """The turns of the session that it shows, or None."""
        is_shown = self.kind == "show" and self.status == 200 and isinstance(self.answer, dict)
        return self.answer.get("turns") if is_shown else None

    @property
    def is_refused(self):
        """Whether it surely changed nothing. Its key may be that of another request."""
        is_other = self.status in (408, 413) or "Location" in self.headers
        return self.status is not None and 400 <= self.status < 500 and not is_other

    @property
    def is_kept(self):
        """Whether its answer says that the message is stored."""
        if self.status in (502, 503, 504):
            return "Location" in self.headers
        return self.status in (200, 201, 202)

    def take_answer(self, got, number):
        self.got, self.status, self.headers = number, got["status"], got["headers"]
        self.answer = got.get("body")
        self.is_stream = self.headers.get("Content-Type", "").startswith(STREAM)
        self.session = self.session or session_in(self.headers.get("Location"))
        if not self.is_stream:
            self.closed, self.how = number, "whole"

    def __str__(self):
        return f"op {self.number}, {self.method} {self.path} of {self.user}"


class Call:
    """One call of the model, which answers with `text`."""

    def __init__(self, line, number):
        self.number, self.at, self.asked = line["call"], line["at"], number
        self.messages = [each for each in line["asked"]["messages"] if each["role"] != "system"]
        self.system = [each for each in line["asked"]["messages"] if each["role"] == "system"]
        self.said = NEVER
        self.ended_at, self.text, self.is_whole, self.usage = None, "", False, None
        self.is_hung_up = self.has_begun = True

    def take_end(self, line, number):
        said = line["said"]
        self.said, self.ended_at, self.text = number, line["at"], said["text"]
        self.is_whole, self.usage = said["whole"], said["usage"]
        self.has_begun = said.get("begun", True)
        self.is_hung_up = line.get("hung_up", False)

    def __str__(self):
        return f"call {self.number}"


class Event:
    """One frame of a stream."""

    def __init__(self, frame):
        self.lines = frame.split("\n")
        fields = [line.partition(": ") for line in self.lines]
        self.names = [name for name, _, _ in fields]
        values = {name: value for name, _, value in fields}
        self.name, self.id = values.get("event"), values.get("id", "")
        try:
            self.data = json.loads(values.get("data", ""))
        except ValueError:
            self.data = None

    @property
    def problem(self):
        """What is wrong with its form, or None."""
        if self.names != FIELDS or not isinstance(self.data, dict):
            return f"a frame is {self.lines}"[:300]
        fields = DATA.get(self.name, {})
        if self.name == "thinking" and self.data.keys() & SHOWN_THOUGHTS.keys():
            fields = fields | SHOWN_THOUGHTS
        for name, kind in fields.items():
            if not isinstance(self.data.get(name), kind):
                return f"{name} of {self.name} is {self.data.get(name)!r}"
        return None

    @property
    def turn(self):
        """The id of the turn that it belongs to."""
        return self.id.partition("-")[0]


class Check:
    """A check is called for each line. It overrides the methods that it needs."""

    def __init__(self, book):
        self.book = book

    def report(self, promise, sentence, where, at=None):
        self.book.report(promise, sentence, where, at)

    def sent(self, op):
        """A request is sent."""

    def answered(self, op):
        """Its whole answer, or the head of a stream."""

    def event(self, op, event):
        """A frame of its stream."""

    def comment(self, op):
        """A comment of its stream."""

    def closed(self, op):
        """A stream that ended, was lost, or was left."""

    def turn(self, op, turn):
        """A turn as an answer shows it, or a stream."""

    def called(self, call):
        """The model is asked."""

    def said(self, call):
        """The model has answered."""

    def finish(self):
        """The history is over."""


class Reading:
    """Passes what it reads to these checks. `book` counts lines, and takes problems."""

    def __init__(self, book, checks):
        self.book, self.checks = book, checks
        self._ops, self._calls = {}, {}

    def read(self, lines):
        for number, text in enumerate(lines):
            line = json.loads(text)
            self.book.at, self.book.line = line.get("at", 0.0), number
            self._take(line, number)
        for check in self.checks:
            check.finish()

    def _take(self, line, number):
        if "op" in line:
            self._take_op(line, number)
        elif "call" in line:
            self._take_call(line, number)
        elif "fault" in line:
            self.book.faults.append([line["fault"], line["at"], NEVER])
        elif "over" in line:
            self._end_fault(line)
        elif "rest" in line:
            self.book.rest = number
        elif "history" in line:
            self.book.settings = line["settings"]

    def _end_fault(self, line):
        for fault in self.book.faults:
            if fault[0] == line["over"] and fault[2] == NEVER:
                fault[2] = line["at"]

    def _tell(self, name, *what):
        for check in self.checks:
            getattr(check, name)(*what)

    def _take_op(self, line, number):
        if "sent" in line:
            op = self._ops[line["op"]] = Op(line, number)
            self.book.counts["operations"] += 1
            self._tell("sent", op)
            return
        op = self._ops[line["op"]]
        if "got" in line:
            self._take_answer(op, line["got"], number)
        elif "frame" in line:
            self.book.counts["frames"] += 1
            self._take_frame(op, Event(line["frame"]))
        elif "comment" in line:
            self._tell("comment", op)
        elif op.is_stream or "lost" in line:
            op.closed = number
            op.how = next(how for how in ("ended", "lost", "left") if how in line)
            if op.is_stream:
                self._tell("closed", op)

    def _take_answer(self, op, got, number):
        op.take_answer(got, number)
        self.book.counts["streams"] += op.is_stream
        self._tell("answered", op)
        for turn in turns_in(op):
            self._tell("turn", op, turn)

    def _take_frame(self, op, event):
        if event.problem:
            self.book.report("S-6", event.problem, op)
            return
        self._tell("event", op, event)
        if event.name == "assistant_turn":
            self._tell("turn", op, event.data)

    def _take_call(self, line, number):
        if "asked" in line:
            call = self._calls[line["call"]] = Call(line, number)
            self.book.counts["calls"] += 1
            self._tell("called", call)
        else:
            call = self._calls.pop(line["call"])
            call.take_end(line, number)
            self._tell("said", call)


def replies_in(turns):
    """Each message of these turns that has a reply, with that reply; `turns` may be None."""
    for message, reply in itertools.pairwise(turns or []):
        if (message["kind"], reply["kind"]) == ("user", "assistant"):
            yield message, reply


def turns_in(op):
    """The turns of a whole answer, oldest first."""
    if op.status not in (200, 201) or not isinstance(op.answer, dict):
        return []
    if op.kind == "show":
        return op.turns or []
    return [op.answer] if "kind" in op.answer else []
