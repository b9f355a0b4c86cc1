"""A process that is paused while it writes a reply, and what must hold when it continues."""

import contextlib
import os
import signal
import sqlite3
import threading
import time

from client import wait_until
from provider import event, reply, so_far
from raw_tables import tables_of

USAGE = {"prompt_tokens": 15, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}


SAID = event({"choices": [], "usage": USAGE})


TABLES = ("session", "turn", "piece", "usage")


TAKEN = 30  # seconds after which another process writes the reply of a dead one, or it has ended


def pause(server, url):
    """Pause all processes of a server while none is in a transaction, whose locks would block
    everybody."""
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
    """`is_whole`: the late writer's provider ends its answer; otherwise it continues until the
    connection is closed. `lapse` makes the lease lapse; the other process then writes the reply to
    its end."""
    url, more, sent, never = (
        settings["DATABASE_URL"],
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )
    rest = ["and late.", lambda connection: sent.set()]
    provider.script = [
        reply(SAID, "Half ", more, *rest, *([] if is_whole else [never])),
        reply("and half."),
    ]
    # gunicorn's master kills a worker that was silent for 30 s by default, and might wake up before
    # its worker.
    late = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--timeout 300")
    other = start(**settings, WEB_CONCURRENCY=1)
    with (
        tables_of(url) as tables,
        late.client().stream("POST", "/sessions", {"content": "Hello"}) as stream,
    ):
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        request = provider.wait_for_request()
        with paused(late, url):
            lapse(tables)
            # By SQL, since the other server takes the reply over without any request.
            wait_until(
                lambda: not tables.rows("SELECT id FROM turn WHERE status = 'in_progress'"), TAKEN
            )
            alice = other.client()
            [question, first] = alice.turns(session)
            ended = first["status"], first["content"], first["continued"]
            assert ended == ("complete", "Half and half.", 1)
            assert [so_far(each) for each in provider.posts] == ["", "Half "]
            assert not request.hung_up.is_set()
            answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"})
            assert (answer.status_code, answer.json()["content"]) == (201, "The answer.")
            before, turns = snapshot(tables), alice.turns(session)
            assert [turn["content"] for turn in turns] == [
                "Hello",
                first["content"],
                "Go on",
                "The answer.",
            ]
            more.set()
            assert sent.wait(5)  # when it runs again, all of this has arrived
        assert is_whole or request.hung_up.wait(5), "the late writer did not hang up"
        read = list(frames)
        assert "Half " + "".join(frame.data["delta"] for frame in read[:-2]) == first["content"]
        assert [frame.name for frame in read[-2:]] == ["assistant_turn", "done"]
        assert read[-2].data == first
        late.wait_for_output("outcome=")  # it is done with the reply
        assert late.client().turns(session) == turns
        late.stop()  # after which it writes nothing
        assert snapshot(tables) == before
    assert "Traceback" not in late.output() + other.output()
    answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "And more"})
    assert (answer.status_code, answer.json()["content"]) == (201, "The answer.")
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Hello", first["content"], "Go on", "The answer.", "And more"]
