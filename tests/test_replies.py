"""The life of a reply: waited for, deferred, cancelled, asked for again, counted, never made twice."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
import uuid

import pytest

from client import ALICE, BOB, ROOT, at_once, wait_for_status, wait_until
from provider import cut, fails, reply, silence, status
from raw_tables import tables_of

SECOND = 1_000_000  # as times are stored
DAY = 24 * 3600 * SECOND


# Waiting and deferring


def test_defers_the_answer_of_a_reply_that_takes_long(start, provider):
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


def test_answers_at_once_where_the_client_prefers_it(alice, provider):
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
    """POST a message with these header lines; returns its status and its answer."""
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
    ["wait=0", "wait=9"],  # RFC 7240, 2: the first one counts
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
def test_waits_no_longer_than_the_client_prefers(alice, provider, lines):
    session, gate = alice.create(), threading.Event()
    provider.script = [reply(gate, "Later.")]
    began = time.monotonic()
    assert prefer(alice, f"/sessions/{session['id']}", *lines) == (202, {"accepted": True})
    assert time.monotonic() - began < 8, "REPLY_WAIT is 10 s"
    gate.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Later."


@pytest.mark.parametrize("lines", UNTIL_THE_END)
def test_waits_for_the_end_where_the_client_does_not_prefer_less(alice, provider, lines):
    session = alice.create()
    provider.script = [reply(0.2, "Later.")]
    code, turn = prefer(alice, f"/sessions/{session['id']}", *lines)
    assert (code, turn.get("content")) == (201, "Later.")


def test_waits_no_longer_than_the_server_allows(start, settings, provider):
    alice = start(**settings, REPLY_WAIT=1, WEB_CONCURRENCY=1).client()
    provider.script = [reply(gate := threading.Event(), "Later.")]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="wait=50", timeout=20)
    assert (session.status_code, "Preference-Applied" in session.headers) == (201, False)
    assert alice.turns(session.json())[-1]["status"] == "in_progress"
    gate.set()
    wait_for_status(alice, session.json(), "complete")


def test_a_wait_does_not_shorten_a_stream(alice, provider):
    provider.script = [reply(0.2, "Later.")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}, Prefer="wait=0") as events:
        assert [event.name for event in events] == [
            "session",
            "content_delta",
            "assistant_turn",
            "done",
        ]


def test_goes_on_when_the_client_goes_away(alice, provider):
    more = threading.Event()
    provider.script = [reply("Half ", more, "and half.")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        session = next(iter(stream)).data
    more.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."


# One reply at a time


def test_refuses_a_second_reply_while_one_is_under_way(alice, provider):
    more = threading.Event()
    provider.script = [reply("First.", more)]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    path = f"/sessions/{session['id']}"
    before = alice.get(path).json()
    for answer in [
        alice.post(path + "/messages", {"content": "Again"}),
        alice.post(path + "/retry"),
    ]:
        assert answer.status_code == 409
        assert int(answer.headers["Retry-After"]) >= 1
    after = alice.get(path).json()
    assert [turn["kind"] for turn in after["turns"]] == ["user", "assistant"]
    assert after["updated_at"] == before["updated_at"]
    more.set()
    wait_for_status(alice, session, "complete")
    assert alice.post(path + "/messages", {"content": "Again"}).status_code == 201


def test_lets_one_of_eight_simultaneous_messages_through(alice, provider):
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
def test_cancels_a_reply_and_hangs_up(alice, provider, begun):
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


def test_a_waiting_request_gets_the_turn_that_was_cancelled(alice, provider):
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


def test_retry_replaces_a_complete_reply(alice, provider):
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


def test_the_old_reply_stands_again_where_a_retry_fails_or_is_cancelled(alice, provider):
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


def test_retry_asks_again_after_a_failure(alice, provider):
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


def test_no_failure_poisons_a_session(alice, provider):
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


# Idempotency keys


def test_makes_one_session_of_twenty_equal_creations(server, provider):
    user = server.client(f"https://github.com/{uuid.uuid4().hex}")
    more = threading.Event()
    provider.default = reply("An ", more, "answer.")
    key = uuid.uuid4().hex
    threading.Timer(1.5, more.set).start()
    answers = at_once(
        20, lambda number: user.post("/sessions", {"content": "Equal"}, Idempotency_Key=key)
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert len(provider.posts) == 1
    first = next(answer for answer in answers if answer.status_code == 201)
    busy = next(answer for answer in answers if answer.status_code == 409)
    assert busy.headers["Retry-After"]
    again = user.post("/sessions", {"content": "Equal", "system": None}, Idempotency_Key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert len(provider.posts) == 1
    assert [session["id"] for session in user.get("/sessions").json()["data"]] == [
        first.json()["id"]
    ]


def test_gives_the_first_outcome_again_however_it_is_received(alice, bob, provider):
    session = alice.create()
    path = f"/sessions/{session['id']}/messages"
    first = alice.post(path, {"content": "More"}, Idempotency_Key="k-1")
    assert alice.post(path, {"content": "More"}, Idempotency_Key="k-1").json() == first.json()
    assert (
        alice.post(
            path, {"content": "More"}, Idempotency_Key="k-1", Prefer="respond-async"
        ).status_code
        == 202
    )
    with alice.stream("POST", path, {"content": "More"}, Idempotency_Key="k-1") as stream:
        assert [event.data for event in stream if event.name == "assistant_turn"] == [first.json()]
    assert len(alice.turns(session)) == 4
    assert alice.post(path, {"content": "Other"}, Idempotency_Key="k-1").status_code == 422
    assert len(provider.posts) == 2
    assert bob.post("/sessions", {"content": "More"}, Idempotency_Key="k-1").status_code == 201
    assert alice.post("/sessions", {"content": "More"}, Idempotency_Key="k-1").status_code == 201
    alice.post(path, {"content": "Newer"})
    assert alice.post(path, {"content": "More"}, Idempotency_Key="k-1").json() == first.json()
    alice.delete(f"/sessions/{session['id']}")
    assert alice.post(path, {"content": "More"}, Idempotency_Key="k-1").status_code == 404


def test_asks_again_under_a_key_whose_reply_failed(alice, provider):
    provider.script = [fails("Half"), fails("Half again"), reply("Whole."), reply("Newer.")]
    key = uuid.uuid4().hex
    failed = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key=key)
    assert failed.status_code == 502
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key=key)
    assert again.status_code == 502
    assert again.headers["Location"] == failed.headers["Location"]
    whole = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key=key)
    assert whole.status_code == 201
    assert whole.headers["Location"] == failed.headers["Location"]
    assert [turn["content"] for turn in alice.turns(whole.json())] == ["Hello", "Whole."]
    assert len(provider.posts) == 3


def test_does_not_ask_again_where_newer_turns_followed(alice, provider):
    provider.script = [fails("Half"), reply("Newer.")]
    failed = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2")
    path = failed.headers["Location"]
    alice.post(path + "/messages", {"content": "Never mind"})
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2").status_code == 409
    alice.delete(path)
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2").status_code == 404


def test_a_cancelled_reply_counts_as_made(alice, provider):
    never = threading.Event()
    provider.script = [reply("Half", never)]
    with alice.stream("POST", "/sessions", {"content": "Hello"}, Idempotency_Key="k-3") as stream:
        events = iter(stream)
        session = next(events).data
        assert next(events).name == "content_delta"
        alice.post(f"/sessions/{session['id']}/cancel")
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-3")
    assert (again.status_code, again.json()["id"]) == (201, session["id"])
    assert len(provider.posts) == 1


# The rate limit


def test_counts_replies_exactly_over_all_processes(start, provider):
    server = start(OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", RATE_LIMIT="5/minute")
    alice, bob = server.client(), server.client("https://github.com/bob")
    answers = at_once(12, lambda number: alice.post("/sessions", {"content": f"Message {number}"}))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [429] * 7
    limited = next(answer for answer in answers if answer.status_code == 429)
    assert 50 <= int(limited.headers["Retry-After"]) <= 60
    assert len(alice.get("/sessions").json()["data"]) == 5
    session = alice.get("/sessions").json()["data"][0]
    path = f"/sessions/{session['id']}"
    assert alice.post(path + "/messages", {"content": "More"}).status_code == 429
    assert alice.post(path + "/retry").status_code == 429
    assert len(alice.turns(session)) == 2
    alice.delete(path)
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 429
    assert bob.post("/sessions", {"content": "Hello"}).status_code == 201


def test_the_window_of_the_limit_slides_and_keys_are_looked_up_first(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", RATE_LIMIT="2/second"
    ).client()
    first = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    deadline = time.monotonic() + 20
    while (limited := alice.post("/sessions", {"content": "Hello"})).status_code == 201:
        assert (
            time.monotonic() < deadline
        )  # a busy machine may take more than a second for the first three
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "1")
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k").json() == first.json()
    time.sleep(1)
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 201


# Titles by a model


def test_a_title_model_is_asked_beside_the_reply(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", MODELS="m-1", TITLE_MODEL="m-title", REPLY_WAIT="5"
    ).client()
    more = threading.Event()

    def answer(request):
        is_title = request.body["model"] == "m-title"
        yield from (reply('**"A Fine Title"**') if is_title else reply("Text", more, "."))(request)

    provider.default = answer
    with alice.stream("POST", "/sessions", {"content": "x" * 2000}) as stream:
        events = iter(stream)
        first = next(events)
        assert first.name == "session" and first.data["title"] == "x" * 60
        second, third = next(events), next(events)
        renamed = second if second.name == "session" else third
        assert renamed.data == {**first.data, "title": "A Fine Title"}
        more.set()
        assert [event.name for event in events][-2:] == ["assistant_turn", "done"]
    assert alice.get(f"/sessions/{first.data['id']}").json()["title"] == "A Fine Title"
    title_call = next(request for request in provider.posts if request.body["model"] == "m-title")
    assert title_call.body["messages"][-1]["content"] == "x" * 1000
    assert title_call.body["max_tokens"] < 1000


def test_a_title_never_overwrites_the_users_and_never_delays_a_reply(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", TITLE_MODEL="m-title"
    ).client()
    late = threading.Event()

    def answer(request):
        is_title = request.body["model"] == "m-title"
        yield from (reply(late, "Too Late") if is_title else reply("Text."))(request)

    provider.default = answer
    session = alice.create("Hello there")
    assert session["title"] == "Hello there"
    alice.patch(f"/sessions/{session['id']}", {"title": "Mine"})
    late.set()
    time.sleep(0.5)
    assert alice.get(f"/sessions/{session['id']}").json()["title"] == "Mine"
    provider.default = lambda request: (
        status(500)(request) if request.body["model"] == "m-title" else reply("Text.")(request)
    )
    assert alice.create("Hello again")["title"] == "Hello again"


def test_a_key_survives_another_spelling_of_the_path(alice, provider):
    session, key = alice.create(), uuid.uuid4().hex
    first = alice.post(
        f"/sessions/{session['id']}/messages", {"content": "More"}, Idempotency_Key=key
    )
    again = alice.post(
        f"/sessions/{session['id'].upper()}/messages", {"content": "More"}, Idempotency_Key=key
    )
    assert again.json() == first.json()
    assert len(provider.posts) == 2


def test_a_known_key_is_answered_whatever_models_there_are_by_now(start, new_database, provider):
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    first = start(**settings, MODELS="m-1").client()
    created = first.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-1")
    path = created.headers["Location"] + "/messages"
    message = first.post(path, {"content": "More"}, Idempotency_Key="k-2")
    asked = len(provider.requests)
    provider.models = []
    for models in (
        "m-2",
        "",
    ):  # another model is served; none is known, and the provider lists none
        later = start(**settings, MODELS=models).client()
        assert (
            later.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-1").json()
            == created.json()
        )
        assert later.post(path, {"content": "More"}, Idempotency_Key="k-2").json() == message.json()
    assert len(provider.requests) == asked
    assert later.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-3").status_code == 502


def test_counts_a_large_limit_at_once(start, new_database, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", RATE_LIMIT="3/hour"
    ).client()
    answers = [alice.post("/sessions", {"content": "Hello"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
    assert 3500 < int(answers[3].headers["Retry-After"]) <= 3600


@pytest.mark.parametrize("hours, is_known", [(23, True), (24, False)])
def test_a_key_holds_for_a_day(start, settings, provider, hours, is_known):
    """Then it is a new one, for a new session too, whose model is chosen by itself."""
    alice = start(**settings).client()
    first = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k").json()
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(f"UPDATE key SET created_at = created_at - {(hours * 3600 + 60) * 1_000_000}")
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    assert (again.status_code, again.json()["model"]) == (201, {"id": "m-1"})
    assert (again.json()["id"] == first["id"]) == is_known
    assert len(provider.posts) == (1 if is_known else 2)


@pytest.mark.parametrize("seconds_left", [3000, 60])
def test_a_key_asks_for_no_model_before_its_day_is_over(
    start, new_database, provider, seconds_left
):
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    created = (
        start(**settings, MODELS="m-1")
        .client()
        .post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    )
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(f"UPDATE key SET created_at = created_at - {DAY - seconds_left * SECOND}")
    asked, provider.models = len(provider.requests), status(500)
    again = start(**settings).client().post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    assert (again.status_code, again.json()) == (201, created.json())
    assert len(provider.requests) == asked


@pytest.mark.parametrize("is_under_way", [False, True], ids=["over", "under way"])
def test_of_a_deleted_session_only_stays_under_which_key_it_was_created(
    start, settings, provider, is_under_way
):
    server = start(**settings)
    alice, bob = server.client(), server.client(BOB)
    created = alice.post("/sessions", {"content": "My pin is 4711"}, Idempotency_Key="k-1")
    path = created.headers["Location"]
    assert alice.post(f"{path}/retry", Idempotency_Key="k-2").status_code == 201
    kept = [
        client.post("/sessions", {"content": "My pin is 4711"}, Idempotency_Key=key)
        for client, key in ((bob, "k-1"), (alice, "k-3"))
    ]
    if is_under_way:
        provider.script = [silence(threading.Event())]
    message = {"content": "Hers is 0815"}
    assert alice.post(f"{path}/messages", message, Idempotency_Key="k-1", Prefer="wait=1").ok
    asked = len(provider.posts)
    assert alice.delete(path).status_code == 204
    with tables_of(settings["DATABASE_URL"]) as tables:
        rows = tables.rows(
            "SELECT path, key, body, turn_id, session_id FROM key WHERE owner = ?", ALICE
        )
    [tombstone] = [row for row in rows if row[1] != "k-3"]
    assert tombstone[:4] == ("/sessions", "k-1", "", 0) and uuid.UUID(str(tombstone[4])).int == 0
    for body in ({"content": "My pin is 4711"}, {"content": "Another"}):
        assert alice.post("/sessions", body, Idempotency_Key="k-1").status_code == 404
    assert alice.post(f"{path}/messages", message, Idempotency_Key="k-1").status_code == 404
    again = [
        client.post("/sessions", {"content": "My pin is 4711"}, Idempotency_Key=key)
        for client, key in ((bob, "k-1"), (alice, "k-3"))
    ]
    assert [answer.json() for answer in again] == [answer.json() for answer in kept]
    assert len(provider.posts) == asked


def test_nobody_can_try_what_a_digest_is_of_without_the_databases_secret(start, new_database):
    body, digests = {"content": "My pin is 4711"}, []
    for url in (new_database(), new_database()):
        created = [
            start(DATABASE_URL=url).client().post("/sessions", body, Idempotency_Key="k")
            for _ in range(2)
        ]
        assert created[0].json() == created[1].json()  # by any process of this database
        with tables_of(url) as tables:
            digests.append(tables.value("SELECT body FROM key"))
    plain = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    assert len({plain, *digests}) == 3


def test_keys_and_what_limits_count_go_when_their_day_is_over(start, settings):
    """Of all users, those who never come back among them; however many there are."""
    start(**settings)
    now, count = time.time_ns() // 1000, 3000
    with tables_of(settings["DATABASE_URL"]) as tables:
        for name, at in (("old", now - DAY - 60 * SECOND), ("new", now - DAY + 600 * SECOND)):
            rows = [
                (name, "/sessions", f"{number}", "", uuid.UUID(int=0).hex, 0, at)
                for number in range(count)
            ]
            tables.fill(
                "key", ("owner", "path", "key", "body", "session_id", "turn_id", "created_at"), rows
            )
            tables.fill("asked", ("owner", "at"), [(name, at)] * count)
        start(**settings)  # as each process does hourly
        for table in ("key", "asked"):
            owners = f"SELECT owner, count(*) FROM {table} GROUP BY owner"
            wait_until(lambda: tables.rows(owners) == [("new", count)])


HELD = """
import gc, json, sys, time
import app
from providers import conversation
from replies import reply

