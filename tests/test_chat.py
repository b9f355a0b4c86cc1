"""`flask chat`, as it is typed into a terminal, or at the end of a pipe."""

import contextlib
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

from client import ROOT, SECRET, free_port, make_token, wait_until
from provider import REFUSED, Provider, certificate, cut, reply, status, thought

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # the terminal speaks HTTP, which is the same on both

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


@pytest.fixture
def command(server, alice, tmp_path):
    """What starts `flask chat` as alice, as the arguments of a subprocess; on `url`, and with these settings."""

    # A job in the background ignores SIGINT, and its children with it; a handler of ours is not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def command(*options, url=server.url, **environment):
        clean = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        clean |= {"HOME": str(tmp_path), "LANG": "C.UTF-8", "TERM": "dumb"}
        clean |= {"DATABASE_URL": f"sqlite:///{tmp_path}/unused.db", "JWT_SECRET": SECRET}
        clean["PARLEY_TOKEN"] = alice.token
        words = [sys.executable, "-m", "flask", "chat", "--url", url, *options]
        return {"args": words, "cwd": ROOT, "env": clean | environment, "encoding": "utf-8"}

    yield command
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(command):
    """A function that pipes this text into `flask chat` and returns the process that has ended."""

    def run(text="", options=(), **environment):
        return subprocess.run(
            **command(*options, **environment), input=text, capture_output=True, timeout=30
        )

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


DRAWN = re.compile(
    r"\x1b\[\?2004(?:h|l\r)|\r(?:\[[^]\n]*, \d+ s\])?\x1b\[K"
)  # the marks of a paste; a sign of life, and its end


class Terminal:
    def __init__(self, command):
        self.screen = ""  # all that was ever written on it, but what is only drawn
        self._seen = 0
        self._keyboard, inside = pty.openpty()
        del command["encoding"]
        self.url = command["args"][5]
        self.process = subprocess.Popen(
            **command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)

    def type(self, text):
        os.write(self._keyboard, text.encode())

    def press_ctrl_c(self):
        """When it waits for something: between its prompt and the keyboard, Python would note the signal, and wait."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text, seconds=10):
        """Wait until this is written behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while self.screen.find(text, self._seen) < 0:
            assert select.select([self._keyboard], [], [], deadline - time.monotonic())[0], (
                f"no {text!r} in {self.screen!r}"
            )
            self.screen = DRAWN.sub("", self.screen + os.read(self._keyboard, 4096).decode())
        self._seen = self.screen.find(text, self._seen) + len(text)

    def wait_for_end(self):
        """Wait until it has ended, and all that it wrote is there."""
        with contextlib.suppress(OSError):  # so a terminal ends, on Linux
            while select.select([self._keyboard], [], [], 30)[0]:
                data = os.read(self._keyboard, 4096)
                self.screen = DRAWN.sub("", self.screen + data.decode())
        return self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


def first_session(client):
    return client.get("/sessions").json()["data"][0]


