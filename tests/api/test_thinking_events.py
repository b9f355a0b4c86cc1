"""A model's thinking: streamed, kept next to the turn, and never a part of the answer."""

import itertools
import json
import threading
import time

import pytest

from client import wait_until
from provider import cut, event, reply, thought

CLAUDE, GPT = "claude-t", "t"


def thinking_path(session, turn):
    return f"/sessions/{session['id']}/turns/{turn['id']}/thinking"


THOUGHT = "Hm, 世界 👩‍👩‍👧."


def anthropic(kind="thinking_delta", name="thinking", text=THOUGHT):
    data = {"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: text}}
    return event(data, "content_block_delta")


THINKING = {  # docs.vllm.ai (reasoning_outputs), openrouter.ai/docs (reasoning-tokens), docs.mistral.ai, docs.anthropic.com
    "DeepSeek, SGLang, llama.cpp": (GPT, [thought(reasoning_content=THOUGHT)]),
    "vLLM, Ollama, Groq, Cerebras": (GPT, [thought(reasoning=THOUGHT)]),
    "OpenRouter, twice the same": (
        GPT,
        [
            thought(
                reasoning=THOUGHT, reasoning_details=[{"type": "reasoning.text", "text": THOUGHT}]
            )
        ],
    ),
    "both names": (GPT, [thought(reasoning=THOUGHT, reasoning_content=THOUGHT)]),
    "Mistral": (
        GPT,
        [thought(content=[{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}])],
    ),
    "Anthropic": (CLAUDE, [anthropic()]),
    "Anthropic, signed": (
        CLAUDE,
        [anthropic(), anthropic("signature_delta", "signature", "c2ln" * 50)],
    ),
    "Anthropic, in a block's beginning": (
        CLAUDE,
        [
            event(
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "thinking", "thinking": THOUGHT},
                },
                "content_block_start",
            )
        ],
    ),
}


@pytest.mark.parametrize("model, thoughts", THINKING.values(), ids=THINKING)
def test_a_stream_has_what_a_model_thinks(alice, provider, model, thoughts):
    gate = threading.Event()
    provider.script = [reply(*thoughts, gate, "The ", "answer.")]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as stream:
        events = iter(stream)
        session = next(events)
        thinking = next(events)
        told = {"characters": len(THOUGHT), "start": 0, "delta": THOUGHT}
        assert (thinking.name, thinking.data) == ("thinking", told)
        assert thinking.id == session.id
        assert alice.turns(session.data)[-1]["content"] == ""
        gate.set()
        rest = list(events)
    assert {each.name for each in rest} == {"content_delta", "assistant_turn", "done"}
    assert (
        "".join(each.data["delta"] for each in rest if each.name == "content_delta")
        == "The answer."
    )
    turn = alice.turns(session.data)[-1]
    assert rest[-2].data["thinking"] == turn["thinking"]
    assert turn["thinking"]["characters"] == len(THOUGHT)
    assert 0 <= turn["thinking"]["seconds"] < 10
    kept = alice.get(thinking_path(session.data, turn))
    assert (kept.status_code, kept.json()) == (200, {"text": THOUGHT})
    assert "世界" not in json.dumps(
        alice.get(f"/sessions/{session.data['id']}").json(), ensure_ascii=False
    )
    provider.script = [reply("More.")]
    alice.post(f"/sessions/{session.data['id']}/messages", {"content": "More"})
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        "Hello",
        "The answer.",
        "More",
    ]


SILENT = {
    "think later in the text": (
        GPT,
        ["Hello. ", "<think>Hm.</think>"],
        "Hello. <think>Hm.</think>",
    ),
    "white space, and a part of a tag": (GPT, ["\n <thi", "nk you>"], "\n <think you>"),
    "thought of Gemini": (GPT, ["<thought>Hm.</thought>Hello."], "<thought>Hm.</thought>Hello."),
    "empty thoughts": (
        GPT,
        [thought(reasoning_content=""), thought(reasoning=None), "Hello."],
        "Hello.",
    ),
    "hidden thoughts": (
        CLAUDE,
        [
            event(
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "redacted_thinking", "data": "c2VjcmV0"},
                },
                "content_block_start",
            ),
            "Hello.",
        ],
        "Hello.",
    ),
    "nothing": (GPT, ["Hello."], "Hello."),
}


