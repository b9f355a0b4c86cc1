"""The rows of a terminal. A line of text that is longer than a row goes on in the next one: it is
broken between words, while they come."""

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

TAB = 8  # columns from one stop to the next
# Behind these a line may be broken. A no-break space is none of them.
_BLANKS = " \t\u1680\u2000-\u2006\u2008-\u200b\u2028\u2029\u205f\u3000"
BLANK = re.compile(f"[{_BLANKS}]")
PIECES = re.compile(rf"\n|[{_BLANKS}]+|[^\n{_BLANKS}]+")
# Chinese and Japanese have no blanks: a line may be broken at each of their characters, but not
# before one of these (small letters, and what ends or goes on; Markdown's marks may do so)
NEVER_FIRST = frozenset(
    ",.;:!?)]}%'\"*_`~…—、。，．：；！？％）］｝」』】》〉〕’”ー々ゝヽ"
    "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ"
    "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"  # colours of an emoji's skin
)
# nor behind one of these.
NEVER_LAST = frozenset("([{'\"*_`~（［｛「『【《〈〔‘“\u200d")
EMOJI = "\ufe0f"  # what stands before it is shown as an emoji, which is wide
RESET = "\033[0m"


class Part(NamedTuple):
    """A piece of what is shown. `style` has the parameters of SGR (ECMA-48), such as `1;36`, or
    nothing. `hang` is by how many columns the further rows of its line are indented. It is None
    where only the terminal may break the line: what is copied from there is one line still."""

    text: str
    style: str = ""
    hang: int | None = 0


@functools.cache
def _width_of_character(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or "\u1160" <= character <= "\u11ff":
        return int(character == "\xad")  # most terminals show a soft hyphen
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def width_of(text: str, before: str = " ") -> int:
    """Columns of a text behind this character. Emoji that are joined to one count each, as they are
    shown by terminals that do not know the whole."""
    if text.isascii():
        return len(text)
    width = 0
    for previous, character in zip(before + text, text, strict=False):
        width += _width_of_character(character)
        width += character == EMOJI and _width_of_character(previous) == 1
    return width


def may_break(before: str, after: str) -> bool:
    """Whether a line may be broken between two characters that are no blanks."""
    if before in NEVER_LAST or after in NEVER_FIRST or _width_of_character(after) == 0:
        return False
    return _stands_alone(before) or _stands_alone(after)


def _stands_alone(character: str) -> bool:
    """As an ideograph or an emoji does. Korean words have blanks between them."""
    is_korean = "\u1100" <= character <= "\u115f" or "\uac00" <= character <= "\ud7a3"
    return _width_of_character(character) == 2 and not is_korean


class Rows:
    """Where the cursor is, and what has to be written there. A word is held back until it has come
    whole, as it may have to stand on the next row: nothing that was written is moved.

    `columns` tells how many a row has at the moment, 0 where nobody knows."""

    def __init__(self, columns: Callable[[], int], is_coloured: bool) -> None:
        self._ask_columns, self._is_coloured = columns, is_coloured
        self._columns = sys.maxsize
        self._column = 0  # of the cursor
        self._hang = 0
        self._word, self._width = "", 0  # what is held back
        self._last = " "  # the character that was added last
        self._is_in_word = False  # whether the cursor is in a word that is longer than a row,
        self._is_full = False  # or a blank did not fit, so that the next word begins a row
        self._style = ""  # of the last character that was added,
        self._shown = ""  # and of the last one that is not held back

    @property
    def is_empty(self) -> bool:
        """Whether the cursor's line has no text."""
        return not self._column and not self._word

    def add(self, part: Part) -> str:
        """What is to be written now."""
        self._measure()
        if part.hang is None:
            return self._place() + self._write(part.text, part.style)
        self._hang = part.hang if part.hang <= self._columns // 2 else 0
        return "".join(self._add_pieces(part.text, part.style))

    def flush(self) -> str:
        """What was held back."""
        return self._place() + self._paint("", "")

    def _add_pieces(self, text: str, style: str) -> Iterator[str]:
        for piece in PIECES.findall(text):
            if piece == "\n":
                yield self._place() + self._write(piece, "")
            elif BLANK.match(piece):
                yield self._place() + self._fitting(piece, style)
            elif piece.isascii() and self._last.isascii():
                yield self._add_word(piece, style)
            else:
                for character in piece:
                    if may_break(self._last, character):
                        yield self._place()
                        self._is_in_word = False
                    yield self._add_word(character, style)

    def _add_word(self, text: str, style: str) -> str:
        """Hold back a part of a word, unless it is longer than a row: then the terminal breaks it,
        and what is copied from there has it whole."""
        self._word += self._paint(text, style)
        self._width += width_of(text, self._last)
        self._last = text[-1]
        if self._is_in_word or self._width > self._columns - self._hang:
            placed = self._place()
            self._is_in_word = True
            return placed
        return ""

    def _place(self) -> str:
        """The word that is held back, on a new row where it does not fit on this one."""
        word, width, shown = self._word, self._width, self._shown
        self._word, self._width, self._shown = "", 0, self._style
        begin = ""
        has_room = self._column + width <= self._columns or self._is_in_word
        if word and (self._is_full or (not has_room and self._column > self._hang)):
            begin, self._column = "\n" + " " * self._hang, self._hang
            self._is_full = False
            if shown:  # else the indentation would be underlined, too
                begin = f"{RESET}{begin}\033[0;{shown}m"
        self._move(width)
        return begin + word

    def _fitting(self, blanks: str, style: str) -> str:
        """The blanks that fit on the row. The others need not be shown: the row ends with them."""
        self._is_in_word, self._last, count = False, " ", 0
        for blank in blanks:
            width = TAB - self._column % TAB if blank == "\t" else width_of(blank)
            if self._is_full or self._column + width > self._columns:
                self._is_full = True
                break
            self._column += width
            count += 1
        shown = self._paint(blanks[:count], style)
        self._shown = self._style
        return shown

    def _write(self, text: str, style: str) -> str:
        """This as it is."""
        self._is_in_word, self._last = False, " "
        _, newline, last = text.rpartition("\n")
        if newline:
            self._column, self._is_full = 0, False
        self._move(width_of(last.expandtabs(TAB)))
        shown = self._paint(text, style)
        self._shown = self._style
        return shown

    def _paint(self, text: str, style: str) -> str:
        if style == self._style or not self._is_coloured:
            return text
        self._style = style
        return f"\033[0;{style}m{text}" if style else RESET + text

    def _move(self, width: int) -> None:
        """Behind text, which the terminal has broken where a row was full."""
        self._column += width
        if self._column > self._columns:
            self._column = self._column % self._columns or self._columns

    def _measure(self) -> None:
        columns = self._ask_columns() or sys.maxsize
        if columns != self._columns:  # a terminal that was made narrower has broken its rows
            self._columns = columns
            self._move(0)
