"""Both protocols on the wire: the requests."""

from protocols import CLAUDE, GPT, both, failed
from provider import fails, reply, status
from servers import running


def test_a_request_to_anthropic_follows_its_protocol(alice, provider):
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
        "max_tokens": 16384,
        "stream": True,
        "cache_control": {"type": "ephemeral"},
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_a_request_to_openai_follows_its_protocol(alice, provider):
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
        "max_tokens": 16384,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
        ],
    }


@both
def test_no_system_prompt_is_sent_if_there_is_none(alice, provider, model):
    alice.create("Hello", model=model)
    [request] = provider.requests
    assert "system" not in request.body
    assert request.body["messages"] == [{"role": "user", "content": "Hello"}]


@both
def test_text_is_sent_unchanged(alice, provider, model):
    content = 'Grüße "世界" 👩‍👩‍👧 \\u0041 \u2028 \x7f <>&\r\n\tend'
    alice.create(content, model=model, system=content)
    assert provider.posts[0].body["messages"][-1]["content"] == content


@both
def test_empty_turns_are_left_out_and_their_neighbours_joined(alice, provider, model):
    provider.script = [status(400), fails("Half"), reply("Whole."), reply()]
    _, error, _ = failed(alice, model, "One")
    path = f"/sessions/{error['meta']['session_id']}/messages"
    assert alice.post(path, {"content": "Two"}).status_code == 502
    assert alice.post(path, {"content": "Three"}).status_code == 201
    assert alice.post(path, {"content": "Four"}).status_code == 201  # the model's reply is empty
    assert alice.post(path, {"content": "Five"}).status_code == 201
    assert provider.posts[-1].body["messages"] == [
        {"role": "user", "content": "One\n\nTwo"},
        {"role": "assistant", "content": "Half"},
        {"role": "user", "content": "Three"},
        {"role": "assistant", "content": "Whole."},
        {"role": "user", "content": "Four\n\nFive"},
    ]


def test_without_a_key_none_is_sent_not_even_from_netrc(lone, provider):
    lone.client().create("Hello", model=CLAUDE)
    [request] = provider.requests
    assert request.path == "/prefix/v1/messages"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert not {"x-api-key", "authorization"} & set(request.headers)
    assert request.body["max_tokens"] == 100


def test_the_key_from_the_settings_is_sent_and_not_the_one_in_netrc(lone, provider):
    lone.client().create("Hello", model=GPT)
    [request] = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key-of-openai"


def test_the_key_from_the_settings_is_sent_and_not_the_urls_password(provider, tmp_path):
    url = provider.url.replace("//", "//user:password@") + "/v1"
    with running(
        tmp_path, OPENAI_BASE_URL=url, OPENAI_API_KEY="key-of-openai", DEFAULT_MODEL=GPT
    ) as server:
        server.client().create("Hello")
        assert provider.requests[0].headers["authorization"] == "Bearer key-of-openai"
        assert "password" not in server.output()
