"""Readers of a reply that resume, at whichever server answers, until they know how it ends."""

import http.client
import time

LOST = OSError, http.client.HTTPException  # raised if a connection breaks, or is refused


def is_to_come_back(status, headers):
    """Whether to send the same request again.

    Yes, if no server can answer, or the first request with its key is still in progress. That the
    model failed is an answer, which names the session.
    """
    is_unanswered = status == 503 and "Location" not in headers
    is_under_way = status == 409 and "Location" in headers and "Retry-After" in headers
    return is_unanswered or is_under_way


class Reader:
    """One reader of one reply. It resumes with its last id whenever its stream breaks, or stops.

    `clients` has one for each server, and may change; the reader begins with the one of this
    number. It reads the latest reply of a session, from its start or after this id; or a reply that
    it requests itself. At each delta it has as much text as the id says, and in the end the turn's
    text.
    """

    timeout = 20  # seconds without a byte, after which it reconnects
    pause = 0.2  # seconds before it does, so that fifty readers are no load
    key = None  # with which it repeats its request until it knows the session
    until_complete = False  # whether it reads on after a failure or an interruption

    def __init__(self, clients, session=None, last_id=None, first=0):
        self.clients, self.session, self.last_id, self.first = clients, session, last_id, first
        self.asks = None  # the path and the body of its request for a reply
        self.reply, self.start = map(int, last_id.split("-")[:2]) if last_id else (None, 0)
        self.text, self.names = "", []  # of what came after that
        self.turn = None  # as it ended
        self.end = None  # the last event, or the status if there is no stream
        self.ends = []  # events that might have been the last
        self.arrivals = []  # when text came, by time.monotonic()
        # How often it asked, resumed, and lost the stream.
        self.streams = self.returns = self.lost = 0
        self.refusals = set()  # statuses of answers that were no stream, and of errors
        self.deadline, self.given_up = float("inf"), False

    def ask(self, content, seconds=120, path="/sessions"):
        """Ask for a reply to this message, as a stream, and read it to the end."""
        self.asks = path, {"content": content}
        return self.follow(seconds)

    def follow(self, seconds=120):
        """Read until the end."""
        self.deadline = time.monotonic() + seconds
        while self.end is None and not self.given_up:
            assert time.monotonic() < self.deadline, f"the reply never ended for {self}"
            if self.streams:
                time.sleep(self.pause)
            self.come_back()
        return self

    def come_back(self):
        """Ask for the rest, and read what answers: first the same server, then the next."""
        client = self.clients[(self.first + self.returns) % len(self.clients)]
        self.returns, self.streams = self.streams, self.streams + 1
        try:
            with self.open(client) as stream:
                self.take(stream, client)
        except LOST as problem:
            self.lose(problem)

    def open(self, client):
        if self.session:
            return client.events(self.session, self.last_id, timeout=self.timeout)
        assert self.key or self.streams == 1, f"no session came to {self}"
        path, body = self.asks
        return client.stream("POST", path, body, timeout=self.timeout, Idempotency_Key=self.key)

    def take(self, stream, client):
        """Read a stream, or see what else is answered."""
        if place := stream.headers.get("Location"):
            self.session = self.session or {"id": place.split("/")[2]}
        if stream.status in (200, 201):
            self.read(stream)
            return
        self.refusals.add(stream.status)
        if stream.status == 204 and self.until_complete:
            self.look(client)
        elif not is_to_come_back(stream.status, stream.headers):
            self.end = stream.status

    def look(self, client):
        """Nothing comes after what the reader has: if the reply is complete, that is all."""
        answer = client.get(f"/sessions/{self.session['id']}", timeout=self.timeout)
        if answer.status_code == 200 and answer.json()["turns"][-1]["status"] == "complete":
            self.turn, self.end = answer.json()["turns"][-1], "done"

    def lose(self, problem):
        self.lost += 1

    def read(self, stream):
        for event in stream:
            reply, position = map(int, event.id.split("-")[:2])
            if reply != self.reply:  # the first, or another since that one could not be made
                self.reply, self.start, self.text, self.turn = reply, 0, "", None
            self.last_id = event.id
            self.names.append(event.name)
            if event.name == "session":
                self.session = event.data
            elif event.name == "content_delta":
                self.add(event.data["delta"], position)
                if self.is_cut():
                    return
            elif event.name == "assistant_turn":
                self.turn = event.data
                assert self.turn["content"][self.start :] == self.text, f"{self} is not its turn"
            elif event.name in ("done", "error"):
                self.take_end(event)

    def add(self, text, position):
        self.text += text
        assert self.start + len(self.text) == position, f"{self} is at {position}"
        self.arrivals.append(time.monotonic())

    def is_cut(self):
        """Whether the reader is cut off here, after a delta."""
        return False

    def take_end(self, event):
        if event.name == "error":
            self.refusals.add(event.data["status"])
        if self.until_complete and (event.name == "error" or self.turn["status"] != "complete"):
            self.ends.append(event.name)
        else:
            self.end = event.name

    def silence(self, moment):
        """How long no text came to the reader, around this moment."""
        before = [arrival for arrival in self.arrivals if arrival <= moment]
        after = [arrival for arrival in self.arrivals if arrival > moment]
        return (after[0] if after else moment) - (before[-1] if before else moment)

    def __repr__(self):
        place, back = self.session and self.session["id"], f"back {self.returns} times"
        text = f"{len(self.text)} characters, {self.end} behind {self.ends}"
        return f"<{place}: {text}, {back}, lost {self.lost}, refused {self.refusals}>"
