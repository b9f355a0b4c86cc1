"""Reading a body: its bytes joined, its JSON parsed, its texts made fit for every database."""

import codecs
import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from wire.faults import Fault

JOINED_SIZE = 8 * 2**20  # bytes that are joined in memory at most: of a list, of an event
BOM = b"\xef\xbb\xbf"
# PostgreSQL stores no NUL, and UTF-8 encodes no surrogates.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# What code raises that reads a response whose JSON has another shape than its protocol says.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
codecs.lookup("utf-16-le")  # loads it now: later, no file descriptor may be left


def join(
    chunks: Iterable[bytes], limit: int = JOINED_SIZE, joined: bytearray | None = None
) -> bytearray:
    """The chunks, appended to `joined`. Raises a Fault if that has more bytes than the limit."""
    joined = bytearray() if joined is None else joined
    for chunk in chunks:
        joined += chunk
        if len(joined) > limit:
            raise Fault("endless")
    return joined


def parse_json(text: str | bytes | bytearray) -> Any:
    """The value of this JSON, or None if it is not JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def storable(text: str) -> str:
    """The text as every database can store it: U+FFFD replaces NUL and lone surrogates."""
    return UNSTORABLE.sub("\ufffd", text)


def made_storable(texts: Iterable[str]) -> Iterator[str]:
    """The texts, one after the other, as every database can store them: U+FFFD replaces NUL and
    lone surrogates. A surrogate pair that is split between two texts becomes its character."""
    coded = (text.encode("utf-16-le", "surrogatepass") for text in texts)
    for text in codecs.iterdecode(coded, "utf-16-le", "replace"):
        yield text.replace("\0", "\ufffd")
