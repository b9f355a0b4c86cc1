"""A soak: users do at random all that can be done, strangers disturb, a quarter of the provider's calls break or fail.

Afterwards the invariants hold: what was answered is there, no reply is under way, no text is another's, lost or doubled,
also where a reply went on behind a break, or because it was asked to.
The suite runs it for six seconds. For longer, and on a PostgreSQL of your own:

    .venv/bin/python tools/soak/soak.py --seconds 3600 [--database postgresql://…] [--seed 1]
"""

import argparse
import collections
import contextlib
import pathlib
import random
import re
import socket
import tempfile
import threading
import time
import uuid

import requests

from provider import Provider, asked, cut, fails, reply, so_far, status
from servers import Server

USERS = [f"https://github.com/soak{number}" for number in range(3)]
MARK = re.compile(r"\[\w+\]")


def misbehave(chance):
    """A provider's default: it repeats the mark of the message it answers, and a quarter of its calls break or fail."""

    def answer(request):
        words = counting(request, chance.randrange(1, 30), 0.01)
        some = words[: chance.randrange(len(words))]
        failures = [
            cut(*some, " half"),
            fails(*some, " half"),
            cut(),
            status(500),
            status(429, {}, retry_after_ms="1"),
        ]
        return (chance.choice(failures) if chance.random() < 0.25 else reply(*words))(request)

    return answer


def counting(request, count, pause):
    """The words of an answer, each behind so long a pause: the mark of the message, so many numbers with it, and an end.

    Where an answer goes on, so do its numbers.
    """
    mark, said = MARK.findall(asked(request))[-1], so_far(request)
    known = said.count(mark)
    first = [] if known else [f" {mark}"]
    numbers = range(max(0, known - 1), max(0, known - 1) + count * (not said.endswith("end.")))
    return [*first, *(part for number in numbers for part in (pause, f" {mark}{number}")), " end."]


class User(threading.Thread):
    """Does one thing after the other, and remembers what was answered."""

    pause = 0  # seconds at most between one thing and the next

    def __init__(self, server, subject, seed, until):
        super().__init__()
        self.client = server.client(subject)
        self.chance = random.Random(seed)
        self.until = until
        self.sessions, self.deleted, self.told, self.problems = [], set(), collections.Counter(), []

    def run(self):
        actions = [
            self.create,
            self.create,
            self.message,
            self.message,
            self.message,
            self.stream,
            self.stream,
        ]
        actions += [
            self.retry,
            self.cancel,
            self.delete,
            self.change,
            self.list,
            self.repeat,
            self.show,
            self.follow,
        ]
        actions += [self.go_on, self.go_on]
        while time.monotonic() < self.until:
            action = self.chance.choice(actions)
            try:
                action()
            except Exception as problem:  # an assertion, or a connection that was cut
                self.problems.append(f"{action.__name__}: {problem!r}")
                time.sleep(0.1)
            time.sleep(self.chance.uniform(0, self.pause))

    def see(self, response, *expected):
        code = getattr(response, "status_code", None) or response.status
        self.told[code] += 1
        assert code in (*expected, 409, 502, 503), f"{code} {getattr(response, 'text', '')[:200]}"
        return code

    def content(self):
        texts = ["hello", "grüße", "a" * 5000, "x \u0301\u0323" * 99, "🎉"]
        return f"[{self.chance.getrandbits(48):012x}] " + self.chance.choice(texts)

    def path(self):
        return (
            f"/sessions/{self.chance.choice(self.sessions)}"
            if self.sessions
            else "/sessions/" + str(uuid.uuid4())
        )

    def create(self):
        prefer = self.chance.choice([None, "respond-async"])
        response = self.client.post("/sessions", {"content": self.content()}, Prefer=prefer)
        if self.see(response, 201) == 201:
            self.sessions.append(response.json()["id"])

    def message(self):
        self.see(
            self.client.post(self.path() + "/messages", {"content": self.content()}), 201, 202, 404
        )

    def retry(self):
        self.see(self.client.post(self.path() + "/retry"), 201, 202, 404)

    def go_on(self):
        """Of a reply that has failed or ended; or that is cut off now, perhaps before it has a word."""
        path = self.path()
        if self.chance.random() < 0.7:
            self.see(
                self.client.post(
                    path + "/messages", {"content": self.content()}, Prefer="respond-async"
                ),
                202,
                404,
            )
            time.sleep(self.chance.uniform(0, 0.3))
            self.see(self.client.post(path + "/cancel"), 200, 404)
        self.told[f"continue: {self.see(self.client.post(path + '/continue'), 201, 202, 404)}"] += 1

    def cancel(self):
        self.see(self.client.post(self.path() + "/cancel"), 200, 404)

    def delete(self):
        if len(self.sessions) > 5:
            session = self.sessions.pop(self.chance.randrange(len(self.sessions)))
            self.deleted.add(session)
            self.see(self.client.delete(f"/sessions/{session}"), 204)

    def change(self):
        self.see(self.client.patch(self.path(), {"title": self.content()[:50]}), 200, 404)

    def list(self):
        query = self.chance.choice(
            ["", "?query=end", "?query=half%20h", "?page[offset]=3&page[limit]=2"]
        )
        self.see(self.client.get("/sessions" + query), 200)

    def show(self):
        self.see(self.client.get(self.path()), 200, 404)

    def repeat(self):
        """The same message under one key gives one outcome."""
        path, body, key = (
            self.path() + "/messages",
            {"content": self.content()},
            f"{self.chance.getrandbits(64):x}",
        )
        answers = [self.client.post(path, body, Idempotency_Key=key) for _ in range(2)]
        codes = [self.see(answer, 201, 202, 404) for answer in answers]
        if codes == [201, 201]:
            assert answers[0].json() == answers[1].json()

    def stream(self):
        body, path = (
            {"content": self.content()},
            self.chance.choice(["/sessions", self.path() + "/messages"]),
        )
        with self.client.stream("POST", path, body) as stream:
            if self.see(stream, 200, 201, 404) < 300:
                self.read(stream, stream.headers["Location"].split("/")[2])

    def follow(self):
        """From the start, in two parts: the second resumes behind the last event of the first."""
        session = self.path().split("/")[2]
        with self.client.events({"id": session}) as stream:
            if self.see(stream, 200, 404) != 200:
                return
            text, last = "", None
            for event in stream:
                text, last = text + event.data.get("delta", ""), event
                if event.name == "content_delta" and self.chance.random() < 0.3:
                    break
        if last is None or last.name != "content_delta":
            return
        with self.client.events({"id": session}, last.id) as stream:
            if self.see(stream, 200, 404) == 200:
                self.read(stream, session, text, last.id.split("-")[0])

    def read(self, stream, session, text="", reply_id=None):
        if session not in self.sessions and session not in self.deleted:
            self.sessions.append(session)
        for event in stream:
            number = event.id.split("-")[0]
            if event.name == "content_delta":
                if reply_id not in (None, number):
                    return  # another reply was asked for meanwhile
                reply_id, text = number, text + event.data["delta"]
            if event.name == "assistant_turn":
                assert event.data["content"] == text, "the deltas are not the reply"


