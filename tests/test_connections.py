"""Connections to providers: kept, replaced where they have ended meanwhile, and never a way from one call to another."""

import base64
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import queue
import re
import signal
import socket
import ssl
import sys
import threading
import time
from typing import NamedTuple

import pytest

import storm
import wire
from client import BOB, ROOT, Server, free_port, make_token, running
from provider import (
    KEEP,
    Connection,
    Provider,
    asked,
    certificate,
    chunk,
    cut,
    event,
    events_of,
    head,
    raw,
    reply,
    silence,
    so_far,
    status,
    stream,
)
from test_auth import ED25519, jwk, jwks, status_of
from test_llm import (
    CLAUDE,
    GPT,
    MESSAGE_STOP,
    OWN_PAUSE,
    WHOLE_ANSWERS,
    answered,
    at_any_time,
    both,
    by_any_way,
    choice,
    failed,
    pauses,
    stop,
)
from wire import routes

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="it looks at Linux's own view of its connections"
)


class Line(NamedTuple):
    """A server of one worker, and the provider that it asks."""

    server: Server
    provider: Provider

    @property
    def alice(self):
        return self.server.client()

    @property
    def posts(self):
        return self.provider.posts


@contextlib.contextmanager
def connected(folder, is_secure, host="127.0.0.1", **settings):
    path, context = certificate(folder)
    provider = Provider(context if is_secure else None)
    url = provider.url.replace("127.0.0.1", host)
    settings = {
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": url + "/v1",
        "DEFAULT_MODEL": GPT,
        "REQUESTS_CA_BUNDLE": path,
    } | settings
    with running(folder, **settings) as server:
        yield Line(server, provider)
    provider.close()


on_both_lines = {"params": [False, True], "ids": ["plain", "TLS"]}


@pytest.fixture(scope="module", **on_both_lines)
def line_of_all(request, tmp_path_factory):
    # No reply goes on: a break behind its first words is the end of it.
    with connected(
        tmp_path_factory.mktemp("line"), request.param, MODEL_TIMEOUT=20, CONTINUE_LIMIT=0
    ) as line:
        yield line


@pytest.fixture
def line(line_of_all):
    """Nothing has been asked on it yet, and no connection is open."""
    line_of_all.provider.reset()
    line_of_all.provider.disconnect()
    return line_of_all


@pytest.fixture(**on_both_lines)
def impatient_line(request, tmp_path):
    with connected(tmp_path, request.param, MODEL_TIMEOUT=1.5) as line:
        yield line


def connections_of(requests):
    """The connections on which these came, in the order of their first requests."""
    return list(dict.fromkeys(request.connection for request in requests))


# They are kept


@both
def test_asks_again_on_the_same_connection(line, model):
    for _ in range(4):
        answered(line.alice, model)
    assert line.provider.connections == connections_of(line.posts)
    assert len(line.provider.connections) == 1
    assert "close" not in [request.headers.get("connection", "").lower() for request in line.posts]


def answered_at_once(line, count):
    """So many replies, of which none ends before all have been asked for."""
    gate, before = threading.Event(), len(line.posts)
    line.provider.default = reply("The ", gate, "answer.")
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        turns = [pool.submit(answered, line.alice, GPT) for _ in range(count)]
        line.provider.wait_for_request(before + count)
        gate.set()
        assert [turn.result()["content"] for turn in turns] == ["The answer."] * count


def test_keeps_as_many_connections_as_it_needed_at_once(line):
    answered_at_once(line, 20)
    answered_at_once(line, 20)
    assert len(line.provider.connections) == 20


def test_keeps_all_connections_of_its_first_moment(tmp_path):
    """There is nothing yet that they could share; whatever is made for all of them is made once."""
    with connected(tmp_path, is_secure=True) as line:
        answered_at_once(line, 16)
        answered_at_once(line, 16)
        assert len(line.provider.connections) == 16


@both
def test_keeps_its_connection_behind_an_answer_that_is_not_streamed(line, model):
    line.provider.default = status(200, WHOLE_ANSWERS[model])
    for _ in range(3):
        assert answered(line.alice, model)["content"] == "All of it."
    assert len(line.provider.connections) == 1


