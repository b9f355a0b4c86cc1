"""Errors of providers, and what the client gets for them.

Modules: `providers/error_bodies.py`, `providers/mask.py`.
"""

import uuid

import pytest

from protocols import CLAUDE, GPT, PAGE, both, failed
from provider import status
from servers import free_port, running

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


# These errors count our own limit as well, so the server is asked again with a lower one: if the window is named, what fits
# next to the prompt; then the least. A quarter of 200,000 is more than the limit.
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


STATUSES = [  # the provider's answer; our status, and words of its detail; how often the provider is asked
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
def test_an_error_says_what_the_providers_status_means(
    alice, server, provider, model, code, body, ours, words, times
):
    provider.default = status(code, body, retry_after_ms="1")
    response, error, turn = failed(
        alice, f"{model}-{uuid.uuid4().hex}"
    )  # refusals are remembered for each model
    assert (response.status_code, error["status"]) == (ours, str(ours))
    assert words in error["detail"]
    assert turn["content"] == ""
    assert len(provider.posts) == times
    assert response.headers.get("Connection") == ("close" if ours == 413 else "keep-alive")
    assert response.headers.get("Retry-After") == ("1" if ours == 503 else None)
    assert "html" not in response.text
    assert "key-of" not in response.text + server.output()


@both
def test_no_redirect_is_followed(alice, provider, model):
    for code in (301, 302, 303, 307, 308):
        provider.reset()
        provider.script = [status(code, {}, Location=provider.url + "/elsewhere")]
        response, error, _ = failed(alice, model)
        assert response.status_code == 502
        assert "redirects" in error["detail"]
        assert len(provider.requests) == 1


@both
def test_a_key_that_a_provider_repeats_is_not_shown(alice, server, provider, model):
    key = {CLAUDE: "key-of-anthropic", GPT: "key-of-openai"}[model]
    provider.script = [
        status(400, {"error": {"message": f"It does not like {key}. {'x' * 455} {key}"}})
    ]
    response, error, _ = failed(alice, model)
    assert "It does not like …." in error["detail"]
    assert "key-of" not in response.text + server.output()


@both
def test_odd_characters_in_an_error_become_replacement_characters(alice, provider, model):
    provider.script = [status(400, {"error": {"message": "a\0b\ud800c\nd"}})]
    assert "a\ufffdb\ufffdc d" in failed(alice, model)[1]["detail"]


def test_a_stream_ends_with_the_error(alice, provider):
    provider.default = status(429, {}, retry_after_ms="1")
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as events:
        session, error = events
    assert (session.name, error.name) == ("session", "error")
    assert error.data == alice.turns(session.data)[-1]["error"]
    assert error.data["status"] == 503 and "limits" in error.data["message"]


def test_an_error_says_that_nothing_listens_there(tmp_path):
    with running(
        tmp_path, OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}/v1", DEFAULT_MODEL=GPT
    ) as server:
        response, error, _ = failed(server.client(), GPT)
    assert response.status_code == 502
    assert "could not be reached" in error["detail"]
