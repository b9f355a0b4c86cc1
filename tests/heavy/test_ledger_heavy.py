"""The ledger is compared with the provider's own, call by call, while replies break, are
stopped, and lose their processes.

If a provider reports usage, the ledger has it exactly. Otherwise it has exactly one token for
four bytes. Only the calls that were on their way when a process was killed or a call hung up are
uncertain: for a `MOMENT`, or for the time of the slowest scrape of the metrics, on a machine
that is too busy.
"""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import math
import os
import random
import re
import signal
import threading
import time
from typing import NamedTuple

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from client import ALICE, BOB, wait_for_status, wait_until
from commands import flask
from fleet import HangUp
from late_writers import SAID, paused
from product import ROOT
from provider import KEEP, REFUSED, Connection, chunk, cut, event, events_of, head, reply, status
from raw_tables import tables_of

SECONDS = 18  # of load
MOMENT = 0.5  # seconds within which arrived usage is in the ledger
SELDOM = 2  # seconds more if a provider counts with each word: it is stored once a second
UNSEEN = 1  # seconds more as long as no word has come
CLAIMED = 1  # second from a request to the call of the model
NOTICED = 2  # seconds within which the provider sees that the other side has gone
TAKEN = 45  # seconds within which the replies of dead processes continue elsewhere, and end
SAYS = {
    "claude-x": "twice",
    "m-said": "at the end",
    "m-often": "with each word",
    "m-half": "its input",
    "m-mute": "nothing",
}
TITLES = "m-title"
OWNER = "https://github.com/"  # the beginning of all users' names
OWNERS, LEAVER = [f"user-{number}" for number in range(5)], "leaver"
TOKEN = "a-token-for-the-metrics"
KINDS = "input_tokens", "output_tokens", "cached_tokens"
MARK = re.compile(r"<(\S+?)-(\d+\.\d+)>")  # the mark of a message: user-1, 0.17
SYSTEM = "Be brief, plêase."
BREAK = object()


def estimate(size):
    return math.ceil(size / 4)


# The provider's ledger


class Call:
    """One request, and when which part of its answer was sent."""

    def __init__(self, request):
        request.hung_up = self.hung_up = HangUp()
        messages = request.body["messages"]
        self.host, self.model = request.path.split("/")[1], request.body["model"]
        texts = [message["content"] for message in messages]
        self.owner, self.number = MARK.findall(" ".join(texts))[-1]
        self.is_quiet = texts[-1].endswith(" quiet") and self.model != TITLES
        self.prompt = sum(len(text.encode()) for text in [request.body.get("system") or "", *texts])
        self.began, self.over = time.monotonic(), None  # if the provider itself has ended it
        self.refused = False
        self.sent = []  # (when, bytes of text, what was reported by then)

    def cut(self):
        """When the other side hung up, if it did."""
        return self.hung_up.at if self.hung_up.is_set() and self.over is None else math.inf

    def befell(self, when, moment):
        """When the first of these faults, (host, from, to), began that may have cost it some usage,
        or None. There can be one even if the call has finished and its worker lived on, or if a
        user has just stopped it."""
        for host, first, last in when:
            if host == self.host and self.began <= last:
                unsure = moment if any(size for _, size, _ in self.sent) else UNSEEN + 2 * moment
                if first - unsure <= (self.over or self.cut()) <= last + NOTICED:
                    return first
        return None


class Asked(NamedTuple):
    """A user's request to a server, which may have died before it called the model."""

    number: str
    host: str
    at: float
    model: str
    size: int  # bytes

    def befell(self, kills):
        return any(
            host == self.host and first - CLAIMED <= self.at <= last for host, first, last in kills
        )


