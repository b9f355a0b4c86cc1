"""Several providers at a time: whose model an id names, whose key goes where, and what becomes of one that is dead or odd."""

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
from windows import on_one_engine

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
    """The settings of a server that has three providers, of which `far` speaks Anthropic's protocol."""
    return {
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": KEYS["openai"],
        "PROVIDERS": f"near={near.url}/v1, far=anthropic+{far.url}/v1",
        "NEAR_API_KEY": KEYS["near"],
        "FAR_API_KEY": KEYS["far"],
    }


@pytest.fixture
def shared(server_with, several, near, far):
    """A server of these, of which some have more names."""
    more = f"claudes=anthropic+{near.url}, gemini={near.url}/v1beta/openai"
    several = several | {"PROVIDERS": f"{several['PROVIDERS']}, {more}"}
    return server_with(**several, DEFAULT_MODEL=None)


def at_the_same_time(count, ids):
    """Answers that list these models, once so many lists are asked for."""
    all_asked = threading.Barrier(count)

    def answer(request):
        all_asked.wait(10)
        yield from models(ids)(request)

    return answer


@on_one_engine
def test_lists_the_models_of_all_providers_which_are_asked_at_the_same_time(
    start, several, provider, near, far
):
    """Of those of OpenAI's protocol that are not further ones, no id may begin with the name of one."""
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
    """A session goes from one to the other; each is asked for the id that it knows itself, and is sent its own key only."""
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


@on_one_engine
def test_a_new_session_a_retry_and_a_title_are_the_named_providers_affair(
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


def test_an_id_is_split_only_behind_the_name_of_a_further_provider(shared, provider, near):
    alice = shared.client()
    assert [alice.create(model=model)["model"]["id"] for model in WHOLE] == WHOLE
    assert [post.body["model"] for post in provider.posts] == WHOLE
    assert near.requests == []


@on_one_engine
def test_a_model_of_nobody_is_refused_with_the_names_that_there_are(start, near):
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
    """In the answer, and in the log with its own words; another provider goes on."""
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


@on_one_engine
def test_the_default_is_the_first_model_of_the_first_provider_that_lists_one(start, near, far):
    """Of OpenAI's own, and then of the further ones in their order. One that is dead holds up nobody for long."""
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


@on_one_engine
def test_no_default_is_told_by_the_first_provider_that_failed(start, near):
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


@on_one_engine
def test_a_provider_that_says_nothing_does_not_keep_the_others_from_answering(
    start, several, provider, near, far
):
    """Its list is waited for by whoever wants the lists, and by nobody else."""
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


@on_one_engine
def test_five_thousand_models_of_one_provider_are_listed_and_can_be_asked(start, several, near):
    near.models = [f"org-{number % 70}/model-{number}" for number in range(5000)]
    alice = start(**several, WEB_CONCURRENCY=1).client()
    listed = [model for model, name, _ in models_of(alice) if name == "near"]
    assert listed == [f"near/{model}" for model in near.models]
    assert alice.create(model=listed[-1])["model"] == {"id": "near/org-29/model-4999"}
    assert near.posts[-1].body["model"] == "org-29/model-4999"


@on_one_engine
def test_ids_that_no_session_could_name_hide_no_others(start, several, near):
    near.models = ["", " ", "m" * 195, "m" * 196, "a\0b", "\ud800", 7, None, ["m"], "m-9"]
    alice = start(**several, WEB_CONCURRENCY=1).client()
    assert [model for model, name, _ in models_of(alice) if name == "near"] == [
        f"near/{'m' * 195}",
        "near/m-9",
    ]


# Where a name means another provider by now


def renamed(settings):
    """The settings of a server on which `near` is `other`, so that an id of it would be one of OpenAI's provider."""
    return settings | {"PROVIDERS": settings["PROVIDERS"].replace("near=", "other=")}


@on_one_engine
def test_what_was_told_to_a_provider_is_not_sent_to_another(
    start, several, provider, near, new_database
):
    """Until a user says so, by giving the session a model, be it of the same id."""
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


@on_one_engine
def test_a_reply_that_is_taken_over_is_not_written_on_by_another_provider(
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
    with tables_of(
        settings["DATABASE_URL"]
    ) as tables:  # its lease would lapse by itself, but later
        tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
    server = start(**renamed(settings))
    assert wait_for_status(server.client(), session, "interrupted", 30)["content"] == "One "
    told = "near/m-1 was a model of the provider near, which is not set up any more."
    assert f'why="{told}"' in server.wait_for_output("outcome=interrupted")
    assert provider.requests == []


@pytest.mark.parametrize("setting", ["MODELS", "DEFAULT_MODEL", "TITLE_MODEL"])
def test_a_start_stops_at_a_model_of_no_provider(setting):
    given = {"PROVIDERS": "near=http://127.0.0.1:9/v1", setting: "nearer/m"}
    with pytest.raises(SettingError, match=rf"{setting}: nearer/m is not served\. .+near/"):
        open_catalog(read_settings(given))


# What is said of them


@on_one_engine
def test_the_start_and_the_check_name_each_provider(start, near, far, tmp_path):
    """By its name, its address and its variables, and by no password and no key."""
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


# What is particular to some


OPENAI = {
    "it": ("http://api.openai.com/v1", "max_completion_tokens"),
    "another": ("http://api.openai.com.example/v1", "max_tokens"),
    "a_path": ("http://example/api.openai.com", "max_tokens"),
}


@on_one_engine
def test_openai_is_not_sent_what_it_refuses(start, near):
    """A proxy, which answers in its place, sees what it would get."""
    providers = ",".join(f"{name}={url}" for name, (url, _) in OPENAI.items())
    settings = {"PROVIDERS": providers, "HTTP_PROXY": near.url, "NO_PROXY": ""}
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    for name, (_, limit) in OPENAI.items():
        answered(alice, f"{name}/m-2")
        sent = near.posts[-1].body.keys() - {"model", "stream", "messages"}
        assert sent == {limit, "stream_options"}


def test_goes_on_without_the_cache_where_a_server_of_anthropics_protocol_does_not_know_it(
    shared, far
):
    """The refusal is learned, by its whole text: a message that quotes it changes nothing."""
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


def test_gemini_wraps_its_errors_in_a_list(shared, near):
    alice = shared.client()
    near.default = status(404, [{"error": {"code": 404, "message": GEMINI, "status": "NOT_FOUND"}}])
    response, *_ = failed(alice, "gemini/m-1")
    assert response.status_code == 400 and "The provider gemini has no such model" in response.text


def test_a_reply_goes_on_behind_a_break_with_its_own_provider(shared, near, far):
    near.script = [cut("One two "), reply("three.")]
    alice = shared.client()
    turn = wait_for_status(alice, alice.create(model="near/m-1"), "complete")
    assert (turn["content"], turn["continued"]) == ("One two three.", 1)
    assert (len(near.posts), far.posts) == (2, [])
