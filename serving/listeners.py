"""The listening sockets of a process: they accept connections as long as it has room."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from serving.loop import TICK, Loop

MOST_ACCEPTED = 64  # connections accepted per turn of the loop, if no other process takes them


class Listeners:
    """The listening sockets. `has_room` says whether one more client may connect; `on_connect` gets
    the socket of each new client, the client's address, and the listener's address."""

    def __init__(
        self,
        listeners: Sequence[Any],
        loop: Loop,
        has_room: Callable[[], bool],
        on_connect: Callable[[Any, Any, Any], None],
    ) -> None:
        self._listeners, self._loop, self._has_room = listeners, loop, has_room
        self._on_connect, self._is_listening, self._paused_until = on_connect, False, 0.0
        # Whether a client has connected in this turn of the loop, and how many clients may be
        # accepted in it.
        self._had_client, self._batch = False, 1

    def listen_if_room(self) -> None:
        """Listen if there is room, otherwise stop listening: clients that this process does not
        accept are left to the other processes. This is called once in each turn of the loop."""
        self._batch = min(4 * self._batch, MOST_ACCEPTED) if self._had_client else 1
        self._had_client = False
        is_wanted = self._has_room() and time.monotonic() >= self._paused_until
        if is_wanted == self._is_listening:
            return
        self._is_listening = is_wanted
        for listener in self._listeners:
            if is_wanted:
                self._loop.listen(listener, functools.partial(self._accept_some, listener))
            else:
                self._loop.stop_listening(listener)

    def close(self) -> None:
        """Accept the clients that have connected already, as long as there is room, and close our
        listeners. The master and other processes have their own copies, which stay open."""
        self._paused_until = float("inf")
        self.listen_if_room()
        for listener in self._listeners:
            while self._accept_one(listener):
                pass
            listener.close()

    def _accept_some(self, listener: Any) -> None:
        """Accept one client, so that other processes get their share. In each further turn of the
        loop in which clients are still waiting, accept four times as many, up to MOST_ACCEPTED."""
        self._had_client = True
        for _ in range(self._batch):
            if not self._accept_one(listener):
                break

    def _accept_one(self, listener: Any) -> bool:
        """Accept one client; returns whether one was waiting."""
        if not self._has_room():
            return False
        try:
            accepted, address = listener.accept()
        except ConnectionAbortedError:  # the client has gone
            return True
        except BlockingIOError:  # another process was faster, or no client is waiting
            return False
        except OSError:  # no file descriptor is left: the client waits until one is closed
            self._paused_until = max(self._paused_until, time.monotonic() + TICK)
            return False
        self._on_connect(accepted, address, listener.getsockname())
        return True
