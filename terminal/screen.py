"""What a terminal shows of a talk."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from logs import CONTROLS
from terminal import colours
from terminal.markdown import Markdown
from terminal.rows import RESET, Part, Rows

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

    def __init__(self, hides_thinking: bool = False) -> None:
        self._is_terminal, self._is_coloured = sys.stdout.isatty(), colours.are_shown()
        self._names_thinking = self._is_terminal and not hides_thinking
        # Without a colour, nobody could tell thoughts from the reply.
        self._shows_thoughts = self._is_coloured and not hides_thinking
        self._rows = Rows(columns, self._is_coloured)
        self._is_line_empty = True  # the cursor's, or the last one of what is no terminal
        self._is_drawn = False  # the sign of life
        self._is_printing = False
        self._thinks_since: float | None = None  # unless it does not think now
        self._is_in_thoughts = False  # what was printed last
        self.begin_reply()

    def __enter__(self) -> None:
        self.end_line()  # which sets the clock, too
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._thinks_since, self._is_in_thoughts = None, False
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

    def confirm(self, question: str) -> bool:
        """Ask the user; Ctrl-C and Ctrl-D mean no."""
        with self._printing():
            click.echo(CONTROLS.sub("", f"{question} [y/N] "), nl=False)
            try:
                # Not by readline, which adds an empty line to all lines after a Ctrl-D.
                answer = sys.stdin.readline()
            except KeyboardInterrupt:
                answer = ""
            if not answer:
                click.echo()
            return answer.strip().lower() in ("y", "yes")

    def skip(self, echo: str) -> None:
        """The terminal itself has shown this, which was typed. Its colour ends."""
        self._rows.add(Part(echo))
        self._rows.flush()
        if self._is_coloured:
            click.echo(RESET, nl=False)

    def begin_reply(self, text: str = "", thinking: dict[str, Any] | None = None) -> None:
        """What is written from here on is a reply, or follows this beginning of one. `thinking` has
        the figures of what its model has thought already."""
        self._markdown, self._moved = Markdown(self._is_coloured), time.monotonic()
        self._thoughts, self._thought_characters = "", thinking["characters"] if thinking else 0
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

    def think(self, characters: int, start: int = 0, delta: str = "") -> None:
        """Show what has come of a model's thinking. Where its text is not printed, the sign of life
        says that the model thinks."""
        before, self._thoughts = self._thoughts, self._thoughts[:start] + delta
        known, self._thought_characters = self._thought_characters, characters
        if characters < known:  # it was text, or another process writes the reply now
            self._thinks_since = None
            if self._is_in_thoughts:
                self._is_in_thoughts = False
                self.end_line()
        elif characters > known:
            if self._thinks_since is None:
                self._thinks_since = self._since = time.monotonic()
            if self._shows_thoughts:
                self._print_thoughts(before or self._thoughts[:known])
        if self._thinks_since is not None:
            self.awaits = "thinking"

    def end_thinking(self) -> None:
        """The reply goes on, or is over: say for how long its model has thought."""
        if self._thinks_since is None:
            return
        seconds = max(1, round(time.monotonic() - self._thinks_since))
        self._thinks_since, self._is_in_thoughts = None, False
        if self._names_thinking:
            self.end_line()
            self.say_faintly(f"[thought for {seconds} s]\n")

    def say_faintly(self, text: str) -> None:
        with self._printing():
            self._print([Part(CONTROLS.sub("", text), colours.DIM)])

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

    def _print_thoughts(self, before: str) -> None:
        """Print what of the thoughts was not there before."""
        if not self._thoughts.startswith(before):
            before, self._is_in_thoughts = "", False
        text = self._thoughts[len(before) :]
        if not self._is_in_thoughts:
            text = text.lstrip("\n")
            if not text:
                return
            self.end_line()
            self._is_in_thoughts = True
        self.say_faintly(text)

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
