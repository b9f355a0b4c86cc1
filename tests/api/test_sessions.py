"""Sessions: created, listed, read, changed, searched and deleted, each only by its owner.

Modules: `models.py`.
"""

import re
import time
import uuid

import pytest

from client import parse_time
from provider import reply

SEED = {
    "content": "Add rate limiting to the auth endpoints using a sliding window approach with Redis, 10 requests per "
    "minute per IP.",
    "model": "claude-opus-4-6",
    "system": "You are a helpful coding assistant.",
}


def test_the_session_of_the_seed_is_created(alice, provider):
    response = alice.post("/sessions", SEED)
    assert response.status_code == 201
    session = response.json()
    assert list(session) == ["id", "title", "model", "created_at", "updated_at"]
    assert str(uuid.UUID(session["id"])) == session["id"]
    assert session["title"] == "Add rate limiting to auth endpoints"
    assert session["model"] == {"id": "claude-opus-4-6"}
    assert session["created_at"] == session["updated_at"]
    assert abs(parse_time(session["created_at"]).timestamp() - time.mktime(time.gmtime())) < 5
    assert response.headers["Location"] == f"/sessions/{session['id']}"
    sent = provider.posts[0]
    assert sent.path == "/v1/messages"
    assert sent.body["system"] == SEED["system"]
    assert sent.body["messages"] == [{"role": "user", "content": SEED["content"]}]


