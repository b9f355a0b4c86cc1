"""A soak with faults: users do at random all that can be done, as in soak.py, and every minute a random fault lasts a while.

PostgreSQL is away, is read-only, hangs, or has a table locked; SQLite is written elsewhere, or its disk is full; a worker or
the whole service stands still; a worker is killed; the clock is stepped. Whoever is told to come back, or loses his
connection, asks again, under the same Idempotency-Key. Afterwards the invariants hold, seen as a client, and no reply was
interrupted but by whoever cancelled it: the others went on, whatever befell their processes. A small file system needs root,
and the clock libfaketime: else these faults are left out.

    .venv/bin/python tools/soak/fault_soak.py [--seconds 3600] [--database sqlite|postgresql] [--seed 1]

By default one soak runs on each, beside each other. The seed decides what is done; what it meets is up to the machine, too.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import threading
import time

import requests

import trouble
from client import Client, make_token, wait_until
from cluster import Cluster  # noqa: E402
from provider import Provider, asked, cut, fails, reply, status
from raw_tables import tables_of
from servers import Server, listens_to_signals
from soak import MARK, USERS, Stranger, User, check, counting
from talk import LONGEST

ENGINES = ("sqlite", "postgresql")
MINUTE = 60  # seconds from one fault to the next
SHORTEST, LONG, STILL = (
    3,
    25,
    20,
)  # seconds that a fault lasts: at least, at most, and at most where one worker stands still
BACK = 15  # seconds behind a fault, within which all is well again
PATIENCE = 100  # seconds for which a user goes on asking the same
REPLY_WAIT = 2  # seconds that a waiting request is held
STEPS = 60, -60, 3600, -3600  # seconds, of the clock
CHECKER = "https://github.com/checker"
LOST = requests.RequestException, OSError, http.client.HTTPException
BAD_LINES = (
    "Traceback",
    "a thread died",
    "the keeper failed",
    "a stream failed",
    "does not take a reply",
    "WORKER TIMEOUT",
)
OUTPUT_TOKENS = 7  # that each answer of the provider says


# What is known of a run


class Model:
    """A provider's default: it repeats the mark of the message it answers, for up to 15 s, and some of its calls break or fail,
    but no two of one message, one behind the other: whoever asks again is answered.

    It remembers when each call began and ended, and how many may have told what they used.
    """

    def __init__(self, seed):
        self.seed = seed
        self.calls = collections.defaultdict(list)  # mark → [[when it began, when it ended], …]
        self.whole = []  # marks, one for each call that is answered to its end unless it is hung up
        self.is_well = False

    def __call__(self, request):
        mark = MARK.findall(asked(request))[-1]
        call = [time.monotonic(), None]
        self.calls[mark].append(call)
        try:
            number = len(self.calls[mark])
            yield from self._answer(
                mark, request, number % 2 == 1, random.Random(f"{self.seed} {mark} {number}")
            )(request)
        finally:
            call[1] = time.monotonic()

    def _answer(self, mark, request, may_fail, chance):
        pause = 0.01 if self.is_well else chance.choice([0.01, 0.2, 0.5, 0.5])
        words = counting(request, chance.randrange(1, 30), pause)
        if may_fail and not self.is_well and chance.random() < 0.2:
            some = words[: chance.randrange(len(words))]
            faults = [
                cut(*some, " half"),
                fails(*some, " half"),
                cut(),
                status(500),
                status(429, {}, retry_after_ms="1"),
            ]
            return chance.choice(faults)
        self.whole.append(mark)
        return reply(*words)

    def is_silent(self):
        return all(ended for calls in list(self.calls.values()) for _, ended in calls)


class Notes:
    """What happened, and what users were told."""

    def __init__(self):
        self.began = time.monotonic()
        self.kills = []  # when
        self.pauses = []  # [when it began, when all stood still, when it was over, whether it was the whole service]
        self.slow, self.lost = (
            [],
            [],
        )  # requests: (what, when it was asked, when it was answered or lost, the limit)
        self.kept = {}  # mark → the session in which it is, as somebody was told
        self.turns = {}  # id → a reply, as it was told at its end
        self.titles = {}  # session → the title that a user gave it
        self.cancelled = set()  # marks
        self.problems = []

    def is_killed(self, since, until):
        """Whether a worker was killed in this time."""
        return any(since <= when <= until for when in self.kills)

    def late(self):
        """Requests that were answered too late, and neither waited for a service that stood still nor were in such a worker."""
        found = []
        for what, began, ended, limit in self.slow:
            seconds = ended - began
            for since, stood, until, is_whole in self.pauses:
                if is_whole or began < stood:
                    seconds -= max(0.0, min(ended, until) - max(began, since))
            if seconds > limit:
                found.append(f"{self.since(began)}: {what} took {seconds:.1f} s")
        return found

    def cut_off(self):
        """Requests that lost their connection though no worker was killed meanwhile."""
        lost = [each for each in self.lost if not self.is_killed(each[1] - 1, each[2] + 1)]
        return [
            f"{self.since(began)}: {what} was lost after {ended - began:.1f} s"
            for what, began, ended, _ in lost
        ]

    def since(self, when):
        """When this was, as the faults are told."""
        return f"{when - self.began:.0f} s"


# Users


class Asker(Client):
    """A client who asks again where he loses the answer or is told to come back, under the same Idempotency-Key."""

    def __init__(self, server, subject, chance, notes):
        super().__init__(server.url, lasting_token(subject))
        self.chance, self.notes = chance, notes
        self.last = {}  # session → the mark of its last message
        self.deleted = set()
        self.told = collections.Counter()
        self.continued = self.unsure = (
            0  # replies that went on as he asked; requests to go on of which he does not know
        )

    def key(self):
        return f"{self.chance.getrandbits(64):x}"

    def request(self, method, path, body=None, timeout=60, **headers):
        asks = method == "POST" and not path.endswith("/cancel")
        if asks:
            headers.setdefault("Idempotency_Key", self.key())
        limit = LONGEST + (REPLY_WAIT if asks and not headers.get("Prefer") else 0)
        if method == "DELETE":
            limit += (
                LONGEST  # each of its steps has ten seconds: those before the fault count besides
            )
        session, mark = session_in(path), self.mark_of(path, body) if method == "POST" else None
        goes_on = path.endswith("/continue")
        if method == "DELETE":
            self.deleted.add(session)
        if path.endswith("/cancel"):
            self.notes.cancelled.add(mark)
        for began in self.tries(f"{method} {path}"):
            try:
                response = super().request(method, path, body, timeout, **headers)
            except LOST:
                self.lose(f"{method} {path}", began, limit)
                self.unsure += goes_on
                continue
            self.is_in_time(f"{method} {path}", began, limit)
            if not self.is_to_come_back(response.status_code, response.headers):
                self.continued += goes_on and response.status_code not in (404, 409)
                self.keep(response, response.status_code, session, body and mark)
                return response
            self.unsure += goes_on

    def read(self, path=None, body=None, session=None):
        """Read a reply to its end, by as many streams as it takes: one that is asked for, or the latest of a session.

        Returns the status of the last answer, and the Reading.
        """
        reading, mark, key = Reading(self.notes), path and self.mark_of(path, body), self.key()
        what = f"stream of {path or session}"
        for began in self.tries(what):
            if session:
                stream = self.events({"id": session}, reading.last_id)
            else:
                stream = self.stream("POST", path, body, Idempotency_Key=key)
            try:
                with stream as stream:
                    self.is_in_time(what, began, LONGEST)
                    if self.is_to_come_back(stream.status, stream.headers):
                        session = session or session_in(stream.headers.get("Location", ""))
                        continue
                    self.keep(stream, stream.status, session or session_in(path), body and mark)
                    reading.session = session = (
                        session_in(stream.headers.get("Location", "")) or session
                    )
                    if stream.status not in (200, 201) or reading.is_whole(stream, self.chance):
                        return stream.status, reading
            except LOST:
                self.lose(what, began, float("inf"))

    def tries(self, what):
        """The times at which the same is asked, again and again, with a pause between."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            yield time.monotonic()
            time.sleep(self.chance.uniform(0.2, 1.5))
        raise AssertionError(
            f"{what} was not answered within {PATIENCE} s; he was told {dict(self.told)}"
        )

    def mark_of(self, path, body):
        """The mark of the message that this request sends, or else of the last one in its session."""
        return (
            MARK.findall(body["content"])[0]
            if body and "content" in body
            else self.last.get(session_in(path))
        )

    def lose(self, what, began, limit):
        self.told["lost"] += 1
        self.notes.lost.append((what, began, time.monotonic(), limit))
        self.is_in_time(what, began, limit)

    def is_in_time(self, what, began, limit):
        if time.monotonic() > began + limit:
            self.notes.slow.append((what, began, time.monotonic(), limit))

    def is_to_come_back(self, code, headers):
        """Whether the same request is to be sent again: nobody can answer, or the first one under its key is under way.

        That the model failed is an answer, which names the session.
        """
        self.told[code] += 1
        if code == 503 and not headers.get("Retry-After"):
            self.notes.problems.append("a 503 has no Retry-After")
        is_unanswered = code == 503 and "Location" not in headers
        is_under_way = code == 409 and "Location" in headers and "Retry-After" in headers
        return is_unanswered or is_under_way

    def keep(self, response, code, session, mark):
        """Note what an answer says to be there: the message of this mark, which the session has whatever its reply becomes."""
        if code == 404 and session in self.last and session not in self.deleted:
            self.notes.problems.append(f"the session {session} is gone")
        kept = session_in(response.headers.get("Location", "")) or session
        if mark and kept and code in (200, 201, 202, 502, 503, 504):
            self.notes.kept[mark], self.last[kept] = kept, mark


