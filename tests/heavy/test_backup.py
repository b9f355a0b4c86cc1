"""`flask backup` and `flask restore`: a SQLite file and the server's own key. Modules:
`terminal/backup.py`."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

import forked
import servers
from client import Client, at_once, wait_until
from product import copy_of_the_service
from provider import reply
from raw_tables import tables_of
from servers import Server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The service in a folder of its own, with its own database and key."""
    folder = copy_of_the_service(tmp_path / "parley")
    monkeypatch.setattr(servers, "ROOT", folder)
    return folder


@pytest.fixture
def serve(folder, provider, tmp_path):
    """A function that starts the service of this folder."""
    servers = []

    def serve():
        settings = {
            "JWT_SECRET": "",
            "OPENAI_BASE_URL": provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
        }
        settings["DATABASE_URL"] = f"sqlite:///{folder}/instance/parley.db"
        servers.append(Server(tmp_path, **settings, WEB_CONCURRENCY=2))
        return servers[-1].wait_until_up()

    yield serve
    for server in servers:
        server.stop()


def flask(folder, *words, text="", **settings):
    environment = {"PATH": os.environ["PATH"]} | settings
    return forked.run(["-m", "flask", *map(str, words)], folder, environment, text)


def user(server, folder):
    made = flask(folder, "token", "https://github.com/alice")
    return Client(server.url, made.stdout.strip())


@pytest.fixture
def saved(folder, serve, tmp_path):
    """A running server and its user, whose session "Old" already existed when `saved` was made."""
    server = serve()
    alice = user(server, folder)
    alice.create("Old")
    assert flask(folder, "backup", tmp_path / "saved").returncode == 0
    return server, alice


def titles(alice):
    return sorted(row["title"] for row in alice.get("/sessions?page[limit]=100").json()["data"])


def test_a_backup_under_load_can_be_restored(folder, serve, provider, tmp_path):
    server = serve()
    alice = user(server, folder)
    provider.default = reply("The ", 0.01, "answer.")
    alice.create("Before")
    acknowledged, saved = [], tmp_path / "saved" / "today"

    def work(number):
        if number == 3:
            return flask(folder, "backup", saved)
        for count in range(20):
            acknowledged.append(alice.create(f"{number} {count}")["title"])

    done = at_once(4, work)[3]
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{saved} has parley.db and jwt_key.pem: ")
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in saved.iterdir()} == {
        "parley.db": 0o600,
        "jwt_key.pem": 0o600,
    }
    assert os.listdir(saved.parent) == ["today"]
    refused = flask(folder, "restore", "--yes", saved)
    assert refused.returncode == 1 and "is in use. Stop the service first." in refused.stderr
    alice.create("After")
    server.stop()
    shutil.rmtree(folder / "instance")
    restored = flask(folder, "restore", saved)
    assert restored.returncode == 0, restored.stderr
    server = serve()
    alice = Client(server.url, alice.token)  # the key that signed her token is back
    found = titles(alice)
    assert "Before" in found and "After" not in found and set(found) <= {"Before", *acknowledged}
    for row in alice.get("/sessions?page[limit]=100").json()["data"]:
        wait_until(lambda: alice.turns(row)[-1]["status"] == "complete")
    assert stat.S_IMODE((folder / "instance" / "parley.db").stat().st_mode) == 0o600


def test_asks_before_it_replaces_a_database(folder, serve, saved, tmp_path):
    server, alice = saved
    alice.create("New")
    server.stop()
    for answer, left in (("n\n", 2), ("", 2), ("y\n", 1)):
        ended = flask(folder, "restore", tmp_path / "saved", text=answer)
        assert "Replace 2 sessions, last used 20" in ended.stdout
        assert " with 1 sessions, last used 20" in ended.stdout
        assert (ended.returncode == 0) == (left == 1), ended.stderr
        with tables_of(f"sqlite:///{folder}/instance/parley.db") as tables:
            assert tables.value("SELECT count(*) FROM session") == left
    assert titles(Client(serve().url, alice.token)) == ["Old"]


def test_a_restored_database_starts_its_retention_again(folder, serve, saved, tmp_path):
    server, _ = saved
    server.stop()
    with tables_of(f"sqlite:///{tmp_path}/saved/parley.db") as tables:
        tables.rows("UPDATE release SET retention_days = 7, retention_since = 1")
    assert flask(folder, "restore", "--yes", tmp_path / "saved").returncode == 0
    with tables_of(f"sqlite:///{folder}/instance/parley.db") as tables:
        assert tables.rows("SELECT retention_days, retention_since FROM release") == [(7, None)]


def test_a_backup_removes_leftovers_of_killed_ones_after_a_day(folder, serve, tmp_path):
    serve()
    for name, age in (("old", 25), ("new", 23)):
        left = tmp_path / "backups" / f".parley-part-{name}"
        left.mkdir(parents=True)
        (left / "parley.db").write_bytes(b"half")
        then = time.time() - age * 3600
        os.utime(left, (then, then))
    assert flask(folder, "backup", tmp_path / "backups" / "today").returncode == 0
    assert sorted(os.listdir(tmp_path / "backups")) == [".parley-part-new", "today"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_restore_replaces_all_that_a_killed_server_left(folder, serve, saved, tmp_path, is_there):
    """Also its log, if the database itself is gone: SQLite would write the log into the new
    file."""
    server, alice = saved
    alice.create("New")
    server.kill()
    assert (folder / "instance" / "parley.db-wal").stat().st_size > 0
    if not is_there:
        (folder / "instance" / "parley.db").unlink()
    assert flask(folder, "restore", "--yes", tmp_path / "saved").returncode == 0
    assert titles(Client(serve().url, alice.token)) == ["Old"]


def test_a_backup_overwrites_nothing_and_needs_a_database(folder, serve, tmp_path):
    nothing = flask(folder, "backup", tmp_path / "saved")
    assert nothing.returncode == 1 and "Has the service been started?" in nothing.stderr
    serve()
    assert flask(folder, "backup", tmp_path / "saved").returncode == 0
    before = sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "saved").iterdir())
    again = flask(folder, "backup", tmp_path / "saved")
    assert again.returncode == 1 and "already exists. Name a new folder" in again.stderr
    assert (
        sorted((file, file.stat().st_mtime_ns) for file in (tmp_path / "saved").iterdir()) == before
    )