@pytest.mark.parametrize("model, pieces, text", SILENT.values(), ids=SILENT)
def test_text_that_is_not_thinking_makes_no_thinking_event(alice, provider, model, pieces, text):
    provider.script = [reply(*pieces)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as stream:
        events = list(stream)
    assert {each.name for each in events} == {"session", "content_delta", "assistant_turn", "done"}
    assert events[-2].data["content"] == text


@pytest.mark.parametrize("model", [GPT, CLAUDE])
def test_thoughts_between_tags_are_not_the_answer(alice, provider, model):
    provider.script = [reply("<thi", "nk>Hm.</", "think>\n\n", "Hello <think>x</think>")]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as stream:
        events = list(stream)
    assert events[1].name == "thinking"
    assert events[1].data == {"characters": 3, "start": 0, "delta": "Hm."}
    deltas = [each.data["delta"] for each in events if each.name == "content_delta"]
    assert "".join(deltas) == events[-2].data["content"] == "Hello <think>x</think>"


def test_an_unclosed_tag_was_text_if_the_answer_ended_normally(alice, provider):
    gate = threading.Event()
    provider.script = [reply("<think>Hm.", gate, " Hello.")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session, thinking = next(events), next(events)
        assert thinking.data == {"characters": 3, "start": 0, "delta": "Hm."}
        gate.set()
        rest = [each for each in events if each.name != "thinking" or each.data["start"] == 0]
    assert rest[0].data == {"characters": 0, "start": 0, "delta": ""}
    assert rest[1].data == {"delta": "<think>Hm. Hello."}
    turn = alice.turns(session.data)[1]
    assert (turn["content"], turn["thinking"]) == ("<think>Hm. Hello.", None)
    assert alice.get(thinking_path(session.data, turn)).status_code == 404


def test_an_unclosed_tag_was_thinking_if_a_limit_was_reached(alice, provider):
    provider.script = [reply("<think>Hm.", " Hello.", stop="length")]
    limited = {"content": "Hello", "options": {"max_tokens": 7}}  # as many as the stub counts
    failed = alice.post("/sessions", limited)
    assert failed.status_code == 502
    assert alice.turns({"id": failed.headers["Location"].split("/")[-1]})[1]["content"] == ""


def test_a_model_may_think_again_before_it_continues_and_repeats(alice, provider):
    """Text that it repeats is recognized after the closing tag."""
    text = "Once upon a time there was a programmer who"
    provider.script = [
        cut("<think>Hm.</think>", text),
        reply("<think>Where was I?</think>\n\n", text, " never slept."),
    ]
    assert alice.turns(alice.create())[1]["content"] == text + " never slept."
    provider.script = [cut(text), reply("<think>Where?</think>\n\n", " never ", "slept.")]
    assert alice.turns(alice.create())[1]["content"] == text + " never slept."


def test_thinking_is_sent_at_most_four_times_a_second_and_each_part_once(alice, provider):
    provider.script = [reply(*[thought(reasoning="Hm, so."), 0.05] * 50, "The answer.")]
    times, text = [], ""
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        for each in stream:
            if each.name == "thinking":
                times.append(time.monotonic())
                assert each.data["start"] == len(text)
                text += each.data["delta"]
                assert each.data["characters"] == len(text)
    assert text == "Hm, so." * 50
    assert len(times) > 4
    for first, fifth in zip(times, times[4:], strict=False):
        assert fifth - first > 0.9


def test_with_count_only_characters_are_sent_and_nothing_is_kept(start, settings, provider):
    alice = start(**settings, THINKING="count").client()
    provider.script = [reply(*[thought(reasoning="Hm, so."), 0.05] * 50, "The answer.")]
    seen = []
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        for each in stream:
            if each.name == "thinking":
                assert each.data.keys() == {"characters"}
                seen.append((time.monotonic(), each.data["characters"]))
    times, counts = zip(*seen, strict=True)
    assert 2 <= len(seen) <= (times[-1] - times[0]) / 0.9 + 1
    assert counts[0] == 7 and list(counts) == sorted(set(counts)) and counts[-1] <= 350
    [session] = alice.get("/sessions").json()["data"]
    turn = alice.turns(session)[-1]
    assert turn["thinking"] is None
    assert alice.get(thinking_path(session, turn)).status_code == 404


def test_with_live_thinking_is_sent_and_only_its_figures_are_kept(start, settings, provider):
    alice = start(**settings, THINKING="live").client()
    provider.script = [reply(thought(reasoning="Hm."), "The answer.")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = list(stream)
    assert events[1].data == {"characters": 3, "start": 0, "delta": "Hm."}
    turn = alice.turns(events[0].data)[-1]
    assert turn["thinking"]["characters"] == 3
    gone = alice.get(thinking_path(events[0].data, turn))
    assert gone.status_code == 404
    assert "THINKING" in gone.json()["errors"][0]["detail"]


def test_a_quarter_of_a_million_characters_are_kept_and_all_are_counted(alice, provider):
    part = "Hm, 世. " * 5000
    provider.script = [reply(*[thought(reasoning=part)] * 10, "The answer.")]
    text, counts = "", []
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = list(stream)
    for each in events:
        if each.name == "thinking":
            assert each.data["start"] == len(text)
            text += each.data["delta"]
            counts.append(each.data["characters"])
    everything = part * 10
    assert text == everything[:262_144]
    assert counts[-1] == len(everything)
    turn = alice.turns(events[0].data)[-1]
    assert turn["thinking"]["characters"] == len(everything)
    kept = alice.get(thinking_path(events[0].data, turn)).json()
    assert kept["text"] == everything[:262_144]


NOT_THERE = {
    "the user's turn": lambda session, turns: (session, turns[0]["id"]),
    "no turn": lambda session, turns: (session, str(int(turns[1]["id"]) + 1)),
    "no number": lambda session, turns: (session, "x"),
    "too large a number": lambda session, turns: (session, "9" * 19),
    "another session": lambda session, turns: (turns[2], turns[1]["id"]),
}


@pytest.mark.parametrize("place", NOT_THERE.values(), ids=NOT_THERE)
def test_missing_thinking_is_a_404(alice, bob, provider, place):
    provider.script = [reply(thought(reasoning="Hm."), "The answer.")]
    session, other = alice.create(), alice.create()
    turns = alice.turns(session)
    assert bob.get(thinking_path(session, turns[1])).status_code == 404
    session, turn_id = place(session, [*turns, other])
    assert alice.get(thinking_path(session, {"id": turn_id})).status_code == 404


@pytest.mark.parametrize("stop, words", [("length", "MAX_TOKENS"), ("stop", "thought")])
def test_a_reply_with_only_thinking_fails_and_keeps_it(alice, provider, stop, words):
    provider.script = [reply(thought(reasoning="Hm."), stop=stop)]
    limited = {"content": "Hello", "options": {"max_tokens": 7}}  # as many as the stub counts
    failed = alice.post("/sessions", limited)
    assert failed.status_code == 502
    assert words in failed.json()["errors"][0]["detail"]
    session = {"id": failed.headers["Location"].split("/")[-1]}
    turn = alice.turns(session)[1]
    assert (turn["status"], turn["content"], turn["usage"]["output_tokens"]) == ("failed", "", 7)
    assert alice.get(thinking_path(session, turn)).json()["text"] == "Hm."
    provider.script = [reply("The answer.")]
    assert alice.post(f"/sessions/{session['id']}/retry").json()["content"] == "The answer."


def test_thoughts_of_several_calls_are_joined_in_order(alice, provider):
    provider.script = [
        cut(thought(reasoning="Hm."), "Once upon a time there was a programmer who"),
        reply(thought(reasoning="So."), " never slept."),
    ]
    session = alice.create()
    turn = alice.turns(session)[1]
    assert turn["content"] == "Once upon a time there was a programmer who never slept."
    kept = alice.get(thinking_path(session, turn)).json()
    assert (kept["text"], turn["thinking"]["characters"]) == ("Hm.\n\nSo.", 8)


def test_lone_surrogates_and_nul_in_thoughts_are_replaced(alice, provider):
    odd = thought(reasoning="a0b1c").replace(b"a0b1c", rb"a\u0000b\ud800c")
    provider.script = [reply(odd, "The answer.")]
    session = alice.create()
    kept = alice.get(thinking_path(session, alice.turns(session)[1])).json()
    assert kept["text"] == "a\ufffdb\ufffdc"


def test_no_text_is_lost_if_a_stream_breaks_after_thinking(alice, provider):
    first, second = threading.Event(), threading.Event()
    provider.script = [reply(thought(reasoning="Hm."), first, "The ", "answer", second, ".")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        session, thinking = itertools.islice(stream, 2)
    first.set()
    wait_until(lambda: alice.turns(session.data)[-1]["content"] == "The answer")
    second.set()
    with alice.events(session.data, thinking.id) as stream:
        events = list(stream)
    assert (
        "".join(each.data["delta"] for each in events if each.name == "content_delta")
        == "The answer."
    )
    assert [each.name for each in events][-2:] == ["assistant_turn", "done"]


def test_a_stream_begun_while_a_model_thinks_has_all_thinking_and_resumes(
    provider, start, settings
):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, gate = server.client(), threading.Event()
    session = alice.create("Hello")
    provider.script = [reply(thought(reasoning="Hm."), gate, "The answer.")]
    assert alice.post(f"/sessions/{session['id']}/retry", Prefer="respond-async").status_code == 202
    for _ in range(2):
        with alice.events(session) as stream:
            thinking = next(iter(stream))
        told = {"characters": 3, "start": 0, "delta": "Hm."}
        assert (thinking.name, thinking.data) == ("thinking", told)
    with alice.events(session, thinking.id) as stream:
        events = iter(stream)
        assert next(events).data["start"] == 0
        gate.set()
        assert [each.name for each in events] == ["content_delta", "assistant_turn", "done"]


def test_thinking_after_text_is_sent_too(alice, provider):
    provider.script = [
        reply(
            thought(reasoning="Hm."), 0.1, "The ", 1.1, thought(reasoning="Hm, hm."), 0.3, "answer."
        )
    ]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = [
            (each.name, each.data.get("characters"), each.data.get("start")) for each in stream
        ]
    names = [
        "session",
        "thinking",
        "content_delta",
        "thinking",
        "content_delta",
        "assistant_turn",
        "done",
    ]
    counts = [None, 3, None, 12, None, None, None]  # the thoughts are joined by a blank line
    starts = [None, 0, None, 3, None, None, None]
    assert events == list(zip(names, counts, starts, strict=True))


def test_a_cancel_while_a_model_thinks_ends_the_stream(alice, provider):
    provider.script = [reply(thought(reasoning="Hm."), threading.Event())]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session, thinking = next(events), next(events)
        assert thinking.name == "thinking"
        assert alice.post(f"/sessions/{session.data['id']}/cancel").status_code == 200
        assert [each.name for each in events] == ["assistant_turn", "done"]
    turn = alice.turns(session.data)[1]
    wait_until(lambda: alice.get(thinking_path(session.data, turn)).status_code == 200)
    assert alice.get(thinking_path(session.data, turn)).json()["text"] == "Hm."
