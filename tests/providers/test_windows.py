"""A conversation never ends: what the model gets of one that is longer than its window.

Modules: `replies/writer.py`.
"""

import itertools
import json
import threading
import uuid

import pytest

from client import wait_for_status
from provider import KEEP, head, raw, reply
from windows import (
    ANTHROPIC,
    GROQ,
    LLAMA,
    OPENAI,
    PROMPT_TOO_LONG,
    REFUSALS,
    VLLM,
    Model,
    sent_of,
    tokens,
    words,
)

# Long conversations

WORDINGS = {"anthropic": (PROMPT_TOO_LONG, ANTHROPIC), "llama.cpp": (LLAMA, OPENAI)}


@pytest.mark.parametrize("name, size, least", [("anthropic", 30, 0.85), ("llama.cpp", 200, 0.5)])
def test_hundreds_of_messages_work_with_a_window_of_two_thousand_words(talk, name, size, least):
    refusal, kind = WORDINGS[name]
    model = Model(2000, refusal, kind, answer_size=size)
    conversation = talk(model, system="Be brief.")
    pairs = 60 if size == 200 else 150
    turn = conversation.go_on(pairs - 1, size)
    print(
        f"{size} words: {model.share:.1%} begin with the one before, {len(model.refused)} refused"
    )
    assert len(model.accepted) == pairs
    assert model.share >= least
    assert all(tokens(body) <= 2000 for body in model.accepted)
    assert len(model.refused) <= (1 - least) * pairs
    for number, body in enumerate(model.accepted, 1):
        assert sent_of(body)[-1].startswith(f"Message {number}: ")
        assert (body.get("system") or body["messages"][0]["content"]) == "Be brief."
    turns, first = conversation.show()
    assert len(turns) == 2 * pairs
    assert turn["turns_left_out"] == len(turns) - 1 - len(sent_of(model.accepted[-1]))
    assert (
        next(turn["content"] for turn in turns if turn["id"] == first)
        == sent_of(model.accepted[-1])[0]
    )


def test_turns_left_out_stay_stored_shown_and_searchable(talk):
    model, marker = Model(200), uuid.uuid4().hex
    conversation = talk(model, system=f"Mind {marker}.")
    conversation.say(f"Remember {marker}, please.")
    conversation.go_on(12, first=3)
    assert not any(marker in content for content in sent_of(model.accepted[-1]))
    assert model.accepted[-1]["system"] == f"Mind {marker}."
    turns, _ = conversation.show()
    assert [turn["content"].split()[1] for turn in turns if turn["kind"] == "user"][:3] == [
        "1:",
        f"{marker},",
        "3:",
    ]
    found = conversation.client.get(f"/sessions?query={marker}").json()["data"]
    assert [session["id"] for session in found] == [conversation.id]


def test_turn_and_stream_say_how_many_turns_were_left_out(talk):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    turns, first = conversation.show()
    assert (first, [turn.get("turns_left_out") for turn in turns]) == (None, [None, 0] * 3)
    assert conversation.show("?turns[limit]=2")[1] is None
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(100, "Message 4:")}
    ) as events:
        *_, turn, done = events
    assert done.name == "done"
    assert len(model.refused) >= 1
    left_out = 7 - len(sent_of(model.accepted[-1]))
    assert turn.data["turns_left_out"] == left_out > 0
    turns, first = conversation.show()
    assert (turns[-1], first) == (turn.data, turns[left_out]["id"])
    assert conversation.show("?turns[limit]=2") == (turns[-2:], first)
    assert [turn["turns_left_out"] for turn in turns[1::2]] == [0, 0, 0, left_out]


def test_the_context_start_stays_until_the_next_refusal(talk):
    model = Model(400)
    conversation = talk(model)
    cuts, refused = [], []
    for number in range(2, 30):
        conversation.go_on(1, first=number)
        cuts.append(conversation.show()[1])
        refused.append(len(model.refused))
    moved = [later != earlier for earlier, later in itertools.pairwise(cuts)]
    paid = [later > earlier for earlier, later in itertools.pairwise(refused)]
    assert moved == paid and 3 <= sum(moved) <= 10


