"""How providers are reached: new connections, proxies, tunnels, certificates."""

import base64
import contextlib
import queue
import socket
import ssl
import threading
import time

import pytest

import wire
from connections import connected, connections_of, on_linux
from protocols import GPT, answered, failed, stop
from provider import silence
from servers import free_port, running
from wire import routes

# Connecting


@pytest.fixture
def full():
    """The URL of a port that neither accepts nor refuses connections."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@on_linux
def test_a_call_can_be_hung_up_while_it_connects(full):
    call, began = wire.Call(60), time.monotonic()
    threading.Timer(0.3, call.hang_up).start()
    with pytest.raises(wire.HungUp), wire.HTTPClient(full).request(call, "GET", "/", {}):
        pass
    assert time.monotonic() - began < 1.3


@on_linux
def test_a_timeout_while_connecting_leaves_time_for_another_try(full, monkeypatch):
    monkeypatch.setattr(routes, "CONNECT_TIMEOUT", 1)
    call = wire.Call(60)
    with pytest.raises(wire.Fault) as told, wire.HTTPClient(full).request(call, "GET", "/", {}):
        pass
    assert told.value.kind == "unreachable" and call.remaining() > 50


@pytest.mark.parametrize("password", ["hush#er", "hush/er", "hush?er", "hush\u2100er", "[hush]er"])
@pytest.mark.parametrize("whose", ["a proxy's", "the server's"])
def test_a_password_that_makes_its_url_invalid_is_not_shown(monkeypatch, password, whose):
    url = f"http://user:{password}@provider.invalid"
    if whose == "a proxy's":
        monkeypatch.setenv("HTTP_PROXY", url)
        url = "http://provider.invalid"
    with (
        pytest.raises(wire.Fault) as told,
        wire.HTTPClient(url).request(wire.Call(5), "GET", "/", {}),
    ):
        pass
    assert "hush" not in str(told.value) and "er@" not in str(told.value)


# Proxies and certificates


class Tunnels:
    """A proxy that tunnels (RFC 9110, 9.3.6), and records what it was asked."""

    def __init__(self, certificate=None):
        self.heads, self._certificate = (
            [],
            certificate,
        )  # the latter: a file that exists by the time a client connects
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := sock.recv(65536)):
                    return
                data += more
            self.heads.append(data.decode())
            port = int(data.split()[1].decode().split(":")[1])
            with socket.create_connection(("127.0.0.1", port)) as other:  # for any host
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(other, sock))
                back.start()
                self._pump(sock, other)
                back.join()

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


CREDENTIALS = base64.b64encode(b"user:password").decode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tunnel_through_a_proxy_is_kept(tmp_path, scheme):
    proxy = Tunnels(tmp_path / "certificate.pem" if scheme == "https" else None)
    address = f"{scheme}://user:password@{proxy.address}"
    trusted = {
        "SSL_CERT_FILE": tmp_path / "certificate.pem"
    }  # the system's certificates, which verify proxies
    with connected(tmp_path, True, host="provider.invalid", HTTPS_PROXY=address, **trusted) as line:
        for _ in range(3):
            assert answered(line.alice, GPT)["content"] == "The answer."
        [tunnel] = proxy.heads
        assert tunnel.startswith(f"CONNECT provider.invalid:{line.provider.port} HTTP/1.")
        assert f"Proxy-Authorization: Basic {CREDENTIALS}\r\n" in tunnel
        assert len(line.provider.connections) == 1

        line.provider.disconnect()
        answered(line.alice, GPT)
        assert len(line.posts) == 4
        assert len(proxy.heads) == 2
        assert not [request for request in line.posts if "proxy-authorization" in request.headers]

        line.provider.script = [silence(30)]
        session = line.alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        asked = line.provider.wait_for_request(5)
        assert asked.connection is line.posts[3].connection
        stop(line.alice, session, "cancel")
        assert asked.hung_up.wait(1)
    proxy.close()


def test_a_proxy_that_drips_its_answer_is_abandoned(tmp_path):
    """A connection and its tunnel must be open within ten seconds, else another is tried. A cancel does not wait for that."""
    ends = queue.SimpleQueue()

    def drip(sock):
        with sock:
            began = time.monotonic()
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(b"x")
                    time.sleep(0.1)
            ends.put((began, time.monotonic()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connected(tmp_path, True, host="provider.invalid", HTTPS_PROXY=address) as line:
            body = {"content": "Hello", "model": GPT}
            session = line.alice.post("/sessions", body, Prefer="respond-async").json()
            for _ in range(2):
                sock, _ = listener.accept()
                threading.Thread(target=drip, args=(sock,), daemon=True).start()
            began, end = ends.get(timeout=5)
            assert 9 < end - began < 13
            cancelled = time.monotonic()
            stop(line.alice, session, "cancel")
            _, end = ends.get(timeout=5)
            assert end - cancelled < 1.5  # one pause between two bytes, and one until sending fails
    assert not line.posts


def test_a_connection_to_a_proxy_is_kept(provider, tmp_path):
    """A proxy for plain HTTP gets the full URL. This one answers for a provider that does not exist."""
    proxy = provider.url.replace("//", "//user:password@")
    settings = {
        "OPENAI_BASE_URL": "http://provider.invalid/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "DEFAULT_MODEL": GPT,
    }
    with running(tmp_path, HTTP_PROXY=proxy, **settings) as server:
        for _ in range(3):
            answered(server.client(), GPT)
        provider.posts[-1].connection.close()
        answered(server.client(), GPT)
        assert "password" not in server.output()
    assert len(provider.posts) == 4
    assert len(connections_of(provider.posts[:3])) == 1
    for request in provider.posts:
        assert request.path == "http://provider.invalid/v1/chat/completions"
        assert request.headers["host"] == "provider.invalid"
        assert request.headers["authorization"] == "Bearer key-of-openai"
        assert request.headers["proxy-authorization"] == f"Basic {CREDENTIALS}"


def test_no_proxy_is_used_for_this_machine(provider, tmp_path):
    settings = {"HTTP_PROXY": f"http://127.0.0.1:{free_port()}", "DEFAULT_MODEL": GPT}
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", **settings) as server:
        answered(server.client(), GPT)
        answered(server.client(), GPT)
    assert len(connections_of(provider.posts)) == 1


@pytest.mark.parametrize("fault", ["nobody vouches for it", "it is another's"])
def test_nothing_is_sent_to_a_provider_with_a_bad_certificate(tmp_path, fault):
    settings = {"REQUESTS_CA_BUNDLE": None} if fault == "nobody vouches for it" else {}
    with connected(tmp_path, True, **settings) as line:
        if settings:
            assert failed(line.alice, GPT)[0].status_code == 502
        else:
            answered(line.alice, GPT)  # the certificate is valid for this address
            url = line.provider.url.replace("127.0.0.1", "localhost") + "/v1"
            path = tmp_path / "certificate.pem"
            with running(
                tmp_path / "named", OPENAI_BASE_URL=url, REQUESTS_CA_BUNDLE=path, DEFAULT_MODEL=GPT
            ) as server:
                assert failed(server.client(), GPT)[0].status_code == 502
        assert len(line.posts) == (not settings)
