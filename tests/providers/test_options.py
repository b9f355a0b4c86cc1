"""Options of a session: stored, sent to the model if they are set, and named if a provider refuses one."""

import json
import re
import tomllib
import uuid

import pytest
import requests

from client import wait_for_status
from product import ROOT
from provider import KEEP, head, raw, reply, stream
from providers.options import OPTIONS
from servers import running

CLAUDE, GPT = "claude-o", "o"
both = pytest.mark.parametrize("kind", [CLAUDE, GPT], ids=["anthropic", "openai"])
ALL = {
    "temperature": 0.5,
    "max_tokens": 100,
    "reasoning_effort": "low",
    "top_p": 0.9,
    "seed": 7,
    "stop": ["END", "\n\n"],
}


def options_of(client, session):
    return client.get(f"/sessions/{session['id']}").json()["options"]


def test_the_documents_name_each_option():
    text = (ROOT / "docs" / "api.md").read_text("utf-8").split("## Options\n")[1].split("\n## ")[0]
    assert re.findall(r"^- `(\w+)`:", text, re.MULTILINE) == list(OPTIONS)


# Stored with the session


def test_a_session_has_the_options_that_are_set(alice):
    session = alice.create(options=ALL)
    assert list(session) == ["id", "title", "model", "created_at", "updated_at"]
    assert options_of(alice, session) == ALL
    for nothing in ({}, {"options": None}, {"options": {}}, {"options": dict.fromkeys(ALL)}):
        assert options_of(alice, alice.create(**nothing)) == {}
    assert options_of(
        alice, alice.create(options={"temperature": 0, "max_tokens": None, "stop": []})
    ) == {"temperature": 0}


CHANGES = [  # one after the other: the change, and the options after it
    ({"temperature": 1}, ALL | {"temperature": 1}),
    ({}, ALL | {"temperature": 1}),
    (
        {"max_tokens": None, "stop": []},
        {"temperature": 1, "reasoning_effort": "low", "top_p": 0.9, "seed": 7},
    ),
    (
        {"max_tokens": None, "top_p": None, "seed": None},
        {"temperature": 1, "reasoning_effort": "low"},
    ),
    (
        {"reasoning_effort": "x" * 40, "temperature": 0.0},
        {"temperature": 0.0, "reasoning_effort": "x" * 40},
    ),
    (
        {"max_tokens": 16384, "temperature": 2},
        {"temperature": 2, "reasoning_effort": "x" * 40, "max_tokens": 16384},
    ),
    (None, {}),
    (
        {"top_p": 0, "seed": -(2**53) + 1, "stop": ["x" * 100, " ", "\n", "ñ"]},
        {"top_p": 0, "seed": -(2**53) + 1, "stop": ["x" * 100, " ", "\n", "ñ"]},
    ),
    (None, {}),
    ({"max_tokens": 1}, {"max_tokens": 1}),
    ({"max_tokens": None, "temperature": None}, {}),
]


def test_a_change_is_merged_and_null_clears_one_or_all(alice):
    session = alice.create(options=ALL)
    path = f"/sessions/{session['id']}"
    for options, kept in CHANGES:
        changed = alice.patch(path, {"options": options})
        assert (changed.status_code, changed.json()["options"]) == (200, kept)
        assert alice.patch(path, {"title": "Mine"}).json()["options"] == kept
        assert options_of(alice, session) == kept


def test_options_are_part_of_the_request_an_idempotency_key_names(alice, provider):
    body = {"content": "Hello", "options": {"temperature": 0.5}}
    first = alice.post("/sessions", body, Idempotency_Key="k-options")
    same = body | {"options": {"temperature": 0.5, "max_tokens": None}}
    again = alice.post("/sessions", same, Idempotency_Key="k-options")
    assert (again.status_code, again.json()) == (201, first.json()), "null is the same as nothing"
    for options in ({"temperature": 0.6}, {}, None):
        assert (
            alice.post(
                "/sessions", body | {"options": options}, Idempotency_Key="k-options"
            ).status_code
            == 422
        )
    assert len(provider.posts) == 1