class Reading:
    """What has been read of a reply, in however many streams."""

    def __init__(self, notes):
        self.notes = notes
        self.session = self.number = self.last_id = self.turn = None
        self.text = ""

    def is_whole(self, stream, chance):
        """Read on in this stream, now and then not to its end; returns whether the reply is read to its end."""
        for event in stream:
            number, position, *_ = event.id.split("-")
            if number != self.number:  # the first, or another one, since that could not be made
                self.number, self.text, self.turn = number, "", None
            self.last_id = event.id
            if event.name == "content_delta":
                self.text += event.data["delta"]
                assert len(self.text) == int(position), (
                    f"at {event.id} he has {len(self.text)} characters"
                )
                if chance.random() < 0.03:
                    return False
            elif event.name == "assistant_turn":
                self.turn = self.notes.turns[event.data["id"]] = event.data
                assert event.data["content"] == self.text, (
                    f"the deltas of {number} are not the reply"
                )
            elif event.name == "error":
                assert event.data["status"] in (404, 502, 503, 504), event.data
            if event.name in ("done", "error"):
                return True
        return False


def session_in(path):
    """The id of the session that a path names, or None."""
    parts = path.split("?")[0].split("/")
    return parts[2] if parts[1:2] == ["sessions"] and len(parts) > 2 else None


