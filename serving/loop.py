"""The event loop of a process: it waits for the sockets of all clients, and calls back when one is
ready. Whatever takes long runs in a thread, which calls the loop when it is done.

The waiting connections are limited in time, in number and in bytes. Past a limit the loop drops a
connection: the one that timed out, the one that has waited longest, or the one that holds most
memory.
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
from serving.connection import ClientConnection

TICK = 0.5  # seconds that a turn of the loop takes at most if nothing happens
TIME_SLICE = 0.02  # seconds of callbacks before the sockets are polled again
TIMEOUT_CHECK_INTERVAL = 1  # seconds
CROWDED_INTERVAL = 0.1  # seconds between two checks while too many connections wait
MIN_WAIT = 0.5  # seconds for which a client may wait before it is dropped because too many wait
ENDLESS = float("inf")

Callback = Callable[[ClientConnection], None]
OnDrop = Callable[[ClientConnection, Exception], None]


@dataclasses.dataclass(eq=False, slots=True)
class Wait:
    """What the loop waits for on a connection, and the callbacks for either outcome."""

    event: int  # selectors.EVENT_READ or EVENT_WRITE
    since: float
    until: float
    size: int  # bytes that the connection holds meanwhile
    is_protected: bool  # never dropped for other connections before its time is over
    on_ready: Callback  # if the event comes
    on_drop: OnDrop  # if it does not

    def may_drop(self, latest_start: float) -> bool:
        """Whether it may be dropped to make room for others: it has waited since `latest_start`, or
        longer."""
        return self.since <= latest_start and not self.is_protected


class Loop:
    """At most `max_waiting` connections wait at a time, event streams not counted, and all together
    hold at most `max_bytes`. If a callback raises, `on_fault` is called with its connection."""

    def __init__(self, max_waiting: int, max_bytes: int, on_fault: Callback) -> None:
        self._max_waiting, self._max_bytes, self._on_fault = max_waiting, max_bytes, on_fault
        self._selector = selectors.DefaultSelector()
        self._waits: dict[ClientConnection, Wait] = {}
        self._counted: dict[ClientConnection, Wait] = {}  # those that count against `max_waiting`
        # The bytes of each connection that a thread works on.
        self._held_by_threads: dict[ClientConnection, int] = {}
        self._bytes, self._read_deadline, self._next_check = 0, ENDLESS, 0.0
        # Callbacks due, each once. Any thread may add to them: `popitem` is atomic under the GIL.
        self._callbacks: collections.OrderedDict[tuple[Callback, ClientConnection], None]
        self._callbacks, self._is_woken = collections.OrderedDict(), False
        # A byte written to `wakeup_fd` wakes the loop (the self-pipe trick).
        self._wakeup_pipe, self.wakeup_fd = os.pipe()
        for end in (self._wakeup_pipe, self.wakeup_fd):
            os.set_blocking(end, False)
        self._selector.register(self._wakeup_pipe, selectors.EVENT_READ, self._wake_up)

    def run_once(self, seconds: float = TICK) -> None:
        """Run the callbacks that are due. If there are none, wait for one or for a socket, but no
        longer than this."""
        ready = self._selector.select(0 if self._callbacks else seconds)
        end = time.monotonic() + TIME_SLICE
        for key, _ in ready:
            key.data()
            if time.monotonic() >= end:  # the next select reports the others again
                break
        end = time.monotonic() + TIME_SLICE
        while self._callbacks and time.monotonic() < end:
            function, connection = self._callbacks.popitem(last=False)[0]
            self._run_callback(function, connection)
        if time.monotonic() >= self._next_check:
            self._check_waits()

    def _run_callback(
        self, function: Callable[..., None], connection: ClientConnection, *args: Any
    ) -> None:
        try:
            function(connection, *args)
        except Exception as error:  # it ends this connection, not the process
            log.error("a connection failed", exc_info=error)
            if function != self._on_fault:
                self._run_callback(self._on_fault, connection)

    # Callbacks

    def call(self, function: Callback, connection: ClientConnection) -> None:
        """Have the loop call this function with this connection. Any thread may do so. If the same
        call is due already, it is made only once."""
        self._callbacks[function, connection] = None
        if not self._is_woken:
            self._is_woken = True
            try:
                os.write(self.wakeup_fd, b".")
            except BlockingIOError:  # the pipe is full, which wakes the loop, too
                pass

    def _wake_up(self) -> None:
        os.read(self._wakeup_pipe, 4096)
        # The flag is cleared after the read, so that a later `call` writes to the pipe again; and
        # before the callbacks run, so that a `call` that found the flag set, and wrote nothing, is
        # among those that run now.
        self._is_woken = False

    # Waiting

    def listen(self, listener: Any, accept: Callable[[], None]) -> None:
        """Call `accept` whenever a client is waiting to be accepted."""
        self._selector.register(listener, selectors.EVENT_READ, accept)

    def stop_listening(self, listener: Any) -> None:
        self._selector.unregister(listener)

    def watch(
        self,
        connection: ClientConnection,
        event: int,
        on_ready: Callback,
        seconds: float,
        on_drop: OnDrop,
        is_protected: bool = False,
        is_counted: bool = True,
    ) -> None:
        """Wait until the client sends something, or can be sent something, and call `on_ready`.

        After these seconds, call `on_drop` with RequestTimeout. It is called earlier, with
        Overloaded, in two cases: all connections together hold too many bytes, and this one holds
        the most; or too many connections wait, this one is not protected, and it has waited the
        longest. `is_counted` says whether it counts against the number that may wait."""
        self.unwatch(connection)
        now = time.monotonic()
        client_sends = event == selectors.EVENT_READ
        until = now + seconds
        if client_sends and until != ENDLESS:
            until = min(until, self._read_deadline)
        # The wait of a client that trickles its request in began with the request. That of a client
        # that reads its answer slowly begins anew with each byte that it reads.
        since = connection.first_byte_at if client_sends else now
        wait = Wait(event, since, until, connection.size(), is_protected, on_ready, on_drop)

        def on_event() -> None:
            if self._waits.get(connection) is wait:  # it was not dropped a moment ago
                self.unwatch(connection)
                self._run_callback(on_ready, connection)

        self._selector.register(connection.socket, event, on_event)
        self._waits[connection] = wait
        self._bytes += wait.size
        if is_counted:
            self._counted[connection] = wait
        if len(self._counted) > self._max_waiting:
            self._next_check = min(self._next_check, now + CROWDED_INTERVAL)
        self._drop_largest()

    def unwatch(self, connection: ClientConnection) -> None:
        wait = self._waits.pop(connection, None)
        if wait:
            self._selector.unregister(connection.socket)
            self._counted.pop(connection, None)
            self._bytes -= wait.size

    def reserve_memory(self, connection: ClientConnection) -> bool:
        """Count the memory of a connection while a thread works on it, until `release_memory` is
        called. Returns whether there is room; there always is for up to SMALL bytes."""
        size = connection.size()
        self._held_by_threads[connection] = size
        self._bytes += size
        self._drop_largest()
        return size <= SMALL or self._bytes <= self._max_bytes

    def release_memory(self, connection: ClientConnection) -> None:
        self._bytes -= self._held_by_threads.pop(connection, 0)

    def set_read_deadline(self, deadline: float) -> None:
        """Wait for clients to send something only until this time."""
        if deadline == self._read_deadline:
            return
        self._read_deadline, self._next_check = deadline, 0
        for wait in self._waits.values():
            if wait.event == selectors.EVENT_READ and wait.until != ENDLESS:
                wait.until = min(wait.until, deadline)

    # Dropping connections

    def _check_waits(self) -> None:
        now = time.monotonic()
        self._next_check = now + TIMEOUT_CHECK_INTERVAL
        # This process may have been suspended: what arrived meanwhile arrived in time.
        for key, _ in self._selector.select(0):
            key.data()
        for connection, wait in [*self._waits.items()]:
            if wait.until <= now:
                self._drop(connection, RequestTimeout())
        excess = len(self._counted) - self._max_waiting
        if excess > 0:
            self._next_check = now + CROWDED_INTERVAL
            due = [each for each, wait in self._counted.items() if wait.may_drop(now - MIN_WAIT)]
            due.sort(key=lambda each: self._counted[each].since)
            for connection in due[:excess]:
                self._drop(connection, Overloaded())

    def _drop_largest(self) -> None:
        while self._bytes > self._max_bytes and self._waits:
            largest = max(self._waits, key=lambda each: self._waits[each].size)
            if self._waits[largest].size <= SMALL:
                return
            self._drop(largest, Overloaded())

    def _drop(self, connection: ClientConnection, error: Exception) -> None:
        wait = self._waits.get(connection)
        if wait:  # unless an earlier callback ended the connection
            self.unwatch(connection)
            self._run_callback(wait.on_drop, connection, error)