def test_a_conversation_is_kept_and_sent(alice, provider):
    provider.script = [reply("One", "."), reply("Two.")]
    session = alice.create("First", system="Be brief.")
    turn = alice.post(f"/sessions/{session['id']}/messages", {"content": "Second"})
    assert turn.status_code == 201
    assert turn.json()["content"] == "Two."
    whole = alice.get(f"/sessions/{session['id']}").json()
    assert whole["system"] == "Be brief."
    assert [(turn["kind"], turn["content"]) for turn in whole["turns"]] == [
        ("user", "First"),
        ("assistant", "One."),
        ("user", "Second"),
        ("assistant", "Two."),
    ]
    assert set(whole["turns"][0]) == {
        "id",
        "kind",
        "content",
        "created_at",
        "files",
    }
    ids = [turn["id"] for turn in whole["turns"]]
    assert (
        all(isinstance(turn_id, str) for turn_id in ids)
        and ids == sorted(ids)
        and len(set(ids)) == 4
    )
    assert (
        whole["turns"][3]
        == turn.json()
        == {
            "id": ids[3],
            "kind": "assistant",
            "content": "Two.",
            "created_at": turn.json()["created_at"],
            "model": {"id": "m-1"},
            "status": "complete",
            "usage": {"input_tokens": 15, "output_tokens": 7, "cached_tokens": 3},
            "error": None,
            "stop_reason": "stop",
            "continued": 0,
            "turns_left_out": 0,
            "versions": 0,
            "thinking": None,
        }
    )
    assert [message["role"] for message in provider.posts[1].body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_sessions_are_listed_in_pages_last_used_first(start):
    alice = start().client()
    sessions = [alice.create(f"Message {number}") for number in range(5)]
    alice.post(f"/sessions/{sessions[0]['id']}/messages", {"content": "x" * 300})
    expected = [sessions[number]["id"] for number in (0, 4, 3, 2, 1)]
    found, offset, has_more = [], 0, True
    while has_more:
        page = alice.get(f"/sessions?page[limit]=2&page[offset]={offset}").json()
        has_more, offset = page["meta"]["has_more"], offset + 2
        found += page["data"]
    assert [session["id"] for session in found] == expected
    assert set(found[0]) == {
        "id",
        "title",
        "model",
        "last_message_preview",
        "created_at",
        "updated_at",
        "pinned",
    }
    assert found[0]["last_message_preview"] == "x" * 100
    assert found[1]["last_message_preview"] == "Message 4"
    for limit, count in [("0", 1), ("-5", 1), ("1000", 5), ("", None)]:
        page = alice.get(f"/sessions?page[limit]={limit}")
        assert len(page.json()["data"]) == count if count else page.status_code == 400


def test_changes_of_title_model_and_system_apply_from_the_next_reply_on(alice, provider):
    session = alice.create("Hello", system="Be brief.")
    path = f"/sessions/{session['id']}"
    before = alice.get(path).json()
    changed = alice.patch(path, {"title": "Mine", "model": "claude-x", "system": None})
    assert changed.status_code == 200
    assert changed.json() == {
        **session,
        "title": "Mine",
        "model": {"id": "claude-x"},
        "system": None,
        "options": {},
        "pinned": False,
    }
    assert alice.patch(path, {}).json() == changed.json()
    alice.post(path + "/messages", {"content": "More"})
    after = alice.get(path).json()
    assert after["turns"][:2] == before["turns"]
    assert after["turns"][3]["model"] == {"id": "claude-x"}
    assert provider.posts[1].path == "/v1/messages"
    assert "system" not in provider.posts[1].body
    assert after["title"] == "Mine"


@pytest.mark.parametrize(
    "query, finds",
    [
        ("straß", True),
        ("STRASSE", True),
        ("grüße", True),
        ("ΟΔΥΣΣΕΎΣ", True),
        ("odysseus", False),
        ("приве", True),
        ("МИР", True),
        ("приве strasse", True),
        ("привет nothing", False),
        ("100%", True),
        ("100_", False),
        ("%\\ ! !", True),
        ("!%", False),
        ("\\%", False),
        ("世", True),
        ("title-of", True),
        ("", True),
    ],
)
def test_a_search_finds_words_in_titles_and_turns_in_any_alphabet(alice, provider, query, finds):
    marker = uuid.uuid4().hex
    provider.script = [reply("Viele Grüße an die Straße, Ὀδυσσεύς Οδυσσεύς. 100% 世界 %\\ a!b")]
    session = alice.create(f"Привет, мир {marker}")
    alice.patch(f"/sessions/{session['id']}", {"title": "Title-Of-It"})
    found = alice.request(
        "GET", f"/sessions?page[limit]=100&query={marker.upper()} {query.replace('%', '%25')}"
    ).json()
    assert [item["id"] for item in found["data"]] == ([session["id"]] if finds else [])


def test_search_results_come_in_pages_last_used_first(start):
    alice = start().client()
    sessions = [alice.create(f"{'Ebb' if number % 2 else 'Flow'} {number}") for number in range(7)]
    alice.post(f"/sessions/{sessions[1]['id']}/messages", {"content": "And the flood"})
    found, has_more = [], True
    while has_more:
        page = alice.get(f"/sessions?query=ebb&page[limit]=2&page[offset]={len(found)}").json()
        found, has_more = found + page["data"], page["meta"]["has_more"]
    assert [session["id"] for session in found] == [sessions[number]["id"] for number in (1, 5, 3)]
    assert found[0]["last_message_preview"] == "And the flood"
    [both] = alice.get("/sessions?query=flood EBB 1").json()["data"]
    assert both == found[0] | {"found": "And the flood"}
    assert alice.get("/sessions?query=flood 3").json()["data"] == []


LONG = "The river is full of herons in the early morning, and nobody has ever counted all of them. "


@pytest.mark.parametrize(
    "text, query, found",
    [
        ("Look: a heron.", "HERON", "Look: a heron."),
        ("A heron.", "nothing heron", None),
        (LONG * 5 + "A stork!", "stork", "has ever counted all of them. A stork!"),
        (
            LONG * 5,
            "counted",
            (LONG * 2)[41:141],
        ),
        (LONG + "A heron, a stork", "stork heron", LONG + "A heron, "),
        # What is normalized has more characters, or fewer, than the text.
        ("ﷺ" * 150 + " and a heron", "heron", "and a heron"),
        ("e\u0301" * 150 + " and a heron", "heron", "and a heron"),
        ("ﷺ" * 9 + "-" * 150 + "ﬁsh and chips", "sh", "-" * 32 + "ﬁsh and chips"),
        ("🐦" * 900 + "Straße", "strasse", "🐦" * 33 + "Straße"),
        ("x" * 300, "xx", "x" * 100),
    ],
)
def test_a_search_gives_the_words_around_the_first_match(someone, provider, text, query, found):
    provider.script = [reply(text)]
    someone.create("Question")
    data = someone.request("GET", "/sessions", params={"query": query}).json()["data"]
    assert [session["found"] for session in data] == ([found] if found else [])


def test_a_search_gives_the_words_of_the_newest_turn_that_has_one(someone, provider):
    provider.script = [reply("An old heron."), reply("A new heron."), reply("A stork.")]
    session = someone.create("Question")
    for content in ("Next", "Last"):
        someone.post(f"/sessions/{session['id']}/messages", {"content": content})
    someone.patch(f"/sessions/{session['id']}", {"title": "Cranes"})
    for query, found in (
        ("heron", "A new heron."),
        ("old", "An old heron."),
        ("crane heron", "A new heron."),
        ("crane", None),  # it is in the title
    ):
        [row] = someone.get("/sessions", params={"query": query}).json()["data"]
        assert row["found"] == found, query
    assert "found" not in someone.get("/sessions").json()["data"][0]


def test_a_search_gives_no_words_of_a_turn_of_more_than_64_kb(someone, provider):
    provider.script = [reply("A heron. " + "x" * 65536)]
    someone.create("Question")
    [row] = someone.get("/sessions", params={"query": "heron"}).json()["data"]
    assert row["found"] is None


def test_a_session_is_deleted_with_its_turns(alice, provider):
    session = alice.create()
    path = f"/sessions/{session['id']}"
    response = alice.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    for answer in [
        alice.get(path),
        alice.delete(path),
        alice.get(path + "/events"),
        alice.post(path + "/retry"),
    ]:
        assert answer.status_code == 404


def test_the_sessions_of_other_users_are_hidden(alice, bob, provider):
    session = alice.create("A secret of Alice's")
    path = f"/sessions/{session['id']}"
    assert all(
        item["id"] != session["id"] for item in bob.get("/sessions?page[limit]=100").json()["data"]
    )
    assert bob.get("/sessions?query=secret").json()["data"] == []
    answers = [
        bob.get(path),
        bob.patch(path, {"title": "Bob's"}),
        bob.delete(path),
        bob.post(path + "/messages", {"content": "Hi"}),
        bob.post(path + "/retry"),
        bob.post(path + "/cancel"),
        bob.get(path + "/events"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert len(alice.turns(session)) == 2
    assert len(provider.posts) == 1


def test_a_browser_gets_the_page_with_its_files(alice):
    page = alice.get("/", Authorization=None, Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert "script-src 'self'; style-src 'self';" in page.headers["Content-Security-Policy"]
    files = re.findall(r'(?:href|src)="(static/[^"]+)"', page.text)
    assert {
        "static/page.css",
        "static/text.css",
        "static/page/main.js",
        "static/manifest.webmanifest",
    } <= set(files)
    for file in files:
        answer = alice.get("/" + file, Authorization=None)
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert answer.status_code == 200
        assert alice.get("/" + file, Authorization=None, Accept=kind).status_code == 200
    itself = alice.get("/static/index.html", Authorization=None)
    assert itself.text == page.text
    assert itself.headers["Content-Security-Policy"] == page.headers["Content-Security-Policy"]


def test_the_index_names_the_entry_points(server, alice):
    urls = alice.request("GET", "/", Authorization=None).json()["urls"]
    assert set(urls) == {"openapi_url", "health_url", "sessions_url", "models_url"}
    for url in urls.values():
        assert alice.get(url).status_code == 200
    assert alice.request("GET", "/health", Authorization=None).json()["status"] == "ok"
