"""`flask move`: from one database into another, what is refused, and what happens to the old one.

Modules: `transfer/move.py`, `terminal/move.py`.
"""

import re
import subprocess
import sys
import threading

import pytest

from moves import (
    BEGUN,
    IN_USE,
    MOVED,
    UNDO,
    assert_equal,
    flask,
    half_way,
    is_empty,
    lengthened,
    move,
    refused,
    rows_at,
)
from product import ROOT
from provider import reply
from raw_tables import tables_of


def test_a_client_that_followed_a_reply_gets_each_word_once(
    start, settings, provider, new_database, tmp_path
):
    """From one database into another of the same engine."""
    words, target = "one two three four five six seven eight".split(), new_database()
    provider.script = [reply(*[f"{word} " for word in words[:4]], threading.Event())]
    server = start(**settings)
    alice, came = server.client(), []
    session = alice.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    with alice.events(session) as stream:
        for event in stream:
            came.append(event)
            if "three" in str(event.data):
                break
    server.kill()
    move(tmp_path, settings["DATABASE_URL"], target)
    provider.script = [reply(*[f"{word} " for word in words[4:]])]
    alice = start(**settings | {"DATABASE_URL": target}).client()
    with alice.events(session, came[-1].id) as stream:
        came += stream
    text = "".join(event.data["delta"] for event in came if event.name == "content_delta")
    assert text.split() == words
    assert alice.turns(session)[-1]["content"] == text


def test_requests_before_a_move_count_for_a_limit(start, settings, new_other, tmp_path):
    settings["RATE_LIMIT"] = "3/day"
    server, target = start(**settings), new_other()
    alice = server.client()
    session = alice.create()
    alice.create()
    server.stop()
    move(tmp_path, settings["DATABASE_URL"], target)
    alice = start(**settings | {"DATABASE_URL": target}).client()
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 201
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 429


# The old database


def test_nothing_uses_the_old_database_until_the_move_is_undone(
    start, settings, new_other, tmp_path
):
    url, other = settings["DATABASE_URL"], new_other()
    server = start(**settings)
    session = server.client().create()
    server.stop()
    told = move(tmp_path, url, other)
    assert told.startswith("Everything is there: 1 session, 2 turns. Set DATABASE_URL to ")
    for words in (["usage"], ["export", "https://github.com/alice"], ["forget", "--yes", "a"]):
        assert refused(tmp_path, url, *words) == f"DATABASE_URL: {MOVED}"
    checked = flask(tmp_path, url, "check")
    assert checked.returncode == 1 and UNDO in checked.stdout + checked.stderr
    with pytest.raises(AssertionError, match="was moved to another database"):
        start(**settings)
    assert refused(tmp_path, url, "move", new_other()).startswith(
        "Error: Everything was already moved"
    )
    assert "is the same one, or was itself moved" in refused(tmp_path, other, "move", url)
    undone = flask(tmp_path, url, "move", "--undo")
    assert undone.returncode == 0 and undone.stdout.startswith("You can start the service")
    undone = flask(tmp_path, url, "move", "--undo")
    assert undone.returncode == 0 and undone.stdout.startswith("Nothing was moved")
    assert start(**settings).client().turns(session)


RUNS_ON = """
import sys
from database import Unavailable, connected, db, open_database
from maintenance.migrations import MIGRATIONS

open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
for line in sys.stdin:
    try:
        with connected():
            db.discard()
        print("connected", flush=True)
    except Unavailable as error:
        print(error, flush=True)
"""