application = app.create_app(json.loads(sys.argv[1]))
client = application.test_client()
headers = {"Authorization": "Bearer " + application.extensions["parley"].tokens.sign("https://github.com/alice", 1)}
gc.disable()  # else it is chance when what holds itself is found
statuses = []
for number in range(int(sys.argv[2])):
    answer = client.post("/sessions", json={"content": f"Message {number}"}, headers=headers)
    statuses.append(answer.status_code)
held, deadline = True, time.monotonic() + 10
while held and time.monotonic() < deadline:
    time.sleep(0.02)
    kinds = reply.Reply, conversation.Prompt
    held = [type(each).__name__ for each in gc.get_objects() if type(each) in kinds]
print(json.dumps([statuses, held]))
"""


def test_what_a_reply_held_is_let_go_of_when_it_is_over(settings, provider):
    """However it ends: its connection is kept, and its thread, which have served it."""
    broken = [cut("Half "), reply("and half.")], [cut("Half "), status(413)], [fails("Half ")]
    refused = [status(400)], [status(413)], [status(500)] * 3
    provider.script = [*itertools.chain(*broken, *refused), reply("Whole."), reply("Whole.")]
    command = [sys.executable, "-c", HELD, json.dumps(settings), "8"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    statuses, held = json.loads(run.stdout)
    assert statuses == [201, 502, 502, 502, 413, 502, 201, 201]
    assert held == []
