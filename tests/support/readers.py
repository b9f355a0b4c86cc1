"""Readers of a reply who come back, to whichever server answers, until they know how it ends."""

import contextlib
import http.client
import time

PAUSE = 0.2  # seconds before a reader comes back, so that fifty of them are no load


class Reader:
    """One reader of one reply. He comes back with his last id whenever his stream breaks, or ends without an end.

    `clients` are those of the servers that there are, which may change; he turns to the one of this number first.
    """

    def __init__(self, clients, session=None, last_id=None, first=0):
        self.clients, self.session, self.last_id, self.first = clients, session, last_id, first
        self.text, self.names = "", []
        self.turn = self.end = None  # as it ended; the name of the last event
        self.arrivals = []  # when text came, by time.monotonic()
        self.returns = 0  # how often he came back
        self.refusals = set()  # statuses of answers that were no stream
        self.given_up = False

    def ask(self, content, seconds=120):
        """Begin a session with this message, as a stream, and read it to the end."""
        client = self.clients[self.first]
        with contextlib.suppress(OSError, http.client.HTTPException):
            with client.stream("POST", "/sessions", {"content": content}) as stream:
                assert stream.status == 201, stream.response.read()
                self._read(stream)
        assert self.session, "no session came"
        return self.follow(seconds)

    def follow(self, seconds=120):
        """Read until the end."""
        deadline = time.monotonic() + seconds
        while self.end is None and not self.given_up:
            assert time.monotonic() < deadline, (
                f"the reply of {self.session} never ended for {self}"
            )
            client = self.clients[(self.first + self.returns) % len(self.clients)]
            with contextlib.suppress(
                OSError, http.client.HTTPException
            ):  # that one is away, or has gone meanwhile
                with client.events(self.session, self.last_id, timeout=20) as stream:
                    if stream.status == 200:
                        self._read(stream)
                    else:
                        self.refusals.add(stream.status)
            if self.end is None:
                self.returns += 1
                time.sleep(PAUSE)
        return self

    def _read(self, stream):
        for event in stream:
            if event.name == "error" and event.data["status"] == 503:
                self.refusals.add(503)
                return  # the server asks to come back
            self.last_id = event.id
            self.names.append(event.name)
            if event.name == "session":
                self.session = event.data
            elif event.name == "content_delta":
                self.text += event.data["delta"]
                self.arrivals.append(time.monotonic())
            elif event.name == "assistant_turn":
                self.turn = event.data
            elif event.name in ("done", "error"):
                self.end = event.name

    def silence(self, moment):
        """How long no text came to him, around this moment."""
        before = [arrival for arrival in self.arrivals if arrival <= moment]
        after = [arrival for arrival in self.arrivals if arrival > moment]
        return (after[0] if after else moment) - (before[-1] if before else moment)

    def __repr__(self):
        return f"<{len(self.text)} characters, {self.end}, back {self.returns} times, refused {self.refusals}>"
