"""Input in a terminal: lines with editing, history and completion."""

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
from terminal.screen import size

# Readline creates it with mode 0600.
HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")
LONGEST_NAME = 20  # columns of the name of a chat or a model in the prompt
# Parts of emojis. Readline counts the width of each, but most terminals that of the whole emoji.
EMOJI_PARTS = re.compile("\u200d[\u2190-\u2bff\U0001f000-\U0001ffff]|[\ufe0f\U0001f3fb-\U0001f3ff]")
PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
# Lines between triple quotes are one message, or one system prompt.
QUOTING = re.compile(r'(?:/(?:set\s+)?system\s+)?"""')
QUOTED = re.compile(QUOTING.pattern + r'(.*)"""\s*\Z', re.DOTALL)


def unquoted(text: str) -> str:
    """The text between triple quotes, if there are any."""
    quoted = QUOTED.match(text)
    return quoted[1] if quoted else text


def open_history(complete: Callable[[str], list[str]]) -> ModuleType | None:
    """Python's readline, if it has one: with it, `input` has editing and a history, also of other
    days. Tab offers the words of `complete` for the last word of a line."""
    try:
        import readline  # only here, since the import alone changes `input`
    except ImportError:
        return None
    readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off
    readline.set_history_length(1000)  # lines
    with contextlib.suppress(OSError):  # there is none yet
        readline.read_history_file(HISTORY)

    def completion(word: str, number: int) -> str | None:
        """Readline calls this with 0, 1, … until it returns None."""
        line = readline.get_line_buffer()[: readline.get_endidx()]
        # In other lines, such as pasted ones, Tab is a tab.
        words = complete(line) if line.startswith("/") else [word + "\t"]
        return words[number] if number < len(words) else None

    readline.set_completer_delims(" ")
    readline.set_completer(completion)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    return readline


def _is_quoting(text: str) -> bool:
    """Whether triple quotes are open."""
    return QUOTING.match(text) is not None and not QUOTED.match(text)


def _is_pasting() -> bool:
    """Whether more input follows faster than anybody types."""
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
    """The chat's title and its model; only the title if both fill more than half of a row."""
    names = [_shortened(name) for name in (title, model.rpartition("/")[2]) if name]
    both = " · ".join(names) + "> "
    has_room = width_of(both) <= (size()[0] or 80) // 2
    return both if has_room else f"{names[0]}> "


def read_typed(title: str, model: str, readline: ModuleType | None) -> str | None:
    """The text that the user types or pastes for this chat and model: "/quit" after Ctrl-D; after
    Ctrl-C, "" if that dropped a text, else None."""
    text = ""
    try:
        text = input(prompt_of(title, model))
        while _is_quoting(text) or _is_pasting():
            text += "\n" + input("... ")
    except EOFError:
        # GNU readline ends the line, other libraries leave the prompt there.
        click.echo("\r\033[K", nl=False)
        return "/quit"
    except KeyboardInterrupt:
        click.echo()
        return "" if text or (readline and readline.get_line_buffer()) else None
    with contextlib.suppress(OSError, AttributeError):
        readline.write_history_file(HISTORY)
    return text.rstrip()
