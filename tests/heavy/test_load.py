"""Tests that need a machine for themselves: many clients at once, kills under load, no more
threads and files.

`pytest` leaves these out; `pytest -n 0 tests/heavy` runs them, one at a time.
"""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import resource
import time
import uuid

import pytest
import requests

from client import wait_until
from provider import reply
from raw_tables import tables_of
from readers import Reader
from servers import Server
from together import on_postgresql, on_sqlite


def test_two_hundred_readers_of_fifty_replies(start, settings, provider):
    server = start(**settings)
    users = [
        server.client(f"https://github.com/reader-{number}") for number in range(4)
    ]  # one user alone may not have so many streams
    words = [f"wörd-{number} " for number in range(100)]
    provider.default = reply(*itertools.chain(*((word, 0.02) for word in words)))
    expected = "".join(words)

    def create(number):
        user = users[number % len(users)]
        return user, user.post(
            "/sessions", {"content": f"Message {number}"}, Prefer="respond-async"
        ).json()

    def read_all(user, session):
        """With one stream only."""
        reader = Reader([user], session).follow(60)
        assert (reader.end, reader.returns) == ("done", 0), reader
        return reader.text

    with concurrent.futures.ThreadPoolExecutor(250) as pool:
        readers = [
            pool.submit(read_all, *created)
            for created in pool.map(create, range(50))
            for _ in range(4)
        ]
        texts = [reader.result(60) for reader in readers]
    assert len(texts) == 200 and set(texts) == {expected}
    assert "ERROR" not in server.output()


@on_sqlite  # a kill of these processes kills none of PostgreSQL's
def test_confirmed_messages_survive_three_kills_under_load(start, settings, provider):
    provider.default = reply("Some ", 0.02, "words ", 0.02, "more.")
    answered, readers = [], []
    settings["CONTINUE_LIMIT"] = 3  # each kill may hit the same reply
    for round in range(3):
        server = start(**settings)
        alice = server.client()

        def create(number):
            response = alice.post("/sessions", {"content": f"Message {round}.{number}"}, timeout=10)
            if response.status_code == 201:
                answered.append(response.json())

        def follow(number):
            reader = Reader([alice])
            reader.asks = "/sessions", {"content": f"Stream {round}.{number}"}
            readers.append(reader)
            reader.come_back()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            work = [pool.submit(create if number % 2 else follow, number) for number in range(150)]
            deadline, enough = time.monotonic() + 20, 10 * (round + 1)
            while min(len(answered), sum(bool(each.session) for each in readers)) < enough:
                assert time.monotonic() < deadline, server.output()
                time.sleep(0.01)
            server.kill()
            for item in work:
                item.exception()
    killed_at = time.monotonic()
    with tables_of(settings["DATABASE_URL"]) as tables:  # the next server continues them at once
        assert tables.value("SELECT count(*) FROM turn WHERE status = 'in_progress'")
    server = start(**settings)
    alice = server.client()
    for session in answered:
        whole = alice.get(f"/sessions/{session['id']}").json()
        assert {name: whole[name] for name in session} == session
        assert (whole["turns"][1]["status"], whole["turns"][1]["content"]) == (
            "complete",
            "Some words more.",
        )
    stuck = []
    for reader in [each for each in readers if each.session]:
        turn = alice.turns(reader.session)[1]
        assert turn["content"].startswith(reader.text), "a delta was sent that was not stored"
        if turn["status"] == "in_progress" or turn["continued"]:
            stuck.append(reader)
    assert stuck, "no reply was in progress when the processes were killed"
    for reader in stuck:
        path = f"/sessions/{reader.session['id']}/messages"
        while alice.post(path, {"content": "Go on"}).status_code == 409:
            assert time.monotonic() - killed_at < 32
            time.sleep(0.2)
        _, turn, _, answer = alice.turns(reader.session)
        assert (turn["status"], answer["status"]) == ("complete", "complete"), turn
        assert turn["continued"] and turn["content"].startswith(reader.text), turn
        assert turn["content"].endswith("Some words more.")


@pytest.fixture
def few_threads():
    """A function that allows the processes of a server so many more threads in all, or any
    number with None."""
    roots = [root for root in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.access(root, os.W_OK)]
    group = pathlib.Path(roots[0] if roots else "/", f"parley-{uuid.uuid4().hex}")
    try:
        group.mkdir()
        (group / "pids.max").write_text("max")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip("there is no control group here in which to limit threads")

    def limit(server, more):
        for pid in (server.process.pid, *server.workers()):
            (group / "cgroup.procs").write_text(str(pid))
        now = int((group / "pids.current").read_text())
        (group / "pids.max").write_text("max" if more is None else str(now + more))

    yield limit

    def is_gone():
        with contextlib.suppress(OSError):  # a killed process leaves it a moment later
            group.rmdir()
        return not group.exists()

    wait_until(is_gone)


def statuses_of(client, sessions):
    return {client.turns(session)[-1]["status"] for session in sessions}


def test_no_session_is_stuck_if_the_system_has_no_more_threads(
    few_threads, start, settings, provider
):
    provider.default = reply(1.0, "Done.")
    server = start(**settings)
    alice, workers = server.client(), server.workers()
    alice.create("Before")
    few_threads(server, 20)

    def ask(number):
        """Half of them do not wait, so that there are more replies than threads for them."""
        prefer = "respond-async" if number % 2 else None
        return alice.post("/sessions", {"content": f"{number}"}, Prefer=prefer)

    with concurrent.futures.ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(ask, range(80)))
    assert {answer.status_code for answer in answers} <= {201, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused and all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    few_threads(server, None)
    sessions = alice.get("/sessions?page[limit]=100").json()["data"]
    wait_until(lambda: "in_progress" not in statuses_of(alice, sessions))
    failed = [each for each in sessions if statuses_of(alice, [each]) == {"failed"}]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        paths = [f"/sessions/{session['id']}/retry" for session in failed]
        again = pool.map(lambda path: alice.post(path).json()["content"], paths)
        assert list(again) == ["Done."] * len(failed)
    assert statuses_of(alice, sessions) == {"complete"}
    assert server.workers() == workers


@on_postgresql  # whose connections are files too
def test_a_worker_survives_running_out_of_file_descriptors(start, settings, provider):
    provider.default = reply(0.5, "Done.")
    server = start(**settings)
    alice, workers = server.client(), server.workers()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
    for pid, (_, hard) in limits.items():
        few = len(os.listdir(f"/proc/{pid}/fd")) + 12
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))

    def create(number):
        with contextlib.suppress(
            requests.ConnectionError
        ):  # a request that has not been read may be dropped
            return alice.post("/sessions", {"content": f"{number}"}).status_code

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        assert set(pool.map(create, range(60))) <= {None, 201, 502, 503}
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])
    assert server.workers() == workers
    sessions = alice.get("/sessions?page[limit]=100").json()["data"]
    assert {alice.turns(session)[1]["status"] for session in sessions} <= {"complete", "failed"}
    assert alice.create("More")


def test_starts_with_many_processes_at_the_same_instant_on_an_empty_database(settings, tmp_path):
    servers = [Server(tmp_path, **settings, WEB_CONCURRENCY="4") for _ in range(4)]
    try:
        for server in servers:
            server.wait_until_up()
        for server in servers:
            assert server.client().post("/sessions", {"content": "Hello"}).status_code in (201, 502)
            assert "Traceback" not in server.output()
    finally:
        for server in servers:
            server.kill()
            server.log.close()
