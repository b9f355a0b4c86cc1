"""Colours of a terminal: whether it has any, and colours for the code in a reply.

They are parameters of SGR (ECMA-48). In the usual palettes, the four colours used here have a
contrast of at least 2 on black and on white. Yellow has 1.4 on white, and blue 1.6 on black.
"""

import functools
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

DIM, CYAN = "2", "36"
RESET = "\033[0m"
FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*")
ESCAPES = re.compile(r"\033\[[\d;]*m")
# Pygments does not see a comment at `/*` before there is an end to it.
ENDS = {"/*": "*/", "<!--": "-->"}
# Characters; a longer block is not coloured further. Pygments reads the block from its start for
# each line: 218 lines of Python with 10,000 characters take 1.5 seconds in all.
LONGEST_BLOCK = 10_000


def has_escapes() -> bool:
    """Whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def are_shown() -> bool:
    """Whether standard output is a terminal with colours, and its user wants them:
    https://no-color.org."""
    return has_escapes() and not os.environ.get("NO_COLOR")


@functools.cache
def lexer_of(language: str) -> Any:
    """Pygments' lexer for the language that a block names, or None."""
    from pygments import lexers  # takes 0.1 s, and only code needs it

    # For an unknown name, Pygments would search all installed packages for plugins.
    names = {name for _, names, *_ in lexers.get_all_lexers(plugins=False) for name in names}
    if language not in names:
        return None
    return lexers.get_lexer_by_name(language, stripnl=False, ensurenl=False)


@functools.cache
def formatter() -> Any:
    """Pygments' formatter for terminals, with our colours."""
    from pygments import token
    from pygments.formatters import TerminalFormatter

    scheme = {
        token.Token: "",
        token.Comment: "faint",
        token.Keyword: "magenta",
        token.Operator.Word: "magenta",
        token.Name.Tag: "magenta",
        token.Name.Builtin: "cyan",
        token.Name.Attribute: "cyan",
        token.Name.Decorator: "cyan",
        token.Name.Variable: "cyan",
        token.Literal: "cyan",
        token.String: "green",
        token.Generic.Deleted: "red",
        token.Generic.Inserted: "green",
    }
    return TerminalFormatter(colorscheme={kind: (name, name) for kind, name in scheme.items()})


class Code:
    """Colours the blocks of code in one reply in Markdown, as its lines come."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured
        self._fence = ""  # that opened the current block, if there is one
        self._lexer: Any = None
        self._text = ""  # of the block so far

    @property
    def is_open(self) -> bool:
        """Whether the next line is code or a closing fence."""
        return bool(self._fence)

    def paint(self, lines: Iterable[str]) -> list[str | None]:
        """For each of these complete lines, the coloured text of code, or None for other text."""
        shown, block = list[str | None](), list[str]()
        for line in lines:
            mark = FENCE.fullmatch(line)
            if not self._fence:
                if mark:
                    self._fence, self._text = mark[1], ""
                    self._lexer = lexer_of(mark[2].lower()) if self._is_coloured else None
                shown.append(None)
            elif mark and mark[1].startswith(self._fence) and not mark[2]:
                shown += [*self._coloured(block), None]
                self._fence, block = "", []
            else:
                block.append(line)
        return shown + self._coloured(block)

    def _coloured(self, lines: list[str]) -> list[str]:
        """The next lines of the block, in colours if possible."""
        if not lines or self._lexer is None:
            return lines
        first = self._text.count("\n")
        self._text += "".join(f"{line}\n" for line in lines)
        if len(self._text) > LONGEST_BLOCK:
            self._lexer = None
            return lines
        text = self._text
        text += "".join(end for mark, end in ENDS.items() if text.rfind(mark) > text.rfind(end))
        try:
            from pygments import highlight

            painted = highlight(text, self._lexer, formatter()).split("\n")
        except Exception:  # a bug in one of 600 lexers must not end the reply
            return lines
        painted = painted[first : first + len(lines)]
        is_same = ESCAPES.sub("", "\n".join(painted)) == "\n".join(lines)
        return painted if is_same else lines
