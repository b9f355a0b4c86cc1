"""What a process handles at a time, and that no user gets more than half of it.

Modules: `api/services.py`.
"""

import concurrent.futures
import contextlib
import json
import threading
import time
import weakref

import pytest
import requests

from client import BOB, wait_for_status, wait_until
from limits import Bulkhead, CachedThreads, Slot
from provider import reply, silence


@pytest.fixture
def small(start, settings):
    """One worker with eight threads and twenty streams. Five threads may wait, two of them for one user; one user may have ten streams."""
    return start(
        **settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--threads 8 --worker-connections 40"
    )


def test_one_users_requests_queue_and_others_do_not(start, settings, provider):
    """Three requests that read are answered at a time. Requests that change something have a queue of
    their own."""
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client(BOB)
    gate = threading.Event()
    provider.models = reply(gate)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(alice.get, "/models") for _ in range(20)]
        wait_until(lambda: provider.requests)
        time.sleep(0.5)  # all twenty have come by now
        assert bob.get("/sessions").elapsed.total_seconds() < 1
        assert alice.create("Hello") and not any(each.done() for each in waiting)
        behind = pool.submit(alice.get, "/sessions")
        gate.set()
        assert behind.result().status_code == 200
        assert {each.result().status_code for each in waiting} == {200}


def test_a_request_that_queues_too_long_is_told_when_to_come_back(start, settings, provider):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    gate = threading.Event()
    provider.models = reply(gate)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(alice.get, "/models") for _ in range(3)]
        wait_until(lambda: provider.requests)
        time.sleep(0.5)
        refused = alice.get("/sessions")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert 4 < refused.elapsed.total_seconds() < 8
        gate.set()
        assert {each.result().status_code for each in waiting} == {200}
    assert alice.get("/sessions").status_code == 200


def test_a_wait_beyond_the_limit_is_deferred(small, provider):
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


def test_a_stream_beyond_the_limit_is_refused_before_anything_is_claimed(small, provider):
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
    while True:  # the slots of the streams are freed
        with alice.events(session) as stream:
            if stream.status == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stream_with_nothing_to_send_takes_no_slot(small):
    """A client that resumes after the end gets 204, however often it comes."""
    alice = small.client()
    session = alice.create()
    with alice.events(session) as stream:
        *_, done = stream
    for _ in range(11):
        with alice.events(session, done.id) as stream:
            assert stream.status == 204
    with alice.events(session) as stream:
        assert stream.status == 200


def test_a_user_may_not_begin_any_number_of_replies(start, settings, provider):
    options = "--graceful-timeout 6 --threads 64 --worker-connections 300"  # a third of the connections may be replies
    server = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=options)
    alice, bob = server.client(), server.client(BOB)
    never = threading.Event()
    provider.default = silence(never)

    def ask(number):
        return alice.post("/sessions", {"content": f"{number}"}, Prefer="respond-async")

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
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


LONG = "a" * 900_000 + "👩" * 24_000  # one megabyte; four bytes per character in memory


@pytest.fixture
def one(start, settings):
    """One worker in which one user's long messages may take 128 MB."""
    return start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--graceful-timeout 6")


def post_long(user, path="/sessions", **headers):
    """A POST with a body in UTF-8: escaped, it would be too large."""
    headers |= {"Authorization": f"Bearer {user.token}", "Content-Type": "application/json"}
    body = json.dumps({"content": LONG}, ensure_ascii=False).encode()
    return requests.post(user.url + path, body, headers=headers, timeout=60)


def test_long_messages_without_room_are_refused_before_anything_is_stored(one, provider):
    alice, bob = one.client(), one.client(BOB)
    never = threading.Event()
    provider.default = silence(never)
    answers = [post_long(alice, Prefer="respond-async") for _ in range(24)]
    begun = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(begun) + len(refused) == 24 and len(begun) >= 10 and len(refused) >= 4
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert len(alice.get("/sessions?page[limit]=100").json()["data"]) == len(begun)
    assert post_long(bob, Prefer="respond-async").status_code == 201
    assert alice.post("/sessions", {"content": "Short"}, Prefer="respond-async").status_code == 201
    assert alice.post(begun[0].headers["Location"] + "/cancel").status_code == 200
    wait_until(lambda: post_long(alice, Prefer="respond-async").status_code == 201)


