"""A provider's sentence may quote a user, so what it teaches changes only that user's requests.

Modules: `providers/learned.py`.
"""

import json
import string

import pytest

from client import ALICE, BOB, wait_until
from provider import KEEP, fails, head, raw, reply, stream
from windows import (
    ANTHROPIC,
    OPENAI,
    REFUSALS,
    Model,
    ended,
    refusal,
    sent_of,
    words,
)

WINDOW = (
    "This model's maximum context length is 1000 tokens. However, you requested 9 output tokens"
)
LONGEST = "This model supports at most 300 completion tokens, whereas you provided 8192."


def pydantic(text):
    """As in docs.pydantic.dev/latest/errors/validation_errors: the error quotes the value that it refuses."""
    detail = {"type": "value_error", "loc": ["body", "messages", 0, "content"]}
    detail |= {"msg": "Value error, not allowed", "input": text}
    body = json.dumps({"detail": [detail]})
    return raw(head(422, "application/json", Content_Length=len(body)) + body.encode(), KEEP)


def in_a_stream(text):
    message = f"Not allowed: '{text}'"
    return stream({"error": {"message": message, "type": "invalid_request_error"}})


QUOTATIONS = {
    "pydantic": pydantic,
    "as it is": refusal,
    "in a sentence": lambda text: refusal(f"Not allowed: '{text}'"),
    "in a stream": in_a_stream,
}


class Gateway(Model):
    """A model behind a gateway that refuses the first request with a text, and quotes the request."""

    def __init__(self, quote, text, kind=OPENAI):
        super().__init__(10_000, kind=kind)
        self.quote, self.text, self.quoted = quote, text, []

    def __call__(self, request):
        if not self.quoted and self.text in json.dumps(request.body, ensure_ascii=False):
            self.quoted.append(request.body)
            return self.quote(self.text)(request)
        return super().__call__(request)


@pytest.mark.parametrize("place", ["content", "system"])
@pytest.mark.parametrize("text, most", [(WINDOW, 1000), (LONGEST, 300)], ids=["window", "longest"])
@pytest.mark.parametrize("quote", QUOTATIONS.values(), ids=QUOTATIONS)
def test_a_quoted_message_limits_no_other_user(one, provider, quote, text, most, place):
    provider.default = gateway = Gateway(quote, text)
    alice, bob = one.client(ALICE), one.client(BOB)
    path = "/sessions/" + bob.create("Before", model=gateway.name)["id"]
    assert bob.post(path + "/messages", {"content": "More"}).status_code == 201
    alice.create(**{"content": "Hello", "model": gateway.name} | {place: text})
    alice.create("Hello again", model=gateway.name)
    heeded = gateway.accepted[-2:]
    assert len(gateway.quoted) == 1 and all(body["max_tokens"] <= most for body in heeded)

    assert bob.post(path + "/messages", {"content": "After"}).json()["turns_left_out"] == 0
    assert len(sent_of(gateway.accepted[-1])) == 5
    bob.create("Hello", model=gateway.name)
    assert [body["max_tokens"] for body in gateway.accepted[-2:]] == [8192, 8192]
    sent = json.dumps([[request.body, dict(request.headers)] for request in provider.posts])
    assert ALICE not in sent and BOB not in sent


PARAMETERS = {  # a sentence, an option of the session, and the parameter that the sentence refuses
    "extra": ("cache_control: Extra inputs are not permitted", {}, "cache_control"),
    "thinking": ("No thinking here, please", {"reasoning_effort": "low"}, "thinking"),
}


@pytest.mark.parametrize("text, options, name", PARAMETERS.values(), ids=PARAMETERS)
def test_a_quoted_message_removes_no_parameter_for_other_users(one, provider, text, options, name):
    provider.default = gateway = Gateway(refusal, text, ANTHROPIC)
    alice, bob = one.client(ALICE), one.client(BOB)
    alice.create(text, model=gateway.name, options=options)
    alice.create("Hello", model=gateway.name, options=options)
    bob.create("Hello", model=gateway.name, options=options)
    assert [name in body for body in gateway.quoted + gateway.accepted] == [
        True,
        False,
        False,
        True,
    ]