@both
def test_keeps_its_connection_whatever_ends_the_lines(line, model):
    def answer(request):
        data = b"".join(events_of(request, ["Well."])).replace(b"\n", b"\r\n")
        yield head(Transfer_Encoding="chunked")
        yield chunk(b"\xef\xbb\xbf: hello\r\n\r\n" + data) + chunk(b"")
        yield KEEP

    line.provider.default = answer
    for _ in range(3):
        assert answered(line.alice, model)["content"] == "Well."
    assert len(line.provider.connections) == 1


def test_lists_models_on_the_connection_of_the_replies(provider, tmp_path):
    provider.models = ["claude-x", "m-1"]
    with running(
        tmp_path, ANTHROPIC_BASE_URL=provider.url, OPENAI_BASE_URL=provider.url + "/v1"
    ) as server:
        assert len(server.client().get("/models").json()["data"]) == 2
        answered(server.client(), CLAUDE)
        answered(server.client(), GPT)
    used = {request.path: request.connection for request in provider.requests}
    assert used["/v1/messages"] is used["/v1/models?limit=1000"]
    assert used["/v1/chat/completions"] is used["/v1/models"]


def test_lists_models_on_a_new_connection_where_the_old_one_has_ended(provider, tmp_path):
    answers = iter([raw()])
    provider.models = lambda request: next(answers, status(200, {"data": [{"id": "m-7"}]}))(request)
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        answered(server.client(), GPT)
        assert [model["id"] for model in server.client().get("/models").json()["data"]] == ["m-7"]
    reply, *lists = provider.requests
    assert len(lists) == 2
    assert lists[0].connection is reply.connection


NO_LISTS = {
    "an error": status(404),
    "no model": status(200, {"data": []}),
    "no id": status(200, {"data": [{}]}),
}


@pytest.mark.parametrize("answer", NO_LISTS.values(), ids=NO_LISTS)
def test_asks_on_no_connection_whose_list_names_no_model(provider, tmp_path, answer):
    provider.models = answer
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL=GPT) as server:
        server.client().get("/models")
        answered(server.client(), GPT)
    assert len(connections_of(provider.requests)) == len(provider.requests) > 1


def test_asks_for_titles_on_kept_connections(provider, tmp_path):
    """A title is asked for at the same time as the reply, so there are two; the next session needs no more."""
    provider.default = reply("A title")
    with running(
        tmp_path, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL=GPT, TITLE_MODEL="m-2"
    ) as server:
        alice = server.client()
        for _ in range(3):
            session = alice.create("Hello")
            deadline = time.monotonic() + 5
            while alice.get(f"/sessions/{session['id']}").json()["title"] != "A title":
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert sorted(request.body["model"] for request in provider.posts) == ["m-1"] * 3 + ["m-2"] * 3
    assert len(connections_of(provider.posts)) <= 2


def test_fetches_published_keys_each_time_on_a_new_connection(tmp_path):
    """Nothing but a model's answer, or its list, has one kept."""
    identity = Provider()
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "unknown"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url + "/keys.json") as server:
        deadline = time.monotonic() + 5
        # A kid that is not known has them fetched, once a second at most.
        while len(identity.requests) < 3:
            assert status_of(server, token) == 401
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for request in identity.requests[:2]:
            assert request.hung_up.wait(1)
    assert len(connections_of(identity.requests)) == 3
    identity.close()


@contextlib.contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_each_worker_has_connections_of_its_own(provider, tmp_path):
    """All that is asked while the other workers stand still is asked by this one."""
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": GPT, "WEB_CONCURRENCY": 2}
    with running(tmp_path, **settings) as server:
        workers = server.workers()
        for worker in [*workers, *workers]:
            with stopped([other for other in workers if other != worker]):
                answered(server.client(), GPT)
                answered(server.client(), GPT)
    one, other = connections_of(provider.posts)
    assert [request.connection for request in provider.posts] == [one] * 2 + [other] * 2 + [
        one
    ] * 2 + [other] * 2


