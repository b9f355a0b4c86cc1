"""Retries, timeouts, pauses that a provider asks for, and hanging up.

Modules: `wire/call.py`.
"""

import email.utils
import json
import socket
import time

import pytest

from protocols import (
    CLAUDE,
    GPT,
    OWN_PAUSE,
    answered,
    at_any_time,
    both,
    by_any_way,
    choice,
    failed,
    message_start,
    pauses,
    stop,
)
from provider import (
    Provider,
    certificate,
    chunk,
    cut,
    head,
    openai_events,
    raw,
    reply,
    silence,
    status,
    stream,
)
from servers import running

GARBAGE = {
    "nothing": [],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n"],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-"],
}


@pytest.mark.parametrize("parts", GARBAGE.values(), ids=GARBAGE)
def test_a_request_is_retried_if_the_connection_breaks_before_the_answer(alice, provider, parts):
    provider.script = [raw(*parts)]
    assert answered(alice, GPT)["content"] == "The answer."
    assert len(provider.posts) == 2


@both
def test_a_silent_provider_is_given_up(lone, provider, model):
    provider.script = [silence(30)]
    response, error, turn = failed(lone.client(), model)
    assert (response.status_code, turn["content"]) == (504, "")
    assert "nothing of an answer in time" in error["detail"]
    assert len(provider.posts) == 1
    assert provider.posts[0].hung_up.wait(1)


@both
def test_a_provider_that_falls_silent_is_given_up(lone, provider, model):
    provider.script = [reply("So far", 30, ", no further")]
    response, _, turn = failed(lone.client(), model)
    assert (response.status_code, turn["content"]) == (504, "So far")
    assert provider.posts[0].hung_up.wait(1)


THOUGHTS = {
    "many servers": {"reasoning_content": "Hm"},
    "OpenRouter": {"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
    "Mistral": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]},
}


ODD_THOUGHTS = [{"text": "Hm"}, True, ["Hm"], [{"text": 5}], 5]


@pytest.mark.parametrize("delta", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_are_a_sign_of_life_and_comments_are_not(lone, provider, delta):
    """The thoughts go on longer than the timeout. A gateway sends comments even if its model hangs."""
    thought = chunk(f"data: {json.dumps(choice(**delta))}\n\n".encode())
    thoughts = [part for _ in range(8) for part in (thought, 0.1)]
    provider.script = [
        raw(
            head(Transfer_Encoding="chunked"),
            *thoughts,
            *map(chunk, openai_events(["The answer."])),
            chunk(b""),
        )
    ]
    assert answered(lone.client(), GPT)["content"] == "The answer."
    provider.script = [reply(*[b": ping\n\n", 0.1] * 30, "The answer.")]
    response, error, turn = failed(lone.client(), GPT)
    assert (response.status_code, turn["content"]) == (504, "")


@pytest.mark.parametrize("thoughts", ODD_THOUGHTS)
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "reasoning_details"])
def test_thoughts_of_an_unknown_shape_do_not_fail_the_reply(alice, provider, name, thoughts):
    provider.script = [
        reply(f"data: {json.dumps(choice(**{name: thoughts}))}\n\n".encode(), "The answer.")
    ]
    assert answered(alice, GPT)["content"] == "The answer."


@both
def test_a_request_is_tried_three_times_with_growing_pauses(alice, provider, model):
    provider.default = status(500)
    failed(alice, model)
    first, second = pauses(provider)
    assert OWN_PAUSE <= first < 3
    assert 2 * OWN_PAUSE <= second < 3


def test_a_request_is_retried_until_there_is_text(alice, provider):
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    provider.script = [stream(message_start(), overloaded), cut(), reply("At last.")]
    assert answered(alice, CLAUDE)["content"] == "At last."
    assert len(provider.posts) == 3


HTTP_DATE = email.utils.formatdate


