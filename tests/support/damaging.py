"""Damages a history, so that it looks like that of a service that breaks a promise."""

import json

DAMAGES = {}  # the damage → (the promise that it breaks, a function of a Damaged)


def breaks(promise):
    """The function of this name breaks this promise."""

    def put(function):
        DAMAGES[function.__name__] = promise, function
        return function

    return put


def frame_of(line):
    """The event, the data and the id."""
    event, data, id = (field.partition(": ")[2] for field in line["frame"].split("\n"))
    return event, json.loads(data), id


def word_of(life, number=5):
    """A word of a complete reply that is visible in the end."""
    return life.replies()[-2]["content"].split()[number] + " "


class Damaged:
    """The lines of a history, which may be changed. Raises if the lines to change are not there."""

    def __init__(self, text):
        self.lines = [json.loads(line) for line in text.splitlines()]

    def text(self):
        return [json.dumps(line) for line in self.lines]

    # What there is

    def ops(self, method, ending, status=None, at_rest=False, **headers):
        """The numbers of the requests whose path ends so, at least one."""
        rest = self.lines.index(next(line for line in self.lines if "rest" in line))
        found = [
            line["op"]
            for place, line in enumerate(self.lines)
            if "sent" in line
            and line["sent"]["method"] == method
            and line["sent"]["path"].partition("?")[0].endswith(ending)
            and line["sent"]["headers"].items() >= headers.items()
            and (place > rest) == at_rest
            and status in (None, self.got(line["op"])["status"])
        ]
        assert found, f"{method} {ending} is not there"
        return found

    def sent(self, op):
        return next(each for each in self.lines if each.get("op") == op and "sent" in each)["sent"]

    def got(self, op):
        return next(each for each in self.lines if each.get("op") == op and "got" in each)["got"]

    def user(self, op):
        return next(each["user"] for each in self.lines if each.get("op") == op)

    def frames(self, op, name=None):
        """The lines of its frames, or only those of this event."""
        lines = [line for line in self.lines if line.get("op") == op and "frame" in line]
        return [line for line in lines if name in (None, frame_of(line)[0])]

    def stream(self, *ops, deltas=2, end="done", is_resumed=False):
        """The first of these that is a stream with so many deltas and with this end."""
        for op in ops:
            names = [frame_of(line)[0] for line in self.frames(op)]
            is_behind = "Last-Event-ID" in self.sent(op)["headers"]
            if names.count("content_delta") >= deltas and names[-1] == end:
                if is_behind == is_resumed:
                    return op
        raise AssertionError("there is no such stream")

    def whole_stream(self):
        """A stream from the beginning of a reply to its end."""
        return self.stream(*self.ops("POST", "/messages", 200))

    def resumed_stream(self):
        return self.stream(*self.ops("GET", "/events", 200), is_resumed=True)

    def shown(self, at_rest=True):
        """The sessions as clients saw them, in the end by default."""
        bodies = [self.got(op).get("body") for op in self.ops("GET", "", 200, at_rest)]
        return [body for body in bodies if isinstance(body, dict) and "turns" in body]

    def replies(self, status="complete"):
        """The replies that are visible in the end."""
        found = [
            turn for body in self.shown() for turn in body["turns"] if turn.get("status") == status
        ]
        assert found, f"no reply is {status}"
        return found

    # The damage

    def put(self, line, name=None, data=None, id=None):
        """Change an event."""
        event, old, known = frame_of(line)
        data = json.dumps(old if data is None else data, ensure_ascii=False)
        line["frame"] = f"event: {name or event}\ndata: {data}\nid: {id or known}"

    def behind(self, line, *others):
        place = self.lines.index(line) + 1
        self.lines[place:place] = others

    def copy(self, line):
        copied = json.loads(json.dumps(line))
        return copied

    def drop(self, *lines):
        self.lines = [line for line in self.lines if not any(line is each for each in lines)]

    def everywhere(self, old, new):
        """In everything that clients were sent."""
        changed = 0
        for place, line in enumerate(self.lines):
            text = json.dumps(line, ensure_ascii=False)
            if ("frame" in line or "got" in line) and old in text:
                self.lines[place] = json.loads(text.replace(old, new))
                changed += 1
        assert changed > 2, f"{old} is not there"