class Ledger:
    """A provider's default: it draws its answers at random, and keeps a ledger of them."""

    def __init__(self, seed):
        self.seed, self.calls, self.ways = seed, [], collections.Counter()
        self._times = collections.Counter()
        self._lock = threading.Lock()

    def __call__(self, request):
        call = Call(request)
        with self._lock:
            self._times[call.owner, call.number] += 1
            times = self._times[call.owner, call.number]
        chance = random.Random(f"{self.seed} {call.owner} {call.number} {call.model} {times}")
        [way] = chance.choices(list(WAYS), WAYS.values()) if not call.is_quiet else ["well"]
        with self._lock:
            self.calls.append(call)
            self.ways[way] += 1
        call.refused = way in ("busy", "refused")
        if call.refused:
            yield from (
                REFUSED if way == "refused" else status(503, {"error": {"message": "Busy."}})
            )(request)
        else:
            yield from self._write(request, call, chance, way)
        call.over = call.over or (None if request.hung_up.is_set() else time.monotonic())

    def _write(self, request, call, chance, way):
        says, texts = SAYS.get(call.model) or chance.choice(["at the end", "nothing"]), []
        usage = chance.randint(1, 9000), chance.randint(20, 900), chance.randint(0, 900)
        words = [
            f"wörd{len(self.calls)}x{number}{'y' * chance.randint(0, 30)} "
            for number in range(chance.randint(1, 12))
        ]
        words += ["quiet "] * call.is_quiet
        pace = (
            0.02
            if call.is_quiet or chance.random() < 0.5
            else chance.choice([0.1, 0.1 if call.model == TITLES else 0.8])
        )
        place = chance.randint(0, len(words)) if way != "well" else None

        def pieces():
            for number, word in enumerate(words):
                if number == place:
                    yield BREAK
                yield pace
                if says == "with each word":
                    yield openai_usage(usage[0], number + 1, {"cached_tokens": usage[2]})
                texts.append(len(word.encode()))
                yield word
            if call.is_quiet:
                yield 60
            if place == len(words):
                yield BREAK

        yield head(Transfer_Encoding="chunked")
        for part in events_of(request, pieces(), usage=usage):
            if request.hung_up.is_set():
                return
            if part is BREAK:
                yield from self._break(way)
                call.over = time.monotonic()
                return
            if not isinstance(part, bytes):
                yield part
                continue
            said = {}
            if b'"usage"' in part:
                part, said = _said(part, says, usage)
            if part:
                yield chunk(part)
                call.sent.append((time.monotonic(), sum(texts), said))
                texts.clear()
        yield chunk(b"")
        yield KEEP

    @staticmethod
    def _break(way):
        if way == "errs":
            yield chunk(
                event(
                    {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}},
                    "error",
                )
            ) + chunk(b"")
        if way == "resets":
            yield 0.5  # what was sent is read: a reset might prevent that
            yield Connection.reset


WAYS = {"well": 60, "busy": 8, "refused": 5, "breaks": 12, "errs": 8, "resets": 4}


def openai_usage(*counts):
    usage = zip(
        ("prompt_tokens", "completion_tokens", "prompt_tokens_details"), counts, strict=False
    )
    return event({"choices": [], "usage": dict(usage)})


def _said(part, says, usage):
    """The event with which such a model reports usage, and what it means."""
    if says == "nothing":
        return None, {}
    if says == "its input":
        return openai_usage(usage[0]), {"input_tokens": usage[0]}
    if says == "twice":
        # Anthropic's `input_tokens` do not include the cached tokens, also those in
        # `anthropic_events`.
        said = {"input_tokens": usage[0] + usage[2] + 1, "cached_tokens": usage[2]}
        if b"message_start" in part:
            return part, said
        counts = {
            "input_tokens": usage[0] + 5,
            "cache_read_input_tokens": usage[2],
            "cache_creation_input_tokens": 1,
        }
        whole = {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": counts | {"output_tokens": usage[1]},
        }
        return event(whole, "message_delta"), said | {
            "input_tokens": said["input_tokens"] + 5,
            "output_tokens": usage[1],
        }
    counts = json.loads(part.removeprefix(b"data: "))["usage"]
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return part, dict(
        zip(KINDS, (counts["prompt_tokens"], counts["completion_tokens"], cached), strict=True)
    )


# What the service may have counted


