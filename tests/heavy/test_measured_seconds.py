"""How long real processes need until a promise is kept: no longer than the sum next to its
constants.

The documents have these sums, too: see tests/operate/test_promised_seconds.py. `-s` shows what
was measured.
"""

import concurrent.futures
import threading
import time

import pytest

from client import wait_until
from connections import tcp_sockets
from database.deadline import ANSWERED
from late_writers import paused
from provider import reply, so_far
from proxy import Relay
from raw_http import connected, head
from raw_tables import tables_of
from replies import rescuer
from serving.dispatcher import DISCONNECT_AFTER, IDLE_TIMEOUT
from serving.worker import HANDOVER_RESERVE
from together import on_postgresql, on_sqlite
from trouble import locked

LATE = 1  # seconds more that a busy machine may need


def is_held(server, client):
    """Whether a process of the server has this client's connection open. A closed one belongs to
    no process, though the system may still have data to send."""
    ports = server.port, client.getsockname()[1]
    for fields in tcp_sockets():
        _, local, remote, *_, inode = fields[:10]
        if tuple(int(end.partition(":")[2], 16) for end in (local, remote)) == ports:
            return inode != "0"
    return False


@on_sqlite
def test_a_reply_is_continued_in_time_whatever_becomes_of_its_process(start, settings, provider):
    """Its process dies on the same machine or on another one, is paused, or hands it over."""

    def answer(request):
        yield from (
            reply("and half.")(request)
            if so_far(request)
            else reply("Half ", threading.Event())(request)
        )

    provider.default = answer
    fates = "dies here", "dies elsewhere", "is paused", "hands over"
    # The master would kill a worker that stands still.
    one = {"WEB_CONCURRENCY": 1, "GUNICORN_CMD_ARGS": "--timeout 300"}
    servers = {fate: start(**settings, **one, GRACE=0) for fate in fates}
    start(**settings, **one)  # it takes over
    keys, ended = {}, {}
    with tables_of(settings["DATABASE_URL"]) as tables:
        for fate, server in servers.items():
            alice = server.client()
            body = {"content": "Hello"}
            session = alice.post("/sessions", body, Prefer="respond-async").json()
            wait_until(lambda: alice.turns(session)[1]["content"] == "Half ")  # noqa: B023
            keys[fate] = tables.key_of(session)
        sql = "UPDATE turn SET writer = 'elsewhere/1/1' WHERE session_id = ? AND writer IS NOT NULL"
        tables.rows(sql, keys["dies elsewhere"])
        with paused(servers["is paused"], settings["DATABASE_URL"]):
            began = time.monotonic()
            servers["dies here"].kill()
            servers["dies elsewhere"].kill()
            servers["hands over"].process.terminate()
            servers["hands over"].process.wait(30)
            stopped = time.monotonic() - began
            while len(ended) < len(fates):
                for fate in keys.keys() - ended.keys():
                    sql = "SELECT count(*) FROM turn WHERE session_id = ? AND status = 'complete'"
                    if tables.value(sql, keys[fate]):
                        ended[fate] = time.monotonic() - began
                assert time.monotonic() - began < 60, ended
                time.sleep(0.02)
    print("\n", {fate: round(seconds, 1) for fate, seconds in ended.items()}, round(stopped, 1))
    assert stopped <= HANDOVER_RESERVE
    assert ended["dies here"] <= rescuer.TAKEOVER_DELAY + LATE
    assert ended["hands over"] <= stopped + rescuer.TAKEOVER_DELAY + LATE
    for fate in ("dies elsewhere", "is paused"):
        assert (
            rescuer.MIN_TAKEOVER_DELAY_ELSEWHERE - LATE
            <= ended[fate]
            <= rescuer.TAKEOVER_DELAY_ELSEWHERE + LATE
        )


def answered_in(alice, session):
    """The time that these requests take if sent all at once, more of them than connections:
    status → the longest."""
    asks = [
        lambda: alice.get("/sessions"),
        lambda: alice.get(f"/sessions/{session['id']}"),
        lambda: alice.post("/sessions", {"content": "Hello"}),
        lambda: alice.post(f"/sessions/{session['id']}/cancel"),
        lambda: alice.patch(f"/sessions/{session['id']}", {"title": "Another"}),
        lambda: alice.delete(f"/sessions/{session['id']}"),
        lambda: alice.get("/health"),
    ]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = [answer.result() for answer in [pool.submit(ask) for ask in asks * 5]]
    longest = {}
    for answer in answers:
        seconds = answer.elapsed.total_seconds()
        longest[answer.status_code] = max(seconds, longest.get(answer.status_code, 0))
    print("\n", longest)
    return longest


@on_postgresql
def test_every_request_is_answered_in_time_while_postgresql_hangs(start, settings):
    relay = Relay(settings["DATABASE_URL"])
    alice = start(**settings | {"DATABASE_URL": relay.url}, WEB_CONCURRENCY=1).client()
    session = alice.post("/sessions", {"content": "Hello"}).json()
    relay.proxy.passes.clear()
    longest = answered_in(alice, session)
    relay.proxy.passes.set()
    assert set(longest) == {503} and longest[503] <= ANSWERED + LATE / 2


@on_sqlite
def test_every_request_is_answered_in_time_while_sqlite_is_locked(start, settings):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = alice.post("/sessions", {"content": "Hello"}).json()
    with locked(settings["DATABASE_URL"]):
        longest = answered_in(alice, session)
    assert set(longest) == {200, 409, 503} and longest[503] <= ANSWERED + LATE / 2


@pytest.mark.long
@on_sqlite
def test_a_client_that_reads_nothing_is_disconnected_in_time(start, settings, provider):
    provider.default = reply("x" * 2**20)
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    session = alice.post("/sessions", {"content": "Hello"}).json()
    with connected(server, receive_buffer=4096) as client:
        client.sendall(head("GET", f"/sessions/{session['id']}"))
        began = time.monotonic()
        wait_until(lambda: is_held(server, client))
        wait_until(lambda: not is_held(server, client), DISCONNECT_AFTER + 10)
        seconds = time.monotonic() - began
    print("\n", round(seconds, 1))
    assert IDLE_TIMEOUT <= seconds <= DISCONNECT_AFTER + LATE
