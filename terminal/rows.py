"""The rows of a terminal: the width of a text in columns, and wrapping between words."""

import functools
import unicodedata
from collections.abc import Callable

TAB = 8  # columns from one tab stop to the next
NO_SIZE = (0, 0)  # columns and lines if there is no terminal, or none that tells: no wrapping


def width_of(text: str) -> int:
    """How many columns a text takes. Terminals show an emoji with several code points in different
    ways; this counts each code point by itself."""
    return len(text) if text.isascii() else sum(map(_width_of_character, text))


@functools.cache
def _width_of_character(character: str) -> int:
    # U+FE0F makes an emoji of two columns of the symbol before it; U+00AD is the soft hyphen.
    if character in "\ufe0f\xad":
        return 1
    # The later letters of a Korean syllable (U+1160 to U+11FF) are drawn into the first.
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Rows:
    """Computes what to write so that rows break between words, as in `ollama run`: a word is
    written as it comes, and if it reaches the edge, it is erased and written on the next row.
    Nothing else moves, nor does that word after a resize of the terminal.

    `size` returns the current columns and lines of the terminal."""

    def __init__(self, size: Callable[[], tuple[int, int]]) -> None:
        self._size = size
        self._columns, self._lines = NO_SIZE
        self._column = 0  # of the cursor; in a line that is not wrapped, from the line's start
        self._word = ""  # the word that ends at the cursor
        self._word_column = 0  # its first column
        self._is_full = False  # spaces did not fit: the next word begins a row
        self._was_resized = False  # since the start of the line

    @property
    def is_line_empty(self) -> bool:
        return not self._column

    def add(self, text: str, wraps: bool = True) -> str:
        """What to write for this text. Without `wraps`, only the terminal breaks lines, and copied
        text stays one line."""
        self._measure()
        if wraps and self._columns:
            self._column -= max(0, self._column - 1) // self._columns * self._columns
        written = []
        for character in text:
            if character == "\n":
                self._column, self._word, self._word_column = 0, "", 0
                self._is_full = self._was_resized = False
                written.append(character)
            elif wraps and self._columns:
                written.append(self._wrap(character))
            else:
                self._column += self._width(character)
                written.append(character)
        return "".join(written)

    def finish(self, rest: str, line: str, painted: str) -> str:
        """What to write for the `rest` of this line and a newline. If its place on the screen is
        certain, the line is replaced by `painted`, the same in colours."""
        if rest == line and not self._column:
            return painted + self.add("\n")
        written, width = self.add(rest, wraps=False), self._column
        rows_above = max(0, width - 1) // self._columns if self._columns else 0
        is_certain = line.isascii() and line.isprintable()  # how many rows the line takes
        if (
            painted != line
            and width == width_of(line.expandtabs(TAB))  # nothing else is on this line
            and not self._was_resized
            and (is_certain or not rows_above)
            and rows_above < self._lines
        ):
            up = f"\033[{rows_above}A" if rows_above else ""
            written += f"\r{up}\033[J{painted}"
        return written + self.add("\n")

    def _wrap(self, character: str) -> str:
        width = self._width(character)
        # The last column stays empty: after a character there, terminals delay the wrap, and the
        # cursor moves back from another column.
        fits = self._column + width < self._columns and not self._is_full
        if character in " \t":
            self._is_full = not fits
            self._column += width if fits else 0
            self._begin_word()
            return character if fits else ""
        is_wide = width == 2  # Chinese and Japanese have no spaces, and an emoji is a word
        if is_wide:
            self._begin_word()
        moved = ""
        if not fits and (self._word_column or self._is_full):
            back = width_of(self._word)
            moved = (f"\033[{back}D\033[K" if back else "") + f"\n{self._word}"
            self._column, self._word_column, self._is_full = back, 0, False
        elif not fits:  # the word is longer than a row: the terminal breaks it
            self._word = ""
            if self._column + width > self._columns:
                self._column = 0
        self._column += width
        self._word += character
        if is_wide:
            self._begin_word()
        return moved + character

    def _begin_word(self) -> None:
        self._word, self._word_column = "", self._column

    def _width(self, character: str) -> int:
        return TAB - self._column % TAB if character == "\t" else _width_of_character(character)

    def _measure(self) -> None:
        columns, self._lines = self._size()
        if columns != self._columns:
            self._columns, self._was_resized = columns, self._column > 0
            # Terminals wrap their rows again, so the word may be anywhere now.
            self._word, self._word_column = "", 0
