"""An idempotency key names a reply, which is never requested twice."""

import hashlib
import json
import threading
import time
import uuid

import pytest

from client import ALICE, BOB, at_once, wait_until
from provider import fails, reply, silence, status
from raw_tables import tables_of

SECOND = 1_000_000  # times are stored in microseconds


DAY = 24 * 3600 * SECOND


def test_twenty_equal_creations_make_one_session(server, provider):
    user = server.client(f"https://github.com/{uuid.uuid4().hex}")
    more = threading.Event()
    provider.default = reply("An ", more, "answer.")
    key = uuid.uuid4().hex
    answers = []

    def create(number):
        answers.append(user.post("/sessions", {"content": "Equal"}, Idempotency_Key=key))
        if len(answers) == 19:
            more.set()

    at_once(20, create)
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


def test_a_key_returns_the_first_outcome_however_it_is_received(alice, bob, provider):
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


def test_a_cancelled_reply_is_not_made_again_for_the_same_key(alice, provider):
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


def test_a_key_does_not_ask_again_if_newer_turns_followed(alice, provider):
    provider.script = [fails("Half"), reply("Newer.")]
    failed = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2")
    path = failed.headers["Location"]
    alice.post(path + "/messages", {"content": "Never mind"})
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2").status_code == 409
    alice.delete(path)
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-2").status_code == 404


def test_a_key_matches_another_spelling_of_the_path(alice, provider):
    session, key = alice.create(), uuid.uuid4().hex
    first = alice.post(
        f"/sessions/{session['id']}/messages", {"content": "More"}, Idempotency_Key=key
    )
    again = alice.post(
        f"/sessions/{session['id'].upper()}/messages", {"content": "More"}, Idempotency_Key=key
    )
    assert again.json() == first.json()
    assert len(provider.posts) == 2


def test_a_known_key_is_answered_whatever_models_are_served_now(start, new_database, provider):
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    first = start(**settings, MODELS="m-1", WEB_CONCURRENCY=1).client()
    created = first.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-1")
    path = created.headers["Location"] + "/messages"
    message = first.post(path, {"content": "More"}, Idempotency_Key="k-2")
    asked = len(provider.requests)
    provider.models = []
    for models in (
        "m-2",
        "",
    ):  # another model is served; then none is known
        later = start(**settings, MODELS=models, WEB_CONCURRENCY=1).client()
        assert (
            later.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-1").json()
            == created.json()
        )
        assert later.post(path, {"content": "More"}, Idempotency_Key="k-2").json() == message.json()
    assert len(provider.requests) == asked
    assert later.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-3").status_code == 502


@pytest.mark.parametrize("hours, is_known", [(23, True), (24, False)])
def test_a_key_holds_for_a_day(start, settings, provider, hours, is_known):
    """After that it is a new key, also for a new session, whose model is chosen by default."""
    alice = start(**settings).client()
    first = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k").json()
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(f"UPDATE key SET created_at = created_at - {(hours * 3600 + 60) * 1_000_000}")
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    assert (again.status_code, again.json()["model"]) == (201, {"id": "m-1"})
    assert (again.json()["id"] == first["id"]) == is_known
    assert len(provider.posts) == (1 if is_known else 2)


def test_a_key_asks_for_no_model_within_its_day(start, new_database, provider):
    seconds_left = 60
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    created = (
        start(**settings, MODELS="m-1", WEB_CONCURRENCY=1)
        .client()
        .post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    )
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(f"UPDATE key SET created_at = created_at - {DAY - seconds_left * SECOND}")
    asked, provider.models = len(provider.requests), status(500)
    again = start(**settings).client().post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    assert (again.status_code, again.json()) == (201, created.json())
    assert len(provider.requests) == asked


@pytest.mark.parametrize("is_in_progress", [False, True], ids=["over", "in progress"])
def test_of_a_deleted_session_only_the_key_of_its_creation_stays(
    start, settings, provider, is_in_progress
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
    if is_in_progress:
        provider.script = [silence(threading.Event())]
    message = {"content": "Hers is 0815"}
    prefer = "respond-async" if is_in_progress else None
    assert alice.post(f"{path}/messages", message, Idempotency_Key="k-1", Prefer=prefer).ok
    provider.wait_for_request(5)
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


def test_a_digest_cannot_be_guessed_without_the_databases_secret(start, new_database):
    body, digests = {"content": "My pin is 4711"}, []
    for url, count in ((new_database(), 2), (new_database(), 1)):
        servers = [start(DATABASE_URL=url, WEB_CONCURRENCY=1) for _ in range(count)]
        created = [
            server.client().post("/sessions", body, Idempotency_Key="k").json()
            for server in servers
        ]
        assert created[0] == created[-1]  # in any process of this database
        with tables_of(url) as tables:
            digests.append(tables.value("SELECT body FROM key"))
    plain = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    assert len({plain, *digests}) == 3


def test_keys_and_counts_for_limits_are_deleted_after_a_day(start, settings):
    """However many there are, and also for users who never come back."""
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
        start(**settings)  # each process sweeps when it starts, and hourly
        for table in ("key", "asked"):
            owners = f"SELECT owner, count(*) FROM {table} GROUP BY owner"
            wait_until(lambda: tables.rows(owners) == [("new", count)])
