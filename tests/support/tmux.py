"""A real terminal, run by tmux."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from product import ROOT

LACKS_TMUX = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
WIDE, NARROW = 120, 40  # columns
CLEAN = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}


def unbroken(text):
    """The text without blanks, since some of them become the end of a row."""
    return "".join(text.split())


class Terminal:
    """A terminal of so many columns with a shell. HOME is this folder, and its user is Alice on
    this server."""

    def __init__(self, home, columns, server, **environment):
        self._socket = home / "tmux"
        self.server = server
        binaries = os.path.dirname(sys.executable) + os.pathsep + CLEAN["PATH"]
        clean = CLEAN | {
            "PATH": binaries,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TERM": "screen",
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
            "sh",
        )
        self._written = home / "written"
        self.tmux("pipe-pane", f"exec cat > {self._written}")
        self.wait_for("$")

    def tmux(self, *words, **options):
        command = ["tmux", "-S", str(self._socket), *words]
        options |= {"env": CLEAN | {"LANG": "C.UTF-8"}, "encoding": "utf-8"}
        done = subprocess.run(command, capture_output=True, timeout=20, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self, *options):
        """The visible text, without blanks at the ends of lines; a line that reaches the margin is
        joined with the next."""
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

    def wait_for(self, end, seconds=20, is_broken=False):
        """Wait until the screen ends with this (the cursor may follow). With `is_broken`, it may be
        broken into rows."""
        deadline = time.monotonic() + seconds
        while True:
            written = self._count_written()
            screen = self.screen()
            if screen.endswith(end) or (is_broken and unbroken(screen).endswith(unbroken(end))):
                return screen
            assert time.monotonic() < deadline, f"no {end!r} at the end of\n{screen}"
            while self._count_written() == written and time.monotonic() < deadline:
                time.sleep(0.02)  # each look at the screen starts a process

    def _count_written(self):
        """The bytes that have come to the terminal."""
        return self._written.stat().st_size if self._written.exists() else -1

    def wait_for_sign(self, begin):
        """Wait until this stands before the seconds at the end of the screen, and the seconds have
        changed."""
        seen, deadline = set(), time.monotonic() + 20
        while len(seen) < 2:
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.1)
            seen.update(re.findall(re.escape(begin) + r", (\d+) s\]\Z", self.screen()))

    def close(self):
        self.tmux("kill-server")
