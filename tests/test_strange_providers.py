"""Strange providers: what becomes of their answers, lists and keys, however they are, and what no answer may change."""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import NamedTuple

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ed25519

from client import ROOT, SECRET, Client, at_once, make_token, running, wait_for_status
from hell import (
    ANSWER,
    BEGIN,
    DECLINED,
    DRIPS,
    ENDS_OF,
    HALF,
    KEY,
    LONGEST_TEXT,
    MAX_TOKENS,
    NO_KIND,
    ONCE_TO_THRICE,
    PAGE,
    PASSWORD,
    PATIENCE,
    REST,
    SIDE_BY_SIDE,
    SLACK,
    TABLES,
    TIMEOUT,
    Tries,
    among,
    bad,
    drip,
    ends_with,
    flood,
    ok,
    refusal,
    reset,
    resolve,
    said,
    say,
    told,
    zipped,
)
from provider import KEEP, Provider, certificate, head, raw, status
from test_auth import ED25519, RSA, good_claims, in_base64, jwk, jwks, pem, status_of
from test_llm import CLAUDE, GPT, both, counts


class Hell(Provider):
    """Answers each request by its model."""

    def __init__(self):
        self.answers = {}  # model → the parts of its answers, the last of which is given again and again
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
            # On a kept connection that ends before a byte has come, the same try is made once more on a fresh one.
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
        """What is wrong with it, as (what, found, right), where these were the answers of its tries."""
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
        """The outcome of a new session with this model, which gives these answers."""
        self.hell.answers[model] = answers
        alice, began = self.server.client(), time.monotonic()
        response = alice.request("POST", "/sessions", {"content": "Hello", "model": model}, timeout)
        seconds = time.monotonic() - began
        place = response.headers.get("Location", "/sessions/none").rpartition("/")[2]
        turns = alice.get(f"/sessions/{place}").json().get("turns")
        turn = turns[-1] if turns else dict.fromkeys(("status", "content", "error", "usage"))
        return Outcome(response, turn, self.hell.asked[model], seconds)

    def ask_all(self, name, table):
        """(protocol, row, what is wrong) of each row in both protocols; they are asked side by side."""
        rows = [
            (protocol, *row) for protocol in (CLAUDE, GPT) for row in rows_of(name, table, protocol)
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
    """A server whose one protocol has a key, and the other a password in its URL. What one answer gives is the reply."""
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


@pytest.fixture(scope="module")
def pit(tmp_path_factory):
    with open_pit(tmp_path_factory.mktemp("hell")) as pit:
        yield pit


@pytest.mark.parametrize("name", TABLES)
def test_every_answer_becomes_what_is_right(pit, subtests, name):
    check(pit, subtests, name, TABLES[name])


def test_an_answer_of_nothing_is_waited_for_so_long_and_no_longer(tmp_path, subtests):
    with open_pit(tmp_path, MODEL_TIMEOUT=TIMEOUT) as pit:
        check(pit, subtests, "drips", DRIPS)


STOPS = {  # behind these a model has no more to say, or would fail in the same way again
    *("no JSON", "an array", "nested deeply", "JSON that was filtered"),
    *(f"{reason} behind text" for reason in DECLINED),
    *(
        f"{name}, behind a word"
        for name in ("out of credit", "invalid_request_error", "a bad key", "not allowed")
    ),
    *(
        f"{name}, behind a word"
        for name in ("a type and a message", "vllm's", "an event with a message")
    ),
    *(f"{name}, behind a word" for name in ("an event with an error", "llama.cpp's field, of 400")),
}


def test_goes_on_behind_what_breaks_a_text_and_behind_nothing_else(tmp_path, subtests):
    """Of all rows whose answer fails behind some text; asked again, the model goes on with a point."""
    rows = [
        (
            f"{protocol}: {row}",
            row in STOPS,
            right,
            [list(resolve(part, protocol)) for part in (spec, (head(), say("."), REST))],
        )
        for protocol, name in itertools.product(
            (CLAUDE, GPT), ("frames", "bodies", "lines", "ends", "reasons", "errors")
        )
        for row, (spec, right) in rows_of(name, TABLES[name], protocol)
        if right.code in (502, 503) and isinstance(right.content, str) and right.content
    ]
    with (
        open_pit(tmp_path, CONTINUE_LIMIT=1) as pit,
        concurrent.futures.ThreadPoolExecutor(64) as pool,
    ):
        models = [f"{name.partition(':')[0]}-{number}" for number, (name, *_) in enumerate(rows)]
        outcomes = list(pool.map(pit.ask, models, [answers for *_, answers in rows]))
    for (name, stops, right, _), outcome in zip(rows, outcomes, strict=True):
        with subtests.test(name):
            found = (
                outcome.response.status_code,
                outcome.turn["content"],
                outcome.tries,
                outcome.turn["continued"],
            )
            assert found == (
                (right.code, right.content, 1, 0) if stops else (201, right.content + ".", 2, 1)
            )


def check(pit, subtests, name, table):
    before, count = len(pit.server.output()), 0
    for protocol, row, faults in pit.ask_all(name, table):
        count += 1
        with subtests.test(f"{protocol}: {row}"):
            if faults:  # without the trace, which would be the same for each
                pytest.fail(
                    "; ".join(
                        f"the {what} is {found!r}, not {right!r}" for what, found, right in faults
                    ),
                    pytrace=False,
                )
    paths = {urllib.parse.urlsplit(request.path).path for request in pit.hell.requests}
    assert paths <= {"/v1/messages", "/v1/chat/completions"}  # no redirect was followed
    log = pit.server.wait_for_output(f"-{name.replace(' ', '-')}-", count)[before:]
    assert not told(log)
    assert "Traceback" not in log


# Time and memory


def test_long_errors_hold_nobody_up(pit):
    """Patterns that are quadratic would hold all threads of the process."""
    texts = {
        "type": "model " * 10_000,
        "code": "not_found_error model " * 2700,
        "message": "model " * 10_000,
    }
    bodies = [{"error": {"message": "It is odd."} | {name: text}} for name, text in texts.items()]
    bodies += [{"error": {"message": "It is odd.", "type": "model " * 43_000}}]
    answers = [list(resolve(refusal(400, body), GPT)) for body in bodies]
    slowest, began = 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(pit.ask, f"long-{number}", [answer])
            for number, answer in enumerate(answers * 4)
        ]
        while not all(future.done() for future in asked):
            probed = time.monotonic()
            assert requests.get(pit.server.url + "/health", timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - probed)
    assert {future.result().response.status_code for future in asked} <= {400, 502}
    assert slowest < 3
    assert time.monotonic() - began < SLACK


