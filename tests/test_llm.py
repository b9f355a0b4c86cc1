"""Both protocols on the wire: what is asked, how an answer is read, what its failures become, and hanging up."""

import concurrent.futures
import email.utils
import itertools
import json
import socket
import threading
import time
import uuid

import pytest

import wire
from client import free_port, running, wait_until
from provider import (
    Provider,
    anthropic_events,
    asked,
    certificate,
    chunk,
    cut,
    fails,
    head,
    openai_events,
    raw,
    reply,
    silence,
    so_far,
    status,
    stream,
)
from providers.learned import Learned
from wire import SingleFlight

CLAUDE, GPT = "claude-x", "m-1"
both = pytest.mark.parametrize("model", [CLAUDE, GPT], ids=["anthropic", "openai"])


def failed(client, model, content="Hello"):
    """The response to a session whose reply fails, its only error, and the turn that is kept."""
    response = client.post("/sessions", {"content": content, "model": model})
    assert response.status_code >= 400, response.text
    [error] = response.json()["errors"]
    session_id = error["meta"]["session_id"]
    assert response.headers["Location"] == f"/sessions/{session_id}"
    user, turn = client.turns({"id": session_id})
    assert user["content"] == content
    assert turn["status"] == "failed"
    assert turn["error"] == {"status": response.status_code, "message": error["detail"]}
    return response, error, turn


def answered(client, model, content="Hello"):
    """The turn of a reply that is complete."""
    turn = client.turns(client.create(content, model=model))[-1]
    assert turn["status"] == "complete"
    return turn


# The request


def test_asks_anthropic_in_its_own_words(alice, provider):
    alice.create("Hello", model=CLAUDE, system="Be brief.")
    [request] = provider.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == "key-of-anthropic"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers
    assert request.body == {
        "model": CLAUDE,
        "max_tokens": 8192,
        "stream": True,
        "cache_control": {"type": "ephemeral"},
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_asks_openai_in_its_own_words(alice, provider):
    alice.create("Hello", model=GPT, system="Be brief.")
    [request] = provider.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer key-of-openai"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"x-api-key", "anthropic-version"} & set(request.headers)
    assert request.body == {
        "model": GPT,
        "max_tokens": 8192,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
        ],
    }


@both
def test_sends_no_system_prompt_where_there_is_none(alice, provider, model):
    alice.create("Hello", model=model)
    [request] = provider.requests
    assert "system" not in request.body
    assert request.body["messages"] == [{"role": "user", "content": "Hello"}]


@both
def test_sends_text_as_it_is(alice, provider, model):
    content = 'Grüße "世界" 👩‍👩‍👧 \\u0041 \u2028 \x7f <>&\r\n\tend'
    alice.create(content, model=model, system=content)
    assert provider.posts[0].body["messages"][-1]["content"] == content


@both
def test_leaves_out_empty_turns_and_joins_neighbours(alice, provider, model):
    provider.script = [status(400), fails("Half"), reply("Whole."), reply()]
    _, error, _ = failed(alice, model, "One")
    path = f"/sessions/{error['meta']['session_id']}/messages"
    assert alice.post(path, {"content": "Two"}).status_code == 502
    assert alice.post(path, {"content": "Three"}).status_code == 201
    assert (
        alice.post(path, {"content": "Four"}).status_code == 201
    )  # to which the model has nothing to say
    assert alice.post(path, {"content": "Five"}).status_code == 201
    assert provider.posts[-1].body["messages"] == [
        {"role": "user", "content": "One\n\nTwo"},
        {"role": "assistant", "content": "Half"},
        {"role": "user", "content": "Three"},
        {"role": "assistant", "content": "Whole."},
        {"role": "user", "content": "Four\n\nFive"},
    ]


@pytest.fixture(scope="module")
def lone(provider_of_all, tmp_path_factory):
    """One worker without a key for Anthropic, impatient, and with a ~/.netrc that has passwords for the provider."""
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login user password of-netrc\n")
    (home / ".netrc").chmod(0o600)
    settings = {
        "HOME": home,
        "ANTHROPIC_BASE_URL": provider_of_all.url + "/prefix/",
        "OPENAI_BASE_URL": provider_of_all.url + "/v1/",
        "OPENAI_API_KEY": "key-of-openai",
        "DEFAULT_MODEL": GPT,
        "MAX_TOKENS": 100,
        "MODEL_TIMEOUT": 0.5,
    }
    with running(home / "server", **settings) as server:
        yield server


def test_sends_no_key_where_it_has_none_and_none_of_netrc(lone, provider):
    lone.client().create("Hello", model=CLAUDE)
    [request] = provider.requests
    assert request.path == "/prefix/v1/messages"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert not {"x-api-key", "authorization"} & set(request.headers)
    assert request.body["max_tokens"] == 100


def test_sends_its_own_key_and_none_of_netrc(lone, provider):
    lone.client().create("Hello", model=GPT)
    [request] = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key-of-openai"


def test_sends_its_own_key_and_no_password_of_the_url(provider, tmp_path):
    url = provider.url.replace("//", "//user:password@") + "/v1"
    with running(
        tmp_path, OPENAI_BASE_URL=url, OPENAI_API_KEY="key-of-openai", DEFAULT_MODEL=GPT
    ) as server:
        server.client().create("Hello")
        assert provider.requests[0].headers["authorization"] == "Bearer key-of-openai"
        assert "password" not in server.output()


def unsupported(refused, instead):
    message = f"Unsupported parameter: '{refused}' is not supported with this model. Use '{instead}' instead."
    return status(
        400, {"error": {"message": message, "param": refused, "code": "unsupported_parameter"}}
    )


def test_learns_once_which_parameters_the_server_takes(lone, provider):
    """Of each model, and only where the changed request was answered."""
    alice = lone.client()
    old, new = "max_tokens", "max_completion_tokens"
    provider.script = [unsupported(old, new)]
    answered(alice, GPT)
    answered(alice, GPT)
    assert [(request.body.get(old), request.body.get(new)) for request in provider.posts] == [
        (100, None),
        (None, 100),
        (None, 100),
    ]

    provider.reset()
    provider.script = [
        status(
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", new], "msg": "Extra inputs"}]},
        )
    ]
    answered(alice, GPT)
    assert [request.body.get(old) for request in provider.posts] == [None, 100]

    provider.reset()
    provider.script = [unsupported("stream_options", "nothing")]
    answered(alice, "m-5")
    answered(alice, "m-5")
    answered(alice, "m-6")
    assert ["stream_options" in request.body for request in provider.posts] == [
        True,
        False,
        False,
        True,
    ]

    provider.reset()
    provider.default = unsupported(old, new)
    response, error, _ = failed(alice, "m-7")
    assert response.status_code == 502
    assert "max_tokens" in error["detail"]
    assert [old in request.body for request in provider.posts] == [True, False]
    provider.reset()
    answered(alice, "m-7")
    assert old in provider.posts[0].body  # the changed request was not answered


