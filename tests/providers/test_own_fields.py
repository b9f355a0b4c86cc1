"""Fields of an operator's own in each request to a provider (`OPENAI_BODY`, `NAME_BODY`), and
answers that ask to run a tool."""

import json

import pytest

from client import wait_until
from llm import open_catalog
from provider import stream
from providers.options import OPTIONS
from providers.protocols import PROTOCOLS
from settings import SettingError, read_settings

NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
SEARCH = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}


@pytest.fixture
def extended(start, provider):
    """A server on which all requests to each of three providers have a field of their own."""
    return start(
        OPENAI_BASE_URL=provider.url + "/v1",
        OPENAI_BODY=json.dumps(NO_THINKING),
        ANTHROPIC_BASE_URL=provider.url,
        ANTHROPIC_BODY=json.dumps(SEARCH),
        PROVIDERS=f"near={provider.url}/v1,far={provider.url}/v1",
        NEAR_BODY='{"user": "Zoë"}',
        DEFAULT_MODEL="m-1",
        TITLE_MODEL="near/m-t",
    )


def test_each_providers_requests_have_its_fields_and_no_others(extended, provider):
    alice = extended.client()
    names = ("chat_template_kwargs", "tools", "user")
    expected = {
        "m-1": NO_THINKING,
        "claude-x": SEARCH,
        "near/m-1": {"user": "Zoë"},
        "far/m-1": {},
    }
    for count, (model, fields) in enumerate(expected.items(), 1):
        alice.create(model=model, options={"temperature": 1})
        wait_until(lambda n=2 * count: len(provider.posts) == n)
        posts = provider.posts[-2:]
        [body] = [post.body for post in posts if post.body["model"] != "m-t"]
        assert body["temperature"] == 1
        assert {name: body[name] for name in names if name in body} == fields
        [title] = [post.body for post in posts if post.body["model"] == "m-t"]
        assert title["user"] == "Zoë" and "tools" not in title


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_field_that_parley_sets_prevents_the_start(protocol):
    """Whatever a request may have: all options, a system prompt, and what replaces a parameter."""
    spoken = PROTOCOLS[protocol](protocol, "http://127.0.0.1:9", None, 5)
    options = {name: option.example for name, option in OPTIONS.items()}
    body = spoken.body("m", "Be kind.", [], 5, options)
    substitutes = {name for pair in spoken.substitutes.items() for name in pair if name}
    near = "near=anthropic+http://h" if protocol == "anthropic" else "near=http://h"
    for name in {*body, *substitutes}:
        with pytest.raises(SettingError, match=f"^NEAR_BODY: leave out {name}, which"):
            open_catalog(read_settings({"PROVIDERS": near, "NEAR_BODY": json.dumps({name: None})}))


@pytest.mark.parametrize(
    "text", ["x", "[]", '"a"', "{", "{'a': 1}", '{"a": NaN}', '{"a": 1}}', '{"a":' + "[" * 100_000]
)
def test_what_is_no_json_object_prevents_the_start(text):
    for name in ("OPENAI_BODY", "ANTHROPIC_BODY", "NEAR_BODY"):
        with pytest.raises(SettingError, match=f"^{name}: give a JSON object on one line, such as"):
            read_settings({name: text, "PROVIDERS": "near=http://h"})


# Tools

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_an_answer_that_calls_a_tool_fails_and_says_so(alice, provider, reason):
    """Some servers give `stop` as the reason."""
    provider.default = stream(
        {"choices": [{"delta": {"content": "Let me see."}}]},
        {"choices": [{"delta": {"tool_calls": [CALL]}}]},
        {"choices": [{"delta": {}, "finish_reason": reason}]},
    )
    response = alice.post("/sessions", {"content": "Hello"})
    assert response.status_code == 502
    assert "asked to run a tool" in response.json()["errors"][0]["detail"]
    turn = alice.get(response.headers["Location"]).json()["turns"][-1]
    assert (turn["status"], turn["content"]) == ("failed", "Let me see.")
    assert len(provider.posts) == 1


RESULTS = [
    {"type": "web_search_result", "url": "https://example.com/", "title": "Example"},
]
FAILURE = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}


@pytest.mark.parametrize("found", [RESULTS, FAILURE], ids=["found", "failed"])
def test_a_tool_that_the_provider_runs_is_no_fault(alice, provider, found):
    """As in platform.claude.com/docs/en/agents-and-tools/tool-use/web-search-tool."""
    blocks = [
        {"type": "text", "text": "I look. "},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": found},
        {"type": "text", "text": "There it is."},
    ]
    started = [{"type": "content_block_start", "content_block": block} for block in blocks]
    provider.default = stream(
        *started,
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    session = alice.create(model="claude-x")
    assert alice.turns(session)[-1]["content"] == "I look. There it is."
