"""Colours of a terminal: those of Markdown, and those of code, which Pygments tells.

They are parameters of SGR (ECMA-48): attributes, and four of the colours that the user of a
terminal chooses. In the usual palettes, the contrast of these four is at least 2 on black and on
white. That of yellow is 1.4 on white, that of blue 1.6 on black.
"""

import functools
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

RED, GREEN, MAGENTA, CYAN = "31", "32", "35", "36"
BOLD, DIM, ITALIC, UNDERLINED, STRUCK = "1", "2", "3", "4", "9"

# A kind of token in Pygments, and all that it has below it. What is not named is not coloured.
STYLES = {
    "Comment": DIM,
    "Keyword": MAGENTA,
    "Operator.Word": MAGENTA,
    "Name.Tag": MAGENTA,
    "Name.Builtin": CYAN,
    "Name.Attribute": CYAN,
    "Name.Decorator": CYAN,
    "Name.Variable": CYAN,
    "Name.Function": BOLD,
    "Name.Class": BOLD,
    "Literal": CYAN,
    "Literal.String": GREEN,
    "Generic.Heading": BOLD,
    "Generic.Subheading": CYAN,
    "Generic.Deleted": RED,
    "Generic.Inserted": GREEN,
    "Generic.Prompt": DIM,
}
# Pygments knows most comments only once they end.
ENDS = {"/*": "*/", "<!--": "-->"}
WINDOW = 4000  # characters that Pygments is given at a time, and of what stands before them
SHARE = 0.1  # of the time, which Pygments may take
LONGEST_WAIT = 200  # characters that make no sense yet
TOP = re.compile(r"\n(?=\S)")  # behind it, a line that stands in no other


def are_shown() -> bool:
    """Whether standard output is a terminal with colours, and its user wants them:
    https://no-color.org."""
    is_dumb = os.environ.get("TERM", "") in ("", "dumb")
    return sys.stdout.isatty() and not is_dumb and not os.environ.get("NO_COLOR")


def both(style: str, other: str) -> str:
    return f"{style};{other}" if style else other


@functools.cache
def lexer_of(language: str) -> Any:
    """Pygments' lexer for what a block of code names as its language; None where there is none."""
    from pygments import lexers  # it takes 0.1 s, and only code needs it

    # A name that is not among these would be looked for in all packages that are installed.
    names = {name for _, names, *_ in lexers.get_all_lexers(plugins=False) for name in names}
    return lexers.get_lexer_by_name(language) if language in names else None


@functools.cache
def style_of(kind: Any) -> str:
    """The style of a kind of token, or of the next kind above it that has one."""
    names = str(kind).split(".")[1:]  # without `Token`
    names = [".".join(names[:count]) for count in range(len(names), 0, -1)]
    return next((STYLES[name] for name in names if name in STYLES), "")


class Code:
    """A block of code, while it comes. Only its colours are Pygments' business: whatever it says,
    each character is given once, as it came."""

    def __init__(self, language: str) -> None:
        self._lexer = lexer_of(language.lower()) if language else None
        self._new = ""  # what Pygments has not seen yet,
        self._text = ""  # and the end of what it has seen,
        self._given = 0  # of which so many characters were given
        self._styles: list[str] = []  # of each character of that text
        self._odd = 0  # the first one that makes no sense yet
        self._next = 0.0  # when it may be asked again

    def add(self, text: str) -> None:
        self._new += text

    def take(self, is_last: bool = False) -> list[tuple[str, str]]:
        """What can be given, with its styles. A word at the end is held back until it is whole,
        and all of it while Pygments has taken its share; is the word the last, all is given."""
        began = time.monotonic()
        pieces: list[tuple[str, str]] = []
        if not is_last and (not self._new or began < self._next):
            return pieces
        while self._new or (is_last and self._given < len(self._text)):
            self._text, self._new = self._text + self._new[:WINDOW], self._new[WINDOW:]
            self._tell_styles()
            pieces += self._give(len(self._text) if is_last or self._new else self._sure())
            self._forget()
        now = time.monotonic()
        self._next = now + (now - began) / SHARE
        return pieces

    def _give(self, end: int) -> Iterator[tuple[str, str]]:
        """What was not given yet up to there, in pieces of one style."""
        for style, places in itertools.groupby(range(self._given, end), self._styles.__getitem__):
            begin = self._given
            self._given += sum(1 for _ in places)
            yield self._text[begin : self._given], style

    def _tell_styles(self) -> None:
        size = len(self._text)
        self._styles, self._odd = [""] * size, size
        if self._lexer is None:
            return
        code, line = self._text, self._text.rfind("\n")
        ends = [end for mark, end in ENDS.items() if code.rfind(mark) > code.rfind(end)]
        try:
            for place, kind, text in self._lexer.get_tokens_unprocessed(code + "".join(ends)):
                self._styles[place : place + len(text)] = [style_of(kind)] * len(text)
                if place > line and str(kind) == "Token.Error":
                    self._odd = min(self._odd, place)
        except Exception:  # there are 600 lexers; a bug of one is no reason to show no reply
            self._lexer = None
            self._styles = [""] * size

    def _sure(self) -> int:
        """Up to where the styles stay as they are. `de` may become `def`; a quote that is not
        closed may be no text yet."""
        end = len(self._text)
        if self._lexer is None or self._text.endswith("\n"):
            return end
        while end > self._given and (self._text[end - 1].isalnum() or self._text[end - 1] == "_"):
            end -= 1
        end = max(min(end, self._odd), self._given)
        return end if len(self._text) - end <= LONGEST_WAIT else len(self._text)

    def _forget(self) -> None:
        """Keep a window of the code. It begins where no text or comment goes on, if it can."""
        if self._given <= WINDOW:
            return
        middle = self._given - WINDOW // 2
        tops = (found.end() for found in TOP.finditer(self._text, middle, self._given))
        place = next((top for top in tops if self._styles[top] not in (DIM, GREEN)), middle)
        self._text, self._given = self._text[place:], self._given - place
