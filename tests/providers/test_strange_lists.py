"""Strange providers: lists of models with odd entries, of any length, or that never end.

Modules: `wire/single_flight.py`.
"""

import concurrent.futures
import contextlib
import json
import threading
import time

import pytest
import requests

from client import at_once, make_token
from hell_answers import drip, resolve
from hell_bodies import NO_KIND
from hell_right import SLACK
from hellish import Hell
from protocols import GPT
from provider import KEEP, Provider, head, raw, status
from servers import running
from tokens import ED25519, status_of

ODD_IDS = [
    "\ud800x",
    "a\0b",
    "x" * 201,
    "x" * 100_000,
    "",
    "  ",
    "\n",
    None,
    5,
    True,
    {"a": 1},
    ["m"],
    "\udc00",
]


def test_each_listed_id_is_checked_separately(start, provider):
    provider.models = [*ODD_IDS, "m-good", *ODD_IDS, "y" * 200]
    alice = start(OPENAI_BASE_URL=provider.url + "/v1", WEB_CONCURRENCY="1").client()
    assert [(model["id"], model["default"]) for model in alice.get("/models").json()["data"]] == [
        ("m-good", True),
        ("y" * 200, False),
    ]
    assert alice.create()["model"] == {"id": "m-good"}


@pytest.mark.parametrize(
    "entries", ['[5, null, "m", [], {}, {"id": "m-good"}]', '[{"id": "m-good"}, {"name": "x"}]']
)
def test_invalid_entries_do_not_spoil_a_list(entries, provider, tmp_path):
    provider.models = status(200, json.loads(f'{{"data": {entries}}}'))
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == [
            "m-good"
        ]


LISTED = b'{"data": [{"id": "m-1"}]}'


@pytest.mark.parametrize(
    "lengths, found",
    [("Content-Length: 25, 25", ["m-1"]), ("Content-Length: 25\r\nContent-Length: 3", [])],
)
def test_a_repeated_content_length_is_valid_and_two_different_ones_are_not(
    provider, tmp_path, lengths, found
):
    """RFC 9110, 8.6. The connection stays open, and nothing waits for its end."""
    assert len(LISTED) == 25
    provider.models = raw(f"HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n".encode() + LISTED, KEEP)
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1") as server:
        began = time.monotonic()
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == found
        assert time.monotonic() - began < 5


def test_only_one_request_fetches_the_list(provider, tmp_path):
    """If a list failed after a second, it is not requested again for a second, however many requests need it."""
    provider.models = raw(1, head(500, Content_Length=0))
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        alice, began = server.client(), time.monotonic()
        assert (
            at_once(6, lambda _: alice.post("/sessions", {"content": "Hello"}).status_code)
            == [502] * 6
        )
        assert alice.post("/sessions", {"content": "Hello"}).status_code == 502
        if time.monotonic() - began < 1.9:  # if the machine is not too busy
            assert len(provider.requests) == 1
        assert len(provider.requests) <= 2
        asked, gate = threading.Event(), threading.Event()
        provider.reset()
        provider.models = raw(
            lambda _: asked.set(), gate, *status(200, {"data": [{"id": "m-9"}]})(None)
        )
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            early = []
            while not asked.wait(0.1) and len(early) < 50:  # until the failure is forgotten
                early.append(pool.submit(alice.post, "/sessions", {"content": "Hello"}))
            late = [pool.submit(alice.post, "/sessions", {"content": "Hello"}) for _ in range(6)]
            gate.set()
            assert {future.result().status_code for future in early} <= {201, 502}
            assert {future.result().status_code for future in late} == {201}
        assert alice.create()["model"] == {"id": "m-9"}
        assert [request.method for request in provider.requests].count("GET") == 1


def test_lists_and_keys_that_never_end_are_given_up(tmp_path):
    """Within ten seconds. Meanwhile, requests that need no list do not wait."""

    def listed():
        hell = Hell()
        hell.models = raw(
            *resolve((NO_KIND, b'{"data": [', drip(b'{"id": "m-1"},', seconds=25)), GPT)
        )
        with (
            contextlib.closing(hell),
            running(tmp_path / "list", OPENAI_BASE_URL=hell.url, MODEL_TIMEOUT=60) as server,
        ):
            alice, began = server.client(), time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(alice.get, "/models")
                assert alice.create(model="m-2")
                assert requests.get(server.url + "/health", timeout=5).status_code == 200
                assert time.monotonic() - began < SLACK
                assert waiting.result().json()["data"] == []
            return time.monotonic() - began

    def published():
        identity = Provider()
        identity.models = raw(
            *resolve((b"HTTP/1.1 200 OK\r\n", drip(b"X-Odd: 1\r\n", seconds=25)), GPT)
        )
        token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
        settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url}
        with contextlib.closing(identity), running(tmp_path / "keys", **settings) as server:
            began = time.monotonic()
            assert status_of(server, token) == 503
            return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for seconds in [pool.submit(listed), pool.submit(published)]:
            assert seconds.result() < 10 + SLACK
