"""What a terminal shows of a talk."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

import click

from logs import CONTROLS
from terminal import colours
from terminal.markdown import Markdown
from terminal.rows import Part, Rows

PATIENCE = 1  # seconds, after which text that has come is shown, whatever it may become


def columns() -> int:
    """How many the terminal has now; 0 where it does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return 0


class Screen:
    """Where text is printed. On a terminal, it is broken between words, and a reply has colours;
    anywhere else it is printed as it is. Within `with`, a terminal's empty line shows how long
    nothing has come; behind it, a line begins."""

    def __init__(self) -> None:
        self._is_terminal, self._is_coloured = sys.stdout.isatty(), colours.are_shown()
        self._rows = Rows(columns, self._is_coloured)
        self._is_line_empty = True  # the cursor's, or the last one of what is no terminal
        self._is_drawn = False  # the sign of life
        self._is_printing = False
        self.begin_reply()

    def __enter__(self) -> None:
        self.end_line()  # which sets the clock, too
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.end_line()

    def say(self, text: str, nl: bool = True, err: bool = False) -> None:
        """Print this, or, with `err`, what is said of it: that has a line of its own, unless it
        begins with a blank."""
        text = CONTROLS.sub("", text)
        with self._printing():
            self._flush()
            if err and text[:1].strip() and self._is_shown(err):
                self._end_line()
            self._print([Part(text + "\n" * nl)], err)
            self._flush(err)

    def quote(self, text: str) -> None:
        """Print what a user has said."""
        with self._printing():
            for line in CONTROLS.sub("", text).split("\n"):
                self._print([Part("> ", colours.CYAN, 2), Part(line + "\n", "", 2)])

    def skip(self, echo: str) -> None:
        """The terminal itself has shown this, which was typed."""
        self._rows.add(Part(echo))
        self._rows.flush()

    def begin_reply(self, text: str = "") -> None:
        """What is written from here on is a reply, or follows this beginning of one."""
        self._markdown, self._moved = Markdown(self._is_coloured), time.monotonic()
        if self._is_terminal:
            self._markdown.feed(CONTROLS.sub("", text))
            self._markdown.flush()

    def write(self, text: str) -> None:
        """Print what has come of a reply."""
        text = CONTROLS.sub("", text)
        with self._printing():
            if not self._is_terminal:
                self._print([Part(text)])
                return
            if time.monotonic() - self._moved > PATIENCE:
                self._print(self._markdown.hurry())
            parts = self._markdown.feed(text)
            if parts:
                self._moved = time.monotonic()
            self._print(parts)

    def end_line(self) -> None:
        """What comes next begins a line."""
        with self._printing():
            self._flush()
            self._end_line()

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        """Something has come: no sign of life is drawn into it, and the last one makes way."""
        self._is_printing = True
        self.awaits, self._since = "waiting", time.monotonic()
        if self._is_drawn:
            click.echo("\r\033[K", nl=False, err=True)
            self._is_drawn = False
        try:
            yield
        finally:
            self._is_printing = False

    def _is_shown(self, err: bool) -> bool:
        """Whether what is printed stands where the cursor is."""
        return self._is_terminal and (not err or sys.stderr.isatty())

    def _print(self, parts: list[Part], err: bool = False) -> None:
        if self._is_shown(err):
            text = "".join(map(self._rows.add, parts))
            self._is_line_empty = self._rows.is_empty
        else:
            text = "".join(part.text for part in parts)
            if text and not err:
                self._is_line_empty = text.endswith("\n")
        if text:
            click.echo(text, nl=False, err=err)

    def _flush(self, err: bool = False) -> None:
        """Print what is held back."""
        if self._is_terminal:
            self._print(self._markdown.flush(), err)
            if text := self._rows.flush():
                click.echo(text, nl=False, err=err)

    def _end_line(self) -> None:
        if not self._is_line_empty:
            self._print([Part("\n")])

    def _tick(self, *_: object) -> None:
        """Once a second: show what is held back though nothing more comes, or the sign of life."""
        seconds = int(time.monotonic() - self._since)
        if not seconds or self._is_printing:
            return
        if self._is_terminal:
            self._print(self._markdown.hurry())
            click.echo(self._rows.flush(), nl=False)
        if self._is_line_empty and sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sign = f"[{self.awaits}, {seconds} s]"[: columns - 1]  # only one row can be erased
            os.write(sys.stderr.fileno(), f"\r{sign}\033[K".encode())
            self._is_drawn = True
