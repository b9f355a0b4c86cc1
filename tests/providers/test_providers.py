"""Several providers: which one a model's id names, which key it gets, and providers that are dead or odd."""

import json
import threading
import time

import pytest

from client import wait_for_status, wait_until
from commands import check, of_level
from llm import open_catalog
from product import copy_of_the_service
from protocols import answered, failed, models_of
from provider import Provider, cut, head, models, raw, reply, status
from raw_tables import tables_of
from servers import free_port
from settings import SettingError, read_settings

KEYS = {"openai": "sk-own-0123456789", "near": "sk-near-0123456789", "far": "sk-far-0123456789"}


@pytest.fixture(scope="module")
def further():
    providers = Provider(), Provider()
    yield providers
    for provider in providers:
        provider.close()


@pytest.fixture
def near(further):
    further[0].reset()
    return further[0]


@pytest.fixture
def far(further):
    further[1].reset()
    return further[1]


@pytest.fixture
def several(provider, near, far):
    """The settings of a server with three providers; `far` speaks Anthropic's protocol."""
    return {
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": KEYS["openai"],
        "PROVIDERS": f"near={near.url}/v1, far=anthropic+{far.url}/v1",
        "NEAR_API_KEY": KEYS["near"],
        "FAR_API_KEY": KEYS["far"],
    }


@pytest.fixture
def shared(server_with, several, near, far):
    """A server with these providers, some of them under further names."""
    more = f"claudes=anthropic+{near.url}, gemini={near.url}/v1beta/openai"
    several = several | {"PROVIDERS": f"{several['PROVIDERS']}, {more}"}
    return server_with(**several, DEFAULT_MODEL=None)


def at_the_same_time(count, ids):
    """Answers that list these models, once `count` lists have been requested."""
    all_asked = threading.Barrier(count)

    def answer(request):
        all_asked.wait(10)
        yield from models(ids)(request)

    return answer


def test_the_models_of_all_providers_are_listed_in_parallel(start, several, provider, near, far):
    """Models of the main OpenAI provider are not listed if their ids begin with the name of a further provider."""
    provider.models = near.models = far.models = at_the_same_time(
        3, ["m-1", "near/m-2", "claude-x"]
    )
    alice = start(**several, WEB_CONCURRENCY=1).client()
    further = [
        (f"{name}/{model}", name, False)
        for name in ("near", "far")
        for model in ("m-1", "near/m-2", "claude-x")
    ]
    assert models_of(alice) == [("m-1", "openai", True), *further]
    assert models_of(alice)[0] == ("m-1", "openai", True)
    assert [each.requests[0].path for each in (provider, near, far)] == [
        "/v1/models",
        "/v1/models",
        "/v1/models?limit=1000",
    ]
    assert sum(len(each.requests) for each in (provider, near, far)) == 3


def test_the_same_id_on_two_providers_is_two_models(shared, provider, near, far):
    """A session moves between providers. Each gets its own model id and its own key only."""
    server = shared
    alice = server.client()
    asked = {"openai": provider, "near": near, "far": far}
    for name, each in asked.items():
        each.default = reply(f"I am {name}.")
    session = alice.create("Who are you?", model="m-1")
    for model in ("near/m-1", "far/m-1", "m-1", "near/org/m-1:free"):
        assert alice.patch(f"/sessions/{session['id']}", {"model": model}).json()["model"] == {
            "id": model
        }
        turn = alice.post(f"/sessions/{session['id']}/messages", {"content": "And you?"}).json()
        name = model.partition("/")[0] if "/" in model else "openai"
        assert (turn["model"], turn["content"]) == ({"id": model}, f"I am {name}.")
    assert alice.get(f"/sessions/{session['id']}").json()["model"] == {"id": "near/org/m-1:free"}
    assert [post.body["model"] for post in provider.posts] == ["m-1", "m-1"]
    assert [post.body["model"] for post in near.posts] == ["m-1", "org/m-1:free"]
    assert [(post.path, post.body["model"]) for post in far.posts] == [("/v1/messages", "m-1")]
    assert len(near.posts[-1].body["messages"]) == 9
    for name, each in asked.items():
        sent = json.dumps([[dict(request.headers), request.body] for request in each.requests])
        assert [key in sent for key in KEYS.values()] == [
            key == KEYS[name] for key in KEYS.values()
        ]
    assert not any(key in server.output() for key in KEYS.values())


