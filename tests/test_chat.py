"""`flask chat`, as it is typed into a terminal, or at the end of a pipe."""

import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from client import ROOT, SECRET
from provider import REFUSED, Provider, cut, reply, status, thought

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the terminal speaks HTTP, which is the same on both

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


@pytest.fixture
def command(server, alice, tmp_path):
    """What starts `flask chat` as alice, as the arguments of a subprocess; on `url`, and with these settings."""

    # A job in the background ignores SIGINT, and its children with it; a handler of ours is not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def command(*options, url=server.url, **environment):
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        clean |= {"LANG": "C.UTF-8", "DATABASE_URL": f"sqlite:///{tmp_path}/unused.db", "JWT_SECRET": SECRET}
        clean["PARLEY_TOKEN"] = alice.token
        words = [sys.executable, "-m", "flask", "chat", "--url", url, *options]
        return {"args": words, "cwd": ROOT, "env": clean | environment, "encoding": "utf-8"}

    yield command
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(command):
    """A function that pipes these lines into `flask chat` and returns the process that has ended."""

    def run(*lines, options=(), **environment):
        text = "".join(f"{line}\n" for line in lines)
        return subprocess.run(**command(*options, **environment), input=text, capture_output=True, timeout=30)

    return run


@pytest.fixture
def terminal(command):
    """A function that starts `flask chat` on a terminal of its own."""
    terminals = []

    def start(*options, **environment):
        terminals.append(Terminal(command(*options, **environment)))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


