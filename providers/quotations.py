"""What a provider quotes of a request where it says why that failed, told from its own words."""

import bisect
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

# Letters from which on what stands in a request, too, does so by no chance: a part between marks,
# and the beginning of a text without any.
PART, WHOLE = 10, 24

# Texts are compared by their letters and digits in ASCII. White space, marks, and what servers may
# escape, are passed over, as they are and as `\n`, `\u4e16`, `\"` or `&quot;`, whole or cut.
_ESCAPE = rb"\\(?:u[0-9A-Fa-f]{0,4}|U[0-9A-Fa-f]{0,8}|x[0-9A-Fa-f]{0,2}|[abfnrtv])?"
_ESCAPED = rb"(?:" + _ESCAPE + rb")++|&#?[A-Za-z0-9]{1,8};"
_ESCAPES, _LETTER = re.compile(_ESCAPED), re.compile(f"{_ESCAPED.decode()}|([A-Za-z0-9])")
_LOWER = bytes(range(256)).lower()
_NO_LETTERS = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))
# By which a quotation begins and ends, or is cut: quotes, which an apostrophe is not, and dots.
_MARK = re.compile(r"""["`“”«»…]|(?<!\w)['‘’]|['‘’](?!\w)|\.\.+|&#?\w{1,8};""")
_COLON = re.compile(": |=")


def _letters(text: str) -> bytes:
    data = text.encode("ascii", "ignore")
    if b"\\" in data or b"&" in data:
        data = _ESCAPES.sub(b"", data)
    return data.translate(_LOWER, _NO_LETTERS)


def _strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, without the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _parts(text: str, start: int) -> list[tuple[int, int]]:
    """From where to where the parts between marks are that have letters."""
    marks = [mark.span() for mark in _MARK.finditer(text, start)]
    marks = [(start, start), *marks, (len(text), len(text))]
    places = [(begin, end) for (_, begin), (end, _) in itertools.pairwise(marks)]
    return [(begin, end) for begin, end in places if _letters(text[begin:end])]


class Sent:
    """The texts of a request, by its body."""

    def __init__(self, body: Any = None) -> None:
        self._body = body

    @functools.cached_property
    def _texts(self) -> list[bytes]:
        return [letters for text in _strings(self._body) if (letters := _letters(text))]

    def has_parameter(self, name: str) -> bool:
        return isinstance(self._body, dict) and name in self._body

    def has(self, text: str) -> bool:
        """Whether this stands in the request, however it is written."""
        letters = _letters(text)
        return any(letters in sent for sent in self._texts)

    def own(self, pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
        """The first match of a pattern in what a provider said that is its own, and not quoted from
        the request. Before `start` nothing is."""
        match = pattern.search(text)
        if match and not self._shows(text[start:]):
            while match and (place := self._quotation(text, start, match)):
                begin, end = place
                text = text[:begin] + "…" * (end - begin) + text[end:]
                match = pattern.search(text)
        return match

    def _shows(self, text: str) -> bool:
        """Whether somebody has shown all of this within a text, who talks of what providers say."""
        letters = _letters(text)
        return any(sent.find(letters) > 0 for sent in self._texts)

    def _quotation(self, text: str, start: int, match: re.Match[str]) -> tuple[int, int] | None:
        """From where to where the text quotes the request, if that has something of the match."""
        parts = _parts(text, start)
        pairs = [text[begin:end] for (begin, _), (_, end) in itertools.pairwise(parts)]
        for number, (begin, end) in enumerate(parts):
            if match.start() < end and begin < match.end():
                near = pairs[max(0, number - 1) : number + 1]
                # What follows a colon needs no mark before it.
                colons = [colon.end() for colon in _COLON.finditer(text, begin, match.end())]
                for at in (begin, *colons):
                    covers = at <= match.start() and match.end() <= end
                    if self._is_quoted(text[at:end], covers, near):
                        return at, end
        return self._beginning(text, start, match)

    def _is_quoted(self, part: str, covers: bool, near: list[str]) -> bool:
        """Whether the request has this part of a text, by no chance. A lone word may be the name of
        a parameter: it has to be all of a text, or to have its neighbour beside it there, too."""
        letters = _letters(part)
        if " " in part.strip():
            return bool(letters) and (covers or len(letters) >= PART) and self.has(part)
        return covers and (letters in self._texts or any(map(self.has, near)))

    def _beginning(self, text: str, start: int, match: re.Match[str]) -> tuple[int, int] | None:
        """Where the match is in a text of the request that has no mark before it, and stands there
        up to its end or to the next mark."""
        # Whole, though it is long: each line measures in the same letters.
        if match.start() < start:
            return None
        places = [found.start() for found in _LETTER.finditer(text, start) if found[1]]
        letters = "".join(text[place] for place in places).lower().encode()
        first, last = (bisect.bisect_left(places, place) for place in match.span())
        mark = _MARK.search(text, match.end())
        cut = bisect.bisect_left(places, mark.start()) if mark else len(places)
        for sent in self._texts:
            head = sent[:WHOLE], 0, first + WHOLE
            for at in {letters.find(*head), letters.rfind(*head)} if len(sent) >= WHOLE else ():
                end = min(at + len(sent), cut)
                if 0 <= at <= first and last <= end and sent.startswith(letters[at:end]):
                    return places[at], places[end - 1] + 1
        return None
