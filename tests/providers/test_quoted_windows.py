"""A conversation never ends: no user's words, quoted by a provider, teach a window."""

import html
import json
import string
import uuid

import pytest

from client import BOB
from provider import KEEP, fails, head, raw, stream
from windows import (
    ANTHROPIC,
    OPENAI,
    REFUSALS,
    VLLM,
    Model,
    ended,
    on_one_engine,
    refusal,
    sent_of,
    words,
)

# Words that are not the provider's own

TEACHING = 'this "model"\'s maximum context length is 4 tokens. However,\n'


TEACHING += "you requested 9 output tokens 世界"


LONG_TEACHING = f"{TEACHING} and {words(60)} prompt is too long: reduce the length of the messages"


def pydantic(text):
    """As docs.pydantic.dev/latest/errors/validation_errors: it quotes the value that it refuses."""
    detail = {"type": "value_error", "loc": ["body", "messages", 0, "content"]}
    detail |= {"msg": "Value error, not allowed", "input": text}
    body = json.dumps({"detail": [detail]})
    return raw(head(422, "application/json", Content_Length=len(body)) + body.encode(), KEEP)


def in_a_stream(message):
    return stream({"error": {"message": message, "type": "invalid_request_error"}})


QUOTATIONS = {
    "pydantic's input": pydantic,
    "pydantic's text": lambda text: refusal(f"1 error [input_value={text!r}, input_type=str]"),
    "JSON": lambda text: refusal(f"Not allowed: {json.dumps(text)}"),
    "JSON as it is": lambda text: refusal(f"Not allowed: {json.dumps(text, ensure_ascii=False)}"),
    "JSON in JSON": lambda text: refusal(json.dumps({"error": json.dumps({"content": text})})),
    "HTML": lambda text: refusal(f"Not allowed: {html.escape(text)}"),
    "folded, in capitals": lambda text: refusal(f"Not allowed: '{' '.join(text.upper().split())}'"),
    "cut": lambda text: refusal(f"Not allowed: {text[:70]}..."),
    "cut in the middle": lambda text: refusal(f"value='{text[:70]}…{text[-40:]}' is not allowed"),
    "without marks": lambda text: refusal(f"The content {text} is not allowed."),
    "nothing else": lambda text: refusal(text),
    "a status of 500": lambda text: refusal(f"Cannot answer '{text}'", 500),
    "an event of a stream": lambda text: in_a_stream(f"Not allowed: '{text}'"),
}


class Gateway(Model):
    """Before a model: while it is `shut`, it refuses each request that has this text, and quotes it
    in its own `form`."""

    def __init__(self, form, text, kind=OPENAI):
        super().__init__(10_000, kind=kind)
        self.form, self.text, self.shut, self.quoted = form, text, True, []

    def __call__(self, request):
        body = request.body
        sent = [body.get("system"), *(message["content"] for message in body["messages"])]
        if self.shut and self.text in sent:
            self.quoted.append(body)
            return self.form(self.text)(request)
        return super().__call__(request)


def check_that_nothing_is_learned(one, model):
    """Another user's first request has the whole limit, and is taken."""
    refused = len(model.refused)
    one.client(BOB).create("Hello", model=model.name)
    assert (model.accepted[-1]["max_tokens"], len(model.refused)) == (8192, refused)


@on_one_engine
@pytest.mark.parametrize("text", [TEACHING, LONG_TEACHING], ids=["short", "long"])
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_a_message_that_is_quoted_teaches_nothing_and_cuts_nothing(one, talk, form, text):
    gateway = Gateway(form, text)
    conversation = talk(gateway)
    conversation.go_on(2)
    response = conversation.say(text)
    assert response.status_code == 502, response.text
    assert all(len(sent_of(body)) == 7 and body["max_tokens"] == 8192 for body in gateway.quoted)
    assert conversation.show()[1] is None
    check_that_nothing_is_learned(one, gateway)
    gateway.shut = False
    assert conversation.say("Message 5.").json()["turns_left_out"] == 0
    assert gateway.accepted[-1]["max_tokens"] == 8192


@on_one_engine
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_a_system_prompt_that_is_quoted_teaches_nothing(one, provider, form):
    provider.default = gateway = Gateway(form, TEACHING, ANTHROPIC)
    body = {"content": "Hello", "model": gateway.name, "system": TEACHING}
    response = one.client().post("/sessions", body)
    assert response.status_code == 502, response.text
    assert {body["max_tokens"] for body in gateway.quoted} == {8192}
    check_that_nothing_is_learned(one, gateway)


@on_one_engine
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_an_older_turn_that_is_quoted_stays_in_the_conversation(one, talk, form):
    gateway = Gateway(form, TEACHING)
    gateway.shut = False
    conversation = talk(gateway)
    assert conversation.say(TEACHING).status_code == 201
    conversation.go_on(2, first=3)
    gateway.shut = True
    response = conversation.say("Message 5.")
    assert response.status_code == 502, response.text
    assert all(len(sent_of(body)) == 9 for body in gateway.quoted)
    assert conversation.show()[1] is None
    check_that_nothing_is_learned(one, gateway)
    gateway.shut = False
    assert conversation.say("Message 6.").json()["turns_left_out"] == 0
    assert TEACHING in sent_of(gateway.accepted[-1])


NAMES = {
    "in marks": "The model `{}` cannot be asked.",
    "without marks": "Model {} cannot be asked.",
    "behind a sign": "Bad name passed in model={}",
}


