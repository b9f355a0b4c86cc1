"""The output of `flask chat`."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from clients.python.parley_client import ParleyError
from logs import CONTROLS
from terminal import colours
from terminal.reply_text import ReplyText
from terminal.rows import NO_SIZE, Rows


def size() -> tuple[int, int]:
    """The current columns and lines of the terminal; `NO_SIZE` if text is not wrapped."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()) if colours.has_escapes() else NO_SIZE
    except OSError:
        return NO_SIZE


class Screen:
    """Prints text. On a terminal, it is wrapped as it comes, and code gets colours; otherwise it is
    printed unchanged. Within `with`, an empty line of a terminal shows progress: for how long
    nothing has come. After it, a new line begins."""

    def __init__(self, hides_thinking: bool = False) -> None:
        self._is_terminal, self._is_coloured = sys.stdout.isatty(), colours.are_shown()
        self._names_thinking = self._is_terminal and not hides_thinking
        # Only a colour tells thoughts from the reply.
        self._shows_thoughts = self._is_coloured and not hides_thinking
        self._rows = Rows(size)
        self._is_progress_shown = False  # whether the progress is on the screen
        self._is_printing = False
        self._thinks_since: float | None = None  # None unless the model is thinking
        self.begin_reply()

    def __enter__(self) -> None:
        self.end_line()  # this also sets the time for the progress
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._thinks_since = None
        self.end_line()

    def say(self, text: str, nl: bool = True, err: bool = False) -> None:
        """Print this. With `err`, it is a remark about the reply, and begins a new line unless it
        begins with a space."""
        with self._printing():
            if err and text[:1].strip() and self._is_on_terminal_of_reply(err):
                self._end_line()
            self._print(CONTROLS.sub("", text) + "\n" * nl, err=err)

    def say_lost(self, error: ParleyError) -> None:
        """Say that a connection is lost, and that the client goes on; nothing if the server is only
        busy."""
        if error.status is None:
            self.say("No connection. Trying again.", err=True)

    def say_dimmed(self, text: str) -> None:
        with self._printing():
            self._print(CONTROLS.sub("", text), colours.DIM)

    def quote(self, text: str) -> None:
        """Print a user's message."""
        with self._printing():
            for line in CONTROLS.sub("", text).split("\n"):
                self._print(f"> {line}", colours.CYAN)
                self._print("\n")

    def confirm(self, question: str) -> bool:
        """Ask the user; Ctrl-C and Ctrl-D mean no."""
        with self._printing():
            click.echo(CONTROLS.sub("", f"{question} [y/N] "), nl=False)
            try:
                # Not `input`: after a Ctrl-D, readline adds an empty line to all later ones.
                answer = sys.stdin.readline()
            except KeyboardInterrupt:
                answer = ""
            if not answer:
                click.echo()
            return answer.strip().lower() in ("y", "yes")

    def skip(self, echo: str) -> None:
        """Take note that the terminal itself has shown this, when it was typed."""
        self._rows.add(echo)

    def begin_reply(self, text: str = "", thinking: dict[str, Any] | None = None) -> None:
        """Prepare for a reply, or for the rest of one that has this text and this `thinking`, as
        the API shows it."""
        self._reply = ReplyText(self._rows, self._is_coloured, CONTROLS.sub("", text))
        self._thoughts, self._thought_characters = "", thinking["characters"] if thinking else 0

    def write(self, text: str) -> None:
        """Print new text of a reply."""
        with self._printing():
            click.echo(self._reply.add(CONTROLS.sub("", text)), nl=False)

    def think(self, characters: int, start: int = 0, delta: str = "") -> None:
        """Print new thinking of the model: `delta` follows `start` characters, and there are
        `characters` in all. If thinking is not shown, the progress says that the model thinks."""
        before, known = self._thoughts, self._thought_characters
        self._thoughts, self._thought_characters = before[:start] + delta, characters
        is_new = self._thinks_since is None
        if characters <= known:
            if characters < known:  # they were part of the reply, or the model has begun again
                if before and self._shows_thoughts and not is_new:
                    self.end_line()
                self._thinks_since = None
            return
        if is_new:
            self._thinks_since = self._since = time.monotonic()
        shown = before or self._thoughts[:known]
        goes_on = self._thoughts.startswith(shown)  # another process may have other thoughts
        text = self._thoughts[len(shown) :] if goes_on else self._thoughts
        if self._shows_thoughts and text:
            if is_new or not goes_on:
                self.end_line()
                text = text.lstrip("\n")
            self.say_dimmed(text)
        self.awaits = "thinking"

    def end_thinking(self) -> None:
        """At the next text, or at the end of a reply, say how long the model has thought."""
        if self._thinks_since is None:
            return
        seconds = max(1, round(time.monotonic() - self._thinks_since))
        self._thinks_since = None
        if self._names_thinking:
            self.end_line()
            self.say_dimmed(f"[thought for {seconds} s]\n")

    def end_line(self) -> None:
        """End the line, unless it is empty."""
        with self._printing():
            self._end_line()

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        """Erase the progress, and draw none while something is printed."""
        self._is_printing = True
        self.awaits, self._since = "waiting", time.monotonic()
        if self._is_progress_shown:
            click.echo("\r\033[K", nl=False, err=True)
            self._is_progress_shown = False
        try:
            yield
        finally:
            self._is_printing = False

    def _is_on_terminal_of_reply(self, err: bool) -> bool:
        """Whether this output goes to the same terminal as the reply."""
        return not err or (self._is_terminal and sys.stderr.isatty())

    def _print(self, text: str, style: str = "", err: bool = False) -> None:
        if self._is_on_terminal_of_reply(err):
            text = self._rows.add(text)
        if text and style and self._is_coloured:
            text = f"\033[{style}m{text}{colours.RESET}"
        click.echo(text, nl=False, err=err)

    def _end_line(self) -> None:
        if not self._rows.is_line_empty:
            self._print("\n")

    def _tick(self, *_: object) -> None:
        """Called once a second: draw the progress."""
        seconds = int(time.monotonic() - self._since)
        if seconds and not self._is_printing and self._rows.is_line_empty and sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sign = f"[{self.awaits}, {seconds} s]"[: columns - 1]  # only one row can be erased
            os.write(sys.stderr.fileno(), f"\r{sign}\033[K".encode())
            self._is_progress_shown = True
