"""Connections that have ended or no longer answer are replaced or given up.

Modules: `wire/faults.py`.
"""

import concurrent.futures
import contextlib
import itertools
import re
import socket
import time

import pytest

from connections import answered_at_once, connected, connections_of, on_linux, then_more, timers
from product import ROOT
from protocols import GPT, OWN_PAUSE, answered, at_any_time, by_any_way, failed, pauses, stop
from provider import Connection, asked, cut, event, raw, reply, silence, so_far, status
from wire import Call


def test_a_connection_that_was_idle_for_long_is_not_used(tmp_path):
    """The limit is several minutes; here it is set to half a second before the server starts."""
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


# Connections that have ended meanwhile

LONG = "So many words. " * 20_000  # more than the kernel of the other side accepts unread


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


@pytest.mark.parametrize(
    "end", [closed, reset, closed_at_the_request, reset_at_the_request, reset_within_the_request]
)
def test_a_new_connection_is_used_at_once_if_the_old_one_has_ended(line, end):
    """Without a pause, and without counting as a try: three more can follow."""
    answered(line.alice, GPT)
    end(line)
    is_seen = len(
        line.provider.script
    )  # whether the provider has read the request during which the connection ended
    again = status(500, {}, retry_after_ms="1")
    line.provider.script += [again, again, reply("At last.")]
    assert answered(line.alice, GPT, LONG)["content"] == "At last."
    assert len(line.posts) == 1 + is_seen + 3
    assert [request.body["messages"][-1]["content"] for request in line.posts[1:]] == [LONG] * (
        is_seen + 3
    )
    old = line.posts[: 1 + is_seen]
    assert connections_of(old) == [old[0].connection]
    assert len(connections_of(line.posts)) == 1 + 3  # none is kept after an error
    if is_seen:
        assert pauses(line.provider)[1] < OWN_PAUSE


@pytest.mark.parametrize("end", [raw(), raw(Connection.reset)], ids=["closed", "reset"])
def test_no_other_old_connection_is_tried_after_one_has_ended(line, end):
    """A provider that restarts has closed all of them."""
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
def test_a_new_connection_that_breaks_counts_as_one_of_three_tries(line, is_new, end):
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
def test_a_break_within_an_answer_counts_as_one_of_three_tries(line, beginning, end):
    """Even one byte shows that the provider accepted the request."""
    answered(line.alice, GPT)
    line.provider.script = [raw(beginning, 0.05, end)]
    answered(line.alice, GPT)
    assert len(line.posts) == 3
    assert line.posts[0].connection is line.posts[1].connection is not line.posts[2].connection
    assert pauses(line.provider)[1] >= OWN_PAUSE


def test_a_break_after_the_first_words_fails(line):
    answered(line.alice, GPT)
    line.provider.script = [cut("So far")]
    assert failed(line.alice, GPT)[2]["content"] == "So far"
    assert len(line.posts) == 2
    answered(line.alice, GPT)
    assert len(connections_of(line.posts)) == 2


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
def test_a_reply_continues_on_another_connection_after_a_break(tmp_path, is_secure):
    """Whichever side broke it: nothing that remains of the first answer gets into another."""
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


def test_a_silent_provider_on_an_old_connection_gets_one_request(impatient_line):
    line = impatient_line
    answered(line.alice, GPT)
    line.provider.script = [silence(30)]
    response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 504
    assert "nothing of an answer in time" in error["detail"]
    assert len(line.posts) == 2
    assert line.posts[1].connection is line.posts[0].connection
    assert line.posts[1].hung_up.wait(1)


def test_a_provider_that_no_longer_listens_is_reported_as_unreachable(tmp_path):
    with connected(tmp_path, is_secure=False) as line:
        answered(line.alice, GPT)
        line.provider.close()
        response, error, _ = failed(line.alice, GPT)
    assert response.status_code == 502
    assert "could not be reached" in error["detail"]


def test_a_provider_that_stops_during_a_request_is_reported_as_unreachable(tmp_path):
    """Like a provider that restarts: the old connection ends during the request, and a new one cannot be opened."""
    with connected(tmp_path, False) as line:
        answered(line.alice, GPT)
        line.provider.script = [raw(lambda connection: line.provider.close())]
        response, error, turn = failed(line.alice, GPT)
        assert response.status_code == 502
        assert "could not be reached" in error["detail"]
        assert "Traceback" not in line.server.output()


@on_linux
def test_a_connection_dropped_without_a_packet_is_noticed(tmp_path):
    """No packet gets through in either direction: the kernel gives up long before a silent model would be given up."""
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


@on_linux
def test_the_kernel_probes_idle_connections(line):
    answered(line.alice, GPT)
    deadline = time.monotonic() + 5
    while True:
        [(kind, seconds)] = timers(line.provider.port)
        if (
            kind == 2 and 1 < seconds <= 60
        ):  # keep-alive; at first, the same timer waits for an acknowledgement
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Hanging up


@by_any_way
@at_any_time
@pytest.mark.parametrize("connection", ["new", "old", "new as the old one had ended"])
def test_a_stop_hangs_up_any_connection_within_a_second(line, connection, begun, way):
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


def test_hanging_up_while_connecting_closes_the_connection():
    (ours, theirs), call = socket.socketpair(), Call()
    with ours, theirs, contextlib.ExitStack() as leaving:
        leaving.callback(call.disconnected)
        theirs.settimeout(5)
        call.hang_up()
        call.connected(ours)
        assert theirs.recv(1) == b""
