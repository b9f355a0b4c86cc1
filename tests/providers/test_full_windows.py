"""A conversation never ends: replies that fill the window, and what is remembered about them."""

import json
import threading
import uuid

import pytest

from client import wait_for_status, wait_until
from exports import imported, turns_of
from provider import fails, reply, silence, so_far, status, stream, thought
from raw_tables import tables_of
from servers import running
from windows import (
    ANTHROPIC,
    LLAMA,
    OPENAI,
    Conversation,
    Model,
    ended,
    sent_of,
    tokens,
    words,
)

# Replies that end because the window is full


@pytest.mark.parametrize("counted", [True, False], ids=["with usage", "without usage"])
def test_a_reply_that_ends_below_our_limit_shortens_the_next_prompt(talk, provider, counted):
    """llama.cpp gives no other sign that its window is full."""
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    conversation.go_on(5)
    provider.script = [ended("length", usage=counted and (15, 7, 3) or None)]
    turn = conversation.say(words(30, "Message 7:")).json()
    assert (turn["status"], turn["stop_reason"], turn["content"]) == (
        "complete",
        "length",
        "Half a sentence",
    )
    assert turn["turns_left_out"] == 0
    turns, first = conversation.show()
    place = [turn["id"] for turn in turns].index(first)
    sizes = [len(turn["content"]) for turn in turns]
    assert turns[place]["kind"] == "user"
    assert sum(sizes[place:]) <= sum(sizes) / 2 < sum(sizes[place - 2 :])
    turn = conversation.go_on(3, first=8)
    assert sent_of(model.accepted[-1])[0] == turns[place]["content"]
    assert turn["turns_left_out"] == place
    assert conversation.show()[1] == first, "the cut stays"


@pytest.mark.parametrize("limit", ["MAX_TOKENS", "max_tokens"])
def test_a_reply_that_ends_at_our_own_limit_shortens_nothing(provider, tmp_path, limit):
    with running(
        tmp_path,
        OPENAI_BASE_URL=provider.url + "/v1",
        MAX_TOKENS=7 if limit == "MAX_TOKENS" else 100,
    ) as server:
        model = Model(10_000, LLAMA, OPENAI)
        provider.default = model
        conversation = Conversation(
            server.client(),
            model,
            **({} if limit == "MAX_TOKENS" else {"options": {"max_tokens": 7}}),
        )
        conversation.go_on(3)
        for usage in ((15, 7, 3), None):
            provider.script = [ended("length", "As far as that.", usage)]
            turn = conversation.say("Go on.").json()
            assert (turn["status"], turn["stop_reason"]) == ("complete", "length")
            assert conversation.show()[1] is None
        conversation.go_on(1, first=7)
        assert len(sent_of(model.accepted[-1])) == 13


def test_tokens_counted_before_an_answer_are_not_its_length(talk, provider):
    """A compatible server may count nothing at the end. Then only an answer with fewer bytes than our
    limit has tokens was certainly below the limit."""
    model = Model(10_000)
    conversation = talk(model, options={"max_tokens": 7})
    conversation.go_on(3)
    provider.script = [
        stream(
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 15, "output_tokens": 1}},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "As far as that."},
            },
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
            {"type": "message_stop"},
        )
    ]
    assert conversation.say("Go on.").json()["stop_reason"] == "length"
    assert conversation.show()[1] is None


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
def test_a_model_that_reports_a_full_window_shortens_the_next_prompt(talk, provider, kind):
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(5)
    provider.script = [ended("model_context_window_exceeded")]
    turn = conversation.say(words(30, "Message 7:")).json()
    assert (turn["status"], turn["stop_reason"]) == ("complete", "length")
    assert conversation.show()[1]
    conversation.go_on(1, first=8)
    assert 0 < len(sent_of(model.accepted[-1])) < 9


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("reason", ["length", "model_context_window_exceeded"])
def test_an_empty_answer_is_requested_again_with_a_shorter_prompt(talk, provider, kind, reason):
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(5)
    before = len(provider.posts)
    provider.script = [ended(reason, "")]
    turn = conversation.go_on(1, first=7)
    assert (turn["status"], turn["stop_reason"]) == ("complete", "stop")
    sent = [sent_of(request.body) for request in provider.posts[before:]]
    assert len(sent) == 2 and len(sent[0]) == 13
    assert turn["turns_left_out"] == 13 - len(sent[1]) > 0


