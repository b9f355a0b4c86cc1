"""The log: one line per request, one per reply, and nothing that is secret or that a user wrote."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import psycopg
import pytest

import servers
from client import make_token, wait_until
from product import ROOT, copy_of_the_service
from provider import chunk, cut, fails, head, openai_events, raw, reply, status
from servers import Server, free_port
from wire import without_password


@pytest.fixture
def settings(provider):
    return {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "DEFAULT_MODEL": "m-1",
    }


def lines_of(output, message):
    whole = output.rpartition("\n")[0]  # the last line may not be complete yet
    found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in found if line["message"] == message]


def test_what_a_provider_says_forges_no_line(start, settings, provider):
    provider.models = status(401, {"error": {"message": "Odd\x1b[2J\u2028\x85\u202eINFO forged"}})
    server = start(**settings | {"DEFAULT_MODEL": None})
    assert server.client().get("/models").json()["data"] == []
    output = server.wait_for_output("cannot be had")
    (line,) = [line for line in output.split("\n") if "forged" in line]
    assert " WARNING The models of 127.0.0.1:" in line and " cannot be had: " in line
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", line)


def test_the_log_has_the_outcome_of_requests_and_replies(start, settings, provider):
    server = start(**settings, LOG_FORMAT="json")
    alice = server.client()
    provider.script = [cut("Some "), reply("text."), fails("Half")]
    session = alice.post("/sessions", {"content": "Hello"}, X_Request_ID="my-id")
    assert session.headers["X-Request-ID"] == "my-id"
    failed = alice.post("/sessions", {"content": "Hello"}, X_Request_ID='forged" id=1')
    made = failed.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    missing = alice.request("GET", "/nowhere", Authorization=None).headers["X-Request-ID"]

    def requests_in_the_log():
        lines = lines_of(server.output(), "request")
        return {line["id"]: line for line in lines if line["path"] != "/health"}

    # Either process writes each line after its response.
    wait_until(lambda: len(requests_in_the_log()) == 3)
    output = server.wait_for_output('"reply"', 2)
    requests = requests_in_the_log()
    assert set(requests) == {"my-id", made, missing}
    first, second, third = (requests[name] for name in ("my-id", made, missing))
    assert 0 < first.pop("seconds") < 60 and first.pop("time") and first.pop("level") == "INFO"
    assert first == {
        "message": "request",
        "method": "POST",
        "path": "/sessions",
        "status": 201,
        "user": "https://github.com/alice",
        "id": "my-id",
    }
    assert second["status"] == 502
    assert (third["status"], third["user"]) == (404, None)
    first, second = sorted(lines_of(output, "reply"), key=lambda line: line["outcome"])
    assert (
        0 <= first.pop("first_word") <= first.pop("seconds") < 60
        and first.pop("time")
        and first.pop("level")
    )
    assert first == {
        "message": "reply",
        "session": session.json()["id"],
        "id": "my-id",
        "model": "m-1",
        "outcome": "complete",
        "status": None,
        "continued": 1,
        "input_tokens": 15,
        "output_tokens": 7,
        "cached_tokens": 3,
        "estimated_tokens": 3,  # of the call that broke
        "provider_id": "req_1",
    }
    assert (second["outcome"], second["status"], second["continued"]) == ("failed", 502, 0)


def test_each_file_of_the_page_has_a_line(start):
    server = start()
    paths = ["/", "/static/page.css", "/static/page/main.js"]
    for path in paths:
        assert server.client().get(path, Accept="text/html,*/*;q=0.8").status_code == 200
    for path in paths:
        assert server.wait_for_output(f"path={path} ").count(f"path={path} ") == 1


def test_the_log_has_no_content_and_no_secret(start, settings, provider):
    server = start(**settings)
    alice = server.client()
    provider.script = [reply("The answer is classified."), fails("Half of it is classified.")]
    session = alice.post("/sessions", {"content": "A classified question", "system": "classified"})
    alice.post("/sessions", {"content": "A classified question"})
    alice.patch(f"/sessions/{session.json()['id']}", {"title": "classified"})
    alice.get("/sessions?query=classified")
    alice.get("/sessions", Authorization="Bearer classified")
    server.wait_for_output("outcome", 2)
    output = server.wait_for_output("/sessions", 5)
    for secret in ("classified", "key-of-openai", alice.token, alice.token.rpartition(".")[2]):
        assert secret not in output


SECRETS = ["of-one:hush@HUSHED", "hush@HUSHED", "hush@HUSHED:hush@HUSHED@of-one"]


@pytest.mark.parametrize("secret", SECRETS)
def test_an_address_is_logged_without_any_part_of_its_password(secret):
    assert without_password(f"at http://{secret}@h:1/keys") == "at http://…@h:1/keys"


def test_a_password_with_an_at_sign_is_not_logged(start):
    port = free_port()
    url = f"http://{SECRETS[-1]}@127.0.0.1:{port}/keys"
    server = start(JWT_JWKS_URL=url, JWT_SECRET="")
    token = make_token(headers={"kid": "a"})
    answer = server.client().get("/sessions", Authorization=f"Bearer {token}", X_Request_ID="my-id")
    assert answer.status_code == 503
    server.wait_for_output("cannot be had")
    output = server.wait_for_output("my-id")
    assert f"@127.0.0.1:{port}/keys cannot be had" in output
    assert not re.search("hush|of-one", output + answer.text, re.IGNORECASE)


def test_one_message_is_one_line(start, provider):
    server = start()
    server.client('https://github.com/x\n2026 INFO forged user="root"').get("/sessions")
    [line] = [line for line in server.wait_for_output("forged").splitlines() if "forged" in line]
    assert '\\n2026 INFO forged user=\\"root\\"' in line


def test_a_providers_request_id_is_cut(start, settings, provider):
    server = start(**settings)
    answer = [
        head(Transfer_Encoding="chunked", Request_Id="x" * 5000),
        *map(chunk, openai_events(["Hi"])),
        chunk(b""),
    ]
    provider.script = [raw(*answer)]
    server.client().create()
    assert re.search("provider_id=(x+)", server.wait_for_output("provider_id="))[1] == "x" * 200


# Tracebacks


def parts_of_the_log(output, form):
    """Each line with its traceback, if it has one."""
    if form == "json":
        return [json.dumps(json.loads(line)) for line in output.splitlines()]
    return re.split(r"\n(?=\d{4}-\d\d-\d\dT)", output)


def the_trace(server, form, name):
    """The one traceback in the log that contains this name."""

    def traces():
        whole_lines = server.output().rpartition("\n")[0] + "\n"
        parts = parts_of_the_log(whole_lines, form)
        return [part for part in parts if "File " in part and name in part]

    [trace] = wait_until(traces)
    return trace


@pytest.fixture
def changed_service(tmp_path, monkeypatch):
    """A function that adds a line to a module of a copy of the service, from which servers are then started."""
    folder = copy_of_the_service(tmp_path / "changed")
    monkeypatch.setattr(servers, "ROOT", folder)

    def change(module, code):
        with open(folder / module, "a") as file:
            file.write("\n" + code)

    return change


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_has_its_request_and_no_users_text(
    changed_service, start, settings, provider, form
):
    changed_service(
        "replies/titles.py",
        "def local_title(text):\n    raise ValueError(text) if 'title' in text else KeyError(text)",
    )
    server = start(**settings, LOG_FORMAT=form)
    for number, content in enumerate(("A classified title", "A classified word")):
        answer = server.client().post(
            "/sessions", {"content": content}, X_Request_ID=f"request-{number}"
        )
        assert answer.status_code == 500
        assert answer.json()["errors"][0]["detail"].endswith(
            "its log says more under this X-Request-ID."
        )
        trace = the_trace(server, form, f"request-{number}")
        assert (
            ("ValueError", "KeyError")[number] in trace
            and "in local_title" in trace
            and "in create_session" in trace
        )
    assert "classified" not in server.output()


def test_a_stream_that_fails_logs_a_traceback_with_its_request(
    changed_service, start, settings, provider
):
    changed_service("api/events.py", "def _ending(feed, *others):\n    raise ValueError(feed.text)")
    server = start(**settings)
    provider.script = [reply("A classified answer")]
    with server.client().stream(
        "POST", "/sessions", {"content": "Hello"}, X_Request_ID="my-stream"
    ) as stream:
        assert "done" not in [event.name for event in stream]
    trace = the_trace(server, "text", "my-stream")
    assert "ValueError" in trace and "in _ending" in trace
    assert "classified" not in server.output()


def test_a_reply_that_a_bug_ends_logs_a_traceback_without_any_text(
    changed_service, start, settings
):
    changed_service(
        "providers/conversation.py",
        "def messages_of(turns, so_far, sent):\n    raise ValueError(turns)",
    )
    server = start(**settings)
    body = {"content": "A classified question"}
    failed = server.client().post("/sessions", body, X_Request_ID="my-id")
    assert failed.status_code == 500
    trace = the_trace(server, "text", "my-id")
    assert "ValueError" in trace and "in messages_of" in trace
    assert "classified" not in server.output()


def test_a_reply_whose_text_we_fail_to_take_has_failed(changed_service, start, settings, provider):
    """Otherwise its session would have a reply in progress for ever."""
    changed_service(
        "providers/conversation.py", "def overlap(text, more):\n    raise ValueError(more)"
    )
    server = start(**settings)
    alice, provider.default = server.client(), reply("A classified answer")
    failed = alice.post("/sessions", {"content": "Hello"})
    assert failed.status_code == 500
    session = {"id": failed.headers["Location"].rpartition("/")[2]}
    assert alice.turns(session)[1]["status"] == "failed"
    path = f"/sessions/{session['id']}/messages"
    assert alice.post(path, {"content": "Again"}).status_code == 500
    output = server.wait_for_output("in overlap")
    assert re.search(
        "(a reply failed|could not store a reply)", output
    )  # the writer's or the keeper's
    assert "classified" not in server.output()


def refuse_classified(url):
    """Make the database refuse each turn with this word. PostgreSQL quotes the whole of a refused row."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(
                "CREATE TRIGGER odd BEFORE INSERT ON turn WHEN NEW.content GLOB '*classified*' "
                "BEGIN SELECT RAISE(ABORT, 'classified'); END"
            )
    else:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE turn ADD CHECK (content NOT LIKE '%classified%')")


