"""`flask move` with everything that a database can have, with 100,000 turns, and interrupted in
every way. Modules: `transfer/move.py`."""

import concurrent.futures
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest

from client import ALICE, BOB, wait_until
from databases import LEFT_OUT, POSTGRESQL
from everything import IMPORTED, SETTINGS, USERS, fill, plain, seen_of
from ledgers import APP, day
from moves import assert_equal, end_of, half_way, is_empty, lengthened, move, rows_at
from raw_tables import tables_of
from together import on_sqlite

UNDER_WAY = "SELECT count(*) FROM turn WHERE status = 'in_progress'"


# All of it


@on_sqlite
def test_every_row_is_the_same_and_replies_in_progress_continue(
    start, settings, provider, new_database, new_other, tmp_path
):
    url, other, third = settings["DATABASE_URL"], new_other(), new_database()
    settings |= SETTINGS
    with tables_of(url) as tables:
        fill(start(**settings), provider, tables, tmp_path, url)
        in_progress = tables.rows("SELECT id, content FROM turn WHERE status = 'in_progress'")
        pieces = dict(tables.rows("SELECT turn_id, text FROM piece WHERE start = 0"))
    assert len(in_progress) > 10 and pieces
    expected = rows_at(url)
    move(tmp_path, url, other)
    moved = rows_at(other)
    assert_equal(moved, expected)
    assert moved["release"][0]["retention_since"] is None  # its first day begins again

    server = start(**settings | {"DATABASE_URL": other})
    with tables_of(other) as tables:
        wait_until(lambda: not tables.value(UNDER_WAY))
        wait_until(lambda: not tables.value("SELECT count(*) FROM session WHERE owner = ''"))
        contents = dict(tables.rows("SELECT id, content FROM turn"))
    went_on = [turn for turn in in_progress if turn[0] in contents]
    assert (
        len(went_on) == len(in_progress) - 1
    )  # the other belonged to a session that is being deleted
    for turn_id, content in went_on:
        assert contents[turn_id].startswith(content)
        assert pieces.get(turn_id, "") in contents[turn_id]
    expected = seen_of(server)
    server.stop()

    move(tmp_path, other, third)
    server = start(**settings | {"DATABASE_URL": third})
    assert seen_of(server) == expected
    talk_on(server, provider)


def talk_on(server, provider):
    """Idempotency keys and origins are known, and conversations can be continued."""
    for name in USERS:
        user = server.client(name)
        sessions = user.get("/sessions?page[limit]=100").json()["data"]
        session = next(row for row in sessions if row["title"] == "Hers: ﷺ")
        messages = f"/sessions/{session['id']}/messages"
        provider.requests.clear()
        again = user.post(messages, {"content": "More"}, Idempotency_Key="k-2")
        assert (again.status_code, again.json()["status"]) == (201, "complete")
        other = user.post("/sessions", {"content": "Another"}, Idempotency_Key="k-1")
        assert other.status_code == 422
        deleted = user.post("/sessions", {"content": "Deleted"}, Idempotency_Key="k-3")
        assert deleted.status_code == 404
        assert user.post("/sessions/import", IMPORTED).status_code == 200  # it exists already
        assert not provider.posts
        turn = user.post(messages, {"content": "On"}).json()
        assert turn["content"] == "The answer."
        assert user.turns(session)[-1] == turn


# Interrupted


@pytest.fixture
def long(start, settings):
    """The URL of a database with 3,000 turns of 5 kB, and its content."""
    server = start(**settings)
    session = server.client().create()
    server.stop()
    return settings["DATABASE_URL"], lengthened(settings["DATABASE_URL"], session)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_stopped_move_leaves_both_databases_as_they_were(
    start, settings, long, new_other, tmp_path, number
):
    (url, expected), target = long, new_other()
    with half_way(tmp_path, url, target) as process:
        process.send_signal(number)
        assert end_of(process) == (1, "Error: It was stopped. Nothing was moved.\n")
    assert is_empty(target)
    assert rows_at(url) == expected
    assert start(**settings).client().get("/sessions").ok


def test_a_full_disk_leaves_both_databases_as_they_were(long, tmp_path):
    """The size of the target's file is limited."""
    (url, expected), target = long, f"sqlite:///{tmp_path}/target.db"
    words = f"ulimit -f 4096; exec {sys.executable} -m flask --app {APP} move {target}"
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    pipes = {"capture_output": True, "text": True, "timeout": 60}
    ended = subprocess.run(["sh", "-c", words], cwd=tmp_path, env=environment, **pipes)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch("Error: It failed: .*[.] Nothing was moved[.]\n", ended.stderr)
    assert is_empty(target)
    assert rows_at(url) == expected
    move(tmp_path, url, target)
    assert_equal(rows_at(target), expected)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_cut_connection_leaves_both_databases_as_they_were(long, new_database, tmp_path, which):
    (url, expected), target = long, new_database()
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with half_way(tmp_path, url, target) as process:
        with tables_of({"source": url, "target": target}[which]) as tables:
            tables.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        status, told = end_of(process)
    assert status == 1 and told.startswith("Error: It failed: ")
    assert told.endswith(". Nothing was moved.\n")
    assert is_empty(target)
    move(tmp_path, url, target)
    assert_equal(rows_at(target), expected)