BAD = {  # options, and pointers to the errors
    "no object": ("warm", ["/options"]),
    "a list": ([], ["/options"]),
    "a number": (1, ["/options"]),
    "true": (True, ["/options"]),
    "unknown": ({"top_k": 1}, ["/options/top_k"]),
    "an odd name": ({"a/b~c": 1}, ["/options/a~1b~0c"]),
    "temperature below": ({"temperature": -0.1}, ["/options/temperature"]),
    "temperature above": ({"temperature": 2.1}, ["/options/temperature"]),
    "temperature in words": ({"temperature": "1"}, ["/options/temperature"]),
    "temperature true": ({"temperature": True}, ["/options/temperature"]),
    "temperature in a list": ({"temperature": [1]}, ["/options/temperature"]),
    "temperature endless": ({"temperature": 1e400}, ["/options/temperature"]),
    "max_tokens 0": ({"max_tokens": 0}, ["/options/max_tokens"]),
    "max_tokens below": ({"max_tokens": -5}, ["/options/max_tokens"]),
    "max_tokens above MAX_TOKENS": ({"max_tokens": 16385}, ["/options/max_tokens"]),
    "max_tokens huge": ({"max_tokens": 10**30}, ["/options/max_tokens"]),
    "max_tokens in parts": ({"max_tokens": 1.5}, ["/options/max_tokens"]),
    "max_tokens in words": ({"max_tokens": "100"}, ["/options/max_tokens"]),
    "max_tokens true": ({"max_tokens": True}, ["/options/max_tokens"]),
    "effort blank": ({"reasoning_effort": " "}, ["/options/reasoning_effort"]),
    "effort a number": ({"reasoning_effort": 3}, ["/options/reasoning_effort"]),
    "effort long": ({"reasoning_effort": "x" * 41}, ["/options/reasoning_effort"]),
    "effort with NUL": ({"reasoning_effort": "a\0"}, ["/options/reasoning_effort"]),
    "effort with half a character": ({"reasoning_effort": "\ud800"}, ["/options/reasoning_effort"]),
    "top_p above": ({"top_p": 1.1}, ["/options/top_p"]),
    "seed in parts": ({"seed": 0.5}, ["/options/seed"]),
    "seed that JavaScript cannot keep": ({"seed": 2**53}, ["/options/seed"]),
    "stop alone": ({"stop": "END"}, ["/options/stop"]),
    "stop five times": ({"stop": [*"abcde"]}, ["/options/stop"]),
    "stop a number": ({"stop": ["END", 1]}, ["/options/stop"]),
    "stop empty": ({"stop": ["END", ""]}, ["/options/stop"]),
    "stop long": ({"stop": ["x" * 101]}, ["/options/stop"]),
    "stop with NUL": ({"stop": ["a\0"]}, ["/options/stop"]),
    "all of them": (
        {"temperature": 3, "max_tokens": 0, "reasoning_effort": "", "stop": "", "top_k": 1},
        [
            "/options/max_tokens",
            "/options/reasoning_effort",
            "/options/stop",
            "/options/temperature",
            "/options/top_k",
        ],
    ),
}


@pytest.mark.parametrize("options, pointers", BAD.values(), ids=BAD)
def test_bad_options_are_refused_and_change_nothing(alice, provider, options, pointers):
    session = alice.create(options=ALL)
    path, count = f"/sessions/{session['id']}", len(provider.posts)
    body = json.dumps({"options": options, "title": "Mine"}).replace("Infinity", "1e400")
    created = json.dumps({"options": options, "content": "Hello"}).replace("Infinity", "1e400")
    for method, place, data in (("PATCH", path, body), ("POST", "/sessions", created)):
        response = send(alice, method, place, data)
        assert response.status_code == 400, (data, response.text)
        assert sorted(error["source"]["pointer"] for error in response.json()["errors"]) == pointers
    whole = alice.get(path).json()
    assert (whole["options"], whole["title"], len(provider.posts)) == (ALL, "Hello", count)


def send(client, method, path, data):
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    return requests.request(method, client.url + path, data=data, headers=headers, timeout=30)


def test_max_tokens_may_not_exceed_the_servers_own(provider, tmp_path):
    with running(
        tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", MAX_TOKENS=50
    ) as server:
        alice = server.client()
        response = alice.post("/sessions", {"content": "Hello", "options": {"max_tokens": 51}})
        assert response.status_code == 400
        assert "50" in response.json()["errors"][0]["detail"]
        alice.create(options={"max_tokens": 50})
        alice.create(options={"max_tokens": 20})
        assert [request.body["max_tokens"] for request in provider.posts] == [50, 20]


