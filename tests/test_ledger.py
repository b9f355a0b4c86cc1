"""What users have used is told, limited, measured and forgotten; what no provider counted is estimated."""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import uuid

import pytest
from prometheus_client.parser import text_string_to_metric_families

from client import ALICE, BOB, ROOT, wait_for_status, wait_until
from provider import cut, event, fails, reply, silence, status, thought
from raw_tables import tables_of
from test_auth import flask

APP = str(ROOT / "app.py")
CLAUDE = "claude-x"
METRICS = "the-token-of-the-metrics"
SILENT = reply("Twelve bytes", usage=(None, None, None))  # a provider that counts nothing
NOW = datetime.datetime.now(
    datetime.UTC
)  # where midnight comes while these run, some look a day too early


def day(ago):
    return (NOW - datetime.timedelta(days=ago)).date().isoformat()


def usage_of(client, **params):
    response = client.request("GET", "/usage", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def counts_of(client):
    """model → (replies, input, output, cached, estimated tokens)."""
    names = ("replies", "input_tokens", "output_tokens", "cached_tokens", "estimated_tokens")
    return {row["model"]: tuple(row[name] for name in names) for row in usage_of(client)["data"]}


@pytest.fixture
def tables(settings):
    with tables_of(settings["DATABASE_URL"]) as tables:
        yield tables


def use(tables, owner, ago, model="m-1", replies=1, tokens=(0, 0, 0, 0)):
    """Has this been used so many days ago."""
    names = ("input_tokens", "output_tokens", "cached_tokens", "estimated_tokens")
    tables.insert(
        "usage",
        owner=owner,
        day=day(ago),
        model=model,
        replies=replies,
        **dict(zip(names, tokens, strict=True)),
    )


# What one has used


def test_tells_users_their_own_days_the_newest_first(start, settings, tables):
    alice = start(**settings).client()
    assert usage_of(alice) == {"data": [], "meta": {"used": 0, "limit": None, "resets_at": None}}
    use(tables, ALICE, 29, tokens=(1, 2, 1, 4))
    use(tables, ALICE, 30, tokens=(10, 20, 10, 40))
    use(tables, ALICE, 29, "a-model", 3, (100, 200, 100, 400))
    use(tables, BOB, 0, tokens=(5, 5, 5, 5))
    alice.create()
    rows = [
        {"day": day(0), "model": "m-1", "replies": 1}
        | {"input_tokens": 15, "output_tokens": 7, "cached_tokens": 3, "estimated_tokens": 0},
        {"day": day(29), "model": "a-model", "replies": 3}
        | {
            "input_tokens": 100,
            "output_tokens": 200,
            "cached_tokens": 100,
            "estimated_tokens": 400,
        },
        {"day": day(29), "model": "m-1", "replies": 1}
        | {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 1, "estimated_tokens": 4},
    ]
    assert usage_of(alice) == {
        "data": rows,
        "meta": {"used": 22 + 700 + 7, "limit": None, "resets_at": None},
    }
    for params, expected in [
        ({"from": day(29), "to": day(29)}, rows[1:]),
        ({"from": day(28)}, rows[:1]),
        ({"to": day(1)}, [{"day": day(30)}, *rows[1:]]),
        ({"from": day(400), "to": day(31)}, []),
        ({"from": "0001-01-01", "to": "9999-12-31"}, [{"day": day(30)}, *rows]),
        ({"to": "0001-01-02"}, []),
    ]:
        told = usage_of(alice, **params)["data"]
        assert sorted(row["day"] for row in told) == sorted(row["day"] for row in expected), params
        assert [row["day"] for row in told] == sorted((row["day"] for row in told), reverse=True)


NO_DAYS = [
    "",
    "today",
    "2026-1-1",
    "2026-02-30",
    "20261101",
    "2026-W01-1",
    "٢٠٢٦-١١-٠١",
    "2026-11-01T00:00:00Z",
]


@pytest.mark.parametrize("value", NO_DAYS)
@pytest.mark.parametrize("name", ["from", "to"])
def test_refuses_what_is_no_day(alice, name, value):
    response = alice.request("GET", "/usage", params={name: value})
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["detail"], error["source"]) == (
        "Give a day like 2026-11-25.",
        {"parameter": name},
    )


