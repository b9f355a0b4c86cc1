"""Usage is added up by user, day and model: each reply once, however it ended and whatever happened to it later."""

import datetime
import threading

import pytest

from client import ALICE, BOB, at_once, wait_for_status
from provider import chunk, event, fails, head, reply
from raw_tables import tables_of

USAGE = {
    "prompt_tokens": 15,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
}  # as `reply` ends
SAID = event({"choices": [], "usage": USAGE})  # the same, wherever it comes in the stream


def today():
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


@pytest.fixture
def usage_of(settings):
    """A function: (replies, input, output, cached tokens) by model, of a user on this day."""
    first_day = today()

    def usage_of(owner=ALICE):
        # Read from the tables, since tests also look when the server has stopped. If midnight comes in
        # between, the replies are on two days.
        query = "SELECT day, model, replies, input_tokens, output_tokens, cached_tokens FROM usage WHERE owner = ?"
        sums = {}
        with tables_of(settings["DATABASE_URL"]) as tables:
            for day, model, *counts in tables.rows(query, owner):
                assert first_day <= day <= today()
                sums[model] = tuple(
                    map(sum, zip(sums.get(model, (0, 0, 0, 0)), counts, strict=True))
                )
        return sums

    return usage_of


def test_complete_replies_add_up_by_user_and_model(start, settings, provider, usage_of):
    """In every way of requesting them."""
    server = start(**settings)
    alice, bob = server.client(ALICE), server.client(BOB)
    assert usage_of() == {}
    session = alice.create()
    assert usage_of() == {"m-1": (1, 15, 7, 3)}
    path = f"/sessions/{session['id']}"
    assert alice.post(path + "/messages", {"content": "More"}).status_code == 201
    assert usage_of() == {"m-1": (2, 30, 14, 6)}
    assert alice.post(path + "/retry").status_code == 201
    with alice.stream("POST", path + "/messages", {"content": "And more"}) as stream:
        for frame in stream:
            if frame.name == "assistant_turn":
                break
        assert usage_of() == {"m-1": (4, 60, 28, 12)}  # it is stored before the event is sent
    alice.create(model="m-2")
    bob.create()
    assert usage_of() == {"m-1": (4, 60, 28, 12), "m-2": (1, 15, 7, 3)}
    assert usage_of(BOB) == {"m-1": (1, 15, 7, 3)}
    turn = alice.turns(session)[-1]
    assert turn["usage"] == {"input_tokens": 15, "output_tokens": 7, "cached_tokens": 3}


def test_a_change_of_model_counts_from_the_next_reply_on(start, settings, usage_of):
    alice = start(**settings).client()
    session = alice.create()
    alice.patch(f"/sessions/{session['id']}", {"model": "m-2"})
    assert usage_of() == {"m-1": (1, 15, 7, 3)}
    alice.post(f"/sessions/{session['id']}/messages", {"content": "More"})
    assert usage_of() == {"m-1": (1, 15, 7, 3), "m-2": (1, 15, 7, 3)}


def test_requests_with_one_key_count_as_one_reply(start, settings, usage_of):
    alice = start(**settings).client()
    for _ in range(3):
        assert (
            alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-1").status_code == 201
        )
    assert usage_of() == {"m-1": (1, 15, 7, 3)}