def test_new_sessions_retries_and_titles_go_to_the_named_provider(
    start, several, near, far, provider
):
    far.default = reply("A title from afar")
    server = start(**several, TITLE_MODEL="far/m-t", MODELS="near/m-1,m-1")
    alice = server.client()
    session = alice.create("Hello")
    assert session["model"] == {"id": "near/m-1"}
    wait_until(
        lambda: alice.get(f"/sessions/{session['id']}").json()["title"] == "A title from afar"
    )
    assert alice.post(f"/sessions/{session['id']}/retry").json()["model"] == {"id": "near/m-1"}
    assert models_of(alice) == [("near/m-1", "near", True), ("m-1", "openai", False)]
    assert ([post.body["model"] for post in near.posts], provider.requests) == (["m-1", "m-1"], [])
    response = alice.post("/sessions", {"content": "Hello", "model": "near/m-2"})
    assert (response.status_code, response.json()["errors"][0]["source"]) == (
        400,
        {"pointer": "/model"},
    )
    assert "near/m-1, m-1" in response.json()["errors"][0]["detail"]


WHOLE = [
    "meta-llama/m-1",
    "openai/m-1",
    "anthropic/claude-x",
    "echo/m-1",
    "near",
    "near/",
    "/near/m-1",
    "Near/m-1",
    "nearer/m-1",
]


def test_an_id_is_split_only_after_the_name_of_a_further_provider(shared, provider, near):
    alice = shared.client()
    assert [alice.create(model=model)["model"]["id"] for model in WHOLE] == WHOLE
    assert [post.body["model"] for post in provider.posts] == WHOLE
    assert near.requests == []


def test_a_model_without_a_provider_is_refused_with_the_valid_names(start, near):
    alice = start(PROVIDERS=f"near={near.url}/v1,n2={near.url}/v1", MODEL_TIMEOUT=2).client()
    for model, switch in (
        ("llama3.2", "OPENAI_API_KEY or OPENAI_BASE_URL"),
        ("claude-x", "ANTHROPIC_API_KEY"),
    ):
        response = alice.post("/sessions", {"content": "Hello", "model": model})
        [error] = response.json()["errors"]
        assert (response.status_code, error["source"]) == (400, {"pointer": "/model"})
        assert "such as near/… or n2/…." in error["detail"] and switch in error["detail"]
    assert alice.post("/sessions", {"content": "Hello", "model": "echo"}).status_code == 400
    assert near.requests == []


FAULTS = {
    "refuses the key": (
        status(401, {"error": {"message": KEYS["near"]}}),
        502,
        "refused this server's own key",
    ),
    "has no such model": (
        status(404, {"error": {"message": "no model m-1 not found"}}),
        400,
        "has no such model: no model m-1",
    ),
    "fails": (
        status(500, {"error": {"message": "boom"}}, Retry_After_Ms=1),
        502,
        "failed with status 500",
    ),
    "limits": (
        status(429, {"error": {"message": "slow down"}}, Retry_After=60),
        503,
        "limits this server: slow down. Ask again in 60 seconds.",
    ),
    "closes": (raw(), 502, "could not be reached"),
    "breaks": (cut("So"), 502, "broke the connection"),
    "redirects": (status(307, Location="http://127.0.0.1:1/v1"), 502, "redirects"),
    "sends no answer": (raw(head(content_type="text/html") + b"<html>"), 502, "sent a web page"),
}