# Sent to the model

SUMMARIZED = {"type": "adaptive", "display": "summarized"}
SENT = {
    CLAUDE: [
        ({}, {"max_tokens": 16384}),
        ({"temperature": 0}, {"max_tokens": 16384, "temperature": 0}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        (
            {"reasoning_effort": "low"},
            {"max_tokens": 16384, "output_config": {"effort": "low"}, "thinking": SUMMARIZED},
        ),
        (
            {"reasoning_effort": "high", "temperature": 1},
            {
                "max_tokens": 16384,
                "temperature": 1,
                "output_config": {"effort": "high"},
                "thinking": SUMMARIZED,
            },
        ),
        ({"reasoning_effort": "none"}, {"max_tokens": 16384, "thinking": {"type": "disabled"}}),
        (
            {"reasoning_effort": "none", "temperature": 0},
            {"max_tokens": 16384, "temperature": 0, "thinking": {"type": "disabled"}},
        ),
        (
            {"reasoning_effort": "low", "top_p": 0.95},
            {
                "max_tokens": 16384,
                "top_p": 0.95,
                "output_config": {"effort": "low"},
                "thinking": SUMMARIZED,
            },
        ),
        (
            {"reasoning_effort": "low", "top_p": 0.9},
            {"max_tokens": 16384, "top_p": 0.9, "output_config": {"effort": "low"}},
        ),
        (
            ALL,
            {
                "max_tokens": 100,
                "temperature": 0.5,
                "output_config": {"effort": "low"},
                "top_p": 0.9,
                "stop_sequences": ["END", "\n\n"],
            },
        ),
    ],
    GPT: [
        ({}, {"max_tokens": 16384}),
        ({"temperature": 0}, {"max_tokens": 16384, "temperature": 0}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"reasoning_effort": "low"}, {"max_tokens": 16384, "reasoning_effort": "low"}),
        (ALL, ALL),
    ],
}
NAMES = (
    "max_tokens",
    "temperature",
    "reasoning_effort",
    "output_config",
    "effort",
    "reasoning",
    "thinking",
    "top_p",
    "seed",
    "stop",
    "stop_sequences",
    "options",
)


@both
def test_each_protocol_gets_the_options_that_are_set_and_no_others(alice, provider, kind):
    for options, sent in SENT[kind]:
        alice.create(model=kind, options=options)
        body = provider.posts[-1].body
        assert {name: body[name] for name in NAMES if name in body} == sent


@both
def test_options_apply_from_the_next_reply_on_to_every_operation(alice, provider, kind):
    session = alice.create(model=kind)
    path = f"/sessions/{session['id']}"
    alice.patch(path, {"options": {"temperature": 0.5}})
    alice.post(path + "/messages", {"content": "More"})
    alice.post(path + "/retry")
    with alice.stream("POST", path + "/messages", {"content": "More"}) as events:
        list(events)
    alice.patch(path, {"options": None})
    alice.post(path + "/retry", {"content": "Less"})
    assert [request.body.get("temperature") for request in provider.posts] == [
        None,
        0.5,
        0.5,
        0.5,
        None,
    ]


def test_a_title_is_requested_without_the_options(start, settings, provider):
    alice = start(**settings, TITLE_MODEL="m-2", WEB_CONCURRENCY=1).client()
    alice.create(options=ALL)
    provider.wait_for_request(2)
    bodies = {request.body["model"]: request.body for request in provider.posts}
    assert bodies["m-1"]["temperature"] == 0.5
    assert not {"temperature", "reasoning_effort", "top_p", "seed", "stop"} & set(bodies["m-2"])


# Refused by a provider


