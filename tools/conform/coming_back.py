"""A client that does what docs/streams.md says a client must do; and others, which are programs."""

import json
import shlex
import subprocess
import time
import uuid

from calling import LOST, Caller, Stream
from scripted_model import MARK

TRIES = 20
PATIENCE = 120  # seconds for a program
PAUSE = 0.25  # seconds, of the first pause


class Refused(Exception):
    """The server refuses, so there is no point in trying again."""


def read_reply(url, token, message):
    """The events of the reply to a message in a new session: objects with event, data and id.
    Raises Refused, or the error by which the last connection was lost."""
    user, last, tries, place = Caller(url, token, [], []), None, 0, None
    key = str(uuid.uuid4())
    while tries < TRIES:
        way = (
            ("GET", f"{place}/events", None)
            if place
            else ("POST", "/sessions", {"content": message})
        )
        more = {"Last_Event_ID": last} if place else {"Idempotency_Key": key}
        try:
            with user.stream(*way, **more) as came:
                place = came.headers.get("location", place) if not place else place
                if not isinstance(came, Stream):
                    if came.status == 204:
                        return
                    if came.status < 500 and not (came.status == 409 and place):
                        raise Refused(f"{came}")
                    came = ()
                for event in came:
                    last, tries = event.id, 0
                    yield {"event": event.name, "data": event.data, "id": event.id}
                    if event.name in ("done", "error"):
                        return
        except LOST as problem:
            lost = problem
        time.sleep(min(PAUSE * 2**tries, 10))
        tries += 1
    raise lost


class Own:
    """The reader above."""

    name, is_text = "the tool's own reader", False

    def read(self, url, token, message):
        """The events, and what went wrong."""
        try:
            return [*read_reply(url, token, message)], ""
        except (Refused, *LOST) as problem:
            return [], repr(problem)


class Program:
    """A program that is called with URL, token and message. It prints each event as a line of JSON
    with `event`, `data` and `id`; or, with `is_text`, the text of the reply alone."""

    def __init__(self, command, is_text=False):
        self.name, self.is_text = command, is_text

    def read(self, url, token, message):
        words = shlex.split(self.name)
        places = {"{url}": url, "{token}": token, "{message}": message}
        if any(each in words for each in places):
            words = [places.get(word, word) for word in words]
        else:
            words += places.values()
        try:
            done = self.run(words)
        except subprocess.TimeoutExpired:
            return [], f"it does not end within {PATIENCE} seconds"
        told = MARK.sub("…", done.stderr.strip()[-300:])
        problem = f"its status is {done.returncode}: {told}" if done.returncode else ""
        if self.is_text:
            text = done.stdout.removesuffix("\n")
            return [{"event": "content_delta", "data": {"delta": text}, "id": "1"}], problem
        return [json.loads(line) for line in done.stdout.split("\n") if line], problem

    def run(self, words):
        """The process of this command, which has ended, and its output. Raises TimeoutExpired."""
        how = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": PATIENCE}
        return subprocess.run(words, encoding="utf-8", errors="replace", **how)