class Bounds:
    """The sums of an owner's calls of a model: the possible sums of each kind, and the lowest
    and highest estimate."""

    def __init__(self):
        self.sums = {kind: {0} for kind in KINDS}
        self.least = self.most = 0
        self.uncertain = []

    def add(self, call, moment, kills, stops, stopped, rash):
        within = moment + (
            UNSEEN if call.model == TITLES else 0
        )  # it waits for its turn among all that store
        killed, handed_over, cut = (
            call.befell(kills, within),
            call.befell(stops, within),
            call.cut(),
        )
        moment = moment if killed or handed_over or (call.owner, call.number) in rash else 0
        if call.refused:  # free, unless hung up, or dead in the pause after it
            is_lost = killed or cut < math.inf
            self.most += estimate(call.prompt) if is_lost else 0
            return
        settled = (killed or cut) - moment
        if killed and not any(at < settled and size for at, size, _ in call.sent):
            settled -= UNSEEN
        if moment and call.model == "m-often":
            settled -= SELDOM
        if call.model == TITLES and (
            killed or handed_over
        ):  # it is counted when it has ended, and not handed over
            settled = 0
        sure = [each for each in call.sent if each[0] < settled]
        said = [{}, *(said for _, _, said in call.sent if said)]
        seen = [{}, *(said for _, _, said in sure if said)]
        options = [
            seen[-1],
            *said[len(seen) :],
        ]  # the last report that the service has read
        for kind in KINDS:
            values = {each.get(kind, 0) for each in options}
            self.sums[kind] = {before + value for before in self.sums[kind] for value in values}
        least = most = 0
        if "input_tokens" not in seen[-1]:
            most += call.prompt
            least += call.prompt if "input_tokens" not in said[-1] else 0
        if "output_tokens" not in seen[-1]:
            most += sum(size for _, size, _ in call.sent)
            least += sum(size for _, size, _ in sure) if "output_tokens" not in said[-1] else 0
        elif moment:  # written after the count that was stored last
            most += sum(size for at, size, _ in call.sent if at >= settled)
        # Nothing tells of a call whose process was killed when it had hardly begun. If a person
        # stops its reply before another process takes it over, nobody counts usage that was not
        # reported.
        if killed and (
            not any(size for _, size, _ in sure) or (call.owner, call.number) in stopped
        ):
            least = 0
        self.least, self.most = self.least + estimate(least), self.most + estimate(most)
        if len(options) > 1 or least != most:
            kind = "killed" if killed else "handed over" if handed_over else "stopped in the midst"
            said = [
                sum(each.get(kind, 0) for kind in KINDS[:2]) for each in (options[0], options[-1])
            ]
            self.uncertain.append(
                f"{kind}: {call.model} {call.number}, {said} tokens, {least} to {most} bytes"
            )

    def add_unseen(self, asked):
        """The model was not called, or has not seen this: a process that takes the reply over or
        ends it cannot know."""
        self.most += estimate(asked.size)
        self.uncertain.append(f"unseen: {asked.model} {asked.number}, {asked.size} bytes")

    def problems(self, counted):
        wrong = [kind for kind in KINDS if counted[kind] not in self.sums[kind]]
        found = [f"{kind} {counted[kind]}, not {sorted(self.sums[kind])[:9]}" for kind in wrong]
        if not self.least <= counted["estimated_tokens"] <= self.most:
            found.append(
                f"estimated {counted['estimated_tokens']}, not {self.least} to {self.most}"
            )
        return found


class Scrapes:
    """The metrics, scraped twice a second from whichever server answers, as Prometheus does. No
    counter may fall."""

    def __init__(self, servers, pause=0.5):
        self.servers, self.pause, self.seen, self.problems, self.count = servers, pause, {}, [], 0
        self.slowest = 0  # seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(self.pause):
            with contextlib.suppress(requests.RequestException):  # the server has been killed
                began = time.monotonic()
                if (answer := scrape(random.choice(self.servers))).status_code == 200:
                    self._compare(counters(answer.text))
                self.slowest = max(self.slowest, time.monotonic() - began)

    def _compare(self, now):
        self.count += 1
        fallen = {
            name: (value, now.get(name))
            for name, value in self.seen.items()
            if now.get(name, -1) < value
        }
        self.problems += [
            f"{name} fell from {before} to {after}" for name, (before, after) in fallen.items()
        ]
        self.seen = now


def scrape(server):
    return requests.get(
        server.url + "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
    )


def counters(text):
    """(name, model, outcome or kind) → value"""
    families = [
        family for family in text_string_to_metric_families(text) if family.type == "counter"
    ]
    assert {family.name for family in families} == {"parley_replies", "parley_tokens"}
    samples = [sample for family in families for sample in family.samples]
    return {
        (
            each.name,
            each.labels["model"],
            each.labels.get("outcome") or each.labels["kind"],
        ): each.value
        for each in samples
    }


# The users


