"""Clients that send, read or close slowly or not at all delay nobody else.

`pytest` leaves these out; `pytest -n 0 tests/heavy` runs them, one at a time.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import socket
import threading
import time

import pytest

from client import make_token, wait_for_status
from others import others_at_work
from provider import reply
from together import are_in_time, aside, on_postgresql, served

WORDS = 8  # of the reply that is in progress meanwhile, one a second


class Crowd:
    """Connections of hostile clients. They do not read what they are sent."""

    def __init__(self, server):
        self.port = server.port
        self.sockets = []

    def come(self, data=b"", receive_buffer=None):
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(5)
        self.sockets.append(client)
        with contextlib.suppress(OSError):
            client.connect(("127.0.0.1", self.port))
            client.sendall(data)
        return client

    def come_evenly(self, count, a_second, data=b""):
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / a_second - time.monotonic()))
            self.come(data)

    def go(self):
        for client in self.sockets:
            client.close()


@pytest.fixture
def crowd():
    """A function that returns a crowd for a server. All its connections are closed in the end."""
    crowds = []

    def make(server):
        crowds.append(Crowd(server))
        return crowds[-1]

    yield make
    for crowd in crowds:
        crowd.go()


@contextlib.contextmanager
def nobody_is_held_up(server, alice):
    """Meanwhile /health, creations and cancels are answered within a second, and no worker and
    no reply is lost."""
    workers = server.workers()
    session = alice.post(
        "/sessions", {"content": "For a while", "model": "m-1"}, Prefer="respond-async"
    ).json()
    with others_at_work(alice, cancel={"content": "Never", "model": "m-2"}) as took:
        yield
    assert took.keys() == {"health", "create", "cancel"}
    for what, each in took.items():
        assert are_in_time(each, 1), what
    assert server.workers() == workers
    assert "WORKER TIMEOUT" not in server.output() and "Traceback" not in server.output()
    assert wait_for_status(alice, session, "complete", 30)["content"] == "A word. " * WORDS


def answer(request):
    """The models' answers: m-1 talks for some seconds, and m-2 never ends."""
    pieces = {"m-1": ["A word. ", 1.0] * WORDS, "m-2": ["And so on. ", threading.Event()]}
    return reply(*pieces[request.body["model"]])(request)


# The handling of connections does not depend on the kind of database.
on_one_engine = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


@pytest.fixture
def busy(start, settings, provider):
    """A server with normal users, and a crowd."""
    provider.default = answer
    server = start(**settings)
    return server, server.client()


@pytest.mark.long
@on_one_engine
def test_eighty_clients_that_do_not_close_their_connection(busy, crowd):
    server, alice = busy
    strangers = crowd(server)
    clients = [strangers.come() for _ in range(80)]
    with nobody_is_held_up(server, alice):
        for client in clients:
            client.sendall(b"GET /sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 401"
        time.sleep(5)


@pytest.mark.long
@on_one_engine
def test_a_hundred_and_fifty_new_connections_a_second_that_say_nothing(busy, crowd):
    server, alice = busy
    with nobody_is_held_up(server, alice):
        crowd(server).come_evenly(1500, 150)


@pytest.mark.long
@on_one_engine
def test_sixty_requests_a_second_whose_bodies_never_come(busy, crowd):
    server, alice = busy
    with nobody_is_held_up(server, alice):
        crowd(server).come_evenly(
            600, 60, b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        )


@on_one_engine
@pytest.mark.parametrize("count", [pytest.param(700, marks=pytest.mark.long), 1500])
def test_half_sent_requests(busy, crowd, count):
    server, alice = busy
    with nobody_is_held_up(server, alice):
        crowd(server).come_evenly(count, 400, b"GET /health HTTP/1.1\r\nHost:")
        time.sleep(5)


@on_one_engine
def test_five_hundred_half_sent_bodies_with_a_valid_token(busy, crowd):
    server, alice = busy
    token = make_token("https://github.com/mallory")
    half = f"POST /sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000\r\n\r\n{{"
    with nobody_is_held_up(server, alice):
        crowd(server).come_evenly(500, 400, half.encode())
        time.sleep(5)


@pytest.mark.long
@on_one_engine
def test_all_of_them_at_once_while_one_user_takes_all_that_is_allowed(busy, crowd):
    server, alice = busy
    mallory = server.client("https://github.com/mallory")
    session = mallory.post(
        "/sessions", {"content": "For ever", "model": "m-2"}, Prefer="respond-async"
    ).json()
    head = f"Host: x\r\nAuthorization: Bearer {mallory.token}\r\n"
    follow = f"GET /sessions/{session['id']}/events HTTP/1.1\r\n{head}\r\n".encode()
    half_a_body = f"POST /sessions HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{".encode()
    closing = b"GET /sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    crowds = [
        (400, 200, follow),
        (500, 200, half_a_body),
        (700, 200, b"GET /health HTTP/1.1\r\nHost:"),
        (80, 40, closing),
        (1500, 150, b""),
    ]
    with nobody_is_held_up(server, alice), concurrent.futures.ThreadPoolExecutor() as pool:
        for coming in [pool.submit(crowd(server).come_evenly, *each) for each in crowds]:
            coming.result()
    server.kill()  # otherwise it would wait for the replies, which have no end