def test_refuses_a_first_day_behind_the_last(alice):
    response = alice.request("GET", "/usage", params={"from": "2026-11-02", "to": "2026-11-01"})
    assert (response.status_code, response.json()["errors"][0]["source"]) == (
        400,
        {"parameter": "from"},
    )


# What no provider counted


def test_estimates_what_no_provider_counted(start, settings, provider):
    """A token for four bytes, of what was sent and of what came; it stands apart, and no turn claims it."""
    alice = start(**settings).client()
    provider.script = [SILENT]
    session = alice.create("Fünf", system="Be brief.")  # 5 and 9 bytes are sent, 12 come
    assert counts_of(alice) == {"m-1": (1, 0, 0, 0, 7)}
    assert alice.turns(session)[1]["usage"] == {
        "input_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
    }
    provider.script = [SILENT]
    alice.post(
        f"/sessions/{session['id']}/messages", {"content": "And six"}
    )  # behind them, 9 + 5 + 12 + 7 are sent, 12 come
    assert counts_of(alice) == {"m-1": (2, 0, 0, 0, 7 + 12)}
    assert usage_of(alice)["meta"]["used"] == 19


def test_estimates_only_that_part_that_was_not_counted(start, settings, provider):
    alice = start(**settings).client()
    provider.script = [
        reply("Twelve bytes", usage=(15, None, None)),
        reply("Twelve bytes", usage=(None, 7, None)),
    ]
    alice.create("Eight by")
    assert counts_of(alice) == {"m-1": (1, 15, 0, 0, 3)}
    alice.create("Eight by")
    assert counts_of(alice) == {"m-1": (2, 15, 7, 0, 5)}


def test_estimates_thoughts(start, settings, provider):
    alice = start(**settings).client()
    provider.script = [reply(thought(reasoning="Four"), "Four", usage=(15, None, None))]
    alice.create()
    assert counts_of(alice) == {"m-1": (1, 15, 0, 0, 2)}


def test_what_a_provider_refuses_costs_nothing(start, settings, provider):
    alice = start(**settings).client()
    refusals = [
        status(529),
        status(500),
        status(401),
        status(400, {"error": {"message": "context_length_exceeded"}}),
    ]
    for answers in ([refusals[0]] * 3, [refusals[1]] * 3, refusals[2:3], refusals[3:]):
        provider.script = [*answers]
        assert alice.post("/sessions", {"content": "Hello"}).status_code >= 400
    assert sum(counts[0] for counts in counts_of(alice).values()) == 4
    assert usage_of(alice)["meta"]["used"] == 0
    provider.script = [status(529), SILENT]
    alice.create("Eight by")
    assert usage_of(alice)["meta"]["used"] == 5


def test_a_call_that_breaks_is_counted_beside_the_one_that_goes_on(start, settings, provider):
    alice = start(**settings).client()
    provider.script = [cut("Half "), reply("and half.")]
    session = alice.create("Eight by")
    assert alice.turns(session)[1]["continued"] == 1
    assert counts_of(alice) == {"m-1": (1, 15, 7, 3, 4)}  # 8 + 5 bytes
    assert alice.turns(session)[1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": 7,
        "cached_tokens": 3,
    }


def test_what_a_provider_takes_back_stays_counted(start, settings, provider):
    """Else a counter would fall."""
    gate = threading.Event()
    counted = {"prompt_tokens": 100, "completion_tokens": 0}
    provider.script = [
        reply(event({"choices": [], "usage": counted}), "Twelve bytes", gate, usage=(10, 7, 0))
    ]
    server = start(**settings, METRICS_TOKEN=METRICS)
    alice = server.client()
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    wait_until(lambda: metrics_of(server).get(("parley_tokens_total", "input", "m-1")) == 100)
    gate.set()
    wait_for_status(alice, session, "complete")
    assert counts_of(alice) == {"m-1": (1, 100, 7, 0, 0)}


