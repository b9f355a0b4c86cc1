"""What a body says: its bytes together, its JSON, and its texts as every database holds them."""

import codecs
import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from wire.faults import Fault

JOINED_SIZE = 8 * 2**20  # bytes of what is joined before it is looked at: a list, an event
BOM = b"\xef\xbb\xbf"
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # what no database, or not every one, holds
# What reading an answer raises that is not of the form that its protocol gives it.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
codecs.lookup("utf-16-le")  # for `made_storable`: later there may be no more files to find it in


def join(
    chunks: Iterable[bytes], limit: int = JOINED_SIZE, joined: bytearray | None = None
) -> bytearray:
    """All of the chunks, behind what is `joined` already. Raises a Fault where that has more bytes
    than the limit."""
    joined = bytearray() if joined is None else joined
    for chunk in chunks:
        joined += chunk
        if len(joined) > limit:
            raise Fault("endless")
    return joined


def parse_json(text: str | bytes | bytearray) -> Any:
    """What this JSON says, or None where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def made_storable(texts: Iterable[str]) -> Iterator[str]:
    """The same texts as every database holds them: NUL and lone surrogates become U+FFFD, halves in
    two texts their character."""
    coded = (text.encode("utf-16-le", "surrogatepass") for text in texts)
    for text in codecs.iterdecode(coded, "utf-16-le", "replace"):
        yield text.replace("\0", "\ufffd")