BLOCK = b"x" * 2**20
BOMB = zipped(zipped(bytes(2**20)) * 300)
LINE = b": " + b"x" * 65_000 + b"\n"
FLOODS = {
    "an error of 400": ((head(400), flood(BLOCK)), bad(502)),
    "an error of 500": ((head(500, Retry_After_Ms=1), flood(BLOCK)), bad(502, tries=3)),
    "a bomb for an error": (
        (head(400, "application/json", Content_Encoding="gzip"), zipped(b" " * 300 * 2**20)),
        bad(502),
    ),
    "a bomb": ((head(Content_Encoding="gzip"), zipped(b": xxxxx\n" * 2**20 * 30)), bad(502)),
    "JSON": (
        (head(200, "application/json"), b'{"choices": ["', flood(BLOCK)),
        bad(502, tries=ONCE_TO_THRICE),
    ),
    "a page": ((head(200, "text/html"), PAGE, flood(BLOCK)), bad(502, "page")),
    "a header": ((b"HTTP/1.1 200 OK\r\nX-Odd: ", flood(BLOCK)), bad(502, tries=ONCE_TO_THRICE)),
    "headers": (
        (b"HTTP/1.1 200 OK\r\n", flood(b"X-Odd: 1\r\n" * 10_000)),
        bad(502, tries=ONCE_TO_THRICE),
    ),
    "the extension of a chunk": (
        (head(Transfer_Encoding="chunked"), b"5;", flood(BLOCK)),
        bad((502, 504), tries=ONCE_TO_THRICE),
    ),
    "interim answers": (
        (flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),),
        bad((502, 504), tries=ONCE_TO_THRICE),
    ),
    "comments": ((head(), flood(LINE * 16)), bad((502, 504), tries=ONCE_TO_THRICE)),
    "a line": ((head(), b"data: ", flood(BLOCK)), bad(502, tries=ONCE_TO_THRICE)),
    "a name": ((HALF, b"event: ", flood(BLOCK)), bad(502, "", "Half", usage=None)),
    "data": ((HALF, flood(b"data: " + BLOCK + b"\n")), bad(502, "", "Half", usage=None)),
    "an event": (
        (HALF, flood(b'data: {"a": "' + BLOCK + b'"}\ndata: {}\n')),
        bad(502, "", "Half", usage=None),
    ),
    "behind the end": ((head(), ANSWER, flood(BLOCK)), ok()),
    "behind the reason": ((ends_with("stop", "So far")[:-1], flood(BLOCK)), ok("So far")),
    "text": (
        (HALF, flood(say("x" * 60_000))),
        bad(502, "", lambda text: len(text) <= LONGEST_TEXT + 65536, usage=None),
    ),
}


