"""Server-sent events (WHATWG HTML, 9.2.6), as providers write them."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from wire.body import BOM, JOINED_SIZE, parse_json
from wire.faults import Fault

Event = dict[str, Any]  # its fields, as {"event": "done", "data": "{}"}; or {"json": …}

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELDS = (b"data", b"event", b"id", b"error")  # the last is llama.cpp's


def parse_sse(chunks: Iterable[bytes]) -> Iterator[list[Event]]:
    """The events of a stream: a list for each chunk that completes some. Raises a Fault if an
    event has no end."""
    parser = EventParser()
    for chunk in filter(None, chunks):
        if events := parser.feed(chunk):
            yield events
    if events := parser.close():
        yield events


class EventParser:
    """Parses events as the standard says, and as servers break it: the last event may lack its
    blank line, `error` is a field, and a line of plain JSON is an event."""

    def __init__(self) -> None:
        self._partial, self._size = bytearray(), 0  # an incomplete line; bytes of incomplete events
        self._fields: dict[str, list[str]] = {}
        self._after_cr = False  # a line feed that comes next ends no further line

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises a Fault if one has no end."""
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        self._partial += chunk
        self._size += len(chunk)
        if self._size > JOINED_SIZE:
            raise Fault("endless")
        if not _LINE_END.search(chunk):
            return []
        *lines, rest = _LINE_END.split(self._partial)
        self._partial = bytearray(rest)
        events = [event for line in lines if (event := self._parse_line(line))]
        if events:
            self._size = len(self._partial)
        return events

    def close(self) -> list[Event]:
        """The event that the end of the stream completes, unless it was cut off."""
        rest = self._partial.removeprefix(BOM)
        line = self._parse_line(rest) if rest else None
        last = self._parse_line(b"") if self._fields else None
        if last and not _is_whole(_content_of(last)):
            last = None
        return [event for event in (line, last) if event]

    def _parse_line(self, line: bytes | bytearray) -> Event | None:
        """The event that this line completes."""
        line = line.removeprefix(BOM)  # the first line may have one; in others it means nothing
        name, _, value = line.partition(b":")
        if name in _FIELDS:
            text = value.removeprefix(b" ").decode("utf-8", "replace")
            self._fields.setdefault(name.decode(), []).append(text)
        elif line.startswith(b"{") and (json := parse_json(line)) is not None:
            return {"json": json}
        elif not line:
            event = {name: "\n".join(values) for name, values in self._fields.items()}
            self._fields = {}
            return event if _content_of(event) else None
        return None


def _content_of(event: Event) -> str:
    return event.get("error") or event.get("data", "").strip()


def _is_whole(content: str) -> bool:
    return content == "[DONE]" or parse_json(content) is not None
