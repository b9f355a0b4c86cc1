"""Fifty replies at once, on several hosts with one database, while processes die, stop and are cut
off; and what must hold.

Each session has a text of its own. Readers resume with their last ids, at whichever host answers.
"""

import concurrent.futures
import contextlib
import itertools
import os
import re
import signal
import statistics
import threading
import time

from client import wait_until
from provider import reply, so_far
from raw_tables import tables_of
from readers import Reader

STREAMS, USERS = 50, 10
HANG_UP = 5  # seconds in which a writer that has lost its reply must have closed its call
SAMPLES = 0.25  # seconds between two looks at the fences


def text_of(number, words):
    return " ".join(f"s{number}.{word}{'xyz'[: word % 4]}" for word in range(words)) + "."


class HangUp(threading.Event):
    """Set when the other side has hung up; `at` says when."""

    def set(self):
        self.at = time.monotonic()
        super().set()


class Models:
    """The provider's models: they write the text of each session word by word, and continue it."""

    def __init__(self, pace, words):
        self.pace, self.words = pace, words
        self.calls = {number: [] for number in range(STREAMS)}
        self.problems = []
        self.may_overlap = False  # a writer that has lost its reply may not be able to know
        self._lock = threading.Lock()

    def __call__(self, request):
        messages = [message["content"] for message in request.body["messages"]]
        said, number = so_far(request), int(messages[0].removeprefix("Text "))
        if not said and len(messages) > 1:
            yield from reply("Yes.")(request)
            return
        request.hung_up = HangUp()
        with self._lock:
            before = list(self.calls[number])
            self.calls[number].append(request)
        if not self.may_overlap and not all(call.hung_up.wait(HANG_UP) for call in before):
            self.problems.append(f"reply {number} has two writers")
        text = text_of(number, self.words)
        if not text.startswith(said):
            self.problems.append(f"reply {number} is to go on behind {said[-40:]!r}")
        words = re.findall(r"\s*\S+", text[len(said) :])
        yield from reply(*(part for word in words for part in (self.pace, word)))(request)

    def count(self):
        return sum(map(len, self.calls.values()))


class Fences:
    """The fence of each reply, as the database had it over time."""

    def __init__(self, url):
        self.seen = {}  # id of a turn → its fences, in their order
        self.problems = []
        self._url, self._over = url, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self):
        with tables_of(self._url) as tables:
            while not self._over.wait(SAMPLES):
                for turn, fence in tables.rows(
                    "SELECT id, fence FROM turn WHERE status = 'in_progress'"
                ):
                    seen = self.seen.setdefault(turn, [])
                    if fence in seen[:-1]:
                        self.problems.append(f"turn {turn} has an older fence again")
                    elif fence not in seen:
                        seen.append(fence)

    def stop(self):
        self._over.set()
        self._thread.join()