def peak(pid):
    """The most memory that a process has had, in megabytes."""
    return (
        int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024
    )


@pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's own account of a process")
def test_no_flood_fills_the_memory(tmp_path):
    """Keys, lists and answers of 300 MB, one after the other: none costs the server 100 MB."""
    identity = Provider()
    identity.models = raw(
        *resolve((head(200, "application/json"), b'{"keys": ["', flood(BLOCK)), GPT)
    )
    settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "MODEL_TIMEOUT": TIMEOUT}
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
    with contextlib.closing(identity), open_pit(tmp_path, **settings) as pit:
        [worker] = pit.server.workers()
        least = peak(worker) + 100
        alice = Client(pit.server.url, token)
        assert alice.get("/sessions").status_code == 503
        assert peak(worker) < least, "keys"
        identity.models = jwks(jwk(ED25519.public_key(), "1"))
        deadline = time.monotonic() + 30  # the failure counts for as long as it took
        while alice.get("/sessions").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        pit.hell.models = raw(
            *resolve((head(200, "application/json"), b'{"data": ["', flood(BLOCK)), GPT)
        )
        assert alice.get("/models").json()["data"] == []
        assert peak(worker) < least, "list"
        pit.server.client = lambda: alice

        def ask(name):
            spec, right = FLOODS[name]
            answer = list(resolve(spec, GPT))
            faults = list(
                pit.ask(f"flood of {name}", [answer], timeout=30).faults(GPT, [answer], right)
            )
            return [name, *faults] if faults else peak(worker) >= least and [name, peak(worker)]

        assert not list(filter(None, map(ask, FLOODS)))


def test_a_session_costs_no_more_than_its_newest_eight_megabytes(pit):
    model, alice = "history", pit.server.client()
    pit.hell.answers[model] = [list(resolve((head(), ANSWER), GPT))]
    texts = [letter * 3_500_000 for letter in "abc"]
    session = alice.create(texts[0], model=model)
    for text in texts[1:]:
        assert (
            alice.post(f"/sessions/{session['id']}/messages", {"content": text}).status_code == 201
        )
    sent = [
        [(message["role"], message["content"]) for message in body["messages"]]
        for body in pit.hell.bodies(model)
    ]
    first, second, third = [("user", text) for text in texts]
    answered = ("assistant", "The answer.")
    # Of more, the newest half is sent: here that is the last message alone.
    assert sent == [[first], [first, answered, second], [third]]
    assert alice.turns(session)[-1]["turns_left_out"] == 4


@both
def test_the_usage_of_a_reply_that_is_cancelled_is_stored(pit, model):
    name, alice = f"{model}-cancelled", pit.server.client()
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 15, "completion_tokens": 1}}\n\n'
    pit.hell.answers[name] = [
        list(resolve((head(), BEGIN, {CLAUDE: b"", GPT: usage}, say("Half"), 9), model))
    ]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": name}) as events:
        session = next(iter(events)).data
        assert next(iter(events)).data == {"delta": "Half"}
        assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
    deadline = time.monotonic() + 5
    while (turn := wait_for_status(alice, session, "interrupted"))["usage"]["input_tokens"] is None:
        assert time.monotonic() < deadline, turn  # it may be stored behind the end
    assert (turn["content"], turn["usage"]["input_tokens"]) == ("Half", 15)
    assert turn["usage"]["output_tokens"] == {CLAUDE: None, GPT: 1}[model]


@both
def test_a_reason_that_nobody_knows_is_told_in_the_log(pit, model):
    answer = list(resolve(ends_with(f"reason_for_{model}", "So far"), model))
    assert pit.ask(f"{model}-unknown", [answer]).response.status_code == 201
    pit.server.wait_for_output(f"reason_for_{model}")


