"""Which models there are, which provider serves them, and which is the default."""

import threading
import time

import pytest

from client import wait_until
from protocols import PAGE, counts, models_of
from provider import chunk, head, raw, status
from servers import free_port, running
from wire import SingleFlight


def test_the_providers_models_are_listed(provider, tmp_path):
    """Both providers list all models and are asked once. Our own default for Anthropic applies."""
    provider.models = ["m-1", "claude-opus-4-6", "echo", "claude-haiku"]
    settings = {
        "ANTHROPIC_BASE_URL": provider.url,
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "OPENAI_BASE_URL": provider.url + "/v1",
    }
    with running(tmp_path, **settings) as server:
        alice = server.client()
        for _ in range(3):
            assert models_of(alice) == [
                ("claude-opus-4-6", "anthropic", True),
                ("claude-haiku", "anthropic", False),
                ("m-1", "openai", False),
            ]
        assert sorted((request.method, request.path) for request in provider.requests) == [
            ("GET", "/v1/models"),
            ("GET", "/v1/models?limit=1000"),
        ]
        keys = {request.path: request.headers.get("x-api-key") for request in provider.requests}
        assert keys == {"/v1/models?limit=1000": "key-of-anthropic", "/v1/models": None}
        assert alice.create()["model"] == {"id": "claude-opus-4-6"}


def created_in_time(alice):
    """A session, once the provider is asked for its list again: a failure is remembered for as long as it took."""
    deadline = time.monotonic() + 5
    while (response := alice.post("/sessions", {"content": "Hello"})).status_code == 502:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.01)
    assert response.status_code == 201, response.text
    return response.json()


LISTS_THAT_FAIL = {
    "refused": status(401, {"error": {"message": "key-of-openai"}}),
    "no list": status(200, {"data": 5}),
    "no JSON": status(200, PAGE),
    "no ids": status(200, {"data": [{"name": "m-1"}]}),
    "cut": raw(head(Transfer_Encoding="chunked"), chunk(b'{"data": [')),
    "nothing": raw(),
}


def test_a_provider_that_does_not_answer_is_left_out(provider, tmp_path):
    settings = {
        "ANTHROPIC_BASE_URL": provider.url,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "MODEL_TIMEOUT": 1,
    }
    provider.models = ["claude-haiku"]
    with running(tmp_path, **settings) as server:
        assert models_of(server.client()) == [("claude-haiku", "anthropic", False)]


def test_the_first_model_that_openai_lists_is_the_default(provider, tmp_path):
    """Without a default of its own, the server needs the list, and reads it as soon as there is one."""
    with running(
        tmp_path, OPENAI_BASE_URL=provider.url + "/v1", OPENAI_API_KEY="key-of-openai"
    ) as server:
        alice = server.client()
        for answer in LISTS_THAT_FAIL.values():
            provider.models = answer
            response = alice.post("/sessions", {"content": "Hello"})
            assert response.status_code in (502, 503, 504), response.text
            assert response.json()["errors"][0]["detail"].startswith(
                f"The provider 127.0.0.1:{provider.port} "
            )
        provider.models = []
        empty = f"The provider 127.0.0.1:{provider.port} lists no model. Name one, or set `DEFAULT_MODEL`."
        wait_until(lambda: empty in alice.post("/sessions", {"content": "Hello"}).text, 10)
        assert models_of(alice) == []
        provider.models = ["claude-x", "m-7", "m-8"]
        assert created_in_time(alice)["model"] == {"id": "m-7"}
        assert provider.posts[-1].body["model"] == "m-7"
        assert models_of(alice) == [("m-7", "openai", True), ("m-8", "openai", False)]
        assert alice.get("/sessions").json()["data"][1:] == []
        assert "key-of" not in server.output()


def test_only_the_named_models_are_served(provider, tmp_path):
    settings = {
        "ANTHROPIC_BASE_URL": provider.url,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "MODELS": " m-2, claude-x,echo ",
    }
    with running(tmp_path, **settings) as server:
        alice = server.client()
        assert models_of(alice) == [
            ("m-2", "openai", True),
            ("claude-x", "anthropic", False),
            ("echo", "echo", False),
        ]
        assert alice.create()["model"] == {"id": "m-2"}
        response = alice.post("/sessions", {"content": "Hello", "model": "m-1"})
        assert response.status_code == 400
        [error] = response.json()["errors"]
        assert error["source"] == {"pointer": "/model"}
        assert "m-2, claude-x, echo" in error["detail"]
        session = alice.create("One two  three.\nFour", model="echo")
        assert alice.turns(session)[-1]["content"] == "One two  three.\nFour"
        assert alice.patch(f"/sessions/{session['id']}", {"model": "m-1"}).status_code == 400
        assert not [request for request in provider.requests if request.method == "GET"]


def test_without_a_provider_echo_answers_word_by_word(tmp_path):
    with running(tmp_path) as server:
        alice = server.client()
        assert models_of(alice) == [("echo", "echo", True)]
        with alice.stream("POST", "/sessions", {"content": "  Say héllo\tworld \n"}) as events:
            events = list(events)
        assert events[0].data["model"] == {"id": "echo"}
        text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
        assert text == events[-2].data["content"] == "  Say héllo\tworld \n"
        assert events[-2].data["usage"] == counts()
        for model, setting in [("claude-x", "ANTHROPIC_API_KEY"), ("m-1", "OPENAI_BASE_URL")]:
            response = alice.post("/sessions", {"content": "Hello", "model": model})
            assert response.status_code == 400
            assert setting in response.json()["errors"][0]["detail"]
        assert len(alice.get("/sessions").json()["data"]) == 1


def test_with_a_provider_echo_is_not_served(alice, provider):
    response = alice.post("/sessions", {"content": "Hello", "model": "echo"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/model"}
    assert provider.requests == []


def test_a_provider_that_does_not_answer_is_asked_for_its_models_once(start, provider):
    provider.models = status(500)
    alice = start(OPENAI_BASE_URL=provider.url + "/v1", WEB_CONCURRENCY="1").client()
    for _ in range(3):
        assert alice.get("/models").json()["data"] == []
    assert len(provider.requests) == 1
    provider.models = ["m-9"]  # a session that needs a default makes the server ask again
    assert created_in_time(alice)["model"] == {"id": "m-9"}
    assert [model["id"] for model in alice.get("/models").json()["data"]] == ["m-9"]
    assert [request.method for request in provider.requests] == ["GET", "GET", "POST"]


def test_a_failed_list_is_not_waited_for_again():
    """If it is too old, the next caller starts another try, and does not wait for it."""
    gates = [threading.Event() for _ in range(2)]
    failures = iter(range(2))

    def fetch():
        number = next(failures)
        gates[number].wait(10)
        raise LookupError(number)

    fetched = SingleFlight("It", fetch, 300, failure_ttl=0.01)
    gates[0].set()
    for _ in range(2):
        with pytest.raises(LookupError, match="0"):
            fetched.get()
        time.sleep(0.02)  # now the failure is too old
    gates[1].set()