def test_leaves_no_socket_open(line):
    answers = [
        reply("Well."),
        cut("Half"),
        status(400),
        raw(b"odd"),
        raw(Connection.reset),
        reply("", Connection="close"),
    ]

    def ask():
        for answer in answers:
            line.provider.script = [answer]
            line.alice.post("/sessions", {"content": "Hello"})
        line.provider.script = [reply("So far", 30)]
        count = len(line.posts) + 1
        session = line.alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        asked = line.provider.wait_for_request(count)
        stop(line.alice, session, "cancel")
        assert asked.hung_up.wait(1)

    ask()
    before = storm.open_sockets(line.server)
    for _ in range(4):
        ask()
    deadline = time.monotonic() + 5
    while storm.open_sockets(line.server) > before + 3:  # what is just being closed
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_asks_on_no_connection_that_was_idle_for_long(tmp_path):
    """The limit is minutes; here it is set to half a second before the server starts."""
    path = tmp_path / "impatient.conf.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nexec(open('gunicorn.conf.py').read())\n"
        "from wire import connection\nassert connection.IDLE_TTL >= 60\nconnection.IDLE_TTL = 0.5\n"
    )
    with connected(tmp_path, is_secure=False, GUNICORN_CMD_ARGS=f"-c {path}") as line:
        answered(line.alice, GPT)
        time.sleep(0.6)
        answered(line.alice, GPT)
        assert len(connections_of(line.posts)) == 2
        assert line.posts[0].hung_up.wait(1)


# They have ended meanwhile

LONG = "So many words. " * 20_000  # more than the other side's kernel takes unread


def closed(line):
    line.posts[-1].connection.close()


def reset(line):
    line.posts[-1].connection.reset()


def closed_at_the_request(line):
    line.provider.script = [raw()]


def reset_at_the_request(line):
    line.provider.script = [raw(Connection.reset)]


def reset_within_the_request(line):
    line.posts[-1].connection.breaks_after = 500


@both
@pytest.mark.parametrize(
    "end", [closed, reset, closed_at_the_request, reset_at_the_request, reset_within_the_request]
)
def test_asks_at_once_on_a_new_connection_where_the_old_one_has_ended(line, model, end):
    """Without a pause, and without counting it: there are three tries behind it."""
    answered(line.alice, model)
    end(line)
    is_seen = len(
        line.provider.script
    )  # whether the provider has read the request on which the connection ended
    again = status(500, {}, retry_after_ms="1")
    line.provider.script += [again, again, reply("At last.")]
    assert answered(line.alice, model, LONG)["content"] == "At last."
    assert len(line.posts) == 1 + is_seen + 3
    assert [request.body["messages"][-1]["content"] for request in line.posts[1:]] == [LONG] * (
        is_seen + 3
    )
    old = line.posts[: 1 + is_seen]
    assert connections_of(old) == [old[0].connection]
    assert len(connections_of(line.posts)) == 1 + 3  # none is kept behind an error
    if is_seen:
        assert pauses(line.provider)[1] < OWN_PAUSE


@pytest.mark.parametrize("end", [raw(), raw(Connection.reset)], ids=["closed", "reset"])
def test_tries_no_other_old_connection_where_one_has_ended(line, end):
    """A provider that was started anew has ended all of them."""
    answered_at_once(line, 5)
    old = connections_of(line.posts)
    line.provider.default = lambda request: (end if request.connection in old else reply("Anew."))(
        request
    )
    assert answered(line.alice, GPT)["content"] == "Anew."
    assert len(line.posts) == 5 + 2
    assert line.posts[5].connection in old
    assert pauses(line.provider)[5] < OWN_PAUSE


@pytest.mark.parametrize("is_new", [True, False], ids=["the first connection", "the next one"])
@pytest.mark.parametrize("end", [raw(), raw(Connection.reset)], ids=["closed", "reset"])
def test_a_new_connection_that_breaks_is_one_of_three_tries(line, is_new, end):
    if not is_new:
        answered(line.alice, GPT)
    line.provider.default = end
    response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 502
    assert re.search("broke the connection|could not be reached", error["detail"])
    if is_new:
        first, second = pauses(line.provider)
        assert len(connections_of(line.posts)) == 3
    else:
        _, at_once, first, second = pauses(line.provider)
        assert at_once < OWN_PAUSE
        assert len(connections_of(line.posts)) == 4
    assert OWN_PAUSE <= first
    assert 2 * OWN_PAUSE <= second