def test_an_empty_answer_to_a_single_message_is_413(one, provider):
    provider.default = ended("model_context_window_exceeded", "")
    response = one.client().post(
        "/sessions", {"content": "Hello", "model": f"w-{uuid.uuid4().hex}"}
    )
    assert response.status_code == 413
    assert response.json()["errors"][0]["detail"].startswith("Shorten this message")


def test_after_a_reply_longer_than_all_else_only_the_next_message_is_sent(talk, provider):
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [ended("length", words(200))]
    conversation.go_on(1)
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    assert sent_of(model.accepted[-1]) == [words(30, "Message 2:")], (
        "the last message is asked again all the same"
    )
    provider.script = [ended("length", words(200))]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    turn = conversation.go_on(1, first=3)
    assert sent_of(model.accepted[-1]) == [words(30, "Message 3:")]
    assert turn["turns_left_out"] == 4
    turns, first = conversation.show()
    assert first == turns[4]["id"]
    conversation.go_on(1, first=4)
    assert len(sent_of(model.accepted[-1])) == 3


# How an answer ends

ENDS = {  # the turn's status, its `stop_reason`, and a third item if the model is asked to go on
    "stop": ("complete", "stop"),
    "STOP": ("complete", "stop"),
    "end_turn": ("complete", "stop"),
    "stop_sequence": ("complete", "stop"),
    "eos_token": ("complete", "stop"),
    "COMPLETE": ("complete", "stop"),
    "tool_calls": ("failed", None),
    "tool_use": ("failed", None),
    "function_call": ("failed", None),
    "a word of the future": ("complete", "stop"),
    "length": ("complete", "length"),
    "max_tokens": ("complete", "length"),
    "MAX_TOKENS": ("complete", "length"),
    "model_length": ("complete", "length"),
    "model_context_window_exceeded": ("complete", "length"),
    "content_filter": ("failed", None),
    "refusal": ("failed", None),
    "SAFETY": ("failed", None),
    "RECITATION": ("failed", None),
    "sensitive": ("failed", None),
    "error": ("failed", None, "and is asked to go on"),
    "abort": ("failed", None, "and is asked to go on"),
    "network_error": ("failed", None, "and is asked to go on"),
    "insufficient_system_resource": ("failed", None, "and is asked to go on"),
    "pause_turn": ("failed", None, "and is asked to go on"),
}


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("reason, outcome", ENDS.items(), ids=ENDS)
def test_a_turn_says_how_its_answer_ended(one, provider, kind, reason, outcome):
    provider.default = lambda request: (
        status(400) if so_far(request) else ended(reason, "So far.")
    )(request)
    alice = one.client()
    with alice.stream(
        "POST", "/sessions", {"content": "Hello", "model": f"{kind}-{uuid.uuid4().hex}"}
    ) as events:
        session, *_, last = events
    turn = alice.turns(session.data)[-1]
    assert (turn["status"], turn["stop_reason"], turn["content"]) == (*outcome[:2], "So far.")
    assert last.name == ("done" if outcome[0] == "complete" else "error")
    assert (turn["continued"], turn["turns_left_out"]) == (len(outcome[2:]), 0)


NO_ENDS = {
    "openai: null, and the end of all": (OPENAI, [thought(content="So far."), "[DONE]"], "failed"),
    "openai: the word null": (
        OPENAI,
        [
            {"choices": [{"index": 0, "delta": {"content": "So far."}, "finish_reason": "null"}]},
            "[DONE]",
        ],
        "failed",
    ),
    "openai: null until the last": (
        OPENAI,
        [
            thought(content="So far."),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ],
        "complete",
    ),
    "anthropic: null at the end of all": (
        ANTHROPIC,
        [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "So far."},
            },
            {
                "type": "message_delta",
                "delta": {"stop_reason": None},
                "usage": {"output_tokens": 7},
            },
            {"type": "message_stop"},
        ],
        "complete",
    ),
}


