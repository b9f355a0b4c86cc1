"""The last message, changed by a retry that has a text of its own."""

import json
import threading
import uuid

import pytest

from client import at_once, wait_for_status
from exports import imported
from provider import fails, reply, status

OUTCOMES = {  # the provider's answer, then the status, the new reply's end and its text
    "complete": (reply("The new answer."), 201, "complete", "The new answer."),
    "failed without a word": (status(400), 502, "failed", ""),
    "failed in the middle": (fails("So far"), 502, "failed", "So far"),
}


@pytest.mark.parametrize("answer, code, ending, content", OUTCOMES.values(), ids=OUTCOMES)
def test_a_retry_with_content_changes_the_last_message_however_its_reply_ends(
    alice, provider, answer, code, ending, content
):
    old, new = (uuid.uuid4().hex for _ in range(2))
    session = alice.create("First")
    path = f"/sessions/{session['id']}"
    provider.script = [reply(f"An answer to {old}."), answer]
    alice.post(path + "/messages", {"content": f"The old {old}"})
    before = alice.turns(session)
    assert alice.post(path + "/retry", {"content": f"The new {new}"}).status_code == code
    after = alice.turns(session)
    assert after[:2] == before[:2]
    assert after[2] == before[2] | {"content": f"The new {new}"}, "the same turn, at the same time"
    assert [(turn["status"], turn["content"]) for turn in after[3:]] == [(ending, content)]
    assert after[3]["id"] > before[3]["id"]
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        "First",
        "The answer.",
        f"The new {new}",
    ]
    preview = content or f"The new {new}"
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["last_message_preview"] == preview
    assert [item["id"] for item in alice.get(f"/sessions?query={new}").json()["data"]] == [
        session["id"]
    ]
    assert alice.get(f"/sessions?query={old}").json()["data"] == []
    provider.script = [reply("Once more.")]
    assert alice.post(path + "/retry").json()["content"] == "Once more."
    assert [turn["content"] for turn in alice.turns(session)][2:] == [
        f"The new {new}",
        "Once more.",
    ]


def test_a_cancelled_retry_with_content_does_not_bring_the_old_reply_back(alice, provider):
    session = alice.create("Old")
    path, gate = f"/sessions/{session['id']}", threading.Event()
    old = alice.turns(session)[1]
    provider.script = [reply("Half", gate)]
    with alice.stream("POST", path + "/retry", {"content": "New"}) as stream:
        assert next(iter(stream)).data == {"delta": "Half"}
        assert [turn["content"] for turn in alice.turns(session)] == ["New", "Half"]
        assert alice.post(path + "/cancel").status_code == 200
    turns = alice.turns(session)
    assert [(turn["content"], turn.get("status")) for turn in turns] == [
        ("New", None),
        ("Half", "interrupted"),
    ]
    assert turns[1]["id"] != old["id"]
    for answer in (
        status(400),
        reply("Whole."),
    ):  # after a plain retry that fails, the reply before it is shown again
        provider.script = [answer]
        alice.post(path + "/retry")
    assert [turn["content"] for turn in alice.turns(session)] == ["New", "Whole."]


def test_the_message_is_changed_while_its_reply_is_in_progress(alice, provider):
    session = alice.create("Old")
    path, gate = f"/sessions/{session['id']}", threading.Event()
    provider.script = [reply(gate, "The answer.")]
    assert (
        alice.post(path + "/retry", {"content": "New"}, Prefer="respond-async").status_code == 202
    )
    assert [turn["content"] for turn in alice.turns(session)] == ["New", ""]
    for body in ({"content": "Newer"}, None):
        response = alice.post(path + "/retry", body)
        assert (response.status_code, "Retry-After" in response.headers) == (409, True)
    gate.set()
    wait_for_status(alice, session, "complete")
    assert [turn["content"] for turn in alice.turns(session)] == ["New", "The answer."]


def test_one_of_eight_simultaneous_retries_with_content_gets_through(alice, provider):
    session, gate = alice.create("Old"), threading.Event()
    provider.script = [reply(gate, "The answer.")]

    def change(number):
        body = {"content": f"New {number}"}
        return alice.post(
            f"/sessions/{session['id']}/retry", body, Prefer="respond-async"
        ).status_code

    codes = at_once(8, change)
    assert sorted(codes) == [202] + [409] * 7
    gate.set()
    wait_for_status(alice, session, "complete")
    assert [turn["content"] for turn in alice.turns(session)] == [
        f"New {codes.index(202)}",
        "The answer.",
    ]