class Terminal:
    def __init__(self, command):
        self.screen = ""  # all that was ever written on it
        self._seen = 0
        self._keyboard, inside = pty.openpty()
        del command["encoding"]
        self.process = subprocess.Popen(**command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
        os.close(inside)

    def type(self, text):
        os.write(self._keyboard, text.encode())

    def press_ctrl_c(self):
        """When it waits for something: between its prompt and the keyboard, Python would note the signal, and wait."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.005)
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text, seconds=10):
        """Wait until this is written behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while self.screen.find(text, self._seen) < 0:
            assert select.select([self._keyboard], [], [], deadline - time.monotonic())[0], f"no {text!r} in {self.screen!r}"
            self.screen += os.read(self._keyboard, 4096).decode()
        self._seen = self.screen.find(text, self._seen) + len(text)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


def first_session(client):
    return client.get("/sessions").json()["data"][0]


def test_each_piped_line_is_a_message_of_one_session(run, alice, provider):
    provider.script = [reply("Good ", "day."), reply("Fine."), reply("Very well.")]
    done = run("Hello", "", "How are you?", "/retry", "/quit", "Not sent", options=["--system", "Be kind.", "--model", "m-2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "Good day.\nFine.\nVery well.\n", "")
    asked = provider.posts[-1].body
    assert asked["model"] == "m-2"
    assert [message["content"] for message in asked["messages"]] == ["Be kind.", "Hello", "Good day.", "How are you?"]
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == ["Hello", "Good day.", "How are you?", "Very well."]


def test_words_are_shown_as_they_come(terminal, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "two\u2028", gates[1], "👩‍👩‍👧 ", gates[2], "four.")]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Count\n")
    for word, gate in zip(["One ", "two\u2028", "👩‍👩‍👧 "], gates):
        chat.wait_for(word)
        gate.set()
    chat.wait_for("four.\r\n> ")
    chat.type("\x04")
    assert chat.process.wait(10) == 0


def test_ctrl_c_stops_the_reply_and_the_talk_goes_on(terminal, alice, provider):
    provider.script = [reply("Once upon ", threading.Event()), reply("The end.")]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Tell me a story\n")
    chat.wait_for("Once upon")
    chat.press_ctrl_c()
    chat.wait_for("[stopped]\r\n> ")
    assert alice.turns(first_session(alice))[1]["status"] == "interrupted"
    assert provider.posts[0].hung_up.wait(5)
    chat.press_ctrl_c()  # with no reply under way it drops the line, and no more
    chat.wait_for("> ")
    chat.type("/retry\n")
    chat.wait_for("The end.\r\n> ")
    chat.type("/quit\n")
    assert chat.process.wait(10) == 0
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == ["Tell me a story", "The end."]


def test_ctrl_c_ends_a_pipe(command, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    with subprocess.Popen(**command(), **PIPES) as process:
        process.stdin.write("Tell me a story\nAnd another\n")
        process.stdin.flush()
        assert process.stdout.read(10) == "Once upon "
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == (" [stopped]\n", "Aborted!\n")
    assert process.returncode == 1
    assert len(alice.turns(first_session(alice))) == 2


def test_a_reply_whose_connection_breaks_is_read_on(command, proxy, provider):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    with subprocess.Popen(**command(url=proxy.url), **PIPES) as process:
        process.stdin.write("Count\n")
        process.stdin.flush()
        assert process.stdout.read(8) == "One two "
        proxy.cut()
        gate.set()
        assert process.communicate(timeout=10) == ("three.\n", "No connection. Trying again.\n")
    assert b"Last-Event-ID" in proxy.sent
    assert len(provider.posts) == 1


@pytest.mark.parametrize("behind", [b"", b"\r\n\r\n"], ids=["before the answer", "behind its headers"])
@pytest.mark.parametrize("pieces", [("One ", "two."), ("One ", 1, "two.")], ids=["a quick reply", "a slow reply"])
def test_a_message_whose_answer_is_lost_is_answered_once(behind, pieces, run, proxy, alice, provider):
    provider.script = [reply(*pieces)]
    proxy.cut_behind = behind
    done = run("Count", url=proxy.url)
    assert (done.returncode, done.stdout) == (0, "One two.\n")
    assert len(provider.posts) == 1
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == ["Count", "One two."]


def test_an_old_session_is_shown_and_continued(run, alice, provider):
    provider.script = [reply("A1"), cut("A2"), REFUSED, reply("A3")]
    session = alice.create("Q1\nin two lines")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Q2"})
    done = run("Q3", options=["--session", session["id"], "--model", "m-2", "--system", "Be brief."])
    assert done.stdout == "> Q1\n> in two lines\nA1\n> Q2\nA2 [went on after an interruption] [failed]\nA3\n"
    assert provider.posts[-1].body["model"] == "m-2"
    assert provider.posts[-1].body["messages"][0]["content"] == "Be brief."


def test_a_reply_that_is_under_way_elsewhere_is_followed(command, alice, provider):
    gate, words = threading.Event(), [part for number in range(60) for part in (f"{number} ", 0.1)]
    provider.script = [reply("One ", *words, gate, "two.")]
    session = alice.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    with subprocess.Popen(**command("--session", session["id"]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(12) == "> Count\nOne "
        gate.set()
        assert process.stdout.read() == "".join(words[::2]) + "two.\n"


def test_lists_the_latest_sessions(run, alice):
    session = alice.create("Hello")
    alice.patch(f"/sessions/{session['id']}", {"title": "Two\nlines \x1b[31mred"})
    line = run(options=["--list"]).stdout.splitlines()[0]
    assert line == f"{session['id']}  {session['created_at'][:10]}  Two lines [31mred"


ODD = "\x1b]0;title\x07\x9b2J\u202e\u2066\r\x08"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TURN = {"kind": "assistant", "content": "text", "status": "complete"}
SESSION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
ODD_ANSWERS = {
    "ids of a list": (["--list"], 200, {"data": [{"id": ODD, "updated_at": "2026-11-24", "title": "text"}]}),
    "times of a list": (["--list"], 200, {"data": [{"id": "7", "updated_at": ODD, "title": "text"}]}),
    "titles of a list": (["--list"], 200, {"data": [{"id": "7", "updated_at": "2026-11-24", "title": ODD + "text"}]}),
    "messages": (["--session", SESSION], 200, {"turns": [{"kind": "user", "content": ODD + "text"}]}),
    "replies": (["--session", SESSION], 200, {"turns": [TURN | {"content": ODD + "text"}]}),
    "outcomes": (["--session", SESSION], 200, {"turns": [TURN | {"status": ODD + "text"}]}),
    "errors": (["--list"], 400, {"errors": [{"detail": ODD + "text"}]}),
    "errors of a session": (["--session", SESSION], 404, {"errors": [{"detail": ODD + "text"}]}),
}


@pytest.mark.parametrize("options, code, body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_what_a_server_says_cannot_steer_a_terminal(run, options, code, body):
    server = Provider()
    server.models = status(code, body)
    done = run(options=options, url=server.url)
    server.close()
    said = done.stdout + done.stderr
    assert "text" in said and "Traceback" not in said
    assert not OBEYED.search(said), said


def test_the_direction_of_text_is_not_turned(run, provider):
    provider.script = [reply("a\u202eb", "\u2066c\u2069 👩\u200d👧")]
    assert run("Hello").stdout == "abc 👩\u200d👧\n"


def test_what_a_terminal_would_obey_does_not_reach_it(run, provider):
    provider.script = [reply("\x1b[31mred\x07 \x9b2J", "\x1b", "]0;title\x07\rover\x7f\u0085\n\ttab")]
    assert run("Hello").stdout == "[31mred 2J]0;titleover\n\ttab\n"


@pytest.mark.parametrize(
    "options, problem",
    [
        (["--model", "nobody"], "Error: The provider openai has no such model"),
        (["--session", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"], "Error: There is no such session."),
        (["--token", "none"], "Error: The token is malformed."),
        (["--token", "ünïcode"], "Error: The token is malformed."),
        (["--url", "nowhere"], "Error: nowhere cannot be reached."),
        (["--url", "http://127.0.0.1:1", "--list"], "Error: http://127.0.0.1:1 cannot be reached."),
    ],
)
def test_an_error_is_one_line(options, problem, run, provider):
    provider.script = [status(404, {"error": {"message": "no such model", "code": "model_not_found"}})]
    done = run("Hello", options=options)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr.startswith(problem) and done.stderr.count("\n") == 1, done.stderr


def test_a_model_that_fails_ends_a_pipe_but_not_a_talk(run, terminal, provider):
    provider.script = [cut("Half"), REFUSED, cut("Half"), REFUSED]
    done = run("Hello", "Not sent")
    assert (done.returncode, done.stdout) == (1, "Half\n")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Hello\n")
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/retry\n")
    chat.wait_for("The answer.\r\n> ")


def test_signs_its_own_token_where_the_server_is_this_one(run, server):
    assert run("Hello", PARLEY_TOKEN="").stdout == "The answer.\n"
    user = server.client("https://github.com/you")  # as in the README's curl, and on the page that `flask run` names
    assert first_session(user)["title"] == "Hello"


def test_asks_for_a_token_where_it_cannot_sign_one(run):
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    done = run("Hello", PARLEY_TOKEN="", JWT_SECRET="", JWT_PUBLIC_KEY=pem)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Give --token, or set PARLEY_TOKEN. ")


def test_a_terminal_shows_that_a_model_thinks_and_loses_no_word_by_it(terminal, run, provider):
    told = [thought(reasoning="Hm."), 0.1, "The first ", 1.1, thought(reasoning="Hm, hm."), 0.1, "words."]
    provider.script = [reply(*told), reply(*told)]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Hello\n")
    # What is said of thinking is written behind the cursor, which goes back, and is cleared by what comes next.
    chat.wait_for("\033[s[thinking: 3 characters]\033[u\033[KThe first \033[s[thinking: 10 characters]\033[u\033[Kwords.\r\n> ")
    assert run("Hello").stdout == "The first words.\n"


def test_a_reply_goes_on_where_it_had_stopped(run, alice, provider):
    provider.script = [reply(word, stop="length") for word in ("One ", "two ")]
    provider.script += [REFUSED, cut("three "), cut("four "), reply("five.")]
    cut_at_the_limit = "[cut at the limit: /continue goes on]\n"
    done = run("Count", "/continue", "/continue", "Not sent")
    assert done.stdout == f"One  {cut_at_the_limit}two  [went on after an interruption] {cut_at_the_limit}\n"
    assert done.returncode == 1 and done.stderr.endswith("Not today.\n")
    session = first_session(alice)
    done = run("/continue", "/continue", options=["--session", session["id"]])
    shown = "> Count\nOne two  [went on after an interruption] [cut at the limit]\n"
    assert done.stdout == shown + "three four five. [went on after an interruption]\n"
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "There is nothing to continue" in done.stderr
    assert [turn["content"] for turn in alice.turns(session)] == ["Count", "One two three four five."]


def test_what_cannot_go_on_is_not_said_to(terminal, provider):
    whole = {"error": {"message": "This model's maximum context length is 9 tokens.", "code": "context_length_exceeded"}}
    provider.script = [REFUSED, reply("Whole."), cut("Half"), REFUSED, reply("One ", stop="length"), status(400, whole)]
    chat = terminal()
    chat.wait_for("> ")
    for line, answer in (("/continue", "There is no reply yet."), ("Hello", "Not today."), ("Hello", "Whole.")):
        chat.type(line + "\n")
        chat.wait_for(answer + "\r\n> ")
    chat.type("/retry\n")  # it gives way to the whole reply before it
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/continue\n")
    chat.wait_for("There is nothing to continue")
    assert "goes on" not in chat.screen
    chat.type("Count\n/continue\n")
    chat.wait_for("[cut at the limit: /continue goes on]")
    chat.wait_for("Start a new message.\r\n> ")


def test_what_goes_on_is_read_once_where_the_answer_is_lost(command, proxy, provider):
    provider.script = [reply(*words, stop="length") for words in (["One "], ["two ", 1, "three "], ["four ", "five."])]
    with subprocess.Popen(**command(url=proxy.url), **PIPES) as process:
        for behind, line in ((None, "Count"), (b"", "/continue"), (b"\r\n\r\n", "/continue")):
            proxy.cut_behind = behind  # before the answer, and behind its headers
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert process.stdout.readline().partition(" [")[0] == {None: "One ", b"": "two three "}.get(behind, "four five.")
    assert len(provider.posts) == 3 and proxy.cut_behind is None
