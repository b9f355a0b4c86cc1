"""The loop of a process. It waits for all clients at once, and calls what goes on with each; what
takes long is done by threads, which come back to it.

It has bounds for those whom it waits for, in time, in number and in bytes. Beyond them somebody is
given up: who does not come in time, who was waited for the longest, who holds the most.
"""

import collections
import dataclasses
import os
import selectors
import time
from collections.abc import Callable
from typing import Any

from werkzeug.exceptions import RequestTimeout

from limits import SMALL, Overloaded
from logs import log
from serving.connection import Connection

TICK = 0.5  # seconds after which the loop comes round, though there is nothing to do
TURN = 0.02  # seconds of calls, before it looks who has come
LOOK = 1  # seconds between two looks at who has not come
CROWDED = 0.1  # where too many are waited for
PATIENCE = 0.5  # seconds that each client has, however many others are waited for
ENDLESS = float("inf")

Call = Callable[[Connection], None]
GiveUp = Callable[[Connection, Exception], None]


@dataclasses.dataclass(eq=False, slots=True)
class Wait:
    """For what a client is waited for, and what then."""

    event: int
    since: float
    until: float
    size: int  # bytes that are held meanwhile
    has_right: bool  # to its place, until its time is over
    go_on: Call  # where it has come
    give_up: GiveUp  # where it has not

    def is_due(self, since: float) -> bool:
        """Whether it may be given up for others, having been there since this time."""
        return self.since <= since and not self.has_right


