"""`POST /sessions/import`: what is kept, what is filled in, what is refused. Modules:
`api/import_schema.py`, `transfer/imports.py`."""

import datetime
import json
import re
import uuid

import pytest
import requests

from client import ALICE, at_once, parse_time, wait_until
from exports import export_of, imported, turns_of, without_ids
from provider import fails, reply, status
from raw_tables import tables_of

MEGABYTE = 2**20
LONG_AGO = "2023-03-06T16:00:00Z"


def now():
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


# What is kept


def test_an_imported_export_is_exported_again_with_only_other_ids(someone, server, provider):
    long = someone.create("First", system="Be kind.", options={"temperature": 0.5})
    provider.script = [reply("Cut", stop="length", usage=(1, 2, 3)), fails("Half ")]
    someone.post(f"/sessions/{long['id']}/messages", {"content": "Second 😀 \u202e\ufffd"})
    someone.post(f"/sessions/{long['id']}/messages", {"content": "Third\n" + "x" * 1000})
    for number in range(5):
        someone.create(f"Number {number}")
    someone.patch(f"/sessions/{long['id']}", {"title": "Mine"})
    provider.script = [status(503, {"error": {"message": "busy"}})] * 20
    someone.post("/sessions", {"content": "It failed"})
    provider.reset()
    first = export_of(someone)
    other = server.client(f"https://github.com/{uuid.uuid4().hex}")
    for line in first:
        imported(other, **line)
    second = export_of(other)
    assert len(first) == 7
    assert [without_ids(line) for line in second] == [without_ids(line) for line in first]
    ids = [line["id"] for line in first + second]
    turn_ids = [turn["id"] for line in first + second for turn in line["turns"]]
    assert len(set(ids)) == len(ids) and len(set(turn_ids)) == len(turn_ids)
    assert provider.posts == []


def test_an_imported_session_is_shown_listed_and_found(someone):
    turns = turns_of("Where is Ulm?", "On the Danube.", "Thanks", "")
    turns[1] |= {"model": "gpt-4o", "created_at": "2023-03-06T16:00:09Z", "stop_reason": "length"}
    turns[1] |= {"usage": {"input_tokens": 5, "output_tokens": 6, "cached_tokens": None}}
    turns[3] |= {"status": "interrupted"}
    session = imported(
        someone,
        title="Geography",
        turns=turns,
        system="Be brief.",
        options={"max_tokens": 10**6, "temperature": None},
        created_at=LONG_AGO,
    )
    assert session == {
        "id": session["id"],
        "title": "Geography",
        "model": {"id": "m-1"},
        "created_at": LONG_AGO,
        "updated_at": "2023-03-06T16:00:09Z",
    }
    shown = someone.get(f"/sessions/{session['id']}").json()
    assert (shown["system"], shown["options"]) == ("Be brief.", {"max_tokens": 10**6})
    assert [turn["created_at"][17:19] for turn in shown["turns"]] == ["00", "09", "09", "09"]
    second, last = shown["turns"][1], shown["turns"][3]
    assert (second["model"], second["stop_reason"]) == ({"id": "gpt-4o"}, "length")
    assert second["usage"] == {"input_tokens": 5, "output_tokens": 6, "cached_tokens": None}
    assert (second["status"], second["continued"], second["turns_left_out"]) == ("complete", 0, 0)
    assert (last["model"], last["status"], last["content"]) == ({"id": "m-1"}, "interrupted", "")
    [listed] = someone.get("/sessions").json()["data"]
    assert listed == session | {"last_message_preview": "Thanks", "pinned": False}
    for query in ("DANUBE", "geogr"):
        assert someone.request("GET", "/sessions", params={"query": query}).json()["data"]


def test_missing_fields_are_filled_in(someone):
    before = now().replace(microsecond=0)
    session = imported(someone, turns=turns_of("Explain the tides of the North Sea", "The moon."))
    assert session["title"] == "Explain the tides of the North Sea"
    assert before <= parse_time(session["created_at"]) <= now()
    [_, second] = someone.turns(session)
    assert (second["status"], second["stop_reason"], second["error"]) == ("complete", None, None)
    assert session["created_at"] == session["updated_at"] == second["created_at"]