class User:
    """A user who does at random everything that requests or ends replies, at whichever server
    answers.

    He stops a reply only once he has seen all of it so far, so that its usage is known; unless
    he `is_calm`, not always.
    """

    def __init__(self, name, servers, is_calm):
        self.name, self.owner, self.servers, self.is_calm = (
            name,
            OWNER + name.rpartition("-")[0],
            servers,
            is_calm,
        )
        self.chance = random.Random(self.name)
        self.sessions, self.last, self.asked, self.again_with = [], {}, 0, None
        self.models, self.asks = {}, []  # path → model; each Asked
        self.stopped, self.deleted, self.rash = set(), set(), set()  # marks
        self.told = collections.Counter()
        self.problems = []

    def do(self, over):
        self.create()  # the ledger knows every user with usage, whatever becomes of his sessions
        while not over.is_set():
            getattr(self, self.chance.choices(list(DEEDS), DEEDS.values())[0])()

    def client(self, asked=None):
        """A client of any of the servers. It is noted that this one is asked for `asked`, (model,
        content)."""
        server = self.chance.choice(self.servers)
        if asked:
            model, content = asked
            for _, number in MARK.findall(content):
                size = len((content + SYSTEM).encode())
                self.asks.append(Asked(number, server.name, time.monotonic(), model, size))
        return server.client(self.owner)

    def content(self, *more):
        self.asked += 1
        return " ".join([f"<{self.name}.{self.asked}>", "wörd" * self.chance.randint(0, 20), *more])

    def see(self, what, function, asked=None):
        """The answer of the first server that answers."""
        for _ in range(100):
            with contextlib.suppress(requests.RequestException):
                response = function(self.client(asked))
                self.told[what, response.status_code] += 1
                if response.status_code not in EXPECTED:
                    self.problems.append(f"{what}: {response.status_code} {response.text}")
                return response
            time.sleep(0.1)
        raise AssertionError(f"nobody answers {what}")

    def post(self, path, body, asked, **headers):
        """Send a request with a key, so that an answer that was lost does not matter; the same
        request may be sent again later."""
        key = f"{self.name}-{self.chance.random()}"
        response = self.see(
            path.rpartition("/")[2],
            lambda client: client.post(path, body, Idempotency_Key=key, **headers),
            asked,
        )
        self.again_with = path, body, key, asked
        return response

    def prefer(self):
        return self.chance.choice([{}, {}, {"Prefer": "respond-async"}])

    def create(self, *more, **headers):
        content = self.content(*more)
        body = {"content": content, "model": self.chance.choice(list(SAYS))}
        body |= {"system": SYSTEM} if self.chance.random() < 0.3 else {}
        asked = body["model"], content
        response = self.post("/sessions", body, asked, **headers or self.prefer())
        if path := response.headers.get("Location"):
            self.sessions.append(path)
            self.last[path], self.models[path] = content, body["model"]
        return path

    def path(self):
        return self.chance.choice(self.sessions[-6:])

    def message(self):
        self.ask(self.path(), "/messages", self.content())

    def retry(self):
        self.ask(self.path(), "/retry", self.content() if self.chance.random() < 0.5 else None)

    def go_on(self):
        self.ask(self.path(), "/continue", None)

    def ask(self, path, what, content):
        asked = content and (self.models[path], content)
        self.post(path + what, {"content": content} if content else None, asked, **self.prefer())

    def again(self):
        path, body, key, asked = self.again_with
        self.see("again", lambda client: client.post(path, body, Idempotency_Key=key), asked)

    def read(self):
        """The beginning of a stream."""
        with contextlib.suppress(requests.RequestException, OSError, http.client.HTTPException):
            path, content = self.path(), self.content()
            client = self.client((self.models[path], content))
            with client.stream("POST", path + "/messages", {"content": content}) as stream:
                next(iter(stream), None)

    def begin(self):
        """A reply that is in progress and has no end. Mostly, all of it so far is stored."""
        again_with = self.again_with
        if path := self.create("quiet", Prefer="respond-async"):
            self.sessions.remove(path)  # no other request uses it
            if (not self.is_calm and self.chance.random() < 0.2) or not self.has_read(path):
                self.rash.update(MARK.findall(self.last[path]))
        self.again_with = again_with
        return path

    def has_read(self, path):
        """Whether all text of a reply without an end has come. It is stored then."""
        with contextlib.suppress(requests.RequestException, OSError, http.client.HTTPException):
            with self.client().stream("GET", path + "/events") as stream:
                return any(
                    frame.name == "content_delta" and frame.data["delta"].endswith("quiet ")
                    for frame in stream
                )
        return False  # its process has died

    def stop(self, path, how):
        self.stopped.update(marks := MARK.findall(self.last[path]))
        self.deleted.update(marks if how == "delete" else ())
        self.see(
            how,
            lambda client: (
                client.post(path + "/cancel") if how == "cancel" else client.delete(path)
            ),
        )

    def cancel(self):
        if path := self.begin():
            self.stop(path, "cancel")

    def delete(self):
        if path := self.begin():
            self.stop(path, "delete")


