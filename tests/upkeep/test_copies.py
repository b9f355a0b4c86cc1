"""What is written in steps is unseen until it is whole, and cleared away where its process dies.
Module: `upkeep/copies.py`."""

import os
import signal
import threading

import pytest

from client import wait_until
from commands import flask
from exports import imported, turns_of
from ledgers import APP
from raw_tables import tables_of

MEGABYTE = 2**20
UNSEEN = "SELECT count(*) FROM session WHERE owner = ''"
HOUR = 3600 * 10**6  # microseconds


def large(count=12):
    return {"turns": turns_of("Begin", *(["x" * MEGABYTE, "go on"] * count)), "origin": "x:1"}


@pytest.fixture
def cut_off(start, settings):
    """A server that was killed in the middle of an import: nobody has what it wrote of it."""
    server = start(**settings, WEB_CONCURRENCY=1)
    client = server.client()
    for _ in range(5):
        thread = threading.Thread(target=attempt, args=(client,))
        thread.start()
        with tables_of(settings["DATABASE_URL"]) as tables:
            wait_until(lambda: tables.value(UNSEEN) or not thread.is_alive())
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            thread.join()
            if tables.value(UNSEEN):
                return client
        server = start(**settings, WEB_CONCURRENCY=1)
        client = server.client()
        client.delete(f"/sessions/{client.get('/sessions').json()['data'][0]['id']}")
    raise AssertionError("no import was killed in its middle")


def attempt(client):
    try:
        client.post("/sessions/import", large())
    except OSError:
        pass  # the server was killed


def test_what_a_killed_process_had_begun_is_cleared_away_and_imported_again(
    start, settings, cut_off
):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    assert client.get("/sessions").json()["data"] == []
    assert client.get("/export").text == ""
    with tables_of(settings["DATABASE_URL"]) as tables:
        wait_until(lambda: not tables.value("SELECT count(*) FROM session"))
        assert not tables.value("SELECT count(*) FROM turn")
    session = imported(client, **large(2))
    assert len(client.turns(session)) == 5


def test_what_another_host_had_begun_is_cleared_away_after_an_hour(start, settings, cut_off):
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET writer = 'another host/1/1'")
        server = start(**settings, WEB_CONCURRENCY=1)
        server.client().create("So the keeper has swept")
        server.stop()
        assert tables.value(UNSEEN) == 1
        tables.rows("UPDATE session SET imported_at = imported_at - ? WHERE owner = ''", HOUR)
        start(**settings, WEB_CONCURRENCY=1)
        wait_until(lambda: not tables.value(UNSEEN))


def test_who_is_forgotten_leaves_nothing_that_was_begun(settings, cut_off, tmp_path):
    url = settings["DATABASE_URL"]
    ended = flask(
        tmp_path, "--app", APP, "forget", "https://github.com/alice", "--yes", DATABASE_URL=url
    )
    assert ended.returncode in (0, 1), ended.stderr
    with tables_of(url) as tables:
        assert not tables.value("SELECT count(*) FROM session")
        assert not tables.value("SELECT count(*) FROM turn")


def test_an_import_that_fails_leaves_nothing(start, settings, tables):
    """The database takes no long text any more, in the middle of it."""
    client = start(**settings, WEB_CONCURRENCY=1).client()
    tables.rows("CREATE UNIQUE INDEX no_equal_texts ON turn (length(content), created_at)")
    body = {"turns": turns_of("Begin", *["x" * (MEGABYTE - place % 9) for place in range(12)])}
    assert client.post("/sessions/import", body).status_code == 500
    wait_until(lambda: not tables.value("SELECT count(*) FROM session"))
    tables.rows("DROP INDEX no_equal_texts")
    assert len(client.turns(imported(client, **body))) in range(5, 14)


def test_an_import_is_unseen_until_it_is_whole(start, settings):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    thread = threading.Thread(target=attempt, args=(client,))
    thread.start()
    counts = set()
    while thread.is_alive():
        for row in client.get("/sessions").json()["data"]:
            lines = client.get(f"/sessions/{row['id']}?turns[limit]=1").json()
            counts.add(lines["turns"][0]["content"])
    thread.join()
    assert counts <= {"go on"}
    assert len(client.get("/sessions").json()["data"]) == 1
