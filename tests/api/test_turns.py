"""The turns of a session, page by page. Module: `turns.py`."""

import json
import subprocess
import sys
import threading
import uuid

import pytest
import requests

from client import SECRET
from product import ROOT
from provider import reply
from raw_tables import tables_of

TURNS_ODD = [
    ("turns[limit]=", "turns[limit]"),
    ("turns[limit]=many", "turns[limit]"),
    ("turns[limit]=1.5", "turns[limit]"),
    ("turns[limit]=1_0", "turns[limit]"),
    ("turns[limit]=%D9%A3", "turns[limit]"),
    ("turns[before]=", "turns[before]"),
    ("turns[before]=x", "turns[before]"),
    ("turns[before]=-1", "turns[before]"),
    ("turns[before]=" + "9" * 19, "turns[before]"),
    ("turns[before]=" + "9" * 3000, "turns[before]"),
    ("turns[before]=1-2", "turns[before]"),
]


@pytest.fixture(scope="module")
def long(server, provider_of_all):
    """A client, and the path of a session with 140 turns."""
    provider_of_all.reset()
    alice = server.client("https://github.com/reader")
    session = alice.create("Message 1")
    for number in range(2, 71):
        assert (
            alice.post(
                f"/sessions/{session['id']}/messages", {"content": f"Message {number}"}
            ).status_code
            == 201
        )
    return alice, f"/sessions/{session['id']}"


def ids(page):
    return [turn["id"] for turn in page["turns"]]


def test_all_turns_are_shown_unless_fewer_are_requested(long):
    alice, path = long
    whole = alice.get(path).json()
    assert (len(whole["turns"]), whole["meta"]) == (140, {"has_more": False})
    assert list(whole)[-1] == "meta"


@pytest.mark.parametrize(
    "limit, count",
    [
        ("1", 1),
        ("2", 2),
        ("50", 50),
        ("139", 139),
        ("140", 140),
        ("200", 140),
        ("5000", 140),
        ("0", 1),
        ("-7", 1),
    ],
)
def test_a_limit_shows_the_last_turns_oldest_first(long, limit, count):
    alice, path = long
    page = alice.get(f"{path}?turns[limit]={limit}").json()
    assert ids(page) == ids(alice.get(path).json())[-count:]
    assert page["meta"] == {"has_more": count < 140}


@pytest.mark.parametrize("size", [1, 7, 50, 140])
def test_the_pages_together_have_all_turns(long, size):
    alice, path = long
    found, has_more, before = [], True, ""
    while has_more:
        page = alice.get(f"{path}?turns[limit]={size}{before}").json()
        assert len(page["turns"]) <= size
        found, has_more = page["turns"] + found, page["meta"]["has_more"]
        before = f"&turns[before]={found[0]['id']}"
    assert found == alice.get(path).json()["turns"]
    assert alice.get(f"{path}?turns[limit]={size}{before}").json()["turns"] == []


def test_fifty_turns_are_shown_if_only_before_is_given(long):
    alice, path = long
    whole = ids(alice.get(path).json())
    page = alice.get(f"{path}?turns[before]={whole[100]}").json()
    assert (ids(page), page["meta"]) == (whole[50:100], {"has_more": True})


def test_before_need_not_be_the_id_of_a_turn(long):
    alice, path = long
    whole = ids(alice.get(path).json())
    for before, expected in [
        (int(whole[10]) + 1, whole[:11]),
        (int(whole[10]) - 1, whole[:10]),
        (int(whole[-1]) + 1, whole[-50:]),
        (2**63 - 1, whole[-50:]),
        (int(whole[0]), []),
        (1, []),
    ]:
        page = alice.get(f"{path}?turns[before]={before}").json()
        assert ids(page) == expected, before
        assert page["meta"] == {"has_more": len(expected) == 50}


def test_no_turn_is_before_the_id_0(long):
    alice, path = long
    page = alice.get(path + "?turns[before]=0").json()
    assert (page["turns"], page["meta"]) == ([], {"has_more": False})


@pytest.mark.parametrize("query, parameter", TURNS_ODD)
def test_a_bad_page_parameter_is_refused(long, query, parameter):
    alice, path = long
    response = alice.get(f"{path}?{query}")
    assert response.status_code == 400
    assert [error["source"] for error in response.json()["errors"]] == [{"parameter": parameter}]


def test_both_bad_parameters_are_reported_and_unknown_ones_are_ignored(long):
    alice, path = long
    errors = alice.get(path + "?turns[limit]=x&turns[before]=y&colour=red").json()["errors"]
    assert sorted(error["source"]["parameter"] for error in errors) == [
        "turns[before]",
        "turns[limit]",
    ]
    assert len(alice.get(path + "?colour=red").json()["turns"]) == 140


def test_a_page_of_another_users_session_is_404(long, bob):
    assert bob.get(long[1] + "?turns[limit]=1").status_code == 404