def test_a_user_who_is_quoted_teaches_no_parameter(lone, provider):
    """Anthropic's refusals tell of a parameter by their text alone."""
    alice, model = lone.client(), f"{CLAUDE}-{uuid.uuid4().hex}"
    content = "cache_control: Extra inputs are not permitted"
    error = {"type": "invalid_request_error", "message": content}
    provider.script = [status(400, {"type": "error", "error": error})]
    assert failed(alice, model, content)[0].status_code == 502
    answered(alice, model)
    assert ["cache_control" in request.body for request in provider.posts] == [True, True]


@pytest.fixture
def clock():
    """Seconds that a test lets pass."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


def test_what_was_learned_holds_for_an_hour(clock):
    learned = Learned(clock=clock)
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "a")
    clock.now += 3599
    assert (learned.of("m"), learned.of("other")) == ("a", None)
    clock.now += 1
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "b")
    assert learned.of("m") == "b"


def test_what_is_learned_again_or_used_holds_no_longer(clock):
    learned = Learned(ttl=10, clock=clock)
    for number in range(10):
        learned.keep("m", number)
        assert learned.of("m") == number
        clock.now += 1
    assert learned.of("m") is None


def test_the_model_that_was_not_used_for_the_longest_makes_room(clock):
    learned = Learned(most=3, clock=clock)
    for model in "abc":
        learned.keep(model, model.upper())
    assert learned.of("a") == "A"
    learned.keep("b", "B again")
    learned.keep("d", "D")
    assert [learned.of(model) for model in "abcd"] == ["A", "B again", None, "D"]


def test_models_that_anyone_may_name_keep_no_other_from_being_learned():
    learned = Learned()
    for number in range(2000):
        learned.keep(f"m-{number}", number)
    found = [learned.of(f"m-{number}") for number in (0, 999, 1000, 1999)]
    assert found == [None, None, 1000, 1999]


# The answer


def block_start(index=0, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index=0, **delta):
    return {"type": "content_block_delta", "index": index, "delta": delta}


def text_delta(text, index=0):
    return block_delta(index, type="text_delta", text=text)


def message_start(**usage):
    return {
        "type": "message_start",
        "message": {"role": "assistant", "content": [], "stop_reason": None, "usage": usage},
    }


def message_delta(stop="end_turn", **usage):
    return {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
        "usage": usage,
    }


MESSAGE_STOP = {"type": "message_stop"}


def choice(finish_reason=None, usage=None, **delta):
    extra = {"usage": usage} if usage else {}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    } | extra


def usage_chunk(**usage):
    return {"object": "chat.completion.chunk", "choices": [], "usage": usage}


def counts(input_tokens=None, output_tokens=None, cached_tokens=None):
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": cached_tokens,
    }


STREAMS = {
    "aimock, anthropic: words cut anywhere, no ping, zeros": (
        CLAUDE,
        [
            message_start(input_tokens=0, output_tokens=0),
            block_start(type="text", text=""),
            *map(text_delta, ["héll", "o 世界", " 🎉 "]),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=0),
            MESSAGE_STOP,
        ],
        "héllo 世界 🎉 ",
        counts(0, 0),
    ),
    "aimock, openai: an empty first delta, reasoning before the role": (
        GPT,
        [
            choice(reasoning_content="Hm."),
            choice(role="assistant", content=""),
            *(choice(content=text) for text in ["héll", "o 世界", " 🎉 "]),
            choice("stop"),
            usage_chunk(prompt_tokens=14, completion_tokens=7, total_tokens=21),
            "[DONE]",
        ],
        "héllo 世界 🎉 ",
        counts(14, 7),
    ),
    "llmock, anthropic: everything escaped": (
        CLAUDE,
        [
            message_start(input_tokens=12, output_tokens=1),
            block_start(type="text", text=""),
            {"type": "ping"},
            *(
                json.dumps(text_delta(text))
                for text in ["h\u00e9llo ", "\u4e16\u754c ", "\U0001f389 "]
            ),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=15),
            MESSAGE_STOP,
        ],
        "héllo 世界 🎉 ",
        counts(12, 15),
    ),
    "llama.cpp, anthropic: a cache that was not hit": (
        CLAUDE,
        [
            message_start(cache_read_input_tokens=0, input_tokens=56, output_tokens=0),
            block_start(type="text", text=""),
            *map(text_delta, [" h", "é", "lo2", " ", "🎉"]),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=31),
            MESSAGE_STOP,
        ],
        " hélo2 🎉",
        counts(56, 31, 0),
    ),
    "llama.cpp, openai: a first delta of null, timings": (
        GPT,
        [
            choice(role="assistant", content=None),
            *(choice(content=text) for text in [" h", "é", "lo2", " ", "🎉"]),
            choice("stop"),
            usage_chunk(
                completion_tokens=31, prompt_tokens=56, prompt_tokens_details={"cached_tokens": 55}
            )
            | {"timings": {"cache_n": 55, "prompt_ms": 0.369}},
            "[DONE]",
        ],
        " hélo2 🎉",
        counts(56, 31, 55),
    ),
    "llm-katan: the usage on the last choice": (
        GPT,
        [
            choice(role="assistant"),
            *(
                json.dumps(choice(content=text))
                for text in ["[ech", "o]\nU", " h\u00e9l", "\u754c \U0001f389 "]
            ),
            choice("stop", usage={"prompt_tokens": 13, "completion_tokens": 16}),
            "[DONE]",
        ],
        "[echo]\nU hél界 🎉 ",
        counts(13, 16),
    ),
    "litellm, openai: text in the first delta, the reason alone in the last, no usage": (
        GPT,
        [
            choice(role="assistant", content="Hello! "),
            choice(content="You "),
            choice("stop"),
            "[DONE]",
        ],
        "Hello! You ",
        counts(),
    ),
    "litellm, anthropic: the input counted at the end": (
        CLAUDE,
        [
            message_start(
                input_tokens=0,
                output_tokens=0,
                cache_creation_input_tokens=0,
                cache_read_input_tokens=0,
            ),
            block_start(type="text", text=""),
            text_delta("Hello! "),
            message_delta(input_tokens=6, output_tokens=11),
            MESSAGE_STOP,
        ],
        "Hello! ",
        counts(6, 11, 0),
    ),
    "mock-llm: the reason on a delta with text": (
        GPT,
        [choice(content="Hel"), choice("stop", content="lo"), "[DONE]"],
        "Hello",
        counts(),
    ),
    "ollama: no [DONE], thinking under another name, usage of null": (
        GPT,
        [choice(reasoning="Hm."), choice(content="Hello") | {"usage": None}, choice("stop")],
        "Hello",
        counts(),
    ),
    "anthropic: thinking, several blocks, text at the start of one, unknown events": (
        CLAUDE,
        [
            {"type": "ping"},
            message_start(
                input_tokens=10,
                cache_read_input_tokens=20,
                cache_creation_input_tokens=5,
                output_tokens=1,
            ),
            block_start(type="thinking", thinking="Hm"),
            block_delta(type="thinking_delta", thinking="Let me see."),
            block_delta(type="signature_delta", signature="c2ln"),
            block_start(1, type="redacted_thinking", data="c2VjcmV0"),
            block_start(2, type="text", text="Hel"),
            text_delta("lo.", 2),
            block_delta(2, type="citations_delta", citation={"cited_text": "No."}),
            {
                "type": "of_the_future",
                "index": 3,
                "message": "No.",
                "delta": "No.",
                "usage": 5,
                "error": None,
            },
            block_start(3, type="text", text=""),
            text_delta(" Bye.", 3),
            message_delta(output_tokens=3),
            message_delta("a_reason_of_the_future", output_tokens=9),
            MESSAGE_STOP,
        ],
        "Hello. Bye.",
        counts(35, 9, 20),
    ),
    "mistral: blocks, of which some are thoughts": (
        GPT,
        [
            choice(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]),
            choice(content=[{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]),
            choice("stop", content="."),
            "[DONE]",
        ],
        "Hello.",
        counts(),
    ),
    "openai: a refusal in words, filter results, padding": (
        GPT,
        [
            {"object": "", "choices": [], "prompt_filter_results": []},
            choice(role="assistant", content=None, refusal=None),
            choice(refusal="I would rather ") | {"obfuscation": "x"},
            choice(refusal="not."),
            choice("stop"),
            "[DONE]",
        ],
        "I would rather not.",
        counts(),
    ),
    "anthropic: nothing to say": (
        CLAUDE,
        [message_start(), message_delta(), MESSAGE_STOP],
        "",
        counts(),
    ),
    "openai: nothing to say": (
        GPT,
        [choice(role="assistant", content=""), choice("stop"), "[DONE]"],
        "",
        counts(),
    ),
    "anthropic: as far as MAX_TOKENS": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("max_tokens"), MESSAGE_STOP],
        "So far",
        counts(),
    ),
    "openai: as far as MAX_TOKENS": (
        GPT,
        [choice(content="So far"), choice("length"), "[DONE]"],
        "So far",
        counts(),
    ),
    "anthropic: as far as the context window": (
        CLAUDE,
        [
            message_start(),
            text_delta("So far"),
            message_delta("model_context_window_exceeded"),
            MESSAGE_STOP,
        ],
        "So far",
        counts(),
    ),
    "an error that is none, and a word of the state": (
        GPT,
        [
            {"id": "1", "message": "queued"},
            choice(content="Hello") | {"error": False},
            choice("stop") | {"error": ""},
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage that is none": (
        GPT,
        [
            choice(content="Hello"),
            choice("stop", usage={"prompt_tokens": 1.5, "completion_tokens": -1}),
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage that no column holds": (
        GPT,
        [
            choice(content="Hello"),
            choice("stop", usage={"prompt_tokens": 2**40, "completion_tokens": "7"}),
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage in words": (
        CLAUDE,
        [
            message_start(input_tokens="12"),
            text_delta("Hello"),
            message_delta(output_tokens=True),
            MESSAGE_STOP,
        ],
        "Hello",
        counts(),
    ),
}


@pytest.mark.parametrize("model, events, text, usage", STREAMS.values(), ids=STREAMS)
def test_reads_the_streams_of_all_servers(alice, provider, model, events, text, usage):
    provider.script = [stream(*events)]
    turn = answered(alice, model)
    assert (turn["content"], turn["usage"]) == (text, usage)
    assert len(provider.posts) == 1


@both
def test_counts_cached_tokens_among_the_input(alice, provider, model):
    assert answered(alice, model)["usage"] == counts(15, 7, 3)


@pytest.fixture(scope="module")
def single(provider_of_all, tmp_path_factory):
    """One worker that does not have a reply go on: what one answer gives is the reply."""
    settings = {
        "ANTHROPIC_BASE_URL": provider_of_all.url,
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "CONTINUE_LIMIT": 0,
    }
    with running(tmp_path_factory.mktemp("single"), **settings) as server:
        yield server


MALFORMED = '{"type":"content_block_delta","index":0,"de'

FAULTY_STREAMS = {
    "litellm, openai: an error behind text": (
        GPT,
        [
            choice(content="So far"),
            {"error": {"message": "Connection error.", "type": None, "param": None, "code": "500"}},
        ],
        (502, "So far", "failed with status 500"),
    ),
    "litellm, anthropic: an error behind text": (
        CLAUDE,
        [
            text_delta("So far"),
            {"type": "error", "error": {"type": "api_error", "message": "The stream was closed."}},
        ],
        (502, "So far", "failed with status 500"),
    ),
    "litellm, anthropic: no end": (
        CLAUDE,
        [message_start(), text_delta("So far")],
        (502, "So far", "cut its answer short"),
    ),
    "litellm, anthropic: an event cut in the middle": (
        CLAUDE,
        [text_delta("So far"), MALFORMED, text_delta("No."), message_delta(), MESSAGE_STOP],
        (502, "So far", "not understood"),
    ),
    "litellm, openai: [DONE] without a reason": (
        GPT,
        [choice(content="So far"), "[DONE]"],
        (502, "So far", "cut its answer short"),
    ),
    "openai: no end": (GPT, [choice(content="So far")], (502, "So far", "cut its answer short")),
    "anthropic: overloaded behind text": (
        CLAUDE,
        [
            text_delta("So far"),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        (503, "So far", "overloaded"),
    ),
    "openai: limited behind text": (
        GPT,
        [
            choice(content="So far"),
            {"error": {"message": "Slow.", "type": "tokens", "code": "rate_limit_exceeded"}},
        ],
        (503, "So far", "limits this server"),
    ),
    "vllm: an error of its own shape": (
        GPT,
        [
            choice(content="So far"),
            {
                "object": "error",
                "message": "It is no number.",
                "type": "BadRequestError",
                "code": 400,
            },
        ],
        (502, "So far", "It is no number."),
    ),
    "openrouter: an error beside a choice": (
        GPT,
        [
            choice(content="So far"),
            choice("error", content="") | {"error": {"code": 502, "message": "Upstream."}},
        ],
        (502, "So far", "failed with status 502"),
    ),
    "mock-llm: an error first, which is no use to try again": (
        GPT,
        [
            {
                "error": {
                    "message": "It must not be 7.",
                    "type": "invalid_request_error",
                    "code": "unsupported_value",
                }
            }
        ],
        (502, "", "It must not be 7."),
    ),
    "anthropic: an unknown model first": (
        CLAUDE,
        [{"type": "error", "error": {"type": "not_found_error", "message": "model: claude-x"}}],
        (400, "", "no such model"),
    ),
    "openai: too long first": (
        GPT,
        [
            {
                "error": {
                    "message": "It is too long.",
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                }
            }
        ],
        (413, "", "context window"),
    ),
    "openai: out of credit first": (
        GPT,
        [
            {
                "error": {
                    "message": "Pay.",
                    "type": "insufficient_quota",
                    "code": "insufficient_quota",
                }
            }
        ],
        (502, "", "used up"),
    ),
    "openai: a bad key first": (
        GPT,
        [
            {
                "error": {
                    "message": "Wrong: key-of-ope***",
                    "type": "invalid_request_error",
                    "code": "invalid_api_key",
                }
            }
        ],
        (502, "", "refused this server's own key"),
    ),
    "anthropic: a refusal": (
        CLAUDE,
        [message_start(), message_delta("refusal"), MESSAGE_STOP],
        (502, "", "declined"),
    ),
    "anthropic: a refusal behind text": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("refusal"), MESSAGE_STOP],
        (502, "So far", "declined"),
    ),
    "aimock, anthropic: the other protocol's reason": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("content_filter"), MESSAGE_STOP],
        (502, "So far", "declined"),
    ),
    "openai: filtered": (
        GPT,
        [choice(content="So far"), choice("content_filter"), "[DONE]"],
        (502, "So far", "declined"),
    ),
    "openai: filtered at once": (GPT, [choice("content_filter"), "[DONE]"], (502, "", "declined")),
    "anthropic: nothing but thoughts": (
        CLAUDE,
        [
            message_start(),
            block_delta(type="thinking_delta", thinking="Hm"),
            message_delta("max_tokens"),
            MESSAGE_STOP,
        ],
        (502, "", "MAX_TOKENS"),
    ),
    "openai: nothing but thoughts": (
        GPT,
        [choice(reasoning_content="Hm"), choice("length"), "[DONE]"],
        (502, "", "MAX_TOKENS"),
    ),
    "anthropic: no room for an answer": (
        CLAUDE,
        [message_start(), message_delta("model_context_window_exceeded"), MESSAGE_STOP],
        (413, "", "context window"),
    ),
    "no object": (GPT, ["[1, 2]"], (502, "", "not understood")),
    "no list": (GPT, [choice(content="So far"), {"choices": 5}], (502, "So far", "not understood")),
    "nested deeply": (
        CLAUDE,
        [text_delta("So far"), "[" * 100_000],
        (502, "So far", "not understood"),
    ),
}


@pytest.mark.parametrize("model, events, outcome", FAULTY_STREAMS.values(), ids=FAULTY_STREAMS)
def test_keeps_what_came_of_a_stream_that_fails(single, provider, model, events, outcome):
    provider.script = [stream(*events)]
    response, error, turn = failed(single.client(), model)
    code, text, words = outcome
    assert (response.status_code, turn["content"]) == (code, text)
    assert words in error["detail"]
    assert "key-of" not in response.text + single.output()
    assert len(provider.posts) == 1


BREAKS = {  # those behind which the same model may have more to say
    "litellm, openai: an error behind text",
    "litellm, anthropic: an error behind text",
    "litellm, anthropic: no end",
    "openai: no end",
    "litellm, openai: [DONE] without a reason",
    "anthropic: overloaded behind text",
    "openai: limited behind text",
    "openrouter: an error beside a choice",
}


def test_goes_on_behind_a_break_and_behind_no_other_fault(server, provider):
    streams = {name: row for name, row in FAULTY_STREAMS.items() if row[2][1]}
    provider.default = lambda request: (
        reply(".") if so_far(request) else stream(*streams[asked(request)][1])
    )(request)

    def ask(name):
        response = server.client().post("/sessions", {"content": name, "model": streams[name][0]})
        session = {"id": response.headers["Location"].rpartition("/")[2]}
        turn = server.client().turns(session)[-1]
        return name, (response.status_code, turn["content"], turn["status"], turn["continued"])

    with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
        found = dict(pool.map(ask, streams))
    assert found == {
        name: (201, text + ".", "complete", 1) if name in BREAKS else (code, text, "failed", 0)
        for name, (_, _, (code, text, _)) in streams.items()
    }
    assert len(provider.posts) == len(streams) + len(BREAKS)


@both
def test_keeps_what_came_before_the_connection_broke(single, provider, model):
    provider.script = [cut("So ", "far")]
    response, error, turn = failed(single.client(), model)
    assert (response.status_code, turn["content"]) == (502, "So far")
    assert "broke the connection" in error["detail"]


def test_keeps_the_usage_of_a_reply_that_failed(single, provider):
    provider.script = [stream(message_start(input_tokens=5, output_tokens=1), text_delta("So far"))]
    assert failed(single.client(), CLAUDE)[2]["usage"] == counts(
        5, None
    )  # the output's is a place-holder


WHOLE_ANSWERS = {
    CLAUDE: {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "Hm"},
            {"type": "text", "text": "All "},
            {"type": "text", "text": "of it."},
        ],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 11,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 1,
            "output_tokens": 7,
        },
    },
    GPT: {
        "object": "chat.completion",
        "choices": [
            {
                "message": {
                    "role": "assistant",
                    "content": "All of it.",
                    "reasoning_content": "Hm",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 15,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    },
}


@both
def test_takes_a_whole_answer_from_a_server_that_does_not_stream(alice, provider, model):
    provider.script = [status(200, WHOLE_ANSWERS[model])]
    turn = answered(alice, model)
    assert (turn["content"], turn["usage"]) == ("All of it.", counts(15, 7, 3))


@both
def test_takes_an_error_from_a_server_that_does_not_stream(alice, provider, model):
    provider.script = [
        status(200, {"type": "error", "error": {"type": "invalid_request_error", "message": "No."}})
    ]
    response, error, _ = failed(alice, model)
    assert response.status_code == 502
    assert "No." in error["detail"]


def test_takes_no_page_for_an_answer(alice, provider):
    provider.default = status(200, "<html><p>data: hello</p></html>")
    response, error, turn = failed(alice, GPT)
    assert (response.status_code, turn["content"]) == (502, "")
    assert "html" not in error["detail"]


# The stream on the wire

EVENT_STREAMS = {
    "line feeds": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "mixed": (b"data: a\r\n\rdata: b\n\r\ndata: c\r\n\n", ["a", "b", "c"]),
    "several lines": (b"data: a\r\ndata: b\r\ndata\r\ndata: c\r\n\r\n", ["a\nb\n\nc"]),
    "comments": (b": ping\n\n:\n\ndata: a\n: ping\n\n: ping\n\n", ["a"]),
    "other fields": (
        b"event: x\nid: 1\nretry: 5\ndatax: no\n data: no\nData: no\ndata: a\n\n",
        ["a"],
    ),
    "spaces and colons": (b"data:a\n\ndata:  a: b \n\n", ["a", " a: b "]),
    "a mark at the start": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["a", "b"]),
    "a mark before later lines": (b"data: a\n\xef\xbb\xbf\n\xef\xbb\xbfdata: b\n\n", ["a", "b"]),
    "a mark elsewhere": ("data: \ufeffa\n\n".encode(), ["\ufeffa"]),
    "characters of several bytes": ("data: é 世界 👩‍👩‍👧\r\n\r\n".encode(), ["é 世界 👩‍👩‍👧"]),
    "what looks like a line's end": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"],
    ),
    "no UTF-8": (b"data: a\xffb\n\n", ["a\ufffdb"]),
    "no blank line at the end": (b'data: a\n\ndata: {"b": 1}\n', ["a", '{"b": 1}']),
    "no line feed at the end": (b"data: a\n\ndata: [DONE]", ["a", "[DONE]"]),
    "cut in the end": (b'data: a\n\ndata: {"b": ', ["a"]),
    "cut before a mark": (b"data: a\n\ndata: b\n\xef\xbb\xbf", ["a"]),
    "a line of JSON": (b'data: a\n\n{"error": 1}\n\n', ["a", {"error": 1}]),
    "lines of JSON": (b'{"a": 1}\n{"b": 2}\r\n', [{"a": 1}, {"b": 2}]),
    "nothing in it": (b"\n\n\ndata:\n\ndata: a\n\nevent: x\n\n", ["a"]),
}


def parse(*chunks):
    return [
        event["json"] if "json" in event else event["data"]
        for batch in wire.parse_sse(chunks)
        for event in batch
    ]


@pytest.mark.parametrize("data, expected", EVENT_STREAMS.values(), ids=EVENT_STREAMS)
def test_parses_events_wherever_they_are_cut(data, expected):
    assert parse(data) == expected
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == expected
    for i in range(len(data)):
        for j in range(i, len(data)):
            assert parse(data[:i], data[i:j], data[j:]) == expected, (data[:i], data[i:j], data[j:])


PIECES = ["é", "世界 ", "👩‍👩‍👧", "\u2028\x85", "\r\n ", "."]


def whole_stream(model, pieces=PIECES):
    return b"".join((anthropic_events if model == CLAUDE else openai_events)(pieces))


@both
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_takes_streams_byte_by_byte(alice, provider, model, end):
    data = b"\xef\xbb\xbf: hello\n\n" + whole_stream(model) + b": bye\n\n"
    data = data.replace(b"\n", end)
    provider.script = [
        raw(
            head(Transfer_Encoding="chunked"),
            *(chunk(data[i : i + 1]) for i in range(len(data))),
            chunk(b""),
        )
    ]
    assert answered(alice, model)["content"] == "".join(PIECES)


def close_delimited(*parts):
    return raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *parts)


@both
def test_hands_on_at_once_what_comes_without_a_length(alice, provider, model):
    """The provider waits for the client to have its first words."""
    gate = threading.Event()
    parts = list(
        (anthropic_events if model == CLAUDE else openai_events)(["Hello", gate, " again."])
    )
    provider.script = [close_delimited(*parts)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = iter(events)
        assert next(events).name == "session"
        assert next(events).data == {"delta": "Hello"}
        gate.set()
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]


@both
def test_sees_the_cut_in_a_stream_without_a_length(single, provider, model):
    data = whole_stream(model, ["So far", "."])
    provider.script = [close_delimited(data[: data.index(b"}\n\n", data.index(b"So far")) + 20])]
    response, error, turn = failed(single.client(), model)
    assert (response.status_code, turn["content"]) == (502, "So far")
    assert "cut its answer short" in error["detail"]


@both
def test_takes_a_long_answer_whole(alice, provider, model):
    words = ["word " * 100_000, *(f"{number} " for number in range(2000))]
    provider.script = [close_delimited(whole_stream(model, words))]
    assert answered(alice, model)["content"] == "".join(words)


@both
def test_stores_what_no_database_holds_as_replacement_characters(alice, provider, model):
    make = text_delta if model == CLAUDE else lambda text: choice(content=text)
    ends = [message_delta(), MESSAGE_STOP] if model == CLAUDE else [choice("stop"), "[DONE]"]
    pieces = ["a\ud83c", "\udf89b", "\udf89", "c\0d", "\ud800e", "f\ud83c"]
    provider.script = [stream(*(json.dumps(make(piece)) for piece in pieces), *ends)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = list(events)
    text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
    assert text == events[-2].data["content"] == "a🎉b\ufffdc\ufffdd\ufffdef\ufffd"
    assert alice.turns(events[0].data)[-1]["content"] == text


# Failures

PAGE = "<html><h1>Bad things</h1></html>"
OVERFLOWS = [
    {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 213462 tokens > 200000 maximum",
        },
    },
    {
        "error": {
            "message": "Too many.",
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
        }
    },
    {
        "error": {
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000."
        }
    },
    {"error": {"message": "Your input exceeds the context window of this model."}},
    {
        "error": {
            "code": 400,
            "type": "exceed_context_size_error",
            "message": "request (404 tokens) exceeds it",
            "n_ctx": 256,
        }
    },
    {"error": "The number of tokens is greater than the context length."},
]
# Those that count our own limit in, and how often such a server is asked: the limit is lowered, first to what fits beside the
# prompt where a window is named, then to the least; a quarter of 200,000 is more than the limit.
COUNTED = [
    (
        {
            "error": {
                "message": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"
            }
        },
        1,
    ),
    ({"error": {"message": "Please reduce the length of the messages or completion."}}, 2),
    (
        {
            "message": "'max_tokens' is too large: 8192. This model's maximum context length is 4096 tokens",
            "object": "error",
        },
        3,
    ),
]
UNKNOWN_MODELS = [
    (
        404,
        {
            "error": {
                "message": "The model `my-credential-model` does not exist.",
                "code": "model_not_found",
            }
        },
    ),
    (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-0"}}),
    (
        404,
        {
            "error": {
                "message": "The model `m-0` does not exist or you cannot use it.",
                "code": "model_not_found",
            }
        },
    ),
    (
        404,
        {
            "error": {
                "message": 'model "m-0" not found, try pulling it first',
                "type": "not_found_error",
            }
        },
    ),
    (
        404,
        {
            "object": "error",
            "message": "The model `m-0` does not exist.",
            "type": "NotFoundError",
            "code": 404,
        },
    ),
    (
        400,
        {
            "error": {
                "message": "Invalid model name passed in model=m-0",
                "type": None,
                "code": "400",
            }
        },
    ),
    (400, {"error": {"message": "m-0 is not a valid model ID", "code": 400}}),
    (422, {"detail": "Unknown model m-0"}),
]
STATUSES = [  # a provider's answer; the status of ours, and words of its detail; how often it is asked
    *((400, body, 413, "Shorten this message", 1) for body in OVERFLOWS),
    *((400, body, 413, "Shorten this message", times) for body, times in COUNTED),
    (
        413,
        {"type": "error", "error": {"type": "request_too_large", "message": "Too many bytes"}},
        413,
        "context window",
        1,
    ),
    (413, PAGE, 413, "context window", 1),
    (
        500,
        {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}},
        413,
        "context window",
        1,
    ),
    *((code, body, 400, "GET /models", 1) for code, body in UNKNOWN_MODELS),
    (
        400,
        {"error": {"message": "temperature: Extra inputs are not permitted"}},
        502,
        "temperature: Extra inputs",
        1,
    ),
    (
        400,
        {"detail": [{"loc": ["body"], "msg": "odd"}]},
        502,
        '[{"loc": ["body"], "msg": "odd"}]',
        1,
    ),
    (400, PAGE, 502, "status 400", 1),
    (400, ["odd"], 502, "refused", 1),
    (400, "[" * 60_000, 502, "status 400", 1),
    (400, {"error": {"message": ["odd"], "type": 5, "code": {}}}, 502, '["odd"]', 1),
    (
        401,
        {
            "error": {
                "message": "Incorrect API key provided: key-of-*****",
                "code": "invalid_api_key",
            }
        },
        502,
        "own key",
        1,
    ),
    (
        403,
        {"type": "error", "error": {"type": "permission_error", "message": "No: key-of-*****"}},
        502,
        "own key",
        1,
    ),
    (402, {"error": {"message": "Out of credit", "code": 402}}, 502, "used up", 1),
    (404, {"detail": "Not Found"}, 502, "Not Found", 1),
    (422, {"detail": "It is odd."}, 502, "It is odd.", 1),
    (418, "", 502, "status 418", 1),
    (204, "", 502, "status 204", 1),
    (408, {}, 502, "status 408", 3),
    (409, {}, 502, "status 409", 3),
    (
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}},
        503,
        "limits",
        3,
    ),
    (
        429,
        {"error": {"message": "Pay", "type": "insufficient_quota", "code": "insufficient_quota"}},
        502,
        "used up",
        1,
    ),
    (429, {"error": {"message": "Pay", "code": "credit_balance_exhausted"}}, 502, "used up", 1),
    (
        500,
        {"type": "error", "error": {"type": "api_error", "message": "Internal"}},
        502,
        "status 500",
        3,
    ),
    (500, PAGE, 502, "status 500", 3),
    (502, PAGE, 502, "status 502", 3),
    (
        503,
        {"error": {"message": "Overloaded", "code": "server_is_overloaded"}},
        503,
        "overloaded",
        3,
    ),
    (504, PAGE, 502, "status 504", 3),
    (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        503,
        "overloaded",
        3,
    ),
]


@both
@pytest.mark.parametrize("code, body, ours, words, times", STATUSES)
def test_says_what_the_status_of_a_provider_means(
    alice, server, provider, model, code, body, ours, words, times
):
    provider.default = status(code, body, retry_after_ms="1")
    response, error, turn = failed(
        alice, f"{model}-{uuid.uuid4().hex}"
    )  # what a refusal tells is remembered for its model
    assert (response.status_code, error["status"]) == (ours, str(ours))
    assert words in error["detail"]
    assert turn["content"] == ""
    assert len(provider.posts) == times
    assert response.headers.get("Connection") == ("close" if ours == 413 else "keep-alive")
    assert response.headers.get("Retry-After") == ("1" if ours == 503 else None)
    assert "html" not in response.text
    assert "key-of" not in response.text + server.output()


QUOTED_SIGNS = {  # what a user may say: as it is quoted, it is about neither a model nor a key
    "model": "The model of the car was not found. No such model_not_found.",
    "key": "My api key is invalid, what now?",
}


@both
@pytest.mark.parametrize("content", QUOTED_SIGNS.values(), ids=QUOTED_SIGNS)
@pytest.mark.parametrize("in_stream", [False, True], ids=["refused", "in a stream"])
def test_a_quotation_is_about_no_model_and_no_key(alice, provider, model, content, in_stream):
    error = {"error": {"message": f"Not allowed: '{content}'", "code": 400}}
    provider.default = stream(error) if in_stream else status(400, error)
    response, error, _ = failed(alice, f"{model}-{uuid.uuid4().hex}", content)
    assert response.status_code == 502
    assert "refused the request: Not allowed" in error["detail"]
    assert len(provider.posts) == 1


@both
def test_follows_no_redirect(alice, provider, model):
    for code in (301, 302, 303, 307, 308):
        provider.reset()
        provider.script = [status(code, {}, Location=provider.url + "/elsewhere")]
        response, error, _ = failed(alice, model)
        assert response.status_code == 502
        assert "redirects" in error["detail"]
        assert len(provider.requests) == 1


@both
def test_shows_no_key_that_a_provider_repeats(alice, server, provider, model):
    key = {CLAUDE: "key-of-anthropic", GPT: "key-of-openai"}[model]
    provider.script = [
        status(400, {"error": {"message": f"It does not like {key}. {'x' * 455} {key}"}})
    ]
    response, error, _ = failed(alice, model)
    assert "It does not like …." in error["detail"]
    assert "key-of" not in response.text + server.output()


@both
def test_stores_odd_characters_of_an_error_as_replacement_characters(alice, provider, model):
    provider.script = [status(400, {"error": {"message": "a\0b\ud800c\nd"}})]
    assert "a\ufffdb\ufffdc d" in failed(alice, model)[1]["detail"]


def test_tells_a_stream_of_the_failure(alice, provider):
    provider.default = status(429, {}, retry_after_ms="1")
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as events:
        session, error = events
    assert (session.name, error.name) == ("session", "error")
    assert error.data["status"] == 503


def test_says_that_nobody_listens(tmp_path):
    with running(
        tmp_path, OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}/v1", DEFAULT_MODEL=GPT
    ) as server:
        response, error, _ = failed(server.client(), GPT)
    assert response.status_code == 502
    assert "could not be reached" in error["detail"]


GARBAGE = {
    "nothing": [],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n"],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-"],
}


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=GARBAGE)
def test_asks_again_where_the_connection_breaks_first(alice, provider, parts):
    provider.script = [raw(*parts)]
    assert answered(alice, GPT)["content"] == "The answer."
    assert len(provider.posts) == 2


@both
def test_gives_up_a_provider_that_is_silent(lone, provider, model):
    provider.script = [silence(30)]
    response, error, turn = failed(lone.client(), model)
    assert (response.status_code, turn["content"]) == (504, "")
    assert "nothing of an answer in time" in error["detail"]
    assert len(provider.posts) == 1
    assert provider.posts[0].hung_up.wait(1)


@both
def test_gives_up_a_provider_that_falls_silent(lone, provider, model):
    provider.script = [reply("So far", 30, ", no further")]
    response, _, turn = failed(lone.client(), model)
    assert (response.status_code, turn["content"]) == (504, "So far")
    assert provider.posts[0].hung_up.wait(1)


THOUGHTS = {
    "many servers": {"reasoning_content": "Hm"},
    "OpenRouter": {"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
    "Mistral": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]},
}
ODD_THOUGHTS = [{"text": "Hm"}, True, ["Hm"], [{"text": 5}], 5]


@pytest.mark.parametrize("delta", THOUGHTS.values(), ids=THOUGHTS)
def test_takes_thoughts_for_a_sign_of_life_and_no_comments(lone, provider, delta):
    """Some seconds longer than its patience; the comments of a gateway go on for as long as it lives."""
    thought = chunk(f"data: {json.dumps(choice(**delta))}\n\n".encode())
    thoughts = [part for _ in range(8) for part in (thought, 0.1)]
    provider.script = [
        raw(
            head(Transfer_Encoding="chunked"),
            *thoughts,
            *map(chunk, openai_events(["The answer."])),
            chunk(b""),
        )
    ]
    assert answered(lone.client(), GPT)["content"] == "The answer."
    provider.script = [reply(*[b": ping\n\n", 0.1] * 30, "The answer.")]
    response, error, turn = failed(lone.client(), GPT)
    assert (response.status_code, turn["content"]) == (504, "")


@pytest.mark.parametrize("thoughts", ODD_THOUGHTS)
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "reasoning_details"])
def test_thoughts_of_a_shape_that_is_not_known_cost_no_reply(alice, provider, name, thoughts):
    provider.script = [
        reply(f"data: {json.dumps(choice(**{name: thoughts}))}\n\n".encode(), "The answer.")
    ]
    assert answered(alice, GPT)["content"] == "The answer."


# Retries

OWN_PAUSE = 0.375  # at least, before the second try


def pauses(provider):
    times = [request.at for request in provider.posts]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@both
def test_tries_three_times_at_most_with_growing_pauses(alice, provider, model):
    provider.default = status(500)
    failed(alice, model)
    first, second = pauses(provider)
    assert OWN_PAUSE <= first < 3
    assert 2 * OWN_PAUSE <= second < 3


def test_tries_again_until_there_is_text(alice, provider):
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    provider.script = [stream(message_start(), overloaded), cut(), reply("At last.")]
    assert answered(alice, CLAUDE)["content"] == "At last."
    assert len(provider.posts) == 3


HTTP_DATE = email.utils.formatdate


@pytest.mark.parametrize(
    "headers, shortest, longest",
    [
        ({"retry_after_ms": "700", "retry_after": "9"}, 0.7, 3),
        ({"retry_after_ms": "odd", "retry_after": "0.7"}, 0.7, 3),
        ({"retry_after": "1"}, 1, 3),
        ({"retry_after": lambda: HTTP_DATE(time.time() + 2, usegmt=True)}, 0.9, 4),
        ({"retry_after": lambda: HTTP_DATE(time.time() - 60, usegmt=True)}, 0, OWN_PAUSE),
        ({"retry_after": "-5"}, 0, OWN_PAUSE),
        ({"retry_after": "odd"}, OWN_PAUSE, 3),
        ({"retry_after": "inf"}, OWN_PAUSE, 3),
        ({"retry_after_ms": "nan", "retry_after": "nan"}, OWN_PAUSE, 3),
    ],
)
def test_waits_as_long_as_the_provider_wants(alice, provider, headers, shortest, longest):
    headers = {name: value() if callable(value) else value for name, value in headers.items()}
    provider.script = [status(529, {}, **headers)]
    answered(alice, CLAUDE)
    [pause] = pauses(provider)
    assert shortest <= pause < longest


@pytest.mark.parametrize(
    "value, told", [("21", 21), ("59.2", 60), ("99999999999", 86400), ("1e300", 86400)]
)
def test_tells_the_client_of_a_pause_that_is_too_long(alice, provider, value, told):
    provider.script = [status(429, {}, retry_after=value)]
    response, _, _ = failed(alice, CLAUDE)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == str(told)
    assert len(provider.posts) == 1


@pytest.mark.parametrize(
    "code, value, times", [(529, "false", 1), (400, "true", 2), (500, "maybe", 2)]
)
def test_heeds_x_should_retry(alice, provider, code, value, times):
    provider.script = [status(code, {}, x_should_retry=value, retry_after_ms="1")]
    alice.post("/sessions", {"content": "Hello", "model": CLAUDE})
    assert len(provider.posts) == times


# Hanging up


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server whose Anthropic speaks TLS, and whose OpenAI accepts a connection and says nothing."""
    folder = tmp_path_factory.mktemp("tls")
    path, context = certificate(folder)
    provider = Provider(context)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = {
            "REQUESTS_CA_BUNDLE": path,
            "ANTHROPIC_BASE_URL": provider.url,
            "OPENAI_BASE_URL": f"https://127.0.0.1:{mute.getsockname()[1]}/v1",
        }
        with running(folder, **settings) as server:
            yield server, provider, mute
    provider.close()