def test_null_means_the_same_as_a_missing_field(someone):
    names = ("title", "model", "system", "options", "created_at", "updated_at", "origin")
    of_reply = dict.fromkeys(("created_at", "model", "status", "stop_reason", "usage", "error"))
    turns = turns_of("Hello", "Hello!")
    turns[0] |= {"id": None, "created_at": None}
    turns[1] |= {"id": None} | of_reply
    session = imported(someone, turns=turns, **dict.fromkeys((*names, "title_is_users", "id")))
    assert session["title"] == "Hello" and someone.turns(session)[1]["status"] == "complete"


def test_a_failed_reply_says_why_or_that_it_failed_elsewhere(someone):
    turns = turns_of("One", "", "Two", "")
    turns[1] |= {"status": "failed"}
    turns[3] |= {"status": "failed", "error": {"status": 429, "message": "Too many."}}
    shown = someone.turns(imported(someone, turns=turns))
    assert shown[1]["error"] == {"status": 502, "message": "It failed on another server."}
    assert shown[3]["error"] == {"status": 429, "message": "Too many."}


def test_only_failed_replies_keep_an_error_and_only_complete_ones_a_stop_reason(someone):
    turns = turns_of("One", "1", "Two", "2")
    turns[1] |= {"status": "interrupted", "stop_reason": "stop"}
    turns[3] |= {"error": {"status": 500, "message": "x"}, "stop_reason": "stop"}
    shown = someone.turns(imported(someone, turns=turns))
    assert (shown[1]["status"], shown[1]["stop_reason"]) == ("interrupted", None)
    assert (shown[3]["status"], shown[3]["stop_reason"], shown[3]["error"]) == (
        "complete",
        "stop",
        None,
    )


def test_times_with_other_zones_and_fractions_are_accepted(someone):
    turns = turns_of("Hello", "Hello!")
    turns[0]["created_at"] = "2023-03-06t18:00:00.123456+02:00"
    session = imported(someone, turns=turns)
    assert session["created_at"] == LONG_AGO


def test_imports_with_the_same_second_keep_their_order(someone):
    for number in range(7):
        imported(someone, title=f"{number}", created_at=LONG_AGO, turns=turns_of("Hello", "Hi"))
    assert [line["title"] for line in export_of(someone)] == list("0123456")
    listed = someone.get("/sessions").json()["data"]
    assert [row["title"] for row in listed] == list("6543210")
    assert {row["updated_at"] for row in listed} == {LONG_AGO}


# Continuing the conversation


def test_imported_turns_are_sent_to_the_model_and_not_counted(someone, provider):
    turns = turns_of("Where is Ulm?", "On the Danube.", "", "")[:2]
    turns += [
        {"kind": "assistant", "content": "In Swabia."},
        {"kind": "user", "content": "And Bonn?"},
    ]
    turns[1]["usage"] = {"input_tokens": 500, "output_tokens": 700}
    session = imported(someone, turns=turns, system="Be brief.")
    assert someone.get("/usage").json()["data"] == []
    path = f"/sessions/{session['id']}"
    assert someone.get(path + "/events", Accept="text/event-stream").status_code == 200
    assert someone.post(path + "/messages", {"content": "Both?"}).status_code == 201
    assert provider.posts[-1].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is Ulm?"},
        {"role": "assistant", "content": "On the Danube.\n\nIn Swabia."},
        {"role": "user", "content": "And Bonn?\n\nBoth?"},
    ]
    assert someone.get("/usage").json()["data"][0]["replies"] == 1


def test_a_retry_answers_the_last_message_of_an_import(someone, provider):
    session = imported(someone, turns=turns_of("One", "Two", "Three"))
    path = f"/sessions/{session['id']}"
    assert someone.post(path + "/continue").status_code == 409
    provider.script = [reply("Four")]
    answered = someone.post(path + "/retry")
    assert answered.status_code == 201 and answered.json()["content"] == "Four"
    assert [turn["content"] for turn in someone.turns(session)] == ["One", "Two", "Three", "Four"]
    someone.post(path + "/retry", {"content": "3"})
    assert [turn["content"] for turn in someone.turns(session)][:3] == ["One", "Two", "3"]


