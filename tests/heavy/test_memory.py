"""How much of a process's memory one user can take, how much stays taken, and what others
notice."""

import concurrent.futures
import contextlib
import json
import pathlib
import re
import socket
import threading
import time

import pytest
import requests

from client import BOB, at_once, wait_until
from others import others_at_work
from provider import reply
from together import are_in_time, on_postgresql, on_sqlite

MOST, LEFT = 600, 150  # MB of a process: at any time, and a minute later
LONG = "a" * 900_000 + "👩" * 24_000  # of a megabyte, and of four bytes a character in memory


def memory(server):
    """The largest worker's memory in MB: (now, at most so far)."""
    status = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in server.workers()]
    sizes = [[int(size) for size in re.findall(r"Vm(?:HWM|RSS):\s+(\d+)", text)] for text in status]
    return max(now for _, now in sizes) // 1024, max(peak for peak, _ in sizes) // 1024


def but_for_others(*parts):
    """The model's answers to alice; other users get one word."""

    def answer(request):
        is_others = request.body["messages"][-1]["content"] == "Meanwhile"
        return reply(*(["Done."] if is_others else parts))(request)

    return answer


@pytest.fixture
def one(start, settings, provider):
    """One worker. At the end, its maximum and its memory after a minute are checked."""
    server = start(**settings, WEB_CONCURRENCY=1, REPLY_WAIT=60)
    with others_at_work(server.client(BOB), defer={"content": "Meanwhile"}) as took:
        yield server
    most = memory(server)[1]
    began = time.monotonic()
    wait_until(lambda: memory(server)[0] < LEFT, 60)
    left, seconds = memory(server)[0], time.monotonic() - began
    print(f"{most} MB at most, {left} after {seconds:.0f} s")
    assert most < MOST
    assert are_in_time(took["health"], 1) and are_in_time(took["create"], 1)
    assert "Traceback" not in server.output()


def post(user, path, content, **headers):
    """A POST whose body is UTF-8: escaped, it would be too large."""
    headers |= {"Authorization": f"Bearer {user.token}", "Content-Type": "application/json"}
    body = json.dumps({"content": content}, ensure_ascii=False).encode()
    return requests.post(user.url + path, body, headers=headers, timeout=120)


@contextlib.contextmanager
def unread(server, path, count):
    """So many connections of alice's that have sent a request for this path, and read nothing."""
    token = server.client().token
    request = f"GET {path} HTTP/1.1\r\nHost: parley\r\nAuthorization: Bearer {token}\r\n\r\n"
    with contextlib.ExitStack() as connections:
        for _ in range(count):
            connection = connections.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(request.encode())
        yield


@pytest.mark.long
@on_sqlite
def test_streams_of_a_long_reply_that_nobody_reads(one, provider):
    provider.default = but_for_others("a" * 400_000, "👩" * 100_000)
    alice = one.client()
    session = alice.create("Hello")
    with unread(one, f"/sessions/{session['id']}/events", 1000):
        for _ in range(10):
            with alice.events(session) as stream:
                assert [event.name for event in stream][-2:] == ["assistant_turn", "done"]
        time.sleep(5)  # others are checked for delays


@pytest.mark.long
@on_postgresql
def test_a_session_of_sixty_megabytes_that_is_read_as_a_whole(one, provider):
    alice = one.client()
    path = post(alice, "/sessions", LONG).headers["Location"]
    for _ in range(59):
        assert post(alice, path + "/messages", "👩" * 245_000).status_code == 201
    for answer in at_once(4, lambda number: alice.get(path)):
        assert answer.status_code == 200 and len(answer.content) < 2**23 + 10_000
    with unread(one, path, 100):
        wait_until(lambda: alice.get(path).status_code == 200)


@pytest.mark.long
@on_sqlite
def test_two_thousand_unfinished_bodies_of_a_megabyte(one):
    head = (
        f"POST /sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.client().token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()
    refused = []
    with contextlib.ExitStack() as connections:
        clients, began = [], time.monotonic()
        for number in range(2000):
            # At full speed, this process would need a processor of its own, and delay others.
            time.sleep(max(0.0, began + number / 200 - time.monotonic()))
            client = connections.enter_context(socket.create_connection(("127.0.0.1", one.port)))
            clients.append(client)
            with contextlib.suppress(ConnectionError):
                client.sendall(head + b"x" * 990_000)
        time.sleep(5)  # others are checked for delays
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                refused.append(client.recv(12))
    assert 1000 < len(refused) < 2000 and set(refused) == {b"HTTP/1.1 503"}


@on_sqlite
@pytest.mark.parametrize("has_history", [False, pytest.param(True, marks=pytest.mark.long)])
def test_many_replies_with_a_megabyte_of_history_each(one, provider, has_history):
    count, gate, alice = 150, threading.Event(), one.client()
    paths = [post(alice, "/sessions", LONG).headers["Location"] for _ in range(has_history * count)]
    provider.default = but_for_others(gate, "Done.")

    def ask(number):
        path, content = (
            (paths[number] + "/messages", "And?") if has_history else ("/sessions", LONG)
        )
        return post(alice, path, content, Prefer="respond-async")

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(count)))
    begun = [answer.headers["Location"].split("/")[2] for answer in answers if answer.ok]
    assert len(begun) >= (count if has_history else 10)
    assert {answer.status_code for answer in answers if not answer.ok} <= {503}
    gate.set()
    for session in (
        begun
    ):  # the newest turn only: a page of a megabyte may be refused while all wait for memory
        newest = f"/sessions/{session}?turns[limit]=1"
        wait_until(lambda: alice.get(newest).json()["turns"][0]["content"] == "Done.", 60)


@on_sqlite
def test_sixteen_messages_that_expand_to_many_letters(one, provider):
    content = "\ufdfa" * 340_000
    provider.default = lambda request: reply(content[:100_000])(request)
    statuses = at_once(16, lambda number: post(one.client(), "/sessions", content).status_code)
    assert set(statuses) <= {201, 503} and statuses.count(201) >= 8


@on_sqlite
def test_three_hundred_requests_for_a_system_prompt_of_a_megabyte(one):
    alice = one.client()
    session = alice.create("Hello", system="s" * 1_000_000)
    answers = at_once(300, lambda number: alice.get(f"/sessions/{session['id']}"))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 30


@on_sqlite
def test_a_continued_reply_of_eight_megabytes(one):
    alice = one.client()
    turns = [
        {"kind": "user", "content": "Hello"},
        {"kind": "assistant", "content": "👩" + "ab " * 2_700_000, "status": "interrupted"},
    ]
    body = json.dumps({"turns": turns}, ensure_ascii=False).encode()
    headers = {"Authorization": f"Bearer {alice.token}", "Content-Type": "application/json"}
    session = requests.post(f"{one.url}/sessions/import", body, headers=headers, timeout=60)
    path = session.headers["Location"]
    assert alice.post(path + "/continue", {}).status_code == 201
    assert memory(one)[1] < 300  # including what the import left