@pytest.mark.parametrize("name", ["near", "claudes"], ids=["OpenAI's", "Anthropic's"])
def test_a_failure_names_the_provider_that_failed(server_with, near, far, name):
    """In the answer, and in the log with the provider's own words. Another provider still works."""
    server = server_with(
        PROVIDERS=f"near={near.url},claudes=anthropic+{near.url},well={far.url}/v1",
        NEAR_API_KEY=KEYS["near"],
        CLAUDES_API_KEY=KEYS["near"],
        CONTINUE_LIMIT=0,
    )
    alice = server.client()
    for number, (answer, expected, text) in enumerate(FAULTS.values(), 1):
        near.default = answer
        response, _, turn = failed(alice, f"{name}/m-1")
        assert response.status_code == expected
        assert response.json()["errors"][0]["detail"].startswith(f"The provider {name} {text}")
        assert turn["model"] == {"id": f"{name}/m-1"}
        server.wait_for_output(f"model={name}/m-1", number)
    answered(alice, "well/m-1")
    lines = [line for line in server.output().splitlines() if f"model={name}/m-1" in line]
    for line, (_, _, text) in zip(lines, FAULTS.values(), strict=True):
        assert f"The provider {name} {text}" in line
    assert "boom" in lines[2]
    assert KEYS["near"] not in server.output()


def test_an_option_that_a_further_provider_refuses_is_named(shared, near):
    alice = shared.client()
    near.default = status(
        400, {"error": {"message": "Unsupported value: temperature", "param": "temperature"}}
    )
    response = alice.post(
        "/sessions", {"content": "Hello", "model": "near/m-1", "options": {"temperature": 1}}
    )
    [error] = response.json()["errors"]
    assert (response.status_code, error["source"]) == (400, {"pointer": "/options/temperature"})
    assert error["detail"].startswith("The provider near refuses the option temperature")


def test_the_default_is_the_first_model_of_the_first_provider_that_lists_one(start, near, far):
    """OpenAI's own comes first, then the further ones in order. A dead one delays nothing for long."""
    dead = f"http://127.0.0.1:{free_port()}/v1"
    near.models, far.models = [], ["m-1", "m-2"]
    settings = {
        "OPENAI_BASE_URL": dead,
        "PROVIDERS": f"near={near.url}/v1,far=anthropic+{far.url},gone={dead}",
    }
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    assert alice.create()["model"] == {"id": "far/m-1"}
    assert models_of(alice) == [("far/m-1", "far", True), ("far/m-2", "far", False)]
    told = (
        f"The provider gone could not be reached. Nothing listens at {dead[7:-3]}. Start it there."
    )
    assert failed(alice, "gone/m-1")[1]["detail"] == told
    for known_as in (dead[7:-3], "gone"):
        server.wait_for_output(
            f"The models of {known_as} cannot be had: The provider {known_as} could not be reached."
        )
    far.models = []
    assert "model=far/m-1" in server.wait_for_output("outcome=complete")


def test_without_a_default_the_error_is_that_of_the_first_failed_provider(start, near):
    dead = f"http://127.0.0.1:{free_port()}/v1"
    near.models = []
    alice = start(PROVIDERS=f"gone={dead},near={near.url}/v1", WEB_CONCURRENCY=1).client()
    response = alice.post("/sessions", {"content": "Hello"})
    assert response.status_code == 502
    told = (
        f"The provider gone could not be reached. Nothing listens at {dead[7:-3]}. Start it there."
    )
    assert response.json()["errors"][0]["detail"] == told
    assert models_of(alice) == []


def test_a_silent_provider_does_not_keep_the_others_from_answering(
    start, several, provider, near, far
):
    """Only requests that need the lists wait for it."""
    over = threading.Event()
    provider.models, far.models = ["m-1"], ["m-1"]

    def nothing(request):
        over.wait(20)
        yield from ()

    near.models = nothing
    alice = start(**several | {"MODEL_TIMEOUT": 1}).client()
    began = time.monotonic()
    assert [model for model, *_ in models_of(alice)] == ["m-1", "far/m-1"]
    assert time.monotonic() - began < 6
    near.models = ["m-1"]
    assert alice.create(model="near/m-1")["model"] == {"id": "near/m-1"}
    over.set()


