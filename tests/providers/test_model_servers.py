"""Model servers of one's own: what they are called, a fresh one without a model, and who is told why one fails.

Modules: `well_known.py`.
"""

import json

import pytest

import auth
from client import wait_until
from provider import KEEP, head, raw
from well_known import name_at, name_of
from windows import on_one_engine

NAMES = {  # a base URL, and what is there as far as that tells
    "https://api.openai.com/v1": "openai",
    "https://api.anthropic.com": "anthropic",
    "http://127.0.0.1:11434/v1": "ollama",
    "http://nas:1234/v1": "lmstudio",
    "https://openrouter.ai/api/v1": "openrouter",
    "http://127.0.0.1:8080/v1": "127.0.0.1:8080",
    "https://me:hush@models.example/v1": "models.example",
    "http://[::1]:9000/v1": "[::1]:9000",
}


def test_a_provider_is_called_by_what_it_is_or_where_it_is():
    assert {url: name_at(url) for url in NAMES} == NAMES
    assert name_of("llama.cpp") == "llama.cpp"
    assert name_of("uvicorn", "vllm") == "vLLM"
    assert name_of(None, "organization_owner") == "LM Studio"
    assert name_of("uvicorn", "me") is None


def listing(body, **headers):
    data = json.dumps(body).encode()
    headers = {"Content_Length": len(data)} | headers
    return raw(head(200, "application/json", **headers) + data, KEEP)


def on_list(provider, answer):
    """Have the provider answer so when its models are listed."""
    answer_others = provider.answer
    provider.answer = lambda request: (
        answer(request) if request.method == "GET" else answer_others(request)
    )


def fault_of(client, provider, body):
    data = json.dumps({"error": {"message": body, "type": "server_error"}}).encode()
    failure = raw(head(500, "application/json", Content_Length=len(data)) + data, KEEP)
    provider.script = [failure] * 3
    failed = client.post("/sessions", {"content": "Hello", "model": "m-1"})
    return failed.json()["errors"][0]["detail"]


@on_one_engine
@pytest.mark.parametrize(
    "headers, model, name",
    [
        ({"Server": "llama.cpp"}, {"id": "m-1"}, "llama.cpp"),
        ({"Server": "uvicorn"}, {"id": "m-1", "owned_by": "vllm"}, "vLLM"),
        ({}, {"id": "m-1", "owned_by": "me"}, None),
    ],
)
def test_nothing_is_called_openai_that_is_not(
    start, settings, provider, monkeypatch, headers, model, name
):
    monkeypatch.setattr(provider, "answer", provider.answer)
    on_list(provider, listing({"object": "list", "data": [model]}, **headers))
    client = start(**settings, WEB_CONCURRENCY=1).client()
    assert client.get("/models").json()["data"][0]["id"] == "m-1"
    told = fault_of(client, provider, "Boom")
    assert told.startswith(f"The provider {name or f'127.0.0.1:{provider.port}'} failed")


@on_one_engine
def test_a_fresh_ollama_says_what_to_do_and_its_model_is_there_once_it_is_pulled(
    start, settings, provider, monkeypatch
):
    """By its own bytes: `data` is null until a model is there."""
    monkeypatch.setattr(provider, "answer", provider.answer)
    fresh = True
    empty, full = {"object": "list", "data": None}, {"object": "list", "data": [{"id": "llama3.2"}]}
    on_list(provider, lambda request: listing(empty if fresh else full)(request))
    settings.pop("DEFAULT_MODEL", None)
    client = start(**settings, WEB_CONCURRENCY=1).client()
    sentence = "Ollama has no model yet: `ollama pull llama3.2`"
    listed = client.get("/models").json()
    assert listed["data"] == [] and listed["meta"]["hint"] == sentence
    refused = client.post("/sessions", {"content": "Hello"})
    assert (refused.status_code, refused.json()["errors"][0]["detail"]) == (502, sentence)
    fresh = False
    wait_until(lambda: client.get("/models").json()["data"])
    assert client.get("/models").json()["meta"] == {"has_more": False, "thinking": "keep"}
    assert client.create()["model"]["id"] == "llama3.2"


MEMORY = "model requires more system memory (8.4 GiB) than is available (5.2 GiB)"


@on_one_engine
def test_the_person_who_runs_the_server_is_told_why_a_provider_fails_and_nobody_else(
    start, settings, provider
):
    server = start(**settings, OPENAI_API_KEY="sk-hush-hush-hush", WEB_CONCURRENCY=1)
    owner, other = server.client(auth.LOCAL_USER), server.client()
    body = "worker 3 crashed, key sk-hush-hush-hush"
    told = fault_of(owner, provider, body)
    assert "worker 3 crashed" in told and "hush" not in told
    assert "Tell the person" not in told
    assert "worker 3" not in fault_of(other, provider, body)
    data = json.dumps({"error": {"message": "Boom 7", "type": "server_error"}}).encode()
    provider.script = [
        raw(head(500, "application/json", Content_Length=len(data)) + data, KEEP)
    ] * 3
    failed = owner.post(
        "/sessions", {"content": "Hello", "model": "m-1"}, X_Forwarded_For="10.0.0.7"
    )
    assert "Boom 7" not in failed.json()["errors"][0]["detail"], "by a proxy, it may be anybody"


@on_one_engine
def test_who_asks_again_is_not_sent_to_what_does_not_change(start, settings, provider):
    client = start(**settings, WEB_CONCURRENCY=1).client()
    told = fault_of(client, provider, MEMORY)
    assert "too little memory" in told and "Ask again" not in told
    assert len(provider.posts) == 1
    odd = start(**settings | {"OPENAI_BASE_URL": "http://no-such-host.invalid/v1"}).client()
    failed = odd.post("/sessions", {"content": "Hello", "model": "m-1"})
    assert "Ask again" not in failed.json()["errors"][0]["detail"]
    dead = start(**settings, HTTP_PROXY="http://127.0.0.1:9").client()
    failed = dead.post("/sessions", {"content": "Hello", "model": "m-1"})
    assert "Ask again" not in failed.json()["errors"][0]["detail"]