DEEDS = {
    "create": 4,
    "message": 4,
    "retry": 3,
    "go_on": 2,
    "again": 1,
    "read": 2,
    "cancel": 3,
    "delete": 2,
}
EXPECTED = (200, 201, 202, 204, 404, 409, 502, 503, 504)


class World:
    """Four servers of two workers each on one database, their users, and the faults."""

    def __init__(self, start, settings, provider, is_calm):
        self._start, self.url, self.provider, self.is_calm = (
            start,
            settings["DATABASE_URL"],
            provider,
            is_calm,
        )
        self.ledger = provider.default = Ledger(random.randrange(10**6))
        self.servers, self.old = [], []
        self.kills, self.stops = [], []  # (host, from, to)
        for _ in range(4):
            self.host()
        names = [f"{owner}-{number}" for owner in (*OWNERS, LEAVER) for number in range(2)]
        self.users = [User(name, self.servers, is_calm) for name in names]

    def host(self):
        name = f"host-{len(self.servers) + len(self.old)}"
        server = self._start(
            DATABASE_URL=self.url,
            ANTHROPIC_BASE_URL=f"{self.provider.url}/{name}",
            ANTHROPIC_API_KEY="key",
            TITLE_MODEL=TITLES,
            OPENAI_BASE_URL=f"{self.provider.url}/{name}/v1",
            DEFAULT_MODEL="m-said",
            METRICS_TOKEN=TOKEN,
            REPLY_WAIT=5,
            RATE_LIMIT="100000/hour",
            CONTINUE_LIMIT=5,
            WEB_CONCURRENCY=2,
            GUNICORN_CMD_ARGS="--graceful-timeout 7",
        )
        server.name = name
        self.servers.append(server)

    def leave(self, server):
        """No user sends requests to it any more. Returns it."""
        self.servers.remove(server)
        self.old.append(server)
        return server

    def live(self):
        """The users act and the faults happen. One user is deleted in the middle of it."""
        over, leaving = threading.Event(), threading.Event()
        with concurrent.futures.ThreadPoolExecutor(len(self.users)) as pool:
            try:
                living = {
                    user: pool.submit(user.do, leaving if user.name.startswith(LEAVER) else over)
                    for user in self.users
                }
                for befalls in (
                    [over.wait] * 4
                    if self.is_calm
                    else [self.kill_worker, self.kill_server, self.stop_server]
                ):
                    over.wait(SECONDS / 6)
                    befalls(*[SECONDS / 6] * self.is_calm)
                leaving.set()
                self.forget([user for user in self.users if user.name.startswith(LEAVER)], living)
                if not self.is_calm:
                    self.kill_worker()
                over.wait(SECONDS / 6)
            finally:
                leaving.set()
                over.set()
        for thread in living.values():
            thread.result()

    def kill_worker(self):
        server = self.servers[0]
        began = time.monotonic()
        os.kill(server.workers()[0], signal.SIGKILL)
        self.kills.append((server.name, began, time.monotonic()))

    def kill_server(self):
        server = self.leave(self.servers[1])
        began = time.monotonic()
        server.kill()
        self.kills.append((server.name, began, time.monotonic()))
        self.host()

    def stop_server(self):
        server = self.leave(self.servers[1])
        began = time.monotonic()
        server.process.terminate()
        self.host()
        server.process.wait(30)
        self.stops.append((server.name, began, time.monotonic()))

    def forget(self, leavers, living):
        for user in leavers:
            living[user].result()
            for _ in range(3):
                user.begin()  # they are in progress
        with tables_of(self.url) as tables:
            self.asked = {
                LEAVER: tables.value("SELECT count(*) FROM asked WHERE owner = ?", OWNER + LEAVER)
            }
        done = flask(ROOT, "forget", "--yes", OWNER + LEAVER, DATABASE_URL=self.url)
        assert done.returncode == 0, done.stdout + done.stderr
        for user in leavers:
            all_of_his = {
                (call.owner, call.number) for call in self.ledger.calls if call.owner == LEAVER
            }
            user.stopped |= all_of_his
            user.deleted |= all_of_his
            user.rash |= all_of_his if not self.is_calm else set()

    def counted(self):
        """(user, model) → what the ledger has. For the user who left, what is kept without a
        name."""
        counted = {}
        for owner in OWNERS:
            for row in self.servers[0].client(OWNER + owner).get("/usage").json()["data"]:
                counted.setdefault((owner, row["model"]), collections.Counter()).update(
                    {name: row[name] for name in COUNTS}
                )
        assert self.servers[0].client(OWNER + LEAVER).get("/usage").json()["data"] == []
        with tables_of(self.url) as tables:
            for model, *counts in tables.rows(
                f"SELECT model, {', '.join(COUNTS)} FROM usage WHERE owner = ''"
            ):
                counted.setdefault((LEAVER, model), collections.Counter()).update(
                    dict(zip(COUNTS, counts, strict=True))
                )
        return counted

    def check(self, moment):
        """The faults so far, and what is uncertain."""
        counted, bounds = self.counted(), collections.defaultdict(Bounds)
        stopped, deleted, rash = (
            set().union(*marks)
            for marks in zip(*((u.stopped, u.deleted, u.rash) for u in self.users), strict=True)
        )
        for call in self.ledger.calls:
            bounds[call.owner, call.model].add(call, moment, self.kills, self.stops, stopped, rash)
        for owner, asked in self.unseen(rash):
            bounds[owner, asked.model].add_unseen(asked)
        problems = []
        for place in bounds.keys() | counted.keys():
            problems += [
                f"{place}: {each}"
                for each in bounds[place].problems(counted.get(place, collections.Counter()))
            ]
        with tables_of(self.url) as tables:
            asked = dict(tables.rows("SELECT owner, count(*) FROM asked GROUP BY owner"))
        asked = {owner: asked[OWNER + owner] for owner in OWNERS} | self.asked
        for owner, most in asked.items():
            replies = sum(counts["replies"] for (who, _), counts in counted.items() if who == owner)
            lost = {
                call.number
                for call in self.ledger.calls
                if call.owner == owner and call.befell(self.kills, moment)
            }
            lost &= {number for who, number in deleted if who == owner}
            if not most - len(lost) <= replies <= most:
                problems.append(
                    f"{owner} has asked for {most} replies, and has {replies}; {sorted(lost)} may be lost"
                )
        problems += self.compare(counted)
        return problems, [
            f"{owner}: {each}" for (owner, _), found in bounds.items() for each in found.uncertain
        ]

    def unseen(self, rash):
        """Requests to a server that died then, or ended at once, if the model has seen nothing
        of them there."""
        seen = {(call.owner, call.number, call.host) for call in self.ledger.calls}
        for user in self.users:
            owner = user.name.rpartition("-")[0]
            for asked in user.asks:
                is_unsure = asked.befell(self.kills) or (owner, asked.number) in rash
                if is_unsure and (owner, asked.number, asked.host) not in seen:
                    yield owner, asked

    def compare(self, counted):
        """The metrics, and `flask usage`, are the sums of what is counted."""
        texts = [scrape(server).text for server in self.servers]
        sums, users = collections.Counter(), collections.defaultdict(collections.Counter)
        for (owner, model), counts in counted.items():
            sums["parley_replies_total", model] += counts["replies"]
            users[OWNER + owner if owner != LEAVER else "(forgotten)"].update(counts)
            for kind in COUNTS[1:]:
                sums["parley_tokens_total", model, kind.removesuffix("_tokens")] += counts[kind]
        found = collections.Counter()
        for (name, model, label), value in counters(texts[0]).items():
            found[(name, model, label) if name == "parley_tokens_total" else (name, model)] += value
        told = {
            row.pop("user"): row
            for row in json.loads(flask(ROOT, "usage", "--json", DATABASE_URL=self.url).stdout)
        }
        problems = [] if set(texts) == {texts[0]} else ["the servers differ"]
        problems += (
            []
            if found == sums
            else [f"the metrics differ: {set(found.items()) ^ set(sums.items())}"]
        )
        return problems + (
            [] if told == users else [f"`flask usage` tells {told}, not {dict(users)}"]
        )

    def wait_until_right(self, moment, seconds=15):
        """Wait until all is quiet and counted. Returns what is uncertain."""
        wait_until(lambda: "parley_replies_in_progress 0\n" in scrape(self.servers[0]).text, TAKEN)
        deadline = time.monotonic() + seconds
        while True:
            problems, uncertain = self.check(moment)
            if not problems:
                return uncertain
            assert time.monotonic() < deadline, "\n".join(
                [f"seed {self.ledger.seed}", *problems, "uncertain:", *uncertain]
            )
            time.sleep(0.5)