def test_a_retry_replaces_several_replies_to_the_last_message(someone, provider):
    turns = [*turns_of("One", "Two"), {"kind": "assistant", "content": "Three"}]
    session = imported(someone, turns=turns)
    provider.script = [reply("Four")]
    assert someone.post(f"/sessions/{session['id']}/retry").status_code == 201
    assert provider.posts[-1].body["messages"] == [{"role": "user", "content": "One"}]
    assert [turn["content"] for turn in someone.turns(session)] == ["One", "Two", "Four"]


def test_an_imported_reply_that_was_cut_can_be_continued(someone, provider):
    turns = turns_of("Count", "One, two, ")
    turns[1]["stop_reason"] = "length"
    session = imported(someone, turns=turns)
    provider.script = [reply("three")]
    went_on = someone.post(f"/sessions/{session['id']}/continue")
    assert (went_on.status_code, went_on.json()["content"]) == (201, "One, two, three")


def test_imports_count_against_no_limit(start, settings, provider):
    """Nor do the tokens of an imported reply that is continued. A fork and the first continue in it
    count once."""
    limits = {"RATE_LIMIT": "3/day", "TOKEN_LIMIT": "100/day"}
    server = start(**settings, **limits, METRICS_TOKEN="of-the-metrics-alone")
    alice = server.client()
    turns = turns_of("Count", "One, ")
    usage = {"input_tokens": 5000, "output_tokens": 7000, "cached_tokens": 0}
    turns[1] |= {"stop_reason": "length", "usage": usage}
    sessions = [imported(alice, turns=turns) for _ in range(3)]
    copies = [alice.post(f"/sessions/{one['id']}/fork").json() for one in sessions[:2]]
    assert alice.get("/usage").json()["meta"]["used"] == 0
    provider.default = reply("two", usage=(15, 7, 0))
    for session in (sessions[0], copies[0]):
        went_on = alice.post(f"/sessions/{session['id']}/continue").json()
        assert went_on["usage"]["input_tokens"] == 5015
    assert alice.get("/usage").json()["meta"]["used"] == 44
    assert alice.post(f"/sessions/{sessions[1]['id']}/fork").status_code == 429
    assert alice.post(f"/sessions/{sessions[1]['id']}/continue").status_code == 429
    assert imported(alice, turns=turns)
    told = server.client().get("/metrics", Authorization="Bearer of-the-metrics-alone").text
    assert 'parley_replies_total{model="m-1",outcome="complete"} 2' in told


def test_a_time_slightly_in_the_future_becomes_now(someone):
    ahead = (now() + datetime.timedelta(seconds=40)).strftime("%Y-%m-%dT%H:%M:%SZ")
    turns = turns_of("Hello", "Hi")
    turns[1]["created_at"] = ahead
    session = imported(someone, turns=turns, updated_at=ahead)
    moment = now() + datetime.timedelta(seconds=1)
    shown = someone.turns(session)[1]["created_at"]
    assert parse_time(session["updated_at"]) <= moment and parse_time(shown) <= moment


# The model


def test_an_unserved_model_is_replaced_by_the_default_but_stays_a_label(start, settings):
    server = start(**settings | {"DEFAULT_MODEL": None}, MODELS="m-1,m-2")
    alice = server.client()
    turns = turns_of("Hello", "Hi", "Again", "Yes")
    turns[1]["model"] = "gpt-3.5"
    for model, expected in (("m-2", "m-2"), ("gpt-4", "m-1"), ("other/x", "m-1"), (None, "m-1")):
        session = imported(alice, turns=turns, model=model)
        assert session["model"] == {"id": expected}
        shown = alice.turns(session)
        assert [turn["model"]["id"] for turn in shown[1::2]] == ["gpt-3.5", model or "m-1"]
        again = alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"})
        assert again.status_code == 201 and again.json()["model"] == {"id": expected}


# Origins


def test_an_origin_is_imported_once_for_each_user(someone, server):
    body = {"turns": turns_of("Hello", "Hi"), "origin": "chatgpt:1"}
    first = imported(someone, **body)
    again = someone.post("/sessions/import", body | {"title": "Another"})
    assert (again.status_code, again.json()) == (200, first)
    assert again.headers["Location"] == f"/sessions/{first['id']}"
    assert imported(someone, **body | {"origin": "chatgpt:2"})["id"] != first["id"]
    assert imported(server.client(f"https://x/{uuid.uuid4()}"), **body)["id"] != first["id"]
    someone.delete(f"/sessions/{first['id']}")
    second = imported(someone, **body)
    someone.delete(f"/sessions/{second['id']}")
    assert imported(someone, **body)["id"] not in (first["id"], second["id"])


