"""`flask chat` in a real terminal, by tmux: what is typed and pasted there, and what its screen shows, wide and narrow."""

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time

import pytest

from product import ROOT
from provider import reply, so_far, status, thought, writes
from raw_tables import tables_of
from servers import Server, running

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")

WIDE, NARROW = 120, 40
CLEAN = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}


class Terminal:
    """A terminal of so many columns with a shell, whose HOME is this folder, and whose user is alice of this server."""

    def __init__(self, home, columns, server, **environment):
        self._socket = home / "tmux"
        self.server = server
        binaries = os.path.dirname(sys.executable) + os.pathsep + CLEAN["PATH"]
        clean = CLEAN | {
            "PATH": binaries,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PS1": "$ ",
            "ENV": "",
        }
        clean |= {"PARLEY_URL": server.url, "PARLEY_TOKEN": server.client().token} | environment
        words = [f"{name}={value}" for name, value in clean.items()]
        size = ["-x", str(columns), "-y", "60"]
        self.tmux(
            "-f",
            os.devnull,
            "new-session",
            "-d",
            *size,
            "-c",
            str(ROOT),
            "env",
            "-i",
            *words,
            "TERM=screen",
            "sh",
        )
        self.wait_for("$")

    def tmux(self, *words, **options):
        command = ["tmux", "-S", str(self._socket), *words]
        options |= {"env": CLEAN | {"LANG": "C.UTF-8"}, "encoding": "utf-8"}
        done = subprocess.run(command, capture_output=True, timeout=20, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self, *options):
        """All that can be seen, without blanks at the ends; lines that reach the margin are joined with what follows them."""
        lines = self.tmux("capture-pane", "-p", "-J", "-S", "-", *options).split("\n")
        return "\n".join(line.rstrip() for line in lines).rstrip().replace(self.server.url, "URL")

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def enter(self, text):
        self.type(text)
        self.press("Enter")

    def paste(self, text, *options):
        """Paste it as a user would; with -p, between the marks of a paste, if the program has asked for them."""
        self.tmux("load-buffer", "-", input=text)
        self.tmux("paste-buffer", *options)

    def wait_for(self, end, seconds=20):
        """Wait until the screen ends with this, which may be followed by the cursor only."""
        deadline = time.monotonic() + seconds
        while not (screen := self.screen()).endswith(end):
            assert time.monotonic() < deadline, f"no {end!r} at the end of\n{screen}"
            time.sleep(0.03)
        return screen

    def wait_for_sign(self, begin):
        """Wait until this stands before the seconds at the end of the screen, and until these are others."""
        seen, deadline = set(), time.monotonic() + 20
        while len(seen) < 2:
            assert time.monotonic() < deadline, self.screen()
            seen.update(re.findall(re.escape(begin) + r", (\d+) s\]\Z", self.screen()))

    def close(self):
        self.tmux("kill-server")


@pytest.fixture(scope="module")
def place(provider_of_all, tmp_path_factory):
    """A server; none of this has to do with the kind of its database."""
    with running(
        tmp_path_factory.mktemp("place"),
        OPENAI_BASE_URL=provider_of_all.url + "/v1",
        DEFAULT_MODEL="m-1",
    ) as server:
        yield server


@pytest.fixture
def terminal(place, tmp_path):
    """A function that opens a terminal."""
    terminals = []

    def open_terminal(columns=WIDE, server=place, **environment):
        terminals.append(Terminal(tmp_path, columns, server, **environment))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.close()


def said(provider):
    """What the user has said to the model last."""
    return provider.posts[-1].body["messages"][-1]["content"]


