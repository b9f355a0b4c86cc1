"""Searches: what they find, how many go on at a time, and for how long."""

import subprocess
import sys
import threading
import time
import uuid

import pytest

from client import BOB, at_once
from product import ROOT
from raw_tables import tables_of


def test_two_searches_at_a_time_leave_room_for_others(start, settings, provider):
    alice = start(**settings).client()
    for word in ("apple", "pear"):
        alice.create(word)
    answers = at_once(12, lambda number: alice.get("/sessions?query=apple"))
    assert [len(answer.json()["data"]) for answer in answers] == [1] * 12


@pytest.mark.parametrize(
    "query, count", [("100%", 1), ("_", 1), ("\\", 1), ("ÜBER", 1), ("a'b", 1), ("%", 1), ("zz", 0)]
)
def test_searches_for_signs_as_they_are(server, provider, query, count):
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


def test_a_query_that_goes_on_for_too_long_is_given_up(new_database):
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", SLOW, new_database()], cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout == "given up\n(1,)\n", run.stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # whose one writer is held up from outside
def test_who_stores_a_short_text_waits_for_one_long_one_at_most(start, settings, provider):
    """Though there are more of these than connections, and all came before."""
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
