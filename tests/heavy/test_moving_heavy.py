"""Everything of 100,000 turns, from SQLite to PostgreSQL and back: how long it takes, how much memory, and whether it is the
same."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time
import uuid

import pytest

from client import ALICE, BOB
from databases import LEFT_OUT, POSTGRESQL, new_databases
from everything import plain
from ledgers import APP, day
from raw_tables import tables_of

SESSIONS, LENGTH = 2000, 50
LARGE = 40  # turns of a megabyte
MEMORY = 40  # MB, besides those of a command that reads little
TEXT = "Grüße, 世界 👩‍🚀, and words that say nothing in particular. "
SESSION = (
    *("id", "owner", "title", "folded_title", "title_is_users", "model", "preview"),
    *("created_at", "updated_at"),
)
TURN = (
    *("id", "session_id", "kind", "content", "folded", "created_at", "shown", "cancelled"),
    *("model", "status", "input_tokens", "output_tokens"),
)


def fill(tables):
    """Sessions of two users, whose turns take turns; days of usage; keys."""
    ids = [uuid.uuid4() for _ in range(SESSIONS)]
    keys = [each.hex if tables.is_sqlite else each for each in ids]
    owners = [(ALICE, BOB)[number % 2] for number in range(SESSIONS)]
    tables.fill("session", SESSION, (
        (key, owner, f"Title {number}", f"title {number}", False, "m-1", TEXT, number, number)
        for number, (key, owner) in enumerate(zip(keys, owners, strict=True))
    ))  # fmt: skip
    count = SESSIONS * LENGTH
    tables.fill(
        "turn", TURN, (_turn(number, keys[number % SESSIONS]) for number in range(1, count + 1))
    )
    tables.fill(
        "asked", ("id", "owner", "at"), ((1 + number, ALICE, number) for number in range(5000))
    )
    tables.fill(
        "usage",
        (
            "owner",
            "day",
            "model",
            "replies",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
            "estimated_tokens",
        ),
        (
            (ALICE, day(ago), f"m-{model}", 9, 2**40, 3, 2, 1)
            for ago in range(500)
            for model in range(9)
        ),
    )


def _turn(number, session):
    text = TEXT * (1 + number * 7919 % 40)
    if number % (SESSIONS * LENGTH // LARGE) == 0:
        text = TEXT * 14_000
    if number // SESSIONS % 2:
        return (
            number << 20,
            session,
            "user",
            text,
            text,
            number,
            True,
            False,
            None,
            None,
            None,
            None,
        )
    return (
        number << 20,
        session,
        "assistant",
        text,
        text,
        number,
        True,
        False,
        "m-1",
        "complete",
        15,
        7,
    )


ORDERS = {
    "session": "id",
    "turn": "id",
    "asked": "id",
    "usage": "owner COLLATE {0}, day COLLATE {0}, model COLLATE {0}",
}


def digests_of(tables):
    """Of each table how many rows it has, and a digest of all of them, which are not held together."""
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


def run(folder, url, *words):
    """(seconds, MB at most) of a command, which does not fail."""
    began, most = time.monotonic(), 0
    command = [sys.executable, "-m", "flask", "--app", APP, *map(str, words)]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            peak = re.search(r"VmHWM:\s+(\d+)", status)  # none of one that has just ended
            most = max(most, int(peak[1]) // 1024 if peak else 0)
            time.sleep(0.01)
    assert process.returncode == 0
    return time.monotonic() - began, most


@pytest.mark.skipif(not POSTGRESQL, reason=LEFT_OUT)
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_hundred_thousand_turns_there_and_back(
    start, settings, new_database, tmp_path_factory, tmp_path
):
    url = settings["DATABASE_URL"]
    start(**settings).stop()
    with tables_of(url) as tables:
        fill(tables)
        expected = digests_of(tables)
    assert expected["turn"][0] == SESSIONS * LENGTH
    with new_databases("postgresql", tmp_path_factory.mktemp) as create:
        for target in (create(), new_database()):
            path = tmp_path / f"{target.rpartition('/')[2]}.ndjson"
            for at, word in ((url, "export"), (target, "import")):
                seconds, most = run(tmp_path, at, word, "--all", path)
                more = most - run(tmp_path, at, "usage")[1]
                size = path.stat().st_size >> 20
                print(f"{word} {at.partition(':')[0]}: {size} MB, {seconds:.0f} s, {more} MB more")
                assert more < MEMORY
            with tables_of(target) as tables:
                assert digests_of(tables) == expected
            path.unlink()
            url = target
