"""JSON values out of pieces of bytes, one at a time: the objects of NDJSON, or the elements of one
array. No more bytes are held than those of one value."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

BOM = b"\xef\xbb\xbf"
QUOTE, OPENING, OBJECT, COMMA, CLOSING = b'"[{,]'
# What stands between brackets, with the strings that end in it; and what follows inside a string.
PLAIN = re.compile(
    rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+',
    re.DOTALL,
)
REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
OPENED, CLOSED = re.compile(rb"[{\[]++"), re.compile(rb"[}\]]++")
WORD = re.compile(rb'[^ \t\r\n,"{}\[\]]*+')  # a number, true, false, null
BLANK = re.compile(rb"[ \t\r\n]*+")


STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Ten thousand turns have fewer than half of either: strings, and bytes of what is none.
MOST_STRINGS, MOST_OTHERS = 500_000, 2**20
TOO_MANY = "It has more values than ten thousand turns have."


class BadFile(Exception):
    """A file that cannot be read on. The text is a sentence that says where, and why."""


class Value(NamedTuple):
    """A value, and which conversation of the file it is, from 1 on."""

    number: int
    value: Any


class Fault(NamedTuple):
    """A value that is passed over, and why: a sentence."""

    number: int
    text: str


class Source:
    """Pieces of bytes, which are read once. `position` is how many bytes have been passed."""

    def __init__(self, name: str, pieces: Iterable[bytes]) -> None:
        self.name, self._pieces = name, iter(pieces)
        self.piece, self.at, self._passed = b"", 0, 0

    @property
    def position(self) -> int:
        return self._passed + self.at

    def read_on(self) -> bool:
        """Take the next piece; returns whether there is one."""
        self._passed += len(self.piece)
        self.piece, self.at = next(self._pieces, b""), 0
        return bool(self.piece)

    def skip_mark(self) -> None:
        """Pass the byte order mark with which the file may begin."""
        begin = b""
        while len(begin) < len(BOM) and self.read_on():
            begin += self.piece
        self.piece, self._passed = begin, 0
        self.at = len(BOM) if begin.startswith(BOM) else 0

    def next_byte(self) -> int | None:
        """The next byte that is not blank, without passing it; None at the end."""
        while True:
            self.at = BLANK.match(self.piece, self.at).end()
            if self.at < len(self.piece):
                return self.piece[self.at]
            if not self.read_on():
                return None


class Scanner:
    """Finds where a value ends. It knows strings, and how deep brackets are; json knows the
    rest."""

    def __init__(self, first: int) -> None:
        """`first` is the value's first byte, which has been passed."""
        self._depth = int(first in (OPENING, OBJECT))
        self._in_string = first == QUOTE
        self._is_escaped = False  # the next piece's first byte

    def find_end(self, piece: bytes, at: int) -> int | None:
        """The index behind the value, or None where it goes on behind this piece."""
        if self._in_string:
            at = self._leave_string(piece, at)
        if not self._depth and not self._in_string:
            at = WORD.match(piece, at).end()
            return at if at < len(piece) else None
        while at < len(piece):
            at = PLAIN.match(piece, at).end()
            if piece[at : at + 1] == b'"':  # this string does not end here
                at = self._leave_string(piece, at + 1)
            elif opened := OPENED.match(piece, at):
                self._depth += len(opened[0])
                at = opened.end()
            elif closed := CLOSED.match(piece, at):
                if len(closed[0]) >= self._depth:
                    return at + self._depth
                self._depth -= len(closed[0])
                at = closed.end()
        return None

    def _leave_string(self, piece: bytes, at: int) -> int:
        """The index behind the string, or behind the piece where it goes on: `_in_string` tells."""
        at += self._is_escaped
        # re takes ten times as long as `find`, which counts in a text of gigabytes.
        is_all = piece.find(b'"', at) < 0 and piece.find(b"\\", at) < 0
        at = len(piece) if is_all else REST_OF_STRING.match(piece, at).end()
        self._in_string = piece[at : at + 1] != b'"'
        self._is_escaped = self._in_string and at < len(piece)  # by the piece's last byte
        return min(at + 1, len(piece))