def test_a_place_holder_is_no_count(start, provider, new_database):
    """Anthropic's message_start has 0 or 1 in the place of the output's tokens."""
    never = threading.Event()
    server = start(
        DATABASE_URL=new_database(), ANTHROPIC_BASE_URL=provider.url, DEFAULT_MODEL=CLAUDE
    )
    alice = server.client()
    provider.script = [reply("Twelve bytes", never)]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    with alice.events(session) as stream:
        assert next(iter(stream)).data == {"delta": "Twelve bytes"}
    assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
    wait_until(
        lambda: counts_of(alice) == {CLAUDE: (1, 15, 0, 3, 3)}
    )  # of the input, 11 were new, 1 was put into the cache
    assert alice.turns(session)[1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": None,
        "cached_tokens": 3,
    }


def test_cancelled_before_the_first_word_it_has_cost_what_was_sent(start, settings, provider):
    never = threading.Event()
    provider.script = [silence(never)]
    alice = start(**settings).client()
    session = alice.post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    provider.wait_for_request()
    assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
    wait_until(lambda: counts_of(alice) == {"m-1": (1, 0, 0, 0, 2)})


def test_deleted_while_it_is_written_it_is_counted(start, settings, provider):
    never = threading.Event()
    provider.script = [reply("Twelve bytes", never)]
    alice = start(**settings).client()
    session = alice.post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    with alice.events(session) as stream:
        next(iter(stream))
    assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    wait_until(lambda: counts_of(alice) == {"m-1": (1, 0, 0, 0, 5)})


