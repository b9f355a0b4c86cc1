"""Searching: the text that is searched, the words of a query, and how long it may take."""

import contextlib
import functools
import re
import threading
import unicodedata
from collections.abc import Iterator

from database import Unavailable, limit_time, mapped_errors, remaining
from limits import Overloaded

MAX_WORDS = 20
TIMEOUT = 5  # seconds, after which a search is given up

LARGE = 2**16  # characters of a text beside which no other large one is normalized
EXTRA = 2**14  # characters by which a text may grow as it is normalized, besides its own length
GROWTH = 17  # characters by which one grows at most: U+FDFA becomes 18

# Pieces that end behind white space, where there is some; 200 characters of a longer word.
_PIECE = re.compile(r".{1,199}\s|\S{1,200}|\s", re.DOTALL)
_one = threading.Lock()


def normalize(text: str, alone: bool = True) -> str:
    """Text as it is searched: spellings that differ in case or width alone become equal (Unicode
    NFKC, case folding). It has at most twice the characters of the text, and 16,384: where there
    would be more, the rest is only case-folded. Unless it need not be `alone`, a large text waits
    until no other one is being normalized: all of them at a time would hold up everybody."""
    if text.isascii():
        return text.lower()
    with _one if alone and len(text) > LARGE else contextlib.nullcontext():
        return "".join(_normalized(text))


def _normalized(text: str) -> Iterator[str]:
    # `unicodedata.normalize` sorts the marks of one character in quadratic time, a million of them
    # for minutes (CPython's gh-149079). So it gets the text in pieces; only within a word of more
    # than 200 characters can that be seen.
    nfkc = functools.partial(unicodedata.normalize, "NFKC")
    room = len(text) + EXTRA
    for match in _PIECE.finditer(text):
        piece = folded = match[0]
        if room >= len(piece) * GROWTH:
            folded = nfkc(nfkc(piece).casefold())
        elif len(piece.casefold()) <= len(piece) + room:
            folded = piece.casefold()
        room += len(piece) - len(folded)
        yield folded


def words_of(query: str) -> list[str]:
    """The words that are looked for. "\ufdfa", one character, is four words once it is
    normalized."""
    return list(dict.fromkeys(normalize(query).split()))


@contextlib.contextmanager
def limited(seconds: float = TIMEOUT) -> Iterator[None]:
    """From here on, the database has so many seconds at most. Raises Overloaded where these are
    over."""
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
