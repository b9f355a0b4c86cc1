"""`RATE_LIMIT`: replies are counted exactly across all processes."""

import time

from client import at_once
from raw_tables import tables_of


def test_replies_are_counted_exactly_across_all_processes(start, provider):
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


def test_the_window_slides_and_a_repeated_key_is_not_limited(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", RATE_LIMIT="2/second"
    ).client()
    first = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k")
    deadline = time.monotonic() + 20
    while (limited := alice.post("/sessions", {"content": "Hello"})).status_code == 201:
        assert (
            time.monotonic() < deadline
        )  # on a busy machine, three requests may take more than a second
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "1")
    assert alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k").json() == first.json()
    time.sleep(1)
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 201


def test_a_clock_that_was_ahead_locks_no_user_out(start, settings):
    alice = start(**settings, RATE_LIMIT="2/minute").client()
    alice.create(), alice.create()
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 429
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE asked SET at = at + ?", 86_400_000_000)  # one day ahead
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 201


def test_a_fork_and_the_first_reply_in_it_count_once(start, settings):
    alice = start(**settings, RATE_LIMIT="3/minute").client()
    session = alice.create()
    fork = alice.post(f"/sessions/{session['id']}/fork").json()
    path = f"/sessions/{fork['id']}/messages"
    told = [alice.post(path, {"content": "More"}).status_code for _ in range(3)]
    assert told == [201, 201, 429]
    assert alice.post(f"/sessions/{session['id']}/fork").status_code == 429


def test_a_limit_per_hour_takes_effect_at_once(start, new_database, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", RATE_LIMIT="3/hour"
    ).client()
    answers = [alice.post("/sessions", {"content": "Hello"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
    assert 3500 < int(answers[3].headers["Retry-After"]) <= 3600
