"""This release keeps what release 1.0.0 left in a database, and refuses what a newer one left."""

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid

import pytest

import forked
from client import ALICE, BOB, SECRET, parse_time
from maintenance.migrations import MIGRATIONS
from product import ROOT
from raw_tables import tables_of
from releases import SECOND, Release100, ids, now
from trouble import locked

CREATE_APP = [sys.executable, "-c", "import app; app.create_app()"]


# A database after years of use


SESSIONS, LENGTH = (
    5000,
    20,
)  # turns of all sessions alternate, so the ids of one session are not adjacent


BEGAN = 1_750_000_000 * SECOND


FAILED, CANCELLED, RETRIED = (
    3,
    4,
    5,
)  # how a session's last reply ended, by the last digit of the session's number


TURN_COLUMNS = (
    *(
        "session_id",
        "kind",
        "content",
        "folded",
        "created_at",
        "shown",
        "cancelled",
        "model",
        "status",
        "replaces",
    ),
    *("input_tokens", "output_tokens", "error_status", "error_message"),
)


def owner_of(number):
    return BOB if number % 2 else ALICE


@functools.cache
def id_of(number):
    return uuid.UUID(f"8b6d0000-0000-4000-8000-{number:012x}")


def turn_id_of(number, place):
    return place * SESSIONS + number + 1


def turn_of(number, place):
    """The columns of a turn, and whether it is shown."""
    turn = dict.fromkeys(TURN_COLUMNS) | {
        "session_id": id_of(number).hex,
        "shown": True,
        "cancelled": False,
    }
    content, kind = f"Grüße {place} needle{number}x{place}", "assistant" if place % 2 else "user"
    if (
        number % 10 == RETRIED and place >= LENGTH - 3
    ):  # three replies to one message; the last is shown
        kind, turn["shown"] = "assistant", place == LENGTH - 1
        turn["replaces"] = turn_id_of(number, place - 1) if place > LENGTH - 3 else None
    if kind == "assistant":
        turn |= {
            "model": "m-2",
            "status": "complete",
            "input_tokens": number,
            "output_tokens": place,
        }
    if place == LENGTH - 1 and number % 10 == FAILED:
        turn |= {"status": "failed", "error_status": 502, "error_message": "The model failed."}
    if place == LENGTH - 1 and number % 10 == CANCELLED:
        turn |= {"status": "interrupted", "cancelled": True}
    at = BEGAN + turn_id_of(number, place) * 1000
    return turn | {"kind": kind, "content": content, "folded": content.casefold(), "created_at": at}


def fill(old_tables):
    sessions = (
        {
            "id": id_of(number).hex,
            "owner": owner_of(number),
            "title": f"Session {number}",
            "folded_title": f"session {number}",
            "title_is_users": number % 3 == 0,
            "model": "m-1",
            "system": "Be brief." if number % 4 == 0 else None,
            "preview": turn_of(number, LENGTH - 1)["content"],
            "created_at": BEGAN + number,
            "updated_at": BEGAN + turn_id_of(number, LENGTH - 1) * 1000,
        }
        for number in range(SESSIONS)
    )
    columns = (
        "id",
        "owner",
        "title",
        "folded_title",
        "title_is_users",
        "model",
        "system",
        "preview",
        "created_at",
        "updated_at",
    )
    old_tables.fill(
        "session", columns, ([session[name] for name in columns] for session in sessions)
    )
    turns = (turn_of(number, place) for place in range(LENGTH) for number in range(SESSIONS))
    old_tables.fill("turn", TURN_COLUMNS, ([turn[name] for name in TURN_COLUMNS] for turn in turns))


def remember(old_tables, path, key, number, place, body):
    """Store an idempotency key of the session's owner whose outcome is this reply."""
    old_tables.insert(
        "key",
        owner=owner_of(number),
        path=path,
        key=key,
        body=hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(),
        session_id=id_of(number).hex,
        turn_id=turn_id_of(number, place),
        created_at=now() - 3600 * SECOND,
    )


def expected_turns(number):
    """What the API of 1.0.0 would show of a session's turns, and their ids."""
    for place in range(LENGTH):
        turn = turn_of(number, place)
        if not turn["shown"]:
            continue
        seen = {
            "id": str(turn_id_of(number, place)),
            "kind": turn["kind"],
            "content": turn["content"],
        }
        if turn["kind"] == "assistant":
            error = (
                {"status": 502, "message": "The model failed."}
                if turn["status"] == "failed"
                else None
            )
            usage = {
                "input_tokens": turn["input_tokens"],
                "output_tokens": turn["output_tokens"],
                "cached_tokens": None,
            }
            seen |= {
                "model": {"id": "m-2"},
                "status": turn["status"],
                "error": error,
                "usage": usage,
            }
        yield seen, turn["created_at"]


