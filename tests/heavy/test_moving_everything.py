"""`flask export --all` and `flask import --all`: everything, from one database to another of either engine.

Modules: `upkeep/moving.py`, `upkeep/endings.py`.
"""

import contextlib
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys

import pytest

import commands
from client import ALICE, wait_until
from databases import POSTGRESQL, new_databases
from everything import IMPORTED, SETTINGS, USERS, fill, rows_of, seen_of
from ledgers import APP
from product import ROOT
from raw_tables import tables_of

UNDER_WAY = "SELECT count(*) FROM turn WHERE status = 'in_progress'"


@pytest.fixture(scope="session")
def new_other(engine, tmp_path_factory):
    """A function that returns the URL of an empty database of the other engine, where there is one."""
    other = "postgresql" if engine == "sqlite" and POSTGRESQL else "sqlite"
    with new_databases(other, tmp_path_factory.mktemp) as create:
        yield create


@pytest.fixture
def flask(tmp_path):
    """A function that runs a command on a database."""

    def flask(url, *words):
        return commands.flask(tmp_path, "--app", APP, *map(str, words), DATABASE_URL=url)

    return flask


@pytest.fixture
def move(flask, tmp_path):
    """A function that moves everything from one database to another; returns the file."""

    def move(source, target):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.ndjson"
        exported = flask(source, "export", "--all", path)
        assert exported.returncode == 0, exported.stderr
        imported = flask(target, "import", "--all", path)
        assert imported.returncode == 0, imported.stderr
        return path

    return move


def rows_at(url):
    with tables_of(url) as tables:
        return rows_of(tables)


# All of it


def test_everything_is_the_same_behind_it_for_clients_and_in_the_tables(
    start, settings, provider, new_database, new_other, move, flask, tmp_path
):
    """Replies under way end as the service itself ends those of a dead process that it does not take over."""
    url, other = settings["DATABASE_URL"], new_other()
    settings |= SETTINGS
    with tables_of(url) as tables:
        fill(start(**settings), provider, tables, tmp_path, url)
        under_way = {
            turn_id
            for (turn_id,) in tables.rows(
                "SELECT turn.id FROM turn JOIN session ON session.id = session_id "
                "WHERE status = 'in_progress' AND owner <> ''"
            )
        }
    assert len(under_way) == 13
    path = move(url, other)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    moved = rows_at(other)
    with tables_of(url) as tables:
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")  # long ago
        server = start(**settings, CONTINUE_LIMIT=0)
        wait_until(lambda: not tables.value(UNDER_WAY))
        wait_until(lambda: not tables.value("SELECT count(*) FROM session WHERE owner = ''"))
        left = without_writers(rows_of(tables), under_way)
    assert moved["release"][0]["retention_since"] is None  # it begins anew
    assert_equal(without_sweeps(moved), without_sweeps(left))
    expected = seen_of(server)
    server.stop()
    server = start(**settings | {"DATABASE_URL": other})
    assert seen_of(server) == expected
    server.stop()

    third = new_database()
    move(other, third)
    assert_equal(without_sweeps(rows_at(third)), without_sweeps(rows_at(other)))
    server = start(**settings | {"DATABASE_URL": third})
    assert seen_of(server) == expected
    talk_on(server, provider)


def without_writers(rows, turn_ids):
    """The rows as if the replies with these ids had lost what only their writers need."""
    gone = {"fence": None, "writer": None}
    turns = [turn | gone if turn["id"] in turn_ids else turn for turn in rows["turn"]]
    return rows | {"turn": sorted(turns, key=str)}


def without_sweeps(rows):
    """Without what a server notes each hour, and as it starts."""
    noted = {"release": ("retention_since", "watched_at"), "session": ("size", "sized_at")}
    for table, names in noted.items():
        plain = [row | dict.fromkeys(names) for row in rows[table]]
        rows = rows | {table: sorted(plain, key=str)}
    return rows


def assert_equal(found, expected):
    """By tables and rows, of which some are long."""
    assert found.keys() == expected.keys()
    for name in expected:
        lacking = [row for row in expected[name] if row not in found[name]]
        foreign = [row for row in found[name] if row not in expected[name]]
        assert not lacking and not foreign, (name, shortened(lacking), shortened(foreign))


def shortened(rows):
    return [{name: str(value)[:60] for name, value in row.items()} for row in rows[:5]]