def test_a_reply_to_a_long_conversation_waits_for_room_and_delays_nobody_else(one, provider):
    alice, bob = one.client(), one.client(BOB)
    paths = [post_long(alice).headers["Location"] for _ in range(24)]
    gate, asked = threading.Event(), []

    def answer(request):
        question = request.body["messages"][-1]["content"]
        asked.append(question)
        return reply("At once." if question == "Short" else gate, "Done.")(request)

    provider.default = answer
    for number, path in enumerate(paths):
        question = {"content": f"Question {number}"}
        assert alice.post(path + "/messages", question, Prefer="respond-async").status_code == 202
    wait_until(lambda: len(asked) >= 8)
    for user in (alice, bob):
        assert user.create("Short")
    waiting = [number for number in range(24) if f"Question {number}" not in asked]
    assert len(waiting) >= 4
    assert alice.post(paths[waiting[0]] + "/cancel").json()["status"] == "interrupted"
    one.wait_for_output("outcome=interrupted")  # its process knows it, too
    gate.set()
    for number, path in enumerate(paths):
        if number != waiting[0]:
            turn = wait_for_status(alice, {"id": path.rsplit("/", 1)[1]}, "complete", 60)
            assert turn["content"] == "Done."
    expected = {f"Question {number}" for number in range(24) if number != waiting[0]}
    assert len(asked) == 25 and set(asked) == expected | {"Short"}


def test_a_user_gets_half_of_a_bulkhead():
    room = Bulkhead(100)
    alice, more, bob = Slot(room, "alice"), Slot(room, "alice"), Slot(room, "bob")
    assert alice.take(40) and not more.take(11) and more.take(10)
    assert bob.take(50) and not Slot(room, "carol").take(1)
    assert alice.take(30) and Slot(room, "carol").take(10), "what is taken instead leaves room"
    bob.close()
    assert not bob.take(1) and Slot(room, "dora").take(50)


def test_something_larger_than_a_bulkhead_is_alone_in_it():
    room = Bulkhead(100)
    large, small = Slot(room, "alice"), Slot(room, "alice")
    assert large.take(1000) and not small.take(1)
    large.close()
    assert small.take(1) and not Slot(room, "alice").take(1000)


def test_a_slot_that_waits_for_room_takes_none_meanwhile():
    room = Bulkhead(100)
    first, second = Slot(room, "alice"), Slot(room, "alice")
    assert first.take(30) and second.take(20)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        taken = pool.submit(first.take, 45, 30)  # it needs what the second has
        wait_until(lambda: room.users["alice"] == 20)
        assert second.take(25) and not taken.done()
        second.close()
        assert taken.result(10)
        assert not Slot(room, "alice").take(10)


def test_a_closed_slot_stops_waiting():
    room = Bulkhead(100)
    first, second = Slot(room, "alice"), Slot(room, "alice")
    assert first.take(50)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        taken = pool.submit(second.take, 50, 30)
        second.close()
        assert taken.result(10) is False
    first.close()
    assert not second.take(50) and Slot(room, "alice").take(50)


def test_a_cached_thread_releases_what_it_has_done():
    class Thing:
        pass

    threads = CachedThreads()
    for _ in range(3):  # the first one starts the thread
        thing, done = Thing(), threading.Event()
        gone = weakref.ref(thing)
        threads.start(lambda thing, done: done.set(), thing, done)
        del thing
        assert done.wait(10)
        wait_until(lambda: gone() is None)


def test_if_the_machine_allows_too_few_files_the_start_says_what_to_raise(
    start, settings, provider
):
    server = start(**settings, FILES=600)
    said = server.wait_for_output("room for 300 connections only")
    assert "ulimit -Hn is 600 files, raise it to 8192" in said
    provider.default = reply("Hi")
    assert server.client().create()
