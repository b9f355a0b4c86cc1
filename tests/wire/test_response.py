"""Nothing leaks from one call to another: no connection is used again after an incomplete answer."""

import json

import pytest

import storm
from client import BOB
from connections import connected, connections_of, then_more
from protocols import CLAUDE, GPT, MESSAGE_STOP, WHOLE_ANSWERS, answered, choice, failed, stop
from provider import KEEP, asked, chunk, event, events_of, head, raw, reply, silence, status, stream

# No call sees anything of another


def test_no_connection_is_used_again_after_an_answer_that_is_too_long(line):
    """The body of this error never ends. Only the beginning of its text is used anyway."""
    sent = []

    def endless(request):
        yield head(400, "application/json", Transfer_Encoding="chunked")
        while len(sent) < 500:  # 32 MB, which take at least five seconds
            sent.append(chunk(b" " * 65536))
            yield sent[-1]
            yield 0.01

    answered(line.alice, GPT)
    line.provider.script = [endless]
    response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 502
    assert "status 400" in error["detail"]
    assert line.posts[1].hung_up.wait(1)
    assert len(sent) < 500
    answered(line.alice, GPT)
    assert line.posts[-1].connection is not line.posts[1].connection


UNREAD = {
    "a fault in the middle": then_more(b'data: {"error": {"message": "No."}}\n\n'),
    "something odd in the middle": then_more(b"data: {odd\n\n"),
}


def check_that_it_is_not_used_again(line, answer):
    answered(line.alice, GPT)
    line.provider.script = [answer]
    assert failed(line.alice, GPT)[0].status_code == 502
    asked = line.posts[1]
    assert len(line.posts) == 2
    assert asked.hung_up.wait(1)
    answered(line.alice, GPT)
    assert line.posts[2].connection is not asked.connection


@pytest.mark.parametrize("answer", UNREAD.values(), ids=UNREAD)
def test_no_connection_is_used_again_after_an_answer_that_was_not_read(line, answer):
    check_that_it_is_not_used_again(line, answer)


def test_no_connection_is_used_again_after_an_answer_shorter_than_its_length(impatient_line):
    check_that_it_is_not_used_again(
        impatient_line,
        raw(
            head(400, "application/json", Content_Length=1000), b'{"error": {"message": "No."}}', 30
        ),
    )


def in_one_packet(*parts):
    """A complete answer, followed by these events."""

    def answer(request):
        data = b"".join([*events_of(request, ["Well."]), *parts])
        yield head(Content_Length=len(data)) + data
        yield KEEP

    return answer


def without(member, model):
    """A complete answer that is not streamed, without this member at any level."""
    hook = lambda value: {name: value[name] for name in value if name != member}  # noqa: E731
    return status(200, json.loads(json.dumps(WHOLE_ANSWERS[model]), object_hook=hook))


NOT_WHOLE = {
    "an error": (GPT, status(400, {"error": {"message": "No."}})),
    "an error that passes": (GPT, status(429, {}, retry_after_ms="1")),
    "nothing": (GPT, raw(b"HTTP/1.1 204 No Content\r\n\r\n", KEEP)),
    "an empty stream": (CLAUDE, stream()),
    "an end alone": (CLAUDE, stream(MESSAGE_STOP)),
    "[DONE] alone": (GPT, stream("[DONE]")),
    "an answer without a word": (GPT, reply()),
    "[DONE] without a reason": (GPT, stream(choice(content="Well."), "[DONE]")),
    "a reason without [DONE]": (GPT, stream(choice(content="Well."), choice("stop"))),
    "a reason that is a fault": (GPT, reply("Well.", stop="error")),
    "an error of another status": (CLAUDE, status(200, {"error": {"message": "No."}})),
    "text": (GPT, status(200, "Well.")),
    "other JSON": (GPT, status(200, {"object": "list", "data": []})),
    "a message without a reason": (CLAUDE, without("stop_reason", CLAUDE)),
    "a choice without a reason": (GPT, without("finish_reason", GPT)),
    "an event behind [DONE]": (GPT, in_one_packet(event(choice(content="More.")))),
    "an event behind message_stop": (CLAUDE, in_one_packet(event(MESSAGE_STOP))),
    "a comment behind [DONE]": (
        GPT,
        stream(choice(content="Well."), choice("stop"), "[DONE]", 0.02, b": more\n\n"),
    ),
}