def test_a_database_with_100_000_turns_starts_within_seconds_and_keeps_all_of_it(
    start, settings, old_tables, provider
):
    """Sessions, their turns with their ids and order, the list, the search, the idempotency keys."""
    fill(old_tables)
    created, message, failed = 10, 20, 1000 + FAILED  # sessions that have a key
    remember(old_tables, "/sessions", "k-created", created, 1, {"content": "Hello"})
    remember(
        old_tables,
        f"/sessions/{id_of(message)}/messages",
        "k-message",
        message,
        5,
        {"content": "More"},
    )
    remember(
        old_tables,
        f"/sessions/{id_of(failed)}/messages",
        "k-failed",
        failed,
        LENGTH - 1,
        {"content": "Again"},
    )
    sums = "SELECT count(*), min(id), max(id), sum(id), sum(length(content)), sum(length(folded)) FROM turn"
    before = old_tables.rows(sums)
    assert before[0][:3] == (SESSIONS * LENGTH, 1, SESSIONS * LENGTH)

    began = time.monotonic()
    server = start(**settings)
    assert time.monotonic() - began < 15
    assert old_tables.rows("SELECT migrations FROM release") == [(len(MIGRATIONS),)]
    assert old_tables.rows(sums) == before
    alice, bob = server.client(ALICE), server.client(BOB)

    # The list, with its order of all sessions
    listed, more = [], True
    while more:
        page = alice.get(f"/sessions?page[limit]=100&page[offset]={len(listed)}").json()
        listed, more = listed + page["data"], page["meta"]["has_more"]
    own = [number for number in reversed(range(SESSIONS)) if owner_of(number) == ALICE]
    assert [session["id"] for session in listed] == [str(id_of(number)) for number in own]
    assert listed[0]["title"] == f"Session {own[0]}"
    assert listed[0]["last_message_preview"] == turn_of(own[0], LENGTH - 1)["content"]

    # Sessions, their turns, and the search
    for number in [0, 1, FAILED, CANCELLED, RETRIED, 2500, SESSIONS - 1]:
        owner, other = (alice, bob) if owner_of(number) == ALICE else (bob, alice)
        session = owner.get(f"/sessions/{id_of(number)}").json()
        assert (session["title"], session["model"]) == (f"Session {number}", {"id": "m-1"})
        assert session["system"] == ("Be brief." if number % 4 == 0 else None)
        expected = list(expected_turns(number))
        assert len(session["turns"]) == len(expected)
        for turn, (seen, at) in zip(session["turns"], expected, strict=True):
            assert turn | seen == turn
            assert (
                parse_time(turn["created_at"]) - parse_time("1970-01-01T00:00:00Z")
            ).total_seconds() == at // SECOND
        found = owner.get("/sessions", params={"query": f"GRÜSSE Needle{number}X4"}).json()["data"]
        assert [session["id"] for session in found] == [str(id_of(number))]
        assert other.get("/sessions", params={"query": f"needle{number}x4"}).json()["data"] == []
        assert other.get(f"/sessions/{id_of(number)}").status_code == 404

    # The keys: a success is returned again, a failure is requested again, each in its session
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-created")
    assert (again.status_code, again.json()["id"]) == (201, str(id_of(created)))
    assert (
        alice.post("/sessions", {"content": "Other"}, Idempotency_Key="k-created").status_code
        == 422
    )
    again = alice.post(
        f"/sessions/{id_of(message)}/messages", {"content": "More"}, Idempotency_Key="k-message"
    )
    assert (again.status_code, again.json()["id"]) == (201, str(turn_id_of(message, 5)))
    assert again.json()["content"] == turn_of(message, 5)["content"]
    assert provider.posts == []
    again = bob.post(
        f"/sessions/{id_of(failed)}/messages", {"content": "Again"}, Idempotency_Key="k-failed"
    )
    assert (again.status_code, again.json()["content"]) == (201, "The answer.")
    turns = bob.turns({"id": id_of(failed)})
    assert [turn["content"] for turn in turns[:-1]] == [
        seen["content"] for seen, _ in expected_turns(failed)
    ][:-1]
    assert turns[-1] == again.json()

    # The conversation continues after what was there
    session, old_turns = {"id": str(id_of(2500))}, alice.turns({"id": id_of(2500)})
    path = f"/sessions/{session['id']}"
    first = alice.post(path + "/messages", {"content": "One more"}).json()
    retried = alice.post(path + "/retry").json()
    second = alice.post(path + "/messages", {"content": "And another"}).json()
    turns = alice.turns(session)
    assert turns[:LENGTH] == old_turns
    assert [turn["content"] for turn in turns[LENGTH:]] == [
        "One more",
        "The answer.",
        "And another",
        "The answer.",
    ]
    assert (turns[-3], turns[-1]) == (retried, second)
    assert ids(turns) == sorted(set(ids(turns)))
    assert SESSIONS * LENGTH < int(first["id"]) < int(retried["id"]) < int(second["id"])
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Be brief.", *(turn["content"] for turn in turns[:-1])]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["id"] == session["id"]


