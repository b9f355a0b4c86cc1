"""Strange providers: the reply to any odd answer, and what no answer may change."""

import concurrent.futures
import contextlib
import itertools
import pathlib
import re
import sys
import time
import urllib.parse

import pytest
import requests

from client import Client, make_token, wait_for_status
from hell import TABLES
from hell_answers import (
    ANSWER,
    BEGIN,
    HALF,
    MEGABYTES,
    PAGE,
    REST,
    Made,
    flood,
    refusal,
    resolve,
    say,
)
from hell_bodies import zipped
from hell_drips import DRIPS
from hell_reasons import DECLINED, TOOLS, ends_with
from hell_right import LONGEST_TEXT, ONCE_TO_THRICE, SLACK, TIMEOUT, bad, ok
from hell_secrets import told
from hellish import open_pit, rows_of
from protocols import CLAUDE, GPT, both
from provider import Provider, head, raw
from tokens import ED25519, jwk, jwks


@pytest.mark.parametrize("name", TABLES)
def test_every_answer_has_the_right_outcome(pit, subtests, name):
    check(pit, subtests, name, TABLES[name])


def test_an_answer_without_content_is_given_up_in_time(tmp_path, subtests):
    with open_pit(tmp_path, MODEL_TIMEOUT=TIMEOUT) as pit:
        check(pit, subtests, "drips", DRIPS)


STOPS = {  # after these, a model has no more to say, or would fail in the same way again
    *("no JSON", "an array", "nested deeply", "JSON that was filtered"),
    *(f"{reason} behind text" for reason in (*DECLINED, *TOOLS)),
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


def test_a_reply_continues_after_a_break_and_after_nothing_else(tmp_path, subtests):
    """All rows whose answer fails after some text. When asked again, the model continues with a full stop."""
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
            if faults:  # without the traceback, which is the same for each
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


def test_long_errors_delay_no_other_request(pit):
    """Quadratic patterns would block all threads of the process."""
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


LINE = b": " + b"x" * 65_000 + b"\n"


def bomb(part):
    """A small body that decompresses to a large one. It is made when it is needed."""
    return Made(lambda data: [zipped(data * MEGABYTES)], part)


FLOODS = {
    "an error of 400": ((head(400), flood(BLOCK)), bad(502)),
    "an error of 500": ((head(500, Retry_After_Ms=1), flood(BLOCK)), bad(502, tries=3)),
    "a bomb for an error": (
        (head(400, "application/json", Content_Encoding="gzip"), bomb(b" " * 2**20)),
        bad(502),
    ),
    "a bomb": ((head(Content_Encoding="gzip"), bomb(b": xxxxx\n" * 2**17)), bad(502)),
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
    """The most memory that a process has used, in megabytes."""
    return (
        int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024
    )


@pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's own account of a process")
def test_no_flood_of_data_fills_the_memory(tmp_path):
    """Keys, lists and answers of 150 MB, one after the other: none takes 100 MB of the server's memory."""
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
        deadline = time.monotonic() + 30  # the failure is remembered as long as it took
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


def test_a_prompt_has_at_most_the_newest_eight_megabytes_of_a_session(pit):
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
    # Of a longer conversation the newest half is sent: here, the last message alone.
    assert sent == [[first], [first, answered, second], [third]]
    assert alice.turns(session)[-1]["turns_left_out"] == 4


@both
def test_the_usage_of_a_cancelled_reply_is_stored(pit, model):
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
        assert time.monotonic() < deadline, turn  # the usage may be stored after the end
    assert (turn["content"], turn["usage"]["input_tokens"]) == ("Half", 15)
    assert turn["usage"]["output_tokens"] == {CLAUDE: None, GPT: 1}[model]


@both
def test_an_unknown_stop_reason_is_logged(pit, model):
    answer = list(resolve(ends_with(f"reason_for_{model}", "So far"), model))
    assert pit.ask(f"{model}-unknown", [answer]).response.status_code == 201
    pit.server.wait_for_output(f"reason_for_{model}")