class PatientUser(User):
    """A user as in soak.py, who asks again; the first of the owners deletes nothing."""

    pause = 0.5

    def __init__(self, server, subject, seed, until, notes):
        super().__init__(server, subject, seed, until)
        self.subject, self.notes = subject, notes
        self.client = Asker(server, subject, self.chance, notes)
        self.deleted = self.client.deleted

    def see(self, response, *expected):
        return super().see(response, *expected, 504)

    def change(self):
        session = session_in(self.path())
        response = self.client.patch(f"/sessions/{session}", {"title": self.content()[:50]})
        if self.see(response, 200, 404) == 200:
            self.notes.titles[session] = response.json()["title"]

    def delete(self):
        if len(self.sessions) > 5 and self.subject != USERS[0]:
            session = self.sessions.pop(self.chance.randrange(len(self.sessions)))
            self.see(
                self.client.delete(f"/sessions/{session}"), 204, 404
            )  # 404 where the first answer was lost

    def stream(self):
        self.read(
            path=self.chance.choice(["/sessions", self.path() + "/messages"]),
            body={"content": self.content()},
        )

    def follow(self):
        self.read(session=session_in(self.path()))

    def read(self, **what):
        code, reading = self.client.read(**what)
        assert code in (200, 201, 204, 404, 409), f"{code} of a stream"
        if code in (200, 201) and reading.session not in self.sessions:
            self.sessions.append(reading.session)


