"""Whether a model sees images, as the lists of models say it, and as refusals do.

The lists are as the providers really send them; `providers/model_list.py` has the sources.
"""

import time

import pytest

from llm import Catalog
from provider import raw, status
from providers.learned import Lesson
from providers.protocols import PROTOCOLS


def by_path(**lists):
    """Answers each list of models at its own path; others do not exist."""

    def answer(request):
        path = request.path.partition("?")[0]
        found = {name.replace("__", "/"): lists[name] for name in lists}.get(path)
        yield from (status(404, {}) if found is None else found)(request)

    return answer


OPENROUTER = {
    "data": [
        {
            "id": "org/m-1",
            "architecture": {
                "modality": "text+image->text",
                "input_modalities": ["text", "image"],
                "output_modalities": ["text"],
                "tokenizer": "GPT",
                "instruct_type": None,
            },
        },
        {"id": "org/m-2", "architecture": {"modality": "text->text", "input_modalities": ["text"]}},
    ]
}
LLAMA_CPP = {  # with `models` as in Ollama's own list
    "models": [
        {
            "name": "m-1.gguf",
            "model": "m-1.gguf",
            "modified_at": "",
            "type": "model",
            "tags": [""],
            "capabilities": ["completion", "multimodal"],
            "details": {"parent_model": "", "format": "gguf"},
        }
    ],
    "object": "list",
    "data": [
        {"id": "m-1.gguf", "object": "model", "owned_by": "llamacpp", "meta": {"n_ctx_train": 9}}
    ],
}
LLAMA_CPP_BLIND = {
    "models": [{"name": "m-2.gguf", "model": "m-2.gguf", "capabilities": ["completion"]}],
    "object": "list",
    "data": [{"id": "m-2.gguf", "object": "model", "owned_by": "llamacpp"}],
}
LLAMA_CPP_ROUTER = {
    "data": [
        {
            "id": "unsloth/m-1-GGUF:Q4_K_M",
            "object": "model",
            "owned_by": "llamacpp",
            "status": {"value": "unloaded"},
            "architecture": {
                "input_modalities": ["text", "image", "audio"],
                "output_modalities": ["text"],
            },
        }
    ],
    "object": "list",
}
MISTRAL = {
    "object": "list",
    "data": [
        {"id": "m-1", "object": "model", "capabilities": {"completion_chat": True, "vision": True}},
        {
            "id": "m-2",
            "object": "model",
            "capabilities": {"completion_chat": True, "vision": False},
        },
        {"id": "m-3", "object": "model", "capabilities": {"completion_chat": True}},
    ],
}
SILENT = {  # vLLM, and OpenAI itself
    "object": "list",
    "data": [{"id": "m-1", "object": "model", "owned_by": "vllm", "max_model_len": 32768}],
}
ODD = {
    "models": 5,
    "data": [
        {"id": "m-1", "architecture": [], "capabilities": "vision"},
        {"id": "m-2", "architecture": {"input_modalities": "image"}, "capabilities": None},
        {"id": "m-3", "capabilities": {"image_input": {"supported": "yes"}, "vision": True}},
        {"id": "m-4", "capabilities": {"image_input": True}},
        {"id": "m-5", "capabilities": [{"vision": True}, None, ["vision"]]},
    ],
}
LISTS = {
    "openrouter": (OPENROUTER, {"org/m-1": True, "org/m-2": False}),
    "llama.cpp": (LLAMA_CPP, {"m-1.gguf": True}),
    "llama.cpp, blind": (LLAMA_CPP_BLIND, {"m-2.gguf": False}),
    "llama.cpp, several models": (LLAMA_CPP_ROUTER, {"unsloth/m-1-GGUF:Q4_K_M": True}),
    "mistral": (MISTRAL, {"m-1": True, "m-2": False, "m-3": None}),
    "vllm": (SILENT, {"m-1": None}),
    "odd": (ODD, {"m-1": None, "m-2": None, "m-3": None, "m-4": True, "m-5": False}),
}


def images_of(client):
    return {model["id"]: model["images"] for model in client.get("/models").json()["data"]}


