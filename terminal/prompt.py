"""What is typed in a terminal: lines that can be edited, called back and completed."""

import contextlib
import os
import re
import select
import sys
from collections.abc import Callable
from types import ModuleType

import click

from logs import CONTROLS

# Readline makes it with mode 0600.
HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")
LONGEST_NAME = 20  # characters of a model's, in the prompt
PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
# Several lines between quotes are one message, or one system prompt.
QUOTING = re.compile(r'(?:/system\s+)?"""')
QUOTED = re.compile(QUOTING.pattern + r'(.*)"""\s*\Z', re.DOTALL)


def unquoted(text: str) -> str:
    """What stands between quotes, if there are any."""
    quoted = QUOTED.match(text)
    return quoted[1] if quoted else text


def open_history(complete: Callable[[str], list[str]]) -> ModuleType | None:
    """Python's readline, if it has one, by which `input` edits and calls back lines, also those of
    another day. Tab takes the words that `complete` gives for the last one of a line."""
    try:
        import readline  # here: it changes what `input` does
    except ImportError:
        return None
    readline.parse_and_bind("set enable-bracketed-paste on")  # which Python switches off
    readline.set_history_length(1000)  # lines
    with contextlib.suppress(OSError):  # there is none yet
        readline.read_history_file(HISTORY)

    def completion(word: str, number: int) -> str | None:
        """What readline asks for, from 0 on, until there is none."""
        line = readline.get_line_buffer()[: readline.get_endidx()]
        # Behind a pasted word a tab is a tab.
        words = complete(line) if line.startswith("/") else [word + "\t"]
        return words[number] if number < len(words) else None

    readline.set_completer_delims(" ")
    readline.set_completer(completion)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    return readline


def _is_quoting(text: str) -> bool:
    """Whether quotes were begun, and not ended."""
    return QUOTING.match(text) is not None and not QUOTED.match(text)


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
