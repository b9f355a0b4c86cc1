"""The answer to a request, while it arrives."""

import contextlib
import email.utils
import http
import http.client
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPMessage
from typing import Any

from wire.body import BOM, join, parse_json
from wire.call import Call
from wire.faults import RAW_FAULTS, Fault, HungUp, fault_of
from wire.streams import Event, parse_sse

INTERIM_MAX = 100  # answers of 101 to 199 before the real one; of 100, http.client takes any number
AT_ONCE = 65536  # bytes that are read at a time
_ENCODED = re.compile("gzip|deflate|compress|br|zstd", re.IGNORECASE)


class Answer(http.client.HTTPResponse):
    """http.client's own, which knows when it begins, and passes over interim answers."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader, self._call = sock.take_reader(), sock.call

    def begin(self) -> None:
        """Read status and headers of the real answer: http.client passes over 100 only."""
        self._call.answered = bool(self._reader.peek(1))
        self._reader = self._call = None  # a connection that is kept keeps its last answer
        for _ in range(INTERIM_MAX + 1):
            super().begin()
            if not 100 <= self.status < 200 or self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.body_length = _length_of(self)
                return
            self.headers: Any = None  # else there would be nothing to begin
        raise http.client.HTTPException("too many interim answers")


class Response:
    """Its status, its headers, and its body while it arrives."""

    def __init__(self, answer: Answer, call: Call) -> None:
        self.status, self.headers = answer.status, answer.headers
        self._answer, self._call = answer, call
        self._length = answer.body_length
        self.is_json = False  # its body is one value, which `events` has found
        self.is_read = False  # to its end
        # Whoever reads it says so: it is the answer, to its end; something follows it.
        self.is_whole = self.is_followed = False

    def chunks(self) -> Iterator[bytes]:
        """What each read of the socket brings; nothing waits for a buffer to fill. Raises HungUp or
        a Fault."""
        if _ENCODED.search(self.headers.get("Content-Encoding", "")):
            raise Fault("encoded")  # none was asked for; a few bytes could become gigabytes
        while chunk := self._read():
            yield chunk
        if self._length:  # some of it did not come, about which http.client is silent
            raise Fault("broken")
        self.is_read = True

    def _read(self) -> bytes:
        size = AT_ONCE if self._length is None else min(AT_ONCE, self._length)
        try:
            chunk = self._answer.read1(size)
        except RAW_FAULTS as error:
            self._call.check()
            raise fault_of(error, has_answered=True) from None
        if self._length is not None:
            self._length -= len(chunk)
        self._call.check()  # what is shut down looks like what has ended
        return chunk

    def events(self) -> Iterable[list[Event]]:
        """The events of the body, in batches as they come. The first byte tells what it is, since
        servers name its type wrong."""
        chunks: Iterable[bytes] = self.chunks()
        beginnings = (chunk.removeprefix(BOM).lstrip() for chunk in chunks)
        first = next(filter(None, beginnings), b"")
        if first.startswith(b"<"):
            raise Fault("page")
        chunks = itertools.chain([first], chunks)
        if first.startswith((b"{", b"[")):
            chunks = [bytes(join(chunks))]
            if (value := parse_json(chunks[0])) is not None:
                self.is_json = True
                return [[{"json": value}]]  # else the JSON of each event may be a line
        return parse_sse(chunks)

    def read_some(self, limit: int, seconds: float) -> bytearray:
        """So many bytes of the body, or what of them came within these seconds, before the wire
        failed."""
        body = bytearray()
        self._call.hurry(seconds)
        with contextlib.suppress(Fault, HungUp):
            join(self.chunks(), limit, body)
        return body

    def close(self) -> None:
        self._answer.close()
        # Its connection keeps it until the next request.
        self._answer.headers = self._answer.msg = None  # type: ignore[assignment]

    def is_last(self) -> bool:
        """Whether nothing of this answer may still come on its connection."""
        return self.is_whole and self.is_read and not self.is_followed


def _length_of(answer: Answer) -> int | None:
    """The bytes of the body, where they are told: "5", or "5, 5", of which http.client makes none
    (RFC 9110, section 8.6). Raises HTTPException."""
    if answer.status in (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED):
        return 0
    if answer.headers.get("Transfer-Encoding", "").lower() == "chunked":  # as http.client has it
        return None
    fields = answer.headers.get_all("Content-Length", [])
    lengths = {each.strip() for each in ",".join(fields).split(",")} if fields else {""}
    if len(lengths) > 1:
        raise http.client.HTTPException("contradicting lengths")
    try:
        length = int(*lengths)  # as http.client reads it
    except ValueError:
        return None
    return length if length >= 0 else None


def retry_after(headers: HTTPMessage) -> float | None:
    """The seconds after which a server wants to be asked again (RFC 9110, section 10.2.3), a day at
    most, or None."""
    text, exact = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    ways: list[Callable[[], float]] = [
        lambda: float(exact) / 1000,  # OpenAI and Anthropic send it besides
        lambda: float(text),
        lambda: email.utils.parsedate_to_datetime(text).timestamp() - time.time(),
    ]
    for read in ways:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            seconds = read()
            if math.isfinite(seconds):
                return min(max(seconds, 0.0), 86400.0)
    return None
