"""Processes that die, stop, start together, or are newer than their database: nothing that was answered is lost."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from client import SECRET, Client, make_token, wait_for_status, wait_until
from processes import is_dead, this_process
from product import ROOT, copy_of_the_service
from provider import reply
from servers import Server, end, free_port, wait_until_up


def test_after_sigterm_replies_end_or_are_handed_over(start, settings, provider):
    server = start(**settings, GRACE=2)
    alice = server.client()
    never, soon = threading.Event(), threading.Event()
    provider.script = [reply("Half", never), reply("Half", never), reply("Not ", soon, "cut.")]
    sessions = [
        alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        for _ in range(2)
    ]
    provider.wait_for_request(2)  # otherwise the third might get the answer of one of these
    provider.wait_for_request(2)
    with concurrent.futures.ThreadPoolExecutor() as pool, alice.events(sessions[0]) as stream:
        waiting = pool.submit(alice.post, "/sessions", {"content": "Hello"})
        following = iter(stream)
        assert next(following).data == {"delta": "Half"}
        provider.wait_for_request(3)
        began = time.monotonic()
        server.process.terminate()
        threading.Timer(0.3, soon.set).start()
        finished = waiting.result(20).json()
        assert time.monotonic() - began < 2
        assert list(following) == []  # it continues elsewhere
    server.process.wait(10)
    assert time.monotonic() - began < 7
    assert "Traceback" not in server.output()
    provider.script = [reply(" and half."), reply(" and half.")]
    alice = start(**settings).client()
    for session in sessions:
        turn = wait_for_status(alice, session, "complete")
        assert (turn["content"], turn["continued"]) == ("Half and half.", 1)
        assert (
            alice.post(f"/sessions/{session['id']}/messages", {"content": "Go on"}).status_code
            == 201
        )
    assert alice.turns(finished)[1]["content"] == "Not cut."


def test_postgresqls_driver_is_loaded_only_if_it_is_used(start, settings, monkeypatch):
    monkeypatch.setattr(Server, "is_forked", False)  # a forked one has it in any case
    server = start(**settings)
    files = [pathlib.Path(f"/proc/{pid}/maps").read_text() for pid in server.workers()]
    assert files and all(
        ("psycopg" in text) == settings["DATABASE_URL"].startswith("postgresql") for text in files
    )


def test_a_newer_release_keeps_all_data_of_an_older_one(start, settings, provider, tmp_path):
    session = start(**settings).client().create("Hello")
    newer = copy_of_the_service(tmp_path / "newer")
    source = (newer / "maintenance" / "migrations.py").read_text()
    added = "\nMIGRATIONS.append(lambda: db.execute_sql('ALTER TABLE session ADD COLUMN colour TEXT'))\n"
    (newer / "maintenance" / "migrations.py").write_text(source + added)
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
        end(process)


@pytest.fixture
def interruptible():
    """A background job ignores SIGINT, and so do its children. A handler of our own is not inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.usefixtures("interruptible")
def test_flask_run_prints_a_request_to_paste_and_stops_without_a_loss(provider, tmp_path):
    folder, port = copy_of_the_service(tmp_path / "laptop"), free_port()
    (folder / ".venv").symlink_to(sys.prefix)
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {
        "PYTHONUNBUFFERED": "1"
    }
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]

    def run(**environment):
        return subprocess.Popen(
            command,
            cwd=folder,
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    process = run()
    curl = next(line for line in process.stdout if line.startswith("try: ")).removeprefix("try: ")
    answer = subprocess.run(["sh", "-c", curl], cwd=folder, capture_output=True, text=True).stdout
    assert (
        "event: content_delta" in answer
        and '"content": "Hello, Parley!"' in answer
        and "event: done" in answer
    )
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)

    process = run(OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1")
    token = (
        next(line for line in process.stdout if line.startswith("open"))
        .partition("#token=")[2]
        .strip()
    )
    alice = Client(f"http://127.0.0.1:{port}", token)
    wait_until_up(alice.url, process)
    provider.script = [reply("Half", threading.Event())]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session = next(events).data
        next(events)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    provider.script = [reply(" and half", threading.Event()), reply(" of it.")]
    process = run(OPENAI_BASE_URL=provider.url + "/v1")
    wait_until_up(alice.url, process)
    wait_until(lambda: alice.turns(session)[-1]["content"] == "Half and half")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    process = run(OPENAI_BASE_URL=provider.url + "/v1")
    wait_until_up(alice.url, process)
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half of it."
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def test_a_reply_that_begins_after_sigterm_is_waited_for_like_the_others(start, settings, provider):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, more, soon = server.client(), threading.Event(), threading.Event()
    provider.script = [reply("First ", soon), reply("Hi"), reply("Second ", more, "whole.")]
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as kept:

        def ask(content, **headers):
            headers = {
                "Authorization": f"Bearer {alice.token}",
                "Content-Type": "application/json",
                **headers,
            }
            kept.request("POST", "/sessions", json.dumps({"content": content}), headers)
            response = kept.getresponse()
            return json.loads(response.read())

        first = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        provider.wait_for_request()
        ask("Hello")  # this opens the connection that is kept
        server.process.terminate()
        time.sleep(0.3)  # the worker has the signal, and keeps the connection for two seconds
        second = ask("Hello", Prefer="respond-async")
        soon.set()
        threading.Timer(2.3, more.set).start()
        server.process.wait(30)
    alice = start(**settings).client()
    assert alice.turns(first)[1]["status"] == "complete"
    assert (alice.turns(second)[1]["status"], alice.turns(second)[1]["content"]) == (
        "complete",
        "Second whole.",
    )


def test_a_reply_continues_at_once_if_its_process_is_known_to_be_dead(start, settings, provider):
    """The next start on the machine sees that its writer is gone, so even a service that is killed every few seconds
    continues its replies."""
    gates = [threading.Event() for _ in range(3)]
    provider.script = [
        reply("One ", gates[0]),
        reply("two ", gates[1]),
        reply("three ", gates[2], "four."),
    ]
    servers, written = [start(**settings, CONTINUE_LIMIT=9)], "One "
    session = (
        servers[0].client().post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    )
    for more in ("two ", "three "):
        client = servers[-1].client()
        wait_until(lambda: client.turns(session)[1]["content"] == written, 10)
        servers[-1].kill()
        servers.append(start(**settings, CONTINUE_LIMIT=9))
        written += more
    client = servers[-1].client()
    wait_until(lambda: client.turns(session)[1]["content"] == written, 10)
    gates[2].set()
    assert wait_for_status(client, session, "complete")["content"] == "One two three four."
    for gate in gates:
        gate.set()


def test_a_reply_continues_at_once_if_its_worker_is_dead(start, settings, provider):
    more = threading.Event()
    provider.script = [reply("Half ", more), reply("and half.")]
    server = start(**settings)
    alice = server.client()
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        next(frames)
        for pid in server.workers():  # each of them, since it is not visible which one writes
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: provider.posts[1:], 10)
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
    more.set()


def test_a_process_is_dead_even_if_another_has_its_number_now():
    machine, number, start = this_process().split("/")
    assert not is_dead(f"{machine}/{number}/{start}")
    assert is_dead(f"{machine}/{number}/{int(start) - 1}")
