"""Fifty replies on one host or two, while everything dies, stops, is replaced, or loses its
database for a minute.

`pytest -n 0 -m long -s tests/heavy/test_outages.py` runs these, some two minutes each, and shows
how long the readers waited.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from client import Client, wait_for_status, wait_until
from fleet import Fleet, tell
from product import copy_of_the_service
from provider import reply, so_far
from proxy import Relay
from raw_tables import tables_of
from servers import free_port, wait_until_up

pytestmark = pytest.mark.long

GRACE = "--graceful-timeout 7"  # of which five seconds are for handing over
MINUTE = 60


def finish(fleet, **most):
    """Check all replies, and print how long the readers waited. Returns these times by what
    happened."""
    waits = fleet.waits()
    tell(waits)
    fleet.check(**most)
    return waits


def test_all_processes_are_killed_and_started_again(start, settings, provider):
    fleet = Fleet(start, settings, provider, pace=0.7)
    server = fleet.host()
    with fleet.reading():
        fleet.happens("kill -9 of all", server)
        server.kill()
        time.sleep(5)
        fleet.host()
        fleet.leave(server)
    [silences] = finish(fleet).values()
    assert len(silences) == len(fleet.readers) and silences[-1] < 40


def test_the_whole_service_is_stopped_for_a_while(start, settings, provider):
    fleet = Fleet(start, settings, provider, pace=0.7)
    server = fleet.host(GRACE)
    with fleet.reading():
        fleet.happens("SIGTERM of all, 40 s", server)
        server.stop()
        time.sleep(40)
        fleet.host()
        fleet.leave(server)
    [silences] = finish(fleet).values()
    assert len(silences) == len(fleet.readers) and silences[-1] < 60


def test_two_hosts_are_replaced_one_after_the_other(start, settings, provider):
    fleet = Fleet(start, settings, provider, pace=0.9)
    hosts = [fleet.host(GRACE), fleet.host(GRACE)]
    with fleet.reading():
        for number, host in enumerate(hosts):
            fleet.happens(f"SIGTERM of host {number}", host)
            host.process.terminate()
            fleet.leave(host)
            fleet.host(GRACE)
            host.process.wait(20)
    for silences in finish(fleet, most_calls=2).values():
        assert silences and silences[-1] < 15


def test_a_master_replaces_its_workers_on_request(start, settings, provider):
    fleet = Fleet(start, settings, provider, pace=0.7)
    server = fleet.host(GRACE)
    with fleet.reading():
        before = set(server.workers())
        fleet.happens("SIGHUP of a master", server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
    [silences] = finish(fleet).values()
    assert len(silences) == len(fleet.readers) and silences[-1] < 15


def test_workers_are_replaced_after_so_many_requests(start, settings, provider):
    """Each of them ends after its twentieth request, while others send more. Readers that
    reconnect send requests too."""
    fleet = Fleet(start, settings, provider, pace=0.7)
    server = fleet.host(f"{GRACE} --max-requests 20")
    silent, over = [], threading.Event()

    def ask():
        client = fleet.clients[0][0]
        while not over.wait(0.2):
            began = time.monotonic()
            try:
                client.get("/health", timeout=30)
            except OSError as error:
                silent.append(type(error).__name__)
            else:
                silent.append(time.monotonic() - began)

    asking = threading.Thread(target=ask)
    before = set(server.workers())
    try:
        with fleet.reading():
            fleet.happens("--max-requests 20", server)
            asking.start()
            wait_until(
                lambda: len(server.workers()) == 2 and not before & set(server.workers()), 60
            )
    finally:
        over.set()
        asking.join()
    times = [each for each in silent if isinstance(each, float)]
    print(
        f"\n/health: {len(times)} answers, the slowest in {max(times):.1f} s; {len(silent) - len(times)} broke off"
    )
    [silences] = finish(fleet, most_calls=100).values()
    assert silences and silences[-1] < 25


@pytest.fixture
def relay(engine, settings):
    if engine == "sqlite":
        pytest.skip("a file of SQLite cannot be cut off")
    relay = Relay(settings["DATABASE_URL"])
    yield relay
    relay.proxy.passes.set()
    relay.proxy.close()


@pytest.mark.parametrize("outage", [Relay.cut_off, Relay.hang])
def test_a_minute_without_the_database_for_all(relay, start, settings, provider, outage):
    """Nobody can know which processes are dead: no reply is requested twice, and text that comes
    meanwhile is stored."""
    fleet = Fleet(
        start,
        settings | {"DATABASE_URL": relay.url},
        provider,
        pace=1.5,
        database=settings["DATABASE_URL"],
    )
    fleet.host(), fleet.host()
    with fleet.reading():
        outage(relay, MINUTE)
    finish(fleet, most_calls=0)


@pytest.mark.parametrize("outage", [Relay.cut_off, Relay.hang])
def test_a_minute_without_the_database_for_one_of_two_hosts(
    relay, start, settings, provider, outage
):
    """The other host takes over its replies. When it is back, it drops what it has, and hangs
    up.

    Readers at the host without a database wait until it is back; elsewhere the text continues.
    """
    fleet = Fleet(start, settings, provider, pace=1.5)
    fleet.host()
    cut_off = fleet.host(DATABASE_URL=relay.url)
    with fleet.reading():
        fleet.models.may_overlap = True  # the host cannot know that it has lost them
        fleet.happens("a minute without the database for one of two hosts", cut_off)
        away = time.monotonic()
        outage(relay, MINUTE)
        back = time.monotonic()
        lost = [calls for calls in fleet.models.calls.values() if len(calls) > 1]
        assert all(calls[0].hung_up.wait(30) for calls in lost)
        print(
            f"\n{len(lost)} were asked for again after {max(calls[1].at for calls in lost) - away:.1f} s, ",
            end="",
        )
        print(
            f"and hung up {max(calls[0].hung_up.at for calls in lost) - back:.1f} s after the database was back"
        )
        assert lost and all(calls[1].at - away < 35 for calls in lost)
    [silences] = finish(fleet).values()
    assert silences[-1] < MINUTE + 15


@pytest.mark.parametrize("seconds", [29, 33])  # after the leases have lapsed and were looked at
def test_a_database_that_is_read_only_for_half_a_minute(start, settings, provider, seconds):
    """As while it is copied or migrated: it can be read, so other processes see the leases
    lapse. No reply is requested twice."""
    writer = start(**settings, WEB_CONCURRENCY=1)
    start(**settings, WEB_CONCURRENCY=4)  # any of these might be faster than the writer
    more = threading.Event()
    provider.default = reply("Half ", more, "and half.")
    alice = writer.client()
    sessions = [
        alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        for _ in range(8)
    ]
    wait_until(lambda: all(alice.turns(session)[1]["content"] == "Half " for session in sessions))
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("BEGIN IMMEDIATE" if tables.is_sqlite else "BEGIN")
        if not tables.is_sqlite:
            tables.rows("LOCK TABLE turn IN EXCLUSIVE MODE")
        time.sleep(seconds)
        tables.rows("ROLLBACK")
        # Until all leases are valid again, whoever has renewed them.
        lapsed = "SELECT count(*) FROM turn WHERE status = 'in_progress' AND lease_until < ?"
        wait_until(lambda: tables.value(lapsed, time.time_ns() // 1000) == 0)
    more.set()
    for session in sessions:
        turn = wait_for_status(alice, session, "complete")
        assert (turn["content"], turn["continued"]) == ("Half and half.", 0)
    assert len(provider.posts) == 8


def test_a_reply_is_continued_after_a_death_without_any_request(start, settings, provider):
    """As often as the limit says. After one more death, the reply is interrupted."""
    never = threading.Event()
    provider.script = [reply("Half ", never), reply("and ", never)]
    server = start(**settings, WEB_CONCURRENCY=2, CONTINUE_LIMIT=1)
    alice = server.client()
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    provider.wait_for_request()
    wait_until(lambda: alice.turns(session)[1]["content"] == "Half ")

    def kill_workers():
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    began = kill_workers()
    request = provider.wait_for_request(2, seconds=35)
    print(f"\nasked again after {request.at - began:.1f} s")
    assert so_far(request) == "Half "
    wait_until(lambda: alice.turns(session)[1]["content"] == "Half and ")
    began = kill_workers()
    wait_until(lambda: len(server.workers()) == 2)
    turn = wait_for_status(alice, session, "interrupted", 35)
    print(f"interrupted after {time.monotonic() - began:.1f} s")
    assert (turn["content"], turn["continued"], len(provider.posts)) == ("Half and ", 1, 2)


@pytest.fixture
def interruptible():
    """A background job ignores SIGINT, and so do its children; a handler of ours is not
    inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_flask_run_is_interrupted_and_started_again(settings, provider, tmp_path, sign):
    """Its reply continues: at once, or after a kill when the lease has lapsed."""
    folder, port = copy_of_the_service(tmp_path / "laptop"), free_port()
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {
        "PYTHONUNBUFFERED": "1"
    }
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    processes, log = [], open(tmp_path / "log", "w+")

    def run():
        processes.append(
            subprocess.Popen(
                command, cwd=folder, env=clean | settings, stdout=log, stderr=subprocess.STDOUT
            )
        )
        wait_until_up(f"http://127.0.0.1:{port}", processes[-1])

    provider.script = [reply("Half ", threading.Event()), reply("and half.")]
    try:
        run()
        token = re.search(r"Bearer (\S+)'", (tmp_path / "log").read_text())[1]
        alice = Client(f"http://127.0.0.1:{port}", token)
        with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
            events = iter(stream)
            session = next(events).data
            assert next(events).data == {"delta": "Half "}
            processes[-1].send_signal(sign)
            processes[-1].wait(15)
        assert provider.posts[0].hung_up.wait(5)
        run()
        turn = wait_for_status(alice, session, "complete", 35 if sign == signal.SIGKILL else 5)
        assert (turn["content"], turn["continued"]) == ("Half and half.", 1)
        assert so_far(provider.posts[1]) == "Half " and len(provider.posts) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()