def test_a_reply_in_progress_is_the_last_turn_of_a_page(alice, provider):
    session = alice.create()
    path, gate = f"/sessions/{session['id']}", threading.Event()
    provider.script = [reply("Half, ", gate, "and the rest.")]
    with alice.stream("POST", path + "/messages", {"content": "More"}) as stream:
        assert next(iter(stream)).data == {"delta": "Half, "}
        page = alice.get(path + "?turns[limit]=1").json()
        assert [(turn["status"], turn["content"]) for turn in page["turns"]] == [
            ("in_progress", "Half, ")
        ]
        assert page["meta"] == {"has_more": True}
        older = alice.get(f"{path}?turns[before]={page['turns'][0]['id']}").json()
        assert [turn["content"] for turn in older["turns"]] == ["Hello", "The answer.", "More"]
        gate.set()
        assert [event.name for event in stream][-1] == "done"


def test_the_pieces_of_a_reply_in_progress_are_joined_in_order(start, settings, provider, tables):
    """SQL returns rows in any order, unless a query orders them."""
    provider.script = [reply(threading.Event())]
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = alice.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    turn = tables.value("SELECT id FROM turn WHERE status = 'in_progress'")
    tables.insert("piece", turn_id=turn, start=4, text="two")
    tables.insert("piece", turn_id=turn, start=0, text="One ")
    [listed] = alice.get("/sessions").json()["data"]
    assert listed["last_message_preview"] == "One two"
    assert alice.turns(session)[1]["content"] == "One two"
    cancelled = alice.post(f"/sessions/{session['id']}/cancel").json()
    assert cancelled["content"] == "One two"


def test_a_replaced_reply_is_on_no_page(alice, provider):
    session = alice.create()
    path = f"/sessions/{session['id']}"
    replaced = alice.turns(session)[1]["id"]
    alice.post(path + "/retry")
    page = alice.get(path + "?turns[limit]=2").json()
    assert replaced not in ids(page) and len(page["turns"]) == 2 and not page["meta"]["has_more"]


LONGEST_PAGE = 8 * 2**20  # bytes


def size_of(turns):
    return sum(len(turn["content"].encode()) for turn in turns)


def make_large(alice):
    """Make a session with ten messages of a megabyte each, with characters of three bytes; returns its path."""
    headers = {"Authorization": f"Bearer {alice.token}", "Content-Type": "application/json"}
    path = "/sessions"
    for number in range(10):
        body = json.dumps({"content": f"{number}" + "世" * 340_000}, ensure_ascii=False).encode()
        answer = requests.post(alice.url + path, body, headers=headers, timeout=60)
        assert answer.status_code == 201, answer.text[:200]
        path = "/sessions/{id}/messages".format(**answer.json()) if path == "/sessions" else path
    return path.removesuffix("/messages")


@pytest.fixture(scope="module")
def large(server, provider_of_all):
    """A client, and the path of such a session, which no test changes."""
    provider_of_all.reset()
    alice = server.client("https://github.com/writer")
    return alice, make_large(alice)


@pytest.mark.parametrize("query", ["", "?turns[limit]=200", "?turns[limit]=50", "?turns[limit]=20"])
def test_a_page_has_at_most_eight_megabytes_of_turns(large, query):
    alice, path = large
    page = alice.get(path + query).json()
    assert len(page["turns"]) == 17 and page["meta"] == {"has_more": True}
    assert size_of(page["turns"]) <= LONGEST_PAGE < size_of(page["turns"]) + 1_020_001
    assert page["turns"][-1]["content"] == "The answer."


LONG_FIELDS = {
    "model": (9_999, {"model": "👩" * 200}),
    "error": (4_999, {"status": "failed", "error": {"status": 500, "message": "x" * 2000}}),
}


@pytest.mark.parametrize(("count", "fields"), LONG_FIELDS.values(), ids=LONG_FIELDS)
def test_all_texts_of_a_turn_count_towards_its_page(someone, count, fields):
    turns = [{"kind": "assistant", "content": ""} | fields] * count
    body = json.dumps({"turns": [{"kind": "user", "content": "Hi"}, *turns]}, ensure_ascii=False)
    headers = {"Authorization": f"Bearer {someone.token}", "Content-Type": "application/json"}
    url = someone.url + "/sessions/import"
    path = requests.post(url, body.encode(), headers=headers, timeout=60).headers["Location"]
    answer = someone.get(path)
    assert answer.json()["meta"] == {"has_more": True}
    assert LONGEST_PAGE // 2 < len(answer.content) < LONGEST_PAGE


def test_the_pages_of_a_large_session_together_have_all_turns(large):
    alice, path = large
    found, has_more, before = [], True, ""
    while has_more:
        page = alice.get(f"{path}{before}").json()
        assert page["turns"] and size_of(page["turns"]) <= LONGEST_PAGE
        found, has_more = page["turns"] + found, page["meta"]["has_more"]
        before = f"?turns[limit]=200&turns[before]={found[0]['id']}"
    assert "".join(turn["content"][0] for turn in found) == "0T1T2T3T4T5T6T7T8T9T"