def test_a_service_that_starts_on_the_target_meanwhile_waits_for_the_end_of_the_move(
    start, settings, long, new_other, tmp_path
):
    (url, _), target = long, new_other()
    with (
        half_way(tmp_path, url, target) as process,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        starting = pool.submit(start, **settings | {"DATABASE_URL": target})
        assert not concurrent.futures.wait([starting], 3).done
        status, _ = end_of(process)
        assert status == 0
        alice = starting.result().client()
    [session] = alice.get("/sessions").json()["data"]
    page = alice.get(f"/sessions/{session['id']}?turns[limit]=200").json()
    assert len(page["turns"]) == 200 and page["meta"]["has_more"]


# Many turns, and long ones

SESSIONS, LENGTH = 2000, 50
MEGABYTES = 40  # turns of a megabyte
MEMORY = 200  # MB
TEXT = "Grüße, 世界 👩‍🚀, and words that say nothing in particular. "
SESSION = (
    *("id", "owner", "title", "folded_title", "title_is_users", "model", "preview"),
    *("created_at", "updated_at"),
)
TURN = (
    *("id", "session_id", "kind", "content", "folded", "created_at", "shown", "cancelled"),
    *("model", "status", "input_tokens", "output_tokens"),
)
USAGE = (
    *("owner", "day", "model", "replies"),
    *("input_tokens", "output_tokens", "cached_tokens", "estimated_tokens"),
)


def fill_with_many(tables):
    """Sessions of two users, whose turns alternate, one of them of 5 MB; days of usage; hits."""
    ids = [uuid.uuid4() for _ in range(SESSIONS)]
    keys = [each.hex if tables.is_sqlite else each for each in ids]
    sessions = (
        (key, (ALICE, BOB)[number % 2], "Title", "title", False, "m-1", TEXT, number, number)
        for number, key in enumerate(keys)
    )
    tables.fill("session", SESSION, sessions)
    count = SESSIONS * LENGTH
    turns = (_turn(number, keys[number % SESSIONS]) for number in range(1, count + 1))
    tables.fill("turn", TURN, turns)
    hits = ((1 + number, ALICE, number) for number in range(5000))
    tables.fill("asked", ("id", "owner", "at"), hits)
    usage = ((ALICE, day(ago), "m-1", 9, 2**40, 3, 2, 1) for ago in range(5000))
    tables.fill("usage", USAGE, usage)


def _turn(number, session):
    text = TEXT * (1 + number * 7919 % 40)
    if number % (SESSIONS * LENGTH // MEGABYTES) == 0:
        text = TEXT * 14_000
    if number == SESSIONS * LENGTH:
        text = TEXT * 70_000
    common = number << 20, session, "user", text, text, number, True, False
    if number // SESSIONS % 2:
        return *common, None, None, None, None
    return *common[:2], "assistant", *common[3:], "m-1", "complete", 15, 7


ORDERS = {
    "session": "id",
    "turn": "id",
    "asked": "id",
    "usage": "owner COLLATE {0}, day COLLATE {0}, model COLLATE {0}",
}


def digests_of(tables):
    """For each table, its number of rows and a digest of all of them, which are not in memory
    together."""
    found = {}
    for name, order in ORDERS.items():
        order = order.format('"BINARY"' if tables.is_sqlite else '"C"')
        columns = sorted(column for table, column, *_ in tables.columns() if table == name)
        digest, count = hashlib.sha256(), 0
        for row in read(tables, f'SELECT {", ".join(columns)} FROM "{name}" ORDER BY {order}'):
            digest.update(repr([plain(value) for value in row]).encode())
            count += 1
        found[name] = count, digest.hexdigest()
    return found


def read(tables, statement):
    if tables.is_sqlite:
        yield from tables.connection.execute(statement)
        return
    with tables.connection.transaction(), tables.connection.cursor("rows") as cursor:
        yield from cursor.execute(statement)


def move_measured(folder, source, target):
    """(seconds, most MB) of a move that succeeds."""
    began, most = time.monotonic(), 0
    command = [sys.executable, "-m", "flask", "--app", APP, "move", target]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": source}
    options = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, **options) as process:
        while process.poll() is None:
            # Not getrusage: it counts what the test itself had in memory when it forked.
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            peak = re.search(
                r"VmHWM:\s+(\d+)", status
            )  # there is none of a process that has just ended
            most = max(most, int(peak[1]) // 1024 if peak else 0)
            time.sleep(0.01)
    assert process.returncode == 0
    return time.monotonic() - began, most


@pytest.mark.long
@pytest.mark.skipif(not POSTGRESQL, reason=LEFT_OUT)
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_hundred_thousand_turns_there_and_back(
    start, settings, new_database, new_other, tmp_path
):
    url = settings["DATABASE_URL"]
    start(**settings).stop()
    with tables_of(url) as tables:
        fill_with_many(tables)
        expected = digests_of(tables)
    assert expected["turn"][0] == SESSIONS * LENGTH
    for target in (new_other(), new_database()):
        seconds, most = move_measured(tmp_path, url, target)
        size = pathlib.Path(settings["DATABASE_URL"].removeprefix("sqlite:///")).stat().st_size
        print(f"{size >> 20} MB from {url.partition(':')[0]}: {seconds:.0f} s, {most} MB of memory")
        assert most < MEMORY
        with tables_of(target) as tables:
            assert digests_of(tables) == expected
        url = target
