"""`TOKEN_LIMIT`: the tokens that a user has used in a period are limited."""

import datetime

import pytest

from client import ALICE, BOB
from ledgers import day, now, usage_of, use

pytestmark = pytest.mark.usefixtures("within_a_day")


def test_all_tokens_that_a_user_used_in_the_period_count(start, settings, tables, provider):
    server = start(**settings, TOKEN_LIMIT="100/day")
    alice, bob = server.client(), server.client(BOB)
    use(tables, ALICE, 1, tokens=(1000, 1000, 0, 1000))  # yesterday, which is over
    tomorrow = (now() + datetime.timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
    assert usage_of(alice)["meta"] == {"used": 0, "limit": 100, "resets_at": tomorrow}
    session = alice.create(model="m-2")
    use(tables, ALICE, 0, tokens=(50, 0, 50, 27))
    assert usage_of(alice)["meta"]["used"] == 22 + 77
    last = alice.post("/sessions", {"content": "One more"}, Idempotency_Key="k-1")  # may exceed it
    assert last.status_code == 201
    path, turns, calls = f"/sessions/{session['id']}", alice.turns(session), len(provider.posts)
    for place, body in [
        ("/sessions", {"content": "Hello"}),
        (path + "/messages", {"content": "Hello"}),
        (path + "/retry", None),
    ]:
        refused = alice.post(place, body)
        assert refused.status_code == 429
        [error] = refused.json()["errors"]
        assert (
            error["detail"]
            == "You have used 121 of 100 tokens of this day (UTC). Ask again in the next one."
        )
        midnight = datetime.datetime.fromisoformat(tomorrow)
        left = (midnight - datetime.datetime.now(datetime.UTC)).total_seconds()
        assert abs(int(refused.headers["Retry-After"]) - left) < 5
    assert (
        alice.turns(session) == turns
        and len(provider.posts) == calls
        and len(alice.get("/sessions").json()["data"]) == 2
    )
    assert (
        alice.post("/sessions", {"content": "One more"}, Idempotency_Key="k-1").json()
        == last.json()
    )
    assert bob.post("/sessions", {"content": "Hello"}).status_code == 201
    alice.delete(path)
    assert (
        alice.post("/sessions", {"content": "Hello"}).status_code == 429
    )  # a deletion gives nothing back
    tables.rows("UPDATE usage SET day = ? WHERE owner = ? AND day = ?", day(2), ALICE, day(0))
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 201  # the next day


def test_a_month_begins_on_its_first_day(start, settings, tables):
    server = start(**settings, TOKEN_LIMIT="10/month")
    first = now().replace(day=1)
    tables.insert(
        "usage",
        owner=ALICE,
        day=first.date().isoformat(),
        model="m-1",
        replies=1,
        input_tokens=5,
        output_tokens=5,
        cached_tokens=0,
        estimated_tokens=0,
    )
    before = (first - datetime.timedelta(days=1)).date().isoformat()
    tables.insert(
        "usage",
        owner=BOB,
        day=before,
        model="m-1",
        replies=1,
        input_tokens=5,
        output_tokens=5,
        cached_tokens=0,
        estimated_tokens=0,
    )
    refused = server.client().post("/sessions", {"content": "Hello"})
    assert refused.status_code == 429 and "10 of 10 tokens of this month" in refused.text
    following = (first + datetime.timedelta(days=32)).replace(day=1)
    assert usage_of(server.client())["meta"] == {
        "used": 10,
        "limit": 10,
        "resets_at": following.strftime("%Y-%m-%dT00:00:00Z"),
    }
    assert server.client(BOB).post("/sessions", {"content": "Hello"}).status_code == 201


def test_a_request_refused_for_its_tokens_does_not_count_as_a_reply(start, settings, tables):
    server = start(**settings, TOKEN_LIMIT="10/day", RATE_LIMIT="1/day")
    use(tables, ALICE, 0, tokens=(10, 0, 0, 0))
    assert server.client().post("/sessions", {"content": "Hello"}).status_code == 429
    tables.rows("DELETE FROM usage")
    assert server.client().post("/sessions", {"content": "Hello"}).status_code == 201
