"""Many streams of several users, begun one after the other or all at once, and how late their words
arrive.

One loop follows them all, in a process of its own, which takes little from the server on the same
cores. Run it with the server's port, the number of streams, the number of words in each, which are
a second apart, and how many streams begin per second (0: all at once). The users' tokens are lines
of its input. It prints a line once all streams that were not refused have their first word. When
they have ended, it prints another: JSON, with the lags in seconds of the words that were sent while
all of them were open. It fails if a stream ends before its last word.
"""

import json
import resource
import selectors
import socket
import sys
import time

from followers import SENT, request

PACE = 1000  # milliseconds
LONGEST = 17  # bytes of a word
PATIENCE = 60  # seconds without anything from any stream


class Stream:
    """One stream; `times` are (when a word was sent, when it arrived)."""

    def __init__(self, selector, port, data):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.status, self.rest, self.times = None, b"", []
        selector.register(self.socket, selectors.EVENT_READ, self)

    def take(self, words):
        """Note what has arrived; returns whether the stream continues. After the last word, the
        whole text comes once more."""
        data = self.socket.recv(65536)
        now = time.monotonic()
        self.status = self.status or data[9:12].decode() or "cut"
        self.rest += data
        for word in SENT.finditer(self.rest):
            if len(self.times) < words:
                self.times.append((float(word[1]), now))
        self.rest = self.rest[-LONGEST + 1 :] if not self.rest.endswith(b"\n\n") else b""
        return bool(data) and self.status == "201"

    def stands(self):
        return bool(self.times) or self.status not in (None, "201")


def follow(port, tokens, count, words, rate):
    """All streams, once they have ended."""
    began, streams, stand = time.monotonic(), [], False
    with selectors.DefaultSelector() as selector:
        while len(streams) < count or selector.get_map():
            if is_due := len(streams) < count and (
                not rate or time.monotonic() - began >= len(streams) / rate
            ):
                data = request(tokens[len(streams) % len(tokens)], words, PACE)
                streams.append(Stream(selector, port, data))
            if is_due and not rate:
                continue
            events = selector.select(0 if is_due else 0.002 if len(streams) < count else PATIENCE)
            if not events and not is_due and len(streams) == count:
                raise SystemExit(f"nothing came for {PATIENCE} s")
            for key, _ in events:
                if not key.data.take(words):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            if not stand and len(streams) == count and all(stream.stands() for stream in streams):
                stand = True
                print(json.dumps({"standing": time.monotonic() - began}), flush=True)
    return streams


def summary(streams, words):
    begun = [stream.times for stream in streams if stream.status == "201"]
    statuses = [stream.status for stream in streams]
    all_began, first_ends = (
        max(times[0][1] for times in begun),
        min(times[-1][0] for times in begun),
    )
    lags = [
        arrived - sent
        for times in begun
        for sent, arrived in times
        if all_began <= sent < first_ends
    ]
    first = [times[0][1] - times[0][0] for times in begun]
    if short := [len(times) for times in begun if len(times) < words]:
        raise SystemExit(f"{len(short)} streams ended before their {words} words: {short[:9]}")
    return {
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "lags": lags,
        "first": first,
    }


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, count, words, rate = map(int, sys.argv[1:])
    print(json.dumps(summary(follow(port, sys.stdin.read().split(), count, words, rate), words)))