TALK = '''\
$ flask chat
URL, m-1, /? for help
m-1> Hello, 世界 👋
The answer.
m-1> Hello again, 世界 👋
The answer.
m-1> def f(x):
    return x + 1

f(2)
The answer.
m-1> one
...   two
... three
The answer.
m-1> """a question
... /quit
...     exit"""
The answer.
m-1> /tmp is full of files, and none of them is mine: what would you do?
Error: It was not sent: there is no such command, /? lists them. To send it, put a blank before it.
m-1>  /tmp is full of files, and none of them is mine: what would you do?
漢字かな漢字かな漢字かな漢字かな漢字かな漢字かな 👩 and back.
m-1> /model
* m-1
  m-2
m-1> /model m-2
m-2> Tell me a story
Once upon a time ^C [stopped]
m-2> Exit
$'''


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_talk(columns, terminal, provider):
    chat = terminal(columns)
    chat.enter("flask chat")
    chat.wait_for("/? for help\nm-1>")
    chat.enter("Hello, 世界 👋")
    chat.wait_for("The answer.\nm-1>")
    chat.press("Up", *["Left"] * 6)
    chat.enter(" again")
    chat.wait_for("again, 世界 👋\nThe answer.\nm-1>")
    assert said(provider) == "Hello again, 世界 👋"

    code = "def f(x):\n    return x + 1\n\nf(2)"
    chat.paste(code, "-p")
    chat.wait_for("f(2)")
    chat.press("Enter")
    chat.wait_for("f(2)\nThe answer.\nm-1>")
    assert said(provider) == code
    chat.paste("one\n  two\nthree\n")
    chat.wait_for("three\nThe answer.\nm-1>")
    assert said(provider) == "one\n  two\nthree"
    for line in ('"""a question', "/quit", '    exit"""'):
        chat.wait_for(("m-1>", "...")[not line.startswith('"')])
        chat.enter(line)
    chat.wait_for('exit"""\nThe answer.\nm-1>')
    assert said(provider) == "a question\n/quit\n    exit"
    assert len(provider.posts) == 5

    chat.enter("/tmp is full of files, and none of them is mine: what would you do?")
    chat.wait_for("put a blank before it.\nm-1>")
    assert len(provider.posts) == 5
    provider.script = [
        reply("漢字かな" * 3, 0.1, "漢字かな" * 3, " 👩 and back."),
        reply("Once upon a time ", threading.Event()),
    ]
    chat.press("Up", "C-a", "Space", "Enter")
    chat.wait_for("back.\nm-1>")
    assert said(provider).strip().startswith("/tmp is full")
    chat.enter("/model")
    chat.wait_for("m-2\nm-1>")
    chat.enter("/model m-2")
    chat.wait_for("m-2>")
    chat.enter("Tell me a story")
    chat.wait_for("Once upon a time")
    assert provider.posts[-1].body["model"] == "m-2"
    chat.press("C-c")
    chat.wait_for("[stopped]\nm-2>")
    assert provider.posts[-1].hung_up.wait(5)
    chat.enter("Exit")
    assert chat.wait_for("$") == TALK
    assert len(provider.posts) == 7
    history = chat._socket.parent / ".parley_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert (
        "Hello again" in history.read_text()
        and chat.server.client().token not in history.read_text()
    )


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_server_that_dies_in_mid_reply_and_comes_back(columns, terminal, provider, tmp_path):
    text = " ".join(f"word{number}" for number in range(30)) + "."
    gate = threading.Event()
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/p.db",
    }
    first = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
    chat = terminal(columns, first)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    provider.script = [reply(*[word + " " for word in text.split()[:10]], gate), writes(text)]
    chat.enter("Write")
    chat.wait_for("word9")
    first.kill()
    chat.wait_for("No connection. Trying again.")
    with tables_of(settings["DATABASE_URL"]) as tables:  # its lease has lapsed, to spare waiting
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
    second = Server(
        tmp_path, **settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{first.port}"
    )
    try:
        second.wait_until_up()
        words = text.split()
        begun, rest = " ".join(words[:10]), " ".join(words[10:])
        end = f"m-1> Write\n{begun}\nNo connection. Trying again.\n{rest} [went on after an interruption]\nm-1>"
        assert "[waiting" not in chat.wait_for(end, 40)
        assert so_far(provider.posts[-1]) == begun + " "
        [_, turn] = second.client().turns(second.client().get("/sessions").json()["data"][0])
        assert (turn["content"], turn["status"], turn["continued"]) == (text, "complete", 1)
        chat.press("C-d")
        chat.wait_for("[went on after an interruption]\nm-1>\n$")
    finally:
        second.kill()
        for server in (first, second):
            server.stop()  # closes its log


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_sign_of_life_leaves_no_trace(columns, terminal, provider):
    """It is shown on an empty line only, and what is printed takes its place."""
    gates = [threading.Event() for _ in range(3)]
    provider.script = [
        reply(
            thought(reasoning="Hm."),
            gates[0],
            "世界 first ",
            gates[1],
            "words\n\n",
            gates[2],
            "one word more.",
        ),
    ]
    chat = terminal(columns)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for_sign("> Hello\n[thinking: 3 characters")
    gates[0].set()
    chat.wait_for("> Hello\n世界 first")
    time.sleep(2.2)  # no event tells that nothing is shown
    assert chat.screen().endswith("> Hello\n世界 first")
    gates[1].set()
    chat.wait_for_sign("> Hello\n世界 first words\n\n[waiting")
    gates[2].set()
    chat.wait_for("> Hello\n世界 first words\n\none word more.\nm-1>")


def test_a_sign_of_life_says_how_long_a_provider_asks_to_wait(terminal, provider):
    provider.script = [status(429, {}, Retry_After=4), reply("Yes.")]
    chat = terminal()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("> Hello\n[the provider asks to wait 4 s, 1 s]")
    chat.wait_for("> Hello\nYes.\nm-1>")