def test_five_thousand_models_of_one_provider_are_listed_and_usable(start, several, near):
    near.models = [f"org-{number % 70}/model-{number}" for number in range(5000)]
    alice = start(**several, WEB_CONCURRENCY=1).client()
    listed = [model for model, name, _ in models_of(alice) if name == "near"]
    assert listed == [f"near/{model}" for model in near.models]
    assert alice.create(model=listed[-1])["model"] == {"id": "near/org-29/model-4999"}
    assert near.posts[-1].body["model"] == "org-29/model-4999"


def test_invalid_ids_do_not_hide_valid_ones(start, several, near):
    near.models = ["", " ", "m" * 195, "m" * 196, "a\0b", "\ud800", 7, None, ["m"], "m-9"]
    alice = start(**several, WEB_CONCURRENCY=1).client()
    assert [model for model, name, _ in models_of(alice) if name == "near"] == [
        f"near/{'m' * 195}",
        "near/m-9",
    ]


# If a name means another provider by now


def renamed(settings):
    """The settings of a server on which `near` is called `other`, so that its old ids would belong to OpenAI's provider."""
    return settings | {"PROVIDERS": settings["PROVIDERS"].replace("near=", "other=")}


def test_a_conversation_with_one_provider_is_not_sent_to_another(
    start, several, provider, near, new_database
):
    """Unless the user allows it by giving the session a model, even one with the same id."""
    settings = several | {"DATABASE_URL": new_database(), "WEB_CONCURRENCY": 1}
    session = start(**settings).client().create("A secret", model="near/m-1")
    alice = start(**renamed(settings)).client()
    path = f"/sessions/{session['id']}"
    for action, body in (("messages", {"content": "More"}), ("retry", None)):
        response = alice.post(f"{path}/{action}", body)
        [error] = response.json()["errors"]
        assert (response.status_code, error["source"]) == (400, {"pointer": "/model"})
        assert error["detail"].startswith(
            "near/m-1, the model of this session, is not served any more."
        )
        assert f"Give it another one by PATCH {path}: " in error["detail"]
        assert "m-1, m-2" in error["detail"].partition("PATCH")[2]
    assert provider.posts == []
    assert alice.patch(path, {"model": "near/m-1"}).status_code == 200
    assert alice.post(f"{path}/messages", {"content": "More"}).status_code == 201
    assert len(provider.posts) == 1


def test_a_reply_is_not_continued_by_another_provider_after_a_takeover(
    start, several, provider, near, new_database
):
    settings = several | {"DATABASE_URL": new_database(), "WEB_CONCURRENCY": 1}
    server, gate = start(**settings), threading.Event()
    near.default = reply("One ", gate, "two.")
    body = {"content": "A secret", "model": "near/m-1"}
    session = server.client().post("/sessions", body, Prefer="respond-async").json()
    wait_until(lambda: server.client().turns(session)[-1]["content"] == "One ")
    server.kill()
    gate.set()
    with tables_of(settings["DATABASE_URL"]) as tables:  # its lease would expire later by itself
        tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
    server = start(**renamed(settings))
    assert wait_for_status(server.client(), session, "interrupted", 30)["content"] == "One "
    told = "near/m-1 was a model of the provider near, which is not set up any more."
    assert f'why="{told}"' in server.wait_for_output("outcome=interrupted")
    assert provider.requests == []


@pytest.mark.parametrize("setting", ["MODELS", "DEFAULT_MODEL", "TITLE_MODEL"])
def test_the_server_does_not_start_with_a_model_of_an_unknown_provider(setting):
    given = {"PROVIDERS": "near=http://127.0.0.1:9/v1", setting: "nearer/m"}
    with pytest.raises(SettingError, match=rf"{setting}: nearer/m is not served\. .+near/"):
        open_catalog(read_settings(given))