# What a refusal teaches

OLD, NEW, USAGE = "max_tokens", "max_completion_tokens", "stream_options"
WORDS = f"{USAGE} {OLD} {NEW}"


def unsupported(param, code="unsupported_parameter", message="Unsupported parameter: 'x'."):
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


def forbidden(*loc, kind="extra_forbidden", given="x"):
    return [{"type": kind, "loc": loc, "msg": "Extra inputs are not permitted", "input": given}]


LESSONS = {  # a refusal, and which of these three parameters a request has from then on
    "openai, the old name": (400, unsupported(OLD), {NEW, USAGE}),
    "openai, usage": (400, unsupported(USAGE, "unknown_parameter"), {OLD}),
    "fastapi, usage": (422, {"detail": forbidden("body", USAGE)}, {OLD}),
    "fastapi, the old name": (422, {"detail": forbidden("body", OLD)}, {NEW, USAGE}),
    "mistral, usage": (
        422,
        {"object": "error", "message": {"detail": forbidden("body", USAGE)}, "param": None},
        {OLD},
    ),
    "mistral of today": (
        422,
        {
            "object": "Error",
            "detail": forbidden("body", USAGE),
            "message": forbidden("body", USAGE),
            "code": 3001,
        },
        {OLD},
    ),
    "vllm": (
        400,
        {
            "object": "error",
            "message": str(forbidden("body", USAGE)),
            "detail": forbidden("body", USAGE),
        },
        {OLD},
    ),
    "both, one after the other": (
        422,
        {"detail": [*forbidden("body", USAGE), *forbidden("body", OLD)]},
        None,
    ),
    "transformers": (
        400,
        {"detail": f"Server is pinned to 'x'; requested '{WORDS}'."},
        {OLD, USAGE},
    ),
    "a text": (400, {"error": f"Unsupported parameter: {WORDS}"}, {OLD, USAGE}),
    "a message": (
        400,
        {"error": {"message": f"Unknown parameter: '{USAGE}'. Use '{NEW}' in place of '{OLD}'."}},
        {OLD, USAGE},
    ),
    "a message with a code": (400, unsupported(None, message=WORDS), {OLD, USAGE}),
    "a message about another": (
        400,
        unsupported("temperature", message=f"Use {WORDS}."),
        {OLD, USAGE},
    ),
    "a value": (400, unsupported(OLD, "invalid_value"), {OLD, USAGE}),
    "a parameter without a code": (400, unsupported(USAGE, None), {OLD, USAGE}),
    "another code": (400, unsupported(USAGE, "unknown_model"), {OLD, USAGE}),
    "parameters of odd types": (400, unsupported([USAGE], ["unknown_parameter"]), {OLD, USAGE}),
    "pydantic's input": (
        422,
        {"detail": forbidden("body", "messages", 0, kind="string_type", given=WORDS)},
        {OLD, USAGE},
    ),
    "another type": (422, {"detail": forbidden("body", USAGE, kind="missing")}, {OLD, USAGE}),
    "another place": (422, {"detail": forbidden("body", "messages", 0, USAGE)}, {OLD, USAGE}),
    "odd places": (422, {"detail": forbidden(["body"], {USAGE: 1}, None)}, {OLD, USAGE}),
    "no place": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": USAGE}, USAGE, 5, None]},
        {OLD, USAGE},
    ),
}


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    with open_pit(tmp_path_factory.mktemp("school")) as pit:
        yield pit


def parameters(pit, model):
    return [{OLD, NEW, USAGE} & set(body) for body in pit.hell.bodies(model)]


@pytest.mark.parametrize("code, body, learnt", LESSONS.values(), ids=LESSONS)
def test_a_refusal_teaches_by_its_structure_alone(school, request, code, body, learnt):
    """And it teaches about its model alone."""
    model, first = request.node.callspec.id, {OLD, USAGE}
    answers = [list(resolve(part, GPT)) for part in (refusal(code, body), (head(), ANSWER))]
    outcome = school.ask(model, answers)
    school.ask(model, answers)
    school.ask(f"another than {model}", answers[1:])
    assert parameters(school, f"another than {model}") == [first]
    if learnt == first:
        assert outcome.response.status_code in (400, 502)
        assert parameters(school, model) == [first, first]
    else:
        assert outcome.response.status_code == 201
        assert outcome.turn["usage"] == counts(15, 7, 3)
        *_, second, third = parameters(school, model)
        assert second == third == ({NEW} if learnt is None else learnt)


