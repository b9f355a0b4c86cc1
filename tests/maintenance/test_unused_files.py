"""How long files are kept. Modules: `maintenance/unused_files.py`, `maintenance/forgetting.py`."""

import pathlib

import pytest

from client import ALICE, BOB, wait_until
from commands import flask
from pictures import png
from product import ROOT

DAY = 24 * 3600 * 10**6
PICTURE = png(600, 500, 700_000)  # of several parts


@pytest.fixture
def restart(start, settings):
    """A function that starts a server, which sweeps at once, in place of the last one."""
    servers = []

    def restart():
        for server in servers:
            server.kill()
        servers.append(start(**settings, WEB_CONCURRENCY=1))
        return servers[-1].client()

    return restart


def age(tables, microseconds):
    """Let everything that is noted of unused files be so much older."""
    tables.rows("UPDATE file SET unused_since = unused_since - ?", microseconds)


def counts(tables):
    return tuple(tables.value(f"SELECT count(*) FROM {name}") for name in ("file", "file_part"))


def test_a_file_without_a_turn_is_deleted_a_day_after_its_last_upload(restart, tables):
    alice = restart()
    digest = alice.uploaded(PICTURE)
    kept = alice.uploaded(png(1, 1))
    assert alice.create("What?", files=[kept])
    age(tables, DAY - 60 * 10**6)
    alice = restart()
    assert alice.upload(PICTURE).status_code == 200  # its day begins again
    age(tables, 3600 * 10**6)
    alice = restart()
    alice.create("To wait for a sweep")
    assert alice.get(f"/files/{digest}").status_code == 200
    age(tables, DAY)
    alice = restart()
    wait_until(lambda: counts(tables) == (1, 1))
    assert alice.get(f"/files/{digest}").status_code == 404
    assert alice.get(f"/files/{kept}").status_code == 200
    refused = alice.post("/sessions", {"content": "What?", "files": [digest]})
    assert refused.status_code == 400


def test_a_file_is_kept_for_a_day_after_its_last_turn_is_gone(restart, tables):
    alice = restart()
    digest = alice.uploaded(PICTURE)
    sessions = [alice.create("What?", files=[digest, digest]) for _ in range(2)]
    assert tables.value("SELECT unused_since FROM file") is None
    for session in sessions:
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    wait_until(lambda: tables.value("SELECT count(*) FROM turn_file") == 0)
    restart()
    wait_until(lambda: tables.value("SELECT unused_since FROM file") is not None)
    age(tables, DAY - 60 * 10**6)
    alice = restart()
    again = alice.create("Still there?", files=[digest])
    age(tables, 2 * DAY)
    alice = restart()
    [file] = alice.turns(again)[0]["files"]
    assert alice.get(f"/files/{file['id']}").content == PICTURE


def test_a_file_that_a_turn_has_is_not_deleted_however_long_it_was_noted_as_unused(restart, tables):
    alice = restart()
    digest = alice.uploaded(PICTURE)
    alice.create("What?", files=[digest])
    tables.rows("UPDATE file SET unused_since = 1")
    alice = restart()
    wait_until(lambda: tables.value("SELECT unused_since FROM file") is None)
    assert alice.get(f"/files/{digest}").content == PICTURE


@pytest.mark.parametrize("since", ["an upload", "a deletion"])
def test_what_a_killed_upload_or_deletion_left_is_deleted(restart, tables, since):
    alice = restart()
    alice.uploaded(PICTURE)
    unused_since = 0 if since == "a deletion" else tables.value("SELECT unused_since FROM file")
    tables.rows("UPDATE file SET owner = '', unused_since = ?", unused_since)
    if since == "an upload":
        restart()
        assert counts(tables)[0] == 1  # it may be going on
        age(tables, 3601 * 10**6)
    restart()
    wait_until(lambda: counts(tables) == (0, 0))


def test_forget_deletes_a_users_files_at_once(restart, tables, settings, tmp_path):
    alice = restart()
    alice.create("What?", files=[alice.uploaded(PICTURE)])
    alice.uploaded(png(1, 1))
    bob = pathlib.Path(tmp_path)  # a place for the command
    url = settings["DATABASE_URL"]
    app = str(ROOT / "app.py")
    ended = flask(bob, "--app", app, "forget", "--yes", ALICE, DATABASE_URL=url)
    assert ended.returncode == 0, ended.stderr
    assert counts(tables) == (0, 0)
    assert flask(bob, "--app", app, "forget", "--yes", BOB, DATABASE_URL=url).returncode != 0
