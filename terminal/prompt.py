"""What is typed in a terminal: lines that can be edited, called back and completed."""

import contextlib
import os
import re
import select
import sys
from collections.abc import Callable
from types import ModuleType

import click
import regex

from logs import CONTROLS
from terminal.rows import width_of
from terminal.screen import columns

# Readline makes it with mode 0600.
HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")
LONGEST_NAME = 20  # columns of a chat's or a model's, in the prompt
# Readline counts these code points of an emoji one by one, terminals mostly the whole.
EMOJI_PARTS = re.compile("\u200d[\u2190-\u2bff\U0001f000-\U0001ffff]|[\ufe0f\U0001f3fb-\U0001f3ff]")
PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
# Several lines between quotes are one message, or one system prompt.
QUOTING = re.compile(r'(?:/(?:set\s+)?system\s+)?"""')
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


def _shortened(name: str) -> str:
    name = " ".join(EMOJI_PARTS.sub("", CONTROLS.sub("", name)).split())
    if width_of(name) <= LONGEST_NAME:
        return name
    kept = ""
    for character in regex.findall(r"\X", name):  # a flag has two code points
        if width_of(kept + character) >= LONGEST_NAME:
            break
        kept += character
    return kept.rstrip() + "…"


def prompt_of(title: str, model: str) -> str:
    """The chat's title and its model; the title alone if both fill more than half of a row."""
    names = [_shortened(name) for name in (title, model.rpartition("/")[2]) if name]
    both = " · ".join(names) + "> "
    has_room = width_of(both) <= (columns() or 80) // 2
    return both if has_room else f"{names[0]}> "


def read_typed(title: str, model: str, readline: ModuleType | None) -> str | None:
    """A message in this chat for this model, typed or pasted; /quit at the end of all; None for a
    Ctrl-C when there was nothing to drop."""
    text = ""
    try:
        text = input(prompt_of(title, model))
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
