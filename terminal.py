"""A terminal: text that is printed on it, a sign of life while something is awaited, and lines that are typed or pasted."""

import contextlib
import os
import re
import select
import signal
import sys
import time

import click

_HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")  # readline makes it with mode 0600
_IS_DUMB = os.environ.get("TERM", "dumb") == "dumb"
_LONGEST = 1000  # lines
_PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
_OPEN = re.compile(r'"""(?!.*"""\s*\Z)', re.DOTALL)  # a message that begins with three quotes, and has not ended with three
QUOTED = re.compile(r'\A"""(.*)"""\s*\Z', re.DOTALL)
_SAVE, _ERASE = b"\0337", b"\0338\033[K"  # where the cursor is; what is behind that
# All of C0 but tab and line feed, all of C1, and what turns the direction of text around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen:
    """Where text is printed. A terminal shows behind it for how long something is awaited, and no trace of that stays.

    A timer of the system has the sign drawn (SIGALRM), but not where it might reach the margin: no line break is taken back.
    """

    def __init__(self):
        self.awaits = "waiting"
        self._line = ""  # the text on the cursor's line
        self._since, self._has_sign = None, False  # when the waiting began

    def say(self, text, nl=True, err=False):
        """Print this, or, with `err`, what is said of it: that has a line of its own, unless it begins with a blank."""
        self._erase()
        is_on_line = sys.stdout.isatty() or not err
        if err and is_on_line and not text.startswith(" "):
            self.end_line()
        text = CONTROLS.sub("", text)
        if is_on_line:
            self._line = "" if nl else (self._line + text).rpartition("\n")[2]
        click.echo(text, nl=nl, err=err)

    def end_line(self):
        """Nothing is awaited any more, and what comes next begins a line."""
        self.say("", nl=self._line > "")

    def wait(self):
        """From here on something is awaited."""
        if self._since is None and sys.stderr.isatty() and not _IS_DUMB:
            self._since = time.monotonic()
            signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def _draw(self, *_):
        if self._since is None:  # the signal came late
            return
        sign = f"[{self.awaits}, {round(time.monotonic() - self._since)} s]"
        columns, line = os.get_terminal_size(sys.stderr.fileno()).columns or 80, self._line.expandtabs()
        column = len(line) % columns if line.isascii() else len(line) * 2  # at the most
        if column + len(sign) < columns and (column or not line):  # at 0 behind a full line, terminals differ
            os.write(sys.stderr.fileno(), (_ERASE if self._has_sign else _SAVE) + sign.encode())
            self._has_sign = True

    def _erase(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._has_sign:
            os.write(sys.stderr.fileno(), _ERASE)
        self.awaits, self._since, self._has_sign = "waiting", None, False


def open_history():
    """Python's readline, if it has one, by which `input` edits and calls back lines, also those of another day."""
    with contextlib.suppress(ImportError):
        import readline  # here: it changes what `input` does

        if not _IS_DUMB:
            readline.parse_and_bind("set enable-bracketed-paste on")  # which Python switches off
        readline.set_history_length(_LONGEST)
        with contextlib.suppress(OSError):
            readline.read_history_file(_HISTORY)
        return readline


def read_typed(prompt, readline):
    """A message, once it is typed or pasted; /quit at the end of all; None for a Ctrl-C where there was nothing to drop."""
    text = ""
    try:
        text = input(prompt)
        while _OPEN.match(text) or select.select([sys.stdin], [], [], _PASTE_PAUSE)[0]:
            text += "\n" + input("... ")
    except EOFError:
        return text if text and not _OPEN.match(text) else "/quit"
    except KeyboardInterrupt:
        click.echo()
        return "" if text or (readline and readline.get_line_buffer()) else None
    with contextlib.suppress(OSError, AttributeError):
        readline.write_history_file(_HISTORY)
    return text.rstrip()
