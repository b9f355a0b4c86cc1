"""What is written in steps is invisible until it is complete, and deleted if its process dies.
Module: `transfer/staged_session.py`."""

import concurrent.futures
import contextlib
import os
import signal
import threading
import uuid

import pytest

from client import wait_until
from commands import flask
from exports import imported, turns_of
from ledgers import APP
from raw_tables import tables_of
from transfer.staged_session import in_steps

MEGABYTE = 2**20
UNSEEN = "SELECT count(*) FROM session WHERE owner = ''"
HOUR = 3600 * 10**6  # microseconds


def large(count=12):
    return {"turns": turns_of("Begin", *(["x" * MEGABYTE, "go on"] * count)), "origin": "x:1"}


@pytest.fixture
def cut_off(start, settings):
    """A server that was killed in the middle of an import: no user has what it had written."""
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


def test_what_a_killed_process_had_begun_is_deleted_and_imported_again(start, settings, cut_off):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    assert client.get("/sessions").json()["data"] == []
    assert client.get("/export").text == ""
    with tables_of(settings["DATABASE_URL"]) as tables:
        wait_until(lambda: not tables.value("SELECT count(*) FROM session"))
        assert not tables.value("SELECT count(*) FROM turn")
    session = imported(client, **large(2))
    assert len(client.turns(session)) == 5


def test_what_another_host_had_begun_is_deleted_after_an_hour(start, settings, cut_off):
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET writer = 'another host/1/1'")
        server = start(**settings, WEB_CONCURRENCY=1)
        server.client().create("So the keeper has swept")
        server.stop()
        assert tables.value(UNSEEN) == 1
        tables.rows("UPDATE session SET imported_at = imported_at - ? WHERE owner = ''", HOUR)
        start(**settings, WEB_CONCURRENCY=1)
        wait_until(lambda: not tables.value(UNSEEN))


def test_a_forgotten_user_leaves_nothing_that_was_begun(settings, cut_off, tmp_path):
    url = settings["DATABASE_URL"]
    ended = flask(
        tmp_path, "--app", APP, "forget", "https://github.com/alice", "--yes", DATABASE_URL=url
    )
    assert ended.returncode in (0, 1), ended.stderr
    with tables_of(url) as tables:
        assert not tables.value("SELECT count(*) FROM session")
        assert not tables.value("SELECT count(*) FROM turn")


def test_an_import_that_fails_leaves_nothing(start, settings, tables):
    """In the middle of it, the database begins to refuse long texts."""
    client = start(**settings, WEB_CONCURRENCY=1).client()
    tables.rows("CREATE UNIQUE INDEX no_equal_texts ON turn (length(content), created_at)")
    body = {"turns": turns_of("Begin", *["x" * (MEGABYTE - place % 9) for place in range(12)])}
    assert client.post("/sessions/import", body).status_code == 500
    wait_until(lambda: not tables.value("SELECT count(*) FROM session"))
    tables.rows("DROP INDEX no_equal_texts")
    assert len(client.turns(imported(client, **body))) in range(5, 14)


@contextlib.contextmanager
def without_writers(tables):
    """Without other writers during this."""
    tables.rows("BEGIN IMMEDIATE" if tables.is_sqlite else "BEGIN")
    if not tables.is_sqlite:
        tables.rows("LOCK TABLE session, turn IN EXCLUSIVE MODE")
    try:
        yield
    finally:
        tables.rows("COMMIT")


@contextlib.contextmanager
def in_the_middle(client, tables, path, body):
    """The request has written a part, and waits. Yields a future of its response."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in range(5):
            asked = pool.submit(client.post, path, body)
            wait_until(lambda asked=asked: tables.value(UNSEEN) or asked.done())
            with without_writers(tables):
                if tables.value(UNSEEN):
                    yield asked
                    return
            client.delete(asked.result().headers["Location"])
    raise AssertionError("nothing was caught in its middle")


def test_an_import_is_invisible_until_it_is_complete(start, settings, tables):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    with in_the_middle(client, tables, "/sessions/import", large()) as asked:
        name = tables.value("SELECT id FROM session WHERE owner = ''")
        assert client.get(f"/sessions/{uuid.UUID(str(name))}").status_code == 404
        assert client.get("/sessions").json()["data"] == []
        assert client.get("/sessions?query=begin").json()["data"] == []
    assert asked.result().status_code == 201
    assert len(client.get("/sessions").json()["data"]) == 1


def test_if_the_database_hangs_in_the_middle_nothing_is_left(start, settings, tables):
    server = start(**settings, WEB_CONCURRENCY=1)
    client = server.client()
    with in_the_middle(client, tables, "/sessions/import", large()) as asked:
        assert asked.result().status_code == 503
    assert client.get("/sessions").json()["data"] == []
    assert imported(client, **large(2))
    server.stop()
    start(**settings, WEB_CONCURRENCY=1)
    wait_until(lambda: tables.value("SELECT count(*) FROM session") == 1)


def test_a_database_that_hangs_is_reported_within_ten_seconds(start, settings, tables):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    asked = {
        "/sessions/import": {"turns": turns_of("Hello")},
        f"/sessions/{client.create()['id']}/fork": None,
    }
    with without_writers(tables), concurrent.futures.ThreadPoolExecutor() as pool:
        for response in pool.map(client.post, asked, asked.values()):
            assert response.status_code == 503 and response.elapsed.total_seconds() < 11


def test_a_session_that_changes_while_it_is_copied_is_refused(start, settings, tables):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    session = imported(client, turns=turns_of("Begin", *(["x" * MEGABYTE, "go on"] * 7)))
    path = f"/sessions/{session['id']}/fork"
    with in_the_middle(client, tables, path, {}) as asked:
        tables.rows("UPDATE session SET updated_at = updated_at + 1 WHERE owner <> ''")
    assert asked.result().status_code == 409 and asked.result().headers["Retry-After"]
    wait_until(lambda: not tables.value(UNSEEN))
    assert len(client.get("/sessions").json()["data"]) == 1
    assert client.post(path).status_code == 201


# Steps


def steps(*sizes):
    """How many turns each step has, for turns of these sizes."""
    return [len(some) for some in in_steps([*sizes], lambda size: size)]


def test_a_step_has_a_megabyte_or_one_longer_text_or_five_hundred_turns():
    assert steps() == []
    assert steps(1) == [1]
    assert steps(MEGABYTE, 1) == [1, 1]
    assert steps(MEGABYTE // 2, MEGABYTE // 2, 0, 1) == [3, 1]
    assert steps(1, 5 * MEGABYTE, 1) == [1, 1, 1]
    assert steps(*[1] * 1001) == [500, 500, 1]
