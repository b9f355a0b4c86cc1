"""Serving clients until the server stops: requests that arrive in any way, all kinds of answers,
and TLS.

Modules: `gunicorn.conf.py`, `serving/listeners.py`, `serving/refusals.py`.
"""

import contextlib
import os
import signal
import socket
import ssl
import threading
import time

import pytest
import requests

from client import read_until, wait_until
from product import copy_of_the_service
from provider import certificate, reply
from raw_http import chunk, connected, head, read_answer, read_to_end, seconds_for_health
from servers import Server, running

CREATE = b'{"content": "x"}'
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server with one worker and eight threads. Of its 40 connections, 20 may be streams."""
    options = "--threads 8 --worker-connections 40"
    folder = tmp_path_factory.mktemp("small")
    with running(folder, GUNICORN_CMD_ARGS=options, WEB_CONCURRENCY=1) as server:
        yield server


def threads_of(server):
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in server.workers())


# Requests


def test_pipelined_requests_are_answered_in_order(small):
    post = head(Content_Length=len(CREATE)) + CREATE
    in_chunks = head(Transfer_Encoding="chunked")
    with connected(small) as client:
        client.sendall(GET + post + GET + in_chunks + b"10\r\n" + CREATE)
        assert [read_answer(client).status_code for _ in range(3)] == [200, 201, 200]
        client.sendall(b"\r\n0\r\nOdd: trailer\r\n\r\n" + GET)
        assert [read_answer(client).status_code for _ in range(2)] == [201, 200]


@pytest.mark.parametrize("framing", ["length", "chunks", "chunks with an extension"])
def test_a_request_may_arrive_byte_by_byte(small, framing):
    extension = b";name=value" if "extension" in framing else b""
    chunks = b"".join(b"1%s\r\n%c\r\n" % (extension, byte) for byte in CREATE)
    ends = {"length": (head(Content_Length=len(CREATE)), CREATE)}
    start, body = ends.get(framing) or (head(Transfer_Encoding="chunked"), chunks + b"0\r\n\r\n")
    with connected(small) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in start + body:
            client.sendall(bytes([byte]))
            time.sleep(0.0005)
        answer = read_answer(client)
        assert (answer.status_code, answer.headers["Connection"]) == (201, "keep-alive")


def test_a_client_that_expects_100_continue_gets_it_once(small):
    with connected(small) as client:
        client.sendall(head(Content_Length=len(CREATE), Expect="100-continue"))
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for part in (CREATE[:5], CREATE[5:9], CREATE[9:]):
            client.sendall(part)
            time.sleep(0.1)
        assert read_answer(client).status_code == 201


def test_incomplete_bodies_occupy_no_threads(small):
    with connected(small, 15) as clients:
        for client in clients:
            client.sendall(head(Content_Length=len(CREATE)) + CREATE[:5])
        assert seconds_for_health(small) < 1
        assert threads_of(small) < 30
        for client in clients:
            client.sendall(CREATE[5:])
            assert read_answer(client).status_code == 201


@pytest.mark.parametrize("size", [2, 200, 100_000])
def test_a_body_in_chunks_of_any_size_is_limited(small, size):
    """The limit is a megabyte, not counting the framing."""
    whole = b'{"content": "%s"}' % (b"x" * 400_000)
    body = b"".join(chunk(whole[at : at + size]) for at in range(0, len(whole), size))
    with connected(small) as client:
        client.sendall(head(Transfer_Encoding="chunked") + body + b"0\r\n\r\n")
        assert read_answer(client).status_code == 201
    with connected(small) as client, contextlib.suppress(ConnectionError):
        client.sendall(head(Transfer_Encoding="chunked") + body * 3)
        answer = read_answer(client)
        assert (answer.status_code, answer.headers["Connection"]) == (413, "close")


def test_the_framing_of_a_body_is_limited_too(small):
    """Each byte has chunk extensions of 5,000 bytes."""
    extended = b"1;name=%s\r\nx\r\n" % (b"x" * 5000)
    with connected(small) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head(Transfer_Encoding="chunked") + extended * 2500)
        assert read_answer(client).status_code == 400
    assert seconds_for_health(small) < 1


# The three kinds of answers

ODD = '''
"""Parley with some answers that it has not."""
import threading
import time

from flask import Response

from app import create_app as parley

made = []


def create_app():
    app = parley()

    def pieces(count, fails_at=None):
        for number in range(count):
            if number == fails_at:
                raise ValueError("an answer that fails")
            assert threading.current_thread() is not threading.main_thread()
            made.append(number)
            yield b"%06d" % number * 10_000

    @app.get("/pieces/<int:count>")
    def show(count):
        made.clear()
        return Response(pieces(count), mimetype="text/markdown")

    @app.get("/fails/<int:at>")
    def fail(at):
        return Response(pieces(9, at), mimetype="text/markdown")

    @app.get("/made")
    def show_made():
        return [len(made)]

    @app.get("/exit")
    def leave():
        raise SystemExit("a fault")

    @app.get("/header")
    def header():
        answer = Response("x")
        answer.headers.extend([("X-Odd", "a\\x01b")])
        return answer

    def frames():
        yield b": hello\\n\\n"
        raise KeyError("a stream that fails")

    @app.get("/stream")
    def stream():
        return Response(frames(), mimetype="text/event-stream")

    return app
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A server whose application has faults, and serves documents in pieces of 60 kB."""
    folder = tmp_path_factory.mktemp("odd")
    root = copy_of_the_service(folder / "code")
    (root / "odd.py").write_text(ODD)
    (root / "Procfile").write_text("web: python gunicorn.conf.py 'odd:create_app()'")
    environment = {"WEB_CONCURRENCY": 1, "GUNICORN_CMD_ARGS": "--threads 4"}
    with running(folder, root=root, **environment) as server:
        yield server


