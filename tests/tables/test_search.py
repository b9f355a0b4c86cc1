"""Searches: what they find, how many run at a time, and for how long."""

import concurrent.futures
import subprocess
import sys
import threading
import time
import uuid

import pytest

from client import BOB, at_once, wait_until
from product import ROOT
from raw_tables import tables_of


def test_two_searches_at_a_time_leave_room_for_others(start, settings, provider):
    alice = start(**settings).client()
    for word in ("apple", "pear"):
        alice.create(word)
    answers = at_once(12, lambda number: alice.get("/sessions?query=apple"))
    assert [len(answer.json()["data"]) for answer in answers] == [1] * 12


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite blocks no search
def test_searches_that_wait_for_the_database_leave_connections_to_others(start, settings):
    """Twelve users search, and two of them have a connection."""
    server = start(**settings, WEB_CONCURRENCY=1)
    users = [server.client(f"https://github.com/{number}") for number in range(12)]
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'turn'::regclass"
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        concurrent.futures.ThreadPoolExecutor(12) as pool,
    ):
        tables.rows("BEGIN")
        tables.rows("LOCK TABLE turn IN ACCESS EXCLUSIVE MODE")
        searches = [pool.submit(user.get, "/sessions?query=apple") for user in users]
        wait_until(lambda: tables.value(waiting) >= 2, 5)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert server.client().get("/health").status_code == 200
            assert tables.value(waiting) < 6  # the keeper and the sweeper may wait, too
        tables.rows("ROLLBACK")
        assert [search.result().status_code for search in searches] == [200] * 12


@pytest.mark.parametrize(
    "query, count", [("100%", 1), ("_", 1), ("\\", 1), ("ÜBER", 1), ("a'b", 1), ("%", 1), ("zz", 0)]
)
def test_special_characters_are_searched_literally(server, provider, query, count):
    user = server.client(f"https://github.com/{uuid.uuid4().hex}")
    user.create("100% of a_b, a\\c, über, a'b")
    user.create("nothing of that")
    assert len(user.request("GET", "/sessions", params={"query": query}).json()["data"]) == count


SLOW = """
import sys
from database import db, limit_time, open_database
from limits import Overloaded
from tables.search import limited

open_database({"DATABASE_URL": sys.argv[1]}, None, [])
slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n"
with db.connection_context():
    try:
        with limited(0.3):
            db.execute_sql(slow).fetchone()
    except Overloaded:
        print("given up")
limit_time()
with db.connection_context():
    print(db.execute_sql("SELECT 1").fetchone())
"""


def test_a_search_that_takes_too_long_is_given_up(new_database):
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", SLOW, new_database()], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "given up\n(1,)\n", run.stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # its only writer is blocked by the test
def test_a_short_text_waits_for_at_most_one_long_one(start, settings, provider):
    """Though there are more long texts than connections, and all came first."""
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob, ended = server.client(), server.client(BOB), []
    long = "x" * 500_000

    def send(client, content):
        assert (
            client.post("/sessions", {"content": content}, Prefer="respond-async").status_code
            == 201
        )
        ended.append(content)

    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("BEGIN IMMEDIATE")
        threads = [
            threading.Thread(target=send, args=(alice, f"{long} {number}")) for number in range(10)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)  # all wait for the writer, or for each other
        threads.append(threading.Thread(target=send, args=(bob, "short")))
        threads[-1].start()
        time.sleep(0.5)
        tables.rows("COMMIT")
    for thread in threads:
        thread.join()
    assert len(ended) == 11 and ended.index("short") <= 2, ended.index("short")