def test_nothing_is_learnt_of_a_change_that_is_refused_too(school):
    refused = [list(resolve(refusal(400, unsupported(name)), GPT)) for name in (OLD, NEW)]
    for again in (False, True):
        outcome = school.ask(f"stubborn {again}", [*refused, refused[1]])
        assert outcome.response.status_code == 502
    model = "stubborn"
    school.ask(model, [*refused, list(resolve((head(), ANSWER), GPT))])
    school.ask(model, [list(resolve((head(), ANSWER), GPT))])
    assert OLD in parameters(school, "stubborn True")[0]
    assert OLD in parameters(school, model)[-1]


def test_the_changed_request_is_none_of_the_three(school):
    parts = [refusal(400, unsupported(OLD)), refusal(500), refusal(500), (head(), ANSWER)]
    outcome = school.ask("patient", [list(resolve(part, GPT)) for part in parts])
    assert (outcome.response.status_code, outcome.tries) == (201, 4)


def test_the_name_of_a_model_changes_nobody_elses_requests(school):
    """As a server that is pinned to one model quotes the name that was asked for."""
    quoted = {"detail": f"Server is pinned to 'x'; requested '{WORDS}'."}
    assert school.ask(WORDS, [list(resolve(refusal(400, quoted), GPT))]).response.status_code in (
        400,
        502,
    )
    assert parameters(school, WORDS) == [{OLD, USAGE}]
    outcome = school.ask("of somebody else", [list(resolve((head(), ANSWER), GPT))])
    assert parameters(school, "of somebody else") == [{OLD, USAGE}]
    assert outcome.turn["usage"] == counts(15, 7, 3)


# Lists of models

ODD_IDS = [
    "\ud800x",
    "a\0b",
    "x" * 201,
    "x" * 100_000,
    "",
    "  ",
    "\n",
    None,
    5,
    True,
    {"a": 1},
    ["m"],
    "\udc00",
]


def test_each_listed_id_is_judged_by_itself(start, provider):
    provider.models = [*ODD_IDS, "m-good", *ODD_IDS, "y" * 200]
    alice = start(OPENAI_BASE_URL=provider.url + "/v1", WEB_CONCURRENCY="1").client()
    assert [(model["id"], model["default"]) for model in alice.get("/models").json()["data"]] == [
        ("m-good", True),
        ("y" * 200, False),
    ]
    assert alice.create()["model"] == {"id": "m-good"}


@pytest.mark.parametrize(
    "entries", ['[5, null, "m", [], {}, {"id": "m-good"}]', '[{"id": "m-good"}, {"name": "x"}]']
)
def test_entries_that_are_none_spoil_no_list(entries, provider, tmp_path):
    provider.models = status(200, json.loads(f'{{"data": {entries}}}'))
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == [
            "m-good"
        ]


LISTED = b'{"data": [{"id": "m-1"}]}'


@pytest.mark.parametrize(
    "lengths, found",
    [("Content-Length: 25, 25", ["m-1"]), ("Content-Length: 25\r\nContent-Length: 3", [])],
)
def test_a_length_that_is_said_twice_holds_and_two_lengths_are_none(
    provider, tmp_path, lengths, found
):
    """RFC 9110, 8.6. The connection stays open: nobody waits for its end."""
    assert len(LISTED) == 25
    provider.models = raw(f"HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n".encode() + LISTED, KEEP)
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1") as server:
        began = time.monotonic()
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == found
        assert time.monotonic() - began < 5


def test_a_list_is_fetched_by_one(provider, tmp_path):
    """A list that fails after a second is not asked for again for a second, however many need it."""
    provider.models = raw(1, head(500, Content_Length=0))
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        alice, began = server.client(), time.monotonic()
        assert (
            at_once(6, lambda _: alice.post("/sessions", {"content": "Hello"}).status_code)
            == [502] * 6
        )
        assert alice.post("/sessions", {"content": "Hello"}).status_code == 502
        if time.monotonic() - began < 1.9:  # on a machine that is not too busy
            assert len(provider.requests) == 1
        assert len(provider.requests) <= 2
        asked, gate = threading.Event(), threading.Event()
        provider.reset()
        provider.models = raw(
            lambda _: asked.set(), gate, *status(200, {"data": [{"id": "m-9"}]})(None)
        )
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            early = []
            while not asked.wait(0.1) and len(early) < 50:  # until the failure is forgotten
                early.append(pool.submit(alice.post, "/sessions", {"content": "Hello"}))
            late = [pool.submit(alice.post, "/sessions", {"content": "Hello"}) for _ in range(6)]
            gate.set()
            assert {future.result().status_code for future in early} <= {201, 502}
            assert {future.result().status_code for future in late} == {201}
        assert alice.create()["model"] == {"id": "m-9"}
        assert [request.method for request in provider.requests].count("GET") == 1