@pytest.mark.parametrize("kind, events, outcome", NO_ENDS.values(), ids=NO_ENDS)
def test_an_end_without_a_reason_is_read(one, provider, kind, events, outcome):
    provider.default = stream(*events)
    alice = one.client()
    response = alice.post("/sessions", {"content": "Hello", "model": f"{kind}-{uuid.uuid4().hex}"})
    turn = alice.turns({"id": response.headers["Location"].rpartition("/")[2]})[-1]
    assert (turn["status"], turn["content"]) == (outcome, "So far.")
    assert turn["stop_reason"] == ("stop" if outcome == "complete" else None)


# While the prompt is shortened


def test_a_reply_that_fails_after_shortening_keeps_text_and_context_start(talk, provider):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    provider.script = [model, fails("Half")]
    response = conversation.say(words(100, "Message 4:"))
    assert response.status_code == 502
    turns, first = conversation.show()
    assert (turns[-1]["status"], turns[-1]["content"], turns[-1]["stop_reason"]) == (
        "failed",
        "Half",
        None,
    )
    assert first == turns[turns[-1]["turns_left_out"]]["id"] != turns[0]["id"]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    refused = len(model.refused)
    conversation.go_on(1, 10, first=5)
    assert len(model.refused) - refused <= 1


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the middle of it"])
def test_a_cancel_during_shortening_hangs_up_and_the_next_message_works(talk, provider, begun):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    before = len(provider.posts)
    provider.script = [
        model,
        reply("Half", threading.Event()) if begun else silence(threading.Event()),
    ]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    asked = provider.wait_for_request(before + 2)
    response = conversation.client.post(conversation.path + "/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "interrupted")
    assert asked.hung_up.wait(1)
    assert conversation.say(words(10, "Message 5:")).status_code == 201
    assert tokens(model.accepted[-1]) <= 200
    assert conversation.client.post(conversation.path + "/retry").status_code == 201


def test_a_shortened_prompt_stays_shortened_after_kill_9(start, settings, provider):
    model = Model(200, LLAMA, OPENAI)
    provider.default = model
    server = start(**settings)
    conversation = Conversation(server.client(), model)
    conversation.go_on(2)
    provider.script = [model, reply("Half", threading.Event())]
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(100, "Message 4:")}
    ) as events:
        assert next(iter(events)).data == {"delta": "Half"}
        server.kill()
    provider.script = []
    with tables_of(settings["DATABASE_URL"]) as tables:  # as if its lease had expired long ago
        tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
    conversation.client = start(**settings).client()
    turn = wait_for_status(conversation.client, {"id": conversation.id}, "complete")
    assert (turn["continued"], turn["turns_left_out"] > 0) == (1, True)
    assert tokens(model.accepted[-1]) <= 200
    turns, _ = conversation.show()
    assert [turn["content"].split()[0] for turn in turns] == ["Message", "Answer"] * 3 + [
        "Message",
        "HalfAnswer",
    ]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    conversation.go_on(2, first=5)
    assert conversation.show()[1]


def test_a_session_of_more_than_eight_megabytes_continues(one, provider):
    """At most the newest eight megabytes are read, and earlier turns are left out as usual."""
    provider.default = model = Model(10**9, kind=OPENAI, answer_size=5)
    conversation = Conversation(one.client(), model)
    for number in range(2, 11):
        assert (
            conversation.say(words(166_000, f"Message {number}:")).status_code == 201
        )  # almost a megabyte
    contents = sent_of(model.accepted[-1])
    assert len(json.dumps(model.accepted[-1])) < 8.1 * 2**20
    turns, first = conversation.show()
    assert turns[-1]["turns_left_out"] == 19 - len(contents) > 0
    assert next(turn["content"] for turn in turns if turn["id"] == first) == contents[0]
    model.window = 500_000
    turn = conversation.say("Go on.")
    assert turn.status_code == 201
    assert turn.json()["turns_left_out"] > 10


def test_all_turns_of_a_long_conversation_are_sent_in_order(one, provider):
    """They are read in two ways: the newest by number, older ones by size."""
    texts = [f"Turn {number}" + "世" * 120_000 * (number % 9 == 0) for number in range(60)]
    texts += [f"Turn {number}" for number in range(60, 140)]
    alice = one.client()
    session = imported(alice, turns=turns_of(*texts))
    answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "And now?"})
    assert answer.status_code == 201
    assert sent_of(provider.posts[-1].body) == [*texts, "And now?"]