@pytest.mark.parametrize("end", [Connection.close, Connection.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-"])
def test_a_connection_that_breaks_within_an_answer_is_one_of_three_tries(line, beginning, end):
    """Even one byte says that the request was taken."""
    answered(line.alice, GPT)
    line.provider.script = [raw(beginning, 0.05, end)]
    answered(line.alice, GPT)
    assert len(line.posts) == 3
    assert line.posts[0].connection is line.posts[1].connection is not line.posts[2].connection
    assert pauses(line.provider)[1] >= OWN_PAUSE


def test_a_break_behind_the_first_words_fails(line):
    answered(line.alice, GPT)
    line.provider.script = [cut("So far")]
    assert failed(line.alice, GPT)[2]["content"] == "So far"
    assert len(line.posts) == 2
    answered(line.alice, GPT)
    assert len(connections_of(line.posts)) == 2


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
def test_goes_on_on_another_connection_behind_a_break(tmp_path, is_secure):
    """Whoever broke it: what is still to come of the first answer is in no other."""
    overloaded = then_more(
        event({"error": {"type": "overloaded_error", "message": "Overloaded"}}), "No."
    )
    breaks = [
        cut("So far"),
        lambda request: itertools.chain(cut("So far")(request), [0.1, Connection.reset]),
        overloaded,
    ]
    with (
        connected(tmp_path, is_secure) as line,
        concurrent.futures.ThreadPoolExecutor(len(breaks)) as pool,
    ):
        line.provider.default = lambda request: (
            reply(".") if so_far(request) else breaks[int(asked(request))]
        )(request)
        turns = list(
            pool.map(lambda number: answered(line.alice, GPT, str(number)), range(len(breaks)))
        )
        assert [(turn["content"], turn["continued"]) for turn in turns] == [("So far.", 1)] * len(
            breaks
        )
        broken = [request for request in line.posts if not so_far(request)]
        others = [request for request in line.posts if so_far(request)]
        assert len(broken) == len(others) == len(breaks)
        assert not set(connections_of(broken)) & set(connections_of(others))
        assert all(request.hung_up.wait(1) for request in broken)


def test_a_provider_that_is_silent_on_an_old_connection_is_asked_once(impatient_line):
    line = impatient_line
    answered(line.alice, GPT)
    line.provider.script = [silence(30)]
    response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 504
    assert "nothing of an answer in time" in error["detail"]
    assert len(line.posts) == 2
    assert line.posts[1].connection is line.posts[0].connection
    assert line.posts[1].hung_up.wait(1)


def test_says_that_nobody_listens_any_more(tmp_path):
    with connected(tmp_path, is_secure=False) as line:
        answered(line.alice, GPT)
        line.provider.close()
        response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 502
    assert "could not be reached" in error["detail"]


def test_says_that_nobody_listens_any_more_where_the_old_connection_breaks(tmp_path):
    """As where a provider is started again: its old connection ends under the request, and there is no new one."""
    with connected(tmp_path, False) as line:
        answered(line.alice, GPT)
        line.provider.script = [raw(lambda connection: line.provider.close())]
        response, error, turn = failed(line.alice, GPT)
        assert response.status_code == 502
        assert "could not be reached" in error["detail"]
        assert "Traceback" not in line.server.output()


@on_linux
def test_notices_a_connection_that_was_dropped_in_silence(tmp_path):
    """No packet gets through any more, and none comes: the kernel gives up long before a silent model is given up."""
    for name in ("plain", "secure"):
        (tmp_path / name).mkdir()
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(connected(tmp_path / name, name == "secure", MODEL_TIMEOUT=60))
            for name in ("plain", "secure")
        ]

        def ask(line):
            answered(line.alice, GPT)
            line.posts[0].connection.vanish()
            began = time.monotonic()
            response = line.alice.post("/sessions", {"content": "Hello"}, Prefer="wait=30")
            assert line.provider.wait_for_request(2, seconds=20).at - began < 16
            assert response.status_code == 201, response.text
            assert line.alice.turns(response.json())[-1]["content"] == "The answer."
            assert len(line.posts) == len(connections_of(line.posts)) == 2

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, lines))


