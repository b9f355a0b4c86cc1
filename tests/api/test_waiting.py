"""What a stream says while the server waits for its provider: how long from now on. No text is lost."""

import itertools
import threading
import time

import pytest

from client import wait_until
from protocols import CLAUDE, GPT, pauses
from provider import cut, reply, status, thought

ASKED = {  # the headers of a refusal, and the seconds in the event
    "Anthropic is overloaded": (CLAUDE, 529, {"Retry_After": "2"}, 2),
    "OpenAI limits": (GPT, 429, {"Retry_After_Ms": "2001", "Retry_After": "9"}, 3),
}


def text_of(events):
    return "".join(each.data["delta"] for each in events if each.name == "content_delta")


def seconds_of(events):
    return [each.data["seconds"] for each in events if each.name == "waiting"]


def is_left(asked, told):
    """Whether `told` may be what is left of `asked`: on a busy machine, the event comes a little later."""
    return asked - 1 <= told <= asked


@pytest.fixture
def lone(start, settings):
    """A client of a server with one process, which writes every reply and has all streams."""
    return start(**settings, WEB_CONCURRENCY=1).client()


def retry(client, session):
    answer = client.post(f"/sessions/{session['id']}/retry", Prefer="respond-async")
    assert answer.status_code == 202


@pytest.mark.parametrize("model, code, headers, seconds", ASKED.values(), ids=ASKED)
def test_a_stream_says_how_long_the_server_waits_for_its_provider(
    alice, provider, model, code, headers, seconds
):
    provider.script = [status(code, {}, **headers), reply("The ", "answer.")]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as stream:
        session, waiting, *rest = stream
    assert (waiting.name, waiting.id) == ("waiting", session.id)
    assert is_left(seconds, waiting.data["seconds"])
    assert {each.name for each in rest} == {"content_delta", "assistant_turn", "done"}
    assert text_of(rest) == "The answer." == rest[-2].data["content"]
    [pause] = pauses(provider)
    assert seconds - 1 < pause < seconds + 3
    with alice.events(session.data) as stream:  # the event is not stored
        assert [each.name for each in stream] == ["content_delta", "assistant_turn", "done"]


def test_each_wait_has_an_event_unless_it_is_short(alice, provider):
    provider.script = [
        status(429, {}, Retry_After=2),
        status(429, {}, Retry_After_Ms=2500),
        reply("The answer."),
        status(429, {}, Retry_After=1),
        status(500, Retry_After_Ms=1),
        reply("The answer."),
    ]
    for waits in ([2, 3], []):
        with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
            events = list(stream)
        assert text_of(events) == "The answer."
        told = seconds_of(events)
        assert len(told) == len(waits) and all(map(is_left, waits, told)), told


def test_a_pause_that_is_too_long_is_an_error_and_no_wait(alice, provider):
    provider.script = [status(429, {}, Retry_After=21)]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        session, error = stream
    assert (error.name, error.data["status"]) == ("error", 503)
    assert error.data["message"].endswith("Ask again in 21 seconds.")


def test_a_stream_begun_during_a_wait_gets_the_time_that_is_left(lone, provider):
    session, gate = lone.create("Hello"), threading.Event()
    provider.script = [status(429, {}, Retry_After=4), reply("The ", gate, "answer.")]
    retry(lone, session)

    def first_of_events():
        with lone.events(session) as stream:
            return next(iter(stream))

    with lone.events(session) as stream:
        events = iter(stream)
        waiting = next(events)
        assert waiting.name == "waiting" and 2 <= waiting.data["seconds"] <= 4
        later = wait_until(lambda: (event := first_of_events()).data != waiting.data and event)
        assert (later.name, later.id) == ("waiting", waiting.id)
        assert 1 <= later.data["seconds"] < waiting.data["seconds"]
        provider.wait_for_request(3)  # the first request was for another reply
        assert first_of_events().name == "content_delta"  # the wait is over
        gate.set()
        rest = list(events)
    assert (seconds_of(rest), text_of(rest)) == ([], "The answer.")
    assert [each.name for each in rest][-2:] == ["assistant_turn", "done"]


def test_no_text_is_lost_if_a_stream_breaks_during_a_wait(lone, provider):
    session = lone.create("Hello")
    provider.script = [status(529, {}, Retry_After=2), reply("The ", "answer.")]
    retry(lone, session)
    with lone.events(session) as stream:
        waiting = next(iter(stream))
    assert waiting.name == "waiting"
    with lone.events(session, waiting.id) as stream:
        events = list(stream)
    assert text_of(events) == "The answer." == events[-2].data["content"]
    assert [each.name for each in events][-2:] == ["assistant_turn", "done"]


def test_a_wait_after_text_comes_after_it_in_later_streams_too(lone, provider):
    """The provider breaks off, is asked to continue, and asks for a pause."""
    session = lone.create("Hello")
    provider.script = [cut("Half, "), status(429, {}, Retry_After=2), reply("and whole.")]
    retry(lone, session)
    with lone.events(session) as stream:
        events = list(itertools.takewhile(lambda each: each.name != "waiting", stream))
        assert text_of(events) == "Half, "
        with lone.events(session) as another:
            of_another = list(another)
    assert [each.name for each in of_another][:2] == ["content_delta", "waiting"]
    assert of_another[0].id == of_another[1].id == events[-1].id
    assert of_another[0].data == {"delta": "Half, "} and 1 <= of_another[1].data["seconds"] <= 2
    assert text_of(of_another) == "Half, and whole." == of_another[-2].data["content"]


def test_a_wait_after_thinking_has_an_event_too(alice, provider):
    """The answer breaks off before its first word, so the request is repeated."""
    provider.script = [
        cut(thought(reasoning="Hm.")),
        status(429, {}, Retry_After=2),
        reply("Yes."),
    ]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = list(stream)
    assert [each.name for each in events] == [
        "session",
        "thinking",
        "waiting",
        "content_delta",
        "assistant_turn",
        "done",
    ]


@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_a_stop_ends_the_wait_at_once(alice, provider, way):
    provider.script = [status(429, {}, Retry_After=5)]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session, waiting = next(events).data, next(events)
        assert waiting.data == {"seconds": 5}
        began = time.monotonic()
        if way == "cancel":
            assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
        else:
            assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        rest = [each.name for each in events]
    assert time.monotonic() - began < 1.5  # a second, on a machine that may be busy
    assert rest == (["assistant_turn", "done"] if way == "cancel" else ["error"])
    assert len(provider.posts) == 1