def talk_on(server, provider):
    """What was moved goes on: keys are known, and what is counted is counted on."""
    for name in USERS:
        user = server.client(name)
        session = next(
            row
            for row in user.get("/sessions?page[limit]=100").json()["data"]
            if row["title"] == "Hers: ﷺ"
        )
        provider.requests.clear()
        again = user.post(
            f"/sessions/{session['id']}/messages", {"content": "More"}, Idempotency_Key="k-2"
        )
        assert (again.status_code, again.json()["status"]) == (201, "complete")
        other = user.post("/sessions", {"content": "Another"}, Idempotency_Key="k-1")
        assert other.status_code == 422
        assert (
            user.post("/sessions", {"content": "Deleted"}, Idempotency_Key="k-3").status_code == 404
        )
        assert user.post("/sessions/import", IMPORTED).status_code == 200  # it is there
        assert not provider.posts
        turn = user.post(f"/sessions/{session['id']}/messages", {"content": "On"}).json()
        assert turn["content"] == "The answer."
        assert user.turns(session)[-1] == turn


def test_what_was_asked_before_counts_for_a_limit(start, settings, new_other, move):
    settings["RATE_LIMIT"] = "3/day"
    server = start(**settings)
    alice = server.client()
    session = alice.create()
    alice.create()
    server.stop()
    other = new_other()
    move(settings["DATABASE_URL"], other)
    alice = start(**settings | {"DATABASE_URL": other}).client()
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 201
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 429


# What was cut off


@pytest.fixture
def long(start, settings, flask, tmp_path):
    """The file of a database with 1,500 turns of 5 kB, and what the database has."""
    server = start(**settings)
    session = server.client().create()
    server.stop()
    url = settings["DATABASE_URL"]
    with tables_of(url) as tables:
        key = session["id"].replace("-", "") if tables.is_sqlite else session["id"]
        columns = (
            "id",
            "session_id",
            "kind",
            "content",
            "created_at",
            "shown",
            "cancelled",
            "folded",
        )
        rows = (
            (number, key, "user", text, number, True, False, text)
            for number in range(1, 1501)
            for text in [f"{number} " * 1000]
        )
        tables.fill("turn", columns, rows)
    path = tmp_path / "long.ndjson"
    assert flask(url, "export", "--all", path).returncode == 0
    return path, rows_at(url)


def size_of(url):
    """The bytes that a database takes, or the rows that it has."""
    if url.startswith("sqlite"):
        files = pathlib.Path(url.removeprefix("sqlite:///")).parent.iterdir()
        return sum(file.stat().st_size for file in files)
    with tables_of(url) as tables:
        there = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'turn'"
        return tables.value("SELECT count(*) FROM turn") * 5000 if tables.value(there) else 0


def test_an_import_that_was_killed_begins_again_and_nothing_else_begins(
    start, settings, flask, long, new_other, tmp_path
):
    path, expected = long
    other, target = tmp_path / "other.ndjson", new_other()
    assert flask(settings["DATABASE_URL"], "export", "--all", other).returncode == 0
    command = [sys.executable, "-m", "flask", "--app", APP, "import", "--all", str(path)]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": target}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as importing:
        wait_until(lambda: size_of(target) > 3_000_000)
        importing.send_signal(signal.SIGKILL)
    assert importing.returncode == -signal.SIGKILL
    with tables_of(target) as tables:
        assert 0 < tables.value("SELECT count(*) FROM turn") < 1502
    file_id = re.search('"id":"(.+?)"', path.read_text())[1]
    said = f"run `.venv/bin/flask import --all FILE` again, with the file whose first line has the id {file_id}"
    for words in (["usage"], ["export", "--all", tmp_path / "half.ndjson"], ["check"]):
        refused = flask(target, *words)
        assert refused.returncode == 1 and said in refused.stdout + refused.stderr, refused
    assert not (tmp_path / "half.ndjson").exists()
    with pytest.raises(AssertionError, match=re.escape(said)):
        start(**settings | {"DATABASE_URL": target})
    refused = flask(target, "import", "--all", other)
    assert refused.returncode == 1 and f"has the id {file_id}. Take that" in refused.stderr
    again = flask(target, "import", "--all", path)
    assert (again.returncode, again.stderr) == (0, "")
    assert_equal(rows_at(target), expected)
    refused = flask(target, "import", "--all", path)
    assert refused.returncode == 1 and "This database has sessions" in refused.stderr
    assert start(**settings | {"DATABASE_URL": target}).client().get("/sessions").ok