def test_the_eight_megabyte_cut_stays_for_some_messages(one, provider):
    provider.default = model = Model(10**9, kind=OPENAI, answer_size=5)
    conversation = Conversation(one.client(), model)
    for number in range(2, 16):
        assert conversation.say(words(166_000, f"Message {number}:")).status_code == 201
    assert model.share > 0.7


def test_an_overflow_after_some_text_is_no_refusal_of_the_message(talk, provider):
    """LM Studio reports a full window in the middle of an answer: the message itself did fit."""
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [
        stream(thought(content="Half"), {"error": {"message": "Context size has been exceeded"}})
    ]
    assert conversation.say("Message 2.").status_code == 413
    assert conversation.show()[0][-1]["content"] == "Half"
    assert conversation.say("Message 3.").status_code == 201
    assert "Message 2." in sent_of(model.accepted[-1])


# Cases that could leave a wrong window, limit or context start for good


@pytest.mark.parametrize(
    "body", [None, {"content": words(10, "Changed:")}], ids=["as it is", "changed"]
)
def test_a_first_message_is_kept_after_its_reply_filled_the_window(talk, provider, body):
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [ended("length", words(200))]
    assert conversation.client.post(conversation.path + "/retry").json()["stop_reason"] == "length"
    assert (
        conversation.client.post(conversation.path + "/retry", body).json()["stop_reason"] == "stop"
    )
    assert conversation.say("Message 2.").json()["turns_left_out"] == 0
    assert len(sent_of(model.accepted[-1])) == 3
    assert conversation.show()[1] is None


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("tokens_written", [0, 1])
def test_a_full_window_without_a_word_leaves_turns_out(talk, provider, kind, tokens_written):
    if (kind, tokens_written) == (ANTHROPIC, 1):
        tokens_written = 2  # 1 is no placeholder at the end, but the stand-in cannot tell
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(4)
    provider.script = [
        ended("length" if kind == OPENAI else "max_tokens", "", (15, tokens_written, 0))
    ]
    turn = conversation.say("Message 6.").json()
    assert (turn["status"], turn["stop_reason"]) == ("complete", "stop")
    assert turn["turns_left_out"] > 0


def test_no_request_is_repeated_if_only_empty_replies_could_be_left_out(one, provider):
    model = Model(20)
    provider.default = model
    alice = one.client()
    response = alice.post("/sessions", {"content": words(30), "model": model.name})
    path = response.headers["Location"]
    for number in range(3):
        before = len(provider.posts)
        assert (
            alice.post(path + "/messages", {"content": words(30, f"Message {number}:")}).status_code
            == 413
        )
        assert len(provider.posts) == before + 1
    assert alice.post(path + "/messages", {"content": "Short."}).status_code == 201
    shown = alice.get(path)
    by_id = {turn["id"]: turn["content"] for turn in shown.json()["turns"]}
    assert by_id[shown.headers["First-Turn-Sent"]] == "Short."


def test_what_a_cancelled_reply_learned_about_the_window_is_kept(talk, provider):
    model, gate = Model(200), threading.Event()
    conversation = talk(model)
    conversation.go_on(2)
    before = len(provider.posts)
    provider.script = [model, reply("Half", gate)]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    provider.wait_for_request(before + 2)
    wait_until(lambda: conversation.show()[0][-1]["content"] == "Half")
    assert conversation.client.post(conversation.path + "/cancel").status_code == 200
    wait_until(lambda: conversation.show()[1] is not None)
    assert conversation.show()[0][-1]["turns_left_out"] > 0
    refused = len(model.refused)
    assert conversation.say("Message 5.").status_code == 201
    assert len(model.refused) == refused


def test_no_user_can_set_the_window_through_an_option(one, provider):
    """A provider may quote the value that it refuses."""
    text = "max_new_tokens` must be <= 4"
    response = one.client().post(
        "/sessions", {"content": "Hello", "options": {"reasoning_effort": text}}
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/reasoning_effort"}
    assert provider.posts == []