def test_another_model_gets_the_whole_conversation_and_the_first_one_again(talk, provider):
    small, large = Model(200), Model(10_000, LLAMA, OPENAI)
    conversation = talk(small)
    conversation.go_on(6)
    assert conversation.show()[1]
    conversation.client.patch(conversation.path, {"model": small.name, "title": "Mine"})
    assert conversation.show()[1], "the same model remembers no more than before"
    conversation.client.patch(conversation.path, {"model": large.name})
    assert conversation.show()[1] is None
    provider.default = large
    turn = conversation.go_on(1, first=8)
    assert turn["turns_left_out"] == 0
    assert len(sent_of(large.accepted[-1])) == 15
    assert conversation.show()[1] is None
    conversation.client.patch(conversation.path, {"model": small.name})
    provider.default, before = small, len(small.refused)
    turn = conversation.go_on(1, first=9)
    assert len(sent_of(small.refused[before])) == 17
    assert turn["turns_left_out"] == 17 - len(sent_of(small.accepted[-1])) > 0
    assert conversation.show()[1]


def test_a_change_of_model_during_shortening_starts_with_the_whole_again(talk, provider):
    small, large, gate = Model(200), Model(10_000, LLAMA, OPENAI), threading.Event()
    conversation = talk(small)
    conversation.go_on(2)
    asked = len(provider.posts)
    provider.script = [small, reply("Half, ", gate, "and the rest.")]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    provider.wait_for_request(asked + 2)
    conversation.client.patch(conversation.path, {"model": large.name})
    gate.set()
    wait_for_status(conversation.client, {"id": conversation.id}, "complete")
    assert conversation.show()[1] is None
    provider.default = large
    conversation.go_on(1, first=5)
    assert len(sent_of(large.accepted[-1])) == 9


def test_a_retry_has_as_much_room_as_its_message_had(talk):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(6)
    for body in (None, {"content": words(30, "Another 7:")}):
        response = conversation.client.post(conversation.path + "/retry", body)
        assert response.status_code == 201
        contents = sent_of(model.accepted[-1])
        assert response.json()["turns_left_out"] == 13 - len(contents) > 0
        assert contents[-1] == (body["content"] if body else words(30, "Message 7:"))


# Messages that do not fit even alone


def test_a_message_that_does_not_fit_alone_is_refused_and_the_next_one_works(talk, provider):
    model = Model(150)
    conversation = talk(model, system="Be brief.")
    conversation.go_on(1)
    for number in range(3):
        long = words(151, f"Too long {number}:")
        response = conversation.say(long)
        assert response.status_code == 413
        assert response.headers["Connection"] == "close"
        assert response.headers["Location"] == conversation.path
        [error] = response.json()["errors"]
        assert error["detail"].startswith("Shorten this message")
        assert error["meta"] == {"session_id": conversation.id}
        assert sent_of(model.refused[-1]) == [long], "everything else was left out first"
        assert model.refused[-1]["system"] == "Be brief."
        turn = conversation.say(words(10, f"Short {number}:"))
        assert turn.status_code == 201
        assert not any("Too long" in content for content in sent_of(model.accepted[-1]))
        assert sent_of(model.accepted[-1])[-1] == words(10, f"Short {number}:")
    turns, _ = conversation.show()
    assert [turn.get("error") and turn["error"]["status"] for turn in turns[5::4]] == [413] * 3

    other = Model(10_000, LLAMA, OPENAI)
    provider.default = other
    conversation.client.patch(conversation.path, {"model": other.name})
    assert conversation.say("Do you know all?").status_code == 201
    assert sum("Too long" in content for content in sent_of(other.accepted[-1])) == 3


def test_earlier_turns_are_sent_again_after_a_message_that_did_not_fit(talk):
    model = Model(1000)
    conversation = talk(model)
    conversation.go_on(2)
    before = [turn["content"] for turn in conversation.show()[0]]
    assert conversation.say(words(1001, "Too long:")).status_code == 413
    assert conversation.say("Short.").status_code == 201
    assert sent_of(model.accepted[-1]) == [*before, "Short."]


