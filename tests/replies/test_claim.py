"""One reply per session: cancelled, retried, never two at once."""

import concurrent.futures
import threading
import time

import pytest

from client import at_once
from provider import fails, reply, silence, status

# One reply at a time


def test_one_of_eight_simultaneous_messages_gets_through(alice, provider):
    session = alice.create()
    more = threading.Event()
    provider.default = reply("An ", more, "answer.")
    path = f"/sessions/{session['id']}/messages"
    threading.Timer(1.5, more.set).start()
    answers = at_once(8, lambda number: alice.post(path, {"content": f"Message {number}"}))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert [turn["kind"] for turn in alice.turns(session)] == ["user", "assistant"] * 2
    assert len(provider.posts) == 2


# Cancel, retry, delete


@pytest.mark.parametrize("begun", [True, False])
def test_a_cancel_ends_the_reply_and_hangs_up(alice, provider, begun):
    never = threading.Event()
    provider.script = [reply("As far ", "as this", never) if begun else silence(never)]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    sent = provider.wait_for_request()
    text = "As far as this" if begun else ""
    while alice.turns(session)[1]["content"] != text:
        time.sleep(0.02)
    with concurrent.futures.ThreadPoolExecutor() as pool, alice.events(session) as events:
        following = pool.submit(list, events)
        began = time.monotonic()
        answer = alice.post(f"/sessions/{session['id']}/cancel")
        assert sent.hung_up.wait(1 - (time.monotonic() - began)), (
            "the provider's connection stayed open"
        )
        names = [event.name for event in following.result(5)]
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["content"]) == ("interrupted", text)
    assert answer.json()["error"] is None
    assert names[-2:] == ["assistant_turn", "done"]
    assert alice.turns(session)[1] == answer.json()
    assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 409
    assert (
        alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"}).status_code == 201
    )
    roles = [message["role"] for message in provider.posts[1].body["messages"]]
    assert roles == (["user", "assistant", "user"] if begun else ["user"])


def test_a_waiting_request_gets_the_cancelled_turn(alice, provider):
    never = threading.Event()
    session = alice.create()
    provider.script = [reply("Some text", never)]
    path = f"/sessions/{session['id']}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(alice.post, path + "/messages", {"content": "Hello"})
        provider.wait_for_request(2)
        while len(turns := alice.turns(session)) < 4 or not turns[3]["content"]:
            time.sleep(0.02)
        cancelled = alice.post(path + "/cancel").json()
        answer = waiting.result(5)
    assert answer.status_code == 201
    assert answer.json() == cancelled


def test_deleting_a_session_stops_its_reply(alice, provider):
    never = threading.Event()
    provider.script = [reply("Some text", never)]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    sent = provider.wait_for_request()
    with concurrent.futures.ThreadPoolExecutor() as pool, alice.events(session) as events:
        following = pool.submit(list, events)
        began = time.monotonic()
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        assert sent.hung_up.wait(1 - (time.monotonic() - began))
        last = following.result(5)[-1]
    assert (last.name, last.data["status"]) == ("error", 404)


def test_a_retry_replaces_a_complete_reply(alice, provider):
    more = threading.Event()
    provider.script = [reply("Old."), reply("Ne", more, "w.")]
    session = alice.create()
    before = alice.get(f"/sessions/{session['id']}").json()
    with alice.stream("POST", f"/sessions/{session['id']}/retry") as stream:
        events = iter(stream)
        assert next(events).data == {"delta": "Ne"}
        assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "Ne"]
        more.set()
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "New."]
    assert provider.posts[1].body["messages"] == [{"role": "user", "content": "Hello"}]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["last_message_preview"] == "New."
    assert alice.get(f"/sessions/{session['id']}").json()["updated_at"] >= before["updated_at"]


def test_the_old_reply_is_shown_again_if_a_retry_fails_or_is_cancelled(alice, provider):
    never = threading.Event()
    provider.script = [reply("Old."), fails("Broken"), reply("Cancelled", never), reply("More.")]
    session = alice.create()
    path = f"/sessions/{session['id']}"
    failed = alice.post(path + "/retry")
    assert failed.status_code == 502
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "Old."]
    with alice.events(session) as events:
        assert [(event.name, event.data) for event in events][:-1] == [
            ("content_delta", {"delta": "Broken"})
        ]
    with alice.stream("POST", path + "/retry") as stream:
        assert next(iter(stream)).data == {"delta": "Cancelled"}
        assert alice.post(path + "/cancel").json()["content"] == "Cancelled"
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "Old."]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["last_message_preview"] == "Old."
    assert alice.post(path + "/messages", {"content": "Next"}).status_code == 201
    sent = [message["content"] for message in provider.posts[3].body["messages"]]
    assert sent == ["Hello", "Old.", "Next"]


def test_a_retry_after_a_failure_asks_the_model_again(alice, provider):
    provider.script = [fails("Half"), reply("Whole.")]
    failed = alice.post("/sessions", {"content": "Hello"})
    assert failed.status_code == 502
    session_id = failed.json()["errors"][0]["meta"]["session_id"]
    assert failed.headers["Location"] == f"/sessions/{session_id}"
    session = {"id": session_id}
    turn = alice.turns(session)[1]
    assert (turn["status"], turn["content"], turn["error"]["status"]) == ("failed", "Half", 502)
    assert alice.post(f"/sessions/{session_id}/retry").json()["content"] == "Whole."
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "Whole."]


def test_a_session_works_after_any_failure(alice, provider):
    provider.script = [status(400), fails("Half"), reply("Fine.")]
    failed = alice.post("/sessions", {"content": "One"})
    path = failed.headers["Location"]
    assert alice.post(path + "/messages", {"content": "Two"}).status_code == 502
    assert alice.post(path + "/messages", {"content": "Three"}).status_code == 201
    assert provider.posts[2].body["messages"] == [
        {"role": "user", "content": "One\n\nTwo"},
        {"role": "assistant", "content": "Half"},
        {"role": "user", "content": "Three"},
    ]
