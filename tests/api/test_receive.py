"""How a client receives a reply: it waits, defers, or streams."""

import contextlib
import http.client
import json
import threading
import time

import pytest

from client import wait_for_status, wait_until
from provider import reply


def test_the_answer_is_deferred_if_the_reply_takes_long(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", REPLY_WAIT="0.3"
    ).client()
    more = threading.Event()
    provider.script = [
        reply("Half ", more, "and half."),
        reply("Second ", more, "answer."),
        reply(more, "Third."),
    ]
    began = time.monotonic()
    response = alice.post("/sessions", {"content": "Hello"})
    assert 0.3 <= time.monotonic() - began < 2
    assert response.status_code == 201
    session = response.json()
    assert set(session) == {"id", "title", "model", "created_at", "updated_at"}
    wait_until(lambda: alice.turns(session)[1]["content"] == "Half ")
    assert alice.turns(session)[1]["status"] == "in_progress"
    more.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
    more.clear()
    path = f"/sessions/{session['id']}"
    response = alice.post(path + "/messages", {"content": "More"})
    assert (response.status_code, response.json()) == (202, {"accepted": True})
    assert response.headers["Location"] == path + "/events"
    more.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Second answer."
    more.clear()
    assert alice.post(path + "/retry").status_code == 202
    more.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Third."


def test_the_answer_comes_at_once_if_the_client_prefers_that(alice, provider):
    more = threading.Event()
    provider.script = [reply(more, "Later.")] * 3
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async")
    assert session.status_code == 201
    assert session.headers["Location"] == f"/sessions/{session.json()['id']}"
    assert session.headers["Preference-Applied"] == "respond-async"
    more.set()
    wait_for_status(alice, session.json(), "complete")
    path = session.headers["Location"]
    for operation, body in [("messages", {"content": "More"}), ("retry", None)]:
        more.clear()
        answer = alice.post(f"{path}/{operation}", body, Prefer='foo="bar", Respond-Async; wait=10')
        assert (answer.status_code, answer.json()) == (202, {"accepted": True})
        assert answer.headers["Location"] == path + "/events"
        more.set()
        wait_for_status(alice, session.json(), "complete")


def prefer(client, path, *lines):
    """POST a message with these header lines; returns the status and the body."""
    host, port = client.url.removeprefix("http://").split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        body = b'{"content": "More"}'
        connection.putrequest("POST", path + "/messages")
        headers = {
            "Authorization": f"Bearer {client.token}",
            "Content-Type": "application/json",
            "Content-Length": len(body),
        }
        for name, value in [*headers.items(), *(("Prefer", line) for line in lines)]:
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


AT_ONCE = [
    ["wait=0"],
    ["wait=00"],
    ['wait="0"'],
    ["WAIT = 0"],
    ["wait=0; why=not"],
    ['wait="0"; why="not"'],
    ["handling=lenient, wait=0, return=minimal"],
    ["handling=lenient", "wait=0"],
    ["wait=0", "wait=9"],  # RFC 7240, section 2: the first one counts
    ["wait=0, wait=9"],
    ["respond-async, wait=9"],
    ["wait=9", "respond-async"],
    ["respond-async, wait=0"],
    ["wait=odd, respond-async"],
]


UNTIL_THE_END = [
    [],
    ["wait=9"],
    ["wait=99999"],
    ["wait=" + "9" * 400],
    ["wait"],
    ["wait="],
    ['wait=""'],
    ["wait=-1"],
    ["wait=+0"],
    ["wait=0.0"],
    ["wait=0x0"],
    ["wait=\u00b2"],
    ["await=0"],
    ["why=not; wait=0"],  # a parameter of another preference
    ['why="wait=0"'],
    ["wait=9", "wait=0"],
    [",,;=,"],
]


@pytest.mark.parametrize("lines", AT_ONCE)
def test_the_wait_is_no_longer_than_the_client_prefers(alice, provider, lines):
    session, gate = alice.create(), threading.Event()
    provider.script = [reply(gate, "Later.")]
    began = time.monotonic()
    assert prefer(alice, f"/sessions/{session['id']}", *lines) == (202, {"accepted": True})
    assert time.monotonic() - began < 8, "REPLY_WAIT is 10 s"
    gate.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Later."


@pytest.mark.parametrize("lines", UNTIL_THE_END)
def test_the_answer_waits_for_the_reply_unless_the_client_prefers_less(alice, provider, lines):
    session = alice.create()
    provider.script = [reply(0.2, "Later.")]
    code, turn = prefer(alice, f"/sessions/{session['id']}", *lines)
    assert (code, turn.get("content")) == (201, "Later.")


def test_the_wait_is_no_longer_than_the_server_allows(start, settings, provider):
    alice = start(**settings, REPLY_WAIT=1, WEB_CONCURRENCY=1).client()
    provider.script = [reply(gate := threading.Event(), "Later.")]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="wait=50", timeout=20)
    assert (session.status_code, "Preference-Applied" in session.headers) == (201, False)
    assert alice.turns(session.json())[-1]["status"] == "in_progress"
    gate.set()
    wait_for_status(alice, session.json(), "complete")
