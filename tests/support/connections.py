"""A connection to a provider, plain or with TLS, and what is open on it."""

import concurrent.futures
import contextlib
import os
import pathlib
import sys
import threading
from typing import NamedTuple

import pytest

from protocols import GPT, answered
from provider import Provider, certificate, chunk, events_of, head, reply
from servers import Server, running

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="it looks at Linux's own view of its connections"
)


class Line(NamedTuple):
    """A server of one worker, and the provider that it asks."""

    server: Server
    provider: Provider

    @property
    def alice(self):
        return self.server.client()

    @property
    def posts(self):
        return self.provider.posts


@contextlib.contextmanager
def connected(folder, is_secure, host="127.0.0.1", **settings):
    path, context = certificate(folder)
    provider = Provider(context if is_secure else None)
    url = provider.url.replace("127.0.0.1", host)
    settings = {
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": url + "/v1",
        "DEFAULT_MODEL": GPT,
        "REQUESTS_CA_BUNDLE": path,
    } | settings
    with running(folder, **settings) as server:
        yield Line(server, provider)
    provider.close()


def connections_of(requests):
    """The connections of these requests, in the order of their first requests."""
    return list(dict.fromkeys(request.connection for request in requests))


def answered_at_once(line, count):
    """So many replies. None ends before all have been requested."""
    gate, before = threading.Event(), len(line.posts)
    line.provider.default = reply("The ", gate, "answer.")
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        turns = [pool.submit(answered, line.alice, GPT) for _ in range(count)]
        line.provider.wait_for_request(before + count)
        gate.set()
        assert [turn.result()["content"] for turn in turns] == ["The answer."] * count


def tcp_sockets():
    """The fields of each TCP socket of this machine (proc_net_tcp.txt)."""
    return [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]


def timers(port):
    """The timers of Linux in the connections to this port (proc_net_tcp.txt): (number of a timer,
    its seconds)."""
    fields = [
        line[5].split(":")
        for line in tcp_sockets()
        if line[2].endswith(f":{port:04X}") and line[3] == "01"
    ]
    return [(int(kind), int(when, 16) / os.sysconf("SC_CLK_TCK")) for kind, when in fields]


def then_more(*parts):
    """A stream that has this in it, and then continues."""

    def answer(request):
        yield head(Transfer_Encoding="chunked")
        yield from (chunk(part) for part in events_of(request, ["So far", *parts]))
        yield 30

    return answer