def test_a_quoted_message_limits_no_other_users_titles(start, settings, provider):
    gateway = Gateway(refusal, LONGEST)
    provider.default = lambda request: (
        gateway if request.body["model"] == gateway.name else reply("The answer.")
    )(request)
    server = start(**settings, TITLE_MODEL=gateway.name, WEB_CONCURRENCY=1)
    titles = [(ALICE, LONGEST, 300), (ALICE, "Hello", 300), (BOB, "Hello", 500)]
    for number, (user, content, limit) in enumerate(titles, 1):
        server.client(user).create(content)
        wait_until(lambda number=number: len(gateway.accepted) == number)
        assert gateway.accepted[-1]["max_tokens"] == limit


BY_FIELDS = {  # the protocol, a body that refuses, and the parameter that it refuses
    "OpenAI": (
        OPENAI,
        {"error": {"code": "unsupported_parameter", "param": "stream_options", "message": "No."}},
        "stream_options",
    ),
    "pydantic": (
        ANTHROPIC,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "cache_control"], "msg": "No."}]},
        "cache_control",
    ),
}


@pytest.mark.parametrize("kind, body, name", BY_FIELDS.values(), ids=BY_FIELDS)
def test_a_field_of_an_error_teaches_for_all_users(one, provider, kind, body, name):
    """It has the name of a parameter, and cannot quote a user."""
    provider.default = model = Model(10_000, kind=kind)
    data = json.dumps(body)
    provider.script = [
        raw(head(422, "application/json", Content_Length=len(data)) + data.encode(), KEEP)
    ]
    one.client(ALICE).create("Hello", model=model.name)
    one.client(BOB).create("Hello", model=model.name)
    assert [name in request.body for request in provider.posts] == [True, False, False]


def test_a_field_teaches_for_all_users_and_a_sentence_for_its_user(one, provider):
    """Even if both refuse the same request."""
    provider.default = model = Model(10_000, kind=ANTHROPIC)
    data = json.dumps(BY_FIELDS["pydantic"][1])
    by_field = raw(head(422, "application/json", Content_Length=len(data)) + data.encode(), KEEP)
    provider.script = [refusal("thinking is not known here"), by_field]
    options = {"reasoning_effort": "low"}
    one.client(ALICE).create("Hello", model=model.name, options=options)
    one.client(BOB).create("Hello", model=model.name, options=options)
    one.client(ALICE).create("Hello", model=model.name, options=options)
    names = ("thinking", "cache_control")
    assert [tuple(name in body for name in names) for body in model.accepted] == [
        (False, False),
        (True, False),
        (False, False),
    ]


# The user recovers


@pytest.mark.parametrize("tokens", [8, 1000])
def test_a_conversation_continues_after_a_pasted_log_was_refused(talk, provider, tokens):
    """The provider always refuses the log, and quotes it, which reads like a full window."""
    pasted = f"Why? ERROR {WINDOW.replace('1000', str(tokens))}"
    model = Model(10_000, kind=OPENAI)
    conversation = talk(model)
    conversation.go_on(2)
    provider.default = lambda request: (
        refusal(f"Not allowed: '{pasted}'") if pasted in sent_of(request.body) else model
    )(request)
    response = conversation.say(pasted)
    assert response.status_code == 413
    assert response.json()["errors"][0]["detail"].startswith("Shorten this message")
    turn = conversation.say("Message 5.").json()
    assert (turn["status"], turn["turns_left_out"]) == ("complete", 1), "but for the log"
    assert len(sent_of(model.accepted[-1])) == 7 and pasted not in sent_of(model.accepted[-1])
    assert model.accepted[-1]["max_tokens"] == 8192


def test_a_window_is_forgotten_once_the_provider_counts_more_tokens(one, provider):
    provider.default = model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(WINDOW)]
    for usage in ((700, 200, 0), (700, 300, 0), (700, 301, 0)):
        provider.script += [ended("stop", usage=usage)]
        one.client().create("Hello", model=model.name)
    one.client().create("Hello", model=model.name)
    limits = [request.body["max_tokens"] for request in provider.posts]
    assert [limit == 8192 for limit in limits] == [True, False, False, False, True]