class Loop:
    """`most` are those of whom there may be so many at a time, but for streams, and `most_bytes` is
    what is held for all clients. `on_fault` is called where a call has failed."""

    def __init__(self, most: int, most_bytes: int, on_fault: Call) -> None:
        self._most, self._most_bytes, self._on_fault = most, most_bytes, on_fault
        self._selector = selectors.DefaultSelector()
        self._waits: dict[Connection, Wait] = {}
        self._crowd: dict[Connection, Wait] = {}  # those of them that are counted
        self._held: dict[Connection, int] = {}  # the bytes of those who are not waited for
        self._bytes, self._latest, self._next_look = 0, ENDLESS, 0.0
        # What is to be called, each once. Any thread may add to it: `popitem` is a single step.
        self._calls: collections.OrderedDict[tuple[Call, Connection], None]
        self._calls, self._is_woken = collections.OrderedDict(), False
        self._pipe, self.bell = os.pipe()  # what is written to the bell wakes the loop
        for end in (self._pipe, self.bell):
            os.set_blocking(end, False)
        self._selector.register(self._pipe, selectors.EVENT_READ, self._wake_up)

    def turn(self, seconds: float = TICK) -> None:
        """Call what is to be called, or wait for that, or for a client, so long at most."""
        ready = self._selector.select(0 if self._calls else seconds)
        end = time.monotonic() + TURN
        for key, _ in ready:
            key.data()
            if time.monotonic() >= end:  # the others are told again
                break
        end = time.monotonic() + TURN
        while self._calls and time.monotonic() < end:
            function, connection = self._calls.popitem(last=False)[0]
            self._try(function, connection)
        if time.monotonic() >= self._next_look:
            self._look()

    def _try(self, function: Callable[..., None], connection: Connection, *args: Any) -> None:
        try:
            function(connection, *args)
        except Exception as error:  # it costs this connection, not the process
            log.error("a connection failed", exc_info=error)
            if function != self._on_fault:
                self._try(self._on_fault, connection)

    # Calls

    def call(self, function: Call, connection: Connection) -> None:
        """Have the loop call this; any thread may do so. What is to be called already is called
        once."""
        self._calls[function, connection] = None
        if not self._is_woken:
            self._is_woken = True
            try:
                os.write(self.bell, b".")
            except BlockingIOError:  # it is full, which wakes the loop, too
                pass

    def _wake_up(self) -> None:
        os.read(self._pipe, 4096)
        # Behind the reading: who adds a call from here on writes again. Before the calls: what was
        # added by somebody who did not write is called now.
        self._is_woken = False

    # Whom it waits for

    def listen(self, listener: Any, accept: Callable[[], None]) -> None:
        """Call this while somebody wants to connect."""
        self._selector.register(listener, selectors.EVENT_READ, accept)

    def stop_listening(self, listener: Any) -> None:
        self._selector.unregister(listener)

    def watch(
        self,
        connection: Connection,
        event: int,
        go_on: Call,
        seconds: float,
        give_up: GiveUp,
        has_right: bool = False,
        is_counted: bool = True,
    ) -> None:
        """Wait until the client sends something, or takes something. Where it does not within these
        seconds, give up with RequestTimeout; before that with Overloaded, where it holds the most
        of too much, or is one of too many, and has no right to its place."""
        self.unwatch(connection)
        now = time.monotonic()
        is_sending = event == selectors.EVENT_READ
        until = now + seconds
        if is_sending and until != ENDLESS:
            until = min(until, self._latest)
        # Who sends a byte now and then was waited for all the time; who takes some, no longer.
        since = connection.began if is_sending else now
        wait = Wait(event, since, until, connection.size(), has_right, go_on, give_up)

        def come() -> None:
            if self._waits.get(connection) is wait:  # else it was given up a moment ago
                self.unwatch(connection)
                self._try(go_on, connection)

        self._selector.register(connection.socket, event, come)
        self._waits[connection] = wait
        self._bytes += wait.size
        if is_counted:
            self._crowd[connection] = wait
        if len(self._crowd) > self._most:
            self._next_look = min(self._next_look, now + CROWDED)
        self._give_up_the_largest()

    def unwatch(self, connection: Connection) -> None:
        wait = self._waits.pop(connection, None)
        if wait:
            self._selector.unregister(connection.socket)
            self._crowd.pop(connection, None)
            self._bytes -= wait.size

    def hold(self, connection: Connection) -> bool:
        """Count what is held for a client who is not waited for, until it is released. Returns
        whether there is room, as there always is for little."""
        size = connection.size()
        self._held[connection] = size
        self._bytes += size
        self._give_up_the_largest()
        return size <= SMALL or self._bytes <= self._most_bytes

    def release(self, connection: Connection) -> None:
        self._bytes -= self._held.pop(connection, 0)

    def hurry(self, latest: float) -> None:
        """Wait no longer than until this time for what is to be sent to this server."""
        if latest == self._latest:
            return
        self._latest, self._next_look = latest, 0
        for wait in self._waits.values():
            if wait.event == selectors.EVENT_READ and wait.until != ENDLESS:
                wait.until = min(wait.until, latest)

    # Whom it gives up

    def _look(self) -> None:
        now = time.monotonic()
        self._next_look = now + LOOK
        # What came while this process stood still has come in time.
        for key, _ in self._selector.select(0):
            key.data()
        for connection, wait in [*self._waits.items()]:
            if wait.until <= now:
                self._give_up(connection, RequestTimeout())
        excess = len(self._crowd) - self._most
        if excess > 0:
            self._next_look = now + CROWDED
            due = [each for each, wait in self._crowd.items() if wait.is_due(now - PATIENCE)]
            due.sort(key=lambda each: self._crowd[each].since)
            for connection in due[:excess]:
                self._give_up(connection, Overloaded())

    def _give_up_the_largest(self) -> None:
        while self._bytes > self._most_bytes and self._waits:
            largest = max(self._waits, key=lambda each: self._waits[each].size)
            if self._waits[largest].size <= SMALL:
                return
            self._give_up(largest, Overloaded())

    def _give_up(self, connection: Connection, error: Exception) -> None:
        wait = self._waits.get(connection)
        if wait:  # it was there a moment ago
            self.unwatch(connection)
            self._try(wait.give_up, connection, error)
