"""What a stream tells while a model thinks: how much so far, never what, and nothing of the answer is lost by it."""

import itertools
import json
import threading
import time

import pytest

from client import wait_until
from provider import cut, event, reply, thought

CLAUDE, GPT = "claude-t", "t"
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
def test_a_stream_tells_how_much_a_model_has_thought(alice, provider, model, thoughts):
    gate = threading.Event()
    provider.script = [reply(*thoughts, gate, "The ", "answer.")]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as stream:
        events = iter(stream)
        session = next(events)
        thinking = next(events)
        assert (thinking.name, thinking.data) == ("thinking", {"characters": len(THOUGHT)})
        assert thinking.id == session.id
        assert alice.turns(session.data)[-1]["content"] == ""
        gate.set()
        rest = list(events)
    assert {each.name for each in rest} == {"content_delta", "assistant_turn", "done"}
    assert (
        "".join(each.data["delta"] for each in rest if each.name == "content_delta")
        == "The answer."
    )
    with alice.events(session.data) as stream:
        assert [each.name for each in stream] == ["content_delta", "assistant_turn", "done"]
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
def test_what_is_no_thought_is_not_told(alice, provider, model, pieces, text):
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
    assert "".join(each.data.get("delta", "") for each in events) == "Hello <think>x</think>"
    assert events[-2].data["content"] == "Hello <think>x</think>"


def test_a_tag_that_is_never_closed_was_text_if_the_answer_came_to_its_end(alice, provider):
    provider.script = [reply("<think>Hm.", " Hello.")]
    session = alice.create()
    assert alice.turns(session)[1]["content"] == "<think>Hm. Hello."


def test_a_tag_that_is_not_closed_when_a_limit_is_reached_was_thinking(alice, provider):
    provider.script = [reply("<think>Hm.", " Hello.", stop="length")]
    limited = {"content": "Hello", "options": {"max_tokens": 7}}  # as many as the stub counts
    failed = alice.post("/sessions", limited)
    assert failed.status_code == 502
    assert alice.turns({"id": failed.headers["Location"].split("/")[-1]})[1]["content"] == ""


def test_a_model_thinks_again_before_it_goes_on_and_repeats(alice, provider):
    """What it repeats is recognised after the closing tag."""
    text = "Once upon a time there was a programmer who"
    provider.script = [
        cut("<think>Hm.</think>", text),
        reply("<think>Where was I?</think>\n\n", text, " never slept."),
    ]
    assert alice.turns(alice.create())[1]["content"] == text + " never slept."
    provider.script = [cut(text), reply("<think>Where?</think>\n\n", " never ", "slept.")]
    assert alice.turns(alice.create())[1]["content"] == text + " never slept."


def test_it_is_told_once_a_second_at_most_and_grows(alice, provider):
    provider.script = [reply(*[thought(reasoning="Hm, so."), 0.05] * 50, "The answer.")]
    seen = []
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        for each in stream:
            if each.name == "thinking":
                seen.append((time.monotonic(), each.data["characters"]))
    times, counts = zip(*seen, strict=True)
    assert 2 <= len(seen) <= (times[-1] - times[0]) / 0.9 + 1
    assert counts[0] == 7 and list(counts) == sorted(set(counts)) and counts[-1] <= 350


def test_nothing_is_lost_by_a_cut_behind_a_thought(alice, provider):
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


def test_who_comes_while_a_model_thinks_is_told_too_and_resumes_behind_it(
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
        assert (thinking.name, thinking.data) == ("thinking", {"characters": 3})
    with alice.events(session, thinking.id) as stream:
        events = iter(stream)
        assert next(events).name == "thinking"
        gate.set()
        assert [each.name for each in events] == ["content_delta", "assistant_turn", "done"]


def test_a_model_that_thinks_again_behind_text_is_told_of_too(alice, provider):
    """Another second has passed by then."""
    provider.script = [
        reply(
            thought(reasoning="Hm."), 0.1, "The ", 1.1, thought(reasoning="Hm, hm."), 0.3, "answer."
        )
    ]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = [(each.name, each.data.get("characters")) for each in stream]
    names = [
        "session",
        "thinking",
        "content_delta",
        "thinking",
        "content_delta",
        "assistant_turn",
        "done",
    ]
    assert events == list(zip(names, [None, 3, None, 10, None, None, None], strict=True))


def test_a_cancel_while_a_model_thinks_ends_the_stream(alice, provider):
    provider.script = [reply(thought(reasoning="Hm."), threading.Event())]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session, thinking = next(events), next(events)
        assert thinking.name == "thinking"
        assert alice.post(f"/sessions/{session.data['id']}/cancel").status_code == 200
        assert [each.name for each in events] == ["assistant_turn", "done"]