class Fleet:
    """Hosts, their readers, and what happened to them."""

    def __init__(self, start, settings, provider, pace, database=None, words=60):
        self._start, self.settings, self.provider = start, settings, provider
        self.models = provider.default = Models(pace, words)
        self.url = database or settings["DATABASE_URL"]
        self.hosts, self.old = [], []
        self.clients = [[] for _ in range(USERS)]  # each user's clients, one for each current host
        self.readers, self.following = [], []
        self.happened = []  # (what, when, to which host, or None: to all), in this order
        self.fences = self._pool = None

    def host(self, args="", **settings):
        """Start another host with two workers. It reaches the provider by a URL of its own, which
        shows whose call it is."""
        number = len(self.hosts) + len(self.old)
        settings = (
            self.settings | {"OPENAI_BASE_URL": f"{self.provider.url}/{number}/v1"} | settings
        )
        server = self._start(**settings, WEB_CONCURRENCY=2, GUNICORN_CMD_ARGS=args)
        server.calls = f"/{number}/"  # how the path of each of its calls begins
        self.hosts.append(server)
        for number, clients in enumerate(self.clients):
            clients.append(server.client(f"https://github.com/reader-{number}"))
        return server

    def leave(self, server):
        """Readers no longer use this host, unless it is the only one."""
        place = self.hosts.index(server)
        self.old.append(self.hosts.pop(place))
        for clients in self.clients:
            if len(clients) > 1:
                del clients[place]

    @contextlib.contextmanager
    def reading(self, most=200):
        """Within this context all replies have begun and are being read. After it, all of them have
        ended."""
        self.fences = Fences(self.url)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as self._pool:
            try:
                for number in range(STREAMS):
                    clients = self.clients[number % USERS]
                    reader = Reader(clients, first=number % len(clients))
                    self.readers.append(reader)
                    self.following.append(self._pool.submit(reader.ask, f"Text {number}", most))
                wait_until(lambda: all(reader.text for reader in self.readers), 40)
                yield
                for following in self.following:
                    following.result()
            finally:
                for reader in self.readers:
                    reader.given_up = True
                self.fences.stop()
        print(
            f"\n{STREAMS} replies in {time.monotonic() - began:.0f} s, {self.models.count()} calls"
        )

    def happens(self, what, host=None):
        """Note that this happens now, to this host, or to all."""
        self.happened.append((what, time.monotonic(), host))

    def waits(self):
        """How long the readers waited for text when replies changed hands, in ascending order, by
        what had happened."""
        found = {what: [] for what, _, _ in self.happened}
        for number, reader in enumerate(self.readers):
            for before, call in itertools.pairwise(self.models.calls[number]):
                found[self._why_lost(before, call)].append(reader.silence(call.at))
        return {what: sorted(silences) for what, silences in found.items()}

    def _why_lost(self, before, call):
        """What had last happened to the host whose call ended, so that another call was made. We
        look at the host, not only at the time: of two things that happen within a moment, the
        provider may see either first."""
        lost_at = before.hung_up.at if before.hung_up.is_set() else call.at
        of_host = [
            (what, when)
            for what, when, host in self.happened
            if host is None or before.path.startswith(host.calls)
        ]
        assert of_host, f"{before.path} ended, and nothing had happened to its host"
        return [what for what, when in of_host if when <= lost_at or when == of_host[0][1]][-1]

    def check(self, most_calls=1):
        """What must hold of every reply. `most_calls` is how often it may have been continued."""
        continued, problems = 0, self.models.problems + self.fences.problems
        for number, reader in enumerate(self.readers):
            client, text = reader.clients[-1], text_of(number, self.models.words)
            turn = client.turns(reader.session)[1]
            continued += turn["continued"]
            if (turn["status"], turn["content"], turn["error"]) != ("complete", text, None):
                problems.append(
                    f"{number} is {turn['status']}, {len(turn['content'])} of {len(text)}, {turn['error']}"
                )
            if reader.text != text:
                problems.append(
                    f"{number} was read as {reader.text[-60:]!r}, {len(reader.text)} of {len(text)}"
                )
            if (reader.end, reader.turn) != ("done", turn):
                problems.append(f"{number} ended as {reader.end} for its reader")
            if turn["continued"] > most_calls:
                problems.append(f"{number} was continued {turn['continued']} times")
            if len(self.models.calls[number]) != 1 + turn["continued"]:
                problems.append(
                    f"{number}: {len(self.models.calls[number])} calls, continued {turn['continued']} times"
                )
            if len(self.fences.seen[int(turn["id"])]) > 1 + turn["continued"]:
                problems.append(f"{number} had more writers than it was continued")
            answer = client.post(f"/sessions/{reader.session['id']}/messages", {"content": "More?"})
            if (answer.status_code, answer.json().get("content")) != (201, "Yes."):
                problems.append(f"{number} takes no message: {answer.text}")
        for server in self.hosts + self.old:
            if "Traceback" in server.output():
                problems.append("a traceback: " + server.output().partition("Traceback")[2][-2000:])
        assert not problems, "\n".join(problems)
        return continued


def kill_worker(server):
    """kill -9 of one of the workers; returns once there is another in its place."""
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: before[0] not in server.workers() and len(server.workers()) == len(before))


def tell(waits):
    """Print how long the readers waited."""
    for what, silences in waits.items():
        if silences:
            told = f"readers waited {statistics.median(silences):.1f} s (median), {silences[-1]:.1f} s (worst)"
        else:
            told = "nobody waited"
        print(f"{what}: {len(silences)} replies changed hands, {told}")