def test_tokens_that_no_provider_reported_are_not_counted(start, settings, provider, usage_of):
    """If it reported only some of the counts, only those are added."""

    def answer(*numbers):
        words = [
            {"choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]},
            *numbers,
            "[DONE]",
        ]
        parts = [chunk(event(word)) for word in words]
        return lambda request: [head(Transfer_Encoding="chunked"), *parts, chunk(b"")]

    provider.script = [answer(), answer({"choices": [], "usage": {"prompt_tokens": 4}})]
    alice = start(**settings).client()
    alice.create()
    assert usage_of() == {"m-1": (1, 0, 0, 0)}
    alice.create()
    assert usage_of() == {"m-1": (2, 4, 0, 0)}


def test_a_failed_reply_adds_the_usage_its_provider_reported(start, settings, provider, usage_of):
    provider.script = [fails("Half"), fails(SAID, "Half"), reply("Whole.")]
    server = start(**settings)
    alice = server.client()
    tokens = []
    failed = alice.post("/sessions", {"content": "Hello"})
    assert failed.status_code == 502
    tokens.append(usage_of().get("m-1", (0, 0, 0, 0))[1:])
    path = failed.headers["Location"]
    assert alice.post(path + "/retry").status_code == 502
    tokens.append(usage_of()["m-1"][1:])
    assert alice.post(path + "/retry").status_code == 201
    server.stop()  # after this, nothing is added
    tokens.append(usage_of()["m-1"][1:])
    assert tokens == [(0, 0, 0), (15, 7, 3), (30, 14, 6)]


@pytest.mark.parametrize("where", ["where it is written", "in another process"])
def test_a_cancelled_reply_adds_once_the_usage_its_provider_reported(
    start, settings, provider, usage_of, where
):
    never = threading.Event()
    provider.script = [reply(SAID, "Half", never)]
    server = start(**settings, WEB_CONCURRENCY=1)
    other = server if where == "where it is written" else start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half"}
        cancelled = other.client().post(f"/sessions/{session['id']}/cancel")
        assert cancelled.status_code == 200
        [*_, done] = frames
        assert done.name == "done"
    server.wait_for_output("outcome=interrupted")  # the writer has noticed, and stored the usage
    assert usage_of() == {"m-1": (1, 15, 7, 3)}
    assert alice.turns(session)[1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": 7,
        "cached_tokens": 3,
    }
    assert (
        alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"}).status_code == 201
    )
    server.stop()  # after this, nothing is added
    assert usage_of() == {"m-1": (2, 30, 14, 6)}


def test_a_reply_cancelled_twice_at_the_same_time_counts_once(start, settings, provider, usage_of):
    never = threading.Event()
    provider.default = reply(SAID, "Half", never)
    servers = [start(**settings, WEB_CONCURRENCY=1) for _ in range(2)]
    clients = [server.client() for server in servers]
    rounds = 3
    for number in range(rounds):
        alice = clients[number % 2]
        session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        provider.wait_for_request(number + 1)
        with alice.events(session) as stream:
            assert next(iter(stream)).data == {"delta": "Half"}
        path = f"/sessions/{session['id']}/cancel"
        answers = at_once(4, lambda place: clients[place % 2].post(path).status_code)
        assert sorted(answers) == [200, 409, 409, 409]
    for server in servers:
        server.stop()  # after this, nothing is added
    assert usage_of() == {"m-1": (rounds, rounds * 15, rounds * 7, rounds * 3)}


def test_a_reply_cancelled_at_the_moment_of_its_end_counts_once(
    start, settings, provider, usage_of
):
    """Whichever comes first."""
    gates = [threading.Event() for _ in range(8)]
    servers = [start(**settings, WEB_CONCURRENCY=1) for _ in range(2)]
    clients = [server.client() for server in servers]
    sessions = []
    for number, gate in enumerate(gates):
        provider.script = [
            reply(SAID, "Half ", gate, "and half.")
        ]  # and the same usage again at the end
        sessions.append(
            clients[0].post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        )
        provider.wait_for_request(number + 1)
    for session in sessions:
        with clients[0].events(session) as stream:
            assert next(iter(stream)).data == {"delta": "Half "}

    ended = []
    for session, gate in zip(sessions, gates, strict=True):
        cancel = f"/sessions/{session['id']}/cancel"
        _, status = at_once(
            2, lambda place: clients[1].post(cancel).status_code if place else gate.set()
        )
        ended.append("interrupted" if status == 200 else "complete")
        wait_for_status(clients[1], session, ended[-1])
    for server in servers:
        server.stop()  # after this, nothing is added
    assert usage_of() == {"m-1": (8, 8 * 15, 8 * 7, 8 * 3)}, ended


def test_usage_stays_after_its_session_is_deleted(start, settings, usage_of):
    alice = start(**settings).client()
    session = alice.create()
    assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    assert usage_of() == {"m-1": (1, 15, 7, 3)}
    alice.create()
    assert usage_of() == {"m-1": (2, 30, 14, 6)}


def test_a_reply_that_is_handed_over_adds_the_usage_of_both_calls_once(
    start, settings, provider, usage_of
):
    provider.script = [reply(SAID, "Half ", threading.Event()), reply("and half.")]
    server = start(**settings, GRACE=0)
    with server.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        session, delta = (next(iter(stream)) for _ in range(2))
        assert (session.name, delta.data) == ("session", {"delta": "Half "})
        server.process.terminate()
        assert list(stream) == []
    server.stop()
    turn = wait_for_status(start(**settings).client(), session.data, "complete")
    assert turn["content"] == "Half and half."
    assert turn["usage"] == {"input_tokens": 30, "output_tokens": 14, "cached_tokens": 6}
    assert usage_of() == {"m-1": (1, 30, 14, 6)}