def test_what_cannot_be_written_whole_is_not_there(settings, long, tmp_path):
    command = f"ulimit -f 2048; exec {sys.executable} -m flask --app {APP} export --all part.ndjson"
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": settings["DATABASE_URL"]}
    pipes = {"capture_output": True, "text": True, "timeout": 60}
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, **pipes)
    assert ended.returncode == 1
    assert ended.stderr == "Error: File too large. part.ndjson was not written.\n"
    assert not (tmp_path / "part.ndjson").exists()


WITHOUT_A_NUMBER = """
import sys
from database import db, open_database
from upkeep.migrations import MIGRATIONS
from upkeep.moving import NotMoved, write_everything

def fail():
    raise OSError("it has no number")

open_database({"DATABASE_URL": f"sqlite:///{sys.argv[1]}"}, None, MIGRATIONS)
db.obj.is_in_use = fail
try:
    write_everything("file")
except NotMoved as error:
    print(error)
"""


def test_what_the_system_refuses_without_a_number_is_told_by_its_text(tmp_path):
    command = [sys.executable, "-c", WITHOUT_A_NUMBER, tmp_path / "parley.db"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    pipes = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, cwd=tmp_path, env=environment, **pipes)
    assert (done.stdout, done.stderr) == ("it has no number. file was not written.\n", "")
    assert not (tmp_path / "file").exists()


# What is stopped


