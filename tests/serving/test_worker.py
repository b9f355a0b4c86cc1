"""A process's connections, with the loop in a thread of the test and a small application: cases
that would be too slow, or too rare, with the whole service.

Modules: `serving/thread_pool.py`, `serving/connection.py`.
"""

import contextlib
import gc
import select
import socket
import ssl
import threading
import time
import weakref

import pytest
from gunicorn.config import Config

from client import read_until, wait_until
from provider import certificate
from raw_http import read_to_end
from serving import dispatcher as dispatcher_module
from serving import thread_pool as threads_module
from serving.dispatcher import Dispatcher
from serving.thread_pool import ThreadPool

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
END = b"0\r\n\r\n"
MEGABYTE = 2**20


class Service:
    """An application with a stream whose frames are in `frames`; all else is answered by `answer`."""

    def __init__(self, tls=None):
        cfg = Config()
        for name, value in {"worker_connections": 40, "threads": 8, "keepalive": 15}.items():
            cfg.set(name, value)
        self.frames, self.is_over, self.wakes, self.requests = [], threading.Event(), [], []
        self.answer = lambda environ, start: self.whole(start, b"ok")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.dispatcher = Dispatcher(cfg, self, [self._listener], tls, MEGABYTE)
        self._ends, self.turns = False, 0
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def _turn(self):
        while not self._ends:
            self.dispatcher.run_once()
            self.turns += 1

    def __call__(self, environ, start):
        body = environ["wsgi.input"].read(MEGABYTE + 1)
        self.requests.append((environ["PATH_INFO"], body))
        if environ["PATH_INFO"] != "/stream":
            return self.answer(environ, start)
        start("200 OK", [("Content-Type", "text/event-stream")])
        self.wakes.append(environ["parley.wake"])
        return self._stream()

    @staticmethod
    def whole(start, data):
        start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
        return [data]

    def _stream(self):
        yield b":\n\n"
        position = 0
        while position < len(self.frames) or not self.is_over.is_set():
            frames = self.frames[position : position + 1]
            position += len(frames)
            if frames:
                self.wakes[-1]()  # news may come while the last frames are being sent
            yield b"".join(frames)

    def tell(self, *frames, is_over=False):
        self.frames.extend(frames)
        if is_over:
            self.is_over.set()
        for wake in self.wakes:
            wake()

    @contextlib.contextmanager
    def connected(self):
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            yield client

    def has_closed_all(self):
        return not self.dispatcher

    def stop(self):
        self.is_over.set()
        self._ends = True
        self._thread.join()
        for connection in [*self.dispatcher._open]:
            self.dispatcher.close(connection)
        self._listener.close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def secure(tmp_path):
    file, context = certificate(tmp_path)
    service = Service(context)
    service.context = ssl.create_default_context(cafile=file)
    yield service
    service.stop()


def turns_in(service, seconds):
    before = service.turns
    time.sleep(seconds)
    return service.turns - before


# TLS


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01\x00\x05hello", b"\x16", b""])
def test_the_loop_is_idle_after_a_failed_handshake(secure, monkeypatch, data):
    monkeypatch.setattr(dispatcher_module, "FIRST_BYTE_TIMEOUT", 2)
    with secure.connected() as client:
        client.sendall(data)
        time.sleep(0.3)
        assert turns_in(secure, 1) < 10
        wait_until(secure.has_closed_all, 5)


def test_a_stream_over_tls_is_closed_at_its_end(secure):
    """Also for HTTP/1.0, which has no other sign of the end."""
    with (
        secure.connected() as plain,
        secure.context.wrap_socket(
            plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
        ) as client,
    ):
        client.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        read_until(client, b":\n\n")
        secure.tell(b"data: x\n\n", is_over=True)
        assert read_until(client, b"data: x\n\n") and client.recv(100) == b""


# Requests


def test_a_head_that_never_ends_costs_little(service):
    """These clients add a line to their heads now and then."""
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(service.connected()) for _ in range(8)]
        lines = b"".join(b"A%d: %s\r\n" % (number, b"x" * 8000) for number in range(90))
        for stranger in strangers:
            with contextlib.suppress(ConnectionError):
                stranger.sendall(b"GET / HTTP/1.1\r\n" + lines)
        slowest = 0
        for number in range(200):
            with contextlib.suppress(ConnectionError):
                strangers[number % 8].sendall(b"B: x\r\n")
            began = time.monotonic()
            with service.connected() as client:
                client.sendall(GET)
                read_until(client, b"ok")
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1


def test_the_size_of_a_head_is_limited(service):
    with service.connected() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"x" * 1000) * 90 + b"\r\n")
        assert read_until(client, b"\r\n").startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("line", [b"", b"0\r\nA: ", b"00000000000000000005\r\nab"])
