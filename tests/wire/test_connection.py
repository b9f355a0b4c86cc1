"""Connections to providers are kept alive and used again."""

import time

import pytest

import storm
from client import make_token
from connections import answered_at_once, connected, connections_of
from protocols import CLAUDE, GPT, WHOLE_ANSWERS, answered, both, stop
from provider import (
    KEEP,
    Connection,
    Provider,
    chunk,
    cut,
    events_of,
    head,
    raw,
    reply,
    status,
)
from servers import running
from tokens import ED25519, jwk, jwks, status_of
from trouble import stopped

# Kept connections


@both
def test_the_next_request_uses_the_same_connection(line, model):
    for _ in range(4):
        answered(line.alice, model)
    assert line.provider.connections == connections_of(line.posts)
    assert len(line.provider.connections) == 1
    assert "close" not in [request.headers.get("connection", "").lower() for request in line.posts]


def test_as_many_connections_are_kept_as_were_needed_at_once(line):
    answered_at_once(line, 20)
    answered_at_once(line, 20)
    assert len(line.provider.connections) == 20


def test_connections_opened_by_the_very_first_requests_are_all_kept(tmp_path):
    """Nothing can be shared yet, and what all of them need is made only once."""
    with connected(tmp_path, is_secure=True) as line:
        answered_at_once(line, 16)
        answered_at_once(line, 16)
        assert len(line.provider.connections) == 16


@both
def test_a_connection_is_kept_after_an_answer_that_is_not_streamed(line, model):
    line.provider.default = status(200, WHOLE_ANSWERS[model])
    for _ in range(3):
        assert answered(line.alice, model)["content"] == "All of it."
    assert len(line.provider.connections) == 1


@both
def test_a_connection_is_kept_with_any_line_endings(line, model):
    def answer(request):
        data = b"".join(events_of(request, ["Well."])).replace(b"\n", b"\r\n")
        yield head(Transfer_Encoding="chunked")
        yield chunk(b"\xef\xbb\xbf: hello\r\n\r\n" + data) + chunk(b"")
        yield KEEP

    line.provider.default = answer
    for _ in range(3):
        assert answered(line.alice, model)["content"] == "Well."
    assert len(line.provider.connections) == 1


def test_models_are_listed_on_the_connection_for_replies(provider, tmp_path):
    provider.models = ["claude-x", "m-1"]
    with running(
        tmp_path, ANTHROPIC_BASE_URL=provider.url, OPENAI_BASE_URL=provider.url + "/v1"
    ) as server:
        assert len(server.client().get("/models").json()["data"]) == 2
        answered(server.client(), CLAUDE)
        answered(server.client(), GPT)
    used = {request.path: request.connection for request in provider.requests}
    assert used["/v1/messages"] is used["/v1/models?limit=1000"]
    assert used["/v1/chat/completions"] is used["/v1/models"]


def test_models_are_listed_on_a_new_connection_if_the_old_one_has_ended(provider, tmp_path):
    answers = iter([raw()])
    provider.models = lambda request: next(answers, status(200, {"data": [{"id": "m-7"}]}))(request)
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        answered(server.client(), GPT)
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == ["m-7"]
    reply, *lists = provider.requests
    assert len(lists) == 2
    assert lists[0].connection is reply.connection


NO_LISTS = {
    "an error": status(404),
    "no model": status(200, {"data": []}),
    "no id": status(200, {"data": [{}]}),
}


@pytest.mark.parametrize("answer", NO_LISTS.values(), ids=NO_LISTS)
def test_no_connection_is_used_again_after_a_list_without_models(provider, tmp_path, answer):
    provider.models = answer
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL=GPT) as server:
        server.client().get("/models")
        answered(server.client(), GPT)
    assert len(connections_of(provider.requests)) == len(provider.requests) > 1


def test_titles_are_requested_on_kept_connections(provider, tmp_path):
    """The title is requested at the same time as the reply, so there are two connections. The next session needs no more."""
    provider.default = reply("A title")
    with running(
        tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL=GPT, TITLE_MODEL="m-2"
    ) as server:
        alice = server.client()
        for _ in range(3):
            session = alice.create("Hello")
            deadline = time.monotonic() + 5
            while alice.get(f"/sessions/{session['id']}").json()["title"] != "A title":
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert sorted(request.body["model"] for request in provider.posts) == ["m-1"] * 3 + ["m-2"] * 3
    assert len(connections_of(provider.posts)) <= 2


def test_published_keys_are_fetched_on_a_new_connection_each_time(tmp_path):
    """Connections are kept only for models' answers and for lists of models."""
    identity = Provider()
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "unknown"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url + "/keys.json") as server:
        deadline = time.monotonic() + 5
        # An unknown `kid` makes the server fetch the keys, at most once a second.
        while len(identity.requests) < 3:
            assert status_of(server, token) == 401
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for request in identity.requests[:2]:
            assert request.hung_up.wait(1)
    assert len(connections_of(identity.requests)) == 3
    identity.close()


def test_each_worker_has_its_own_connections(provider, tmp_path):
    """While the other workers are stopped, this one makes all requests."""
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": GPT, "WEB_CONCURRENCY": 2}
    with running(tmp_path, **settings) as server:
        workers = server.workers()
        for worker in [*workers, *workers]:
            with stopped([other for other in workers if other != worker], tmp_path / "parley.db"):
                answered(server.client(), GPT)
                answered(server.client(), GPT)
    one, other = connections_of(provider.posts)
    assert [request.connection for request in provider.posts] == [one] * 2 + [other] * 2 + [
        one
    ] * 2 + [other] * 2


def test_no_socket_stays_open(line):
    answers = [
        reply("Well."),
        cut("Half"),
        status(400),
        raw(b"odd"),
        raw(Connection.reset),
        reply("", Connection="close"),
    ]

    def ask():
        for answer in answers:
            line.provider.script = [answer]
            line.alice.post("/sessions", {"content": "Hello"})
        line.provider.script = [reply("So far", 30)]
        count = len(line.posts) + 1
        session = line.alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        asked = line.provider.wait_for_request(count)
        stop(line.alice, session, "cancel")
        assert asked.hung_up.wait(1)

    ask()
    before = storm.open_sockets(line.server)
    for _ in range(4):
        ask()
    deadline = time.monotonic() + 5
    while storm.open_sockets(line.server) > before + 3:  # some may be closing just now
        assert time.monotonic() < deadline
        time.sleep(0.02)
