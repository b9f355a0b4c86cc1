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
_PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
QUOTED = re.compile(r'\A"""(.*)"""\s*\Z', re.DOTALL)
# All of C0 but tab and line feed, all of C1, and what turns the direction of text around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen:
    """Where text is printed. Within `with`, a terminal's empty line shows for how long nothing has come, and no trace of that
    stays: a timer of the system has it drawn. Behind `with` a line begins."""

    def __init__(self):
        self._line = ""  # the text on the cursor's line; None where the sign of life stands there

    def __enter__(self):
        self.end_line()  # which sets the clock, too
        signal.signal(signal.SIGALRM, self._draw)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.end_line()

    def say(self, text, nl=True, err=False):
        """Print this, or, with `err`, what is said of it: that has a line of its own, unless it begins with a blank."""
        self.awaits, self._since = "waiting", time.monotonic()  # so that no sign is drawn into what follows
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

    def end_line(self):
        """What comes next begins a line."""
        self.say("", nl=bool(self._line))

    def _draw(self, *_):
        seconds = int(time.monotonic() - self._since)
        if seconds and not self._line and sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sign = f"[{self.awaits}, {seconds} s]"[: columns - 1]  # only one row can be erased
            os.write(sys.stderr.fileno(), f"\r{sign}\033[K".encode())
            self._line = None


def open_history():
    """Python's readline, if it has one, by which `input` edits and calls back lines, also those of another day."""
    with contextlib.suppress(ImportError):
        import readline  # here: it changes what `input` does

        readline.parse_and_bind("set enable-bracketed-paste on")  # which Python switches off
        readline.set_history_length(1000)  # lines
        with contextlib.suppress(OSError):
            readline.read_history_file(_HISTORY)
        return readline


def read_typed(model, readline):
    """A message for this model, typed or pasted; /quit at the end of all; None for a Ctrl-C where there was nothing to drop."""
    name, text = " ".join(CONTROLS.sub("", model).split()).rpartition("/")[2], ""
    try:
        text = input(f"{name if len(name) <= 20 else name[:19] + '…'}> ")
        while (text.startswith('"""') and not QUOTED.match(text)) or select.select([sys.stdin], [], [], _PASTE_PAUSE)[0]:
            text += "\n" + input("... ")
    except EOFError:
        click.echo("\r\033[K", nl=False)  # GNU readline ends the line, others leave the prompt there
        return "/quit"
    except KeyboardInterrupt:
        click.echo()
        return "" if text or (readline and readline.get_line_buffer()) else None
    with contextlib.suppress(OSError, AttributeError):
        readline.write_history_file(_HISTORY)
    return text.rstrip()
