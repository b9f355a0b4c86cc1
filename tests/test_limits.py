"""What a process carries at a time, and that no user takes more than half of it."""

import concurrent.futures
import contextlib
import subprocess
import sys
import threading
import time
import uuid

import pytest

from client import BOB, ROOT, at_once
from provider import cut, reply, silence


@pytest.fixture
def settings(new_database, provider):
    return {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}


@pytest.fixture
def small(start, settings):
    """One worker with eight threads, five of which may wait, two for one user, and with twenty streams, ten of one user."""
    return start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--threads 8 --worker-connections 40")


def test_a_wait_that_is_over_the_limit_is_deferred(small, provider):
    alice = small.client()
    session = alice.create()
    never = threading.Event()
    provider.default = reply("Some ", never)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(alice.post, "/sessions", {"content": "Hello"}) for _ in range(2)]
        provider.wait_for_request(3)
        began = time.monotonic()
        deferred = alice.post(f"/sessions/{session['id']}/messages", {"content": "And?"})
        assert (deferred.status_code, deferred.json()) == (202, {"accepted": True})
        assert "Preference-Applied" not in deferred.headers
        assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
        assert time.monotonic() - began < 5, "it was not answered at once"
        never.set()
        assert [answer.result().status_code for answer in waiting] == [201, 201]


def test_a_stream_that_is_over_the_limit_is_refused_before_anything_is_claimed(small, provider):
    alice, bob = small.client(), small.client(BOB)
    never = threading.Event()
    provider.default = reply("Some ", never)
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    with contextlib.ExitStack() as streams:
        for _ in range(10):
            assert streams.enter_context(alice.events(session)).status == 200
        began = time.monotonic()
        with alice.stream("POST", "/sessions", {"content": "One more"}) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        with alice.events(session) as refused:
            assert refused.status == 503
        assert len(alice.get("/sessions").json()["data"]) == 1
        assert time.monotonic() - began < 5, "it was not answered at once"
        assert bob.get("/health").status_code == 200
        with bob.stream("POST", "/sessions", {"content": "Hello"}) as stream:
            assert stream.status == 201
    never.set()
    deadline = time.monotonic() + 10
    while True:  # the places of the streams are given back
        with alice.events(session) as stream:
            if stream.status == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_user_may_not_begin_any_number_of_replies(start, settings, provider):
    options = "--graceful-timeout 6 --threads 64 --worker-connections 300"  # a third of the latter may be replies
    server = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=options)
    alice, bob = server.client(), server.client(BOB)
    never = threading.Event()
    provider.default = silence(never)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        ask = lambda number: alice.post("/sessions", {"content": f"{number}"}, Prefer="respond-async")  # noqa: E731
        answers = list(pool.map(ask, range(80)))
    begun = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(begun) == 50 and len(refused) == 30
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    provider.default = reply("Hi")
    assert bob.create("Hello")
    cancelled = begun[0].headers["Location"]
    assert alice.post(cancelled + "/cancel").status_code == 200
    deadline = time.monotonic() + 10
    while alice.post("/sessions", {"content": "Again"}).status_code != 201:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_where_the_machine_allows_fewer_files_the_start_says_what_to_raise(start, settings, provider):
    server = start(**settings, FILES=600)
    said = server.wait_for_output("room for 300 connections only")
    assert "ulimit -Hn is 600 files, raise it to 8192" in said
    provider.default = reply("Hi")
    assert server.client().create()


def test_two_searches_at_a_time_leave_room_for_others(start, settings, provider):
    alice = start(**settings).client()
    for word in ("apple", "pear"):
        alice.create(word)
    answers = at_once(12, lambda number: alice.get("/sessions?query=apple"))
    assert [len(answer.json()["data"]) for answer in answers] == [1] * 12


@pytest.mark.parametrize("query, count", [("100%", 1), ("_", 1), ("\\", 1), ("ÜBER", 1), ("a'b", 1), ("%", 1), ("zz", 0)])
def test_searches_for_signs_as_they_are(server, provider, query, count):
    user = server.client(f"https://github.com/{uuid.uuid4().hex}")
    user.create("100% of a_b, a\\c, über, a'b")
    user.create("nothing of that")
    assert len(user.request("GET", "/sessions", params={"query": query}).json()["data"]) == count


def test_a_title_is_asked_for_once(start, settings, provider):
    alice = start(**settings, TITLE_MODEL="m-2").client()
    answer = reply("The answer.")
    provider.default = lambda request: (cut() if request.body["model"] == "m-2" else answer)(request)
    alice.create("Hello")
    provider.wait_for_request(2)
    time.sleep(1.2)  # a second try would have come by now
    assert [request.body["model"] for request in provider.posts].count("m-2") == 1


SLOW = """
import sys
from database import db, limit_time, open_database
from limits import Overloaded
from search import limited

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
    run = subprocess.run([sys.executable, "-c", SLOW, new_database()], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "given up\n(1,)\n", run.stderr
    assert time.monotonic() - began < 10