def test_an_error_of_the_database_is_logged_by_its_code(start, settings, new_database):
    url = new_database()
    server = start(**settings, DATABASE_URL=url)
    refuse_classified(url)
    answer = server.client().post(
        "/sessions", {"content": "A classified question"}, X_Request_ID="my-id"
    )
    assert answer.status_code == 500
    trace = the_trace(server, "text", "my-id")
    assert (
        "SQLITE_CONSTRAINT_TRIGGER"
        if url.startswith("sqlite")
        else "psycopg.errors.CheckViolation 23514"
    ) in trace
    assert "peewee.IntegrityError" in trace and "in create_session" in trace
    assert "classified" not in server.output()


def test_every_line_is_json_if_that_is_set(changed_service, start, settings):
    """gunicorn's lines too, also after it has read its configuration again."""
    changed_service(
        "replies/titles.py",
        "import warnings\ndef local_title(text):\n    warnings.warn('odd')\n    return text[0:-1:0]",
    )
    server = start(**settings, LOG_FORMAT="json")
    before = server.workers()
    server.process.send_signal(signal.SIGHUP)
    while set(server.workers()) & set(before):
        time.sleep(0.05)
    server.wait_until_up()
    assert server.client().post("/sessions", {"content": "Hello"}).status_code == 500
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"odd\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    server.stop()
    lines = [json.loads(line)["message"] for line in server.output().splitlines()]
    expected = [
        "Listening at: ",
        "Booting worker",
        "Handling signal: hup",
        "Worker exiting",
        "Shutting down: ",
    ]
    expected += ["request", "UserWarning: odd", "Exception on /sessions", "request refused: "]
    assert [text for text in expected if not any(text in line for line in lines)] == []
    assert sum("Shutting down: " in line for line in lines) == 1


