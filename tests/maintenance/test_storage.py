"""`STORAGE_LIMIT`: how many bytes a user may store, and what is refused beyond that."""

import uuid

from client import BOB, wait_until
from exports import imported, turns_of
from raw_tables import tables_of

LIMITED = {"STORAGE_LIMIT": "1000", "WEB_CONCURRENCY": 1}


def sizes_of(tables):
    return [size for (size,) in tables.rows("SELECT size FROM session ORDER BY created_at, id")]


def counted(tables):
    """The size of each session, once all have been counted."""
    uncounted = "SELECT count(*) FROM session WHERE coalesce(sized_at, 0) <> updated_at"
    wait_until(lambda: not tables.value(uncounted))
    return sizes_of(tables)


def test_beyond_the_limit_imports_and_forks_are_refused_and_messages_are_not(start, settings):
    server = start(**settings, **LIMITED)
    alice, bob = server.client(), server.client(BOB)
    first = imported(alice, turns=turns_of("é" * 200, "x" * 200))  # 600 bytes
    body = {"turns": turns_of("x" * 401)}
    refused = alice.post("/sessions/import", body)
    assert refused.status_code == 413
    said = (
        "This has 401 bytes, and you have stored 600 of 1,000. Delete chats that you do not need."
    )
    assert refused.json()["errors"][0]["detail"] == said
    assert alice.post(f"/sessions/{first['id']}/fork").status_code == 413
    assert alice.post(f"/sessions/{first['id']}/messages", {"content": "x"}).status_code == 201
    assert imported(bob, **body)
    assert alice.delete(f"/sessions/{first['id']}").status_code == 204
    assert imported(alice, **body)
    assert len(alice.get("/sessions").json()["data"]) == 1


def test_without_a_limit_nothing_is_refused(start, settings):
    alice = start(**settings, STORAGE_LIMIT="0", WEB_CONCURRENCY=1).client()
    session = imported(alice, turns=turns_of("x" * 2000))
    assert alice.post(f"/sessions/{session['id']}/fork").status_code == 201


def test_an_import_that_is_there_already_is_found_even_beyond_the_limit(start, settings):
    alice = start(**settings, **LIMITED).client()
    body = {"turns": turns_of("x" * 900), "origin": "x:1"}
    session = imported(alice, **body)
    again = alice.post("/sessions/import", body)
    assert (again.status_code, again.json()["id"]) == (200, session["id"])


def test_a_session_is_counted_again_after_any_release_used_it(start, settings, provider):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    session = imported(alice, turns=turns_of("x" * 100, "y" * 50))
    with tables_of(settings["DATABASE_URL"]) as tables:
        assert counted(tables) == [150]
        answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "z" * 30}).json()
        assert sizes_of(tables) == [150]
        server.stop()
        server = start(**settings, WEB_CONCURRENCY=1)  # this sweeps as it starts
        assert counted(tables) == [180 + len(answer["content"])]
        server.stop()
        # As a process of an older release does, which does not know sizes.
        name = session["id"] if not tables.is_sqlite else uuid.UUID(session["id"]).hex
        tables.rows("UPDATE turn SET content = '' WHERE session_id = ?", name)
        tables.rows("UPDATE session SET updated_at = updated_at + 1")
        start(**settings, WEB_CONCURRENCY=1)
        assert counted(tables) == [0]
