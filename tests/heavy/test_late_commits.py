"""A commit that was given up but succeeded after all: it costs no reply, counts no token twice,
and does nothing that a client was told has failed.

Modules: `replies/commits.py`, `replies/claim.py`.
"""

import contextlib
import itertools
import socket
import threading
import time
from urllib.parse import urlsplit

import psycopg
import pytest

import trouble
from client import wait_for_status, wait_until
from counting import CountingRelay
from late import HoldingRelay
from provider import event, reply
from proxy import Proxy
from raw_tables import tables_of
from servers import Server, running

GIVEN_UP = 20  # seconds after which a process gives a commit up and uses another connection
EARLY = event({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 0}})
SAID = (1000, 20, 0)  # prompt, answer, cached part of the prompt
TOKENS = "input_tokens + output_tokens + estimated_tokens"


# With SQLite, the process itself makes the commit, and waits for it.
pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


@pytest.fixture
def url(new_database):
    return new_database()


@pytest.fixture
def relay(url):
    relay = HoldingRelay(url)
    yield relay
    relay.close()


@pytest.fixture
def server(relay, provider, tmp_path):
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "WEB_CONCURRENCY": 1,
    }
    server = Server(tmp_path, DATABASE_URL=relay.url, **settings)
    yield server.wait_until_up()
    server.stop()