# Faults


class Service:
    """A server on this engine, with a provider and a database of its own, and what its faults need; it is a context."""

    def __init__(self, folder, engine, model, notes):
        self.folder, self.engine, self.model, self.notes = folder, engine, model, notes
        self.provider = Provider()
        self.provider.default = model
        self.cluster = self.disk = self.path = None
        self._leaving = contextlib.ExitStack()
        self._leaving.callback(self.provider.close)
        with contextlib.ExitStack() as failing:
            failing.callback(self._leaving.close)
            self._start()
            failing.pop_all()

    def _start(self):
        if self.engine == "postgresql":
            self.cluster = Cluster()
            self._leaving.callback(self.cluster.close)
        # Whose clock is stepped has its database beside it.
        self.clock = (
            trouble.Clock(self.cluster.folder if self.cluster else self.folder)
            if trouble.find_libfaketime()
            else None
        )
        settings = self.clock.settings if self.clock else {}
        if self.cluster:
            self.cluster.environment |= {name: str(value) for name, value in settings.items()}
            self.cluster.initialize()
            self.cluster.start()
            self.url = self.cluster.url()
        else:
            self.disk = self._mount()
            self.path = (self.disk or self.folder) / "parley.db"
            self.url = f"sqlite:///{self.path}"
        settings = settings | {
            "DATABASE_URL": self.url,
            "OPENAI_BASE_URL": self.provider.url + "/v1",
        }
        settings |= {
            "DEFAULT_MODEL": "m-1",
            "REPLY_WAIT": REPLY_WAIT,
            "CONTINUE_LIMIT": 1000,
        }  # whatever befalls a reply
        self.server = Server(self.folder, **settings)
        self._leaving.callback(self.server.stop)
        self.server.wait_until_up()

    def _mount(self):
        """A small file system, or None where it cannot be had."""
        disk = self.folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "none", str(disk)]
        if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            return None
        self._leaving.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)
        return disk

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._leaving.close()

    def faults(self):
        """name → (a function of a Random that returns the context of this fault, seconds that it lasts at most)"""
        found = {
            "a worker stands still": (self.worker_stopped, STILL),
            "the service stands still": (self.service_stopped, LONG),
            "a worker is killed": (self.worker_killed, SHORTEST),
        }
        if self.clock:
            found["the clock is stepped"] = (
                lambda chance: self.clock.moved(chance.choice(STEPS)),
                LONG,
            )
        if self.cluster:
            tables = ("session", "turn", "piece", "usage", "key")
            found["PostgreSQL is away"] = (lambda chance: trouble.away(self.cluster), LONG)
            found["PostgreSQL is read-only"] = (lambda chance: trouble.read_only(self.url), LONG)
            found["PostgreSQL hangs"] = (lambda chance: trouble.hanging(self.cluster), LONG)
            found["a table is locked"] = (
                lambda chance: trouble.locked(self.url, chance.choice(tables)),
                LONG,
            )
        else:
            found["SQLite is written elsewhere"] = (lambda chance: trouble.locked(self.url), LONG)
        if self.disk:
            found["the disk is full"] = (lambda chance: trouble.full(self.disk), LONG)
        return found

    def worker_stopped(self, chance):
        """Sometimes within what it writes."""
        return self._noted(
            trouble.stopped(
                [chance.choice(self.server.workers())], chance.choice([None, self.path])
            ),
            False,
        )

    def service_stopped(self, chance):
        return self._noted(
            trouble.service_stopped(self.server, chance.choice([None, self.path])), True
        )

    @contextlib.contextmanager
    def _noted(self, context, is_whole):
        pause = [time.monotonic(), float("inf"), float("inf"), is_whole]
        self.notes.pauses.append(pause)
        with context:
            pause[1] = time.monotonic()
            yield
        pause[2] = time.monotonic()

    @contextlib.contextmanager
    def worker_killed(self, chance):
        pid = chance.choice(self.server.workers())
        self.notes.kills.append(time.monotonic())
        os.kill(pid, 9)
        yield

        def is_replaced():
            workers = self.server.workers()
            return (
                pid not in workers
                and len(workers) == self.server.count
                and all(map(listens_to_signals, workers))
            )

        wait_until(is_replaced)

    def harass(self, chance, seconds):
        """One fault a minute, none a second time before all were there; returns what was done."""
        faults, left, done, began = self.faults(), [], [], time.monotonic()
        self.notes.began = began
        for minute in range(max(1, round(seconds / MINUTE))):
            left = left or chance.sample(sorted(faults), len(faults))
            name = left.pop()
            context, most = faults[name]
            pause, lasting = (
                chance.uniform(2, MINUTE - LONG - BACK - 5),
                chance.uniform(SHORTEST, most),
            )
            time.sleep(max(0.0, began + minute * MINUTE + pause - time.monotonic()))
            done.append(f"{time.monotonic() - began:.0f} s: {name}, for {lasting:.0f} s")
            print(f"{self.engine}, {done[-1]}", flush=True)
            workers = self.server.workers()
            with context(chance):
                time.sleep(lasting)
            self.wait_until_well(name, chance)
            if name != "a worker is killed" and self.server.workers() != workers:
                self.notes.problems.append(f"{name}: it cost a worker")
            self.provider.requests.clear()  # of an hour, they would fill the memory
        return done

    def wait_until_well(self, name, chance):
        """Behind a fault /health is 200, and a session is created, within seconds."""
        client, told = Client(self.server.url, lasting_token(CHECKER)), []
        deadline = time.monotonic() + BACK
        while time.monotonic() < deadline:
            body = {"content": f"[{chance.getrandbits(48):012x}] Are you well?"}
            with contextlib.suppress(requests.RequestException):
                answers = (
                    client.get("/health", timeout=BACK),
                    client.post("/sessions", body, timeout=BACK),
                )
                told = [answer.status_code for answer in answers]
                is_made = (
                    told[1] != 503 or "Location" in answers[1].headers
                )  # that the model failed is an answer
                if told[0] == 200 and is_made:
                    return
            time.sleep(0.3)
        self.notes.problems.append(f"{name}: {BACK} s later, /health and a creation are {told}")


