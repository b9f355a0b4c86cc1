"""Streams that are begun and followed at the same time, and how late their words arrive.

One loop follows them all, in a process of its own, so that we measure the server. Run it with the
server's port, a token, the number of streams, and the number of words in each, which are `PACE`
milliseconds apart. It prints the lags as JSON, in seconds: for each word that was sent while all
streams were in progress, its arrival here less the time when it was sent.
"""

import json
import re
import selectors
import socket
import sys
import time

PACE = 50
SENT = re.compile(rb"@(\d{9}\.\d{6})")  # as stub.py writes it
LONGEST = 16  # bytes of a word that may have come without its last byte


def request(token, words, pace):
    """The bytes of a request for a stream of so many words, so many milliseconds apart."""
    body = json.dumps({"content": "How late are they?", "model": f"m-timed-{words}-{pace}"})
    head = f"POST /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    head += f"Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Follower:
    """One stream."""

    def __init__(self, port, token, words):
        self.request = request(token, words, PACE)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.words = words
        self.times = []  # (when it was sent, when it arrived) of each word
        self.rest = b""

    def begin(self):
        self.socket.sendall(self.request)
        self.socket.setblocking(False)

    def take(self):
        """Note the words that have arrived; returns whether the stream continues. After the last
        word, the whole text comes once more."""
        data = self.socket.recv(262144)
        now = time.monotonic()
        self.rest += data
        end = 0
        for word in SENT.finditer(self.rest):
            end = word.end()
            if len(self.times) < self.words:
                self.times.append((float(word[1]), now))
        if not data and len(self.times) < self.words:
            raise SystemExit(
                f"of {self.words} words {len(self.times)} arrived, then {self.rest[-500:]}"
            )
        self.rest = self.rest[max(end, len(self.rest) - LONGEST) :] if self.times else self.rest
        return bool(data)


def follow(followers):
    with selectors.SelectSelector() as selector:
        for follower in followers:
            follower.begin()
            selector.register(follower.socket, selectors.EVENT_READ, follower)
        while selector.get_map():
            for key, _ in selector.select(60):
                if not key.data.take():
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def lags(followers):
    all_began = max(follower.times[0][1] for follower in followers)
    first_ends = min(follower.times[-1][0] for follower in followers)
    times = [times for follower in followers for times in follower.times]
    return [arrived - sent for sent, arrived in times if all_began <= sent < first_ends]


if __name__ == "__main__":
    port, token, count, words = sys.argv[1:]
    followers = [Follower(int(port), token, int(words)) for _ in range(int(count))]
    follow(followers)
    print(json.dumps(lags(followers)))