def test_a_sign_of_life_is_cut_where_the_terminal_ends(terminal, provider):
    """More than one row could not be erased."""
    gate = threading.Event()
    provider.script = [reply(thought(reasoning="Hm." * 10), gate, "Yes.")]
    chat = terminal(20)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("> Hello\n[thinking: 30 chara")
    time.sleep(1.2)  # it is drawn again
    gate.set()
    chat.wait_for("> Hello\nYes.\nm-1>")


def test_ctrl_c_and_ctrl_d(terminal, provider):
    provider.script = [reply("Once upon ", threading.Event()) for _ in range(2)]
    chat = terminal()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.type("never sent")
    chat.wait_for("never sent")
    chat.press("C-c")
    chat.wait_for("never sent\nm-1>")
    chat.enter('"""never sent')
    chat.wait_for("...")
    chat.press("C-c")
    chat.wait_for("...\nm-1>")
    chat.press("C-c")
    chat.wait_for("m-1>\nCtrl-C again, or Ctrl-D, leaves.\nm-1>")
    chat.enter("Tell me a story")  # which makes it the first one again
    chat.wait_for("Once upon")
    chat.press("C-c")
    chat.wait_for("[stopped]\nm-1>")
    chat.press("C-c")
    chat.wait_for("[stopped]\nm-1>\n$")
    assert len(provider.posts) == 1
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.press("C-d")
    chat.wait_for("/? for help\nm-1>\n$")
    chat.enter("flask chat 'Tell me a story'")
    chat.wait_for("Once upon")
    chat.press("C-c")
    chat.wait_for("^C [stopped]\n$")


def test_words_to_leave_by_and_commands_are_not_sent(terminal, provider):
    chat = terminal()
    for word in ("exit", "/quit", "Bye"):
        chat.enter("flask chat --model m-1")
        chat.wait_for("m-1>")
        chat.enter(word)
        chat.wait_for(f"m-1> {word}\n$")
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("/?")
    screen = chat.wait_for("a blank before such a word sends it\nm-1>")
    assert all(
        word in screen
        for word in ("/retry", "/continue", "/model", "/new", "/quit", '"""', "Ctrl-C")
    )
    chat.enter("/retry")
    chat.wait_for("Error: There is no reply yet.\nm-1>")
    refusal = "Error: It was not sent: there is no such command, /? lists them. To send it, put a blank before it."
    for line in ("/nothing", "/retry now", "/RETRY", "/model m-1 m-2"):
        chat.enter(line)
        chat.wait_for(f"m-1> {line}\n{refusal}\nm-1>")
    assert not provider.posts
    chat.enter("Hello")
    chat.wait_for("The answer.\nm-1>")
    chat.enter("/new")
    chat.wait_for("Your next message begins a new session.\nm-1>")
    chat.enter("exit the loop")
    chat.wait_for("The answer.\nm-1>")
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        "exit the loop"
    ]


def test_a_long_name_of_a_model_is_shortened(terminal, provider):
    provider.models = ["hf.co/somebody/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"]
    chat = terminal(NARROW)
    chat.enter(f"flask chat --model {provider.models[0]}")
    chat.wait_for("Llama-3.2-3B-Instru…>")
    chat.enter("Hello")
    chat.wait_for("Llama-3.2-3B-Instru…> Hello\nThe answer.\nLlama-3.2-3B-Instru…>")
    assert provider.posts[0].body["model"] == provider.models[0]
    chat.type("a line that is longer than this terminal is wide")
    chat.wait_for("Llama-3.2-3B-Instru…> a line that is longer than this terminal is wide")
    chat.press(*["BSpace"] * 30, "C-a")
    chat.enter("What is ")
    chat.wait_for("What is a line that is lon\nThe answer.\nLlama-3.2-3B-Instru…>")


@pytest.mark.parametrize("home", ["", "/nowhere"])
def test_no_history_is_kept_where_there_is_no_home_for_it(home, terminal):
    chat = terminal(HOME=home)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("m-1> Hello\nThe answer.\nm-1>")
    chat.press("Up")
    chat.wait_for("m-1> Hello")
    chat.enter(" again")
    chat.wait_for("m-1> Hello again\nThe answer.\nm-1>")


def test_python_may_lack_readline(terminal, provider, tmp_path):
    (tmp_path / "readline.py").write_text("raise ImportError")
    chat = terminal(PYTHONPATH=str(tmp_path))
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.paste("one\n  two\nthree\n", "-p")
    chat.wait_for("The answer.\nm-1>")
    assert said(provider) == "one\n  two\nthree"
    chat.press("C-d")
    chat.wait_for("The answer.\n$")
