"""A user's own model servers: their names, a new one without a model, and who sees why one fails.

Modules: `well_known.py`, `providers/nearby.py`, `api/hints.py`.
"""

import json

import pytest

import auth
from client import wait_until
from provider import KEEP, Provider, head, raw, status
from servers import free_port
from well_known import name_at, name_of

NAMES = {  # a base URL, and the name that it suggests
    "https://api.openai.com/v1": "openai",
    "https://api.anthropic.com": "anthropic",
    "http://127.0.0.1:11434/v1": "ollama",
    "http://nas:1234/v1": "lmstudio",
    "https://openrouter.ai/api/v1": "openrouter",
    "http://127.0.0.1:8080/v1": "127.0.0.1:8080",
    "https://me:hush@models.example/v1": "models.example",
    "http://[::1]:9000/v1": "[::1]:9000",
}


def test_a_provider_is_named_by_its_product_or_its_address():
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
    """Have the provider answer like this when its models are listed."""
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


@pytest.mark.parametrize(
    "headers, model, name",
    [
        ({"Server": "llama.cpp"}, {"id": "m-1"}, "llama.cpp"),
        ({"Server": "uvicorn"}, {"id": "m-1", "owned_by": "vllm"}, "vLLM"),
        ({}, {"id": "m-1", "owned_by": "me"}, None),
    ],
)
def test_only_openai_is_called_openai(start, settings, provider, monkeypatch, headers, model, name):
    monkeypatch.setattr(provider, "answer", provider.answer)
    on_list(provider, listing({"object": "list", "data": [model]}, **headers))
    client = start(**settings, WEB_CONCURRENCY=1).client()
    assert client.get("/models").json()["data"][0]["id"] == "m-1"
    told = fault_of(client, provider, "Boom")
    assert told.startswith(f"The provider {name or f'127.0.0.1:{provider.port}'} failed")


def test_a_new_ollama_gets_a_hint_and_its_model_appears_once_pulled(
    start, settings, provider, monkeypatch
):
    """Ollama really answers like this: `data` is null until there is a model."""
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
    assert "hint" not in client.get("/models").json()["meta"]
    assert client.create()["model"]["id"] == "llama3.2"


def test_the_hint_names_the_providers_that_could_not_be_asked(start, settings, provider):
    """Although others have models, and the reason is for the operator alone."""
    port = free_port()
    refusing = Provider()
    refusing.models = status(401, {"error": {"message": "Bad key"}})
    settings |= {"PROVIDERS": f"away=http://127.0.0.1:{port}/v1,work={refusing.url}/v1"}
    server = start(**settings, WORK_API_KEY="of-work", WEB_CONCURRENCY=1)
    away = f"The provider away could not be reached. Nothing listens at 127.0.0.1:{port}. Start it there."
    refused = "The provider work refused this server's own key."
    listed = server.client().get("/models").json()
    assert {model["id"] for model in listed["data"]} == {"m-1", "m-2"}
    told = f"{away}\n\n{refused} Tell the person who runs this server."
    assert listed["meta"]["hint"] == told
    operator = server.client(auth.LOCAL_USER)
    reason = f"{away} 127.0.0.1:{port}: [Errno 111] Connection refused\n\n{refused} Is `WORK_API_KEY` right? Bad key"
    assert operator.get("/models").json()["meta"]["hint"] == reason
    forwarded = operator.get("/models", X_Forwarded_For="10.0.0.7")
    assert forwarded.json()["meta"]["hint"] == told
    refusing.close()


@pytest.mark.parametrize("default, is_named", [("m-1", False), (None, True)])
def test_a_provider_without_a_list_is_no_trouble_if_a_default_is_set(
    start, settings, provider, default, is_named
):
    provider.models = status(404, {"error": {"message": "Not found"}})
    settings["DEFAULT_MODEL"] = default
    listed = start(**settings, WEB_CONCURRENCY=1).client().get("/models").json()
    assert listed["data"] == [] and ("hint" in listed["meta"]) == is_named


MEMORY = "model requires more system memory (8.4 GiB) than is available (5.2 GiB)"


def test_only_the_local_user_sees_why_a_provider_fails(start, settings, provider):
    server = start(**settings, OPENAI_API_KEY="sk-hush-hush-hush", WEB_CONCURRENCY=1)
    owner, other = server.client(auth.LOCAL_USER), server.client()
    refuses = status(401, {"error": {"message": "Worker 3 knows no sk-hush-hush-hush"}})
    provider.default = refuses
    said = {"content": "Hello", "model": "m-1"}
    by_proxy = {"X_Forwarded_For": "10.0.0.7"}  # with this header, the client may be anybody

    failed = owner.post("/sessions", said)
    [error] = failed.json()["errors"]
    assert error["meta"]["reason"].startswith("Is `OPENAI_API_KEY` right? Worker 3 knows no ")
    assert "Worker" not in error["detail"] and "Tell the person" not in error["detail"]
    assert "hush" not in failed.text
    path = failed.headers["Location"]
    assert owner.get(path).json()["turns"][1]["error"] == {
        "status": 502,
        "message": error["detail"],
        "reason": error["meta"]["reason"],
    }
    with owner.stream("POST", f"{path}/retry") as stream:
        [told] = [event.data for event in stream if event.name == "error"]
    assert told["reason"] == error["meta"]["reason"]

    assert "Worker" not in owner.get(path, **by_proxy).text
    assert "Worker" not in owner.get(path, Accept="text/markdown").text
    line = owner.get("/export").text
    assert "502" in line and "Worker" not in line
    forked = owner.post(f"{path}/fork").headers["Location"]
    imported = other.post("/sessions/import", json.loads(line)).headers["Location"]
    for client, copy in ((owner, forked), (other, imported)):
        assert client.get(copy).json()["turns"][1]["error"].keys() == {"status", "message"}
    for failed in (other.post("/sessions", said), owner.post("/sessions", said, **by_proxy)):
        assert failed.status_code == 502 and "Worker" not in failed.text
        assert "Tell the person who runs this server" in failed.text
    assert "Worker 3" in server.output() and "hush" not in server.output()


def test_no_retry_is_suggested_for_an_error_that_would_come_again(start, settings, provider):
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
