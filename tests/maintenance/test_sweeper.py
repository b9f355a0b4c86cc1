"""What the sweeper deletes soon: what requests left for it, even if the database or the disk has no
room at first. Module: `maintenance/sweeper.py`."""

import os
import subprocess
import threading
import time

import pytest

import trouble
from client import BOB, wait_until
from exports import imported, turns_of
from maintenance.deletion import FIRST_STEP, STEP, rows_after
from maintenance.sweeper import LULL
from raw_tables import tables_of

MEGABYTE = 2**20


def test_a_deletion_is_answered_before_the_turns_are_deleted(start, settings, tables):
    """While another transaction locks one of its turns, the session is gone for clients, and the rest of the turns wait."""
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = imported(alice, turns=turns_of(*["x"] * 2000))
    if tables.is_sqlite:
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        assert tables.value("SELECT count(*) FROM turn") > 0
    else:
        with tables_of(settings["DATABASE_URL"]) as other:
            other.rows("BEGIN")
            other.rows("SELECT id FROM turn ORDER BY id LIMIT 1 FOR UPDATE")
            assert alice.delete(f"/sessions/{session['id']}").status_code == 204
            wait_until(lambda: tables.value("SELECT count(*) FROM turn") < 1000)
            other.rows("COMMIT")
    assert alice.get(f"/sessions/{session['id']}").status_code == 404
    wait_until(lambda: tables.value("SELECT count(*) FROM session") == 0)
    assert tables.value("SELECT count(*) FROM turn") == 0


def test_turns_are_deleted_when_no_deletion_has_come_for_a_second(start, settings, tables):
    """So no step of the sweeper comes between two requests of a user who deletes many chats."""
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    sessions = [alice.create("Hello") for _ in range(5)]
    began = time.monotonic()
    for session in sessions:
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    count = tables.value("SELECT count(*) FROM turn")
    assert count == 2 * len(sessions) or time.monotonic() > began + LULL
    wait_until(lambda: tables.value("SELECT count(*) FROM turn") == 0)


def test_a_step_grows_until_it_takes_too_long():
    assert FIRST_STEP == 100
    assert rows_after(100, 0.001) == 200
    assert rows_after(100, STEP * 0.7) == 100
    assert rows_after(100, STEP * 2) == 50
    assert rows_after(1, 5) == 1


def test_half_an_import_is_deleted_soon_after_the_database_is_back(start, settings, tables):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    body = {"turns": turns_of("Begin", *(["x" * MEGABYTE, "go on"] * 12))}
    unseen = "SELECT count(*) FROM session WHERE owner = ''"
    for _ in range(5):
        thread = threading.Thread(target=alice.post, args=("/sessions/import", body))
        thread.start()
        wait_until(lambda thread=thread: tables.value(unseen) or not thread.is_alive())
        with trouble.locked(settings["DATABASE_URL"]):
            is_half = bool(tables.value(unseen))
            if is_half:
                thread.join()  # the import is refused after nine seconds
        thread.join()
        if is_half:
            break
        alice.delete(f"/sessions/{alice.get('/sessions').json()['data'][0]['id']}")
    assert is_half, "no import was caught in its middle"
    wait_until(lambda: not tables.value("SELECT count(*) FROM turn"), 20)
    assert alice.get("/sessions").json()["data"] == []


@pytest.fixture
def disk(tmp_path):
    """A folder on a file system with 40 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def on_disk(start, settings, disk):
    """A server whose database is on that file system."""
    url = f"sqlite:///{disk}/parley.db"
    return start(**settings | {"DATABASE_URL": url}, WEB_CONCURRENCY=1)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_an_import_too_large_for_the_disk_is_refused_at_once(on_disk, disk, engine):
    alice = on_disk.client()
    body = {"turns": turns_of("Begin", *(["x" * MEGABYTE, "go on"] * 10))}
    refused = alice.post("/sessions/import", body)
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    assert "disk has no room" in refused.json()["errors"][0]["detail"]
    wait_until(
        lambda: "the disk has no room for a chat or file of 104" in on_disk.output()
    )  # by a thread
    assert alice.create("Hello") and os.path.getsize(disk / "parley.db") < MEGABYTE


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_on_a_full_disk_users_can_delete_and_use_the_room(on_disk, disk, engine):
    alice, bob = on_disk.client(), on_disk.client(BOB)
    session = imported(alice, turns=turns_of("Begin", *["x" * MEGABYTE] * 3))
    wait_until((disk / "parley.db-reserve").exists)
    with trouble.full(disk):
        # SQLite's log has some room left, until not even the shortest message fits.
        for size in (900_000, 9_000, 1):
            while bob.post("/sessions", {"content": "y" * size}).status_code == 201:
                pass
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        assert alice.get("/sessions").json()["data"] == []
        assert not (disk / "parley.db-reserve").exists()
        wait_until(lambda: bob.post("/sessions", {"content": "Hello"}).status_code == 201)