def openai(message, code=None, param=None):
    return 400, {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


REFUSED = tomllib.loads((ROOT / "tests" / "support" / "refused_options.toml").read_text("utf-8"))


def refusing(code, body):
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    return raw(head(code, "application/json", Content_Length=len(data)) + data, KEEP)


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_an_option_that_a_provider_refuses_is_named_and_the_session_stays(alice, provider, refused):
    option, model = refused["option"], f"{refused.get('kind', GPT)}-{uuid.uuid4().hex}"
    provider.default = refusing(refused.get("status", 400), refused["body"])
    response = alice.post(
        "/sessions", {"content": "Hello", "model": model, "options": {option: ALL[option]}}
    )
    assert response.status_code == 400, response.text
    [error] = response.json()["errors"]
    assert error["source"] == {"pointer": f"/options/{option}"}
    path = response.headers["Location"]
    assert error["meta"] == {"session_id": path.rpartition("/")[2]}
    whole = alice.get(path).json()
    assert whole["options"] == {option: ALL[option]}
    assert whole["turns"][-1]["error"] == {"status": 400, "message": error["detail"]}
    # Thinking, which the server requests by itself, is left out first.
    asks_twice = "thinking" in refused["body"] and "thinking" in provider.posts[0].body
    assert len(provider.posts) == 1 + asks_twice

    alice.patch(path, {"options": {option: None}})
    response = alice.post(path + "/retry")  # without the option, the error is the server's own
    assert response.status_code == 502
    assert "source" not in response.json()["errors"][0]
    provider.default = reply("At last.")
    assert alice.post(path + "/retry").json()["content"] == "At last."


@both
def test_only_an_option_that_was_sent_is_named(alice, provider, kind):
    provider.default = refusing(
        *openai("temperature must be in [0, 2], and reasoning_effort is odd.")
    )
    response = alice.post(
        "/sessions", {"content": "Hello", "model": kind, "options": {"reasoning_effort": "odd"}}
    )
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/reasoning_effort"}
    response = alice.post(
        "/sessions", {"content": "Hello", "model": kind, "options": {"max_tokens": 5}}
    )
    assert response.status_code == 502


def test_a_refused_option_is_named_in_streams_deferred_and_repeated_answers(alice, provider):
    provider.default = refusing(400, REFUSED["OpenAI, value"]["body"])
    body = {"content": "Hello", "options": {"temperature": 0.2}}
    with alice.stream("POST", "/sessions", body) as events:
        session, error = events
    assert (error.name, error.data["status"]) == ("error", 400)
    assert "temperature" in error.data["message"]
    turn = alice.turns(session.data)[-1]
    assert turn["error"] == error.data
    with alice.events(session.data) as events:
        assert [event.data for event in events] == [error.data]

    deferred = alice.post("/sessions", body, Prefer="respond-async", Idempotency_Key="k-o")
    assert deferred.status_code == 201
    assert wait_for_status(alice, deferred.json(), "failed")["error"] == error.data
    again = alice.post("/sessions", body, Idempotency_Key="k-o")
    assert again.status_code == 400
    assert again.json()["errors"][0]["source"] == {"pointer": "/options/temperature"}
    assert again.headers["Location"] == f"/sessions/{deferred.json()['id']}"
    provider.default = reply("At last.")
    assert alice.post("/sessions", body, Idempotency_Key="k-o").json() == deferred.json()
    assert alice.turns(deferred.json())[-1]["content"] == "At last."


def test_an_option_refused_within_a_stream_is_named(alice, provider):
    provider.default = stream(
        {
            "error": {
                "message": "temperature must be in [0, 2]",
                "type": "invalid_request_error",
                "param": "temperature",
            }
        }
    )
    response = alice.post("/sessions", {"content": "Hello", "options": {"temperature": 0.2}})
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/temperature"}


def test_a_refused_option_is_named_even_in_a_conversation_about_it(alice, provider):
    """The message has the parameter's name in quotation marks."""
    provider.default = refusing(400, REFUSED["OpenAI, value"]["body"])
    content = "Does this model know 'temperature', and does it support 0.2?"
    response = alice.post("/sessions", {"content": content, "options": {"temperature": 0.2}})
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/temperature"}


def test_an_overflow_that_counts_the_users_limit_does_not_refuse_it(alice, provider):
    """The limit is lowered, like the server's own."""
    model = f"o-{uuid.uuid4().hex}"
    text = "This model's maximum context length is 4096 tokens. However, you requested 4101 tokens (101 in the messages, 4000 in "
    text += "the completion). Please reduce the length of the messages or completion."
    provider.script = [refusing(*openai(text, "context_length_exceeded", "messages"))]
    alice.create("x" * 300, model=model, options={"max_tokens": 4000})
    assert [request.body["max_tokens"] < 4000 for request in provider.posts] == [False, True]
    assert provider.posts[1].body["max_tokens"] >= 1024
