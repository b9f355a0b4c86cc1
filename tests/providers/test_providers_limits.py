"""Limits of providers: the server waits for one that passes, and reports how long. It does not wait if the money is used up.

Modules: `providers/faults.py`.
"""

import pytest

from protocols import GPT, answered, failed
from provider import reply, status

SPENT = {  # answers of providers if there is no money left, or none may be spent
    "OpenAI": (429, {"type": "insufficient_quota", "code": "credit_balance_exhausted"}),
    "OpenAI, of old": (429, {"type": "insufficient_quota", "code": "insufficient_quota"}),
    "OpenAI, a project": (429, {"type": "odd", "code": "project_spend_limit_exceeded"}),
    "OpenAI, its own limit": (429, {"code": "organization_usage_limit_exceeded"}),
    "OpenAI, no account": (429, {"type": "billing_not_active"}),
    "Anthropic": (402, {"type": "billing_error"}),
    "Anthropic, of old": (400, {"message": "Your credit balance is too low to access it."}),
    "Anthropic, a limit of one's own": (
        400,
        {"message": "You have reached your specified API usage limits."},
    ),
    "Anthropic, its own limit": (
        429,
        {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
    ),
    "OpenRouter": (402, {"code": 402, "message": "Insufficient credits."}),
    "OpenRouter, a key": (403, {"code": 403, "message": "Key limit exceeded (total limit)."}),
    "DeepSeek": (402, {"message": "Insufficient Balance", "code": "invalid_request_error"}),
    "Mistral": (402, {"message": "Payment required"}),
    "Kimi": (429, {"type": "exceeded_current_quota_error", "message": "It is suspended."}),
    "Z.ai": (429, {"code": "1113", "message": "Recharge."}),
    "xAI": (429, "Your team has either used all available credits or reached its limit."),
    "Groq": (400, {"code": "blocked_api_access"}),
    "Alibaba": (400, {"code": "Arrearage", "type": "Arrearage"}),
    "Alibaba, without a fee": (403, {"code": "AllocationQuota.FreeTierOnly"}),
    "Volcengine": (403, {"code": "AccountOverdueError", "type": "Forbidden"}),
    "Perplexity": (401, {"type": "insufficient_quota", "message": "You exceeded it."}),
}


@pytest.mark.parametrize("code, error", SPENT.values(), ids=SPENT)
def test_a_used_up_quota_is_reported_at_once(alice, provider, code, error):
    """Whatever the headers say: waiting brings no money."""
    provider.default = status(code, {"error": error}, Retry_After=3, x_should_retry="true")
    content = {"content": "Hello", "model": GPT}
    with alice.stream("POST", "/sessions", content) as stream:
        session, failed = stream
    said = error if isinstance(error, str) else error.get("message", f"status {code}")
    assert (session.name, failed.name, failed.data["status"]) == ("session", "error", 502)
    assert failed.data["message"] == (
        f"The provider 127.0.0.1:{provider.port} refuses, since the quota or the credit of this server is used up: "
        f"{said.removesuffix('.')}. "
        "The person who runs this server adds credit at the provider, or raises the limit there."
    )
    assert len(provider.posts) == 1
    answer = alice.post(f"/sessions/{session.data['id']}/retry")
    assert (answer.status_code, "Retry-After" in answer.headers) == (502, False)


NOT_SPENT = {  # limits for a minute, worded like a quota
    "Gemini": [
        {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota.",
                "status": "RESOURCE_EXHAUSTED",
            }
        }
    ],
    "OpenAI": {"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "No more."}},
    "Anthropic": {"error": {"type": "rate_limit_error", "message": "Over your rate limit."}},
    "details of a list": {"error": {"details": [{"error_code": "insufficient_quota"}]}},
}


@pytest.mark.parametrize("body", NOT_SPENT.values(), ids=NOT_SPENT)
def test_a_limit_that_passes_is_not_taken_for_a_used_up_quota(alice, provider, body):
    provider.script = [status(429, body, retry_after_ms="1"), reply("The answer.")]
    assert answered(alice, GPT)["content"] == "The answer."


WAITS = {
    "20": "Ask again in 20 seconds.",
    "1": "Ask again in 1 second.",
    "0": "Ask again later.",
    "never": "Ask again later.",
}


@pytest.mark.parametrize(
    "code, what", [(429, "limits this server"), (503, "is overloaded"), (529, "is overloaded")]
)
@pytest.mark.parametrize("wait, when", WAITS.items())
def test_an_error_says_why_it_is_limited_and_when_to_retry(alice, provider, code, what, wait, when):
    """One sentence of limited length in the provider's own words, without our key."""
    why = "Rate limit of key-of-openai for m-1: 30 a minute"
    for said, told in [
        (why, "Rate limit of … for m-1: 30 a minute."),
        ("Slow down!", "Slow down!"),
        ("Slow. " * 200, ("Slow. " * 200)[:500].rstrip() + "."),
        ("", f"status {code}."),
    ]:
        body = {"error": {"message": said}}
        provider.script = [status(code, body, Retry_After=wait, x_should_retry="false")]
        response, error, _ = failed(alice, GPT)
        assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
        assert error["detail"] == f"The provider 127.0.0.1:{provider.port} {what}: {told} {when}"
    assert len(provider.posts) == 4
