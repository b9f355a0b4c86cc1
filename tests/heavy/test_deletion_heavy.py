"""A session of some hundred megabytes is deleted, or many sessions at once, and nobody has to
wait for it."""

import base64
import contextlib
import random
import sqlite3
import threading
import time

import psycopg
import pytest

import trouble
from client import BOB, at_once, wait_until
from exports import imported, turns_of
from needs import lacks_strace
from others import others_at_work
from provider import reply
from stalls import stalled
from together import are_in_time, on_sqlite

COPIES = {
    1_000_000: 100,
    50_000: 2000,
}  # so many turns of so many characters, each stored a second time as its search text
FAR = 1_000_000  # from the ids that a sequence gives meanwhile


class Table:
    """The table of turns, in the file or on the server."""

    def __init__(self, url):
        self.url = url

    def ask(self, *statements):
        """The first value that the last of these statements returns, all of them in one
        transaction."""
        is_sqlite = self.url.startswith("sqlite:///")
        connection = (
            sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=60)
            if is_sqlite
            else psycopg.connect(self.url)
        )
        with contextlib.closing(connection), connection:
            for statement in statements:
                cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]

    def columns(self):
        """All columns except the id."""
        is_sqlite = self.url.startswith("sqlite:///")
        source = (
            "pragma_table_info('turn')"
            if is_sqlite
            else "information_schema.columns WHERE table_name = 'turn'"
        )
        name = "name" if is_sqlite else "column_name::text"
        names = self.ask(
            f"SELECT {'group_concat' if is_sqlite else 'string_agg'}({name}, ',') FROM {source}"
        )
        return ", ".join(column for column in names.split(",") if column != "id")

    def copy(self, turn_id, first_id, count):
        """So many copies of this turn, in its session, with ids from this one on."""
        columns = self.columns()
        rows = (
            f"SELECT {first_id} + number, {columns} FROM numbers JOIN turn ON turn.id = {turn_id}"
        )
        numbers = f"SELECT 0 AS number UNION ALL SELECT number + 1 FROM numbers WHERE number < {count - 1}"
        self.ask(f"WITH RECURSIVE numbers AS ({numbers}) INSERT INTO turn (id, {columns}) {rows}")


def large_session(alice, table):
    """A session with all these turns. Returns it, and its first id."""
    session, originals = None, {}
    for length in COPIES:
        content = base64.b85encode(
            random.Random(length).randbytes(length * 4 // 5)
        ).decode()  # neither engine can compress it
        if session is None:
            session = alice.create(content)
        else:
            assert (
                alice.post(f"/sessions/{session['id']}/messages", {"content": content}).status_code
                == 201
            )
        originals[length] = table.ask("SELECT MAX(id) FROM turn WHERE kind = 'user'")
    first_id = next_id = table.ask("SELECT MAX(id) FROM turn") + FAR
    for length, count in COPIES.items():
        table.copy(originals[length], next_id, count)
        next_id += count
    return session, first_id


@on_sqlite
def test_nobody_waits_for_the_deletion_of_a_large_session(start, settings, provider):
    """It is gone when the request is answered, and its space is given back soon after, while all
    others are served."""
    provider.default = answer
    server, table = start(**settings), Table(settings["DATABASE_URL"])
    alice = server.client()
    session, first_id = large_session(alice, table)
    kept, count = alice.create("Keep this"), sum(COPIES.values())
    turns = f"SELECT COUNT(*) FROM turn WHERE id BETWEEN {first_id} AND {first_id + count - 1}"
    assert table.ask(turns) == count
    path = f"/sessions/{session['id']}"
    bodies = {
        "wait_for": {"content": "Hello", "model": "m-1"},
        "cancel": {"content": "Never", "model": "m-2"},
    }
    with others_at_work(server.client(BOB), 0.05, **bodies) as took_others:
        wait_until(lambda: took_others.count() > 20)
        began = time.monotonic()
        deleted = alice.delete(path)
        took = time.monotonic() - began
        assert deleted.status_code == 204
        assert alice.get(path).status_code == 404
        assert alice.post(path + "/messages", {"content": "Are you there?"}).status_code == 404
        assert [each["id"] for each in alice.get("/sessions").json()["data"]] == [kept["id"]]
        wait_until(lambda: table.ask(turns) == 0, 60)
        gone_after = time.monotonic() - began
        before = took_others.count()
        wait_until(lambda: took_others.count() > before + 20)
    print(f"answered after {took:.2f} s, gone after {gone_after:.2f} s")
    assert are_in_time([seconds for each in took_others.values() for seconds in each], 1)
    assert [turn["content"] for turn in alice.turns(kept)] == ["Keep this", "The answer."]
    assert "Traceback" not in server.output()


@pytest.mark.long
@on_sqlite
def test_nobody_waits_for_many_deletions_on_a_slow_disk(
    start, settings, provider, tables, tmp_path
):
    if problem := lacks_strace():
        pytest.skip(problem)
    provider.default = answer
    server = start(**settings)
    alice = server.client()
    sessions = [imported(alice, turns=turns_of(*["x" * 40] * 2000)) for _ in range(26)]
    bodies = {
        "wait_for": {"content": "Hello", "model": "m-1"},
        "cancel": {"content": "Never", "model": "m-2"},
    }
    with (
        stalled(lambda: trouble.pids_of(server), 0.03, tmp_path / "strace"),
        others_at_work(server.client(BOB), 0.05, **bodies) as took_others,
    ):
        wait_until(lambda: took_others.count() > 20)
        gone = at_once(26, lambda n: alice.delete(f"/sessions/{sessions[n]['id']}").status_code)
        assert gone == [204] * 26
        wait_until(lambda: not tables.value("SELECT count(*) FROM session WHERE owner = ''"), 60)
    assert are_in_time([seconds for each in took_others.values() for seconds in each], 1)


def answer(request):
    """The models' answers: m-1's comes at once, and m-2's never."""
    return (
        reply("The answer.")
        if request.body["model"] == "m-1"
        else reply("And so on. ", threading.Event())
    )(request)