@pytest.mark.parametrize(
    "headers, shortest, longest",
    [
        ({"retry_after_ms": "700", "retry_after": "9"}, 0.7, 3),
        ({"retry_after_ms": "odd", "retry_after": "0.7"}, 0.7, 3),
        ({"retry_after": "1"}, 1, 3),
        ({"retry_after": lambda: HTTP_DATE(time.time() + 2, usegmt=True)}, 0.9, 4),
        ({"retry_after": lambda: HTTP_DATE(time.time() - 60, usegmt=True)}, 0, OWN_PAUSE),
        ({"retry_after": "-5"}, 0, OWN_PAUSE),
        ({"retry_after": "odd"}, OWN_PAUSE, 3),
        ({"retry_after": "inf"}, OWN_PAUSE, 3),
        ({"retry_after_ms": "nan", "retry_after": "nan"}, OWN_PAUSE, 3),
    ],
)
def test_the_pause_is_as_long_as_the_provider_asks(alice, provider, headers, shortest, longest):
    headers = {name: value() if callable(value) else value for name, value in headers.items()}
    provider.script = [status(529, {}, **headers)]
    answered(alice, CLAUDE)
    [pause] = pauses(provider)
    assert shortest <= pause < longest


@pytest.mark.parametrize(
    "value, told", [("21", 21), ("59.2", 60), ("99999999999", 86400), ("1e300", 86400)]
)
def test_the_client_is_told_about_a_pause_that_is_too_long(alice, provider, value, told):
    provider.script = [status(429, {}, retry_after=value)]
    response, _, _ = failed(alice, CLAUDE)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == str(told)
    assert len(provider.posts) == 1


@pytest.mark.parametrize(
    "code, value, times", [(529, "false", 1), (400, "true", 2), (500, "maybe", 2)]
)
def test_x_should_retry_is_obeyed(alice, provider, code, value, times):
    provider.script = [status(code, {}, x_should_retry=value, retry_after_ms="1")]
    alice.post("/sessions", {"content": "Hello", "model": CLAUDE})
    assert len(provider.posts) == times


# Hanging up


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A server whose Anthropic URL speaks TLS, and whose OpenAI URL accepts connections and sends nothing."""
    folder = tmp_path_factory.mktemp("tls")
    path, context = certificate(folder)
    provider = Provider(context)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = {
            "REQUESTS_CA_BUNDLE": path,
            "ANTHROPIC_BASE_URL": provider.url,
            "OPENAI_BASE_URL": f"https://127.0.0.1:{mute.getsockname()[1]}/v1",
        }
        with running(folder, **settings) as server:
            yield server, provider, mute
    provider.close()


def check_that_it_hangs_up(alice, provider, model, begun, way):
    provider.script = [reply("So far", 30, ", no further") if begun else silence(30)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = iter(events)
        session = next(events).data
        asked = provider.wait_for_request()
        if begun:
            assert next(events).data == {"delta": "So far"}
        stop(alice, session, way)
        assert asked.hung_up.wait(1)
        if way == "cancel":
            turn, done = events
            assert turn.data["status"] == "interrupted"
            assert turn.data["content"] == ("So far" if begun else "")
        else:
            [error] = events
            assert error.data["status"] == 404
    assert len(provider.posts) == 1


@both
@at_any_time
@by_any_way
def test_a_stop_hangs_up_within_a_second(alice, provider, model, begun, way):
    check_that_it_hangs_up(alice, provider, model, begun, way)


@at_any_time
@by_any_way
def test_a_stop_hangs_up_within_a_second_over_tls(secure, begun, way):
    server, provider, _ = secure
    provider.reset()
    check_that_it_hangs_up(server.client(), provider, CLAUDE, begun, way)


@by_any_way
def test_a_stop_hangs_up_during_a_tls_handshake(secure, way):
    server, _, mute = secure
    alice = server.client()
    session = alice.post(
        "/sessions", {"content": "Hello", "model": GPT}, Prefer="respond-async"
    ).json()
    mute.settimeout(5)
    connection, _ = mute.accept()
    with connection:
        connection.settimeout(5)
        assert connection.recv(65536)
        stop(alice, session, way)
        connection.settimeout(1)
        assert connection.recv(65536) == b""


@by_any_way
def test_a_stopped_reply_is_not_retried(lone, provider, way):
    """The same process makes the next reply, after the pause before the retry would have ended."""
    alice = lone.client()
    provider.script = [status(529, {}, retry_after="0.4")]
    session = alice.post(
        "/sessions", {"content": "Hello", "model": CLAUDE}, Prefer="respond-async"
    ).json()
    provider.wait_for_request()
    stop(alice, session, way)
    provider.script = [reply(0.3, "After 0.3 ", 0.3, "and 0.6 seconds.")]
    assert answered(alice, GPT)["content"] == "After 0.3 and 0.6 seconds."
    assert len(provider.posts) == 2