COUNTS = "replies", *KINDS, "estimated_tokens"


@pytest.mark.long
@pytest.mark.parametrize("weather", ["calm", "rough"])
def test_the_ledger_agrees_with_the_providers(start, settings, provider, weather):
    world = World(start, settings, provider, weather == "calm")
    began = time.monotonic()
    with Scrapes(world.servers) as scrapes:
        world.live()
        uncertain = world.wait_until_right(max(MOMENT, scrapes.slowest))
    told = sum((user.told for user in world.users), collections.Counter())
    print(
        f"\n{len(world.ledger.calls)} calls in {time.monotonic() - began:.0f} s, {scrapes.count} scrapes"
    )
    print(dict(world.ledger.ways), dict(told), f"{len(uncertain)} uncertain:", *uncertain, sep="\n")
    assert not scrapes.problems and scrapes.count > 10
    assert not [problem for user in world.users for problem in user.problems]
    assert not [
        server.output() for server in world.servers + world.old if "Traceback" in server.output()
    ]
    if world.is_calm:
        assert not uncertain
    assert all(world.ledger.ways[way] for way in WAYS)


def usage_of(url, owner):
    """(replies, input, output, cached, estimated) of an owner, of all days and models."""
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS)
    with tables_of(url) as tables:
        return tuple(map(int, tables.rows(f"SELECT {sums} FROM usage WHERE owner = ?", owner)[0]))