def test_titles_that_a_model_writes_count_as_that_models_tokens(start, settings, provider):
    def answer(request):
        return (
            reply("A title", usage=(100, 5, 0))(request)
            if request.body["model"] == "m-2"
            else reply("The answer.")(request)
        )

    provider.default = answer
    alice = start(**settings, TITLE_MODEL="m-2").client()
    alice.create()
    wait_until(lambda: counts_of(alice) == {"m-1": (1, 15, 7, 3, 0), "m-2": (0, 100, 5, 0, 0)})
    provider.default = lambda request: SILENT(request)
    alice.create("Eight by")
    prompt = "Write a title of three to seven words for the conversation that begins with the user's message. Only the title."
    sent = -(-(len(prompt) + 8 + 12) // 4)
    wait_until(lambda: counts_of(alice) == {"m-1": (2, 15, 7, 3, 5), "m-2": (0, 100, 5, 0, sent)})


def test_the_echo_is_estimated_too(start, new_database):
    alice = start(DATABASE_URL=new_database()).client()
    alice.create("Hello, Parley!")
    assert counts_of(alice) == {"echo": (1, 0, 0, 0, 7)}


def test_what_is_asked_for_later_counts_on_that_day(start, settings, provider, tables):
    """Also where it continues an older turn."""
    alice = start(**settings).client()
    provider.script = [fails("Half ")]
    failed = alice.post("/sessions", {"content": "Hello"})
    path = failed.headers["Location"]
    tables.rows("UPDATE turn SET created_at = created_at - 3 * 86400000000")
    tables.rows("UPDATE session SET updated_at = updated_at - 3 * 86400000000")
    tables.rows("UPDATE usage SET day = ?", day(3))
    assert alice.post(path + "/continue").status_code == 201
    today, before = usage_of(alice)["data"]
    assert (today["day"], today["replies"], today["output_tokens"]) == (day(0), 1, 7)
    assert (before["day"], before["replies"], before["output_tokens"]) == (day(3), 1, 0)


@pytest.mark.parametrize("limit", [0, 2])
def test_what_a_dead_process_used_is_counted(start, provider, new_database, limit):
    """What its provider had said is known, as it was stored with the text; the rest is estimated of what is stored."""
    settings = {
        "DATABASE_URL": new_database(),
        "ANTHROPIC_BASE_URL": provider.url,
        "DEFAULT_MODEL": CLAUDE,
    }
    settings["CONTINUE_LIMIT"] = limit
    server = start(**settings)
    never = threading.Event()
    provider.script = [reply("Twelve bytes", never), reply("and more")]
    with server.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Twelve bytes"}
        server.kill()
    with tables_of(settings["DATABASE_URL"]) as tables:  # what the dead process had until now
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
    alice = start(**settings).client()
    wait_for_status(alice, session, "complete" if limit else "interrupted", 30)
    said = (1, 30, 7, 6) if limit else (1, 15, 0, 3)
    assert counts_of(alice) == {CLAUDE: (*said, 3)}


@pytest.mark.parametrize("what", ["cancelled", "deleted"])
def test_what_ends_before_anyone_takes_it_over_is_counted(start, settings, provider, tables, what):
    writer, other = (start(**settings, WEB_CONCURRENCY=1) for _ in range(2))
    provider.script = [reply("Twelve bytes", threading.Event())]
    with writer.client().stream("POST", "/sessions", {"content": "Eight by"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Twelve bytes"}
        writer.kill()
    tables.rows(
        "UPDATE turn SET lease_until = lease_until - 6000000 WHERE status = 'in_progress'"
    )  # six seconds ago, as it were
    alice, path = other.client(), f"/sessions/{session['id']}"
    assert (alice.post(path + "/cancel") if what == "cancelled" else alice.delete(path)).ok
    assert counts_of(alice) == {"m-1": (1, 0, 0, 0, 5)}


def test_what_is_continued_at_once_where_another_process_has_it_cancelled_is_counted(
    start, settings, provider
):
    writer, other = (start(**settings, WEB_CONCURRENCY=1) for _ in range(2))
    provider.script = [reply("Twelve bytes", threading.Event()), reply(" and more")]
    session = (
        writer.client().post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    )
    alice, path = other.client(), f"/sessions/{session['id']}"
    with alice.events(session) as stream:
        next(iter(stream))
    assert alice.post(path + "/cancel").status_code == 200
    assert alice.post(path + "/continue").status_code == 201
    writer.wait_for_output("outcome=")  # of the process that had it, which may have come first
    assert counts_of(alice) == {"m-1": (2, 15, 7, 3, 5)}


def test_what_no_provider_knows_is_no_word_of_the_ledger(start, settings, provider):
    """Any user may name it."""
    provider.script = [status(404, {"error": {"message": "no such model"}})] * 2
    alice = start(**settings).client()
    for number in range(2):
        assert (
            alice.post(
                "/sessions", {"content": "Hello", "model": f"my-secret-{number}"}
            ).status_code
            == 400
        )
    assert counts_of(alice) == {"other": (2, 0, 0, 0, 0)}


# The limit of tokens


def test_a_limit_of_tokens_holds_over_all_that_a_user_used_in_its_period(
    start, settings, tables, provider
):
    server = start(**settings, TOKEN_LIMIT="100/day")
    alice, bob = server.client(), server.client(BOB)
    use(tables, ALICE, 1, tokens=(1000, 1000, 0, 1000))  # is over
    tomorrow = (NOW + datetime.timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
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
    first = NOW.replace(day=1)
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


def test_what_is_refused_for_its_tokens_counts_in_no_rate(start, settings, tables):
    server = start(**settings, TOKEN_LIMIT="10/day", RATE_LIMIT="1/day")
    use(tables, ALICE, 0, tokens=(10, 0, 0, 0))
    assert server.client().post("/sessions", {"content": "Hello"}).status_code == 429
    tables.rows("DELETE FROM usage")
    assert server.client().post("/sessions", {"content": "Hello"}).status_code == 201


# Metrics


def metrics_of(server):
    """(name, labels as sorted pairs) → value, as Prometheus's own parser reads it."""
    response = server.client().get(
        "/metrics", Authorization=f"Bearer {METRICS}", Accept="text/plain"
    )
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert {family.name: family.type for family in families} == {
        "parley_replies": "counter",
        "parley_tokens": "counter",
        "parley_replies_in_progress": "gauge",
        "parley_info": "gauge",
    }
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_metrics_are_the_sums_of_all_users(start, settings, provider):
    server = start(**settings, METRICS_TOKEN=METRICS)
    version = server.client().get("/health").json()["version"]
    assert metrics_of(server) == {("parley_replies_in_progress",): 0, ("parley_info", version): 1}
    alice, bob = server.client(), server.client(BOB)
    session = alice.create()
    bob.create()
    provider.script = [fails("Half")]
    assert bob.post("/sessions", {"content": "Eight by"}).status_code == 502
    never = threading.Event()
    provider.script = [reply("Half", never)]
    path = f"/sessions/{session['id']}"
    assert (
        alice.post(path + "/messages", {"content": "More"}, Prefer="respond-async").status_code
        == 202
    )
    with alice.events(session) as stream:
        next(iter(stream))
    assert metrics_of(server)[("parley_replies_in_progress",)] == 1
    assert alice.post(path + "/cancel").status_code == 200
    estimated = 3 + -(-(5 + 11 + 4 + 4) // 4)
    wait_until(lambda: metrics_of(server)[("parley_tokens_total", "estimated", "m-1")] == estimated)
    odd = 'a"b\\c\nd'
    alice.create(model=odd)
    expected = {
        ("parley_replies_total", "complete", "m-1"): 2,
        ("parley_replies_total", "failed", "m-1"): 1,
        ("parley_replies_total", "interrupted", "m-1"): 1,
        ("parley_tokens_total", "input", "m-1"): 30,
        ("parley_tokens_total", "m-1", "output"): 14,
        ("parley_tokens_total", "cached", "m-1"): 6,
        ("parley_tokens_total", "estimated", "m-1"): estimated,
        ("parley_replies_total", odd, "complete"): 1,
        ("parley_replies_total", odd, "failed"): 0,
        ("parley_replies_total", odd, "interrupted"): 0,
        ("parley_tokens_total", odd, "input"): 15,
        ("parley_tokens_total", odd, "output"): 7,
        ("parley_tokens_total", odd, "cached"): 3,
        ("parley_tokens_total", odd, "estimated"): 0,
        ("parley_replies_in_progress",): 0,
        ("parley_info", version): 1,
    }
    assert metrics_of(server) == expected
    alice.delete(path)
    assert metrics_of(server) == expected
    assert metrics_of(start(**settings, METRICS_TOKEN=METRICS)) == expected  # another host


def test_a_continue_that_brings_nothing_has_failed(start, settings, provider):
    server = start(**settings, METRICS_TOKEN=METRICS)
    alice = server.client()
    provider.script = [reply("Half", stop="length"), status(401)]
    session = alice.create(options={"max_tokens": 7})
    assert alice.post(f"/sessions/{session['id']}/continue").status_code == 502
    metrics = metrics_of(server)
    assert (
        metrics[("parley_replies_total", "complete", "m-1")]
        == metrics[("parley_replies_total", "failed", "m-1")]
        == 1
    )


def test_nobody_is_told_that_there_are_metrics(start, settings):
    server, without = start(**settings, METRICS_TOKEN=METRICS), start(**settings)
    nowhere = server.client().get("/nowhere")
    asked = [
        (without, f"Bearer {METRICS}"),
        (server, None),
        (server, "Bearer"),
        (server, METRICS),
        (server, f"Basic {METRICS}"),
    ]
    asked += [
        (server, f"Bearer {METRICS}-"),
        (server, f"Bearer {METRICS[:-1]}"),
        (server, "Bearer \xff"),
    ]
    asked += [(server, f"Bearer {server.client().token}")]
    for each, authorization in asked:
        response = each.client().get("/metrics", Authorization=authorization)
        assert (response.status_code, response.json()) == (404, nowhere.json()), authorization
    assert server.client().get("/metrics", Authorization=f"bearer {METRICS}").status_code == 200
    server.stop()
    assert METRICS not in server.output()


def test_any_user_may_name_a_thousand_models_and_the_rest_are_one(start, settings, tables):
    columns = (
        "owner",
        "day",
        "model",
        "replies",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "estimated_tokens",
    )
    server = start(**settings, METRICS_TOKEN=METRICS)
    rows = [(ALICE, day(1), f"odd-{number:04}", 1, 1, 1, 1, 1) for number in range(1500)]
    tables.fill("usage", columns, [(ALICE, day(2), "m-1", 1, 1, 1, 1, 1), *rows])
    metrics = metrics_of(server)
    assert len(metrics) == 2 + 7 * 1001
    assert metrics[("parley_replies_total", "complete", "m-1")] == 1
    assert metrics[("parley_replies_total", "complete", "other")] == 501


# Deleting


def put_back(tables, session, days):
    """Has nobody used this session for so long."""
    tables.rows(
        "UPDATE session SET updated_at = updated_at - ? WHERE id = ?",
        days * 86_400_000_000,
        id_of(tables, session),
    )


def id_of(tables, session):
    return uuid.UUID(session["id"]).hex if tables.is_sqlite else session["id"]


def test_sessions_that_nobody_used_are_deleted_and_others_are_not(
    start, settings, provider, tables
):
    server = start(**settings)
    alice, bob = server.client(), server.client(BOB)
    never = threading.Event()
    old, older, fresh, young = (
        alice.create("Old"),
        bob.create("Older"),
        alice.create("Fresh"),
        bob.create("Young"),
    )
    provider.script = [reply("Half", never)]
    busy = alice.post("/sessions", {"content": "Busy"}, Prefer="respond-async").json()
    with alice.events(busy) as stream:
        next(iter(stream))
    for session, days in [(old, 8), (older, 800), (fresh, 6), (busy, 8)]:
        put_back(tables, session, days)
    tables.rows(
        "UPDATE release SET retention_days = 7, retention_since = 0"
    )  # the first day is over
    start(**settings, RETENTION_DAYS=7)
    wait_until(
        lambda: (
            old["id"] not in alice.get("/sessions").text
            and older["id"] not in bob.get("/sessions").text
        )
    )
    assert {row["id"] for row in alice.get("/sessions").json()["data"]} == {fresh["id"], busy["id"]}
    assert [row["id"] for row in bob.get("/sessions").json()["data"]] == [young["id"]]
    wait_until(lambda: tables.value("SELECT count(*) FROM turn") == 6)
    shown = alice.get(f"/sessions/{busy['id']}")
    assert shown.status_code == 200, shown.text
    assert [turn["content"] for turn in shown.json()["turns"]] == ["Busy", "Half"]
    put_back(tables, busy, -8)  # else it might be deleted rightly, by the second process to start
    never.set()
    wait_for_status(alice, busy, "complete")
    assert counts_of(bob) == {"m-1": (2, 30, 14, 6, 0)}


def words_of(tables):
    """All that the tables have, in one text."""
    names = {table for table, *_ in tables.columns()}
    return "\n".join(str(row) for name in names for row in tables.rows(f'SELECT * FROM "{name}"'))


def test_forgets_a_person(start, settings, provider, tables, tmp_path):
    server = start(**settings, METRICS_TOKEN=METRICS, RATE_LIMIT="100/day")
    alice, bob = server.client(), server.client(BOB)
    provider.default = reply("Her answer, word for word.")
    for number in range(3):
        alice.post(
            "/sessions",
            {"content": f"Her message {number}", "system": "Her prompt"},
            Idempotency_Key=f"her-key-{number}",
        )
    provider.default = reply("His answer.")
    his = bob.create("His message")
    never = threading.Event()
    provider.script = [reply("Her half ", never)]
    with alice.stream("POST", "/sessions", {"content": "Her last message"}) as stream:
        frames = iter(stream)
        assert [next(frames).name for _ in range(2)] == ["session", "content_delta"]
        before = metrics_of(server)
        ended = flask(
            tmp_path, "--app", APP, "forget", "--yes", ALICE, DATABASE_URL=settings["DATABASE_URL"]
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(
            f"{ALICE} is forgotten, with 4 sessions. Backups, logs and providers keep theirs."
        )
        assert [(frame.name, frame.data["status"]) for frame in frames] == [("error", 404)]
    wait_until(lambda: metrics_of(server)[("parley_replies_in_progress",)] == 0)
    wait_until(lambda: metrics_of(server)[("parley_replies_total", "interrupted", "m-1")] == 1)
    text = words_of(tables)
    assert not re.search("alice|her", text, re.IGNORECASE), text
    after = metrics_of(server)
    assert all(after[name] >= value for name, value in before.items() if name[0].endswith("_total"))
    assert usage_of(alice)["data"] == [] and alice.get("/sessions").json()["data"] == []
    assert [turn["content"] for turn in bob.turns(his)] == ["His message", "His answer."]
    again = flask(
        tmp_path, "--app", APP, "forget", "--yes", ALICE, DATABASE_URL=settings["DATABASE_URL"]
    )
    assert (again.returncode, again.stdout) == (
        1,
        "",
    ) and f"Nothing is stored of {ALICE}." in again.stderr
    alice.create()  # who comes back is new
    assert counts_of(alice)["m-1"][0] == 1


@pytest.mark.parametrize("answer, is_forgotten", [("y\n", True), ("n\n", False), ("", False)])
def test_asks_before_it_forgets_a_person(start, settings, tmp_path, answer, is_forgotten):
    alice = start(**settings).client()
    alice.create(), alice.create()
    command = [sys.executable, "-m", "flask", "--app", APP, "forget", ALICE]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": settings["DATABASE_URL"]}
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"Delete all that is stored of {ALICE}, 2 sessions among it? [y/N]" in ended.stdout
    assert (ended.returncode == 0) == is_forgotten, ended.stderr
    assert len(alice.get("/sessions").json()["data"]) == (0 if is_forgotten else 2)


NOBODY = "The subject names nobody."


@pytest.mark.parametrize(
    "subject, told", [("", NOBODY), (" ", NOBODY), ("bob", "Nothing is stored of bob.")]
)
def test_forgets_nobody_by_mistake(start, settings, tables, tmp_path, subject, told):
    start(**settings, RATE_LIMIT="9/day").client().create()
    use(tables, "", 0)
    before = words_of(tables)
    ended = flask(
        tmp_path, "--app", APP, "forget", "--yes", subject, DATABASE_URL=settings["DATABASE_URL"]
    )
    assert (ended.returncode, ended.stdout) == (1, "") and f"Error: {told}" in ended.stderr
    assert words_of(tables) == before


@pytest.mark.parametrize("words", [("usage",), ("forget", ALICE)], ids=lambda words: words[0])
def test_the_operators_commands_make_no_database_and_migrate_none(settings, tmp_path, words):
    url = settings["DATABASE_URL"]
    ended = flask(tmp_path, "--app", APP, *words, DATABASE_URL=url)
    told = "DATABASE_URL: the service has not been started on this database yet; start it first\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)
    if url.startswith("sqlite"):
        assert not pathlib.Path(url.removeprefix("sqlite:///")).exists()
    else:
        with tables_of(url) as tables:
            assert tables.columns() == set()


def test_a_deletion_does_not_wait_for_those_of_others(start, settings, tables):
    """Which a process that died has left; the next to start goes on with them."""
    alice = start(**settings).client()
    left, mine = alice.create("Left"), alice.create("Mine")
    tables.rows("UPDATE session SET owner = '' WHERE id = ?", id_of(tables, left))
    assert alice.delete(f"/sessions/{mine['id']}").status_code == 204
    assert tables.value("SELECT count(*) FROM session") == 1
    start(**settings)
    wait_until(
        lambda: (
            tables.value("SELECT count(*) FROM session")
            == tables.value("SELECT count(*) FROM turn")
            == 0
        )
    )


# The operator's table


def test_prints_a_line_for_each_user(settings, start, tables, tmp_path):
    def usage(*options):
        ended = flask(
            tmp_path, "--app", APP, "usage", *options, DATABASE_URL=settings["DATABASE_URL"]
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    start(**settings)
    assert usage().split() == ["replies", "input", "output", "cached", "estimated", "user"]
    use(tables, ALICE, 0, "m-1", 10, (1000, 200, 30, 4))
    use(tables, ALICE, 29, "m-2", 1, (1, 1, 1, 1))
    use(tables, ALICE, 30, "m-2", 1, (10**9, 1, 1, 1))
    use(
        tables,
        "https://id.example/" + "a-very-long-name-" * 5,
        0,
        "m-1",
        5 * 10**8,
        (10**12, 10**13, 0, 10**7),
    )
    use(tables, "odd\x1b[2J漢字", 0)
    use(tables, "", 0, "m-1", 2)
    lines = usage().splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert [line.split() for line in lines] == [
        ["replies", "input", "output", "cached", "estimated", "user"],
        ["500M", "1000000M", "10000000M", "0", "10000000", "…long-name-a-very-long-name-"],
        ["11", "1001", "201", "31", "5", ALICE],
        ["2", "0", "0", "0", "0", "(forgotten)"],
        ["1", "0", "0", "0", "0", "odd?[2J??"],
    ]
    users = json.loads(usage("--json", "--days", "31"))
    assert users[1] == {
        "user": ALICE,
        "replies": 12,
        "input_tokens": 1000001001,
        "output_tokens": 202,
        "cached_tokens": 32,
        "estimated_tokens": 6,
    }
    assert (
        users[0]["user"].endswith("name-a-very-long-name-") and users[0]["input_tokens"] == 10**12
    )