def test_an_exported_session_is_imported_again_only_after_its_deletion(someone):
    session = someone.create()
    [line] = export_of(someone)
    body = line | {"origin": f"parley:{line['id']}"}
    there = someone.post("/sessions/import", body)
    assert (there.status_code, there.json()["id"]) == (200, session["id"])
    someone.delete(f"/sessions/{session['id']}")
    restored = imported(someone, **body)
    assert restored["id"] != session["id"]
    assert someone.post("/sessions/import", body).json()["id"] == restored["id"]
    assert someone.post("/sessions/import", line | {"origin": "parley:x"}).status_code == 201


def test_two_processes_that_import_one_origin_make_one_session(start, settings):
    clients = [start(**settings, WEB_CONCURRENCY=1).client() for _ in range(2)]
    for number in range(10):
        body = {"turns": turns_of("Hello", "Hi"), "origin": f"x:{number}"}
        answers = at_once(2, lambda place, body=body: clients[place].post("/sessions/import", body))
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(clients[0].get("/sessions").json()["data"]) == 10


# What is refused


def with_turn(**fields):
    return {"turns": [{"kind": "user", "content": "Hello"}, fields]}


ASSISTANT = {"kind": "assistant", "content": "Hi"}
FUTURE = "2999-01-01T00:00:00Z"
FAULTS = [
    ({}, "/turns"),
    ({"turns": None}, "/turns"),
    ({"turns": []}, "/turns"),
    ({"turns": {}}, "/turns"),
    ({"turns": [1]}, "/turns/0"),
    ({"turns": [ASSISTANT]}, "/turns/0/kind"),
    ({"turns": [{"kind": "user", "content": " \n"}]}, "/turns/0/content"),
    ({"turns": [{"kind": "user"}]}, "/turns/0/content"),
    ({"turns": [{"content": "Hello"}]}, "/turns/0/kind"),
    ({"turns": [{"kind": "system", "content": "x"}]}, "/turns/0/kind"),
    ({"turns": [{"kind": ["user"], "content": "x"}]}, "/turns/0/kind"),
    ({"turns": [{"kind": "user", "content": "x", "model": "m-1"}]}, "/turns/0/model"),
    ({"turns": [{"kind": "user", "content": "x", "status": "complete"}]}, "/turns/0/status"),
    (with_turn(**ASSISTANT | {"content": None}), "/turns/1/content"),
    (with_turn(**ASSISTANT | {"content": "\0"}), "/turns/1/content"),
    (with_turn(**ASSISTANT | {"content": "\ud800"}), "/turns/1/content"),
    (with_turn(**ASSISTANT, status="in_progress"), "/turns/1/status"),
    (with_turn(**ASSISTANT, status={}), "/turns/1/status"),
    (with_turn(**ASSISTANT, stop_reason="end"), "/turns/1/stop_reason"),
    (
        with_turn(**ASSISTANT, status="failed", error={"status": 200, "message": "x"}),
        "/turns/1/error/status",
    ),
    (with_turn(**ASSISTANT, status="failed", error={"status": 500}), "/turns/1/error/message"),
    (
        with_turn(**ASSISTANT, status="failed", error={"status": 500, "message": "x" * 2001}),
        "/turns/1/error/message",
    ),
    (with_turn(**ASSISTANT, usage={"input_tokens": -1}), "/turns/1/usage/input_tokens"),
    (with_turn(**ASSISTANT, usage={"input_tokens": 1.5}), "/turns/1/usage/input_tokens"),
    (with_turn(**ASSISTANT, usage={"input_tokens": 2**31}), "/turns/1/usage/input_tokens"),
    (with_turn(**ASSISTANT, usage={"input_tokens": True}), "/turns/1/usage/input_tokens"),
    (with_turn(**ASSISTANT, usage=[]), "/turns/1/usage"),
    (with_turn(**ASSISTANT, model="x" * 201), "/turns/1/model"),
    (with_turn(**ASSISTANT, model=" "), "/turns/1/model"),
    (with_turn(**ASSISTANT, odd=1), "/turns/1/odd"),
    (with_turn(**ASSISTANT, created_at=FUTURE), "/turns/1/created_at"),
    (with_turn(**ASSISTANT) | {"created_at": FUTURE}, "/created_at"),
    (with_turn(**ASSISTANT) | {"updated_at": FUTURE}, "/updated_at"),
    (with_turn(**ASSISTANT) | {"title": ""}, "/title"),
    (with_turn(**ASSISTANT) | {"title": "x" * 201}, "/title"),
    (with_turn(**ASSISTANT) | {"title_is_users": "yes"}, "/title_is_users"),
    (with_turn(**ASSISTANT) | {"title_is_users": 1}, "/title_is_users"),
    (with_turn(**ASSISTANT) | {"model": 5}, "/model"),
    (with_turn(**ASSISTANT) | {"system": "é" * (MEGABYTE // 2) + "x"}, "/system"),
    (with_turn(**ASSISTANT) | {"options": {"max_tokens": 0}}, "/options/max_tokens"),
    (with_turn(**ASSISTANT) | {"options": {"top_k": 1}}, "/options/top_k"),
    (with_turn(**ASSISTANT) | {"origin": ""}, "/origin"),
    (with_turn(**ASSISTANT) | {"origin": "x" * 256}, "/origin"),
    (with_turn(**ASSISTANT) | {"origin": 7}, "/origin"),
    (with_turn(**ASSISTANT) | {"origin": "\0"}, "/origin"),
    (with_turn(**ASSISTANT) | {"owner": "https://x/y"}, "/owner"),
]


@pytest.mark.parametrize("body, pointer", FAULTS)
def test_an_invalid_session_is_refused_with_a_pointer(server, newcomer, body, pointer):
    response = server.client(newcomer).post("/sessions/import", body)
    pointers = [error["source"]["pointer"] for error in response.json()["errors"]]
    assert (response.status_code, pointers) == (400, [pointer])


@pytest.mark.parametrize(
    "value",
    [
        *("yesterday", "", "2023-03-06", "2023-03-06T16:00:00", "2023-03-06 16:00:00Z"),
        *(
            "2023-02-30T00:00:00Z",
            "2023-03-06T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "٢٠٢٣-03-06T16:00:00Z",
        ),
        *("0001-01-01T00:00:00+23:59", 1678118400, 1e300, True, ["2023-03-06T16:00:00Z"]),
    ],
)
def test_an_invalid_time_is_refused(server, newcomer, value):
    body = {"turns": turns_of("Hello"), "created_at": value}
    response = server.client(newcomer).post("/sessions/import", body)
    [error] = response.json()["errors"]
    assert (response.status_code, error["source"]) == (400, {"pointer": "/created_at"})


def test_ten_thousand_turns_are_accepted_and_more_are_refused(someone):
    turns = turns_of(*["x"] * 10_000)
    assert len(export_of_one(someone, imported(someone, turns=turns))) == 10_000
    refused = someone.post("/sessions/import", {"turns": [*turns, turns[0]]})
    [error] = refused.json()["errors"]
    assert (refused.status_code, error["source"]) == (400, {"pointer": "/turns"})


def export_of_one(client, session):
    [turns] = [line["turns"] for line in export_of(client) if line["id"] == session["id"]]
    return turns


def test_an_import_may_be_sixteen_times_as_large_as_other_bodies(start, settings):
    alice = start(**settings, MAX_CONTENT_LENGTH=200_000).client()
    assert alice.post("/sessions", {"content": "x" * 200_000}).status_code == 413
    texts = ["é" * 30_000] * 17  # each "é" is sent as six bytes
    session = imported(alice, turns=turns_of("Begin", *texts))
    assert [turn["content"] for turn in alice.turns(session)[1:]] == texts
    refused = alice.post("/sessions/import", {"turns": turns_of("Begin", *["é" * 30_000] * 18)})
    assert refused.status_code == 413
    assert refused.json()["errors"][0]["detail"] == "Send at most 3200000 bytes."
    assert len(alice.get("/sessions").json()["data"]) == 1


def test_a_text_longer_than_the_largest_page_is_refused(someone):
    for text, code in (("x" * 2**23, 201), ("x" * (2**23 + 1), 400), ("é" * (2**22 + 1), 400)):
        body = json.dumps({"turns": turns_of("Begin", text)}, ensure_ascii=False).encode()
        headers = {"Authorization": f"Bearer {someone.token}", "Content-Type": "application/json"}
        url = someone.url + "/sessions/import"
        answer = requests.post(url, body, headers=headers, timeout=60)
        assert answer.status_code == code, answer.text[:200]
    [session] = someone.get("/sessions").json()["data"]
    assert [len(turn["content"]) for turn in someone.turns(session)] == [2**23]


def test_a_text_larger_than_the_systems_buffers_is_stored_each_time(someone):
    text = "x" * 2**23
    for number in range(3):
        session = imported(someone, turns=turns_of(f"Number {number}", text))
        assert someone.turns(session)[-1]["content"] == text


def test_an_import_in_chunks_is_accepted(someone):
    body = json.dumps({"turns": turns_of("Begin", *["x" * MEGABYTE] * 5)}).encode()

    def chunks():
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    headers = {"Authorization": f"Bearer {someone.token}", "Content-Type": "application/json"}
    url = someone.url + "/sessions/import"
    response = requests.post(url, data=chunks(), headers=headers, timeout=60)
    assert response.status_code == 201


MANY = [
    b"[" + b"{}," * 1_500_000 + b"{}]",
    b'{"turns": [' + b'"",' * 600_000 + b'""]}',
    b'{"turns": ' + b"[" * 4_400_000,
    b'{"turns": [{"kind": "user", "content": "x", ' + b'"a":0,' * 600_000 + b'"b": 1}]}',
]


@pytest.mark.parametrize("body", MANY, ids=range(len(MANY)))
def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(server, newcomer, body):
    headers = {"Authorization": f"Bearer {server.client(newcomer).token}"}
    headers |= {"Content-Type": "application/json"}
    answer = requests.post(server.url + "/sessions/import", body, headers=headers, timeout=60)
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["detail"] == "It has more values than ten thousand turns have."


def test_invalid_or_too_deep_json_is_refused(server, newcomer):
    client = server.client(newcomer)
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    for body in (b"", b"\xff{}", b'{"turns": ' + b"[" * 100_000, b'{"turns": NaN}', b"[]", b"7"):
        answer = requests.post(
            server.url + "/sessions/import", data=body, headers=headers, timeout=60
        )
        assert answer.status_code == 400, body[:20]
    assert client.request("GET", "/sessions/import").status_code in (404, 405)


def test_import_export_and_fork_need_a_token(server):
    for method, path in (
        ("POST", "/sessions/import"),
        ("GET", "/export"),
        ("POST", f"/sessions/{uuid.uuid4()}/fork"),
    ):
        assert requests.request(method, server.url + path, timeout=60).status_code == 401


# Retention


def test_retention_counts_from_the_import_and_not_from_the_old_date(start, settings):
    first = start(**settings, WEB_CONCURRENCY=1)
    alice = first.client()
    session = imported(alice, title="Of 2023", created_at=LONG_AGO, turns=turns_of("Hello", "Hi"))
    assert session["updated_at"] == LONG_AGO
    alice.create("Unused")
    forked = alice.create("Forked")
    with tables_of(settings["DATABASE_URL"]) as tables:
        moment = int(parse_time(LONG_AGO).replace(tzinfo=datetime.UTC).timestamp()) * 10**6
        tables.rows("UPDATE session SET updated_at = ?", moment)
    copy = alice.post(f"/sessions/{forked['id']}/fork").json()
    alice.delete(f"/sessions/{forked['id']}")
    assert copy["updated_at"] == LONG_AGO
    first.stop()
    second = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=30)
    assert 'retention="1 session is due' in second.wait_for_output(" start version=")
    second.stop()
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE release SET retention_since = retention_since - 86400000000")
    third = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=30)
    alice = third.client()

    def listed():
        titles = [row["title"] for row in alice.get("/sessions").json()["data"]]
        return titles if len(titles) == 2 else None

    assert sorted(wait_until(listed)) == ["Forked", "Of 2023"]
    assert re.search("INFO retention days=30 deleted=1", third.wait_for_output(" retention days="))
    young = {alice.create("Young")["id"] for _ in range(3)}  # more sessions than are due
    third.stop()
    month = 31 * 86_400_000_000
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET imported_at = imported_at - ?", month)
    fourth = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=30)
    alice = fourth.client(ALICE)
    wait_until(lambda: {row["id"] for row in alice.get("/sessions").json()["data"]} == young)