def timers(port):
    """What Linux waits for in the connections to this port (proc_net_tcp.txt): (number of a timer, its seconds)."""
    lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    fields = [
        line[5].split(":") for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01"
    ]
    return [(int(kind), int(when, 16) / os.sysconf("SC_CLK_TCK")) for kind, when in fields]


@on_linux
def test_has_the_kernel_watch_over_idle_connections(line):
    answered(line.alice, GPT)
    deadline = time.monotonic() + 5
    while True:
        [(kind, seconds)] = timers(line.provider.port)
        if (
            kind == 2 and 1 < seconds <= 60
        ):  # keep-alive; in the first moment the same timer is for an acknowledgement
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Hanging up


@by_any_way
@at_any_time
@pytest.mark.parametrize("connection", ["new", "old", "new as the old one had ended"])
def test_hangs_up_within_a_second_on_any_connection(line, connection, begun, way):
    if connection != "new":
        answered(line.alice, GPT)
        if connection != "old":
            line.provider.script = [raw()]
    line.provider.script += [reply("So far", 30, ", no further") if begun else silence(30)]
    count = len(line.posts) + len(line.provider.script)
    with line.alice.stream("POST", "/sessions", {"content": "Hello", "model": GPT}) as events:
        events = iter(events)
        session = next(events).data
        asked = line.provider.wait_for_request(count)
        assert (asked.connection is line.posts[0].connection) == (
            connection != "new as the old one had ended"
        )
        if begun:
            assert next(events).data == {"delta": "So far"}
        stop(line.alice, session, way)
        assert asked.hung_up.wait(1)
        assert [event.name for event in events] == (
            ["assistant_turn", "done"] if way == "cancel" else ["error"]
        )
    assert len(line.posts) == count
    assert answered(line.alice, GPT)["content"] == "The answer."
    assert line.posts[-1].connection is not asked.connection
    assert len(line.posts) == count + 1


# Nothing of one call is seen by another


def test_asks_on_no_connection_whose_answer_is_longer_than_it_cares(line):
    """An error's text is cut short anyway; its body has no end."""
    sent = []

    def endless(request):
        yield head(400, "application/json", Transfer_Encoding="chunked")
        while len(sent) < 500:  # 32 MB in five seconds at least
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


def then_more(*parts):
    """A stream with this in it, which goes on."""

    def answer(request):
        yield head(Transfer_Encoding="chunked")
        yield from (chunk(part) for part in events_of(request, ["So far", *parts]))
        yield 30

    return answer


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
def test_asks_on_no_connection_whose_answer_it_has_not_read(line, answer):
    check_that_it_is_not_used_again(line, answer)


def test_asks_on_no_connection_whose_answer_is_shorter_than_it_says(impatient_line):
    check_that_it_is_not_used_again(
        impatient_line,
        raw(
            head(400, "application/json", Content_Length=1000), b'{"error": {"message": "No."}}', 30
        ),
    )


def in_one_packet(*parts):
    """A whole answer, and these events behind it."""

    def answer(request):
        data = b"".join([*events_of(request, ["Well."]), *parts])
        yield head(Content_Length=len(data)) + data
        yield KEEP

    return answer


def without(member, model):
    """A whole answer that is not streamed, but for this member, wherever it is."""
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


