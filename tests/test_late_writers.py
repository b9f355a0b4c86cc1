"""A process that was paused while it wrote a reply: what was ended meanwhile stays as it is, what was not goes on."""

import contextlib
import os
import signal
import sqlite3
import threading
import time

import pytest

from client import wait_for_status
from provider import event, reply
from tables import tables_of

USAGE = {"prompt_tokens": 15, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}
SAID = event({"choices": [], "usage": USAGE})
TABLES = ("session", "turn", "piece", "usage")
ENDING = 30  # seconds after which no reply of a dead process is under way any more


def pause(server, url):
    """Stop all processes of a server, in no transaction, since the locks of one would hold up everybody."""
    while True:
        for pid in [server.process.pid, *server.workers()]:
            os.kill(pid, signal.SIGSTOP)
        if not holds_locks(url):
            return
        resume(server)
        time.sleep(0.05)


def resume(server):
    for pid in [*server.workers(), server.process.pid]:
        os.kill(pid, signal.SIGCONT)


def holds_locks(url):
    with tables_of(url) as tables:
        if not tables.is_sqlite:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            return tables.value(f"SELECT count(*) {others} AND state <> 'idle'") > 0
        tables.rows("PRAGMA busy_timeout = 500")
        try:
            tables.rows("BEGIN IMMEDIATE")
            tables.rows("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False


@contextlib.contextmanager
def paused(server, url):
    """All processes of the server are stopped within this context."""
    pause(server, url)
    try:
        yield
    finally:
        resume(server)


def snapshot(tables):
    return {table: sorted(map(repr, tables.rows(f"SELECT * FROM {table}"))) for table in TABLES}


def check_late_writer(start, settings, provider, is_whole, lapse):
    """`is_whole`: the provider ends its answer; else it goes on until somebody hangs up. `lapse` makes the lease lapse."""
    url, more, sent, never = settings["DATABASE_URL"], threading.Event(), threading.Event(), threading.Event()
    rest = ["and half.", lambda connection: sent.set()]
    provider.script = [reply(SAID, "Half ", more, *rest, *([] if is_whole else [never]))]
    # A master of gunicorn that wakes up before its worker would kill it, if it had been silent for the usual 30 s.
    late = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--timeout 300")
    other = start(**settings, WEB_CONCURRENCY=1)
    with tables_of(url) as tables, late.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        request = provider.wait_for_request()
        with paused(late, url):
            lapse(tables)
            # By SQL: nobody asks the other server, which ends the reply all the same.
            deadline = time.monotonic() + ENDING
            while tables.rows("SELECT id FROM turn WHERE status = 'in_progress'"):
                assert time.monotonic() < deadline, "nobody ended the reply"
                time.sleep(0.05)
            alice = other.client()
            [question, first] = alice.turns(session)
            assert (first["status"], first["content"]) == ("interrupted", "Half ")
            assert not request.hung_up.is_set()
            answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"})
            assert (answer.status_code, answer.json()["content"]) == (201, "The answer.")
            before, turns = snapshot(tables), alice.turns(session)
            assert [turn["content"] for turn in turns] == ["Hello", "Half ", "Go on", "The answer."]
            more.set()
            assert sent.wait(5)  # when it runs again, all of it is there
        assert is_whole or request.hung_up.wait(5), "the late writer did not hang up"
        rest = list(frames)
        assert [frame.name for frame in rest] == ["assistant_turn", "done"]
        assert rest[0].data == first
        late.wait_for_output("outcome=")  # it is done with the reply
        assert late.client().turns(session) == turns
        late.stop()  # behind which it writes nothing
        assert snapshot(tables) == before
    assert "Traceback" not in late.output()
    answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "And more"})
    assert (answer.status_code, answer.json()["content"]) == (201, "The answer.")
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Hello", "Half ", "Go on", "The answer.", "And more"]


def lapse_now(tables):
    """As if the twenty seconds were over; tests/heavy waits for them."""
    tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_late_writer_changes_nothing_of_what_was_ended_in_its_place(start, settings, provider, is_whole):
    """Neither the reply's text, status and usage, nor what followed; and it hangs up as soon as it runs again."""
    check_late_writer(start, settings, provider, is_whole, lapse_now)


def test_a_writer_that_was_only_paused_goes_on(start, settings, provider):
    """Nobody else was there to end its reply, so it is written to its end, though the lease had lapsed."""
    url, more = settings["DATABASE_URL"], threading.Event()
    provider.script = [reply("Half ", more, "and half.")]
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    with tables_of(url) as tables, alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        with paused(server, url):
            lapse_now(tables)
        lease = "SELECT lease_until FROM turn WHERE status = 'in_progress'"
        deadline = time.monotonic() + 10
        while tables.rows(lease) == [(1,)]:  # until the next heartbeat
            assert time.monotonic() < deadline, "the lease is not renewed"
            time.sleep(0.05)
        more.set()
        assert [frame.name for frame in frames] == ["content_delta", "assistant_turn", "done"]
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
    assert len(provider.posts) == 1