def ask_for_replies(client, count):
    """Send so many requests, 16 at a time. Returns the answers."""

    def ask(number):
        body = {"content": f"{number}", "model": "m-2"}
        return client.post("/sessions", body, Prefer="respond-async", timeout=60)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, range(count)))


@on_postgresql
def test_one_user_requests_two_thousand_replies_at_once(start, settings, provider):
    provider.default = answer
    # A third of the connections may be replies. With more of them, the provider, which has a thread
    # for each, would delay everybody.
    server = start(**settings, GUNICORN_CMD_ARGS="--worker-connections 1200")
    alice, mallory = server.client(), server.client("https://github.com/mallory")
    # He sends requests from a process of his own: in this one, his threads would delay alice's, and
    # hers the provider's.
    spawn = multiprocessing.get_context("spawn")
    with (
        nobody_is_held_up(server, alice),
        concurrent.futures.ProcessPoolExecutor(1, spawn) as process,
    ):
        answers = process.submit(ask_for_replies, mallory, 2000).result()
    begun = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert (
        len(begun) + len(refused) == 2000 and 200 <= len(begun) <= 400
    )  # half of what each of two workers can have
    assert all(answer.headers["Retry-After"] for answer in refused)
    assert len(mallory.get(f"/sessions?page[offset]={len(begun) - 1}").json()["data"]) == 1
    server.kill()  # otherwise it would wait for the replies, which have no end


@pytest.mark.long
@aside
def test_a_client_has_time_but_not_for_ever(folder):
    """Each of these takes its time, so all are connected at once."""
    with served(folder, WEB_CONCURRENCY=1, MODELS="echo,m-1", DEFAULT_MODEL=None) as (
        server,
        provider,
        _,
    ):
        provider.script = [reply("Before ", 65.0, "after.")]
        alice = server.client()
        session = alice.create("x" * 1_000_000)
        for _ in range(6):
            alice.post(f"/sessions/{session['id']}/messages", {"content": "x" * 1_000_000})
        whole = alice.get(f"/sessions/{session['id']}").text.encode()
        assert len(whole) > 7_000_000
        head = f"Host: x\r\nAuthorization: Bearer {alice.token}\r\n"
        get = f"GET /sessions/{session['id']} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode()
        half = f"POST /sessions HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{".encode()

        def talk(data, slowly=b""):
            """Send this at once, and that a byte a second. Returns the answer, and after how
            many seconds it came."""
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                began = time.monotonic()
                client.sendall(data)
                client.settimeout(1)
                for byte in slowly:
                    with contextlib.suppress(TimeoutError):
                        client.recv(1, socket.MSG_PEEK)
                        break
                    client.send(bytes([byte]))
                client.settimeout(90)
                return b"".join(iter(lambda: client.recv(65536), b"")), time.monotonic() - began

        def read(seconds, a_second):
            """Read so much a second for so long, and then all that comes."""
            with socket.create_connection(("127.0.0.1", server.port), 90) as client:
                client.sendall(get)
                began, parts = time.monotonic(), []
                while time.monotonic() - began < seconds:
                    time.sleep(0.5)
                    parts.append(client.recv(a_second // 2) if a_second else b"")
                with contextlib.suppress(ConnectionResetError):
                    parts += iter(lambda: client.recv(65536), b"")
                return b"".join(parts).partition(b"\r\n\r\n")[2]

        def follow():
            with alice.stream(
                "POST", "/sessions", {"content": "Hello", "model": "m-1"}, timeout=90
            ) as stream:
                return [event.name for event in stream]

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            silent = pool.submit(talk, b"")
            halves = [pool.submit(talk, data) for data in (b"GET / HTTP/1.1\r\nHost", half)]
            drops = [
                pool.submit(talk, data, b"x" * 100) for data in (b"GET / HTTP/1.1\r\nHost: ", half)
            ]
            takes_nothing, takes_little, stream = (
                pool.submit(read, 40, 0),
                pool.submit(read, 70, 20_000),
                pool.submit(follow),
            )
        assert silent.result()[0] == b"" and 9 < silent.result()[1] < 15
        for limit, clients in [(30, halves), (60, drops)]:
            for answer, seconds in [client.result() for client in clients]:
                assert answer.startswith(b"HTTP/1.1 408 ") and limit - 1 < seconds < limit + 5
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["status"] == "408"
        assert len(takes_nothing.result()) < len(whole)
        assert takes_little.result() == whole
        assert stream.result()[-1] == "done"