class Looking(threading.Thread):
    """Asks for /health all the while: it is 200 or 503, and in time."""

    def __init__(self, server, notes, until):
        super().__init__()
        self.url, self.notes, self.until = server.url + "/health", notes, until
        self.slowest = 0.0

    def run(self):
        while time.monotonic() < self.until:
            began = time.monotonic()
            try:
                code = requests.get(self.url, timeout=60).status_code
            except requests.RequestException:
                self.notes.lost.append(("/health", began, time.monotonic(), LONGEST))
            else:
                if code not in (200, 503):
                    self.notes.problems.append(f"/health is {code}")
            seconds = time.monotonic() - began
            self.slowest = max(self.slowest, seconds)
            if seconds > LONGEST:
                self.notes.slow.append(("/health", began, time.monotonic(), LONGEST))
            time.sleep(0.5)


def lasting_token(subject):
    """A token that holds whatever the clock says."""
    now = int(time.time())
    return make_token(subject, iat=now - 7200, exp=now + 2 * 86400)


# A run


def soak_with_faults(folder, engine, seconds, seed):
    """Run it on this engine; returns a summary. Raises AssertionError where an invariant does not hold."""
    chance, notes = random.Random(f"{seed} {engine}"), Notes()
    with Service(folder, engine, Model(seed), notes) as service:
        server, until = service.server, time.monotonic() + seconds
        users = [
            PatientUser(server, USERS[number % 3], f"{seed} {engine} {number}", until, notes)
            for number in range(6)
        ]
        looking = Looking(server, notes, until)
        stranger = Stranger(server, seed, until)
        stranger.pause = 0.5
        threads = [*users, stranger, looking]
        for thread in threads:
            thread.start()
        try:
            done = service.harass(chance, seconds)
            time.sleep(max(0.0, until - time.monotonic()))
        finally:
            for thread in threads:
                thread.until = 0
            for thread in threads:
                thread.join()
        problems = notes.problems + [problem for user in users for problem in user.problems]
        counts = collections.Counter()
        problems += check_all(service, users, counts, chance)
        problems += notes.late() + notes.cut_off()
        problems += [f"the log says {line}" for line in BAD_LINES if line in server.output()]
        summary = [
            *done,
            f"answers {dict(sorted(sum((user.client.told for user in users), collections.Counter()).items(), key=str))}",
            f"replies {dict(counts)}",
            f"slowest /health {looking.slowest:.1f} s",
        ]
        summary = f"{engine}: " + "; ".join(summary)
        if problems:  # its folder goes
            log = shutil.copy(
                server.log_file,
                os.path.join(tempfile.gettempdir(), f"fault_soak_{engine}_{seed}.log"),
            )
            raise AssertionError(
                f"{len(problems)} problems: {problems[:10]}, of {summary}; its log is {log}"
            )
    return summary