def test_a_process_without_a_connection_makes_none_afterwards(start, settings, new_other, tmp_path):
    """Such as gunicorn's master, or a worker that has just begun."""
    url = settings["DATABASE_URL"]
    start(**settings).stop()
    command = [sys.executable, "-c", RUNS_ON, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:

        def connect():
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert connect() == "connected\n"
        move(tmp_path, url, new_other())
        assert "was moved to another database" in connect()
        assert flask(tmp_path, url, "move", "--undo").returncode == 0
        assert connect() == "connected\n"
        process.stdin.close()


def test_a_killed_move_leaves_nothing_and_can_be_run_again(start, settings, new_other, tmp_path):
    url, target = settings["DATABASE_URL"], new_other()
    server = start(**settings)
    session = server.client().create()
    server.stop()
    expected = lengthened(url, session)
    with half_way(tmp_path, url, target) as process:
        with pytest.raises(AssertionError, match=re.escape(BEGUN)):
            start(**settings)
        assert refused(tmp_path, url, "move", "--undo") == IN_USE
        process.kill()
        process.wait()
    assert is_empty(target)
    with pytest.raises(AssertionError, match=re.escape(BEGUN)):
        start(**settings)
    move(tmp_path, url, target)
    assert_equal(rows_at(target), expected)


# What is refused


def test_a_database_that_a_server_has_open_is_refused(start, settings, new_other, tmp_path):
    url, other = settings["DATABASE_URL"], new_other()
    server = start(**settings)
    session = server.client().create()
    assert refused(tmp_path, url, "move", other) == IN_USE
    assert server.client().turns(session)
    server.stop()
    start(**settings | {"DATABASE_URL": other})
    told = IN_USE.replace("The", "The other")
    assert refused(tmp_path, url, "move", other) == told
    assert start(**settings).client().turns(session)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_server_is_noticed_whatever_name_its_connections_have(
    start, settings, new_other, tmp_path
):
    url = settings["DATABASE_URL"]
    server = start(**settings | {"DATABASE_URL": f"{url}?application_name=chat"})
    server.client().create()
    assert refused(tmp_path, url, "move", new_other()) == IN_USE
    with tables_of(url):  # `psql` and the like are not in the way
        server.stop()
        move(tmp_path, url, new_other())


def test_a_database_that_is_not_empty_is_refused(start, settings, new_other, tmp_path):
    url, target = settings["DATABASE_URL"], new_other()
    server = start(**settings)
    server.client().create()
    server.stop()
    server = start(**settings | {"DATABASE_URL": target})
    alice = server.client()
    alice.delete(f"/sessions/{alice.create()['id']}")  # the ledger stays
    server.stop()
    before = rows_at(target)
    assert "already has sessions or usage" in refused(tmp_path, url, "move", target)
    assert rows_at(target) == before
    assert "is the same one" in refused(tmp_path, url, "move", url)
    assert start(**settings).client().create()


def test_what_another_database_would_change_is_not_moved(start, settings, tmp_path):
    url, target = settings["DATABASE_URL"], f"sqlite:///{tmp_path}/target.db"
    server = start(**settings)
    server.client().create()
    server.stop()
    start(**settings | {"DATABASE_URL": target}).stop()
    with tables_of(target) as tables:
        change = "UPDATE turn SET content = content || '.' WHERE id = new.id"
        tables.rows(f"CREATE TRIGGER odd AFTER INSERT ON turn BEGIN {change}; END")
    told = "Error: The other database did not store the rows of turn exactly. Nothing was moved."
    assert refused(tmp_path, url, "move", target) == told
    assert is_empty(target)
    assert start(**settings).client().get("/sessions").json()["data"]


WRONG = {
    "mysql://host/parley": "write it like sqlite:///path or postgresql://",
    "sqlite:////no/such/folder/parley.db": "the folder of this file is not there; make it",
    "postgresql://me:hush@127.0.0.1:1/parley": "nothing listens at 127.0.0.1, port 1",
    "postgresql://me:hush@127.0.0.1/parley?schema=a": "PostgreSQL has no option schema",
}


def test_a_url_that_leads_nowhere_is_reported(start, settings, tmp_path):
    url = settings["DATABASE_URL"]
    start(**settings).stop()
    for wrong, told in WRONG.items():
        said = refused(tmp_path, url, "move", wrong)
        assert said.startswith(f"Error: The other database: {told}"), said
    for words in (["move"], ["move", f"sqlite:///{tmp_path}/new.db", "--undo"]):
        ended = flask(tmp_path, url, *words)
        assert ended.returncode == 2 and "Name the other database by its URL" in ended.stderr
    assert "start it first" in refused(tmp_path, f"sqlite:///{tmp_path}/none.db", "move", url)
    assert not list(tmp_path.glob("*.db"))
