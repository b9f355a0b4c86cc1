"""`flask export SUBJECT` and `flask import FILE SUBJECT`.

Modules: `terminal/import_run.py`."""

import contextlib
import datetime
import json
import os
import pty
import resource
import signal
import stat
import subprocess
import sys
import uuid

import pytest

import forked
from archives import (
    CHATGPT,
    CHATGPT_BODY,
    CLAUDE,
    CLAUDE_BODY,
    OPENWEBUI,
    OPENWEBUI_BODY,
    array,
    asked_of_chatgpt,
    asked_of_claude,
    asked_of_openwebui,
    chatgpt,
    ndjson,
    packed,
    said,
)
from client import wait_until
from ledgers import APP
from product import ROOT
from provider import reply, thought
from raw_tables import tables_of
from servers import Server

NO_CONVERSATION = "This is not a conversation of ChatGPT, Claude, Open WebUI or Parley."
NOBODY = "Error: The subject names nobody. `flask usage --json` has the names of all users.\n"


class Place:
    """A running server, and the commands of its operator, in a folder of their own."""

    def __init__(self, server, settings):
        self.server, self.settings = server, settings

    def environment(self, **settings):
        clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PARLEY_COMMAND": "flask"}
        return clean | {name: str(value) for name, value in (self.settings | settings).items()}

    def start(self, folder, *words, settings=None, **options):
        command = [sys.executable, "-m", "flask", "--app", APP, *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        environment = self.environment(**settings or {})
        return subprocess.Popen(command, cwd=folder, env=environment, **pipes)

    def run(self, folder, *words, **options):
        """(status, standard output, standard error) of a command. With options it runs in a new
        Python, otherwise it is forked."""
        if not options.keys() - {"settings"}:
            environment = self.environment(**options.get("settings") or {})
            ended = forked.run(["-m", "flask", "--app", APP, *map(str, words)], folder, environment)
            assert "Traceback" not in ended.stderr, ended.stderr
            return ended.returncode, ended.stdout, ended.stderr
        with self.start(folder, *words, **options) as process:
            output, error = process.communicate(timeout=120)
        assert "Traceback" not in str(error), error
        return process.returncode, output, error


@pytest.fixture(scope="module")
def place(new_database, provider_of_all, tmp_path_factory):
    settings = {
        "DATABASE_URL": new_database(),
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "WEB_CONCURRENCY": 1,
    }
    server = Server(tmp_path_factory.mktemp("server"), **settings)
    yield Place(server.wait_until_up(), settings)
    server.stop()


@pytest.fixture
def subject():
    """A user who has nothing yet."""
    return f"https://github.com/{uuid.uuid4().hex}"


@pytest.fixture
def user(place, subject):
    return place.server.client(subject)


def sessions(client):
    """All the sessions of a user, the oldest first, with their turns."""
    rows = client.get("/sessions?page[limit]=100").json()["data"][::-1]
    return [client.get(f"/sessions/{row['id']}").json() for row in rows]


def titles(client):
    return sorted(session["title"] for session in sessions(client))


def body_of(client, session):
    """A session as a client sees it, in the form of an import's body."""
    turns = []
    for turn in session["turns"]:
        turns.append({name: turn[name] for name in ("kind", "content", "created_at")})
        if "model" in turn:
            turns[-1]["model"] = turn["model"]["id"]
        if turn.get("thinking"):
            text = client.get(f"/sessions/{session['id']}/turns/{turn['id']}/thinking").json()
            turns[-1]["thinking"] = text | {"seconds": turn["thinking"]["seconds"]}
    return {name: session[name] for name in ("title", "created_at", "updated_at")} | {
        "turns": turns
    }


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Export


def test_writes_a_complete_file_that_only_its_owner_can_read(
    place, user, subject, provider, tmp_path
):
    provider.default = reply("The ", "answer: é漢.")
    user.create("First", system="Be kind.", options={"temperature": 0.5})
    user.create("Second")
    status, told, error = place.run(tmp_path, "export", subject)
    day = datetime.datetime.now(datetime.UTC).date()
    [path] = tmp_path.iterdir()
    assert path.name in {f"parley-{day}.ndjson", f"parley-{day - datetime.timedelta(1)}.ndjson"}
    assert (status, told, error) == (0, f"{path.name} has 2 sessions of {subject}.\n", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header, *lines, end = lines_of(path)
    assert header.keys() == {"parley", "subject", "exported_at"}
    assert (header["parley"], header["subject"]) == (3, subject)
    assert end == {"end": True, "sessions": 2}
    assert [line["title"] for line in lines] == ["First", "Second"]
    assert lines[0]["turns"][1]["content"] == "The answer: é漢."
    assert (lines[0]["system"], lines[0]["options"]) == ("Be kind.", {"temperature": 0.5})


def test_writes_into_the_named_file_and_overwrites_none(place, user, subject, tmp_path):
    user.create("One")
    path = tmp_path / "chats"
    assert place.run(tmp_path, "export", subject, path)[0] == 0
    before = path.read_bytes()
    refused = f"Error: {path} already exists. Name another file.\n"
    assert place.run(tmp_path, "export", subject, path) == (1, "", refused)
    assert path.read_bytes() == before
    nowhere = tmp_path / "no" / "where"
    refused = f"Error: {nowhere} cannot be created: No such file or directory.\n"
    assert place.run(tmp_path, "export", subject, nowhere) == (1, "", refused)


def test_writes_to_standard_output(place, user, subject, tmp_path):
    user.create("One")
    status, output, told = place.run(tmp_path, "export", subject, "-")
    assert (status, told) == (0, f"What was written has 1 session of {subject}.\n")
    assert [*map(json.loads, output.splitlines())][-1] == {"end": True, "sessions": 1}
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_and_leaves_an_incomplete_file(
    place, user, subject, provider, tmp_path
):
    for _ in range(3):
        user.create("x" * 200_000)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    path = tmp_path / "chats"
    status, output, error = place.run(tmp_path, "export", subject, path, preexec_fn=limit)
    told = f"Error: {path} is not whole: File too large. Remove it, and export again.\n"
    assert (status, output, error) == (1, "", told)
    assert 0 < path.stat().st_size <= 300_000 and b'"end"' not in path.read_bytes()


def test_a_reader_that_closes_the_pipe_is_reported(place, user, subject, tmp_path):
    for _ in range(3):
        user.create("x" * 200_000)
    with place.start(tmp_path, "export", subject, "-") as process:
        process.stdout.close()
        error = process.stderr.read()
    told = "Error: What was written is not whole: Broken pipe. Remove it, and export again.\n"
    assert (process.returncode, error) == (1, told)


@pytest.mark.parametrize(
    "words", [["export", " "], ["import", "file", " \t"], ["export", "a\ud800"]]
)
def test_an_unknown_subject_is_refused(place, tmp_path, words):
    words = [
        word.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for word in words
    ]
    assert place.run(tmp_path, *words) == (1, "", NOBODY)


def test_no_file_is_written_for_a_user_without_sessions(place, subject, tmp_path):
    told = f"{subject} has no session. `flask usage --json` has the names of all users."
    assert place.run(tmp_path, "export", subject) == (1, "", f"Error: {told}\n")
    assert not list(tmp_path.iterdir())


LOST = """
import os, sys
import click
from database import open_database
from terminal.files import has_session
from maintenance.migrations import MIGRATIONS

open_database({"DATABASE_URL": f"sqlite:///{sys.argv[1]}"}, None, MIGRATIONS)
os.remove(sys.argv[1])
try:
    has_session("https://github.com/alice")
except click.ClickException as error:
    print(error)
"""


def test_a_database_that_is_lost_before_the_file_is_created_is_reported(tmp_path):
    done = forked.run(["-c", LOST, str(tmp_path / "parley.db")], ROOT, {"PATH": os.environ["PATH"]})
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert done.stdout.startswith("Nothing was written: the database does not answer (")


def test_names_cannot_control_the_terminal(place, tmp_path):
    subject = f"\x1b[2J{uuid.uuid4().hex}\n"
    place.server.client(subject).create("One")
    path = tmp_path / "a\nb\x07"
    shown, name = subject.replace("\x1b", " ").replace("\n", " "), f"{tmp_path}/a b "
    told = f"{name} has 1 session of {shown}.\n"
    assert place.run(tmp_path, "export", subject, path) == (0, told, "")
    told = f"Error: {name} already exists. Name another file.\n"
    assert place.run(tmp_path, "export", subject, path) == (1, "", told)
    told = f"{shown}! has no session. `flask usage --json` has the names of all users."
    assert place.run(tmp_path, "export", f"{subject}!") == (1, "", f"Error: {told}\n")


def test_a_standard_output_with_few_characters_gets_escapes_for_the_others(place, tmp_path):
    subject = f"https://github.com/дора-{uuid.uuid4().hex}"
    place.server.client(subject).create("One")
    settings = {"LANG": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}
    status, told, error = place.run(
        tmp_path, "export", subject, "F", settings=settings, stdout=subprocess.PIPE
    )
    shown = subject.encode("ascii", "backslashreplace").decode()
    assert (status, told, error) == (0, f"F has 1 session of {shown}.\n", "")


def test_a_closed_standard_output_is_reported(place, user, subject, tmp_path):
    user.create("One")
    closed = {"preexec_fn": lambda: os.close(1), "stdout": None}
    status, _, error = place.run(tmp_path, "export", subject, "-", **closed)
    assert (status, error) == (1, "Error: Standard output is closed. Name a file.\n")


def test_a_full_standard_output_is_reported_with_the_missing_text(place, subject, tmp_path):
    path = array(tmp_path / "F", asked_of_chatgpt(1)[0])
    with open("/dev/full", "w") as full:
        status, _, error = place.run(tmp_path, "import", path, subject, stdout=full)
    counts = "1 imported, 0 there already, 0 not taken."
    told = f"Error: Standard output fails: No space left on device. It would have had: {counts}\n"
    assert (status, error) == (1, told)


WORDS = [
    ["export"],
    ["import"],
    ["import", "file"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_missing_arguments_print_the_usage(place, tmp_path, words):
    status, output, error = place.run(tmp_path, *words)
    assert (status, output) == (2, "") and error.startswith("Usage: ")


@pytest.mark.parametrize(
    "words", [["export", "a"], ["import", "file", "a"]], ids=lambda words: words[0]
)
def test_a_database_that_no_service_has_started_on_is_refused(place, new_database, tmp_path, words):
    status, output, error = place.run(tmp_path, *words, settings={"DATABASE_URL": new_database()})
    told = "DATABASE_URL: the service has not been started on this database yet; start it first\n"
    assert (status, output, error) == (1, "", told)


# Import


def test_an_imported_export_is_the_same(place, user, subject, provider, tmp_path):
    provider.default = reply(thought(reasoning="Hm, é漢."), "An ", "answer.")
    for number in range(3):
        session = user.create(f"Question {number}", system="Be kind.", options={"max_tokens": 7})
        user.post(f"/sessions/{session['id']}/messages", {"content": "And?"})
    user.patch(f"/sessions/{session['id']}", {"title": "My own title"})
    provider.default = reply("cut", status=500)
    user.post("/sessions", {"content": "It fails"})
    assert place.run(tmp_path, "export", subject, "one")[0] == 0
    other = f"{subject}-other"
    status, told, error = place.run(tmp_path, "import", "one", other)
    assert (status, told, error) == (0, "4 imported, 0 there already, 0 not taken.\n", "")
    assert place.run(tmp_path, "export", other, "two")[0] == 0
    one, two = (lines_of(tmp_path / name)[1:] for name in ("one", "two"))
    assert one[0]["turns"][1]["thinking"]["text"] == "Hm, é漢."
    assert without_ids(one) == without_ids(two)
    assert {line["id"] for line in one[:-1]}.isdisjoint(line["id"] for line in two[:-1])
    assert place.run(tmp_path, "import", "one", other)[:2] == (
        0,
        "0 imported, 4 there already, 0 not taken.\n",
    )


def without_ids(value):
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if isinstance(value, dict):
        return {name: without_ids(each) for name, each in value.items() if name != "id"}
    return value


@pytest.mark.parametrize("kind", ["array", "zip"])
def test_exports_of_other_products_become_sessions(place, user, subject, tmp_path, kind):
    if kind == "array":
        path = array(tmp_path / "conversations.json", CHATGPT, CLAUDE, OPENWEBUI)
    else:
        files = {
            "a/conversations-000.json": [CHATGPT],
            "b/conversations-001.json": [CLAUDE],
            "b/conversations-002.json": [OPENWEBUI],
        }
        path = packed(
            tmp_path / "export.zip", {name: json.dumps(value) for name, value in files.items()}
        )
    status, told, error = place.run(tmp_path, "import", path, subject)
    assert (status, error) == (0, "")
    assert told == (
        "3 imported, 0 there already, 0 not taken.\n"
        "Left out of these: images and files 5, tool calls and results 6, messages of other branches 8.\n"
    )
    bodies = {body["title"]: body for body in (CHATGPT_BODY, CLAUDE_BODY, OPENWEBUI_BODY)}
    found = sessions(user)
    assert {session["title"] for session in found} == bodies.keys()
    for session in found:
        assert session["model"] == {"id": "m-1"}
        body, shown = bodies[session["title"]], body_of(user, session)
        assert {name: shown[name] for name in ("created_at", "updated_at")} == {
            name: body[name] for name in ("created_at", "updated_at")
        }
        for turn, expected in zip(shown["turns"], body["turns"], strict=True):
            assert turn | expected == turn
    again = place.run(tmp_path, "import", path, subject)
    assert again == (0, "0 imported, 3 there already, 0 not taken.\n", "")
    assert len(sessions(user)) == 3


def test_skipped_conversations_are_named_and_the_rest_is_imported(place, user, subject, tmp_path):
    settings = {"MAX_CONTENT_LENGTH": 1024}
    good, better = asked_of_chatgpt(1)[0], asked_of_claude(2)[0]
    many = chatgpt(*(said("user", str(number)) for number in range(10_001)), title="Many")
    values = [
        {"title": "A folder"},
        good,
        chatgpt(said("assistant", "!"), title="None of mine"),
        chatgpt(said("user", 7), title="\x1b[2J\u202eOdd\n" + "x" * 100),
        {},
        chatgpt(said("user", "?"), id="x" * 300, title=""),
        chatgpt(said("user", "y" * 20_000), title="Long"),
        better,
    ]
    path = array(tmp_path / "conversations.json", *values)
    status, told, error = place.run(tmp_path, "import", path, subject, settings=settings)
    size = len(json.dumps(values[6]))
    assert status == 1 and told.startswith("2 imported, 0 there already, 6 not taken.\n")
    assert error.splitlines() == [
        f"Not taken: conversation 1, A folder: {NO_CONVERSATION}",
        "Not taken: conversation 3, None of mine: It has no message of yours.",
        f"Not taken: conversation 4,  [2J Odd {'x' * 50}…: It has no message of yours.",
        f"Not taken: conversation 5: {NO_CONVERSATION}",
        "Not taken: conversation 6: origin: Give from 1 to 255 characters.",
        f"Not taken: conversation 7, Long: It has {size} bytes, more than the limit of 16384.",
    ]
    assert titles(user) == ["Lakes 2", "Rivers 1"]
    status, told, error = place.run(tmp_path, "import", array(tmp_path / "many", many), subject)
    assert status == 1
    assert error == "Not taken: conversation 1, Many: turns: Give a list of 1 to 10,000 turns.\n"


def export_of(*lines, count=None, **fields):
    header = {"parley": 3, "subject": "s", "exported_at": "2026-11-30T00:00:00Z"} | fields
    count = len(lines) if count is None else count
    return [header, *lines, {"end": True, "sessions": count}]


def own(number):
    turns = [{"id": "7", "kind": "user", "content": "Hello"}]
    return {"id": str(uuid.uuid4()), "title": f"Own {number}", "turns": turns}


# What the file has, what is imported, and what is printed.
FILES = [
    (export_of(own(1), own(2)), 2, None),
    (export_of(own(1), parley=2), 1, None),
    ([own(1), own(2)], 2, None),
    (export_of(), 0, None),
    ([asked_of_chatgpt(1)[0]], 1, None),
    (export_of(own(1), own(2))[:-1], 2, "Error: F is not whole: its last line is missing."),
    (
        export_of(own(1), count=2),
        1,
        "Error: F is not whole: its last line names 2 sessions, and it has 1.",
    ),
    (
        export_of(own(1), everything=True),
        None,
        "Error: F is of `export --all` of release 2.0.0. It moves into a new database with that release; upgrade then.",
    ),
    (
        export_of(own(1), parley=4),
        None,
        "Error: F was made by another release. Import it with that one.",
    ),
]


@pytest.mark.parametrize("values, taken, problem", FILES)
def test_a_file_of_another_kind_and_an_incomplete_one_are_reported_as_such(
    place, user, subject, tmp_path, values, taken, problem
):
    ndjson(tmp_path / "F", *values)
    status, told, error = place.run(tmp_path, "import", "F", subject)
    assert (status, error) == ((1, f"{problem}\n") if problem else (0, ""))
    assert told == ("" if taken is None else f"{taken} imported, 0 there already, 0 not taken.\n")
    assert len(sessions(user)) == (taken or 0)


def test_the_beginning_of_an_incomplete_file_is_imported_and_the_rest_can_follow(
    place, user, subject, tmp_path
):
    path = array(tmp_path / "F", *(asked_of_chatgpt(number)[0] for number in range(5)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])
    cut = "conversation 4 is not whole, or is not JSON: Unterminated string"
    told = f"Error: F cannot be read further: {cut}.\n"
    counts = "3 imported, 0 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", "F", subject) == (1, counts, told)
    path.write_bytes(whole)
    counts = "2 imported, 3 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", "F", subject) == (0, counts, "")
    assert titles(user) == [f"Rivers {number}" for number in range(5)]


def test_an_unreadable_file_is_reported_in_a_sentence(place, subject, tmp_path):
    told = f"Error: {tmp_path} cannot be read: Is a directory.\n"
    assert place.run(tmp_path, "import", tmp_path, subject) == (1, "", told)
    told = "Error: nothing cannot be read: No such file or directory.\n"
    assert place.run(tmp_path, "import", "nothing", subject) == (1, "", told)


def test_a_file_of_another_kind_is_not_read_to_its_end(place, user, subject, tmp_path):
    ndjson(tmp_path / "F", *({"a": number} for number in range(2000)))
    status, told, error = place.run(tmp_path, "import", "F", subject)
    *named, last = error.splitlines()
    assert (status, told) == (1, "0 imported, 0 there already, 100 not taken.\n")
    assert named == [
        f"Not taken: conversation {number}: {NO_CONVERSATION}" for number in range(1, 101)
    ]
    why = "all of its first 100 conversations were refused"
    products = "Name an export of ChatGPT, Claude, Open WebUI or Parley."
    assert last == f"Error: F was not read further: {why}. {products}"
    ndjson(tmp_path / "F", asked_of_chatgpt(1)[0], *({"a": number} for number in range(200)))
    assert place.run(tmp_path, "import", "F", subject)[1].endswith("200 not taken.\n")


def test_an_unreadable_line_is_named_and_the_next_one_is_imported(place, user, subject, tmp_path):
    good = (json.dumps(asked_of_openwebui(number)[0]) for number in (1, 2))
    (tmp_path / "F").write_text('\n{"title": "Cut", "mapping": {\n'.join(good))
    status, told, error = place.run(tmp_path, "import", "F", subject)
    assert (status, told) == (1, "2 imported, 0 there already, 1 not taken.\n")
    why = "It is not whole, or is not JSON: Expecting property name enclosed in double quotes."
    assert error == f"Not taken: conversation 2: {why}\n"
    assert titles(user) == ["Seas 1", "Seas 2"]


def test_a_file_without_a_conversation_has_none(place, subject, tmp_path):
    counts = "0 imported, 0 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", array(tmp_path / "F"), subject) == (0, counts, "")


# In the middle of a file


@contextlib.contextmanager
def importing(place, user, subject, folder, **options):
    """A command that has imported one conversation and waits for the rest of the file, and a
    function that writes the rest."""
    os.mkfifo(folder / "F")
    with place.start(folder, "import", "F", subject, **options) as process:
        with open(folder / "F", "wb", buffering=0) as file:
            file.write(b"[" + json.dumps(asked_of_chatgpt(1)[0]).encode() + b",")
            wait_until(lambda: titles(user) == ["Rivers 1"])
            yield process, file.write
        process.wait(60)


def test_ctrl_c_keeps_what_is_imported(place, user, subject, tmp_path):
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with importing(place, user, subject, tmp_path, **default) as (process, _):
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "1 imported, 0 there already, 0 not taken.\n")
    assert error == "Error: Not all of F was read: it was stopped. Run it again for the rest.\n"
    assert titles(user) == ["Rivers 1"]