def test_a_window_is_not_kept_if_the_next_answer_exceeds_it(one, provider):
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), ended("stop", usage=(995, 7, 3))]
    one.client().create("Hello", model=model.name)
    assert provider.posts[-1].body["max_tokens"] < 1000
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_a_limit_of_a_few_words_is_not_believed(one, provider):
    """No model has such a limit, and for an hour replies of twenty tokens would be useless."""
    model = Model(10_000, kind=OPENAI)
    provider.default, provider.script = model, [refusal(LONGEST.replace("300", "20"))]
    alice = one.client()
    assert alice.post("/sessions", {"content": "Hi", "model": model.name}).status_code == 502
    alice.create("Hello", model=model.name)
    assert model.accepted[-1]["max_tokens"] == 8192


def says(body):
    return (body.get("error") or body)["message"]


PASTED = ("Anthropic", "vLLM 0.10", "OpenAI, with the answer", "Groq", "Cerebras")


@pytest.mark.parametrize("name", PASTED)
def test_a_conversation_about_refusals_continues_after_one_of_its_own(talk, name):
    """The user pastes what the same server said about another prompt, and asks about parameters."""
    refusal = REFUSALS[name]
    kind, counts = refusal.get("kind", OPENAI), refusal.get("counts", False)
    model = Model(1000, refusal["body"], kind, refusal["status"], counts, answer_size=100)
    conversation = talk(model)
    numbers = {"prompt": 987, "window": 1000, "limit": 345, "total": 1332, "left": 655}
    pasted = says(json.loads(string.Template(refusal["body"]).substitute(numbers)))
    for content in (f"Why does it say: {pasted} What is 'max_tokens'?", pasted):
        assert conversation.say(content).status_code == 201
    turn = conversation.go_on(6, 100, first=4)
    assert turn["turns_left_out"] > 0
    assert all(body["max_tokens"] >= 250 for body in model.accepted)


# What is learned, and when

COUNTED = "The maximum context length is {} tokens. However, you requested 8192 output tokens."


def check_that_nothing_is_learned(one, model):
    """The same user's next request has the full limit, and is accepted."""
    refused = len(model.refused)
    one.client().create("Hello", model=model.name)
    assert (model.accepted[-1]["max_tokens"], len(model.refused)) == (8192, refused)


def test_a_limit_that_does_not_help_teaches_nothing(one, provider):
    """The refusal is repeated with any limit."""
    model = Model(10_000, kind=OPENAI)
    provider.default = refusal(COUNTED.format(1000))
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 413
    assert [request.body["max_tokens"] for request in provider.posts][0] == 8192
    assert len(provider.posts) <= 3
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_a_limit_that_helps_is_learned_even_if_the_answer_breaks(one, provider):
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), fails("Half")]
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 502
    provider.default = model
    one.client().create("Hello", model=model.name)
    assert 250 <= model.accepted[-1]["max_tokens"] <= 1000


@pytest.mark.parametrize("content", ["Hello", words(10_000)], ids=["short", "long"])
def test_a_window_too_small_for_the_prompt_counts_as_unknown(one, provider, content):
    """A token has at most 256 bytes, so the long prompt has at least 235 tokens."""
    model = Model(20_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(4 if content == "Hello" else 240))]
    provider.default = model
    one.client().create(content, model=model.name)
    assert [request.body["max_tokens"] for request in provider.posts] == [8192, 256]
    one.client().create("Hello", model=model.name)
    assert model.accepted[-1]["max_tokens"] >= 256


def test_a_window_that_no_refusal_names_is_learned(one, provider):
    model = Model(10_000, kind=OPENAI)
    provider.default = model
    provider.script = [refusal("Please reduce the length of the messages or completion.")]
    alice, name = one.client(), model.name
    alice.create("Hello", model=name)
    alice.create("Hello", model=name)
    assert [request.body["max_tokens"] for request in provider.posts[:2]] == [8192, 256]
    assert model.accepted[-1]["max_tokens"] < 8192 and len(provider.posts) == 3