def locks_of(url):
    """How many backends of this database wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(waiting).fetchone()[0]


def order(relay, url, is_before, is_there):
    """Runs code before and after the packet that stores again: the late commit arrives before it
    or after it."""

    def late():
        relay.release()
        wait_until(is_there)

    def behind():
        # It has come, or waits for the late one, which has locked its row.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: is_there() or locks_of(url), 2)
        relay.release()

    nothing = lambda: None  # noqa: E731
    return (late, nothing) if is_before else (nothing, behind)


def sums(url):
    """The tokens of all turns, and of the ledger."""
    with tables_of(url) as tables:
        columns = [
            f"coalesce({name}, 0)" for name in ("input_tokens", "output_tokens", "estimated_tokens")
        ]
        of_turns = tables.value(f"SELECT sum({' + '.join(columns)}) FROM turn")
        return int(of_turns), int(tables.value(f"SELECT sum({TOKENS}) FROM usage"))


@pytest.mark.long
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "behind"])
def test_a_late_commit_of_text_costs_no_reply(relay, url, server, provider, is_before):
    second, third, rest = threading.Event(), threading.Event(), threading.Event()
    provider.script = [reply("One ", second, "two ", third, "three ", rest, "four.")]
    with (
        server.client().stream("POST", "/sessions", {"content": "Count"}) as stream,
        tables_of(url) as tables,
    ):
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "One "}
        relay.hold(b"INSERT INTO piece")
        relay.meet(
            b"INSERT INTO piece",
            *order(relay, url, is_before, lambda: tables.value("SELECT count(*) FROM piece") == 2),
        )
        second.set()
        assert relay.is_holding.wait(GIVEN_UP)
        third.set()
        text = "One "
        while text != "One two three ":
            text += next(frames).data["delta"]
        rest.set()
        assert [frame.name for frame in frames] == ["content_delta", "assistant_turn", "done"]
    turn = wait_for_status(server.client(), session, "complete")
    assert turn["content"] == "One two three four."
    assert len(provider.posts) == 1


@pytest.mark.long
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "behind"])
def test_tokens_of_a_late_commit_are_counted_once(relay, url, server, provider, is_before):
    """With a model that thinks: its provider has counted the prompt before the first word."""
    rest = threading.Event()
    provider.script = [reply(EARLY, rest, "Done.", usage=SAID)]
    relay.hold(b"INSERT INTO usage")

    def is_counted():
        with tables_of(url) as tables:
            return tables.value("SELECT count(*) FROM usage") > 0

    relay.meet(b"UPDATE turn", *order(relay, url, is_before, is_counted))
    session = server.client().post("/sessions", {"content": "Think"}, Prefer="respond-async").json()
    assert relay.is_holding.wait(GIVEN_UP)
    wait_until(is_counted, GIVEN_UP)
    time.sleep(1.5)  # in which it would be counted twice
    rest.set()
    assert wait_for_status(server.client(), session, "complete")["usage"]["input_tokens"] == 1000
    assert sums(url) == (1020, 1020)


def test_a_failed_new_session_does_not_exist(relay, url, server, provider):
    alice = server.client()
    relay.hold(b"INSERT INTO turn")
    assert alice.post("/sessions", {"content": "Hello"}).status_code == 503
    relay.release()
    server.wait_for_output("is undone")
    assert alice.get("/sessions").json()["data"] == []
    assert provider.posts == []
    with tables_of(url) as tables:
        assert tables.value("SELECT count(*) FROM turn") == 0


def test_a_failed_message_does_not_exist(relay, server, provider):
    alice = server.client()
    session = alice.create("Hello")
    relay.hold(b"INSERT INTO turn")
    answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "And more"})
    assert answer.status_code == 503
    relay.release()
    server.wait_for_output("is undone")
    assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "The answer."]
    assert alice.get("/sessions").json()["data"][0]["last_message_preview"] == "The answer."
    assert (
        alice.post(f"/sessions/{session['id']}/messages", {"content": "And more"}).status_code
        == 201
    )
    assert [turn["content"] for turn in alice.turns(session)[2:]] == ["And more", "The answer."]
    assert len(provider.posts) == 2


@pytest.mark.parametrize("path", ["", "/messages"], ids=["a session", "a message"])
def test_a_failed_request_with_a_key_gets_its_reply_once(relay, server, provider, path):
    alice = server.client()
    before = alice.create("Hello") if path else None
    place = f"/sessions/{before['id']}{path}" if before else "/sessions"
    relay.hold(b"INSERT INTO turn")
    assert alice.post(place, {"content": "Once"}, Idempotency_Key="k").status_code == 503
    asked = len(provider.posts)
    relay.release()
    server.wait_for_output("is undone")
    assert len(provider.posts) == asked
    assert alice.post(place, {"content": "Once"}, Idempotency_Key="k").status_code == 201
    sessions = alice.get("/sessions").json()["data"]
    assert len(sessions) == 1
    assert [turn["content"] for turn in alice.turns(sessions[0])[-2:]] == ["Once", "The answer."]
    assert len(provider.posts) == asked + 1


@pytest.mark.long
def test_a_failed_retry_leaves_the_reply_as_it_was(relay, server, provider):
    alice = server.client()
    session = alice.create("Hello")
    before = alice.turns(session)
    relay.hold(b"INSERT INTO turn")
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 503
    relay.release()
    server.wait_for_output("is undone")
    assert alice.turns(session) == before
    assert len(provider.posts) == 1


@pytest.mark.long
def test_a_failed_continue_is_repeated_with_its_key(relay, server, provider):
    """The reply is complete again meanwhile, as it was before."""
    provider.script = [reply("One ", stop="length"), reply("two.")]
    alice = server.client()
    session = alice.create("Count", options={"max_tokens": 7})
    relay.hold(b"INSERT INTO piece")
    path = f"/sessions/{session['id']}/continue"
    assert alice.post(path, Idempotency_Key="k").status_code == 503
    relay.release()
    server.wait_for_output("is undone")
    assert len(provider.posts) == 1
    assert alice.post(path, Idempotency_Key="k").json()["content"] == "One two."


class Hole:
    """A port that accepts connections and never sends anything. `times`: when it accepted them."""

    def __init__(self, port):
        self.times, self._kept = [], []
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self._kept.append(self._listener.accept())
                self.times.append(time.monotonic())

    def close(self):
        self._listener.close()
        for connection, _ in self._kept:
            connection.close()


@pytest.mark.long
def test_a_process_that_has_lost_its_database_retries_often(url, tmp_path):
    """More often than another process looks at a reply before taking it over, so that a writer
    that is back has renewed its leases by then."""
    place = urlsplit(url)
    relay = CountingRelay(place.hostname, place.port or 5432)
    far = place._replace(netloc=f"postgres@127.0.0.1:{relay.port}").geturl()
    with contextlib.closing(relay), running(tmp_path, DATABASE_URL=far):
        relay.close()
        with contextlib.closing(Hole(relay.port)) as hole:
            wait_until(lambda: len(hole.times) > 4, 60)
    gaps = [later - sooner for sooner, later in itertools.pairwise(hole.times)]
    assert max(gaps) < 5.5, gaps  # one look a second, seven in all


@contextlib.contextmanager
def standing_still(server, line):
    """The processes of this server."""
    with trouble.stopped(trouble.pids_of(server)):
        yield


@contextlib.contextmanager
def without_its_database(server, line):
    """Nothing passes this connection, which leads to that address."""
    line.passes.clear()
    try:
        yield
    finally:
        line.passes.set()


@pytest.mark.long
@pytest.mark.parametrize("lost", [standing_still, without_its_database])
def test_a_writer_that_is_taken_for_dead_counts_nothing_twice(url, provider, tmp_path, lost):
    """It has no database for longer than its lease, while another process deletes the session
    and estimates its usage."""
    more, place, line = threading.Event(), urlsplit(url), Proxy(urlsplit(url).port or 5432)
    far = place._replace(netloc=f"{place.username}@{urlsplit(line.url).netloc}").geturl()
    provider.script = [reply("Half ", more, "and half.", usage=SAID)]
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(line))
        late = stack.enter_context(
            running(
                tmp_path / "late",
                DATABASE_URL=far,
                **settings,
                GUNICORN_CMD_ARGS="--timeout 300",
            )
        )
        session = (
            late.client().post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        )
        wait_until(lambda: late.client().turns(session)[1]["content"] == "Half ", 10)
        other = stack.enter_context(running(tmp_path / "other", DATABASE_URL=url, **settings))
        tables = stack.enter_context(tables_of(url))
        with lost(late, line):
            lapsed = "SELECT count(*) FROM turn WHERE lease_until < extract(epoch FROM clock_timestamp()) * 1000000"
            wait_until(lambda: tables.value(lapsed), 30)
            assert other.client().delete(f"/sessions/{session['id']}").status_code == 204
            counted = tables.value(f"SELECT sum({TOKENS}) FROM usage")
            assert counted > 0  # the prompt and the words, estimated
            more.set()
            time.sleep(0.5)  # when it runs again, all of it has arrived
        late.wait_for_output("outcome=deleted", seconds=30)
        late.stop()
        assert tables.value(f"SELECT sum({TOKENS}) FROM usage") == counted
