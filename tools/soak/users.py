"""What users do, what strangers do, and what checks the service meanwhile."""

import collections
import contextlib
import random
import socket
import threading
import time
import uuid

import requests

from readers import LOST, Reader
from talk import LONGEST
from talker import new_mark

USERS = [f"https://github.com/soak{number}" for number in range(3)]
FEW = 5  # sessions that a user keeps
CUT = 0.05  # how likely a reader is cut off after a delta
PATIENCE = 100  # seconds for which a user repeats the same request
TEXTS = ["hello", "grüße", "a" * 5000, "x \u0301\u0323" * 99, "🎉"]
QUERIES = ["", "?query=end", "?query=half%20h", "?page[offset]=3&page[limit]=2"]

ACTIONS = {  # what a user does → how often, relative to the others
    "create": 2,
    "message": 3,
    "stream": 2,
    "retry": 1,
    "go_on": 2,
    "cancel": 1,
    "delete": 1,
    "change": 1,
    "list": 1,
    "repeat": 1,
    "show": 1,
    "follow": 1,
}


def session_in(path):
    """The id of the session that a path names, or None."""
    parts = path.split("?")[0].split("/")
    return parts[2] if parts[1:2] == ["sessions"] and len(parts) > 2 else None


class UsersReader(Reader):
    """A reader that is cut off now and then. No server breaks its connection."""

    timeout = 60

    def __init__(self, client, session, chance):
        super().__init__([client], session)
        self.chance = chance

    def is_cut(self):
        return self.chance.random() < CUT

    def lose(self, problem):
        super().lose(problem)
        raise problem

    def take_end(self, event):
        assert event.name == "done" or event.data["status"] in (404, 502, 503, 504), event.data
        super().take_end(event)


class User(threading.Thread):
    """Does one thing after the other, and remembers the answers. A user's client sends the
    requests."""

    pause = 0  # seconds at most between two actions
    taken = 409, 502, 503  # accepted as an answer, whatever the request

    def __init__(self, server, subject, seed, until, client=None):
        super().__init__()
        self.subject, self.client = subject, client or server.client(subject)
        self.chance = random.Random(seed)
        self.until = until
        self.sessions, self.deleted, self.told, self.problems = [], set(), collections.Counter(), []

    def run(self):
        while time.monotonic() < self.until:
            [action] = self.chance.choices(list(ACTIONS), ACTIONS.values())
            try:
                getattr(self, action)()
            except Exception as problem:  # an assertion, or a connection that was cut
                self.problems.append(f"{action}: {problem!r}")
                time.sleep(0.1)
            time.sleep(self.chance.uniform(0, self.pause))

    def see(self, response, *expected):
        """The status of an answer. It must be one of these, or of `taken`."""
        return self.take(response.status_code, *expected, text=response.text)

    def take(self, code, *expected, text=""):
        self.told[code] += 1
        assert code in (*expected, *self.taken), f"{code} {text[:200]}"
        return code

    def content(self):
        return f"{new_mark(self.chance)} {self.chance.choice(TEXTS)}"

    def path(self):
        """The path of one of the user's sessions; if there is none, of one that does not exist."""
        return f"/sessions/{self.chance.choice(self.sessions or [uuid.uuid4()])}"

    # What a user does

    def create(self):
        prefer = self.chance.choice([None, "respond-async"])
        response = self.client.post("/sessions", {"content": self.content()}, Prefer=prefer)
        if self.see(response, 201) == 201:
            self.sessions.append(response.json()["id"])

    def message(self):
        path, body = self.path() + "/messages", {"content": self.content()}
        self.see(self.client.post(path, body), 201, 202, 404)

    def retry(self):
        self.see(self.client.post(self.path() + "/retry"), 201, 202, 404)

    def go_on(self):
        """Continue a reply that has failed or ended; or that is cut off now, perhaps before it
        begins."""
        path = self.path()
        if self.chance.random() < 0.7:
            body = {"content": self.content()}
            self.see(self.client.post(path + "/messages", body, Prefer="respond-async"), 202, 404)
            time.sleep(self.chance.uniform(0, 0.3))
            self.see(self.client.post(path + "/cancel"), 200, 404)
        self.told[f"continue: {self.see(self.client.post(path + '/continue'), 201, 202, 404)}"] += 1

    def cancel(self):
        self.see(self.client.post(self.path() + "/cancel"), 200, 404)

    def delete(self):
        if len(self.sessions) > FEW:
            session = self.sessions.pop(self.chance.randrange(len(self.sessions)))
            self.deleted.add(session)
            self.see_deleted(self.client.delete(f"/sessions/{session}"))

    def see_deleted(self, response):
        self.see(response, 204)

    def change(self):
        self.see_changed(self.client.patch(self.path(), {"title": self.content()[:50]}))

    def see_changed(self, response):
        return self.see(response, 200, 404)

    def list(self):
        self.see(self.client.get("/sessions" + self.chance.choice(QUERIES)), 200)

    def show(self):
        self.see(self.client.get(self.path()), 200, 404)

    def repeat(self):
        """The same message, sent twice with one key, has one outcome."""
        path, body = self.path() + "/messages", {"content": self.content()}
        key = f"{self.chance.getrandbits(64):x}"
        answers = [self.client.post(path, body, Idempotency_Key=key) for _ in range(2)]
        codes = [self.see(answer, 201, 202, 404) for answer in answers]
        if codes == [201, 201]:
            assert answers[0].json() == answers[1].json(), "one key has two outcomes"

    def stream(self):
        path = self.chance.choice(["/sessions", self.path() + "/messages"])
        reader = self.reader()
        reader.asks = path, {"content": self.content()}
        self.read(reader)

    def follow(self):
        """From the start, and after each cut from where the reader was."""
        self.read(self.reader({"id": session_in(self.path())}))

    def reader(self, session=None):
        return UsersReader(self.client, session, self.chance)

    def read(self, reader):
        try:
            reader.follow(PATIENCE)
        finally:
            if reader.names and reader.session["id"] not in {*self.sessions, *self.deleted}:
                self.sessions.append(reader.session["id"])
        self.told[f"a reply: {reader.end}"] += 1
        for code in reader.refusals:
            self.take(code, 204, 404)


class Stranger(threading.Thread):
    """A client without a token: it sends half of a request, or nothing, or does not close."""

    pause = 0.05  # seconds between two of them

    def __init__(self, server, seed, until):
        super().__init__()
        self.address = ("127.0.0.1", server.port)
        self.chance = random.Random(seed)
        self.until = until

    def run(self):
        held = collections.deque()
        words = [
            b"",
            b"GET /health HTTP/1.1\r\nHost:",
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"POST /sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx",
        ]
        while time.monotonic() < self.until:
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(self.address, timeout=5))
                held[-1].sendall(self.chance.choice(words))
            if len(held) > 40:
                held.popleft().close()
            time.sleep(self.pause)
        for connection in held:
            connection.close()


class Looking(threading.Thread):
    """Asks for /health all the while: the status is one of these, and comes in time."""

    pause = 0.2

    def __init__(self, server, notes, until, expected):
        super().__init__()
        self.host, self.notes, self.until = server.url, notes, until
        self.expected, self.slowest = expected, 0.0

    def run(self):
        while time.monotonic() < self.until:
            began = time.monotonic()
            try:
                code = requests.get(self.host + "/health", timeout=60).status_code
            except LOST as problem:
                self.notes.lose("/health", began, self.host, problem)
            else:
                if code not in self.expected:
                    self.notes.problems.append(f"{self.notes.since(began)}: /health is {code}")
            self.notes.in_time("/health", began, LONGEST, self.host)
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(self.pause)