def test_lists_and_keys_that_never_end_are_given_up(tmp_path):
    """Within ten seconds, and meanwhile nobody waits who needs no list."""

    def listed():
        hell = Hell()
        hell.models = raw(
            *resolve((NO_KIND, b'{"data": [', drip(b'{"id": "m-1"},', seconds=25)), GPT)
        )
        with (
            contextlib.closing(hell),
            running(tmp_path / "list", OPENAI_BASE_URL=hell.url, MODEL_TIMEOUT=60) as server,
        ):
            alice, began = server.client(), time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(alice.get, "/models")
                assert alice.create(model="m-2")
                assert requests.get(server.url + "/health", timeout=5).status_code == 200
                assert time.monotonic() - began < SLACK
                assert waiting.result().json()["data"] == []
            return time.monotonic() - began

    def published():
        identity = Provider()
        identity.models = raw(
            *resolve((b"HTTP/1.1 200 OK\r\n", drip(b"X-Odd: 1\r\n", seconds=25)), GPT)
        )
        token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
        settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url}
        with contextlib.closing(identity), running(tmp_path / "keys", **settings) as server:
            began = time.monotonic()
            assert status_of(server, token) == 503
            return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for seconds in [pool.submit(listed), pool.submit(published)]:
            assert seconds.result() < 10 + SLACK


# Published keys

POINT = in_base64(bytes(range(32)))
ODD_KEYS = [
    {"kty": "RSA", "alg": "none", "kid": "n"},
    *(
        {"kty": "OKP", "crv": "Ed25519", "x": POINT, "kid": "n", "alg": alg}
        for alg in (["EdDSA"], {"a": 1}, 5)
    ),
    *(
        {"kty": kind, "kid": "n"}
        for kind in ("RSA", "EC", "OKP", "oct", "odd", "", None, 5, ["RSA"], {"a": 1})
    ),
    *({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "n"} for x in ("!", "AA", "", 5, None, [])),
    *({"kty": "OKP", "crv": curve, "x": POINT, "kid": "n"} for curve in ("odd", 5, None, [], {})),
    *({"kty": "RSA", "n": n, "e": n, "kid": "n"} for n in ("", "AA", "AQ", "!", 5, None, [])),
    {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "n"},
    {"kty": "oct", "k": 5, "kid": "n", "alg": "HS256"},
    *({}, None, 5, "text", [], True),
]


def signed(key, kid, alg="EdDSA"):
    """A token by hand, whose header says what a library would not."""
    text = ".".join(
        in_base64(json.dumps(part).encode()) for part in ({"alg": alg, "kid": kid}, good_claims())
    )
    return f"{text}.{in_base64(key.sign(text.encode()))}"


def new_key():
    return ed25519.Ed25519PrivateKey.generate()


def test_each_published_key_is_judged_by_itself(identity, tmp_path):
    identity.models = jwks(*ODD_KEYS, jwk(ED25519.public_key(), "good"), *ODD_KEYS)
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, signed(ED25519, "good")) == 200
        for kid in ("n", "a stranger's"):
            assert status_of(server, signed(new_key(), kid)) == 401
        assert "Traceback" not in server.output()


def test_keys_with_one_name_are_all_tried(identity, tmp_path):
    twins = [new_key(), new_key()]
    secret = jwk(new_key().public_key(), "twin", use="enc")
    identity.models = jwks(
        secret, jwk(RSA.public_key(), "twin"), *(jwk(key.public_key(), "twin") for key in twins)
    )
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        for key in twins:
            assert status_of(server, signed(key, "twin")) == 200
        assert (
            status_of(server, make_token(key=RSA, algorithm="RS256", headers={"kid": "twin"}))
            == 200
        )
        assert status_of(server, signed(new_key(), "twin")) == 401


