"""A provider that gives the answers of hell.py, and servers that use it."""

import collections
import concurrent.futures
import contextlib
import json
import time
import urllib.parse
from typing import NamedTuple

import requests

from hell import IN_TURN, SIDE_BY_SIDE
from hell_answers import Tries, reset, resolve
from hell_ends import ENDS_OF
from hell_right import MAX_TOKENS, PATIENCE, among, said
from hell_secrets import KEY, PASSWORD, told
from protocols import CLAUDE, GPT
from provider import Provider, raw
from servers import running


class Hell(Provider):
    """Answers each request by its model."""

    def __init__(self):
        self.answers = {}  # model → the parts of its answers; the last one is given again and again
        self.asked = collections.Counter()
        self.used = set()  # the connections that have brought a request
        super().__init__()

    def answer(self, request):
        model = request.body and request.body["model"]
        if model not in self.answers:
            return super().answer(request)
        with self._arrived:
            self.requests.append(request)
            parts = self.answers[model][min(self.asked[model] + 1, len(self.answers[model])) - 1]
            # If a kept connection ends before a byte has come, Parley repeats the same try on a
            # fresh one.
            if request.connection not in self.used or parts[0] not in (b"", reset):
                self.asked[model] += 1
            self.used.add(request.connection)
        return raw(*parts)(request)

    def bodies(self, model):
        return [request.body for request in self.posts if request.body["model"] == model]


class Outcome(NamedTuple):
    response: requests.Response
    turn: dict
    tries: int
    seconds: float

    def faults(self, protocol, answers, right):
        """What is wrong, as (what, found, right), if these were the answers to its tries."""
        code, content = self.response.status_code, self.turn["content"] or ""
        usage = right.usage
        if usage == "said":
            of_all = [
                said(protocol, b"".join(part for part in answer if isinstance(part, bytes)))
                for answer in answers
            ]
            numbers = {
                name: [each[name] for each in of_all if each[name] is not None]
                for name in of_all[0]
            }
            usage = {
                name: sum(of_tries) if of_tries else None for name, of_tries in numbers.items()
            }
        if not among(code, right.code):
            yield "status", self.response.text[:300], right.code
        if not (right.content(content) if callable(right.content) else content == right.content):
            yield "content", content[:100], right.content
        if not among(self.tries, right.tries):
            yield "tries", self.tries, right.tries
        if usage is not None and self.turn["usage"] != usage:
            yield "usage", self.turn["usage"], usage
        if not right.seconds[0] <= self.seconds <= right.seconds[1]:
            yield "seconds", self.seconds, right.seconds
        if code == 201:
            if (self.turn["status"], self.turn["error"]) != ("complete", None):
                yield "turn", self.turn["status"], "complete"
        else:
            detail = self.response.json()["errors"][0]["detail"]
            if (self.turn["status"], self.turn["error"]) != (
                "failed",
                {"status": code, "message": detail},
            ):
                yield "turn", (self.turn["status"], self.turn["error"]), "failed"
            if right.words not in detail or "<html" in detail.lower() or len(detail) > 1000:
                yield "detail", detail[:300], right.words
        if secrets := told(
            self.response.text[:20_000] + json.dumps(self.turn, ensure_ascii=False)[:20_000]
        ):
            yield "secrets", secrets, "none"


class Pit(NamedTuple):
    server: object
    hell: Hell

    def ask(self, model, answers, timeout=90):
        """The result of a new session with this model, which gives these answers."""
        self.hell.answers[model] = answers
        alice, began = self.server.client(), time.monotonic()
        response = alice.request("POST", "/sessions", {"content": "Hello", "model": model}, timeout)
        seconds = time.monotonic() - began
        place = response.headers.get("Location", "/sessions/none").rpartition("/")[2]
        turns = alice.get(f"/sessions/{place}").json().get("turns")
        turn = turns[-1] if turns else dict.fromkeys(("status", "content", "error", "usage"))
        return Outcome(response, turn, self.hell.asked[model], seconds)

    def ask_all(self, name, table):
        """(protocol, row, what is wrong) of each row in both protocols, or with the protocols
        alternating; the rows run side by side."""
        rows = [
            (protocol, *row)
            for place, protocol in enumerate((CLAUDE, GPT))
            for number, row in enumerate(rows_of(name, table, protocol))
            if name not in IN_TURN or number % 2 == place
        ]
        answers = []
        for protocol, _, (spec, _) in rows:
            tries = spec if isinstance(spec, Tries) else [spec]
            answers.append([list(resolve(part, protocol)) for part in tries])
        models = [
            f"{protocol}-{name}-{number}".replace(" ", "-")
            for number, (protocol, _, _) in enumerate(rows)
        ]
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE.get(name, 24)) as pool:
            outcomes = list(pool.map(self.ask, models, answers))
        for (protocol, row, (_, right)), parts, outcome in zip(
            rows, answers, outcomes, strict=True
        ):
            given = [parts[min(number, len(parts) - 1)] for number in range(outcome.tries)]
            yield protocol, row, list(outcome.faults(protocol, given, right))


def rows_of(name, table, protocol):
    return (table | ENDS_OF[protocol] if name == "ends" else table).items()


@contextlib.contextmanager
def open_pit(folder, **settings):
    """A server with two protocols: one has a key, the other a password in its URL. What one answer
    gives is the reply."""
    hell = Hell()
    url = hell.url.replace("//", f"//user:{urllib.parse.quote(PASSWORD, '')}@")
    urls = {
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": url + "/v1",
        "OPENAI_API_KEY": KEY,
        "DEFAULT_MODEL": GPT,
    }
    limits = {
        "MODEL_TIMEOUT": PATIENCE,
        "MAX_TOKENS": MAX_TOKENS,
        "REPLY_WAIT": 60,
        "CONTINUE_LIMIT": 0,
    }
    limits["MAX_CONTENT_LENGTH"] = 6 * 2**20
    with contextlib.closing(hell), running(folder, **(urls | limits | settings)) as server:
        yield Pit(server, hell)