def test_a_migrated_database_has_the_columns_of_a_new_one(
    start, settings, old_tables, new_database, engine
):
    """And a SQLite file says whose it is."""
    url = new_database()
    start(**settings)
    start(**settings | {"DATABASE_URL": url})
    with tables_of(url) as fresh:
        assert old_tables.columns() == fresh.columns()
        assert {"usage"} == {table for table, *_ in fresh.columns() if table == "usage"}
        if engine == "sqlite":
            assert (
                old_tables.value("PRAGMA application_id")
                == fresh.value("PRAGMA application_id")
                != 0
            )


def test_of_processes_that_start_together_one_migrates(settings, old_tables):
    old_id = Release100(old_tables).answered("Hello", "Good day.")[1]
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    CREATE_APP, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        ended = [(process.communicate(timeout=30)[1], process.returncode) for process in processes]
    assert ended == [("", 0)] * 3
    assert old_tables.rows("SELECT migrations FROM release") == [(len(MIGRATIONS),)]
    assert old_tables.rows("SELECT max(id) FROM turn") == [(old_id,)]


def test_a_newer_releases_database_is_refused_in_one_line_and_not_changed(settings, old_tables):
    old_tables.rows("UPDATE release SET migrations = 99")
    before = old_tables.columns()
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    refused = forked.run(CREATE_APP[1:], ROOT, environment)
    assert refused.returncode == 1
    assert refused.stderr.startswith("DATABASE_URL: ") and refused.stderr.count("\n") == 1
    assert "newer release" in refused.stderr
    assert old_tables.columns() == before
    assert old_tables.rows("SELECT migrations FROM release") == [(99,)]


@pytest.mark.parametrize("migrations", [8, len(MIGRATIONS)])
def test_a_database_in_an_unreleased_state_is_refused_in_one_line(settings, old_tables, migrations):
    old_tables.rows("UPDATE release SET migrations = ?", migrations)
    before = old_tables.columns()
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    refused = forked.run(CREATE_APP[1:], ROOT, environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("DATABASE_URL: ") and refused.stderr.count("\n") == 1
    assert "never released" in refused.stderr or "or to none" in refused.stderr
    assert old_tables.columns() == before


# A migration while others read


@contextlib.contextmanager
def reading(url, *tables):
    """A transaction that has read these tables, and stays open within this context, as pg_dump or a long search does."""
    with tables_of(url) as others:
        others.rows("BEGIN")
        for table in tables:
            others.rows(f"SELECT count(*) FROM {table}")
        yield others
        others.rows("COMMIT")


def migrating(settings, *before):
    script = [*before, "import app", "app.create_app()"]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(script)],
        cwd=ROOT,
        env=os.environ | settings | {"JWT_SECRET": SECRET},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_migration_waits_for_readers_and_blocks_nobody(settings, old_tables):
    """Such as processes of 1.0.0 during a dump."""
    url = settings["DATABASE_URL"]
    with reading(url, "turn"):
        process = migrating(settings)
        old_tables.rows("SET statement_timeout = '3s'")
        until = time.monotonic() + 8
        while time.monotonic() < until:
            old_tables.rows("SELECT count(*) FROM turn JOIN session ON session_id = session.id")
            time.sleep(0.05)
        assert process.poll() is None
        assert old_tables.rows("SELECT migrations FROM release") == [(1,)]
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert old_tables.rows("SELECT migrations FROM release") == [(len(MIGRATIONS),)]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_migration_and_a_reader_of_both_tables_do_not_wait_for_each_other(settings, old_tables):
    """1.0.0 reads the turns that it follows, then their sessions. In a deadlock, one of the two would be aborted."""
    url = settings["DATABASE_URL"]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with reading(url, "turn") as follower:
        with reading(url, "session"):
            process = migrating(settings)
            while not old_tables.value(waiting):
                time.sleep(0.01)
            reader = threading.Thread(target=follower.rows, args=["SELECT count(*) FROM session"])
            reader.start()
            time.sleep(1.5)  # by now the server has checked for a deadlock
        reader.join()
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert old_tables.rows("SELECT migrations FROM release") == [(len(MIGRATIONS),)]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_migration_that_never_gets_its_lock_says_so_in_one_line(settings, old_tables):
    with reading(settings["DATABASE_URL"], "turn"):
        process = migrating(
            settings, "import database.opening", "database.opening.MIGRATION_TIMEOUT = 2"
        )
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert error.startswith("DATABASE_URL: ") and error.count("\n") == 1
    assert "pg_dump" in error
    assert old_tables.rows("SELECT migrations FROM release") == [(1,)]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_start_while_another_program_writes_for_ever_says_so_in_one_line(settings):
    assert migrating(settings).communicate(timeout=30)[1] == ""
    with locked(settings["DATABASE_URL"]):
        process = migrating(
            settings, "import database.opening", "database.opening.MIGRATION_TIMEOUT = 1"
        )
        error = process.communicate(timeout=30)[1]
    advice = "DATABASE_URL: another program writes this file, and does not end\n"
    assert (error, process.returncode) == (advice, 1)