def begin(client, text, content="Hello"):
    """A session whose reply is in progress, and has this text."""
    session = client.post("/sessions", {"content": content}, Prefer="respond-async").json()
    with client.events(session) as stream:
        assert next(iter(stream)).data == {"delta": text}
    return session


def test_a_deleted_reply_is_counted_also_if_all_its_usage_is_stored(start, settings, provider):
    """The output of the first is estimated at its end; nothing of the second is left to be
    counted."""
    alice = start(**settings).client()
    for number, pieces in enumerate([["Half "], [SAID, "Half "]], 1):
        provider.script = [reply(*pieces, threading.Event())]
        session = begin(alice, "Half ")
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        assert provider.wait_for_request(number).hung_up.wait(5)
        assert usage_of(settings["DATABASE_URL"], ALICE)[0] == number


def test_usage_that_comes_after_a_cancel_by_another_process_is_counted(start, settings, provider):
    """The writer only sees then that the reply is no longer its own. The ledger has the usage
    that the turns show."""
    writer, other = (start(**settings, WEB_CONCURRENCY=1) for _ in range(2))
    told = [0, 0]
    for number in range(1, 6):
        gate = threading.Event()
        provider.script = [reply("Half ", gate, SAID, "more ", threading.Event())]
        with writer.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
            session, delta = (next(iter(stream)).data for _ in range(2))
            assert delta == {"delta": "Half "}
            assert other.client().post(f"/sessions/{session['id']}/cancel").status_code == 200
            gate.set()
            assert provider.wait_for_request(number).hung_up.wait(5)
            assert list(stream)[-1].name == "done"  # it comes after its usage
        usage = other.client().turns(session)[-1]["usage"]
        told = [sum_ + (usage[name] or 0) for sum_, name in zip(told, KINDS, strict=False)]
    assert told[0]  # it usually comes before the writer's next look
    assert list(usage_of(settings["DATABASE_URL"], ALICE)[1:3]) == told


def test_no_counter_falls_if_a_continued_reply_is_refused_twice(start, settings, provider):
    """The estimate for its earlier part is counted as soon as that has ended, and stays while no
    other call has begun."""

    def late_refusal(request):
        return [1, *status(503)(request)]

    provider.script = [
        cut("A part of it, " * 20),
        late_refusal,
        status(503, Retry_After=3),
        reply("and the rest."),
    ]
    server = start(**settings, METRICS_TOKEN=TOKEN)
    client = server.client()
    with Scrapes([server], pause=0.05) as scrapes:
        session = client.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        wait_for_status(client, session, "complete")
    assert not scrapes.problems and scrapes.count > 30


