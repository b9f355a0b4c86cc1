"""`flask export SUBJECT` and `flask import FILE SUBJECT`.

Modules: `terminal/taking.py`."""

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
import tracemalloc
import uuid

import pytest

import forked
from archives import (
    CHATGPT,
    CHATGPT_BODY,
    CLAUDE,
    CLAUDE_BODY,
    array,
    asked_of_chatgpt,
    asked_of_claude,
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
from terminal.taking import Taking
from upkeep.values import Value

NOBODY = "Error: The subject names nobody. `flask usage --json` has the names of all users.\n"


class Place:
    """A running server, and the commands of a person who runs it, in a folder of their own."""

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
        """(status, standard output, standard error) of a command; with options it is started anew, and else forked."""
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
    """Somebody who has nothing yet."""
    return f"https://github.com/{uuid.uuid4().hex}"


@pytest.fixture
def user(place, subject):
    return place.server.client(subject)


def sessions(client):
    """All of a user's, the oldest first, with their turns."""
    rows = client.get("/sessions?page[limit]=100").json()["data"][::-1]
    return [client.get(f"/sessions/{row['id']}").json() for row in rows]


def titles(client):
    return sorted(session["title"] for session in sessions(client))


def body_of(session):
    """What a client sees of a session, as the body of an import has it."""
    turns = [
        {"kind": turn["kind"], "content": turn["content"], "created_at": turn["created_at"]}
        | ({"model": turn["model"]["id"]} if "model" in turn else {})
        for turn in session["turns"]
    ]
    return {name: session[name] for name in ("title", "created_at", "updated_at")} | {
        "turns": turns
    }


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# Export


def test_writes_a_file_that_is_whole_and_its_owners_alone(place, user, subject, provider, tmp_path):
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


def test_writes_into_the_file_that_is_named_and_over_none(place, user, subject, tmp_path):
    user.create("One")
    path = tmp_path / "chats"
    assert place.run(tmp_path, "export", subject, path)[0] == 0
    before = path.read_bytes()
    refused = f"Error: {path} is there already. Name another file.\n"
    assert place.run(tmp_path, "export", subject, path) == (1, "", refused)
    assert path.read_bytes() == before
    nowhere = tmp_path / "no" / "where"
    refused = f"Error: {nowhere} cannot be made: No such file or directory.\n"
    assert place.run(tmp_path, "export", subject, nowhere) == (1, "", refused)


def test_writes_to_standard_output(place, user, subject, tmp_path):
    user.create("One")
    status, output, told = place.run(tmp_path, "export", subject, "-")
    assert (status, told) == (0, f"What was written has 1 session of {subject}.\n")
    assert [*map(json.loads, output.splitlines())][-1] == {"end": True, "sessions": 1}
    assert not list(tmp_path.iterdir())


def test_a_file_for_which_there_is_no_room_is_not_whole_and_the_command_says_so(
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


def test_a_reader_who_goes_is_told_as_well(place, user, subject, tmp_path):
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
def test_a_subject_that_names_nobody_is_refused(place, tmp_path, words):
    words = [
        word.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for word in words
    ]
    assert place.run(tmp_path, *words) == (1, "", NOBODY)


def test_of_whom_there_is_no_session_no_file_is_written(place, subject, tmp_path):
    told = f"{subject} has no session. `flask usage --json` has the names of all users."
    assert place.run(tmp_path, "export", subject) == (1, "", f"Error: {told}\n")
    assert not list(tmp_path.iterdir())


LOST = """
import os, sys
import click
from database import open_database
from terminal.moving import has_session
from upkeep.migrations import MIGRATIONS

open_database({"DATABASE_URL": f"sqlite:///{sys.argv[1]}"}, None, MIGRATIONS)
os.remove(sys.argv[1])
try:
    has_session("https://github.com/alice")
except click.ClickException as error:
    print(error)
"""


def test_a_database_that_is_lost_before_a_file_is_made_is_told(tmp_path):
    command = [sys.executable, "-c", LOST, tmp_path / "parley.db"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert done.stdout.startswith("Nothing was written: the database does not answer (")


def test_what_commands_a_terminal_is_not_shown_as_it_is(place, tmp_path):
    subject = f"\x1b[2J{uuid.uuid4().hex}\n"
    place.server.client(subject).create("One")
    path = tmp_path / "a\nb\x07"
    shown, name = subject.replace("\x1b", " ").replace("\n", " "), f"{tmp_path}/a b "
    told = f"{name} has 1 session of {shown}.\n"
    assert place.run(tmp_path, "export", subject, path) == (0, told, "")
    told = f"Error: {name} is there already. Name another file.\n"
    assert place.run(tmp_path, "export", subject, path) == (1, "", told)
    told = f"{shown}! has no session. `flask usage --json` has the names of all users."
    assert place.run(tmp_path, "export", f"{subject}!") == (1, "", f"Error: {told}\n")


def test_a_standard_output_of_few_characters_gets_their_numbers(place, tmp_path):
    subject = f"https://github.com/дора-{uuid.uuid4().hex}"
    place.server.client(subject).create("One")
    settings = {"LANG": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}
    status, told, error = place.run(
        tmp_path, "export", subject, "F", settings=settings, stdout=subprocess.PIPE
    )
    shown = subject.encode("ascii", "backslashreplace").decode()
    assert (status, told, error) == (0, f"F has 1 session of {shown}.\n", "")


def test_standard_output_that_is_closed_is_told(place, user, subject, tmp_path):
    user.create("One")
    closed = {"preexec_fn": lambda: os.close(1), "stdout": None}
    status, _, error = place.run(tmp_path, "export", subject, "-", **closed)
    assert (status, error) == (1, "Error: Standard output is closed. Name a file.\n")


def test_standard_output_that_is_full_is_told_with_what_it_was_to_have(place, subject, tmp_path):
    path = array(tmp_path / "F", asked_of_chatgpt(1)[0])
    with open("/dev/full", "w") as full:
        status, _, error = place.run(tmp_path, "import", path, subject, stdout=full)
    counts = "1 imported, 0 there already, 0 not taken."
    told = (
        f"Error: Standard output takes nothing: No space left on device. It was to have: {counts}\n"
    )
    assert (status, error) == (1, told)


WORDS = [
    ["export"],
    ["import"],
    ["import", "file"],
    ["export", "subject", "--all", "file"],
    ["export", "--all", "-"],
    ["import", "file", "--all", "file"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_words_that_do_not_suffice_are_told_as_a_usage(place, tmp_path, words):
    status, output, error = place.run(tmp_path, *words)
    assert (status, output) == (2, "") and error.startswith("Usage: ")


@pytest.mark.parametrize(
    "words", [["export", "a"], ["import", "file", "a"]], ids=lambda words: words[0]
)
def test_a_database_on_which_no_service_was_started_is_none(place, new_database, tmp_path, words):
    status, output, error = place.run(tmp_path, *words, settings={"DATABASE_URL": new_database()})
    told = "DATABASE_URL: the service has not been started on this database yet; start it first\n"
    assert (status, output, error) == (1, "", told)


# Import


def test_what_was_exported_is_the_same_when_it_was_imported(
    place, user, subject, provider, tmp_path
):
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
def test_what_chatgpt_and_claude_export_becomes_sessions(place, user, subject, tmp_path, kind):
    if kind == "array":
        path = array(tmp_path / "conversations.json", CHATGPT, CLAUDE)
    else:
        files = {"a/conversations-000.json": [CHATGPT], "b/conversations-001.json": [CLAUDE]}
        path = packed(
            tmp_path / "export.zip", {name: json.dumps(value) for name, value in files.items()}
        )
    status, told, error = place.run(tmp_path, "import", path, subject)
    assert (status, error) == (0, "")
    assert told == (
        "2 imported, 0 there already, 0 not taken.\n"
        "Left out of these: images and files 4, tools and thinking 7, messages of other branches 5.\n"
    )
    of_chatgpt, of_claude = sessions(user)
    assert (of_chatgpt["title"], of_claude["title"]) == (
        CHATGPT_BODY["title"],
        CLAUDE_BODY["title"],
    )
    for session, body in ((of_chatgpt, CHATGPT_BODY), (of_claude, CLAUDE_BODY)):
        assert session["model"] == {"id": "m-1"}
        found = body_of(session)
        assert {name: found[name] for name in ("created_at", "updated_at")} == {
            name: body[name] for name in ("created_at", "updated_at")
        }
        for turn, expected in zip(found["turns"], body["turns"], strict=True):
            assert turn | expected == turn
    again = place.run(tmp_path, "import", path, subject)
    assert again == (0, "0 imported, 2 there already, 0 not taken.\n", "")
    assert len(sessions(user)) == 2


def test_what_is_not_taken_is_named_and_all_else_is_there(place, user, subject, tmp_path):
    settings = {"MAX_CONTENT_LENGTH": 1024}
    good, better = asked_of_chatgpt(1)[0], asked_of_claude(2)[0]
    many = chatgpt(*(said("user", str(number)) for number in range(10_001)), title="Many")
    values = [
        {"title": "A folder"},
        good,
        chatgpt(said("assistant", "!"), title="None of mine"),
        chatgpt(said("user", 7), title="\x1b[2J\u202eOdd\n" + "x" * 100),
        None,
        chatgpt(said("user", "?"), id="x" * 300, title=""),
        chatgpt(said("user", "y" * 20_000), title="Long"),
        better,
    ]
    path = array(tmp_path / "conversations.json", *values)
    status, told, error = place.run(tmp_path, "import", path, subject, settings=settings)
    size = len(json.dumps(values[6]))
    assert status == 1 and told.startswith("2 imported, 0 there already, 6 not taken.\n")
    assert error.splitlines() == [
        "Not taken: conversation 1, A folder: It is of no shape that is known here.",
        "Not taken: conversation 3, None of mine: It has no message of yours.",
        f"Not taken: conversation 4,  [2J Odd {'x' * 50}…: It has no message of yours.",
        "Not taken: conversation 5: It is of no shape that is known here.",
        "Not taken: conversation 6: origin: Give from 1 to 255 characters.",
        f"Not taken: conversation 7: It has {size} bytes, and 16384 are the most.",
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


OTHER_SHAPE = "Error: F is of another shape than an export of Parley's, or conversations of ChatGPT's or Claude's."
# What the file has, what is taken of it, and what is said of it.
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
        "Error: F has everything of all users. `flask import --all F` reads that.",
    ),
    (
        export_of(own(1), parley=4),
        None,
        "Error: F was made by another release. Import it with that one.",
    ),
    ([{"total_files": 3, "data_files": []}], None, OTHER_SHAPE),
    ([{"a": number} for number in range(2000)], None, OTHER_SHAPE),
]


@pytest.mark.parametrize("values, taken, problem", FILES)
def test_a_file_of_another_kind_or_one_that_is_cut_is_told_as_such(
    place, user, subject, tmp_path, values, taken, problem
):
    ndjson(tmp_path / "F", *values)
    status, told, error = place.run(tmp_path, "import", "F", subject)
    assert (status, error) == ((1, f"{problem}\n") if problem else (0, ""))
    assert told == ("" if taken is None else f"{taken} imported, 0 there already, 0 not taken.\n")
    assert len(sessions(user)) == (taken or 0)


def test_of_a_file_that_is_cut_what_came_before_is_there_and_the_rest_comes_later(
    place, user, subject, tmp_path
):
    path = array(tmp_path / "F", *(asked_of_chatgpt(number)[0] for number in range(5)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])
    told = "Error: F ends in the middle of conversation 4.\n"
    counts = "3 imported, 0 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", "F", subject) == (1, counts, told)
    path.write_bytes(whole)
    counts = "2 imported, 3 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", "F", subject) == (0, counts, "")
    assert titles(user) == [f"Rivers {number}" for number in range(5)]


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(place, subject, tmp_path):
    told = f"Error: {tmp_path} cannot be read: Is a directory.\n"
    assert place.run(tmp_path, "import", tmp_path, subject) == (1, "", told)
    told = "Error: nothing cannot be read: No such file or directory.\n"
    assert place.run(tmp_path, "import", "nothing", subject) == (1, "", told)


def test_of_what_is_of_another_shape_no_more_is_held_than_its_name():
    taking = Taking("F", "https://github.com/alice", None, 0)
    tracemalloc.start()
    for number in range(1, 51):
        title = f"{number} {'x' * 2**19}"
        taking.take(Value(number, {"title": title, "text": f"{number} {'y' * 2**19}"}))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**22


def test_a_file_without_a_conversation_has_none(place, subject, tmp_path):
    counts = "0 imported, 0 there already, 0 not taken.\n"
    assert place.run(tmp_path, "import", array(tmp_path / "F"), subject) == (0, counts, "")


# In the middle of a file


@contextlib.contextmanager
def importing(place, user, subject, folder, **options):
    """A command that has imported one conversation, and waits for the file to go on; and a function
    by which it does."""
    os.mkfifo(folder / "F")
    with place.start(folder, "import", "F", subject, **options) as process:
        with open(folder / "F", "wb", buffering=0) as file:
            file.write(b"[" + json.dumps(asked_of_chatgpt(1)[0]).encode() + b",")
            wait_until(lambda: titles(user) == ["Rivers 1"])
            yield process, file.write
        process.wait(60)


def test_ctrl_c_keeps_what_is_there(place, user, subject, tmp_path):
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with importing(place, user, subject, tmp_path, **default) as (process, _):
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "1 imported, 0 there already, 0 not taken.\n")
    assert error == "Error: Not all of F was read: it was stopped. Run it again for the rest.\n"
    assert titles(user) == ["Rivers 1"]


def test_a_database_that_does_not_answer_keeps_what_is_there(place, user, subject, tmp_path):
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


def test_a_person_sees_how_far_it_is(place, user, subject, tmp_path):
    outside, inside = pty.openpty()
    path = array(tmp_path / "F", *(asked_of_chatgpt(number)[0] for number in range(3)))
    status, told, _ = place.run(tmp_path, "import", path, subject, stderr=inside)
    os.close(inside)
    with contextlib.suppress(OSError):  # so a terminal ends, on Linux
        shown = os.read(outside, 4096).decode()
    os.close(outside)
    assert (status, told) == (0, "3 imported, 0 there already, 0 not taken.\n")
    assert shown.startswith("\r0 conversations\033[K") and shown.endswith("\r\033[K")