# The HTTP layer decides whether an answer is complete. It does not know about TLS.
@pytest.mark.parametrize("line_of_all", [False], indirect=True, ids=["plain"])
@pytest.mark.parametrize("model, answer", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_no_connection_is_used_again_after_an_incomplete_answer(line, model, answer):
    """With any framing, and even if the answer makes a complete reply."""
    line.provider.script, line.provider.default = [in_one_packet()], answer
    answered(line.alice, model)
    line.alice.post("/sessions", {"content": "Hello", "model": model})
    line.provider.default = reply("The answer.")
    answered(line.alice, model)
    first, second, *others = [post.connection for post in line.posts]
    assert first is second
    assert first not in others
    assert len(set(others)) == len(others)


STRAY = {
    "408": raw(head(408, Content_Length=0, retry_after_ms="1")),
    "429": status(429, {}, retry_after_ms="1"),
    "500": status(500, {"error": "x"}, retry_after_ms="1"),
    "403": status(403, {"error": "no"}),
    "204": raw(b"HTTP/1.1 204 No Content\r\nRetry-After-Ms: 1\r\n\r\n"),
    "an empty 200": raw(head(Content_Length=0)),
    "text": status(200, "LATE"),
    "a cut answer": stream(choice(content="So far")),
    "408, and an answer in its packet": raw(
        head(408, Content_Length=0, retry_after_ms="1") + storm.INTRUDER
    ),
}


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_no_user_gets_the_answer_to_another_users_message(line, stray):
    """A kept connection delivers a response that nobody requested, and then the right one."""
    alice, bob = line.alice, line.server.client(BOB)

    def slowly(request):
        yield 0.6  # like a model that thinks for longer than the pause before the second try
        yield from reply(f"For {asked(request)}.")(request)

    def behind_a_stray_one(request):
        yield from (part for part in stray(request) if part is not KEEP)
        yield from slowly(request)

    line.provider.script, line.provider.default = [in_one_packet(), behind_a_stray_one], slowly
    answered(alice, GPT)
    session = alice.post("/sessions", {"content": "Alice", "model": GPT})
    assert line.posts[1].connection is line.posts[0].connection
    assert answered(bob, GPT, "Bob")["content"] == "For Bob."
    assert "INTRUDER" not in session.text


def kept_open(version, **headers):
    """A complete answer from a server that leaves its connection open, whatever its headers say."""

    def answer(request):
        data = b"".join(events_of(request, ["Well."]))
        yield head(Content_Length=len(data), **headers).replace(b"HTTP/1.1", version) + data
        yield KEEP

    return answer


RELUCTANT = {
    "says that it closes": kept_open(b"HTTP/1.1", Connection="close"),
    "speaks HTTP/1.0": kept_open(b"HTTP/1.0"),
}


@pytest.mark.parametrize("answer", RELUCTANT.values(), ids=RELUCTANT)
def test_no_connection_is_used_again_if_the_provider_does_not_keep_it(line, answer):
    line.provider.script = [answer]
    assert answered(line.alice, GPT)["content"] == "Well."
    assert line.posts[0].hung_up.wait(1)
    answered(line.alice, GPT)
    assert len(connections_of(line.posts)) == len(line.posts) == 2


MORE = {"a byte": b"!", "another answer": storm.INTRUDER, "many answers": storm.INTRUDER * 40}


def with_more(more, framing, size):
    """A complete answer, and more data in its last packet, which begins after so many bytes of the answer."""

    def answer(request):
        events = b"".join(events_of(request, ["The ", "answer."]))
        end = chunk(b"") if framing == "chunked" else b""
        wrap = chunk if framing == "chunked" else bytes
        comments = (b":" * length + b"\n\n" for length in range(size + 1))
        data = next(
            comment + events for comment in comments if len(wrap(comment + events) + end) >= size
        )
        yield (
            head(Transfer_Encoding="chunked")
            if framing == "chunked"
            else head(Content_Length=len(data))
        )
        yield 0.05  # by now the client has read the head, and waits
        yield wrap(data) + end + more
        yield KEEP

    return answer


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize(
    "size", [0, 8192], ids=["", "behind a buffer"]
)  # Python reads 8192 bytes at once
def test_data_after_an_answer_is_ignored(line, more, framing, size):
    line.provider.script = [with_more(more, framing, size)]
    line.provider.default = reply("The next one.")
    assert answered(line.alice, GPT)["content"] == "The answer."
    for _ in range(3):
        assert answered(line.alice, GPT)["content"] == "The next one."
    assert len(line.posts) == 4  # none of them was retried


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_data_that_comes_before_the_request_is_ignored(line, more):
    answered(line.alice, GPT)
    line.posts[0].connection.send(more)
    line.provider.default = reply("The next one.")
    for _ in range(3):
        assert answered(line.alice, GPT)["content"] == "The next one."
    assert len(line.posts) == 4
    assert line.posts[1].connection is not line.posts[0].connection


def test_cancelled_replies_do_not_affect_other_replies(tmp_path):
    """Each thread makes many replies. Those that made the cancelled ones use kept connections next."""
    with connected(tmp_path, is_secure=True) as line:
        alice, provider = line.alice, line.provider
        provider.default = raw(0.01, storm.whole_answer("The answer."), KEEP)
        answered(alice, GPT)
        provider.script = [silence(30), reply("So far", 30)] * 4
        body = {"content": "Hello", "model": CLAUDE}
        sessions = [alice.post("/sessions", body, Prefer="respond-async").json() for _ in range(8)]
        provider.wait_for_request(9)
        for session in sessions:
            stop(alice, session, "cancel")
        for post in line.posts[1:]:
            assert post.hung_up.wait(1)
        for _ in range(8):
            assert answered(alice, GPT)["content"] == "The answer."
        assert len(line.posts) == 17
        assert connections_of([line.posts[0], *line.posts[9:]]) == [line.posts[0].connection]


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
def test_a_storm_of_requests_mixes_up_no_answers(tmp_path, is_secure):
    with connected(tmp_path, is_secure, MODEL_TIMEOUT=20) as line:
        storm.check_a_storm(*line, seed=1, count=250)
