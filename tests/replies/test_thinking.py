"""A model's thinking as the reply's writer keeps it, and what is left of it if the writer dies.

Modules: `replies/thinking.py`.
"""

import threading

import pytest

from client import wait_until
from provider import reply, thought
from replies.thinking import MOST, NewThoughts, Thinking, Thoughts

TURN, FENCE = 7, 99


def stored(thinking, now, is_over=False):
    """Store what is due, and return it."""
    new = thinking.to_store(TURN, FENCE, now, is_over)
    if new:
        thinking.mark_stored(new, now)
    return new


def test_followers_get_thinking_three_times_a_second_and_the_rest_when_text_follows():
    thinking = Thinking("keep")
    assert thinking.add("a", 1, 10.0) == Thoughts("a", 1)
    assert thinking.add("b", 1, 10.1) is None
    assert thinking.news(10.3) is None
    assert thinking.news(10.4) == Thoughts("ab", 2)
    assert thinking.news(11.0) is None
    assert thinking.add("c", 1, 11.0) == Thoughts("abc", 3)
    assert thinking.add("d", 1, 11.1) is None
    assert thinking.end_phase(11.2) == Thoughts("abcd", 4)
    assert thinking.end_phase(11.3) is None


def test_alternating_thinking_and_text_is_sent_four_times_a_second():
    thinking, told = Thinking("keep"), []
    for tenth in range(100, 150):
        now = tenth / 10
        told += [
            now for thoughts in (thinking.add("x", 1, now), thinking.end_phase(now)) if thoughts
        ]
    assert len(told) > 15
    assert all(later - time > 0.9 for time, later in zip(told, told[4:], strict=False))
    assert thinking.remaining() == Thoughts("\n\n".join("x" * 50), 148)


def test_thinking_that_an_earlier_writer_did_not_keep_is_not_sent_as_empty():
    thinking = Thinking("live", "", 3, 1500)
    assert thinking.tell() == Thoughts(None, 3)
    assert thinking.add("x", 1, 10.0) == Thoughts("\n\nx", 6)


def test_each_part_is_stored_once_every_two_seconds_and_when_text_follows():
    thinking = Thinking("keep")
    thinking.add("ab", 1, 10.0)
    assert stored(thinking, 11.9) is None
    assert stored(thinking, 12.0) == NewThoughts(TURN, FENCE, 0, "ab", False, 2, 2000)
    thinking.add("c", 1, 12.5)
    assert stored(thinking, 13.9) is None
    thinking.end_phase(13.5)
    assert stored(thinking, 13.6) == NewThoughts(TURN, FENCE, 2, "c", False, 3, 3500)
    assert stored(thinking, 99.0, is_over=True) is None


def test_what_was_not_stored_is_stored_with_what_follows():
    thinking = Thinking("keep")
    thinking.add("ab", 1, 10.0)
    assert thinking.to_store(TURN, FENCE, 12.0).text == "ab"
    thinking.add("c", 1, 12.1)
    assert stored(thinking, 12.2) == NewThoughts(TURN, FENCE, 0, "abc", False, 3, 2200)


def test_thinking_of_another_call_or_after_text_follows_a_blank_line():
    thinking = Thinking("keep")
    thinking.add("a", 1, 10.0)
    thinking.add("b", 2, 11.0)
    thinking.end_phase(12.0)
    thinking.add("c", 2, 15.0)
    assert thinking.end_phase(15.5) == Thoughts("a\n\nb\n\nc", 7)
    assert thinking.figures(99.0) == (7, 2500)


def test_thinking_continues_after_what_another_process_stored():
    thinking = Thinking("keep", "ab", 2, 1500)
    thinking.add("c", 1, 10.0)
    assert stored(thinking, 12.0) == NewThoughts(TURN, FENCE, 2, "\n\nc", False, 5, 3500)


def test_thinking_before_the_discarded_part_stays():
    thinking = Thinking("keep")
    thinking.add("a", 1, 10.0)
    thinking.end_phase(10.5)
    thinking.add("b", 2, 11.0)
    stored(thinking, 13.0)
    assert thinking.take_back() == Thoughts("a", 1, 1)
    new = NewThoughts(TURN, FENCE, 0, "a", True, 1, 500, 1)
    assert stored(thinking, 13.1, is_over=True) == new
    thinking.add("c", 3, 20.0)
    assert thinking.end_phase(21.0) == Thoughts("a\n\nc", 4, 1)


def test_all_thinking_can_be_discarded():
    thinking = Thinking("keep")
    thinking.add("b", 1, 11.0)
    assert thinking.take_back() == Thoughts("", 0, 1)
    new = NewThoughts(TURN, FENCE, 0, "", True, None, None, 1)
    assert stored(thinking, 11.1, is_over=True) == new
    assert thinking.take_back() is None