class Reader:
    """The values in these pieces of a file, one at a time, the first of which has this number. One
    of more than `limit` bytes is not held. Iterating raises BadFile where no further one can be
    found."""

    def __init__(self, name: str, pieces: Iterable[bytes], limit: int, number: int = 1) -> None:
        self.number, self._limit = number, limit
        self._source = Source(name, pieces)

    def __iter__(self) -> Iterator[Value | Fault]:
        source = self._source
        source.skip_mark()
        first = source.next_byte()
        if first is None:
            raise BadFile(f"{source.name} is empty.")
        if first not in (OPENING, OBJECT):
            where = f"at byte {source.position}"
            raise BadFile(f"{source.name} is no JSON in UTF-8: neither {{ nor [ stands {where}.")
        if first == OPENING:
            source.at += 1
        goes_on = self._goes_on_in_array if first == OPENING else self._goes_on_at_top
        is_first = True
        while goes_on(is_first):
            is_first = False
            read = self._read()
            yield read
            if not is_header(read):
                self.number += 1

    def _goes_on_at_top(self, is_first: bool) -> bool:
        """Whether there is a further value. Raises BadFile."""
        byte = self._source.next_byte()
        if byte not in (None, OBJECT):
            raise self._lost()
        return byte is not None

    def _goes_on_in_array(self, is_first: bool) -> bool:
        """The same in an array, of which what stands before the value, or the end, is passed."""
        source = self._source
        byte = source.next_byte()
        if byte == CLOSING:
            source.at += 1
            if source.next_byte() is not None:
                raise self._lost()
            return False
        if not is_first and byte == COMMA:
            source.at += 1
            byte = source.next_byte()
        elif not is_first and byte is not None:
            raise self._lost()
        if byte is None:
            text = f"{source.name} is not whole: it ends before conversation {self.number}."
            raise BadFile(text)
        return True

    def _lost(self) -> BadFile:
        place = f"byte {self._source.position}, before conversation {self.number}"
        return BadFile(f"{self._source.name} cannot be read on: {place}, is out of place.")

    def _read(self) -> Value | Fault:
        start, data, size = self._source.position, bytearray(), 0
        for part in self._parts():
            size += len(part)
            if size <= self._limit:
                data += part
            else:
                data.clear()
        if size > self._limit:
            text = f"It has {size} bytes, and {self._limit} are the most."
            return Fault(self.number, text)
        return self._load(data, start)

    def _parts(self) -> Iterator[bytes]:
        """The bytes of one value, which are passed. Raises BadFile where the file ends before."""
        source = self._source
        scanner = Scanner(source.piece[source.at])
        begin = source.at + 1  # where the scanner goes on in the piece
        while (end := scanner.find_end(source.piece, begin)) is None:
            yield source.piece[source.at :]
            begin = 0
            if not source.read_on():
                text = f"{source.name} ends in the middle of conversation {self.number}."
                raise BadFile(text)
        part = source.piece[source.at : end]
        source.at = end
        yield part

    def _load(self, data: bytes | bytearray, start: int) -> Value | Fault:
        """The value of these bytes, which begin at this byte of the file."""
        if has_too_many_values(data):
            return Fault(self.number, TOO_MANY)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            place = f"at byte {start + error.start} of {self._source.name}"
            return Fault(self.number, f"It is not UTF-8 {place}.")
        try:
            return Value(self.number, json.loads(text, parse_constant=refuse_constant))
        except RecursionError:
            return Fault(self.number, "It is nested too deeply.")
        except json.JSONDecodeError as error:
            at = start + len(text[: error.pos].encode())
            place = f"at byte {at} of {self._source.name}"
            return Fault(self.number, f"It is not JSON {place}: {error.msg}.")
        except NotJSON as error:
            return Fault(self.number, str(error))
        except ValueError:  # sys.set_int_max_str_digits says of how many
            return Fault(self.number, "It has a number of too many digits.")


def has_too_many_values(data: bytes | bytearray) -> bool:
    """Whether this JSON has more values than turns of a conversation have. json takes seconds for
    millions of them, in which no other thread runs, and a hundred times their bytes."""
    others, count = STRING.subn(b"", data, count=MOST_STRINGS)
    return count == MOST_STRINGS or len(others.translate(None, b" \t\r\n")) > MOST_OTHERS


class NotJSON(Exception):
    """What json would read all the same."""


def refuse_constant(name: str) -> None:
    """What json calls for NaN, Infinity and -Infinity. Raises NotJSON."""
    raise NotJSON(f"It is not JSON: it has {name} in it.")


def is_header(read: Value | Fault) -> bool:
    """Whether an export of Parley's begins so, with what is no conversation."""
    return isinstance(read, Value) and isinstance(read.value, dict) and "parley" in read.value