# A log that nobody reads


@pytest.fixture
def pipe():
    """A pipe, as a file to write and one to read."""
    inside, outside = os.pipe()
    with open(inside, "rb") as reader, open(outside, "wb") as writer:
        yield writer, reader


def test_nobody_waits_for_a_log_that_nobody_reads(pipe, new_database, settings, provider, tmp_path):
    writer, reader = pipe
    server = Server(tmp_path, writer, **settings, DATABASE_URL=new_database())
    try:
        alice, gate = server.wait_until_up().client(), threading.Event()
        provider.script = [reply("Half", gate, " and half.")]
        with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
            events = iter(stream)
            assert [next(events).name for _ in range(2)] == ["session", "content_delta"]
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            for _ in range(2000):
                connection.request("GET", "/health")
                answer = connection.getresponse()
                assert (answer.status, answer.read()[:1]) == (200, b"{")
            connection.close()
            for _ in range(3):  # the keeper writes lines, too
                alice.create()
            gate.set()
            assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
        threading.Thread(target=server.stop).start()
        writer.close()
        assert reader.read().count(b" path=/health status=200 ") > 2000
    finally:
        server.kill()


@contextlib.contextmanager
def log_lines(count, form, behind, pipe):
    """A process that writes `count` lines, says so, and then runs the code `behind`. It is killed after 20 seconds."""
    code = f"""
import logging, logs
logs.set_up({form!r})
log = logging.getLogger("parley")
for number in range({count}):
    log.info("line", {{"number": number}})
print(flush=True)
{behind}"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=pipe
    ) as process:
        timer = threading.Timer(20, process.kill)
        timer.start()
        yield process
        process.wait()
        timer.cancel()


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_says_how_many_lines_did_not_fit(pipe, form):
    writer, reader = pipe
    with log_lines(13_000, form, 'input(); log.info("behind")', writer) as process:
        writer.close()
        assert process.stdout.readline() == b"\n"  # no line has been read until now
        lines = [reader.readline().decode() for _ in range(9000)]
        process.stdin.write(b"\n")
        process.stdin.close()
        lines += reader.read().decode().splitlines()
    *kept, notice, last = lines
    numbers = [int(re.search(r'number(?:=|": )(\d+)', line)[1]) for line in kept]
    assert numbers == list(range(len(kept)))
    assert 10_000 <= len(kept) < 13_000
    assert (
        f" {13_000 - len(kept)} lines of the log were dropped" in notice.replace('"', " ")
        and "WARNING" in notice
    )
    assert "behind" in last


def test_what_is_left_is_written_at_the_end(pipe):
    writer, reader = pipe
    with log_lines(2000, "text", "", writer):
        writer.close()
        assert [line.rpartition(b"=")[2] for line in reader.read().splitlines()] == [
            b"%d" % number for number in range(2000)
        ]


@pytest.mark.parametrize(
    "where", ["a pipe that nobody reads", "a pipe that nobody can read", "a full disk", "nowhere"]
)
def test_a_process_ends_soon_wherever_it_logs(pipe, where):
    writer, reader = pipe
    if where == "a pipe that nobody can read":
        reader.close()
    target = open("/dev/full", "wb") if where == "a full disk" else writer
    closing = "import os; os.close(2)" if where == "nowhere" else ""
    with target, log_lines(12_000, "text", closing, target) as process:
        assert process.stdout.readline() == b"\n"
        began = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
