"""Markdown for a terminal, while it comes: the text stays as it is, and has colours.

Markdown ─ lines: headings, lists, quotations, tables, blocks of code
spans ─ what is marked within a line
colours ─ code
"""

import re
from typing import NamedTuple

from terminal.colours import BOLD, CYAN, DIM, Code
from terminal.rows import Part, width_of
from terminal.spans import read_spans

# What a line may begin with: blanks, and the marks of quotations, lists and tasks,
OPENING = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?[ \t>]*)*")
# and what may become one of these, or what is below.
HALF_OPENING = re.compile(r"[-+*_#=~`|: \t]*|\d{1,9}[.)]?|\[[ xX]?\]?|(?:`{3}|~{3}).*")
LONGEST_OPENING = 300  # characters
HEADING = re.compile(r"#{1,6}[ \t]+")
FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([^`]*)")
RULE = re.compile(
    r"[ \t>]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|={3,}[ \t]*|\|[-:| \t]+)"
)


class Line(NamedTuple):
    """How a line is shown; see `Part`."""

    style: str = ""
    hang: int | None = 0


FENCE_LINE = Line(DIM, None)
CODE_LINE = Line("", None)


class Markdown:
    """The parts of a text in Markdown, which are the text, whatever its pieces were."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured
        self._line: Line | None = None  # the one that comes, once it is known what it is,
        self._before = ""  # its last character that was given,
        self._held = ""  # and what of it is held back
        self._code: Code | None = None  # the block that comes,
        self._fence = ""  # and what it has begun with

    def feed(self, text: str) -> list[Part]:
        """What is known now, and was not given yet."""
        *lines, last = (self._held + text).split("\n")
        parts = []
        for line in lines:
            parts += self._read(line, is_whole=True)
            parts += self._end_line()
        return parts + self._read(last) + self._take_code()

    def hurry(self) -> list[Part]:
        """What is held back, but for the first marks of a line. The rest of the line will not tell
        what it was."""
        is_whole = self._line is not None
        return self._read(self._held, is_whole) + self._take_code(is_whole)

    def flush(self) -> list[Part]:
        """All that is held back."""
        return self._read(self._held, is_whole=True) + self._take_code(is_last=True)

    @property
    def _is_in_code(self) -> bool:
        return self._code is not None and self._line is not FENCE_LINE

    def _read(self, text: str, is_whole: bool = False) -> list[Part]:
        """Give what is known of this: the rest of a line, or what has come of it."""
        self._held, opening = "", []
        if self._line is None:
            if not text or (not is_whole and self._may_be_opening(text)):
                self._held = text
                return []
            opening, text = self._open_code_line(text) if self._code else self._open_line(text)
        if self._is_in_code:
            self._code.add(text)
            return opening
        return opening + self._read_spans(text, is_whole)

    def _read_spans(self, text: str, is_whole: bool) -> list[Part]:
        style, hang = self._line or Line()
        if not self._is_coloured:
            return [Part(text, "", hang)]
        begin, text = len(self._before), self._before + text
        pieces, end = read_spans(text, begin, style, is_whole)
        self._before, self._held = text[:end][-1:], text[end:]
        return [Part(piece, style, hang) for piece, style in pieces if piece]

    def _may_be_opening(self, text: str) -> bool:
        """Whether it is not known yet what line this is."""
        if self._code:
            return re.fullmatch(rf"[ \t>]*{self._fence[0]}*[ \t]*", text) is not None
        rest = text[OPENING.match(text).end() :]
        return len(text) <= LONGEST_OPENING and HALF_OPENING.fullmatch(rest) is not None

    def _open_line(self, text: str) -> tuple[list[Part], str]:
        """Tell what line this is. Returns the marks at its beginning, and the rest."""
        opening = OPENING.match(text)[0]
        rest = text[len(opening) :]
        if fence := FENCE.fullmatch(rest):
            self._fence = fence[1]
            language = re.match(r"[{.]*([\w+#.-]*)", fence[2])[1]
            self._code = Code(language if self._is_coloured else "")
            return self._open_fence(text)
        hang = None if rest.startswith("|") else width_of(opening.expandtabs())
        if RULE.fullmatch(text):
            self._line = Line(DIM, hang)
            return [Part(text, DIM, hang)], ""
        heading = HEADING.match(rest)
        mark = heading[0] if heading else ""
        self._line = Line(BOLD if heading else "", hang)
        parts = Part(opening, CYAN, hang), Part(mark, DIM, hang)
        return [part for part in parts if part.text], rest[len(mark) :]

    def _open_code_line(self, text: str) -> tuple[list[Part], str]:
        """The same within a block of code, which this line may end."""
        if not re.fullmatch(rf"[ \t>]*{self._fence}{self._fence[0]}*[ \t]*", text):
            self._line = CODE_LINE
            return [], text
        code = self._take_code(is_last=True)
        self._code = None
        fence, rest = self._open_fence(text)
        return code + fence, rest

    def _open_fence(self, text: str) -> tuple[list[Part], str]:
        self._line = FENCE_LINE
        return [Part(text, *FENCE_LINE)], ""

    def _end_line(self) -> list[Part]:
        line, is_in_code = self._line or Line(), self._is_in_code
        self._line, self._before = None, ""
        if is_in_code:
            self._code.add("\n")
            return []
        return [Part("\n", "", line.hang)]

    def _take_code(self, is_last: bool = False) -> list[Part]:
        pieces = self._code.take(is_last) if self._code else []
        return [Part(text, style, None) for text, style in pieces]
