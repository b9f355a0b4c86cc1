"""What a case is, what it sees, and how it reports that."""

import contextlib
import time
from typing import NamedTuple

from calling import Answer, Caller, Stream
from scripted_model import ScriptedModel

CASES = []


class Case(NamedTuple):
    number: str  # of the promise
    says: str
    run: object  # a function of a Trial
    needs: str = ""  # "other", a second user; "restart"; "time", more than ten seconds


class Seen(NamedTuple):
    """The result of a case: the problems name the promises that are broken, `left_out` says why it
    was not run."""

    number: str
    says: str
    problems: list
    left_out: str = ""

    def __str__(self):
        told = f"left out: {self.left_out}" if self.left_out else "ok"
        if self.problems:
            told = "; ".join(
                text if number == self.number else f"{number}: {text}"
                for number, text in self.problems
            )
        return f"{self.number:<10} {self.says}: {' '.join(told.split())}"


def case(number, says, needs=""):
    """The function of a Trial is the case of this promise."""

    def keep(function):
        CASES.append(Case(number, says, function, needs))
        return function

    return keep


class Place:
    """The server of the cases, and what they have seen of it."""

    def __init__(self, url, token, model: ScriptedModel, other=None, restart=None):
        self.url, self.token, self.model, self.restart = url.rstrip("/"), token, model, restart
        self.streams, self.answers = [], []
        self.user = Caller(url, token, self.streams, self.answers)
        self.other = other and Caller(url, other, self.streams, self.answers)


class Trial:
    """One run of a case."""

    def __init__(self, number, place):
        self.number, self.place, self.user, self.other = number, place, place.user, place.other
        self.model, self.problems, self._scripts = place.model, [], []

    def see(self, is_so, seen, number=None):
        """Note what was seen if it is not as it must be."""
        if not is_so:
            self.problems.append((number or self.number, str(seen)[:400]))
        return bool(is_so)

    def same(self, seen, wanted, what, number=None):
        told = f"{what} is {repr(seen)[:150]}, not {repr(wanted)[:150]}"
        return self.see(seen == wanted, told, number)

    def script(self, *answers, says="Hello"):
        script = self.model.script(answers, says)
        self._scripts.append(script)
        return script

    def close(self):
        """Open all gates, so that nothing stays in progress for long."""
        for script in self._scripts:
            for gate in [*script.gates.values()]:
                gate.set()

    # Requests

    def create(self, script, **headers):
        """The stream of a new session with the message of this script; fields are sent by `fields`."""
        body = {"content": script.message} | headers.pop("fields", {})
        return self.streaming("POST", "/sessions", body, **headers)

    def ask(self, session, script, **headers):
        return self.streaming("POST", f"{session}/messages", {"content": script.message}, **headers)

    def go_on(self, session, **headers):
        return self.streaming("POST", f"{session}/continue", {}, **headers)

    def follow(self, session, last_id=None):
        return self.streaming("GET", f"{session}/events", None, Last_Event_ID=last_id)

    @contextlib.contextmanager
    def streaming(self, method, path, body, **headers):
        """A stream. Raises Unfit if the answer is not one."""
        with self.user.stream(method, path, body, **headers) as stream:
            if not isinstance(stream, Stream):
                raise Unfit(f"{method} {path} is answered by {stream}")
            yield stream

    def whole(self, script, **headers):
        """The stream of a new session, read to the end."""
        with self.create(script, **headers) as stream:
            return stream.rest()

    def followed(self, session, last_id=None):
        """The stream after this id, read to its end, or the answer if it is not a stream."""
        return self.user.read("GET", f"{session}/events", Last_Event_ID=last_id)

    def turns(self, session):
        shown = self.user.call("GET", session)
        if shown.status != 200:
            raise Unfit(f"GET {session} is answered by {shown}")
        return shown.json["turns"]

    def cancel(self, session):
        return self.user.call("POST", f"{session}/cancel")


class Unfit(Exception):
    """A case cannot continue, because it cannot use what it has seen."""


class NotApplicable(Exception):
    """There is nothing more to check in a case, because of the server's settings. The text says
    how."""


def run(each, place):
    """The result of this case."""
    lacks = {"other": not place.other, "restart": not place.restart}
    if lacks.get(each.needs):
        return Seen(each.number, each.says, [], f"it needs --{each.needs}")
    trial, left_out = Trial(each.number, place), ""
    try:
        each.run(trial)
    except Unfit as problem:
        trial.see(False, problem)
    except NotApplicable as reason:
        left_out = str(reason)
    except Exception as problem:  # what was seen is so odd that a case could not read it
        trial.see(False, f"{type(problem).__name__}: {problem}")
    finally:
        trial.close()
    return Seen(each.number, each.says, trial.problems, left_out)


def within(seconds, is_so):
    """Whether this becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


__all__ = [
    "CASES",
    "Answer",
    "Case",
    "NotApplicable",
    "Place",
    "Seen",
    "Trial",
    "Unfit",
    "case",
    "run",
    "within",
]