def test_a_retry_with_content_is_made_once_per_key(alice, provider):
    session = alice.create("Old")
    path = f"/sessions/{session['id']}/retry"
    provider.script = [status(400), reply("The new answer.")]
    assert alice.post(path, {"content": "New"}, Idempotency_Key="k").status_code == 502
    first = alice.post(path, {"content": "New"}, Idempotency_Key="k")
    assert first.status_code == 201
    asked = len(provider.posts)
    again = alice.post(path, {"content": "New"}, Idempotency_Key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(provider.posts) == asked
    for body in ({"content": "Newer"}, {}, None):
        assert alice.post(path, body, Idempotency_Key="k").status_code == 422
    assert [turn["content"] for turn in alice.turns(session)] == ["New", "The new answer."]
    alice.post(path, None, Idempotency_Key="plain")
    assert alice.post(path, {"content": "New"}, Idempotency_Key="plain").status_code == 422
    assert alice.post(path, {"content": None}, Idempotency_Key="plain").status_code == 201, (
        "null is the same as nothing"
    )


@pytest.mark.parametrize("body", [None, {}, {"content": None}])
def test_a_retry_without_content_changes_no_message(alice, provider, body):
    session = alice.create("Hello")
    before = alice.turns(session)
    provider.script = [status(400)]
    assert alice.post(f"/sessions/{session['id']}/retry", body).status_code == 502
    assert alice.turns(session) == before


BLANK = {
    "blank": " \n",
    "empty": "",
    "a number": 5,
    "a list": ["x"],
    "NUL": "a\0b",
    "half a character": "\ud800",
}


@pytest.mark.parametrize("content", BLANK.values(), ids=BLANK)
def test_bad_content_is_refused_and_changes_nothing(alice, provider, content):
    session = alice.create("Hello")
    before = alice.turns(session)
    headers = {"Authorization": f"Bearer {alice.token}", "Content-Type": "application/json"}
    response = alice.request(
        "POST", f"/sessions/{session['id']}/retry", {"content": content}, **headers
    )
    assert response.status_code == 400
    assert [error["source"] for error in json.loads(response.text)["errors"]] == [
        {"pointer": "/content"}
    ]
    assert alice.turns(session) == before
    assert len(provider.posts) == 1


def test_a_retry_with_content_changes_the_last_of_several_unanswered_messages(alice, provider):
    provider.script = [status(400), status(400), reply("At last.")]
    response = alice.post("/sessions", {"content": "One"})
    path = response.headers["Location"]
    assert alice.post(path + "/messages", {"content": "Two"}).status_code == 502
    assert alice.post(path + "/retry", {"content": "Three"}).status_code == 201
    turns = alice.get(path).json()["turns"]
    assert [turn["content"] for turn in turns] == ["One", "", "Three", "At last."]
    assert provider.posts[-1].body["messages"] == [{"role": "user", "content": "One\n\nThree"}]


def test_a_changed_message_keeps_the_title_and_moves_the_session_to_the_top(alice, provider):
    session = alice.create("Old words")
    other = alice.create("Another")
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["id"] == other["id"]
    alice.post(f"/sessions/{session['id']}/retry", {"content": "New words"})
    listed = alice.get("/sessions?page[limit]=1").json()["data"][0]
    assert (listed["id"], listed["title"]) == (session["id"], session["title"])


def test_the_message_is_changed_if_it_has_several_replies(someone, provider):
    turns = [{"kind": "user", "content": "Question"}]
    turns += [{"kind": "assistant", "content": text} for text in ("One.", "Two.")]
    session = imported(someone, turns=turns)
    path = f"/sessions/{session['id']}/retry"
    assert someone.post(path, {"content": "Another question"}).status_code == 201
    shown = [turn["content"] for turn in someone.turns(session)]
    assert shown == ["Another question", "One.", "The answer."]
    [sent] = provider.posts[-1].body["messages"]
    assert sent["content"] == "Another question"
