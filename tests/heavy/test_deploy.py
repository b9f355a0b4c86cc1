"""Two hosts behind a proxy from docs/growing.md are replaced one after the other under load.

`pytest` leaves these out; `pytest -n 0 tests/heavy` runs them, one at a time.
"""

import collections
import contextlib
import itertools
import subprocess
import threading
import time

import pytest
import requests

from client import Client, at_once, make_token
from documents import BLOCKS
from fronts import DEBIANS, NGINX_CONF, proxy_in_front_of
from provider import reply
from servers import Server, free_port

CLIENTS, STREAMS, SLOW = 12, 50, 5
# The text around the block, and the address that it listens on: in the document, and here.
PROXIES = {
    "nginx": (NGINX_CONF, "listen 80;", "listen 127.0.0.1:{port};"),
    "caddy": ("%s", "chat.example.com\n", "http://127.0.0.1:{port}\n"),
    "haproxy": (DEBIANS, "bind :80\n", "bind 127.0.0.1:{port}\n"),
}
on_postgresql = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


class Host:
    """A server that can be stopped and started again at its address."""

    def __init__(self, folder, settings):
        folder.mkdir()
        self.folder, self.settings = folder, settings
        self.server = Server(folder, **settings).wait_until_up()

    def replace(self):
        """Replace it as a deploy does. Returns how many seconds the old one took to stop."""
        seconds = self.server.stop(630)
        output = self.server.output()
        assert "Traceback" not in output, output[-3000:]
        self.server = Server(self.folder, port=self.server.port, **self.settings)
        self.server.wait_until_up()
        return seconds


@pytest.fixture
def hosts(tmp_path, settings, request):
    """Two of them, each with one process."""
    settings |= {"WEB_CONCURRENCY": 1, "MODELS": "echo,m-1"} | request.param
    with contextlib.ExitStack() as stack:
        hosts = []
        for name in ("one", "two"):
            hosts.append(Host(tmp_path / name, settings))
            stack.callback(lambda host=hosts[-1]: host.server.stop())
        yield hosts


@contextlib.contextmanager
def in_front_of(hosts, name, folder, monkeypatch):
    """The URL of the proxy, with the block from docs/growing.md for two hosts."""
    [text] = [block.text for block in BLOCKS if block.language == name and "10.0.0.1" in block.text]
    around, listens, here = PROXIES[name]
    text = text.replace("{", "{{").replace("}", "}}")
    assert text.count(listens) == 1
    text = text.replace(listens, here)
    for number, host in enumerate(hosts, 1):
        text = text.replace(f"10.0.0.{number}:8000", f"127.0.0.1:{host.server.port}")
    monkeypatch.setenv("CADDY_ADMIN", f"127.0.0.1:{free_port()}")
    with proxy_in_front_of(hosts[0].server, name, around % text, "", folder) as url:
        yield url


@contextlib.contextmanager
def taken_out(host, name, folder):
    """Tell Caddy to leave this host out, as docs/growing.md says. Other proxies find out by
    themselves."""
    if name != "caddy":
        yield
        return
    path = folder / "proxy.conf"
    text = path.read_text()
    path.write_text(text.replace(f" 127.0.0.1:{host.server.port}", ""))
    reload = ["caddy", "reload", "--adapter", "caddyfile", "--config", path]
    subprocess.run(reload, check=True, capture_output=True)
    yield
    path.write_text(text)
    subprocess.run(reload, check=True, capture_output=True)


class Load:
    """Clients that create sessions and list them, each time with a new connection."""

    def __init__(self, url):
        self.told, self.slow, self._over = collections.Counter(), [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url):
        client = Client(url, make_token())
        hello = {"content": "Hello", "model": "echo"}
        ways = [
            ("POST", hello, {}),
            ("GET", None, {}),
            ("POST", hello, {"Prefer": "respond-async"}),
        ]
        for method, body, headers in itertools.cycle(ways):
            if self._over.wait(0.02):
                return
            began = time.monotonic()
            try:
                told = client.request(method, "/sessions", body, **headers).status_code
            except requests.RequestException as error:
                told = type(error).__name__
            self.told[method, told] += 1
            if time.monotonic() - began > SLOW:
                self.slow.append((method, told, time.monotonic() - began))

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()


@on_postgresql
@pytest.mark.parametrize("hosts", [{}], indirect=True, ids=[""])
@pytest.mark.parametrize(
    "name",
    ["nginx", *(pytest.param(name, marks=pytest.mark.long) for name in ("caddy", "haproxy"))],
)
def test_no_request_fails_while_the_hosts_are_replaced_one_after_the_other(
    hosts, provider, tmp_path, monkeypatch, name
):
    provider.default = reply("Half ", 8.0, "whole.")
    with in_front_of(hosts, name, tmp_path, monkeypatch) as url:
        load = Load(url)
        try:
            for host in hosts:
                time.sleep(1)
                body = {"content": "Hello", "model": "m-1"}
                with Client(url, make_token()).stream("POST", "/sessions", body) as stream:
                    assert stream.status == 201, stream.response.read()
                    events = iter(stream)
                    assert [next(events).name, next(events).name] == ["session", "content_delta"]
                    with taken_out(host, name, tmp_path):
                        host.replace()
                    assert [event.name for event in events][-1] == "done"
            time.sleep(1)
        finally:
            load.stop()
            print(name, dict(load.told), load.slow)
    assert load.told.keys() == {("POST", 201), ("GET", 200)} and not load.slow
    assert load.told.total() > 300


@pytest.mark.long
@on_postgresql
@pytest.mark.parametrize("hosts", [{"GRACE": 600}], indirect=True, ids=[""])
def test_a_deploy_with_a_long_grace_costs_no_token(hosts, provider, tmp_path, monkeypatch):
    """Each reply takes longer than the default grace."""
    provider.default = reply("Half ", 24.0, "whole.")
    with in_front_of(hosts, "nginx", tmp_path, monkeypatch) as url:
        begun = threading.Barrier(STREAMS + 1)

        def follow(number):
            body = {"content": "Hello", "model": "m-1"}
            client = Client(url, make_token(f"https://github.com/user-{number % 10}"))
            with client.stream("POST", "/sessions", body, timeout=120) as stream:
                events = iter(stream)
                names = [next(events).name, next(events).name]
                begun.wait(60)
                return names + [event.name for event in events]

        told = []
        streams = threading.Thread(target=lambda: told.extend(at_once(STREAMS, follow)))
        streams.start()
        begun.wait(60)
        seconds = [host.replace() for host in hosts]
        streams.join()
    assert max(seconds) > 18  # the replies stayed there, and no second host had them
    assert {tuple(names[-2:]) for names in told} == {("assistant_turn", "done")}
    assert len(told) == STREAMS == len(provider.requests)
