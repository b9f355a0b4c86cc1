"""`POST /sessions/import` with a conversation of another product, exactly as in its export file."""

import concurrent.futures
import time
import uuid

import pytest
import requests

import archives
from client import ALICE
from exports import export_of, imported, turns_of, without_ids

PRODUCTS = {
    "ChatGPT": (archives.CHATGPT, archives.CHATGPT_BODY, "files=2, tools=2, branches=3"),
    "Claude": (archives.CLAUDE, archives.CLAUDE_BODY, "files=2, tools=2, branches=2"),
    "Open WebUI": (archives.OPENWEBUI, archives.OPENWEBUI_BODY, "files=1, tools=2, branches=3"),
    "plain": (*archives.asked_of_openwebui(7), None),
}


def take(client, conversation, **others):
    return client.post("/sessions/import", {"conversation": conversation} | others)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_conversation_is_imported_as_it_is_in_its_file(someone, name):
    conversation, body, left_out = PRODUCTS[name]
    response = take(someone, conversation)
    session = response.json()
    assert response.status_code == 201 and response.headers.get("Left-Out") == left_out
    assert response.headers["Location"] == f"/sessions/{session['id']}"
    assert session.keys() == {"id", "title", "model", "created_at", "updated_at"}
    assert session["title"] == body["title"]
    [line] = export_of(someone)
    for turn, expected in zip(line["turns"], body["turns"], strict=True):
        assert {name: turn.get(name) for name in ("kind", "content")} == {
            name: expected[name] for name in ("kind", "content")
        }
        assert turn.get("thinking") == expected.get("thinking")
        assert turn["created_at"] == expected.get("created_at", turn["created_at"])
        assert turn.get("model") in (expected.get("model"), "m-1")
    again = take(someone, conversation)
    assert (again.status_code, again.json()["id"]) == (200, session["id"])
    assert "Left-Out" not in again.headers
    imported_before = someone.post("/sessions/import", body)
    assert (imported_before.status_code, imported_before.json()["id"]) == (200, session["id"])


def test_a_line_of_an_export_is_imported_once(someone, server):
    someone.create("Hello")
    [line] = export_of(someone)
    other = server.client(f"https://github.com/{uuid.uuid4().hex}")
    assert [take(other, line).status_code for _ in range(2)] == [201, 200]
    assert take(someone, line).status_code == 200  # the session itself is still there
    [copied] = export_of(other)
    assert without_ids(copied) == without_ids(line)


PLAIN = archives.asked_of_chatgpt(1)[0]
NO_CONVERSATION = "This is not a conversation of ChatGPT, Claude, Open WebUI or Parley."
ALONE = "Send it without other fields."
FUTURE = "Give a time in the past: this one is in the future."
OWN = {"id": "1", "turns": [{"kind": "user", "content": " "}]}
# a body, the error, and where it is
REFUSED = [
    ({"conversation": {}}, NO_CONVERSATION, ""),
    ({"conversation": "mapping"}, NO_CONVERSATION, ""),
    ({"conversation": [PLAIN]}, NO_CONVERSATION, ""),
    ({"conversation": 7, "title": None}, NO_CONVERSATION, ""),
    ({"conversation": PLAIN, "title": "Mine"}, ALONE, ""),
    ({"conversation": PLAIN, "turns": []}, ALONE, ""),
    ({"conversation": PLAIN, "odd": None}, ALONE, ""),
    ({"conversation": PLAIN, "files": {}, "odd": None}, ALONE, ""),
    ({"conversation": PLAIN | {"id": None}}, "It has no id.", ""),
    ({"conversation": PLAIN | {"mapping": {}}}, "It has no message of yours.", ""),
    (
        {"conversation": archives.chatgpt(archives.said("user", "?", at=9e9))},
        f"turns/0/created_at: {FUTURE}",
        "",
    ),
    ({"conversation": PLAIN | {"id": "x" * 300}}, "origin: Give from 1 to 255 characters.", ""),
    ({"conversation": OWN}, "Give some text; this is blank.", "/turns/0/content"),
]


@pytest.mark.parametrize("body, sentence, place", REFUSED, ids=range(len(REFUSED)))
def test_a_conversation_that_is_refused_says_why(server, newcomer, body, sentence, place):
    client = server.client(newcomer)
    response = client.post("/sessions/import", body)
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["detail"], error["source"]) == (
        sentence,
        {"pointer": f"/conversation{place}"},
    )
    assert client.get("/sessions").json()["data"] == []


def test_a_conversation_that_is_null_is_ignored(someone):
    imported(someone, turns=turns_of("Hello", "Hello!"), conversation=None)
    session = take(someone, PLAIN, title=None, turns=None, origin=None)
    assert session.status_code == 201


def test_a_conversation_is_limited_like_any_import(start, settings):
    server = start(**settings, MAX_CONTENT_LENGTH="10000")
    client = server.client(ALICE)
    messages = [archives.said("user", str(number)) for number in range(200)]
    answer = take(client, archives.chatgpt(*messages, title="x" * 160_000))
    assert answer.status_code == 413
    answer = take(client, archives.chatgpt(archives.said("user", "x" * 150_000)))
    assert answer.status_code == 201


def test_node_names_like_proto_or_constructor_are_plain_names(someone):
    names = ("__proto__", "constructor", "toString", "~0/", "")
    mapping = archives.tree(*((name, "root", archives.said("user", name or "?")) for name in names))
    conversation = archives.chatgpt(mapping=mapping, current_node="__proto__", __proto__={"a": 1})
    session = take(someone, conversation).json()
    assert [turn["content"] for turn in someone.turns(session)] == ["__proto__"]


def test_the_service_answers_while_a_large_conversation_is_read(someone, server):
    many = 30_000
    deep = archives.chain(archives.said("user", "?"), *[{"a": 1}] * many)
    body = {"conversation": archives.chatgpt(mapping=deep, current_node=f"m{many + 1}")}
    slowest = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(someone.post, "/sessions/import", body)
        while not answer.done():
            began = time.monotonic()
            assert requests.get(server.url + "/health", timeout=10).status_code == 200
            slowest.append(time.monotonic() - began)
    assert answer.result().status_code == 201
    assert max(slowest) < 1
