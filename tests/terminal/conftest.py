"""Fixtures for the tests of the command line: `flask chat`, also in tmux, and the folder of a
service."""

import codecs
import contextlib
import os
import pathlib
import pty
import re
import select
import signal
import sys
import time

import pytest

import forked
from client import SECRET, wait_until
from product import ROOT, copy_of_the_service
from servers import running
from tmux import WIDE
from tmux import Terminal as TmuxTerminal


@pytest.fixture
def command(server, alice, tmp_path):
    """The arguments for a subprocess that runs `flask chat` as alice, on `url` and with these
    settings."""

    # A background job ignores SIGINT, and so do its children; a handler of ours is not inherited.
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
    """A function that pipes this text into `flask chat` and returns the ended process."""

    def run(text="", options=(), **environment):
        asked = command(*options, **environment)
        return forked.run(asked["args"][1:], asked["cwd"], asked["env"], text)

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
)  # the marks of a paste; the sign of life, and its end


class Terminal:
    def __init__(self, command):
        self.screen = ""  # all that was ever written on it, except the sign of life and the marks
        self._seen = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # readline writes byte by byte
        self._keyboard, inside = pty.openpty()
        self.url = command["args"][5]
        with open(inside, "r+b", buffering=0) as stream:
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), stream)
            self.process = forked.Process(
                command["args"][1:],
                command["cwd"],
                command["env"],
                **streams,
                start_new_session=True,
            )

    def type(self, text):
        os.write(self._keyboard, text.encode())

    def press_ctrl_c(self):
        """Only while it waits for something: between its prompt and the keyboard, Python would
        note the signal and keep waiting."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text, seconds=10):
        """Wait until this is written after what an earlier call waited for."""
        deadline = time.monotonic() + seconds
        while self.screen.find(text, self._seen) < 0:
            assert select.select([self._keyboard], [], [], deadline - time.monotonic())[0], (
                f"no {text!r} in {self.screen!r}"
            )
            data = self._decoder.decode(os.read(self._keyboard, 4096))
            self.screen = DRAWN.sub("", self.screen + data)
        self._seen = self.screen.find(text, self._seen) + len(text)

    def wait_for_end(self):
        """Wait until it has ended and all its output is read."""
        with contextlib.suppress(OSError):  # how a terminal ends on Linux
            while select.select([self._keyboard], [], [], 30)[0]:
                data = self._decoder.decode(os.read(self._keyboard, 4096))
                self.screen = DRAWN.sub("", self.screen + data)
        return self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


@pytest.fixture(scope="module")
def place(provider_of_all, tmp_path_factory):
    """A server. Nothing that a terminal shows depends on the kind of its database."""
    with running(
        tmp_path_factory.mktemp("place"),
        OPENAI_BASE_URL=provider_of_all.url + "/v1",
        DEFAULT_MODEL="m-1",
    ) as server:
        yield server


@pytest.fixture
def tmux(place, tmp_path):
    """A function that opens a real terminal."""
    terminals = []

    def open_terminal(columns=WIDE, server=place, **environment):
        terminals.append(TmuxTerminal(tmp_path, columns, server, **environment))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def folder(tmp_path):
    """The service in a folder of its own, before its first start."""
    return copy_of_the_service(tmp_path / "parley")
