"""Databases that are damaged, read-only for a moment or full of dead replies: what clients are told, and what it costs.

tests/heavy/test_database_faults_heavy.py has what takes longer: outages, pauses, steps of the clock, a full disk.

Modules: `database/connection.py`, `database/deadline.py`, `database/sqlite.py`, `database/transactions.py`.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import sqlite3
import threading
import time

import pytest
import requests

import trouble
from client import ALICE, BOB, Client, at_once, wait_until
from database.sqlite import SQLite
from dead_replies import check_many_dead
from provider import reply
from raw_tables import tables_of
from servers import running
from talk import LONGEST, Asking, Talk

PRIVATE = "private words of a user"
BACK = 10  # seconds within which /health is right
CHANGING = 6  # connections that a process has at most for requests that change something


@pytest.fixture
def alone(provider, tmp_path):
    """A server of one process on a SQLite file, and the path of that file."""
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with running(tmp_path, **settings) as server:
        yield server, tmp_path / "parley.db"


def is_quiet(server):
    """Whether the log has neither a traceback nor a word that a user wrote."""
    return "Traceback" not in server.output() and PRIVATE not in server.output()


# Damage


def test_an_unreadable_row_costs_only_its_own_reply(alone, provider):
    """Its title is not UTF-8, as after a flipped bit. Three replies are in progress in this process."""
    server, path = alone
    alice, bob = server.client(ALICE), server.client(BOB)
    his = bob.create("Hello")
    talk = Talk(alice, provider, 3).begin(server, path)
    damaged, *others = talk.replies
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        title = (b"\xff" + PRIVATE.encode()).hex()
        sql = f"UPDATE session SET title = CAST(x'{title}' AS TEXT) WHERE lower(replace(id, '-', '')) = ?"
        assert connection.execute(sql, [damaged.session["id"].replace("-", "")]).rowcount == 1
    before = {each: len(each.text) for each in others}
    wait_until(lambda: all(len(each.text) > length + 100 for each, length in before.items()), 15)
    assert bob.create("Hello")["title"] == "Hello"
    assert bob.turns(his)[-1]["content"] == "The answer."
    assert bob.get("/sessions").status_code == 200
    assert requests.get(server.url + "/health", timeout=10).status_code == 200
    for path in (f"/sessions/{damaged.session['id']}", "/sessions"):
        assert alice.get(path).status_code in (200, 503)
    damaged.given_up = True
    talk.replies.remove(damaged)
    assert talk.check() == 0
    assert is_quiet(server), server.output()[-3000:]


def test_damage_to_a_file_in_use_is_reported_and_not_quoted(alone):
    """Damaged text can be read. What cannot be read is a 503, and the log shows nothing of what is stored."""
    server, path = alone
    alice = server.client()
    sessions = [alice.create(f"{PRIVATE} {number} " + "x" * 3000) for number in range(20)]
    paths = (
        "/sessions",
        "/sessions?query=x",
        "/health",
        *(f"/sessions/{session['id']}" for session in sessions),
    )
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        for table, column in (("session", "preview"), ("turn", "content")):
            bad = (b"\xff" + PRIVATE.encode()).hex()
            connection.execute(
                f"UPDATE {table} SET {column} = CAST(x'{bad}' AS TEXT) WHERE rowid % 2 = 0"
            )
        assert {alice.get(path).status_code for path in paths} == {200}
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'session_pinned'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        wait_until(lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        with open(path, "r+b") as file:
            file.seek((page - 1) * size)
            file.write(PRIVATE.encode() * (size // len(PRIVATE)))
        connection.execute(
            "UPDATE release SET migrations = migrations"
        )  # a process with pages in memory reads them again
        asked = [alice.get(path).status_code for path in paths]
        asked += [
            alice.post(f"/sessions/{session['id']}/messages", {"content": "Hello"}).status_code
            for session in sessions
        ]
    assert set(asked) <= {200, 201, 503} and 503 in asked, asked
    assert is_quiet(server), server.output()[-3000:]


def test_a_commit_is_on_the_disk_before_it_is_answered(tmp_path):
    """So a loss of power undoes nothing: 2 is `full` (sqlite.org/pragma.html)."""
    file = SQLite(f"{tmp_path}/parley.db", **SQLite.options)
    with file.connection_context():
        file.discard()  # the connection is not kept afterwards
        assert file.execute_sql("PRAGMA synchronous").fetchone() == (2,)


# Another file


def health(server):
    return requests.get(server.url + "/health", timeout=LONGEST).status_code


def wait_for_health(server, status):
    began = time.monotonic()
    wait_until(lambda: health(server) == status, BACK)
    assert time.monotonic() - began < BACK


@pytest.mark.parametrize("asked", [0, 12])
def test_a_file_that_is_moved_away_is_reported_and_used_again_when_it_is_back(alone, asked):
    """Up to twelve requests come while it is away. What was created before or meanwhile is kept, even if the server dies."""
    server, path = alone
    alice, away = server.client(), path.with_name("away.db")
    created = [alice.create(f"Before {number}") for number in range(3)]
    path.rename(away)
    wait_for_health(server, 503)
    for answer in at_once(asked, lambda number: create(alice)) if asked else []:
        assert answer.status_code in (201, 503), answer.text
        created += [answer.json()] if answer.status_code == 201 else []
    away.rename(path)
    wait_for_health(server, 200)
    created.append(alice.create("Behind"))
    check_kept(server, created)
    server.kill()
    with running(path.parent, DATABASE_URL=f"sqlite:///{path}") as again:
        check_kept(again, created)


def create(client):
    return client.post("/sessions", {"content": "Hello"}, Prefer="respond-async")


def check_kept(server, sessions):
    alice = server.client()
    assert [alice.get(f"/sessions/{session['id']}").status_code for session in sessions] == [
        200
    ] * len(sessions)


def test_another_file_in_its_place_is_reported_and_left_alone(alone):
    """No client is told that something was stored: it would be in a file without a name."""
    server, path = alone
    alice, copy = server.client(), path.with_name("copy.db")
    alice.create("Hello")
    with (
        contextlib.closing(sqlite3.connect(path)) as connection,
        contextlib.closing(sqlite3.connect(copy)) as backup,
    ):
        connection.backup(backup)
    before = copy.read_bytes()
    copy.rename(path)
    wait_for_health(server, 503)
    assert {answer.status_code for answer in at_once(12, lambda number: create(alice))} == {503}
    assert path.read_bytes() == before
    assert health(server) == 503


# Waiting


def connections_to(url, server):
    """How many database connections the processes of a server of one worker have."""
    if not url.startswith("sqlite"):
        with tables_of(url) as tables:
            others = "datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
            return tables.value(f"SELECT count(*) FROM pg_stat_activity WHERE {others}")
    path, [pid] = url.removeprefix("sqlite:///"), server.workers()
    return [os.path.realpath(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()].count(
        os.path.realpath(path)
    )


def test_what_needs_no_database_is_answered_at_once_while_it_is_locked(start, settings, provider):
    """Though waiting requests have all connections that the process has for creations, and more wait for one."""
    url = settings["DATABASE_URL"]
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client(BOB)
    assert alice.get("/models").status_code == 200  # the provider has been asked
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        with trouble.locked(url):
            creating = [pool.submit(create, user) for user in [alice, bob] * 10]
            wait_until(lambda: connections_to(url, server) >= CHANGING, 5)
            asked = [
                ("/models", 200),
                ("/openapi.json", 200),
                ("/", 200),
                ("/nowhere", 404),
                ("/sessions?page[limit]=odd", 400),
            ]
            for path, status in asked:
                assert answered_at_once(alice, path) == status
            nobody = Client(server.url, "no token")
            assert answered_at_once(nobody, "/sessions") == 401
            assert not any(each.done() for each in creating)
        assert {each.result().status_code for each in creating} == {201}
    wait_for_health(server, 200)


def test_a_list_is_answered_while_many_wait_to_write(start, settings, provider):
    url = settings["DATABASE_URL"]
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client(BOB)
    session = alice.create("Hello")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        with trouble.locked(url, mode="EXCLUSIVE"):
            creating = [pool.submit(create, user) for user in [alice, bob] * 10]
            wait_until(lambda: connections_to(url, server) >= CHANGING, 5)
            for path in ["/sessions", f"/sessions/{session['id']}"] * 10:
                assert alice.get(path).status_code == 200
            assert not any(each.done() for each in creating)
        assert {each.result().status_code for each in creating} == {201}


def answered_at_once(client, path):
    began = time.monotonic()
    answer = client.get(path)
    assert time.monotonic() - began < 1, path
    return answer.status_code


# A moment


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # a SQLite file has no such setting
def test_after_a_moment_of_being_read_only_a_database_is_written_again(
    engine, start, settings, provider
):
    """/health is right meanwhile, and seconds later all is well; the reply in progress completes."""
    server = start(**settings)
    alice = server.client()
    session = alice.create("Hello")
    talk = Talk(alice, provider, 2).begin(server)
    with Asking(alice, session, writers=1) as asking:
        with trouble.read_only(settings["DATABASE_URL"]):
            asking.wait_for("create", 503, 10)
            asking.wait_for("health", 503, 10)
        asking.wait_for("create", 201, 5)
        asking.wait_for("health", 200, 5)
    assert talk.check() == 0
    asking.check()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite has no rows to lock
def test_rows_are_locked_in_one_order(start, settings, provider):
    """Sessions before turns, even if one reply grows and another ends in the same commit. So two processes never wait for each
    other, such as when one ends the other's replies."""
    first, grows, ends = threading.Event(), threading.Event(), threading.Event()
    never = threading.Event()
    provider.script = [
        reply("One ", first, "more", never),
        reply("Two ", grows, "more", never),
        reply("Three ", ends, "end"),
    ]
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, sessions = server.client(), []
    for word in ("One ", "Two ", "Three "):
        sessions.append(
            alice.post("/sessions", {"content": word}, Prefer="respond-async").json()["id"]
        )
        wait_until(lambda: alice.turns({"id": sessions[-1]})[1]["content"] == word, 10)
    turn = "SELECT id FROM turn WHERE session_id = ? AND kind = 'assistant' FOR UPDATE"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with tables_of(settings["DATABASE_URL"]) as gate, tables_of(settings["DATABASE_URL"]) as other:
        for tables in (gate, other):
            tables.rows("BEGIN")
        gate.rows(turn, sessions[0])
        first.set()
        wait_until(lambda: other.value(waiting), 5)  # the commit with the first one's text
        other.rows("SELECT id FROM session WHERE id = ? FOR UPDATE", sessions[2])
        grows.set()
        ends.set()
        time.sleep(0.5)  # both arrive, and wait for the next commit
        pid = other.value("SELECT pg_backend_pid()")
        behind = "SELECT count(*) FROM pg_stat_activity WHERE ? = ANY(pg_blocking_pids(pid))"
        gate.rows("ROLLBACK")
        # The next commit waits for the session of the reply that ends.
        wait_until(lambda: gate.value(behind, pid), 5)
        assert other.rows(f"{turn} NOWAIT", sessions[1])
        other.rows("ROLLBACK")
    never.set()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # tests/heavy has thousands on both
def test_hundreds_of_dead_replies_delay_nobody(start, settings):
    check_many_dead(start, settings, 500)


def test_the_write_ahead_log_shrinks_again(alone, provider):
    """It grows during a long read, such as a backup; then it becomes as small as before."""
    server, path = alone
    log, alice = path.with_name(path.name + "-wal"), server.client()
    provider.default = reply("The answer. " * 20_000)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM session").fetchall()
        while log.stat().st_size < 40 << 20:
            alice.create("x" * 500_000)
        reader.execute("COMMIT")
    provider.default = reply("The answer.")

    def is_small():
        alice.create("Hello")
        return log.stat().st_size <= 17 << 20

    wait_until(is_small, 10)