def test_a_first_message_that_does_not_fit_can_be_retried(one, provider):
    provider.default = model = Model(100)
    alice, long = one.client(), words(101, "Too long:")
    response = alice.post("/sessions", {"content": long, "model": model.name})
    assert response.status_code == 413
    path = response.headers["Location"]
    assert alice.post(path + "/retry").status_code == 413
    assert [sent_of(body) for body in model.refused] == [[long]] * 2
    model.window = 1000
    assert alice.post(path + "/retry").status_code == 201
    assert alice.post(path + "/messages", {"content": "And now?"}).status_code == 201
    assert sent_of(model.accepted[-1])[0] == long, "it was refused once, but answered since"


def test_streams_and_deferred_answers_report_a_message_that_is_too_long(talk):
    conversation = talk(Model(100))
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(200)}
    ) as events:
        [error] = events
    assert (error.name, error.data["status"]) == ("error", 413)
    assert error.data["message"].startswith("Shorten this message")
    assert conversation.say(words(200), Prefer="respond-async").status_code == 202
    turn = wait_for_status(conversation.client, {"id": conversation.id}, "failed")
    assert turn["error"]["status"] == 413
    assert conversation.say("Short.").status_code == 201


def test_a_system_prompt_that_does_not_fit_is_never_left_out(talk):
    model = Model(100)
    conversation = talk(model)
    conversation.client.patch(conversation.path, {"system": words(100)})
    assert conversation.say("Short.").status_code == 413
    assert all(body["system"] == words(100) for body in model.refused)
    conversation.client.patch(conversation.path, {"system": None})
    assert conversation.say("Short.").status_code == 201