def test_what_is_piped_in_is_one_message(run, alice, provider):
    text = '/retry\n\n    exit\r\n"""odd"""\n'
    done = run(text, options=["--system", "Be kind.", "--model", "m-2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    asked = provider.posts[-1].body
    assert asked["model"] == "m-2"
    message = '/retry\n\n    exit\r\n"""odd"""'
    assert [message["content"] for message in asked["messages"]] == ["Be kind.", message]
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        message,
        "The answer.",
    ]


@pytest.mark.parametrize(
    "piped, message", [("", "Sum up"), ("\n \n", "Sum up"), (" 1\n2\n", "Sum up\n\n 1\n2")]
)
def test_an_argument_is_one_message_with_what_is_piped_in(piped, message, run, alice):
    done = run(piped, options=["Sum up"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    assert alice.turns(first_session(alice))[0]["content"] == message


@pytest.mark.parametrize("piped", ["", "\n \t\n"])
def test_nothing_is_sent_where_nothing_is_piped_in(piped, run, provider):
    done = run(piped)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: There is no message: what was piped in is empty.\n"
    assert not provider.requests


def test_an_argument_may_be_a_command(run, alice, provider):
    provider.script = [reply("One ", stop="length"), reply("two."), reply("Anew.")]
    assert run(options=["Count"]).stdout == "One \n"
    for command, answer in (("/continue", "two."), ("/retry", "Anew.")):
        done = run(options=["-c", command])
        assert (done.returncode, done.stdout) == (0, answer + "\n")
    assert run(options=["/model"]).stdout.splitlines()[-2:] == ["  m-1", "  m-2"]
    assert "/retry" in run(options=["/?"]).stdout
    done = run(options=["/tmp is full"])
    assert (done.returncode, done.stdout) == (1, "") and "was not sent" in done.stderr
    assert run(options=[" /tmp is full"]).returncode == 0
    assert run(options=["/etc/hosts is odd"]).returncode == 0
    assert [session["title"] for session in alice.get("/sessions").json()["data"][:2]] == [
        "/etc/hosts is odd",
        "/tmp is full",
    ]


def test_goes_on_with_the_last_session(run, alice, server):
    session = alice.create("Hello")
    alice.create("Another")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Once more"})
    assert run(options=["-c", "And again"]).stdout == "The answer.\n"
    assert [turn["content"] for turn in alice.turns(session)][::2] == [
        "Hello",
        "Once more",
        "And again",
    ]
    token = make_token("https://github.com/nobody-yet")
    done = run(options=["--continue", "Hello"], PARLEY_TOKEN=token)
    assert (done.returncode, done.stdout) == (0, "The answer.\n")
    assert done.stderr == "There is no session yet: this is a new one.\n"


def test_words_are_shown_as_they_come(terminal, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "two\u2028", gates[1], "👩‍👩‍👧 ", gates[2], "four.")]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Count\n")
    for word, gate in zip(["One ", "two\u2028", "👩‍👩‍👧 "], gates, strict=True):
        chat.wait_for(word)
        gate.set()
    chat.wait_for("four.\r\nm-1> ")
    chat.type("\x04")
    assert chat.process.wait(10) == 0


def stopped(terminal):
    """A talk whose reply was stopped behind its first words."""
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Tell me a story\n")
    chat.wait_for("Once upon")
    chat.press_ctrl_c()
    chat.wait_for("[stopped]\r\nm-1> ")
    return chat


def test_ctrl_c_stops_the_reply_and_the_talk_goes_on(terminal, alice, provider):
    provider.script = [reply("Once upon ", threading.Event()), reply("The end.")]
    chat = stopped(terminal)
    assert alice.turns(first_session(alice))[1]["status"] == "interrupted"
    assert provider.posts[0].hung_up.wait(5)
    chat.type("Never")
    chat.wait_for("Never")
    chat.press_ctrl_c()  # it drops the line, and no more
    chat.wait_for("> ")
    chat.press_ctrl_c()
    chat.wait_for("Ctrl-C again, or Ctrl-D, leaves.\r\nm-1> ")
    chat.type("/retry\n")
    chat.wait_for("The end.\r\nm-1> ")
    chat.press_ctrl_c()
    chat.wait_for("leaves.\r\nm-1> ")
    chat.press_ctrl_c()
    assert chat.process.wait(10) == 0
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        "Tell me a story",
        "The end.",
    ]


def test_ctrl_c_twice_leaves_a_reply(terminal, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    chat = stopped(terminal)
    chat.press_ctrl_c()
    assert chat.process.wait(10) == 0


def test_ctrl_c_leaves_while_a_reply_is_being_cancelled(terminal, proxy, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    chat.type("Tell me a story\n")
    chat.wait_for("Once upon")
    proxy.passes.clear()
    chat.press_ctrl_c()
    chat.press_ctrl_c()
    chat.wait_for("Aborted!")
    assert chat.process.wait(10) == 1
    proxy.passes.set()


def test_ctrl_c_ends_one_question(command, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    with subprocess.Popen(**command("Tell me a story"), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(10) == "Once upon "
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.stderr.read()) == ("\n", " [stopped]\n")
    assert process.returncode == 1
    assert alice.turns(first_session(alice))[1]["status"] == "interrupted"


def test_a_reply_whose_connection_breaks_is_read_on(command, proxy, provider):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    with subprocess.Popen(**command("Count", url=proxy.url), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(8) == "One two "
        proxy.cut()
        gate.set()
        assert (process.stdout.read(), process.stderr.read()) == (
            "three.\n",
            "No connection. Trying again.\n",
        )
    assert b"Last-Event-ID" in proxy.sent
    assert len(provider.posts) == 1


BREAKS = {"before the answer": b"", "behind its status": b"201", "within its headers": b"Locat"}
BREAKS |= {"behind its headers": b"\r\n\r\n"}


@pytest.mark.parametrize("behind", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize(
    "pieces", [("One ", "two."), ("One ", 1, "two.")], ids=["a quick reply", "a slow reply"]
)
def test_a_message_whose_answer_is_lost_is_answered_once(
    behind, pieces, terminal, proxy, alice, provider
):
    provider.script = [reply(*pieces)]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    proxy.cut_behind = behind
    chat.type("Count\n")
    chat.wait_for("No connection. Trying again.\r\nOne two.\r\nm-1> ")
    assert len(provider.posts) == 1
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == ["Count", "One two."]


def test_an_old_session_is_shown_and_continued(terminal, alice, provider):
    provider.script = [reply("A1"), cut("A2"), REFUSED, reply("A3")]
    session = alice.create("Q1\nin two lines")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Q2"})
    chat = terminal("--session", session["id"], "--model", "m-2", "--system", "Be brief.")
    chat.wait_for(f"{chat.url}, m-2, /? for help\r\n> Q1\r\n> in two lines\r\nA1\r\n> Q2\r\n")
    chat.wait_for("A2 [went on after an interruption] [failed]\r\nm-2> ")
    chat.type("Q3\n")
    chat.wait_for("A3\r\nm-2> ")
    assert provider.posts[-1].body["model"] == "m-2"
    assert provider.posts[-1].body["messages"][0]["content"] == "Be brief."


def test_a_reply_that_is_under_way_elsewhere_is_followed(terminal, alice, provider):
    gate, words = threading.Event(), [part for number in range(60) for part in (f"{number} ", 0.05)]
    provider.script = [reply("One ", *words, gate, "two.")]
    alice.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    chat = terminal("-c")
    chat.wait_for("> Count\r\nOne ")
    gate.set()
    chat.wait_for("".join(words[::2]) + "two.\r\nm-1> ")


def test_lists_the_latest_sessions(run, alice):
    session = alice.create("Hello")
    alice.patch(f"/sessions/{session['id']}", {"title": "Two\nlines \x1b[31mred"})
    line = run(options=["--list"]).stdout.splitlines()[0]
    assert line == f"{session['id']}  {session['created_at'][:10]}  Two lines [31mred"


TURN = {"kind": "assistant", "content": "text", "status": "complete"}
SESSION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
PLACE = {"id": SESSION, "model": {"id": "m"}}


def test_says_where_the_beginning_of_a_session_is_not_shown(terminal):
    """As where all of it would be too much for one answer."""
    turns = [{"kind": "user", "content": "the newest question"}, TURN]
    server = Provider()
    server.models = status(200, PLACE | {"turns": turns, "meta": {"has_more": True}})
    chat = terminal("--session", SESSION, url=server.url)
    chat.wait_for("text")
    chat.type("/quit\n")
    chat.wait_for_end()
    server.close()
    said = "[The beginning of this session is too long to be shown.]"
    assert chat.screen.index(said) < chat.screen.index("> the newest question")


ODD = "\x1b]0;title\x07\x9b2J\u202e\u2066\r\x08"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ODD_ANSWERS = {
    "ids of a list": (
        ["--list"],
        200,
        {"data": [{"id": ODD, "updated_at": "2026-11-24", "title": "text"}]},
    ),
    "times of a list": (
        ["--list"],
        200,
        {"data": [{"id": "7", "updated_at": ODD, "title": "text"}]},
    ),
    "titles of a list": (
        ["--list"],
        200,
        {"data": [{"id": "7", "updated_at": "2026-11-24", "title": ODD + "text"}]},
    ),
    "models": ([], 200, {"data": [{"id": ODD + "text", "default": True}]}),
    "a session's model": (
        ["-c"],
        200,
        {"data": [PLACE], "turns": []} | PLACE | {"model": {"id": ODD + "text\n\t"}},
    ),
    "messages": (
        ["--session", SESSION],
        200,
        PLACE | {"turns": [{"kind": "user", "content": ODD + "text"}]},
    ),
    "replies": (["--session", SESSION], 200, PLACE | {"turns": [TURN | {"content": ODD + "text"}]}),
    "outcomes": (["--session", SESSION], 200, PLACE | {"turns": [TURN | {"status": ODD + "text"}]}),
    "errors": (["--list"], 400, {"errors": [{"detail": ODD + "text"}]}),
    "errors of a session": (["--session", SESSION], 404, {"errors": [{"detail": ODD + "text"}]}),
}


@pytest.mark.parametrize("options, code, body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_what_a_server_says_cannot_steer_a_terminal(terminal, options, code, body):
    server = Provider()
    server.models = status(code, body)
    chat = terminal(*options, url=server.url)
    chat.wait_for("text")
    if code == 200 and options != ["--list"]:
        chat.wait_for("> ")
        chat.type("/quit\n")
    chat.wait_for_end()
    server.close()
    assert "Traceback" not in chat.screen
    said = chat.screen.replace("\r\n", "\n")
    assert not OBEYED.search(said), said


def test_the_direction_of_text_is_not_turned(run, provider):
    provider.script = [reply("a\u202eb", "\u2066c\u2069 👩\u200d👧")]
    assert run("Hello").stdout == "abc 👩\u200d👧\n"


def test_what_a_terminal_would_obey_does_not_reach_it(run, provider):
    provider.script = [
        reply("\x1b[31mred\x07 \x9b2J", "\x1b", "]0;title\x07\rover\x7f\u0085\n\ttab")
    ]
    assert run("Hello").stdout == "[31mred 2J]0;titleover\n\ttab\n"


START_IT = "Start it with `flask run`, or check --url, from http:// or https:// on."


@pytest.mark.parametrize(
    "options, problem",
    [
        (["--model", "nobody"], "Error: The provider openai has no such model"),
        (["--session", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"], "Error: There is no such session."),
        (
            ["--token", "none"],
            "Error: The token is not whole: it has three parts, with dots between.",
        ),
        (["--token", "a.b.ünïcode"], "Error: The token is malformed."),
        (
            ["--url", "nowhere"],
            "Error: nowhere is no Parley. Check --url, which begins with http:// or https://.",
        ),
        (
            ["--url", "127.0.0.1:5000"],
            "Error: 127.0.0.1:5000 is no Parley. Check --url, which begins with http:// or https://.",
        ),
        (
            ["--url", "http://127.0.0.1:1", "--list"],
            f"Error: http://127.0.0.1:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://localhost:1"],
            f"Error: http://localhost:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://me:secret@[::1]:1"],
            f"Error: http://[::1]:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://parley.invalid"],
            f"Error: http://parley.invalid cannot be reached. {START_IT}",
        ),
    ],
)
def test_an_error_is_one_line(options, problem, run, provider):
    provider.script = [
        status(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    ]
    done = run("Hello", options=options)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr.startswith(problem) and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("options", [[], ["Hello"], ["-c"]])
def test_a_server_that_is_not_there_is_told_at_once(options, terminal):
    port = free_port()
    began = time.monotonic()
    chat = terminal(*options, url=f"http://127.0.0.1:{port}")
    assert chat.wait_for_end() == 1
    assert chat.screen == f"Error: http://127.0.0.1:{port} cannot be reached. {START_IT}\r\n"
    assert time.monotonic() - began < 8  # Python needs one or two on a busy machine


def test_a_wrong_scheme_is_told(run, server, tmp_path):
    other = server.url.replace("http:", "https:")
    done = run("Hello", url=other)
    problem = f"Error: {other} has no https:// that is trusted here. Is it http://?\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", problem)
    path, context = certificate(tmp_path)
    with contextlib.closing(Provider(context)) as secure:
        secure.models = status(200, {"data": []})
        done = run("Hello", url=secure.url.replace("https:", "http:"))
        assert (done.returncode, done.stdout) == (1, "") and "http:// or https://" in done.stderr, (
            done.stderr
        )
        done = run("Hello", url=secure.url)
        assert (done.returncode, done.stderr) == (1, problem.replace(other, secure.url))
        assert not secure.requests
        assert run(options=["--list"], url=secure.url, REQUESTS_CA_BUNDLE=str(path)).returncode == 0


@pytest.mark.parametrize(
    "code, headers, problem",
    [
        (200, {}, "is no Parley. Check --url"),
        (
            301,
            {"Location": "https://127.0.0.1:1/"},
            "redirects to https://127.0.0.1:1/: give --url as it is there.",
        ),
        (404, {}, "answered with the status 404, and not as Parley. Check --url."),
        (
            413,
            {},
            "answered with the status 413, and not as Parley. Check --url.",
        ),  # as a proxy says of a long message
        (502, {}, "cannot be reached."),  # as a proxy says it
    ],
)
def test_an_answer_of_something_else_is_one_line(code, headers, problem, run):
    with contextlib.closing(Provider()) as other:
        other.models = status(code, "<html>", **headers)
        done = run("Hello", url=other.url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"Error: {other.url} {problem}")


def test_a_reply_that_is_stopped_elsewhere_is_a_failure(command, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    with subprocess.Popen(**command("Tell me a story"), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(10) == "Once upon "
        alice.post(f"/sessions/{first_session(alice)['id']}/cancel")
        problem = "Error: The reply is interrupted: /continue goes on.\n"
        assert (process.stdout.read(), process.stderr.read()) == ("\n", problem)
    assert process.returncode == 1


def test_a_model_that_fails_ends_one_question_but_not_a_talk(run, terminal, provider):
    provider.script = [cut("Half"), REFUSED, cut("Half"), REFUSED]
    done = run("Hello")
    assert (done.returncode, done.stdout) == (1, "Half\n")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Hello\n")
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/retry\n")
    chat.wait_for("The answer.\r\nm-1> ")


def test_signs_its_own_token_where_the_server_is_this_one(run, server):
    assert run("Hello", PARLEY_TOKEN="").stdout == "The answer.\n"
    user = server.client(
        "https://github.com/you"
    )  # as in the README's curl, and on the page that `flask run` names
    assert first_session(user)["title"] == "Hello"


def test_with_an_address_and_a_token_it_needs_no_settings(run):
    odd = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "JWT_SECRET": "short",
        "PROVIDERS": "odd",
        "DEFAULT_MODEL": "none",
    }
    done = run("Hello", **odd)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    done = run("Hello", PARLEY_TOKEN="", **odd)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith("Error: Give --token, or set PARLEY_TOKEN. JWT_SECRET: ")
        and done.stderr.count("\n") == 1
    )


def test_asks_for_a_token_where_it_cannot_sign_one(run):
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    done = run("Hello", PARLEY_TOKEN="", JWT_SECRET="", JWT_PUBLIC_KEY=pem)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Give --token, or set PARLEY_TOKEN. ")


def test_nothing_is_said_of_thinking_where_there_is_no_terminal(run, provider):
    provider.script = [
        reply(
            thought(reasoning="Hm."), 1.5, "The first ", thought(reasoning="Hm, hm."), 1.5, "words."
        )
    ]
    done = run("Hello")
    assert (done.stdout, done.stderr) == ("The first words.\n", "")


def test_a_reply_goes_on_where_it_had_stopped(run, alice, provider):
    provider.script = [reply(word, stop="length") for word in ("One ", "two ")]
    provider.script += [REFUSED, cut("three "), cut("four "), reply("five.")]
    cut_at_the_limit, went_on = (
        " [cut at the limit: /continue goes on]\n",
        " [went on after an interruption]",
    )
    done = run("Count")
    assert (done.returncode, done.stdout, done.stderr) == (0, "One \n", cut_at_the_limit)
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "two \n", went_on + cut_at_the_limit)
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("Not today.\n")
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "three four five.\n", went_on + "\n")
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stderr.count("\n")) == (
        1,
        1,
    ) and "There is nothing to continue" in done.stderr
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        "Count",
        "One two three four five.",
    ]


def test_what_cannot_go_on_is_not_said_to(terminal, provider):
    whole = {
        "error": {
            "message": "This model's maximum context length is 9 tokens.",
            "code": "context_length_exceeded",
        }
    }
    provider.script = [
        REFUSED,
        reply("Whole."),
        cut("Half"),
        REFUSED,
        reply("One ", stop="length"),
        status(400, whole),
    ]
    chat = terminal()
    chat.wait_for("> ")
    for line, answer in (
        ("/continue", "There is no reply yet."),
        ("Hello", "Not today."),
        ("Hello", "Whole."),
    ):
        chat.type(line + "\n")
        chat.wait_for(answer + "\r\nm-1> ")
    chat.type("/retry\n")  # it gives way to the whole reply before it
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/continue\n")
    chat.wait_for("There is nothing to continue")
    assert "goes on" not in chat.screen
    chat.type("Count\n")
    chat.wait_for("One  [cut at the limit: /continue goes on]\r\nm-1> ")
    chat.type("/continue\n")
    chat.wait_for("Start a new message.\r\nm-1> ")


def test_what_goes_on_is_read_once_where_the_answer_is_lost(terminal, proxy, provider):
    provider.script = [
        reply(*words, stop="length")
        for words in (["One "], ["two ", 1, "three "], ["four ", "five."])
    ]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    for behind, line, words in (
        (None, "Count", "One "),
        (b"", "/continue", "two three "),
        (b"\r\n\r\n", "/continue", "four"),
    ):
        proxy.cut_behind = behind  # before the answer, and behind its headers
        chat.type(line + "\n")
        chat.wait_for(f"\n{words}")
        chat.wait_for("[cut at the limit: /continue goes on]\r\nm-1> ")
    assert len(provider.posts) == 3 and proxy.cut_behind is None


@pytest.fixture
def moved_on(start, new_database, provider):
    """The settings by which alice's terminal finds her chat of echo on a server that serves other models by now."""
    settings = {"DATABASE_URL": new_database(), "WEB_CONCURRENCY": 1}
    alice = start(**settings).client()
    alice.create("Hello")
    server = start(**settings, OPENAI_BASE_URL=provider.url + "/v1")
    return {"PARLEY_URL": server.url, "PARLEY_TOKEN": alice.token}


GONE = "[echo is not served any more: m-1 answers from here on.]\n"


@pytest.mark.parametrize("words", ["More", "/retry"])
def test_a_session_whose_model_is_gone_goes_on_with_the_default(command, moved_on, provider, words):
    made = command("-c", words, url=moved_on["PARLEY_URL"], PARLEY_TOKEN=moved_on["PARLEY_TOKEN"])
    done = subprocess.run(**made, input="", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", GONE)
    assert [post.body["model"] for post in provider.posts] == ["m-1"]


def test_a_session_whose_provider_has_lost_its_model_goes_on_with_the_default(run, alice, provider):
    session = alice.create("Hello")
    alice.patch(f"/sessions/{session['id']}", {"model": "m-9"})
    unknown = {"error": {"message": "The model `m-9` does not exist", "code": "model_not_found"}}
    provider.script = [status(404, unknown)]
    done = run(options=["-c", "More"])
    assert (done.returncode, done.stdout) == (0, "The answer.\n")
    assert done.stderr == GONE.replace("echo", "m-9")
    assert [turn["content"] for turn in alice.turns(session)] == [
        "Hello",
        "The answer.",
        "More",
        "The answer.",
    ]


def test_a_model_that_was_asked_for_is_not_replaced(run, alice, provider):
    done = run(options=["--model", "echo", "Hello"])
    assert done.returncode == 1 and "GET /models" in done.stderr and provider.posts == []