@contextlib.contextmanager
def running(folder, url, *words):
    """A command that a signal stops as at a terminal, and not as in the background."""
    command = [sys.executable, "-m", "flask", "--app", APP, *map(str, words)]
    options = {
        "cwd": folder,
        "env": {"PATH": os.environ["PATH"], "DATABASE_URL": url},
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(command, **options) as process:
        yield process


def is_begun(path):
    return path.exists() and path.stat().st_size > 0


def test_an_export_that_is_stopped_leaves_no_file(settings, long, tmp_path):
    path = tmp_path / "part.ndjson"
    with running(tmp_path, settings["DATABASE_URL"], "export", "--all", path) as process:
        wait_until(lambda: is_begun(path))
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
    assert (process.returncode, told) == (1, f"Error: It was stopped. {path} was not written.\n")
    assert not path.exists()


def test_an_import_that_is_stopped_says_to_run_it_again(flask, long, new_other, tmp_path):
    (path, expected), target = long, new_other()
    with running(tmp_path, target, "import", "--all", path) as process:
        wait_until(lambda: size_of(target) > 3_000_000)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    advice = f"Run `.venv/bin/flask import --all {path}` again: it goes on where it was."
    assert (process.returncode, told) == (1, f"Error: It was stopped. {advice}\n")
    again = flask(target, "import", "--all", path)
    assert (again.returncode, again.stderr) == (0, "")
    assert_equal(rows_at(target), expected)


def test_where_the_service_is_started_meanwhile_nothing_is_written(start, settings, long, tmp_path):
    path = tmp_path / "part.ndjson"
    with running(tmp_path, settings["DATABASE_URL"], "export", "--all", path) as process:
        wait_until(lambda: is_begun(path))
        process.send_signal(signal.SIGSTOP)
        start(**settings)
        process.send_signal(signal.SIGCONT)
        told = process.stderr.read()
    problem = "The service was started meanwhile, so that something may be lacking."
    advice = f"Stop it, and export again. {path} was not written."
    assert (process.returncode, told) == (1, f"Error: {problem} {advice}\n")
    assert not path.exists()


# What is refused


def test_nothing_moves_from_or_into_the_database_of_a_service_that_runs(
    start, settings, flask, move, new_other, tmp_path
):
    server = start(**settings)
    server.client().create()
    source = settings["DATABASE_URL"]
    refused = flask(source, "export", "--all", tmp_path / "file")
    assert refused.returncode == 1
    assert refused.stderr == "Error: The database is in use. Stop the service first.\n"
    assert not (tmp_path / "file").exists()
    server.stop()
    path = move(source, new_other())
    target = new_other()
    start(**settings | {"DATABASE_URL": target})
    refused = flask(target, "import", "--all", path)
    assert refused.returncode == 1
    assert refused.stderr == "Error: The database is in use. Stop the service first.\n"


def test_moves_nothing_into_a_database_that_has_something(
    start, settings, flask, move, new_database, new_other
):
    server = start(**settings)
    server.client().create()
    server.stop()
    path = move(settings["DATABASE_URL"], new_other())
    target = new_database()
    server = start(**settings | {"DATABASE_URL": target})
    alice = server.client()
    alice.delete(f"/sessions/{alice.create()['id']}")  # the ledger is left
    server.stop()
    before = rows_at(target)
    refused = flask(target, "import", "--all", path)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "This database has sessions, or usage, of its own." in refused.stderr
    assert_equal(rows_at(target), before)


@pytest.fixture(scope="module")
def small(server_with, tmp_path_factory):
    """The lines of a small file."""
    folder = tmp_path_factory.mktemp("small")
    url = f"sqlite:///{folder}/parley.db"
    server = server_with(DATABASE_URL=url)
    server.client(ALICE).create()
    server.stop()
    ended = commands.flask(folder, "--app", APP, "export", "--all", "file", DATABASE_URL=url)
    assert ended.returncode == 0, ended.stderr
    return (folder / "file").read_bytes().splitlines(keepends=True)


def test_a_file_that_is_not_right_changes_nothing(flask, small, tmp_path):
    path, url = tmp_path / "file", f"sqlite:///{tmp_path}/new.db"
    path.write_bytes(b"".join(small).replace(b"complete", b"\xff"))
    refused = flask(url, "import", "--all", path)
    told = f"Error: Line 5 of {path} is damaged: it is no row in JSON.\n"
    assert (refused.returncode, refused.stderr) == (1, told)
    path.write_bytes(b"".join(small))
    imported = flask(url, "import", "--all", path)
    assert (imported.returncode, imported.stderr) == (0, "")


def test_a_turn_without_its_session_is_refused(flask, small, tmp_path, new_database):
    """As where the service has made both while the file was written."""
    path, url = tmp_path / "file", new_database()
    lines = [line for line in small if not line.startswith(b'{"session"')]
    path.write_bytes(b"".join(lines).replace(b'"session":1', b'"session":0'))
    refused = flask(url, "import", "--all", path)
    assert refused.returncode == 1
    assert re.search("^Error: Line 3 of .* has a turn of a session that the file", refused.stderr)
    with tables_of(url) as tables:
        assert tables.value("SELECT count(*) FROM turn") == 0


def test_a_file_of_an_older_release_lacks_columns(flask, small, tmp_path, new_database):
    path, url = tmp_path / "file", new_database()
    text = b"".join(small)
    for column in (b'"estimated_tokens":0,"uncounted":0,', b'"provider":"openai",'):
        assert column in text
        text = text.replace(column, b"")
    path.write_bytes(text)
    assert flask(url, "import", "--all", path).returncode == 0
    with tables_of(url) as tables:
        assert tables.value("SELECT max(uncounted) FROM turn") == 0
        assert tables.value("SELECT provider FROM session") is None


def test_a_file_that_is_there_stays_and_one_that_is_not_is_told(flask, start, settings, tmp_path):
    start(**settings).stop()
    path, url = tmp_path / "file", settings["DATABASE_URL"]
    refused = flask(url, "import", "--all", path)
    told = f"Error: {path} cannot be read: No such file or directory.\n"
    assert (refused.returncode, refused.stderr) == (1, told)
    path.write_text("mine")
    refused = flask(url, "export", "--all", path)
    told = f"Error: {path} is there already. Name a new file.\n"
    assert (refused.returncode, refused.stderr, path.read_text()) == (1, told, "mine")
    odd = tmp_path / "a\nb\x07"
    odd.write_text("mine")
    refused = flask(url, "export", "--all", odd)
    told = f"Error: {tmp_path}/a b  is there already. Name a new file.\n"
    assert (refused.returncode, refused.stderr) == (1, told)
    refused = flask(url, "export", "--all", tmp_path / "no" / "file")
    assert refused.returncode == 1
    assert f"No such file or directory. {tmp_path}/no/file was not written." in refused.stderr


def test_nothing_is_exported_where_the_service_was_never_started(flask, tmp_path):
    refused = flask(f"sqlite:///{tmp_path}/none.db", "export", "--all", tmp_path / "file")
    assert refused.returncode == 1 and "start it first" in refused.stderr
    assert not list(tmp_path.iterdir())
