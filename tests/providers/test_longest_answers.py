"""A model or an account that allows shorter answers than MAX_TOKENS: the user does not notice.

Modules: `providers/faults.py`, `providers/base.py`.
"""

import json
import uuid

import pytest

from provider import KEEP, head, raw, reply

REFUSALS = {  # status, words, and the longest answer that they allow
    "Anthropic": (
        400,
        "max_tokens: {} > 4096, which is the maximum allowed number of output tokens for claude-3",
        4096,
    ),
    "OpenAI": (
        400,
        "max_tokens is too large: {}. This model supports at most 4096 completion tokens, whereas "
        "you provided {}.",
        4096,
    ),
    "OpenAI, newer": (
        400,
        "Invalid 'max_tokens': integer above maximum value. Expected a value <= 8000, but got {} "
        "instead.",
        8000,
    ),
    "Groq": (
        400,
        "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is "
        "less than the `context_window` for this model",
        8192,
    ),
    "DeepSeek": (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    "Cohere": (
        400,
        "too many tokens: max tokens must be less than or equal to 4096, the maximum output length "
        "for this model - received {}.",
        4096,
    ),
    "Bedrock": (
        400,
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum "
        "tokens value that is lower than 4096.",
        4096,
    ),
    "Ollama Cloud": (400, "max_tokens ({}) exceeds model's maximum output tokens (6000)", 6000),
    "DashScope": (400, "Range of max_tokens should be [1, 8000]", 8000),
    "Doubao": (
        400,
        "The parameter `max_completion_tokens` specified in the request are not valid: integer above "
        "maximum value, expected a value <= 12288, but got {} instead.",
        12288,
    ),
    "unnamed": (400, "max_tokens (current value: {}) must be between 0 and 4000", 4000),
    "Scaleway, which names none": (
        416,
        "max_completion_tokens is limited for this model",
        4096,
    ),
}
CREDIT = (
    "This request requires more credits, or fewer max_tokens. You requested up to {} tokens, but "
    "can only afford 9063."
)


class Short:
    """A model that answers only if the limit is at most `most` tokens."""

    def __init__(self, status, words, most):
        self.status, self.words, self.most = status, words, most
        self.asked = []

    def __call__(self, request):
        limit = request.body["max_tokens"]
        self.asked.append(limit)
        if limit <= self.most:
            return reply("The answer.")(request)
        message = self.words.replace("{}", str(limit))
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
        refusal = head(self.status, "application/json", Content_Length=len(body))
        return raw(refusal + body, KEEP)(request)


@pytest.mark.parametrize("status, words, most", REFUSALS.values(), ids=REFUSALS)
def test_a_model_that_refuses_long_answers_is_asked_for_shorter_ones(
    start, settings, provider, status, words, most
):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    provider.default = model = Short(status, words, most)
    name = f"m-{uuid.uuid4().hex}"
    session = alice.create(model=name)
    assert alice.turns(session)[1]["content"] == "The answer."
    assert model.asked == [16384, most]
    alice.create(model=name)
    assert model.asked == [16384, most, most], "it is refused once an hour"


def test_an_account_with_little_credit_is_asked_for_what_it_can_pay(start, settings, provider):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    provider.default = model = Short(402, CREDIT, 9063)
    name = f"m-{uuid.uuid4().hex}"
    assert alice.turns(alice.create(model=name))[1]["content"] == "The answer."
    alice.create(model=name)
    assert model.asked == [16384, 9063, 16384, 9063], "there may be more credit by now"


def test_too_little_credit_for_a_sentence_is_reported_as_no_credit(alice, provider):
    provider.default = model = Short(402, CREDIT.replace("9063", "3"), 3)
    failed = alice.post("/sessions", {"content": "Hello"})
    assert failed.status_code == 502
    assert "adds credit" in failed.json()["errors"][0]["detail"]
    assert model.asked == [16384]


def test_a_limit_set_by_the_user_is_refused_and_not_changed(alice, provider):
    provider.default = model = Short(*REFUSALS["Anthropic"])
    options = {"max_tokens": 5000}
    failed = alice.post("/sessions", {"content": "Hello", "options": options})
    assert failed.status_code == 400
    assert failed.json()["errors"][0]["source"] == {"pointer": "/options/max_tokens"}
    assert model.asked == [5000]