@pytest.mark.parametrize("message", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("status", [400, 200], ids=["refused", "in a stream"])
def test_the_name_of_a_model_that_is_quoted_is_no_overflow(one, provider, message, status):
    name = f"context length is 4 tokens. However, you requested 9 output tokens, {uuid.uuid4().hex}"
    text = message.format(name)
    provider.default = refusal(text) if status == 400 else in_a_stream(text)
    response = one.client().post("/sessions", {"content": "Hello", "model": name})
    assert response.status_code == 502, response.text
    assert [request.body["max_tokens"] for request in provider.posts] == [8192]


@pytest.mark.parametrize("value", ["context_length_exceeded", "n_keep", "request_too_large"])
def test_an_options_value_that_is_quoted_is_no_overflow(talk, value):
    model = Model(10_000, kind=OPENAI)
    conversation = talk(model)
    conversation.go_on(2)
    said = f"Unsupported value: 'reasoning_effort' does not support '{value}'. It may be 'low'."
    conversation.client.patch(conversation.path, {"options": {"reasoning_effort": value}})
    error = {"message": said, "type": "invalid_request_error"}
    model.window, model.refusal = 0, json.dumps({"error": error})
    response = conversation.say("Message 4.")
    assert response.status_code == 400, response.text
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/reasoning_effort"}
    assert len(model.refused) == 1
    assert conversation.show()[1] is None


class Quoting(Model):
    """It quotes the last message before it says in its own words why that is refused."""

    def __call__(self, request):
        said = says(json.loads(VLLM["vLLM 0.18"]))
        message = f"Cannot answer '{' '.join(sent_of(request.body)[-1].split())}': {said}"
        self.refusal = json.dumps({"error": {"message": message, "type": "BadRequestError"}})
        return super().__call__(request)


def test_a_refusal_that_quotes_the_user_too_is_taken_for_what_it_says_itself(one, provider):
    """Its window is learned, and turns are left out, though a quotation with another is before it."""
    provider.default = model = Quoting(8192, kind=OPENAI, counts=True, answer_size=800)
    alice = one.client()
    path = "/sessions/" + alice.create(TEACHING, model=model.name)["id"]
    assert (len(model.refused), model.accepted[-1]["max_tokens"] >= 8192 // 4) == (1, True)
    for number in range(12):
        response = alice.post(path + "/messages", {"content": f"{TEACHING} {number}"})
        assert response.status_code == 201, response.text
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    assert response.json()["turns_left_out"] > 0
    refused = len(model.refused)
    one.client(BOB).create("Hello", model=model.name)
    assert len(model.refused) == refused, "what was learned holds for others"


def says(body):
    return (body.get("error") or body)["message"]


PASTED = ("Anthropic", "vLLM 0.10", "OpenAI, with the answer", "Groq", "Cerebras")


@pytest.mark.parametrize("name", PASTED)
def test_a_conversation_about_refusals_goes_on_behind_its_own(talk, name):
    """Its user shows what the same server has told of another prompt, and speaks of parameters."""
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


def test_nothing_is_learned_of_a_limit_that_does_not_help(one, provider):
    """The refusal comes again, whatever the limit."""
    model = Model(10_000, kind=OPENAI)
    provider.default = refusal(COUNTED.format(1000))
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 413
    assert [request.body["max_tokens"] for request in provider.posts][0] == 8192
    assert len(provider.posts) <= 3
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_what_helps_is_learned_also_where_the_answer_breaks(one, provider):
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), fails("Half")]
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 502
    provider.default = model
    one.client(BOB).create("Hello", model=model.name)
    assert 250 <= model.accepted[-1]["max_tokens"] <= 1000


def test_a_window_in_which_the_provider_has_counted_more_is_none(one, provider):
    """By its own count of the prompt that it answered."""
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), ended("stop", usage=(995, 7, 3))]
    one.client().create("Hello", model=model.name)
    assert provider.posts[-1].body["max_tokens"] < 1000
    provider.default = model
    check_that_nothing_is_learned(one, model)


@pytest.mark.parametrize("content", ["Hello", words(10_000)], ids=["short", "long"])
def test_a_window_that_cannot_hold_what_was_sent_is_none_for_its_own_reply(one, provider, content):
    """A token has 256 bytes at most: the long one has 235 or more."""
    model = Model(20_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(4 if content == "Hello" else 240))]
    one.client().create(content, model=model.name)
    assert [request.body["max_tokens"] for request in provider.posts] == [8192, 256]
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_a_window_whose_number_stands_in_the_request_is_for_its_own_reply_alone(one, provider):
    """However it is quoted: here by a gateway that says in the middle how much it has left out."""
    model = Model(10_000, kind=OPENAI)
    text = "context length is 400 tokens. However, you requested 900 tokens "
    text += "(500 in it, {} 400 in the completion)"
    provider.script = [refusal("It has: " + text.format("7 characters are left out")), model]
    provider.default = model
    one.client().create(text.format(words(30)), model=model.name)
    assert [request.body["max_tokens"] < 400 for request in provider.posts] == [False, True]
    check_that_nothing_is_learned(one, model)


def test_a_window_that_no_refusal_names_is_learned_from_the_providers_own_words(one, provider):
    """Words that the user has said, too, are heeded by his own reply."""
    own, quoted = Model(10_000, kind=OPENAI), Model(10_000, kind=OPENAI)
    text = "reduce the length of the messages or completion"
    question = f"Why do you say that I should {text} of mine?"
    for model, content in ((own, "Hello"), (quoted, question)):
        provider.default = model
        provider.script = [refusal(f"Please {text}.")]
        before = len(provider.posts)
        one.client().create(content, model=model.name)
        assert [request.body["max_tokens"] for request in provider.posts[before:]] == [8192, 256]
    check_that_nothing_is_learned(one, quoted)
    provider.default = own
    one.client(BOB).create("Hello", model=own.name)
    assert own.accepted[-1]["max_tokens"] < 8192
