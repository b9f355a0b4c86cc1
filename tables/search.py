"""Search: how text and queries are normalized, and how long a search may take."""

import contextlib
import functools
import re
import threading
import unicodedata
from collections.abc import Iterator

from database import Unavailable, limit_time, mapped_errors, remaining
from limits import Overloaded

MAX_WORDS = 20
TIMEOUT = 5  # seconds

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