@pytest.mark.parametrize("model, answer", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_asks_on_no_connection_whose_answer_is_not_whole(line, model, answer):
    """However it was framed, and whether or not it makes a reply."""
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
def test_gives_nobody_the_answer_to_anothers_message(line, stray):
    """On a kept connection comes a response that nobody asked for, and then the right one."""
    alice, bob = line.alice, line.server.client(BOB)

    def slowly(request):
        yield 0.6  # as a model thinks, for longer than the pause before a second try
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
    """A whole answer of a server that leaves its connection open, whatever it says of that."""

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
def test_asks_on_no_connection_that_the_provider_does_not_keep(line, answer):
    line.provider.script = [answer]
    assert answered(line.alice, GPT)["content"] == "Well."
    assert line.posts[0].hung_up.wait(1)
    answered(line.alice, GPT)
    assert len(connections_of(line.posts)) == len(line.posts) == 2


MORE = {"a byte": b"!", "another answer": storm.INTRUDER, "many answers": storm.INTRUDER * 40}


def with_more(more, framing, size):
    """An answer that is whole, and more in the packet of its end, which begins behind so many bytes of that."""

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
        yield 0.05  # the other side has read the head, and waits
        yield wrap(data) + end + more
        yield KEEP

    return answer


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize(
    "size", [0, 8192], ids=["", "behind a buffer"]
)  # what Python reads at once is 8192 bytes
def test_takes_nothing_that_is_behind_an_answer(line, more, framing, size):
    line.provider.script = [with_more(more, framing, size)]
    line.provider.default = reply("The next one.")
    assert answered(line.alice, GPT)["content"] == "The answer."
    for _ in range(3):
        assert answered(line.alice, GPT)["content"] == "The next one."
    assert len(line.posts) == 4  # none of them was tried again


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_takes_nothing_that_comes_before_it_was_asked_for(line, more):
    answered(line.alice, GPT)
    line.posts[0].connection.send(more)
    line.provider.default = reply("The next one.")
    for _ in range(3):
        assert answered(line.alice, GPT)["content"] == "The next one."
    assert len(line.posts) == 4
    assert line.posts[1].connection is not line.posts[0].connection


def test_a_stop_costs_no_other_reply_anything(tmp_path):
    """Threads make one reply after the other; those of stopped ones use kept connections next."""
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
def test_a_storm_mixes_up_nothing(tmp_path, is_secure):
    with connected(tmp_path, is_secure, MODEL_TIMEOUT=20) as line:
        storm.check_a_storm(*line, seed=1, count=250)


# Connecting


@pytest.fixture
def full():
    """The URL of a port that takes no connection, and refuses none."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@on_linux
def test_hangs_up_while_it_connects(full):
    call, began = wire.Call(60), time.monotonic()
    threading.Timer(0.3, call.hang_up).start()
    with pytest.raises(wire.HungUp), wire.Wire(full).request(call, "GET", "/", {}):
        pass
    assert time.monotonic() - began < 1.3


@on_linux
def test_a_connection_that_is_not_there_in_time_may_be_tried_again(full, monkeypatch):
    monkeypatch.setattr(routes, "CONNECT_TIMEOUT", 1)
    call = wire.Call(60)
    with pytest.raises(wire.Fault) as told, wire.Wire(full).request(call, "GET", "/", {}):
        pass
    assert told.value.kind == "unreachable" and call.remaining() > 50


@pytest.mark.parametrize("password", ["hush#er", "hush/er", "hush?er", "hush\u2100er", "[hush]er"])
@pytest.mark.parametrize("whose", ["a proxy's", "the server's"])
def test_tells_nothing_of_a_password_that_spoils_its_url(monkeypatch, password, whose):
    url = f"http://user:{password}@provider.invalid"
    if whose == "a proxy's":
        monkeypatch.setenv("HTTP_PROXY", url)
        url = "http://provider.invalid"
    with pytest.raises(wire.Fault) as told, wire.Wire(url).request(wire.Call(5), "GET", "/", {}):
        pass
    assert "hush" not in str(told.value) and "er@" not in str(told.value)


# Proxies and certificates


class Tunnels:
    """A proxy that tunnels (RFC 9110, 9.3.6), and remembers what it was asked."""

    def __init__(self, certificate=None):
        self.heads, self._certificate = (
            [],
            certificate,
        )  # the latter: a file that is there when somebody connects
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := sock.recv(65536)):
                    return
                data += more
            self.heads.append(data.decode())
            port = int(data.split()[1].decode().split(":")[1])
            with socket.create_connection(("127.0.0.1", port)) as other:  # whatever its name is
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(other, sock))
                back.start()
                self._pump(sock, other)
                back.join()

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


CREDENTIALS = base64.b64encode(b"user:password").decode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_keeps_its_tunnel_through_a_proxy(tmp_path, scheme):
    proxy = Tunnels(tmp_path / "certificate.pem" if scheme == "https" else None)
    address = f"{scheme}://user:password@{proxy.address}"
    trusted = {
        "SSL_CERT_FILE": tmp_path / "certificate.pem"
    }  # the system's, by which proxies are known
    with connected(tmp_path, True, host="provider.invalid", HTTPS_PROXY=address, **trusted) as line:
        for _ in range(3):
            assert answered(line.alice, GPT)["content"] == "The answer."
        [tunnel] = proxy.heads
        assert tunnel.startswith(f"CONNECT provider.invalid:{line.provider.port} HTTP/1.")
        assert f"Proxy-Authorization: Basic {CREDENTIALS}\r\n" in tunnel
        assert len(line.provider.connections) == 1

        line.provider.disconnect()
        answered(line.alice, GPT)
        assert len(line.posts) == 4
        assert len(proxy.heads) == 2
        assert not [request for request in line.posts if "proxy-authorization" in request.headers]

        line.provider.script = [silence(30)]
        session = line.alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        asked = line.provider.wait_for_request(5)
        assert asked.connection is line.posts[3].connection
        stop(line.alice, session, "cancel")
        assert asked.hung_up.wait(1)
    proxy.close()


def test_a_proxy_that_answers_a_byte_at_a_time_is_given_up_and_hung_up(tmp_path):
    """A connection has ten seconds to be there, with its tunnel; then it is tried anew. Nobody waits for it who hangs up."""
    ends = queue.SimpleQueue()

    def drip(sock):
        with sock:
            began = time.monotonic()
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(b"x")
                    time.sleep(0.1)
            ends.put((began, time.monotonic()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connected(tmp_path, True, host="provider.invalid", HTTPS_PROXY=address) as line:
            body = {"content": "Hello", "model": GPT}
            session = line.alice.post("/sessions", body, Prefer="respond-async").json()
            for _ in range(2):
                sock, _ = listener.accept()
                threading.Thread(target=drip, args=(sock,), daemon=True).start()
            began, end = ends.get(timeout=5)
            assert 9 < end - began < 13
            cancelled = time.monotonic()
            stop(line.alice, session, "cancel")
            _, end = ends.get(timeout=5)
            assert (
                end - cancelled < 1.5
            )  # a pause between two bytes, and one until they cannot be sent
    assert not line.posts


def test_keeps_its_connection_to_a_proxy(provider, tmp_path):
    """A proxy for plain HTTP is told the whole URL; this one answers in the place of a provider that nobody finds."""
    proxy = provider.url.replace("//", "//user:password@")
    settings = {
        "OPENAI_BASE_URL": "http://provider.invalid/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "DEFAULT_MODEL": GPT,
    }
    with running(tmp_path, HTTP_PROXY=proxy, **settings) as server:
        for _ in range(3):
            answered(server.client(), GPT)
        provider.posts[-1].connection.close()
        answered(server.client(), GPT)
        assert "password" not in server.output()
    assert len(provider.posts) == 4
    assert len(connections_of(provider.posts[:3])) == 1
    for request in provider.posts:
        assert request.path == "http://provider.invalid/v1/chat/completions"
        assert request.headers["host"] == "provider.invalid"
        assert request.headers["authorization"] == "Bearer key-of-openai"
        assert request.headers["proxy-authorization"] == f"Basic {CREDENTIALS}"


def test_asks_this_machine_past_any_proxy(provider, tmp_path):
    settings = {"HTTP_PROXY": f"http://127.0.0.1:{free_port()}", "DEFAULT_MODEL": GPT}
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1", **settings) as server:
        answered(server.client(), GPT)
        answered(server.client(), GPT)
    assert len(connections_of(provider.posts)) == 1


@pytest.mark.parametrize("fault", ["nobody vouches for it", "it is another's"])
def test_tells_nothing_to_a_provider_whose_certificate_is_not_right(tmp_path, fault):
    settings = {"REQUESTS_CA_BUNDLE": None} if fault == "nobody vouches for it" else {}
    with connected(tmp_path, True, **settings) as line:
        if settings:
            assert failed(line.alice, GPT)[0].status_code == 502
        else:
            answered(line.alice, GPT)  # it is right for its address
            url = line.provider.url.replace("127.0.0.1", "localhost") + "/v1"
            path = tmp_path / "certificate.pem"
            with running(
                tmp_path / "named", OPENAI_BASE_URL=url, REQUESTS_CA_BUNDLE=path, DEFAULT_MODEL=GPT
            ) as server:
                assert failed(server.client(), GPT)[0].status_code == 502
        assert len(line.posts) == (not settings)
