"""Searching: the text that is searched, the words of a query, and how long it may take."""

import contextlib
import functools
import re
import unicodedata

from database import Unavailable, limit_time, remaining
from limits import Overloaded

MAX_WORDS = 20
TIMEOUT = 5  # seconds, after which a search is given up

# Pieces that end behind white space, where there is some; 200 characters of a longer word.
_PIECE = re.compile(r".{1,199}\s|\S{1,200}|\s", re.DOTALL)


def normalize(text):
    """Text as it is searched: spellings that differ in case or width alone become equal (Unicode NFKC, case folding)."""
    if text.isascii():
        return text.lower()
    # `unicodedata.normalize` sorts the marks of one character in quadratic time, a million of them for minutes (CPython's
    # gh-149079). So it gets the text in pieces; only within a word of more than 200 characters can that be seen.
    nfkc = functools.partial(unicodedata.normalize, "NFKC")
    return "".join(nfkc(nfkc(piece).casefold()) for piece in _PIECE.findall(text))


def words_of(query):
    """The words that are looked for. "\ufdfa", one character, is four words once it is normalized."""
    return list(dict.fromkeys(normalize(query).split()))


@contextlib.contextmanager
def limited(seconds=TIMEOUT):
    """From here on, the database has so many seconds at most. Raises Overloaded where these are over."""
    limit_time(min(seconds, remaining()))
    try:
        yield
    except Unavailable:
        if remaining():
            raise
        raise Overloaded("The search took too long. Search for longer words, or for fewer.") from None