def test_a_document_is_made_as_fast_as_the_client_reads_it(odd):
    whole = b"".join(b"%06d" % number * 10_000 for number in range(500))
    assert requests.get(odd.url + "/pieces/500", timeout=30).content == whole
    with connected(odd, receive_buffer=4096) as client:
        client.sendall(b"GET /pieces/500 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        came = read_until(client, b"HTTP/1.1 200")
        time.sleep(0.5)
        [made] = requests.get(odd.url + "/made", timeout=10).json()
        assert 2 <= made < 50
        came += b"".join(iter(lambda: client.recv(65536), b""))
    assert came.endswith(b"000499\r\n0\r\n\r\n")
    assert requests.get(odd.url + "/made", timeout=10).json() == [500]


def test_many_unread_documents_occupy_no_threads(odd):
    """The server has four threads."""
    with connected(odd, 30, receive_buffer=4096) as clients:
        for client in clients:
            client.sendall(b"GET /pieces/500 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        assert seconds_for_health(odd) < 1


@pytest.mark.parametrize(
    "path, fault",
    [
        ("exit", "SystemExit"),
        ("header", "InvalidResponseHeader"),
        ("fails/0", "ValueError"),
    ],
)
def test_an_exception_before_the_answer_is_a_500(odd, path, fault):
    answer = requests.get(f"{odd.url}/{path}", timeout=10)
    assert answer.status_code == 500 and answer.json()["errors"][0]["status"] == "500"
    assert "in _answer" in odd.wait_for_output(fault)  # from its traceback
    assert requests.get(odd.url + "/health", timeout=10).status_code == 200


def test_an_exception_within_an_answer_cuts_it(odd):
    workers = odd.workers()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(odd.url + "/fails/5", timeout=10)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(odd.url + "/stream", timeout=10)
    odd.wait_for_output("a stream that fails")
    odd.wait_for_output("an answer that fails")
    assert requests.get(odd.url + "/health", timeout=10).status_code == 200
    assert odd.workers() == workers


# Streams whose clients leave


def test_a_stream_whose_client_has_left_frees_its_place(start, settings, provider):
    """Of 40 connections, 20 may be streams, and 10 of one user."""
    provider.default = reply("Half ", threading.Event())
    options = "--worker-connections 40 --graceful-timeout 6"
    server = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=options)
    alice = server.client()
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    for is_first in (True, False):
        with contextlib.ExitStack() as streams:
            for _ in range(10):
                stream = streams.enter_context(alice.events(session))
                assert stream.status == 200 and next(iter(stream)).name == "content_delta"
            with alice.events(session) as refused:
                assert refused.status == 503
        began = time.monotonic()

        def has_place():
            with alice.events(session) as stream:
                return stream.status == 200

        wait_until(has_place, 5)
        assert time.monotonic() - began < 2
        time.sleep(2 * is_first)  # until all places are free


def test_a_client_that_has_shut_down_its_side_gets_the_whole_stream(start, settings, provider):
    go_on = threading.Event()
    provider.default = reply("Half ", go_on, "whole.")
    server = start(**settings)
    with connected(server) as client:
        client.sendall(head(Content_Length=len(CREATE), Accept="text/event-stream") + CREATE)
        client.shutdown(socket.SHUT_WR)
        came = read_until(client, b"Half")
        time.sleep(2.5)
        go_on.set()
        came += b"".join(iter(lambda: client.recv(65536), b""))
    assert b"whole." in came and b"event: done" in came and came.endswith(b"0\r\n\r\n")
    assert 2 <= came.count(b"\n:\n") <= 4


def test_a_request_sent_during_a_stream_is_answered_after_it(start, settings, provider):
    go_on = threading.Event()
    provider.default = reply("Half ", go_on, "whole.")
    server = start(**settings)
    with connected(server) as client:
        client.sendall(head(Content_Length=len(CREATE), Accept="text/event-stream") + CREATE + GET)
        came = read_until(client, b"Half")
        client.sendall(GET[:10])
        time.sleep(0.1)
        client.sendall(GET[10:])
        go_on.set()
        came = read_until(client, b"\r\n0\r\n\r\n", came)
        while came.count(b"HTTP/1.1 200") < 2:
            came += client.recv(65536) or pytest.fail(f"the connection ended behind {came}")
    assert came.index(b"event: done") < came.index(b"\r\n0\r\n\r\nHTTP/1.1 200")


# TLS in gunicorn itself


@pytest.fixture(scope="module")
def tls(tmp_path_factory, provider_of_all):
    """A server with TLS, eight threads and 60 connections, and a context for its clients."""
    folder = tmp_path_factory.mktemp("tls")
    file, _ = certificate(folder)
    server = Server(
        folder,
        WEB_CONCURRENCY=1,
        DATABASE_URL=f"sqlite:///{folder}/parley.db",
        OPENAI_BASE_URL=provider_of_all.url + "/v1",
        MODELS="m-1,echo",
        GUNICORN_CMD_ARGS=f"--certfile {file} --threads 8 --worker-connections 60",
    )
    context = ssl.create_default_context(cafile=file)
    try:
        wait_until(lambda: is_up_by_tls(server, context))
        yield server, context
    finally:
        server.kill()
        server.stop()


def is_up_by_tls(server, context):
    with contextlib.suppress(ConnectionError), secured((server, context)) as client:
        client.sendall(GET)
        return read_answer(client).status_code == 200


@contextlib.contextmanager
def secured(tls):
    server, context = tls
    with (
        connected(server) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        yield client


def test_large_bodies_and_answers_pass_through_tls(tls):
    with secured(tls) as client:
        body = b'{"content": "%s", "model": "echo"}' % (b"x" * 900_000)
        client.sendall(head(Content_Length=len(body)) + body)
        created = read_answer(client)
        assert created.status_code == 201
        for _ in range(3):
            client.sendall(head("GET", f"/sessions/{created.json()['id']}"))
            answer = read_answer(client)
            assert [len(turn["content"]) for turn in answer.json()["turns"]] == [900_000] * 2


def test_a_stream_over_tls_comes_word_by_word_and_occupies_no_thread(tls, provider):
    """Of 60 connections, 20 may be replies, and 10 of one user. There are eight threads."""
    server, _ = tls
    gates = [threading.Event(), threading.Event()]
    provider.default = reply("Half ", gates[0], "and ", gates[1], "whole.")
    with contextlib.ExitStack() as clients:
        streams = [clients.enter_context(secured(tls)) for _ in range(10)]
        for client in streams:
            client.sendall(head(Content_Length=16, Accept="text/event-stream") + CREATE)
        came = {client: b"" for client in streams}
        for word, gate in [(b"Half", gates[0]), (b"and", gates[1]), (b"whole.", None)]:
            for client in streams:
                came[client] = read_until(client, word, came[client])
            with secured(tls) as client:
                client.sendall(GET)
                assert read_answer(client).status_code == 200
            if gate:
                gate.set()
        for client in streams:
            read_until(client, b"\r\n0\r\n\r\n", came[client])
    assert threads_of(server) < 60  # each reply has one of these


def test_unfinished_handshakes_delay_no_other_client(tls):
    """One byte and then silence, half a ClientHello, no TLS at all, and nothing."""
    server, context = tls
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    greeting = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        greeting.do_handshake()
    hello = outgoing.read()
    for _ in range(3):
        with connected(server, 60) as clients:
            for number, client in enumerate(clients):
                with contextlib.suppress(ConnectionError):
                    client.sendall([b"\x16", hello[:100], GET, b""][number % 4])
            time.sleep(1)
            began = time.monotonic()
            with secured(tls) as client:
                client.sendall(GET)
                assert read_answer(client).status_code == 200
            assert time.monotonic() - began < 1
    assert threads_of(server) < 60


# Stopping


def refuses(server):
    with contextlib.suppress(ConnectionRefusedError), connected(server):
        return False
    return True


def test_a_stopping_server_refuses_new_connections_at_once(start, settings, provider):
    go_on = threading.Event()
    provider.default = reply("Half ", go_on, "whole.")
    server = start(**settings)
    with server.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        assert [next(events).name, next(events).name] == ["session", "content_delta"]
        server.process.terminate()
        began = time.monotonic()
        wait_until(lambda: refuses(server), 5)
        assert time.monotonic() - began < 1
        time.sleep(1)
        assert refuses(server)
        go_on.set()
        assert [event.name for event in events][-1] == "done"
    assert server.stop() < 10


def test_clients_that_connected_before_the_stop_are_served(start, settings):
    """Even if the server has not accepted the connection yet, and the client has not sent its request."""
    server = start(**settings)
    workers = server.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    with connected(server, 20) as early, connected(server, 5) as late:
        for client in early:
            client.sendall(head(Content_Length=len(CREATE)) + CREATE)
        server.process.terminate()
        time.sleep(0.5)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
        for client in late:
            client.sendall(GET)
        answers = [read_to_end(client) for client in [*early, *late]]
    assert [answer.status_code for answer in answers] == [201] * 20 + [200] * 5
    assert {answer.headers["Connection"] for answer in answers} == {"close"}


def test_sigint_during_a_stop_hands_over_at_once(start, settings, provider):
    provider.default = reply("Half ", threading.Event())
    server = start(**settings)
    with connected(server) as client:
        client.sendall(head(Content_Length=len(CREATE), Accept="text/event-stream") + CREATE)
        came = read_until(client, b"Half")
        server.process.terminate()
        wait_until(lambda: refuses(server), 5)
        server.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        read_until(client, b"\r\n0\r\n\r\n", came)
        server.process.wait(10)
        assert time.monotonic() - began < 5
    assert "SIGKILL" not in server.output() and "Traceback" not in server.output()


def test_a_stop_does_not_wait_for_slow_clients_until_it_is_killed(start, settings, provider):
    """It does not wait for a client that sends nothing or half a request, or does not read its stream."""
    provider.default = reply("x" * 3_000_000)
    server = start(**settings, GRACE=2)
    stream = head(Content_Length=len(CREATE), Accept="text/event-stream") + CREATE
    with connected(server, 3, receive_buffer=4096) as clients:
        for client, sent in zip(clients, (b"", GET[:-2], stream), strict=True):
            client.sendall(sent)
        time.sleep(1)
        assert server.stop() < 2 + 5
    assert "SIGKILL" not in server.output()


def test_a_killed_master_leaves_its_port_free_for_the_next_start(start, settings, provider):
    go_on = threading.Event()
    provider.default = reply("Half ", go_on, "whole.")
    server = start(**settings)
    with server.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        next(events)
        server.process.kill()
        began = time.monotonic()
        wait_until(lambda: can_be_bound(server.port), 5)
        assert time.monotonic() - began < 1
        go_on.set()  # the orphaned worker finishes its stream
        assert [event.name for event in events][-1] == "done"


def can_be_bound(port):
    with contextlib.suppress(OSError), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return True
    return False


# Settings


def test_settings_limit_connections_and_the_grace_for_replies(tmp_path, settings, provider):
    """One setting is in the environment, the other in `.env`."""
    root = copy_of_the_service(tmp_path / "code")
    (root / ".env").write_text("WEB_CONNECTIONS=20\n")
    provider.default = reply("Half ", threading.Event())
    given = {"GRACE": 1, "WEB_CONCURRENCY": 1}
    with running(tmp_path, root=root, **settings | given) as server:
        alice = server.client()
        session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        with contextlib.ExitStack() as streams:
            statuses = [streams.enter_context(alice.events(session)).status for _ in range(6)]
        assert statuses == [200] * 5 + [503]  # of 20, ten may be streams, five of one user
        assert 1 < server.stop() < 6


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"WEB_CONNECTIONS": "15"}, "WEB_CONNECTIONS: give a whole number from 16 to 999999"),
        ({"WEB_CONNECTIONS": "many"}, "WEB_CONNECTIONS: give a whole number from 16 to 999999"),
        ({"GRACE": "-1"}, "GRACE: give a whole number, 0 or more"),
        (
            {"GRACE": "601"},
            "GRACE: give at most 600, the MODEL_TIMEOUT: no reply waits longer",
        ),
        (
            {"GRACE": "31", "MODEL_TIMEOUT": "30"},
            "GRACE: give at most 30, the MODEL_TIMEOUT: no reply waits longer",
        ),
    ],
)
def test_a_bad_number_stops_the_start_with_one_line(tmp_path, given, sentence):
    server = Server(tmp_path, **given)
    assert server.process.wait(20) == 1
    server.stop()
    assert server.output().strip() == sentence
