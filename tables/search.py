"""Search: how text and queries are normalized, and how long a search may take."""

import bisect
import contextlib
import functools
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence

from database import Unavailable, limit_time, mapped_errors, remaining
from limits import Overloaded

MAX_WORDS = 20
TIMEOUT = 5  # seconds
EXCERPT = 100  # characters

LARGE_TEXT = 2**16  # characters; longer texts are normalized one at a time
EXTRA_GROWTH = 2**14  # characters that normalizing may add to a text, besides doubling it
GROWTH = 17  # characters that normalizing adds to one at most: U+FDFA becomes 18

# Pieces of up to 200 characters that end after white space; a longer word is cut.
_PIECE = re.compile(r".{1,199}\s|\S{1,200}|\s", re.DOTALL)
_large_lock = threading.Lock()


def normalize(text: str, alone: bool = True) -> str:
    """Text normalized for search: spellings that differ only in case or width become equal (Unicode
    NFKC, case folding). The result has at most twice the characters of the text, plus EXTRA_GROWTH;
    after that, the rest is only case-folded. A large text waits until no other is being normalized,
    unless `alone` is false: many at a time would hold the GIL for too long."""
    if text.isascii():
        return text.lower()
    with _large_lock if alone and len(text) > LARGE_TEXT else contextlib.nullcontext():
        return "".join(_normalized(text))


def _normalized(text: str) -> Iterator[str]:
    # `unicodedata.normalize` sorts the combining marks of a character in quadratic time: a million
    # take minutes (CPython's gh-149079). So it gets the text in pieces, which changes the result
    # only within words of more than 200 characters.
    nfkc = functools.partial(unicodedata.normalize, "NFKC")
    room = len(text) + EXTRA_GROWTH
    for match in _PIECE.finditer(text):
        piece = folded = match[0]
        if room >= len(piece) * GROWTH:
            folded = nfkc(nfkc(piece).casefold())
        elif len(piece.casefold()) <= len(piece) + room:
            folded = piece.casefold()
        room += len(piece) - len(folded)
        yield folded


def words_of(query: str) -> list[str]:
    """The normalized words of a query. "\ufdfa", one character, becomes four words."""
    return list(dict.fromkeys(normalize(query).split()))


def excerpt(text: str, words: Sequence[str]) -> str | None:
    """About EXCERPT characters of the text, with the first match of these normalized words. None if
    the text contains none of them."""
    normalized = normalize(text, alone=False)
    places = [place for word in words if (place := normalized.find(word)) >= 0]
    if not places:
        return None
    place = min(places)
    if len(normalized) != len(text):
        place = _original_place(place, text)
    start = max(0, place - EXCERPT // 3)
    if start:  # if there is a space, begin with a word
        start = text.find(" ", start, place) + 1 or start
    return text[start : start + EXCERPT]


def _original_place(place: int, text: str) -> int:
    """The place of a character in the text, by its place in the normalized text."""
    for match, normalized in zip(_PIECE.finditer(text), _normalized(text), strict=True):
        if place < len(normalized):
            return match.start() + _place_in(match[0], place)
        place -= len(normalized)
    return 0


def _place_in(piece: str, place: int) -> int:
    """How many characters of the piece come before this place, once they are normalized."""

    def size_to(end: int) -> int:
        return len(normalize(piece[: end + 1], alone=False))

    return bisect.bisect_right(range(len(piece)), place, key=size_to)


@contextlib.contextmanager
def limited(seconds: float = TIMEOUT) -> Iterator[None]:
    """Limit the database's time for a search. Raises Overloaded when it is over."""
    limit_time(min(seconds, remaining()))
    try:
        with mapped_errors():
            yield
    except Unavailable:
        if remaining():
            raise
        raise Overloaded(
            "The search took too long. Search for longer words, or for fewer."
        ) from None
