"""The response to a request, while it arrives."""

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

INTERIM_MAX = 100  # interim responses (101 to 199) at most; http.client skips those of 100 itself
READ_SIZE = 65536  # bytes per read
_ENCODED = re.compile("gzip|deflate|compress|br|zstd", re.IGNORECASE)


class Answer(http.client.HTTPResponse):
    """http.client's response, which tells its call when it begins, and skips interim ones."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader, self._call = sock.take_reader(), sock.call

    def begin(self) -> None:
        """Read status and headers of the final response: http.client skips status 100 only."""
        self._call.answered = bool(self._reader.peek(1))
        self._reader = self._call = None  # a connection refers to its last response
        for _ in range(INTERIM_MAX + 1):
            super().begin()
            if not 100 <= self.status < 200 or self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.body_length = _length_of(self)
                return
            self.headers: Any = None  # otherwise `begin` does nothing
        raise http.client.HTTPException("too many interim answers")


class Response:
    """A response: its status, its headers, and its body as it arrives."""

    def __init__(self, answer: Answer, call: Call) -> None:
        self.status, self.headers = answer.status, answer.headers
        self._answer, self._call = answer, call
        self._length = answer.body_length
        self.is_json = False  # `events` found that the body is one JSON value
        self.is_read = False  # to its end
        # Set by the caller, who knows the protocol: the response is complete; more bytes came after
        # its end.
        self.is_whole = self.is_followed = False

    def chunks(self) -> Iterator[bytes]:
        """The body in chunks, each as a read of the socket returns it. Raises HungUp or a Fault."""
        if _ENCODED.search(self.headers.get("Content-Encoding", "")):
            raise Fault("encoded")  # we asked for none; a few bytes could become gigabytes
        while chunk := self._read():
            yield chunk
        if self._length:  # the body is cut short, which `read1` of http.client does not report
            raise Fault("broken")
        self.is_read = True

    def _read(self) -> bytes:
        size = READ_SIZE if self._length is None else min(READ_SIZE, self._length)
        try:
            chunk = self._answer.read1(size)
        except RAW_FAULTS as error:
            self._call.check()
            raise fault_of(error, has_answered=True) from None
        if self._length is not None:
            self._length -= len(chunk)
        self._call.check()  # a socket that we shut down looks like an end
        return chunk

    def events(self) -> Iterable[list[Event]]:
        """The events of the body, in batches as they arrive. A body of plain JSON is one event. The
        first byte tells which it is, since servers send wrong content types."""
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
                return [[{"json": value}]]  # not one value: perhaps a line of JSON per event
        return parse_sse(chunks)

    def read_some(self, limit: int, seconds: float) -> bytearray:
        """Up to `limit` bytes of the body, as far as they arrive within these seconds. A Fault ends
        them, and is not raised."""
        body = bytearray()
        self._call.limit_timeout(seconds)
        with contextlib.suppress(Fault, HungUp):
            join(self.chunks(), limit, body)
        return body

    def close(self) -> None:
        self._answer.close()
        # The connection refers to it until the next request.
        self._answer.headers = self._answer.msg = None  # type: ignore[assignment]

    def is_last(self) -> bool:
        """Whether nothing of this response can still arrive on its connection."""
        return self.is_whole and self.is_read and not self.is_followed


def _length_of(answer: Answer) -> int | None:
    """The length of the body from Content-Length, or None. "5, 5" means 5 (RFC 9110, section 8.6),
    but http.client ignores it. Raises HTTPException if two lengths differ."""
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
    """The seconds in Retry-After (RFC 9110, section 10.2.3), at most a day; None without a valid
    one."""
    text, exact = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    ways: list[Callable[[], float]] = [
        lambda: float(exact) / 1000,  # OpenAI and Anthropic send it, too
        lambda: float(text),
        lambda: email.utils.parsedate_to_datetime(text).timestamp() - time.time(),
    ]
    for read in ways:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            seconds = read()
            if math.isfinite(seconds):
                return min(max(seconds, 0.0), 86400.0)
    return None
