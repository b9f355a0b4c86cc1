"""What a terminal shows of a talk, and what is typed into it."""

import contextlib
import os
import re
import select
import signal
import sys
import time
from types import ModuleType

import click

from logs import CONTROLS

# Readline makes it with mode 0600.
HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")
LONGEST_NAME = 20  # characters of a model's, in the prompt
PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
QUOTED = re.compile(r'\A"""(.*)"""\s*\Z', re.DOTALL)


class Screen:
    """Where text is printed. Within `with`, a terminal's empty line shows how long nothing has
    come; behind it, a line begins."""

    def __init__(self) -> None:
        self._line = ""  # the text on the cursor's line; None where the sign of life stands there

    def __enter__(self) -> None:
        self.end_line()  # which sets the clock, too
        signal.signal(signal.SIGALRM, self._draw)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.end_line()

    def say(self, text: str, nl: bool = True, err: bool = False) -> None:
        """Print this, or, with `err`, what is said of it: that has a line of its own, unless it
        begins with a blank."""
        # So that no sign is drawn into what follows.
        self.awaits, self._since = (
            "waiting",
            time.monotonic(),
        )
        if self._line is None:
            click.echo("\r\033[K", nl=False, err=True)
            self._line = ""
        is_on_line = sys.stdout.isatty() or not err
        if err and is_on_line and not text.startswith(" "):
            self.end_line()
        text = CONTROLS.sub("", text)
        if is_on_line:
            self._line = "" if nl else (self._line + text).rpartition("\n")[2]
        click.echo(text, nl=nl, err=err)

    def end_line(self) -> None:
        """What comes next begins a line."""
        self.say("", nl=bool(self._line))

    def _draw(self, *_: object) -> None:
        seconds = int(time.monotonic() - self._since)
        if seconds and not self._line and sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sign = f"[{self.awaits}, {seconds} s]"[: columns - 1]  # only one row can be erased
            os.write(sys.stderr.fileno(), f"\r{sign}\033[K".encode())
            self._line = None


def open_history() -> ModuleType | None:
    """Python's readline, if it has one, by which `input` edits and calls back lines, also those of
    another day."""
    try:
        import readline  # here: it changes what `input` does
    except ImportError:
        return None
    readline.parse_and_bind("set enable-bracketed-paste on")  # which Python switches off
    readline.set_history_length(1000)  # lines
    with contextlib.suppress(OSError):  # there is none yet
        readline.read_history_file(HISTORY)
    return readline


def _is_quoting(text: str) -> bool:
    """Whether quotes were begun, and not ended."""
    return text.startswith('"""') and not QUOTED.match(text)


def _is_pasting() -> bool:
    """Whether more has come than anybody types."""
    return bool(select.select([sys.stdin], [], [], PASTE_PAUSE)[0])


def read_typed(model: str, readline: ModuleType | None) -> str | None:
    """A message for this model, typed or pasted; /quit at the end of all; None for a Ctrl-C where
    there was nothing to drop."""
    name = " ".join(CONTROLS.sub("", model).split()).rpartition("/")[2]
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 1] + "…"
    text = ""
    try:
        text = input(f"{name}> ")
        while _is_quoting(text) or _is_pasting():
            text += "\n" + input("... ")
    except EOFError:
        # GNU readline ends the line, others leave the prompt there.
        click.echo("\r\033[K", nl=False)
        return "/quit"
    except KeyboardInterrupt:
        click.echo()
        return "" if text or (readline and readline.get_line_buffer()) else None
    with contextlib.suppress(OSError, AttributeError):
        readline.write_history_file(HISTORY)
    return text.rstrip()