class Stranger(threading.Thread):
    """Has no token: says half of a request, or nothing, or does not close."""

    pause = 0.05  # seconds between one and the next

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
        ]
        words += [b"POST /sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"]
        while time.monotonic() < self.until:
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(self.address, timeout=5))
                held[-1].sendall(self.chance.choice(words))
            if len(held) > 40:
                held.popleft().close()
            time.sleep(self.pause)
        for connection in held:
            connection.close()


def soak(server, provider, seconds, seed):
    """Run it on this server; returns a summary. Raises AssertionError where an invariant does not hold."""
    provider.default = misbehave(random.Random(seed))
    until = time.monotonic() + seconds
    users = [User(server, USERS[number % 3], seed + number, until) for number in range(9)]
    strangers = [Stranger(server, seed, until) for _ in range(2)]
    for thread in (*users, *strangers):
        thread.start()
    slowest = 0.0
    while time.monotonic() < until:
        began = time.monotonic()
        assert requests.get(server.url + "/health", timeout=30).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.2)
    for thread in (*users, *strangers):
        thread.join()
    problems = [problem for user in users for problem in user.problems]
    assert not problems, f"{len(problems)} problems: {problems[:5]}"
    deadline = time.monotonic() + 40
    counts = collections.Counter()
    for user in users:
        for session in user.sessions:
            check(user.client, session, deadline, counts)
        for session in user.deleted:
            assert user.client.get(f"/sessions/{session}").status_code == 404
    assert "Traceback" not in server.output(), server.output()[-5000:]
    told = sum((user.told for user in users), collections.Counter())
    assert counts["went on"], "no reply went on"
    return f"answers {dict(sorted(told.items(), key=str))}, replies {dict(counts)}, slowest /health {slowest:.2f} s"


def check(client, session, deadline, counts):
    """What must hold of a session at rest; returns its turns."""
    while (turns := client.turns({"id": session}))[-1]["status"] == "in_progress":
        assert time.monotonic() < deadline, f"{session} is stuck"
        time.sleep(0.2)
    assert [turn["kind"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    for message, answer in zip(turns[::2], turns[1::2], strict=False):
        mark = MARK.findall(message["content"])[0]
        words = answer["content"].split()
        assert {MARK.findall(word)[0] for word in words if MARK.match(word)} <= {mark}, (
            "a word of another's"
        )
        numbers = [
            int(word.removeprefix(mark)) for word in words if word.startswith(mark) and word != mark
        ]
        assert numbers == list(range(len(numbers))), "a word is lost, or doubled"
        assert words.count(mark) == (mark in words), "the beginning is doubled"
        assert answer["status"] != "complete" or (mark in words and words[-1] == "end.")
        counts[answer["status"]] += 1
        counts["went on"] += answer["continued"] > 0
    return turns


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--database", help="the URL of an empty database; by default a SQLite file")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        provider = Provider()
        database = options.database or f"sqlite:///{folder}/soak.db"
        settings = {
            "DATABASE_URL": database,
            "OPENAI_BASE_URL": provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
        }
        server = Server(pathlib.Path(folder), **settings)
        try:
            print(soak(server.wait_until_up(), provider, options.seconds, options.seed))
        finally:
            server.stop()
            provider.close()


if __name__ == "__main__":
    main()