def test_ed25519_is_an_algorithm_as_eddsa_is(identity, tmp_path):
    """RFC 9864 names it so, in tokens and in keys."""
    encrypting = new_key()
    named = [
        jwk(ED25519.public_key(), "Ed25519", alg="Ed25519"),
        jwk(ED25519.public_key(), "EdDSA", alg="EdDSA"),
    ]
    identity.models = jwks(
        *named,
        jwk(ED25519.public_key(), "no"),
        jwk(encrypting.public_key(), "ops", key_ops=["encrypt"]),
    )
    with running(tmp_path / "1", JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        for kid, alg in itertools.product(("Ed25519", "EdDSA", "no"), ("Ed25519", "EdDSA")):
            assert status_of(server, signed(ED25519, kid, alg)) == 200, (kid, alg)
        for token in (
            signed(ED25519, "no", "Ed448"),
            signed(new_key(), "no", "Ed25519"),
            signed(encrypting, "ops"),
        ):
            assert status_of(server, token) == 401
    with running(tmp_path / "2", JWT_SECRET="", JWT_PUBLIC_KEY=pem(ED25519.public_key())) as server:
        assert status_of(server, signed(ED25519, "any", "Ed25519")) == 200


def test_a_strangers_key_never_loses_the_good_ones(identity, tmp_path):
    good, stranger = signed(ED25519, "good"), new_key()
    identity.models = jwks(jwk(ED25519.public_key(), "good"))
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, good) == 200
        asked, gate = threading.Event(), threading.Event()
        identity.models = raw(lambda _: asked.set(), gate, head(500))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            strangers = []
            while (
                not asked.wait(0.2) and len(strangers) < 50
            ):  # an unknown name has them fetched, once a second
                strangers.append(
                    pool.submit(status_of, server, signed(stranger, f"unknown {len(strangers)}"))
                )
            assert asked.is_set()
            began = time.monotonic()
            assert status_of(server, good) == 200
            assert time.monotonic() - began < 3
            gate.set()
            assert {future.result() for future in strangers} <= {401, 503}
        for answer in (
            raw(),
            status(200, "<html></html>"),
            status(200, {"keys": 5}),
            status(200, []),
        ):
            asked.clear()
            identity.models = raw(lambda _: asked.set(), *answer(None))
            while not asked.wait(0.1):
                assert status_of(server, signed(stranger, "unknown")) in (401, 503)
        assert status_of(server, good) == 200


# Wrong settings, proxies, and the terminal


@pytest.fixture
def trap():
    """Where nothing may arrive."""
    with contextlib.closing(Provider()) as trap:
        trap.default = trap.models = status(200, {})
        yield trap


def test_loopback_is_never_proxied(trap, tmp_path):
    """Nor is a title asked for more than once."""
    proxies = {name: trap.url for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}
    hell = Hell()
    hell.answers["m-title"] = [list(resolve(refusal(429), GPT))]
    urls = {
        "OPENAI_BASE_URL": hell.url + "/v1",
        "ANTHROPIC_BASE_URL": hell.url.replace("127.0.0.1", "localhost"),
    }
    with (
        contextlib.closing(hell),
        running(tmp_path, TITLE_MODEL="m-title", **urls, **proxies) as server,
    ):
        for model in (CLAUDE, GPT):
            assert (
                server.client().turns(server.client().create(model=model))[-1]["content"]
                == "The answer."
            )
        assert len(server.client().get("/models").json()["data"]) == 2
        hell.wait_for_request(4)
        for _ in range(3):
            server.client().create()
        hell.wait_for_request(10)
    assert hell.asked["m-title"] == 5
    assert not trap.connections


WRONG = {  # the setting of Anthropic's side and of OpenAI's, and others
    "certificates": (
        "https://self-signed",
        "https://expired/v1",
        {"REQUESTS_CA_BUNDLE": "expired"},
    ),
    "another's certificate, and a host that is none": (
        "https://another",
        "http://a..b/v1",
        {"REQUESTS_CA_BUNDLE": "another"},
    ),
    "no certificates, and a host that is none": (
        "http://*",
        "https://self-signed/v1",
        {"REQUESTS_CA_BUNDLE": "/nowhere/at/all.pem"},
    ),
    "proxies that are none": (
        "http://a.invalid",
        "http://b.invalid/v1",
        {"HTTP_PROXY": "http://:bad", "http_proxy": "http://:bad"},
    ),
}