def test_a_chunk_that_never_ends_costs_little(service, line):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with service.connected() as client:
        began = time.process_time()
        with contextlib.suppress(ConnectionError):
            client.sendall(head + line + b"\r" * 4_000_000)
            for _ in range(300):
                client.sendall(b"\r")
                time.sleep(0.001)
        assert time.process_time() - began < 2


def test_few_of_many_pipelined_requests_are_read_before_they_are_answered(service):
    count, most = 40_000, 0
    with service.connected() as client:
        sender = threading.Thread(target=client.sendall, args=(GET * count,))
        sender.start()
        for _ in range(20):
            most = max([most, *(each.size() for each in [*service.dispatcher._open])])
            assert client.recv(MEGABYTE).startswith(b"HTTP/1.1 200")
        client.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            sender.join()
    assert most < 500_000


def test_new_requests_come_first_except_every_fourth_time():
    gate, order = threading.Event(), []

    def answer(name):
        gate.wait(10)
        order.append(name)

    threads = ThreadPool(1, answer)
    threads.answer("first")
    wait_until(lambda: not threads.has_queue())
    for number in range(4):
        threads.answer(f"body {number}", in_progress=True)
    for number in range(6):
        threads.answer(f"new {number}")
    gate.set()
    wait_until(lambda: len(order) == 11)
    assert [name.split()[0] for name in order] == (
        ["first", "new", "new", "body", "new", "new", "new", "body", "new", "body", "body"]
    )


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def test_health_is_answered_even_if_all_threads_are_busy(service):
    gate = threading.Event()

    def answer(environ, start):
        if environ["PATH_INFO"] != "/health":
            gate.wait(10)
        return service.whole(start, b"ok")

    service.answer = answer
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(service.connected()) for _ in range(20)]
        for other in others:
            other.sendall(GET)
        wait_until(lambda: len(service.requests) == 8)
        with service.connected() as client:
            for _ in range(3):  # also on a kept connection
                client.sendall(HEALTH)
                assert read_until(client, b"ok")
        assert {path for path, _ in service.requests[8:]} == {"/health"}
        gate.set()
        for other in others:
            assert read_until(other, b"ok")


def test_an_idle_thread_that_ends_frees_its_slot(monkeypatch):
    monkeypatch.setattr(threads_module, "SLOTS", 1)
    monkeypatch.setattr(threads_module, "THREAD_TTL", 0.05)
    answered = []
    threads = ThreadPool(1, answered.append)
    for number in range(3):
        threads.answer(f"request {number}")
        wait_until(lambda: len(answered) == number + 1, 5)
        wait_until(lambda: threads._count == 0, 5)


def test_a_request_that_drips_in_has_a_time_limit(service, monkeypatch):
    monkeypatch.setattr(dispatcher_module, "REQUEST_TIMEOUT", 0.5)
    with service.connected() as client:
        for _ in range(50):
            client.sendall(b"G")
            if select.select([client], [], [], 0.1)[0]:
                break
        else:
            pytest.fail("it is still waited for")
        assert read_until(client, b"\r\n").startswith(b"HTTP/1.1 408 ")


def test_a_client_refused_for_lack_of_memory_is_told_when_to_retry(service, monkeypatch):
    """There is no memory for what it has sent so far of its request."""
    monkeypatch.setattr(service.dispatcher.loop, "_max_bytes", 0)
    with service.connected() as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"
        client.sendall(head + b"x" * 20_000)
        answer = read_to_end(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_all_requests_are_answered_if_the_client_closes_its_side(service):
    with service.connected() as client:
        client.sendall(GET * 3)
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(65536), b"")).count(b"HTTP/1.1 200") == 3


def test_a_waiting_request_keeps_no_body_in_memory(service):
    """The bodies come in chunks of one byte. No framing is kept either, once the application has the body."""
    gate = threading.Event()

    def wait(environ, start):
        environ["parley.on_request_read"]()
        environ["parley.release_slot"]()
        gate.wait(10)
        return service.whole(start, b"ok")

    service.answer = wait
    chunks = b"1;name=%s\r\nx\r\n" % (b"x" * 2000) * 1000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(service.connected()) for _ in range(6)]
        for client in waiting:
            client.sendall(head + chunks + b"0\r\n\r\n" + GET)
        wait_until(lambda: [body for _, body in service.requests] == [b"x" * 1000] * 6, 10)
        held = service.dispatcher.loop
        wait_until(lambda: held._bytes < 1000, 5)
        assert sum(each.size() for each in service.dispatcher._open) < 1000
        gate.set()
        service.answer = lambda environ, start: service.whole(start, b"next")
        for client in waiting:
            read_until(client, b"\r\n\r\nnext")


