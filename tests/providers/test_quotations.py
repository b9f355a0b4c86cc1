"""A provider's own words, and what it quotes: known refusals, as it says them, and as users do."""

import html
import json
import re
import string
import tomllib

import pytest

from product import ROOT
from providers.quotations import Sent

REFUSALS = tomllib.loads((ROOT / "tests" / "support" / "refusals.toml").read_text("utf-8"))
FAULTS = ROOT / "providers" / "faults.toml"
WORDS = tomllib.loads(FAULTS.read_text("utf-8"))["words"]
KINDS = ("counted", "overflow")
OVERFLOWS = [re.compile("|".join(WORDS[kind]), re.IGNORECASE) for kind in KINDS]
NUMBERS = {"prompt": 9871, "window": 8192, "limit": 3456, "total": 13327, "left": 4736}
OTHERS = {"prompt": 12045, "window": 8192, "limit": 3456, "total": 15501, "left": 4736}

# How a text is quoted, so that it stands between marks, behind a colon, or up to an end.
FORMS = {
    "as it is": lambda text: text,
    "JSON": lambda text: f"Not allowed: {json.dumps(text)}",
    "JSON with its characters": lambda text: f"Not allowed: {json.dumps(text, ensure_ascii=False)}",
    "JSON in JSON": lambda text: json.dumps({"e": json.dumps({"content": text})}),
    "Go's JSON": lambda text: f"bad: {json.dumps(text)}".replace("'", "\\u0027"),
    "Python": lambda text: f"1 validation error, input_value={text!r}, input_type=str",
    "HTML": lambda text: f"Not allowed: {html.escape(text)}",
    "folded": lambda text: f"Not allowed: '{' '.join(text.split())}'",
    "cut": lambda text: f"Not allowed: {text[:120]}...",
    "cut without a mark": lambda text: f"Not allowed: {text[:77]}",
    "cut in the middle": lambda text: f"value '{text[:90]}…{text[-40:]}' is bad",
    "a whole request": lambda text: "bad: " + json.dumps(body_with(text)),
}


def body_with(content):
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


def body_of(refusal, numbers):
    return string.Template(refusal["body"]).substitute(numbers)


def message_of(refusal, numbers):
    """What it says, or all of it where it is no JSON."""
    text = body_of(refusal, numbers)
    if not text.startswith(("{", "[")):
        return text
    body = json.loads(text)
    body = body[0] if isinstance(body, list) else body
    error = body.get("error") or body
    if isinstance(error, str):
        return error
    return str(error.get("message") or error.get("detail") or "")


def request(content):
    return Sent(body_with(content))


NOTHING = Sent()


def is_overflow(message, sent=NOTHING):
    return any(sent.own(pattern, message) for pattern in OVERFLOWS)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_words_of_a_user_are_taken_for_the_providers(form):
    for name, refusal in REFUSALS.items():
        message, body = message_of(refusal, NUMBERS), body_of(refusal, NUMBERS)
        within = f"Why: {message} ?", f'a\n{message}\n"b" 世界', message + " y" * 900
        for content in (message, body, *within):
            said = " ".join(form(content)[:2000].split())
            assert not is_overflow(said, request(content)), (name, content)


TALKS = [
    "Hello",
    "context window",
    "max_tokens",
    "maximum context length?",
    "This model's maximum context length",
    "What does \"'max_tokens' is too large\" mean, and context_length_exceeded, and the `inputs`?",
    "Prompt too long: reduce the length of the messages, it exceeds the context window.",
]


@pytest.mark.parametrize("talk", TALKS)
def test_a_refusal_is_the_providers_own_whatever_is_talked_of(talk):
    for name, refusal in REFUSALS.items():
        message = message_of(refusal, OTHERS)
        if is_overflow(message):
            assert is_overflow(message, request(talk)), (name, message)


def test_a_refusal_that_a_user_has_shown_is_the_providers_own_all_the_same():
    """With the numbers of another request, or, where it has none, as a part of what he says."""
    for name, refusal in REFUSALS.items():
        message = message_of(refusal, OTHERS)
        if is_overflow(message):
            shown = f"Why does it say: {message_of(refusal, NUMBERS)} What now?"
            assert is_overflow(message, request(shown)), (name, message)


def test_what_is_quoted_is_passed_over_and_the_rest_is_found():
    sent = request("What is an 'api key' that is invalid?")
    pattern = re.compile("invalid.{0,40}key|key.{0,40}invalid")
    assert sent.own(pattern, "Not allowed: 'What is an api key that is invalid?'") is None
    said = "Not allowed: 'What is an api key that is invalid?' But the key is invalid, too."
    found = sent.own(pattern, said)
    assert found[0] == "key is invalid"


def test_the_type_and_the_code_of_an_error_quote_nothing():
    sent = request("context_length_exceeded")
    pattern = re.compile("context_length_exceeded")
    assert sent.own(pattern, "context_length_exceeded", 0) is None
    assert sent.own(pattern, "context_length_exceeded too long", len("context_length_exceeded "))
