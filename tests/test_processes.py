"""Processes that die, stop, start together, or are newer than their database: nothing that was answered is lost."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest
import requests

from client import ROOT, SECRET, Client, Server, free_port, make_token
from provider import reply
from test_replies import wait_for_status


@pytest.fixture
def settings(new_database, provider):
    return {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}


def test_keeps_what_was_answered_through_three_kills_under_load(start, settings, provider):
    provider.default = reply("Some ", 0.02, "words ", 0.02, "more.")
    answered, streamed = [], {}
    for round in range(3):
        server = start(**settings)
        alice = server.client()

        def create(number):
            response = alice.post("/sessions", {"content": f"Message {round}.{number}"}, timeout=10)
            if response.status_code == 201:
                answered.append(response.json())

        def follow(number):
            with alice.stream("POST", "/sessions", {"content": f"Stream {round}.{number}"}, timeout=10) as stream:
                for event in stream:
                    if event.name == "session":
                        session = event.data["id"]
                        streamed[session] = ""
                    elif event.name == "content_delta":
                        streamed[session] += event.data["delta"]

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            work = [pool.submit(create if number % 2 else follow, number) for number in range(150)]
            deadline = time.monotonic() + 20
            while min(len(answered), len(streamed)) < 10 * (round + 1):
                assert time.monotonic() < deadline, server.output()
                time.sleep(0.01)
            server.kill()
            for item in work:
                item.exception()
    killed_at = time.monotonic()
    server = start(**settings)
    alice = server.client()
    for session in answered:
        whole = alice.get(f"/sessions/{session['id']}").json()
        assert {name: whole[name] for name in session} == session
        assert (whole["turns"][1]["status"], whole["turns"][1]["content"]) == ("complete", "Some words more.")
    stuck = []
    for session, text in streamed.items():
        turn = alice.turns({"id": session})[1]
        assert turn["content"].startswith(text), "a delta was sent that was not stored"
        if turn["status"] == "in_progress":
            stuck.append(session)
    assert stuck, "no reply was under way when the processes were killed"
    for session in stuck:
        while alice.post(f"/sessions/{session}/messages", {"content": "Go on"}).status_code == 409:
            assert time.monotonic() - killed_at < 30
            time.sleep(0.2)
        assert [turn["status"] for turn in alice.turns({"id": session})[1::2]] == ["interrupted", "complete"]


def test_lets_replies_end_after_sigterm_and_interrupts_the_rest(start, settings, provider):
    server = start(**settings, GUNICORN_CMD_ARGS="--graceful-timeout 8")
    alice = server.client()
    never, soon = threading.Event(), threading.Event()
    provider.script = [reply("Half", never), reply("Half", never), reply("Not ", soon, "cut.")]
    sessions = [alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json() for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor() as pool, alice.events(sessions[0]) as stream:
        waiting = pool.submit(alice.post, "/sessions", {"content": "Hello"})
        following = iter(stream)
        assert next(following).data == {"delta": "Half"}
        provider.wait_for_request(3)
        began = time.monotonic()
        server.process.terminate()
        threading.Timer(0.5, soon.set).start()
        finished = waiting.result(20).json()
        assert time.monotonic() - began < 2.5
        turn = next(following)
        assert (turn.name, turn.data["status"], turn.data["content"]) == ("assistant_turn", "interrupted", "Half")
        assert next(following).name == "done"
    server.process.wait(10)
    assert time.monotonic() - began < 8
    assert "Traceback" not in server.output()
    alice = start(**settings).client()
    for session in sessions:
        assert alice.turns(session)[1]["status"] == "interrupted"
        assert alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"}).status_code == 201
    assert alice.turns(finished)[1]["content"] == "Not cut."


@pytest.fixture
def few_threads():
    """A function that gives the processes of a server so many threads more, all of them together, or None: any number."""
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
    group.rmdir()


def test_no_session_is_stuck_where_the_system_gives_no_more_threads(few_threads, start, settings, provider):
    provider.default = reply(1.0, "Done.")
    server = start(**settings)
    alice, workers = server.client(), server.workers()
    alice.create("Before")
    few_threads(server, 20)
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda number: alice.post("/sessions", {"content": f"{number}"}), range(40)))
    assert {answer.status_code for answer in answers} <= {201, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused and all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    few_threads(server, None)
    kept = [answer.headers["Location"] for answer in refused if "Location" in answer.headers]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        again = pool.map(lambda session: alice.post(session + "/retry").json()["content"], kept)
        assert list(again) == ["Done."] * len(kept)
    sessions = alice.get("/sessions?page[limit]=100").json()["data"]
    assert {alice.turns(session)[1]["status"] for session in sessions} == {"complete"}
    assert server.workers() == workers


def test_a_worker_outlives_the_last_of_its_files(start, settings, provider):
    provider.default = reply(0.5, "Done.")
    server = start(**settings)
    alice, workers = server.client(), server.workers()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
    for pid, (_, hard) in limits.items():
        few = len(os.listdir(f"/proc/{pid}/fd")) + 12
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))

    def create(number):
        with contextlib.suppress(requests.ConnectionError):  # a request that has not been read may be dropped
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


def test_a_newer_release_keeps_all_of_an_older_ones_data(start, settings, provider, tmp_path):
    session = start(**settings).client().create("Hello")
    newer = copy_of_the_service(tmp_path / "newer")
    source = (newer / "models.py").read_text()
    added = "MIGRATIONS.append(lambda: db.execute_sql('ALTER TABLE session ADD COLUMN colour TEXT'))\n"
    (newer / "models.py").write_text(source + added)
    command = [sys.executable, "-c", "import app; app.create_app()"]
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    for _ in range(2):
        subprocess.run(command, cwd=newer, env=environment, check=True)
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("DATABASE_URL: ") and refused.stderr.count("\n") == 1
    port = free_port()
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=newer, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        alice = Client(f"http://127.0.0.1:{port}", make_token())
        wait_until_up(alice.url, process)
        assert [turn["content"] for turn in alice.turns(session)] == ["Hello", "The answer."]
        assert alice.create("New")["title"] == "New"
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_flask_run_prints_a_request_that_can_be_pasted_and_ctrl_c_loses_nothing(provider, tmp_path):
    folder, port = copy_of_the_service(tmp_path / "laptop"), free_port()
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]

    def run(**environment):
        return subprocess.Popen(
            command, cwd=folder, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    process = run()
    curl = next(line for line in process.stdout if line.strip().startswith("curl"))
    wait_until_up(f"http://127.0.0.1:{port}", process)
    answer = subprocess.run(["sh", "-c", curl], capture_output=True, text=True).stdout
    assert answer.startswith("HTTP/1.1 201 CREATED")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    process = run(OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1")
    token = re.search(r"Bearer (\S+)'", next(line for line in process.stdout if line.strip().startswith("curl")))[1]
    alice = Client(f"http://127.0.0.1:{port}", token)
    wait_until_up(alice.url, process)
    provider.script = [reply("Half", threading.Event())]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session = next(events).data
        next(events)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    process = run()
    wait_until_up(alice.url, process)
    assert wait_for_status(alice, session, "interrupted", 1)["content"] == "Half"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def copy_of_the_service(folder):
    folder.mkdir()
    for path in [*ROOT.glob("*.py"), ROOT / "Procfile"]:
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "static", folder / "static")
    return folder


def wait_until_up(url, process):
    while True:
        try:
            requests.get(url + "/health", timeout=5)
            return
        except requests.ConnectionError:
            assert process.poll() is None, process.stdout.read()