def damaged(saved):
    with (saved / "parley.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def newer(saved):
    with sqlite3.connect(saved / "parley.db") as connection:
        connection.execute("UPDATE release SET migrations = 99")
    connection.close()


def copied_in_use(saved):
    (saved / "parley.db-wal").write_bytes(b"what the copy lacks")


def of_another_program(saved):
    (saved / "parley.db").unlink()
    with sqlite3.connect(saved / "parley.db") as connection:
        connection.execute("CREATE TABLE shopping (what)")
    connection.close()


CASES = [
    (damaged, "is damaged|is not a backup of Parley"),
    (newer, "belongs to a newer release of Parley"),
    (of_another_program, "is not a backup of Parley"),
    (copied_in_use, "this is a copy of files that were in use, not a backup"),
    (shutil.rmtree, "is not a backup of Parley"),
]


def test_an_incomplete_backup_is_not_restored(folder, saved, tmp_path, subtests):
    saved[0].stop()
    before = (folder / "instance" / "parley.db").read_bytes()
    for spoil, told in CASES:
        with subtests.test(spoil.__name__):
            spoilt = tmp_path / spoil.__name__
            spoil(shutil.copytree(tmp_path / "saved", spoilt))
            ended = flask(folder, "restore", "--yes", spoilt)
            assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
            assert any(each in ended.stderr for each in told.split("|")), ended.stderr
            assert (folder / "instance" / "parley.db").read_bytes() == before


def test_a_damaged_database_is_replaced(folder, serve, saved, tmp_path):
    server, alice = saved
    server.stop()
    (folder / "instance" / "parley.db").write_bytes(b"\xff" * 8192)
    ended = flask(folder, "restore", "--yes", tmp_path / "saved")
    assert ended.returncode == 0, ended.stderr
    assert titles(Client(serve().url, alice.token)) == ["Old"]


def test_a_service_that_is_started_during_the_question_loses_nothing(
    folder, serve, saved, tmp_path
):
    server, alice = saved
    server.stop()
    command = [sys.executable, "-m", "flask", "restore", str(tmp_path / "saved")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(
        command, cwd=folder, text=True, env={"PATH": os.environ["PATH"]}, **pipes
    ) as asking:
        asked = ""
        while "[y/N]" not in asked:
            asked += asking.stdout.read(1) or pytest.fail(f"it ended behind {asked}")
        alice = Client(serve().url, alice.token)
        alice.create("New")
        _, told = asking.communicate("y\n", 60)
    assert asking.returncode == 1 and ("is in use" in told or "has just been written" in told), told
    assert titles(alice) == ["New", "Old"]


def test_a_damaged_database_is_not_replaced_while_a_service_runs(folder, saved, tmp_path):
    path = folder / "instance" / "parley.db"
    before = os.stat(path).st_ino
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    ended = flask(folder, "restore", "--yes", tmp_path / "saved")
    assert ended.returncode == 1 and "is in use. Stop the service first." in ended.stderr
    assert os.stat(path).st_ino == before


def test_the_target_of_a_link_is_replaced(folder, serve, saved, tmp_path):
    server, alice = saved
    alice.create("New")
    server.stop()
    (tmp_path / "volume").mkdir()
    place = folder / "instance" / "parley.db"
    shutil.move(place, tmp_path / "volume" / "parley.db")
    place.symlink_to(tmp_path / "volume" / "parley.db")
    assert flask(folder, "restore", "--yes", tmp_path / "saved").returncode == 0
    assert place.is_symlink()
    assert titles(Client(serve().url, alice.token)) == ["Old"]


def test_a_database_of_release_1_0_0_has_no_mark_and_is_restored(folder, serve, saved, tmp_path):
    server, alice = saved
    server.stop()
    with sqlite3.connect(tmp_path / "saved" / "parley.db") as connection:
        connection.execute("PRAGMA application_id = 0")
    connection.close()
    assert flask(folder, "restore", "--yes", tmp_path / "saved").returncode == 0
    assert titles(Client(serve().url, alice.token)) == ["Old"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_told_whose_database_it_is(folder, serve, tmp_path):
    server = serve()
    assert flask(folder, "backup", tmp_path / "saved").returncode == 0
    server.stop()
    for parent in [tmp_path, *tmp_path.parents[:-1]]:
        parent.chmod(parent.stat().st_mode | 0o011)
    code = "import os, sys; os.setgid(65534); os.setuid(65534); from flask.cli import main; sys.argv[0] = 'flask'; main()"
    for words in (["backup", "/tmp/never"], ["restore", "--yes", str(tmp_path / "saved")]):
        command = [sys.executable, "-c", code, *words]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr, ended.stderr
        assert re.search("Permission denied|unable to open|is not readable", ended.stderr)


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_names_the_commands_of_postgresql(folder, tmp_path, command):
    ended = flask(
        folder, command, tmp_path / "saved", DATABASE_URL="postgresql://127.0.0.1:9/nothing"
    )
    assert ended.returncode == 1 and "pg_dump" in ended.stderr