def test_the_memory_of_an_incomplete_body_is_counted(service):
    """Even if it comes so fast that a thread finds all of it."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with service.connected() as client:
        client.sendall(head + b"x" * 900_000)
        wait_until(lambda: service.dispatcher.loop._bytes > 900_000, 5)
        client.sendall(b"x" * 100_000)
        read_until(client, b"ok")
        wait_until(lambda: service.dispatcher.loop._bytes < 1000, 5)
    assert service.requests == [("/", b"x" * 1_000_000)]


# Answers


@contextlib.contextmanager
def without_gc():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
def test_the_memory_of_a_client_that_has_left_is_freed(service, is_taken):
    """The connection, its request and its answer refer to each other, and Python rarely collects such cycles."""
    answer = b"x" * (100 if is_taken else 8 * MEGABYTE)
    service.answer = lambda environ, start: service.whole(start, answer)
    with without_gc(), service.connected() as client:
        client.sendall(GET)
        read_until(client, b"\r\n\r\nx")
        [connection] = [weakref.ref(each) for each in service.dispatcher._open]
        client.close()
        wait_until(service.has_closed_all, 5)
        wait_until(lambda: connection() is None, 5)


def test_the_memory_of_a_stream_is_freed_if_a_half_closed_client_leaves(service):
    with without_gc(), service.connected() as client:
        client.sendall(STREAM)
        read_until(client, b":\n\n")
        client.shutdown(socket.SHUT_WR)
        [connection] = [weakref.ref(each) for each in service.dispatcher._open]
        assert read_until(client, b":\n\n")  # a comment shows if it still listens
        client.close()
        wait_until(service.has_closed_all, 5)
        service.wakes.clear()
        wait_until(lambda: connection() is None, 5)


def test_an_exception_has_one_answer(service, tmp_path):
    def fail(environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        return map(open, [tmp_path / "missing"])

    service.answer = fail
    with service.connected() as client:
        client.sendall(GET)
        came = b"".join(iter(lambda: client.recv(65536), b""))
    assert came.startswith(b"HTTP/1.1 500 ") and came.count(b"HTTP/1.1") == 1
    wait_until(service.has_closed_all, 5)


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_a_request_after_a_stream_is_answered_even_after_late_wakes(service, is_pipelined):
    """The last frames are sent in several steps, and wakes come meanwhile. They must have no effect after the stream."""
    service.answer = lambda environ, start: service.whole(start, b"next")
    for _ in range(20):
        service.is_over.clear()
        service.frames.clear()
        service.wakes.clear()
        with service.connected() as client:
            client.sendall(STREAM + (GET if is_pipelined else b""))
            came = read_until(client, b":\n\n")
            service.tell(*[b"x" * 16_384] * 6, is_over=True)
            came = read_until(client, END, came)
            assert b"Connection: keep-alive" in came
            if not is_pipelined:
                client.sendall(GET)
            read_until(client, b"\r\n\r\nnext", came.partition(END)[2])
    assert len(service.requests) == 40
    wait_until(service.has_closed_all, 5)


@pytest.mark.parametrize("is_half_closed", [False, True])
def test_a_stream_whose_client_does_not_read_is_closed(service, monkeypatch, is_half_closed):
    monkeypatch.setattr(dispatcher_module, "IDLE_TIMEOUT", 2)
    with service.connected() as client:
        client.sendall(STREAM)
        read_until(client, b":\n\n")
        if is_half_closed:
            client.shutdown(socket.SHUT_WR)
            time.sleep(0.3)
        service.tell(*[b"x" * 16_384] * 1000)
        wait_until(service.has_closed_all, 6)


def test_streams_that_end_together_stay_connected_if_there_is_room(service):
    """Of 40 connections, ten are kept even while they are idle. A client that sends a request may take
    the place of any other."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(service.connected()) for _ in range(20)]
        for client in clients:
            client.sendall(STREAM)
            read_until(client, b":\n\n")
        service.tell(is_over=True)
        for client in clients:
            read_until(client, END)
        with service.connected() as slow:
            slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            time.sleep(1.5)
            slow.sendall(b"x")
            read_until(slow, b"ok")


def test_an_exception_in_a_stream_affects_no_other_client(service):
    class Broken:
        def __iter__(self):
            yield b":\n\n"
            while True:
                yield b""

        def close(self):
            raise KeyError("a fault")

    def answer(environ, start):
        start("200 OK", [("Content-Type", "text/event-stream")])
        return Broken()

    service.answer = answer
    for is_half_closed in (False, True):
        with service.connected() as client:
            client.sendall(GET)
            read_until(client, b":\n\n")
            if is_half_closed:
                client.shutdown(socket.SHUT_WR)
                time.sleep(0.2)
    wait_until(service.has_closed_all, 5)
    service.answer = lambda environ, start: service.whole(start, b"ok")
    with service.connected() as client:
        client.sendall(GET)
        read_until(client, b"ok")
