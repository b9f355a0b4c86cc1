"""Read the objects of NDJSON, or of one JSON array, one at a time, from a file in pieces.

`raw_decode` of `json` finds the end of an object. It cannot tell whether a text is wrong or only
incomplete, so we double the text until it can be decoded, or is too large."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

PIECE = 2**18  # bytes that are read at once
BLANKS = re.compile(r"[ \t\r\n]*+")
BETWEEN = re.compile(r"[ \t\r\n,]*+")  # the elements of an array
FILE_LINE = re.compile(r'\{[ \t\r\n]*+"file"')  # begins a line with a file of Parley's export
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of such bytes


class BadFile(Exception):
    """A file that cannot be read to its end. The message says how far it was read, and why."""


class Value(NamedTuple):
    """An object, and the number of the conversation in the file, starting at 1."""

    number: int
    value: dict[str, Any]


class Fault(NamedTuple):
    """An object that was skipped, and a sentence that says why. If it was only too large, `value`
    has it: its title is the name by which a person knows it."""

    number: int
    text: str
    value: dict[str, Any] | None = None


class FileLine(NamedTuple):
    """The line of a file in an export of Parley, which is not a conversation."""

    value: dict[str, Any] | None  # None if it cannot be read


class _NotJSON(ValueError):
    """A text that Python would read, though it is not JSON."""


def _refuse_constant(name: str) -> NoReturn:
    """`json` reads NaN, Infinity and -Infinity, which are not JSON (RFC 8259, section 6)."""
    raise _NotJSON(f"is not JSON: it has {name} in it")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


class Reader:
    """Iterates over the objects in a file of this name. `read(size)` returns up to `size` bytes of
    it, and none at its end. A conversation of more than `limit` bytes is skipped, and a line of
    more than `file_limit` with a file; at most four times as many characters are in memory."""

    def __init__(
        self,
        name: str,
        read: Callable[[int], bytes],
        limit: int,
        number: int = 1,
        file_limit: int = 0,
    ) -> None:
        self.number = number  # of the next object
        self._name, self._read, self._limit = name, read, limit
        self._file_limit = max(limit, file_limit)
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._at = "", 0  # the text in memory, and where its unread rest begins
        self._is_over = self._is_array = False

    def __iter__(self) -> Iterator[Value | Fault | FileLine]:
        """Raises BadFile."""
        sign = self._next_sign(BLANKS)
        if not sign:
            raise BadFile(f"{self._name} is empty.")
        if sign not in "[{":
            raise BadFile(f"{self._name} is not JSON in UTF-8: it begins with neither {{ nor [.")
        self._is_array = sign == "["
        self._at += self._is_array
        between = BETWEEN if self._is_array else BLANKS
        while (sign := self._next_sign(between)) == "{":
            read = self._read_object()
            yield read
            if not isinstance(read, FileLine) and not is_header(read):
                self.number += 1
        if self._is_array and not sign:
            raise BadFile(f"{self._name} is not whole: it ends before conversation {self.number}.")
        if self._is_array and sign == "]":
            self._at += 1
            sign = self._next_sign(BLANKS)
        if sign:
            where = f"{sign!r} before conversation {self.number}"
            raise BadFile(f"{self._name} cannot be read further: {where} is out of place.")

    def _read_on(self, size: int) -> bool:
        """Read about `size` bytes more. Returns whether there were any."""
        if self._is_over:
            return False
        pieces = [self._text[self._at :]]
        while size > 0 and not self._is_over:
            piece = self._read(PIECE)
            pieces.append(self._utf8.decode(piece, final=not piece))
            self._is_over = not piece
            size -= PIECE  # even if a pipe gave fewer bytes: it may not have more yet
        self._text, self._at = "".join(pieces), 0
        return True

    def _next_sign(self, passed: re.Pattern[str]) -> str:
        """The next character that this pattern does not pass over; "" at the file's end."""
        while True:
            self._at = passed.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on(PIECE):
                return ""

    def _read_object(self) -> Value | Fault | FileLine:
        while True:
            try:
                value, end = _decode(self._text, self._at)
                break
            except json.JSONDecodeError as error:
                size, limit = len(self._text) - self._at, self._limit_here()
                if size <= 2 * limit and self._read_on(size):
                    continue
                fault = "is not whole" if self._is_over else f"has more than {limit} bytes"
                # Python's messages are like "Unterminated string starting at".
                problem = error.msg.removesuffix(" at").removesuffix(" starting").rstrip(": ")
                return self._skip(f"{fault}, or is not JSON: {problem}")
            except RecursionError:
                return self._skip("is nested too deeply")
            except ValueError as error:  # `int` limits the digits that it converts, too
                is_constant = isinstance(error, _NotJSON)
                return self._skip(str(error) if is_constant else "has a number of too many digits")
        is_file, limit = self._is_at_file(), self._limit_here()
        text, self._at = self._text[self._at : end], end
        if NOT_UTF8.search(text):
            return FileLine(None) if is_file else Fault(self.number, "It is not UTF-8.")
        size = len(text.encode())
        if size > limit:
            fault = f"It has {size} bytes, more than the limit of {limit}."
            return FileLine(None) if is_file else Fault(self.number, fault, value)
        return FileLine(value) if is_file else Value(self.number, value)

    def _is_at_file(self) -> bool:
        """Whether the object that begins here is the line of a file."""
        return bool(FILE_LINE.match(self._text, self._at))

    def _limit_here(self) -> int:
        return self._file_limit if self._is_at_file() else self._limit

    def _skip(self, problem: str) -> Fault | FileLine:
        """Go on after the line in which this object begins. In an array, we cannot tell where the
        next one begins: raises BadFile."""
        if self._is_array:
            where = f"conversation {self.number} {problem}"
            raise BadFile(f"{self._name} cannot be read further: {where}.")
        skipped = FileLine(None) if self._is_at_file() else Fault(self.number, f"It {problem}.")
        while (end := self._text.find("\n", self._at)) < 0:
            self._at = len(self._text)
            if not self._read_on(PIECE):
                return skipped
        self._at = end + 1
        return skipped


def is_header(read: Value | Fault | FileLine) -> bool:
    """Whether this is the first line of an export of Parley, which is not a conversation."""
    return isinstance(read, Value) and "parley" in read.value