# Reports


def test_the_start_and_the_check_name_each_provider(start, near, far, tmp_path):
    """With its name, address and variables, and without passwords and keys."""
    near.models, far.models = ["m-1"], status(401, {"error": {"message": KEYS["far"]}})
    settings = {
        "PROVIDERS": f"near={near.url.replace('//', '//user:hush-hush@')}/v1,far=anthropic+{far.url},gone=http://127.0.0.1:9/v1",
        "FAR_API_KEY": KEYS["far"],
    }
    server = start(**settings)
    [line] = [line for line in server.output().splitlines() if " start " in line]
    host = near.url.partition("//")[2]
    assert f"near http://***@{host}/v1, far {far.url}, gone http://127.0.0.1:9/v1" in line
    assert "the first that near, else far, else gone lists" in line
    code, found = check(copy_of_the_service(tmp_path / "parley"), **settings)
    assert code == 1
    assert {"near answers, and lists 1 models", "near/m-1 answers"} <= {*of_level("ok", found)}
    refused, away = of_level("FAILED", found)
    assert refused.startswith(
        "PROVIDERS, FAR_API_KEY: The provider far refused this server's own key"
    )
    assert away.startswith("PROVIDERS, GONE_API_KEY: The provider gone could not be reached")
    assert near.posts[-1].body["model"] == "m-1"
    for text in (server.output(), str(found)):
        assert not any(secret in text for secret in ("hush-hush", *KEYS.values()))


# Special cases of some providers


OPENAI = {
    "it": ("http://api.openai.com/v1", "max_completion_tokens"),
    "another": ("http://api.openai.com.example/v1", "max_tokens"),
    "a_path": ("http://example/api.openai.com", "max_tokens"),
}


def test_openai_gets_no_parameters_that_it_refuses(start, near):
    """A proxy answers instead of OpenAI, and sees the requests."""
    providers = ",".join(f"{name}={url}" for name, (url, _) in OPENAI.items())
    settings = {"PROVIDERS": providers, "HTTP_PROXY": near.url, "NO_PROXY": ""}
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    for name, (_, limit) in OPENAI.items():
        answered(alice, f"{name}/m-2")
        sent = near.posts[-1].body.keys() - {"model", "stream", "messages"}
        assert sent == {limit, "stream_options"}


def test_cache_control_is_left_out_for_a_server_that_does_not_know_it(shared, far):
    """Only the exact text of the refusal teaches this: a message that quotes it changes nothing."""
    error = {
        "type": "invalid_request_error",
        "message": "cache_control: Extra inputs are not permitted",
    }
    far.script = [status(400, {"type": "error", "error": error})]
    alice = shared.client()
    answered(alice, "far/m-3")
    answered(alice, "far/m-3")
    assert ["cache_control" in post.body for post in far.posts] == [True, False, False]
    error["message"] = "no such thing: cache_control: Extra inputs are not permitted"
    far.script = [status(400, {"type": "error", "error": error})]
    assert failed(alice, "far/m-2")[0].status_code == 502
    answered(alice, "far/m-2")
    assert "cache_control" in far.posts[-1].body


GEMINI = "models/m-1 is not found for API version v1main, or is not supported for generateContent."


def test_an_error_of_gemini_in_a_list_is_read(shared, near):
    alice = shared.client()
    near.default = status(404, [{"error": {"code": 404, "message": GEMINI, "status": "NOT_FOUND"}}])
    response, *_ = failed(alice, "gemini/m-1")
    assert response.status_code == 400 and "The provider gemini has no such model" in response.text


def test_a_reply_continues_with_its_own_provider_after_a_break(shared, near, far):
    near.script = [cut("One two "), reply("three.")]
    alice = shared.client()
    turn = wait_for_status(alice, alice.create(model="near/m-1"), "complete")
    assert (turn["content"], turn["continued"]) == ("One two three.", 1)
    assert (len(near.posts), far.posts) == (2, [])
