"""Databases that are damaged, read-only for a moment or full of what is dead: what is told, and what it costs.

tests/heavy/test_database_faults_heavy.py has what lasts longer: outages, pauses, steps of the clock, a full disk.
"""

import contextlib
import sqlite3
import time

import pytest
import requests

import trouble
from client import ALICE, BOB, running, wait_until
from provider import reply
from tables import tables_of
from talk import Asking, Talk

PRIVATE = "private words of a user"


@pytest.fixture
def alone(provider, tmp_path):
    """A server of one process on a SQLite file, and the path of that file."""
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with running(tmp_path, **settings) as server:
        yield server, tmp_path / "parley.db"


def is_quiet(server):
    """Whether the log has neither a trace nor a word that a user said."""
    return "Traceback" not in server.output() and PRIVATE not in server.output()


# Damage


def test_a_row_that_cannot_be_read_costs_its_own_reply_only(alone, provider):
    """A title that is no UTF-8, as a flipped bit makes it, while three replies are under way in this process."""
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
    damaged.give_up()
    talk.replies.remove(damaged)
    assert talk.check() == 0
    assert is_quiet(server), server.output()[-3000:]


def test_a_file_that_is_damaged_while_it_is_used_is_told_and_not_quoted(alone):
    """All that can be asked has its answer, a 503 where it cannot be read; the log shows nothing of what is stored."""
    server, path = alone
    alice = server.client()
    sessions = [alice.create(f"{PRIVATE} {number} " + "x" * 3000) for number in range(20)]
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        for table, column in (("session", "preview"), ("turn", "content")):
            bad = (b"\xff" + PRIVATE.encode()).hex()
            connection.execute(f"UPDATE {table} SET {column} = CAST(x'{bad}' AS TEXT) WHERE rowid % 2 = 0")
        asked = [alice.get(f"/sessions/{session['id']}").status_code for session in sessions]
        asked += [alice.get(path).status_code for path in ("/sessions", "/sessions?query=x", "/health")]
        asked += [alice.post(f"/sessions/{session['id']}/messages", {"content": "Hello"}).status_code for session in sessions]
    assert set(asked) <= {200, 201, 503} and 503 in asked, asked
    assert is_quiet(server), server.output()[-3000:]


# A moment


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # a SQLite file has no such setting
def test_a_database_that_was_read_only_for_a_moment_is_written_again(engine, start, settings, provider):
    """/health tells the truth meanwhile, and seconds later all is well; the reply under way is whole."""
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


# What lasts


def check_many_dead(start, settings, count):
    """All of one owner. The keepers end them within half a minute, while another user is served as ever."""
    url = settings["DATABASE_URL"]
    server = start(**settings)
    session = server.client(ALICE).create("Hello")
    server.stop()
    trouble.copy_as_dead(url, session, count)
    server = start(**settings)
    began, alice = time.monotonic(), server.client(ALICE)
    dead = "SELECT count(*) FROM turn WHERE lease_until = 1000000 AND status = 'in_progress'"
    with tables_of(url) as tables, Asking(alice, session, writers=2, user=server.client(BOB)) as asking:
        while tables.value(dead):
            assert time.monotonic() < began + 30, tables.value(dead)
            time.sleep(0.2)
    slowest = max((answer for answer in asking.answers if answer.what == "create"), key=lambda each: each.seconds)
    print(f"{count} ended {time.monotonic() - began:.1f} s after the start; the slowest creation took {slowest.seconds:.2f} s")
    assert slowest.seconds < 1
    asking.check()
    assert asking.told("list") == asking.told("show") == {200}


def test_a_thousand_dead_replies_hold_up_nobody(start, settings):
    check_many_dead(start, settings, 1000)


def test_the_write_ahead_log_does_not_stay_large(alone, provider):
    """It grows while somebody reads for long, as a backup does; then it is as small as ever."""
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
