"""What is deleted: sessions that were not used for long, and everything stored about a user."""

import concurrent.futures
import os
import re
import threading
import time
import uuid

import pytest

import forked
from client import ALICE, BOB, wait_for_status, wait_until
from commands import flask
from ledgers import APP, METRICS, counts_of, metrics_of, usage_of, use
from provider import reply
from raw_tables import tables_of


def put_back(tables, session, days):
    """Make this session look unused for `days` days."""
    tables.rows(
        "UPDATE session SET updated_at = updated_at - ? WHERE id = ?",
        days * 86_400_000_000,
        id_of(tables, session),
    )


def id_of(tables, session):
    return uuid.UUID(session["id"]).hex if tables.is_sqlite else session["id"]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite has no rows to lock
def test_a_deletion_locks_its_owner_before_the_session(start, settings, tables):
    """As a claim with a key does. Otherwise each would wait for the other."""
    alice = start(**settings).client()
    session = alice.create("Hello")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    with (
        tables_of(settings["DATABASE_URL"]) as claim,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        claim.rows("BEGIN")
        claim.rows("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", ALICE)
        deletion = pool.submit(alice.delete, f"/sessions/{session['id']}")
        wait_until(lambda: tables.value(waiting))
        assert claim.rows("SELECT id FROM session WHERE id = ? FOR UPDATE NOWAIT", session["id"])
        claim.rows("ROLLBACK")
        assert deletion.result().status_code == 204


def test_unused_sessions_are_deleted_and_others_are_not(start, settings, provider, tables):
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
    tables.rows(  # the first day is over
        "UPDATE release SET retention_days = 7, retention_since = 0, watched_at = ?",
        time.time_ns() // 1000,
    )
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
    put_back(tables, busy, -8)  # otherwise the second process to start might rightly delete it
    never.set()
    wait_for_status(alice, busy, "complete")
    assert counts_of(bob) == {"m-1": (2, 30, 14, 6, 0)}


def words_of(tables):
    """Everything in the tables, as one text."""
    names = {table for table, *_ in tables.columns()}
    return "\n".join(str(row) for name in names for row in tables.rows(f'SELECT * FROM "{name}"'))


def test_a_user_is_forgotten(start, settings, provider, tables, tmp_path):
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
            f"{ALICE} is forgotten, with 4 sessions. Backups, logs and providers keep their copies."
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
    ) and f"Nothing is stored about {ALICE}." in again.stderr
    alice.create()  # a user who comes back is new
    assert counts_of(alice)["m-1"][0] == 1


def test_what_a_forgotten_user_was_importing_is_deleted(start, settings, tables, tmp_path):
    """An import has no owner until it is complete."""
    alice = start(**settings).client()
    begun, gone = (id_of(tables, alice.create(title)) for title in ("Begun", "Gone"))
    # As if a process of another machine, which may be alive, were writing it.
    writing = "UPDATE session SET owner = '', writer = 'other/1/1', imported_at = ? WHERE id = ?"
    tables.rows(writing, time.time_ns() // 1000, begun)
    command = ["forget", "--yes", ALICE]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        url = settings["DATABASE_URL"]
        ended = pool.submit(flask, tmp_path, "--app", APP, *command, DATABASE_URL=url)
        wait_until(lambda: not tables.value("SELECT count(*) FROM session WHERE id = ?", gone))
        tables.rows("UPDATE session SET owner = ?, writer = NULL WHERE id = ?", ALICE, begun)
        assert ended.result().stdout.startswith(f"{ALICE} is forgotten, with 2 sessions.")
    assert tables.value("SELECT count(*) FROM session") == 0


def test_forgetting_a_user_needs_a_confirmation(start, settings, tmp_path):
    alice = start(**settings).client()
    alice.create(), alice.create()
    command = ["-m", "flask", "--app", APP, "forget", ALICE]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": settings["DATABASE_URL"]}
    for answer, left in (("n\n", 2), ("", 2), ("y\n", 0)):
        ended = forked.run(command, tmp_path, environment, answer)
        assert f"Delete all data of {ALICE}, including 2 sessions? [y/N]" in ended.stdout
        assert (ended.returncode != 0) == bool(left), ended.stderr
        assert len(alice.get("/sessions").json()["data"]) == left


NOBODY = "The subject names nobody."


def test_no_other_user_is_forgotten_by_mistake(start, settings, tables, tmp_path):
    server = start(**settings, RATE_LIMIT="9/day")
    server.client().create()
    server.stop()  # it would soon store the session's size
    use(tables, "", 0)
    before, url = words_of(tables), settings["DATABASE_URL"]
    for subject, told in (("", NOBODY), (" ", NOBODY), ("bob", "Nothing is stored about bob.")):
        ended = flask(tmp_path, "--app", APP, "forget", "--yes", subject, DATABASE_URL=url)
        assert (ended.returncode, ended.stdout) == (1, "") and f"Error: {told}" in ended.stderr
        assert words_of(tables) == before


def test_a_deletion_does_not_wait_for_those_of_others(start, settings, tables):
    """A process that died has left them; the next process to start continues them."""
    alice = start(**settings).client()
    left, mine = alice.create("Left"), alice.create("Mine")
    tables.rows("UPDATE session SET owner = '' WHERE id = ?", id_of(tables, left))
    assert alice.delete(f"/sessions/{mine['id']}").status_code == 204
    wait_until(lambda: tables.value("SELECT count(*) FROM session") == 1)
    start(**settings)
    wait_until(
        lambda: (
            tables.value("SELECT count(*) FROM session")
            == tables.value("SELECT count(*) FROM turn")
            == 0
        )
    )