@pytest.mark.parametrize("anthropic, openai, others", WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_told_as_such(anthropic, openai, others, tmp_path):
    """Once: it is not asked again, and whoever runs the server finds it in the log."""
    made = {"self-signed": {}, "expired": {"days": -1}, "another": {"address": "127.0.0.9"}}
    providers, paths = {}, {}
    for name, options in made.items():
        (tmp_path / name).mkdir()
        paths[name], context = certificate(tmp_path / name, **options)
        providers[name] = Provider(context)
    others = {name: paths.get(value, value) for name, value in others.items()}
    urls = {"ANTHROPIC_BASE_URL": anthropic, "OPENAI_BASE_URL": openai}
    for name, provider in providers.items():
        urls = {
            setting: url.replace(f"//{name}", f"//127.0.0.1:{provider.port}")
            for setting, url in urls.items()
        }
    with running(tmp_path / "server", DEFAULT_MODEL=GPT, **urls, **others) as server:
        for number, (model, kind) in enumerate(((CLAUDE, "anthropic"), (GPT, "openai")), 1):
            for provider in providers.values():
                provider.connections.clear()
            took = []
            for _ in range(3):
                began = time.monotonic()
                response = server.client().post("/sessions", {"content": "Hello", "model": model})
                took.append(time.monotonic() - began)
                assert response.status_code == 502, response.text
                assert "Tell whoever runs this server" in response.json()["errors"][0]["detail"]
            assert sum(len(provider.connections) for provider in providers.values()) <= 3
            assert min(took) < 1  # two more tries would have taken longer
            assert re.search(
                f"(WARNING|ERROR) .*{kind}", server.wait_for_output("outcome=failed", 3 * number)
            ), server.output()
    for provider in providers.values():
        provider.close()


@pytest.fixture
def chat(tmp_path):
    """A function that runs `flask chat` and returns the process that has ended. ~/.netrc has a password for the loopback."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password of-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)

    token_of_alice = make_token()

    def chat(url, *options, token=token_of_alice, **environment):
        clean = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "JWT_SECRET": SECRET,
        }
        clean |= {"DATABASE_URL": f"sqlite:///{tmp_path}/unused.db", "PARLEY_TOKEN": token}
        words = [sys.executable, "-m", "flask", "chat", "--url", url, *options]
        settings = {
            "cwd": ROOT,
            "env": clean | environment,
            "encoding": "utf-8",
            "capture_output": True,
            "timeout": 60,
        }
        return subprocess.run(words, input="Hello\n", **settings)

    return chat


ODD_SERVERS = {  # what it answers, to which options, and what is said of it
    "a redirect": (lambda url: status(307, {}, Location=url + "/sessions"), [], "redirects to"),
    "a redirect for a list": (
        lambda url: status(301, {}, Location=url + "/sessions"),
        ["--list"],
        "redirects to",
    ),
    "a page": (lambda url: status(200, PAGE.decode()), [], "Error: "),
    "a page for a list": (lambda url: status(200, PAGE.decode()), ["--list"], "Error: "),
    "an answer of another program": (
        lambda url: status(200, {"data": [5], "turns": 7}),
        ["--list"],
        "Error: ",
    ),
    "a session without a place": (lambda url: status(201, {"id": 5}), [], "Error: "),
}


def test_the_terminal_client_says_in_one_line_what_is_no_parley(chat, trap, subtests):
    def run(name):
        answer, options, _ = ODD_SERVERS[name]
        with contextlib.closing(Provider()) as server:
            server.default = server.models = answer(trap.url)
            return chat(server.url, *options), server.requests

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for (name, (_, _, words)), (done, asked) in zip(
            ODD_SERVERS.items(), pool.map(run, ODD_SERVERS), strict=True
        ):
            with subtests.test(name):
                assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
                assert words in done.stderr and "Traceback" not in done.stderr
                assert len(asked) == 1
                assert all(
                    request.headers["authorization"].startswith("Bearer ") for request in asked
                )
    assert not trap.connections


def test_the_terminal_client_asks_no_proxy_for_the_loopback(chat, trap, server, provider):
    done = chat(server.url, HTTP_PROXY=trap.url, http_proxy=trap.url, ALL_PROXY=trap.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    assert not trap.connections