def test_no_counter_falls_if_a_provider_reports_less_in_the_end(start, settings, provider):
    """Such as a provider that estimates its input first."""
    gate = threading.Event()
    most = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    provider.script = [
        reply(event({"choices": [], "usage": most}), "Half ", gate, "and half.")
    ]  # and 15, 7 and 3 at the end
    server = start(**settings, METRICS_TOKEN=TOKEN)
    client = server.client()
    with Scrapes([server], pause=0.05) as scrapes:
        session = begin(client, "Half ")
        wait_until(lambda: usage_of(settings["DATABASE_URL"], ALICE)[1] == 1000)
        wait_until(lambda: scrapes.seen.get(("parley_tokens_total", "m-1", "input")) == 1000)
        gate.set()
        wait_for_status(client, session, "complete")
        before = scrapes.count
        wait_until(lambda: scrapes.count > before + 1)
    assert not scrapes.problems
    turn = client.turns(session)[-1]
    assert tuple(turn["usage"].values()) == usage_of(settings["DATABASE_URL"], ALICE)[1:4]


# Deleted users


PERSON = OWNER + "wanda-wombat"
# What the database has of her: her name, her messages, system prompt, title and key, the models'
# texts, and an error.
WORDS = {"wanda", "axolotl", "basilisk", "cormorant", "dromedary", "echidna", "flamingo", "gecko"}


def words_in(url):
    """Those of WORDS that are in any table, with Bob's."""
    with tables_of(url) as tables:
        rows = [
            tables.rows(f"SELECT * FROM {table}")
            for table in {table for table, *_ in tables.columns()}
        ]
    return {word for word in WORDS | {"bob"} if word in repr(rows).casefold()}


def answer_her(request):
    """The models' answers to her last message: a reply, a title, an error, or a reply without an
    end; and to Bob."""
    text = request.body["messages"][-1]["content"]
    if request.body["model"] == TITLES:
        return reply("Echidna" if "Axolotl" in text else "Title")(request)
    if "fails" in text:
        return status(400, {"error": {"message": "The gecko is out."}})(request)
    return reply(
        "Camel" if "Bob" in text else "Dromedary ", *[threading.Event()] * ("endless" in text)
    )(request)


@pytest.mark.parametrize("writer", ["runs", "is paused"])
def test_no_table_has_a_word_of_a_user_who_is_deleted_during_replies(
    start, settings, provider, writer
):
    """The processes that write these replies see the deletion afterwards, and add their usage
    without a name."""
    url, provider.default = settings["DATABASE_URL"], answer_her
    more = {
        "TITLE_MODEL": TITLES,
        "RATE_LIMIT": "100/hour",
        "WEB_CONCURRENCY": 1,
        "GUNICORN_CMD_ARGS": "--timeout 300",
    }
    servers = [start(**settings, **more) for _ in range(2)]
    first, second = [server.client(PERSON) for server in servers]
    servers[0].client(BOB).create("Bob's own words")
    sessions = [client.create("Axolotl", system="Basilisk") for client in (first, second)]
    first.patch(f"/sessions/{sessions[0]['id']}", {"title": "Cormorant"})
    assert (
        second.post("/sessions", {"content": "It fails"}, Idempotency_Key="Flamingo").status_code
        == 502
    )
    assert (
        first.post(
            f"/sessions/{sessions[1]['id']}/retry", {"content": "Axolotl, again"}
        ).status_code
        == 201
    )
    for client in (first, second, second):
        begin(client, "Dromedary ", "Axolotl, endless")
    wait_until(lambda: words_in(url) == WORDS | {"bob"})
    with paused(servers[1], url) if writer == "is paused" else contextlib.nullcontext():
        done = flask(ROOT, "forget", "--yes", PERSON, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr
        assert words_in(url) == {"bob"}
    calls = [
        call
        for call in provider.posts
        if "endless" in str(call.body) and call.body["model"] != TITLES
    ]
    assert len(calls) == 3 and all(call.hung_up.wait(5) for call in calls)
    for server in servers:
        server.stop()  # after which nothing is added
    assert words_in(url) == {"bob"}
    assert usage_of(url, "")[0] == 7
    assert usage_of(url, BOB)[0] == 1
    assert "Traceback" not in "".join(server.output() for server in servers)