def check_all(service, users, counts, chance):
    """What must hold when the faults are over, and what users said is answered; returns the problems, and counts replies."""
    notes, model = service.notes, service.model
    wait_until(model.is_silent, PATIENCE)
    # An orphan waits for half a minute before its model is asked again, which talks for as long.
    deadline, problems, found = time.monotonic() + 60, [], collections.Counter()
    askers = {subject: Asker(service.server, subject, chance, notes) for subject in USERS}
    listed = {subject: list_titles(client) for subject, client in askers.items()}
    for subject, client in askers.items():
        for session in listed[subject]:
            try:
                turns = check(client, session, deadline, counts)
            except Exception as problem:  # an assertion, or a session that is not shown
                problems.append(f"{session}: {problem!r}")
                continue
            problems += check_turns(session, turns, notes, counts)
            found.update((MARK.findall(turn["content"])[0], session) for turn in turns[::2])
    deleted = set().union(*(user.deleted for user in users))
    for user in users:
        problems += [
            f"{session} is not listed"
            for session in set(user.sessions) - deleted - set(listed[user.subject])
        ]
    problems += [
        f"{session} was deleted" for titles in listed.values() for session in deleted & set(titles)
    ]
    for mark, session in notes.kept.items():
        if session not in deleted and found[mark, session] != 1:
            problems.append(f"{mark} is {found[mark, session]} times in {session}")
    doubled = [
        mark
        for mark, count in collections.Counter(mark for mark, _ in found.elements()).items()
        if count > 1
    ]
    problems += [f"{mark} is there more than once" for mark in doubled]
    titles = {session: title for each in listed.values() for session, title in each.items()}
    problems += [
        f"the title of {each} is lost"
        for each, title in notes.titles.items()
        if titles.get(each, title) != title
    ]
    problems += check_usage(
        service, [user.client for user in users if user.subject == USERS[0]], counts
    )
    model.is_well = True
    for subject, client in askers.items():
        for session in chance.sample(sorted(listed[subject]), min(5, len(listed[subject]))):
            problems += check_goes_on(client, session, chance)
    return problems