def test_a_database_that_stops_answering_keeps_what_is_imported(place, user, subject, tmp_path):
    with importing(place, user, subject, tmp_path) as (process, go_on):
        with tables_of(place.settings["DATABASE_URL"]) as tables:
            if tables.is_sqlite:
                tables.rows("BEGIN EXCLUSIVE")
            else:
                tables.rows("BEGIN")
                tables.rows("LOCK TABLE session IN ACCESS EXCLUSIVE MODE")
            go_on(json.dumps(asked_of_chatgpt(2)[0]).encode() + b"]")
            output, error = process.communicate(timeout=60)
            tables.rows("ROLLBACK")
    assert (process.returncode, output) == (1, "1 imported, 0 there already, 0 not taken.\n")
    assert error.startswith("Error: Not all of F was read: the database does not answer (")
    assert error.endswith("). Run it again for the rest.\n") and error.count("\n") == 1
    assert titles(user) == ["Rivers 1"]


def test_progress_is_shown_on_a_terminal(place, user, subject, tmp_path):
    outside, inside = pty.openpty()
    path = array(tmp_path / "F", *(asked_of_chatgpt(number)[0] for number in range(3)))
    status, told, _ = place.run(tmp_path, "import", path, subject, stderr=inside)
    os.close(inside)
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        shown = os.read(outside, 4096).decode()
    os.close(outside)
    assert (status, told) == (0, "3 imported, 0 there already, 0 not taken.\n")
    assert shown.startswith("\r0 conversations\033[K") and shown.endswith("\r\033[K")