@pytest.fixture
def listed(start, provider):
    """A function: what the server lists for the models of a provider with this list."""

    def see(answer, **settings):
        provider.models = answer
        settings = {"OPENAI_BASE_URL": f"{provider.url}/v1", "WEB_CONCURRENCY": 1} | settings
        return images_of(start(**settings).client())

    return see


@pytest.mark.parametrize("body, images", LISTS.values(), ids=LISTS)
def test_a_list_says_which_models_see_images(listed, provider, body, images):
    assert listed(status(200, body)) == images
    assert len(provider.requests) == 1


def test_anthropics_list_says_which_models_see_images(listed, provider):
    models = [
        {"type": "model", "id": "claude-a", "capabilities": {"image_input": {"supported": True}}},
        {"type": "model", "id": "claude-b", "capabilities": {"image_input": {"supported": False}}},
        {"type": "model", "id": "claude-c", "capabilities": None},
    ]
    settings = {"OPENAI_BASE_URL": "", "ANTHROPIC_BASE_URL": provider.url}
    images = {"claude-a": True, "claude-b": False, "claude-c": None}
    assert listed(status(200, {"data": models, "has_more": False}), **settings) == images


def ollama(*ids):
    owned = [{"id": each, "object": "model", "owned_by": "library"} for each in ids]
    return status(200, {"object": "list", "data": owned})


TAGS = {
    "models": [
        {"name": "gemma3:4b", "model": "gemma3:4b", "capabilities": ["completion", "vision"]},
        {"name": "qwen3:4b", "model": "qwen3:4b", "capabilities": ["completion", "tools"]},
        {"name": "old:1b", "model": "old:1b"},
    ]
}


def test_ollama_is_asked_for_its_own_list_too(listed, provider):
    both = ollama("gemma3:4b", "qwen3:4b", "old:1b")
    answer = by_path(__v1__models=both, __api__tags=status(200, TAGS))
    settings = {"OPENAI_BASE_URL": "", "PROVIDERS": f"nas={provider.url}/v1", "NAS_API_KEY": "hush"}
    assert listed(answer, **settings) == {
        "nas/gemma3:4b": True,
        "nas/qwen3:4b": False,
        "nas/old:1b": None,
    }
    assert [request.path for request in provider.requests] == ["/v1/models", "/api/tags"]
    assert provider.requests[1].headers["authorization"] == "Bearer hush"


FAILURES = {
    "none": status(404, {}),
    "no list": status(200, {"models": None}),
    "no models": status(200, ["odd"]),
    "no JSON": status(200, "<html>"),
    "cut": raw(),
    "late": raw(2),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_models_are_listed_without_ollamas_own_list(listed, failure):
    began = time.monotonic()
    answer = by_path(__v1__models=ollama("m-1"), __api__tags=failure)
    assert listed(answer) == {"m-1": None}
    assert time.monotonic() - began < 30


def test_models_that_the_server_names_are_not_asked_for(listed, provider):
    images = listed(status(200, OPENROUTER), MODELS="org/m-1,echo")
    assert images == {"org/m-1": None, "echo": True}
    assert provider.requests == []


def test_echo_takes_images_and_the_server_says_how_large(start):
    alice = start(WEB_CONCURRENCY=1, MAX_FILE=0).client()
    body = alice.get("/models").json()
    assert body["data"] == [{"id": "echo", "provider": "echo", "default": True, "images": True}]
    assert body["meta"]["max_file"] == 0
    assert start(WEB_CONCURRENCY=1).client().get("/models").json()["meta"]["max_file"] == 3932160


def test_a_user_whom_a_model_refused_images_is_told_so(monkeypatch):
    """And nobody else: the words of a refusal may be quoted from that user."""
    near = PROTOCOLS["openai"]("near", "http://127.0.0.1:9/v1", None, 5, "near/")
    monkeypatch.setattr(near, "list_models", lambda: {"near/m-1": True, "near/m-2": None})
    near._by_user.keep(("alice", "m-1"), Lesson(sees_nothing=True))
    catalog, named = Catalog([near], (), None), Catalog([near], ("near/m-1",), None)
    assert [model.images for model in catalog.list("alice")] == [False, None]
    assert [model.images for model in catalog.list("bob")] == [True, None]
    assert [named.list(user)[0].images for user in ("alice", "bob")] == [False, None]