def stop(client, session, way):
    if way == "cancel":
        assert client.post(f"/sessions/{session['id']}/cancel").status_code == 200
    else:
        assert client.delete(f"/sessions/{session['id']}").status_code == 204


def check_that_it_hangs_up(alice, provider, model, begun, way):
    provider.script = [reply("So far", 30, ", no further") if begun else silence(30)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = iter(events)
        session = next(events).data
        asked = provider.wait_for_request()
        if begun:
            assert next(events).data == {"delta": "So far"}
        stop(alice, session, way)
        assert asked.hung_up.wait(1)
        if way == "cancel":
            turn, done = events
            assert turn.data["status"] == "interrupted"
            assert turn.data["content"] == ("So far" if begun else "")
        else:
            [error] = events
            assert error.data["status"] == 404
    assert len(provider.posts) == 1


by_any_way = pytest.mark.parametrize("way", ["cancel", "delete"])
at_any_time = pytest.mark.parametrize(
    "begun", [False, True], ids=["before the answer", "in the middle of it"]
)


@both
@at_any_time
@by_any_way
def test_hangs_up_within_a_second(alice, provider, model, begun, way):
    check_that_it_hangs_up(alice, provider, model, begun, way)


@at_any_time
@by_any_way
def test_hangs_up_within_a_second_over_tls(secure, begun, way):
    server, provider, _ = secure
    provider.reset()
    check_that_it_hangs_up(server.client(), provider, CLAUDE, begun, way)


@by_any_way
def test_hangs_up_on_a_provider_that_does_not_shake_hands(secure, way):
    server, _, mute = secure
    alice = server.client()
    session = alice.post(
        "/sessions", {"content": "Hello", "model": GPT}, Prefer="respond-async"
    ).json()
    mute.settimeout(5)
    connection, _ = mute.accept()
    with connection:
        connection.settimeout(5)
        assert connection.recv(65536)
        stop(alice, session, way)
        connection.settimeout(1)
        assert connection.recv(65536) == b""


@by_any_way
def test_asks_no_more_once_it_is_stopped(lone, provider, way):
    """The next reply comes from the same process, after the pause that the first one would have made."""
    alice = lone.client()
    provider.script = [status(529, {}, retry_after="0.4")]
    session = alice.post(
        "/sessions", {"content": "Hello", "model": CLAUDE}, Prefer="respond-async"
    ).json()
    provider.wait_for_request()
    stop(alice, session, way)
    provider.script = [reply(0.3, "After 0.3 ", 0.3, "and 0.6 seconds.")]
    assert answered(alice, GPT)["content"] == "After 0.3 and 0.6 seconds."
    assert len(provider.posts) == 2


# Which model


def models_of(client):
    response = client.get("/models")
    assert response.status_code == 200
    body = response.json()
    assert body["meta"] == {"has_more": False}
    return [tuple(model[name] for name in ("id", "provider", "default")) for model in body["data"]]


def test_lists_what_the_providers_list(provider, tmp_path):
    """Each lists all models; they are asked once, and Anthropic's own default holds."""
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
    """A session as soon as the provider is asked for its list again: a failure is remembered for as long as it took."""
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


def test_leaves_out_a_provider_that_does_not_answer(provider, tmp_path):
    settings = {
        "ANTHROPIC_BASE_URL": provider.url,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "MODEL_TIMEOUT": 1,
    }
    provider.models = ["claude-haiku"]
    with running(tmp_path, **settings) as server:
        assert models_of(server.client()) == [("claude-haiku", "anthropic", False)]


def test_takes_the_first_model_that_openai_lists(provider, tmp_path):
    """Without a default of its own, the server needs the list, and gets it as soon as there is one."""
    with running(
        tmp_path, OPENAI_BASE_URL=provider.url + "/v1", OPENAI_API_KEY="key-of-openai"
    ) as server:
        alice = server.client()
        for answer in LISTS_THAT_FAIL.values():
            provider.models = answer
            response = alice.post("/sessions", {"content": "Hello"})
            assert response.status_code in (502, 503, 504), response.text
            assert response.json()["errors"][0]["detail"].startswith("The provider openai ")
        provider.models = []
        empty = "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server."
        wait_until(lambda: empty in alice.post("/sessions", {"content": "Hello"}).text, 10)
        assert models_of(alice) == []
        provider.models = ["claude-x", "m-7", "m-8"]
        assert created_in_time(alice)["model"] == {"id": "m-7"}
        assert provider.posts[-1].body["model"] == "m-7"
        assert models_of(alice) == [("m-7", "openai", True), ("m-8", "openai", False)]
        assert alice.get("/sessions").json()["data"][1:] == []
        assert "key-of" not in server.output()


def test_serves_only_the_models_that_are_named(provider, tmp_path):
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


def test_echoes_word_by_word_where_there_is_no_provider(tmp_path):
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


def test_never_echoes_in_the_place_of_a_model(alice, provider):
    response = alice.post("/sessions", {"content": "Hello", "model": "echo"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/model"}
    assert provider.requests == []


def test_asks_a_provider_that_does_not_answer_for_its_models_once(start, provider):
    provider.models = status(500)
    alice = start(OPENAI_BASE_URL=provider.url + "/v1", WEB_CONCURRENCY="1").client()
    for _ in range(3):
        assert alice.get("/models").json()["data"] == []
    assert len(provider.requests) == 1
    provider.models = ["m-9"]  # a session that needs a default has it asked again
    assert created_in_time(alice)["model"] == {"id": "m-9"}
    assert [model["id"] for model in alice.get("/models").json()["data"]] == ["m-9"]
    assert [request.method for request in provider.requests] == ["GET", "GET", "POST"]


def test_a_list_that_failed_is_not_waited_for_again():
    """Whoever asks when it is too old has the next try beside."""
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
        time.sleep(0.02)  # the failure is too old
    gates[1].set()