def test_thinking_discarded_while_it_is_stored_is_stored_anew():
    thinking = Thinking("keep")
    thinking.add("b", 1, 11.0)
    before = thinking.to_store(TURN, FENCE, 13.0)
    thinking.take_back()
    thinking.mark_stored(before, 13.1)
    new = NewThoughts(TURN, FENCE, 0, "", True, None, None, 1)
    assert stored(thinking, 13.2, is_over=True) == new


def test_no_more_than_a_quarter_of_a_million_characters_are_kept():
    thinking = Thinking("keep")
    for number in range(5):
        thinking.add("x" * 60_000, 1, float(number))
    told = thinking.end_phase(9.0)
    assert (len(told.text), told.characters) == (MOST, 300_000)
    new = stored(thinking, 9.0, is_over=True)
    assert (len(new.text), new.characters) == (MOST, 300_000)


# What clients see of it


@pytest.fixture
def two(start, settings):
    """Two servers with one database."""
    settings |= {"WEB_CONCURRENCY": 1, "REPLY_WAIT": 1}
    return start(**settings), start(**settings)


def thinking_of(client, session):
    turn = client.turns(session)[-1]
    response = client.get(f"/sessions/{session['id']}/turns/{turn['id']}/thinking")
    return response.json()["text"] if response.ok else None


def test_a_stream_of_another_process_gets_what_is_stored(two, provider):
    writer, other = two
    more, answer = threading.Event(), threading.Event()
    provider.script = [
        reply(thought(reasoning="Hm."), more, thought(reasoning=" So."), answer, "The answer.")
    ]
    response = writer.client().post("/sessions", {"content": "Hello"}, Prefer="respond-async")
    session = {"id": response.headers["Location"].split("/")[2]}
    with other.client().events(session) as stream:
        events = iter(stream)
        assert next(events).data == {"characters": 3, "start": 0, "delta": "Hm."}
        assert other.client().turns(session)[-1]["thinking"]["characters"] == 3
        more.set()
        assert next(events).data == {"characters": 7, "start": 3, "delta": " So."}
        answer.set()
        assert [each.name for each in events] == ["content_delta", "assistant_turn", "done"]


def test_what_a_killed_process_stored_stays_and_the_rest_comes_after_it(two, provider):
    writer, other = two
    alice, again, answer = other.client(), threading.Event(), threading.Event()
    provider.script = [
        reply(thought(reasoning="Hm."), threading.Event()),
        reply("<thi", again, "nk>So.</think>\n", answer, "The answer."),
    ]
    response = writer.client().post("/sessions", {"content": "Hello"}, Prefer="respond-async")
    session = {"id": response.headers["Location"].split("/")[2]}
    with alice.events(session) as stream:
        events = iter(stream)
        assert next(events).data == {"characters": 3, "start": 0, "delta": "Hm."}
        writer.kill()
        provider.wait_for_request(2, seconds=20)
        assert thinking_of(alice, session) == "Hm."
        again.set()
        thinking = next(events)
        assert thinking.data["start"] == 0, "another process writes it"
        text = thinking.data["delta"]
        while text != "Hm.\n\nSo.":
            thinking = next(events)
            text = text[: thinking.data["start"]] + thinking.data["delta"]
        answer.set()
        rest = list(events)
    assert [each.name for each in rest] == ["content_delta", "assistant_turn", "done"]
    assert rest[0].data == {"delta": "The answer."}
    assert thinking_of(alice, session) == "Hm.\n\nSo."
    assert rest[-2].data["thinking"]["characters"] == 8


def test_thinking_stays_if_a_process_is_killed_during_the_text(two, provider):
    writer, other = two
    alice = other.client()
    text = "Once upon a time there was a programmer who"
    provider.script = [
        reply(thought(reasoning="Hm."), text, threading.Event()),
        reply("<think>Where was I?</think>", text, " never slept."),
    ]
    response = writer.client().post("/sessions", {"content": "Hello"}, Prefer="respond-async")
    session = {"id": response.headers["Location"].split("/")[2]}
    wait_until(lambda: alice.turns(session)[-1]["content"] == text)
    writer.kill()
    with alice.events(session) as stream:
        events = list(stream)
    assert events[-2].data["content"] == f"{text} never slept."
    assert thinking_of(alice, session) == "Hm.\n\nWhere was I?"


def test_a_continued_reply_keeps_its_thinking(alice, provider):
    text = "Once upon a time there was a programmer who"
    provider.script = [
        reply(thought(reasoning="Hm."), text, stop="length"),
        reply(thought(reasoning="So."), " never slept."),
    ]
    session = alice.create()
    assert thinking_of(alice, session) == "Hm."
    with alice.stream("POST", f"/sessions/{session['id']}/continue") as stream:
        events = list(stream)
    told = ""
    for each in events:
        if each.name == "thinking":
            told = told[: each.data["start"]] + each.data["delta"]
    assert told == "Hm.\n\nSo."
    assert events[-2].data["content"] == f"{text} never slept."
    assert thinking_of(alice, session) == "Hm.\n\nSo."