def list_titles(client):
    """session → its title, of all that this client is shown."""
    titles, more = {}, True
    while more:
        page = client.get(f"/sessions?page[limit]=100&page[offset]={len(titles)}").json()
        titles |= {session["id"]: session["title"] for session in page["data"]}
        more = page["meta"]["has_more"]
    return titles


def check_turns(session, turns, notes, counts):
    """No reply was interrupted that nobody cancelled, and what was told of their ends is still so, unless they went on behind
    it; returns the problems."""
    problems = []
    for message, answer in zip(turns[::2], turns[1::2], strict=False):
        mark = MARK.findall(message["content"])[0]
        if answer["status"] == "interrupted" and mark not in notes.cancelled:
            problems.append(
                f"the reply {answer['id']} to {mark} in {session} was interrupted, though nobody cancelled it"
            )
        if answer["status"] == "failed" and answer["error"]["status"] not in (502, 503, 504):
            problems.append(f"the reply {answer['id']} failed: {answer['error']}")
        told = notes.turns.get(answer["id"], answer)
        is_grown = answer["continued"] > told["continued"] and answer["content"].startswith(
            told["content"]
        )
        if (told["status"], told["content"]) != (
            answer["status"],
            answer["content"],
        ) and not is_grown:
            problems.append(
                f"the reply {answer['id']} was told as {told['status']}, and is {answer['status']}"
            )
        if answer["error"] and "database" in answer["error"]["message"]:
            counts["failed for want of the database"] += 1
    return problems


def check_usage(service, askers, counts):
    """Each reply is counted once, and once more when one of these, the first owner's, asked for it to go on; and what the
    provider said it took, once at most. Returns the problems."""
    replies = "SELECT count(*) FROM turn JOIN session ON session.id = turn.session_id WHERE owner = ? AND kind = 'assistant'"
    with tables_of(service.url) as tables:
        made = tables.value(replies, USERS[0])  # who has deleted none
        used = tables.value("SELECT sum(replies) FROM usage WHERE owner = ?", USERS[0])
        tokens = (
            tables.value("SELECT sum(output_tokens) FROM usage WHERE owner <> ?", CHECKER)
            / OUTPUT_TOKENS
        )
    asked_for = made + sum(asker.continued for asker in askers)
    is_right = asked_for <= used <= asked_for + sum(asker.unsure for asker in askers)
    problems = (
        []
        if is_right
        else [f"{made} replies were asked for {asked_for} times, and {used} are counted"]
    )
    if not counts["complete"] <= tokens <= len(service.model.whole):
        answered = len(service.model.whole)
        problems.append(
            f"{counts['complete']} replies are complete, {tokens} counted, and the provider answered {answered}"
        )
    return problems


def check_goes_on(client, session, chance):
    """The session takes a message, and its stream is what is stored; returns the problems."""
    response = client.post(
        f"/sessions/{session}/messages", {"content": f"[{chance.getrandbits(48):012x}] And now?"}
    )
    if response.status_code not in (201, 202):
        return [
            f"the session {session} takes no message: {response.status_code} {response.text[:200]}"
        ]
    _, reading = client.read(session=session)
    last = client.turns({"id": session})[-1]
    is_whole = last["status"] == "complete" and last["content"] == reading.text
    return (
        []
        if is_whole
        else [f"the last reply in {session} is {last['status']}, or not what was read of it"]
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--database", choices=ENGINES, help="by default one soak runs on each")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        soak_on(
            pathlib.Path(folder),
            [options.database] if options.database else ENGINES,
            options.seconds,
            options.seed,
        )


def soak_on(folder, engines, seconds, seed):
    """Run it on these engines, beside each other, and print what each was told."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = []
        for engine in engines:
            (folder / engine).mkdir()
            runs.append(pool.submit(soak_with_faults, folder / engine, engine, seconds, seed))
    for run in runs:
        if not run.exception():
            print(run.result(), flush=True)
    for run in runs:
        run.result()


if __name__ == "__main__":
    main()