@pytest.mark.parametrize("tells", [True, False], ids=["with usage", "without usage"])
@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_vllm_refuses_at_most_once_and_answers_get_at_least_a_quarter(talk, refusal, tells):
    model = Model(8192, refusal, OPENAI, counts=True, tells=tells)
    conversation = talk(model)
    assert len(model.refused) == 1
    conversation.go_on(20)
    assert len(model.refused) == 1, "what was learned is not asked again"
    assert all(8192 // 4 <= body["max_tokens"] <= 8192 for body in model.accepted)
    assert talk(model).id and len(model.refused) == 1, "nor in another session"


@pytest.mark.parametrize("tells", [True, False], ids=["with usage", "without usage"])
@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_vllm_still_answers_when_a_conversation_outgrows_its_window(talk, refusal, tells):
    model = Model(8192, refusal, OPENAI, counts=True, answer_size=400, tells=tells)
    conversation = talk(model)
    conversation.go_on(30, 400)
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    assert conversation.show()[1]
    assert len(model.refused) <= 1 + 3 * len(model.trimmed)


def test_the_limit_is_as_large_as_fits_once_turns_are_left_out(talk):
    """Each word here has six bytes and is one token: a limit that took each byte for a token would be far too low."""
    model = Model(8192, VLLM["vLLM 0.10"], OPENAI, counts=True, answer_size=400)
    talk(model).go_on(12, 400)
    [trimmed] = model.trimmed
    assert 0.6 * (8192 - tokens(trimmed)) <= trimmed["max_tokens"] <= 8192 - tokens(trimmed)


@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_hidden_tokens_of_a_server_do_not_cause_a_refusal_for_each_message(talk, refusal):
    model = Model(8192, refusal, OPENAI, counts=True, hidden=150)
    conversation = talk(model)
    conversation.go_on(20)
    assert len(model.refused) <= 2
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    for number in range(1, 4):
        talk(model).go_on(3)
        assert len(model.refused) <= 2 + number, "one a session"


def test_with_an_unknown_window_an_answer_gets_256_tokens_or_more(talk):
    model = Model(10_000, GROQ, OPENAI, counts=True)
    conversation = talk(model)
    assert (model.refused, model.accepted[-1]["max_tokens"]) == ([], 8192)
    conversation.go_on(1, 9000)
    assert (len(model.refused), model.accepted[-1]["max_tokens"]) == (1, 256)
    talk(model)
    assert (len(model.refused), model.accepted[-1]["max_tokens"] > 256) == (1, True)


def test_a_small_unknown_window_still_works(talk):
    model = Model(600, GROQ, OPENAI, counts=True)
    conversation = talk(model)
    conversation.go_on(30)
    assert all(body["max_tokens"] >= 256 for body in model.accepted)
    assert conversation.show()[1]


# Refusals of each server


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_each_servers_refusal_shortens_what_is_sent(talk, refusal):
    kind, counts = refusal.get("kind", OPENAI), refusal.get("counts", False)
    model = Model(1000, refusal["body"], kind, refusal["status"], counts, answer_size=100)
    conversation = talk(model)
    turn = conversation.go_on(7, 100)
    assert turn["turns_left_out"] > 0
    assert conversation.show()[1]
    assert len(model.refused) <= 5
    if counts:
        assert all(body["max_tokens"] >= 250 for body in model.accepted)
    else:
        assert {body["max_tokens"] for body in model.accepted} == {8192}


NO_OVERFLOWS = {  # these mention tokens and limits, but not the window
    "Anthropic, longest answer": (
        400,
        "max_tokens: 10000 > 4096, which is the maximum allowed number of output tokens for claude-3",
    ),
    "OpenAI, longest answer": (
        400,
        "max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided "
        "8192.",
    ),
    "OpenAI, newer": (
        400,
        "Invalid 'max_tokens': integer above maximum value. Expected a value <= 32768, but got 99999 instead.",
    ),
    "Groq, longest answer": (
        400,
        "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the "
        "`context_window` for this model",
    ),
    "DeepSeek": (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    "Cohere, longest answer": (
        400,
        "too many tokens: max tokens must be less than or equal to 4096, the maximum output length for this model "
        "- received 1000000.",
    ),
    "Bedrock, longest answer": (
        400,
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value "
        "that is lower than 4096.",
    ),
    "Vertex": (
        400,
        "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from "
        "1 (inclusive) to 65537 (exclusive). Update the value and try again.",
    ),
    "Ollama Cloud": (
        400,
        "max_tokens (32768) exceeds model's maximum output tokens (16384) for model kimi-k3",
    ),
    "DashScope": (400, "Range of max_tokens should be [1, 65536]"),
    "Doubao": (
        400,
        "The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum "
        "value, expected a value <= 12288, but got 32000 instead.",
    ),
    "unnamed": (400, "max_tokens (current value: 4096) must be between 0 and 4000"),
    "Scaleway": (416, "max_completion_tokens is limited for this model"),
    "OpenAI, tokens per minute": (
        429,
        "Request too large for gpt-4 in organization org on tokens per min (TPM): Limit 10000, Requested 12000. "
        "The input or output tokens must be reduced in order to run successfully.",
    ),
    "Bedrock, throttle": (429, "Too many tokens, please wait before trying again."),
    "Bedrock, throttle as a bad request": (
        400,
        "Too many tokens, please wait before trying again.",
    ),
    "Anthropic, tokens per minute": (
        429,
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute. Please reduce "
        "the prompt length or the maximum tokens requested.",
    ),
    "OpenRouter, credit": (
        402,
        "This request requires more credits, or fewer max_tokens. You requested up to 31776 tokens, but can only "
        "afford 9063.",
    ),
    "a user's own words": (400, "The role of message 3 is not known."),
}


@pytest.mark.parametrize("code, message", NO_OVERFLOWS.values(), ids=NO_OVERFLOWS)
def test_an_error_that_is_no_overflow_leaves_nothing_out(talk, provider, code, message):
    model = Model(10_000, kind=OPENAI)
    conversation = talk(model)
    conversation.go_on(2)
    kind = "tokens" if "TPM" in message else "invalid_request_error"
    text = json.dumps(
        {
            "error": {
                "message": message,
                "type": kind,
                "code": "rate_limit_exceeded" if "TPM" in message else None,
            }
        }
    )
    before = len(provider.posts)
    provider.default = raw(
        head(code, "application/json", Content_Length=len(text), retry_after_ms="1")
        + text.encode(),
        KEEP,
    )
    response = conversation.say("Go on.")
    assert response.status_code in (502, 503), response.text
    contents = [
        (sent_of(request.body), request.body["max_tokens"]) for request in provider.posts[before:]
    ]
    # The answer may be shorter: see tests/providers/test_longest_answers.py.
    assert all(sent == contents[0][0] for sent, _ in contents) and len(contents[0][0]) == 7
    assert contents[0][1] == 8192
    provider.default = model
    conversation.go_on(1)
    assert conversation.show()[1] is None