def test_a_page_below_eight_megabytes_has_as_many_turns_as_requested(large):
    alice, path = large
    page = alice.get(path + "?turns[limit]=3").json()
    assert [turn["kind"] for turn in page["turns"]] == ["assistant", "user", "assistant"]
    assert page["meta"] == {"has_more": True}


def test_a_turn_larger_than_a_page_is_shown_alone(start, provider):
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    alice = start(**settings, MAX_CONTENT_LENGTH=2**24).client()
    session = alice.create("Small")
    path = f"/sessions/{session['id']}"
    assert alice.post(path + "/messages", {"content": "x" * (LONGEST_PAGE + 1)}).status_code == 201
    newest = alice.get(path).json()
    assert [turn["content"] for turn in newest["turns"]] == ["The answer."]
    assert newest["meta"] == {"has_more": True}
    large = alice.get(f"{path}?turns[before]={newest['turns'][0]['id']}").json()
    assert [len(turn["content"]) for turn in large["turns"]] == [LONGEST_PAGE + 1]
    assert large["meta"] == {"has_more": True}
    rest = alice.get(f"{path}?turns[before]={large['turns'][0]['id']}").json()
    assert [turn["content"] for turn in rest["turns"]] == ["Small", "The answer."]
    assert rest["meta"] == {"has_more": False}


def test_the_text_of_a_reply_in_progress_counts_towards_its_page(alice, provider):
    path = make_large(alice)
    gate = threading.Event()
    provider.script = [reply("界" * 300_000, gate)]
    with alice.stream("POST", path + "/messages", {"content": "More"}) as stream:
        next(iter(stream))
        page = alice.get(path).json()
        assert page["turns"][-1]["status"] == "in_progress" and page["turns"][-1]["content"]
        assert len(page["turns"]) == 17 and size_of(page["turns"]) <= LONGEST_PAGE
        gate.set()
        assert [event.name for event in stream][-1] == "done"


COST = """
import sys, app, models, turns
from database import db
app.create_app()
def cost(session_id):
    session = models.Session.get_by_id(session_id)
    connection, steps = db.connection(), [0]
    def step():
        steps[0] += 1
    if hasattr(connection, "set_progress_handler"):  # SQLite: steps of its machine
        connection.set_progress_handler(step, 1)
        turns.read_page(session, 50)
        connection.set_progress_handler(None, 1)
        return steps[0]
    # PostgreSQL: rows that it read
    read = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables"
    with db.atomic():
        before = db.execute_sql(read).fetchone()[0]
        turns.read_page(session, 50)
        return int(db.execute_sql(read).fetchone()[0] - before)
with db.connection_context():
    print(*map(cost, sys.argv[1:]))
"""


def test_opening_a_session_of_20_000_turns_costs_as_much_as_50(start, settings, provider):
    server = start(**settings)
    alice = server.client()
    sizes = {alice.create("Hello")["id"]: size for size in (50, 20_000)}
    columns = (
        "id",
        "session_id",
        "kind",
        "content",
        "folded",
        "created_at",
        "shown",
        "cancelled",
        "model",
        "status",
    )
    with tables_of(settings["DATABASE_URL"]) as tables:
        for session, size in sizes.items():
            sessions = tables.rows(
                "SELECT session_id, max(id), max(created_at) FROM turn GROUP BY session_id"
            )
            key, first, at = next(
                row for row in sessions if uuid.UUID(str(row[0])) == uuid.UUID(session)
            )
            kinds = [("user", None, None), ("assistant", "m-1", "complete")]
            rows = (
                (
                    first + number,
                    key,
                    kind,
                    f"Turn {number} " + "x" * 200,
                    "",
                    at,
                    True,
                    False,
                    model,
                    state,
                )
                for number in range(1, size - 1)
                for kind, model, state in [kinds[(number - 1) % 2]]
            )
            tables.fill("turn", columns, rows)
        if not tables.is_sqlite:
            tables.rows("ANALYZE turn")
    for session, size in sizes.items():
        page = alice.get(f"/sessions/{session}?turns[limit]=50").json()
        assert (len(page["turns"]), page["meta"]["has_more"]) == (50, size > 50)
        assert page["turns"][-1]["content"].startswith(f"Turn {size - 2} ")
    whole = alice.get(f"/sessions/{[*sizes][1]}")  # as many as fit into eight megabytes
    assert 12_000 < len(whole.json()["turns"]) < 20_000 and len(whole.content) < LONGEST_PAGE
    environment = {"DATABASE_URL": settings["DATABASE_URL"], "JWT_SECRET": SECRET, "PATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", COST, *sizes],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    few, many = map(int, run.stdout.split())
    assert 50 <= many <= 1.2 * few, (few, many)
