"""Connections to providers, at length: some thousand calls, any of which may fail, and waits
that take long."""

import time

import pytest

import storm
from connections import connected, connections_of, on_linux, timers
from protocols import GPT, answered
from provider import reply
from together import aside, served


@pytest.mark.parametrize(
    "is_secure, count",
    [
        pytest.param(False, 1500, id="plain", marks=pytest.mark.long),
        pytest.param(True, 500, id="TLS"),
        pytest.param(False, 5000, id="plain, for long", marks=pytest.mark.long),
    ],
)
def test_connections_heavy(tmp_path, is_secure, count):
    with connected(tmp_path, is_secure, MODEL_TIMEOUT=20) as line:
        storm.check_a_storm(*line, seed=2, count=count)


@on_linux
@pytest.mark.long
@aside
def test_an_idle_connection_that_was_dropped_is_noticed_before_it_is_used(folder):
    """The kernel sends keep-alive probes, and closes the connection if none is answered."""
    with connected(folder, is_secure=False, MODEL_TIMEOUT=60) as line:
        answered(line.alice, GPT)
        line.posts[0].connection.vanish()
        deadline = time.monotonic() + 60
        while timers(line.provider.port):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        began = time.monotonic()
        answered(line.alice, GPT)
        assert time.monotonic() - began < 5
        assert len(connections_of(line.posts)) == len(line.posts) == 2


@aside
def test_a_kept_connection_has_the_timeout_of_its_request(folder):
    """We wait ten seconds for a list of models, and MODEL_TIMEOUT for a model that thinks."""
    with served(folder, WEB_CONCURRENCY=1, DEFAULT_MODEL=None, MODEL_TIMEOUT=60) as (
        server,
        provider,
        _,
    ):
        alice = server.client()
        provider.default = reply(11, "Thought ", 11, "over.")
        assert len(alice.get("/models").json()["data"]) == 2
        session = alice.create("Hello", model=GPT)  # it is answered before the reply is there
        with alice.events(session) as events:
            assert [
                event.data["content"] for event in events if event.name == "assistant_turn"
            ] == ["Thought over."]
        assert [request.method for request in provider.requests] == ["GET", "POST"]
        assert len(connections_of(provider.requests)) == 1
