"""The doors of a process: the listeners by which clients come, as long as there is room."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from serving.loop import TICK, Loop

LET_IN = 64  # clients that are let in at a time, if no other process takes them


class Doors:
    """`welcome` is called with the socket of who comes, its address, and that of the listener."""

    def __init__(
        self,
        listeners: Sequence[Any],
        loop: Loop,
        has_room: Callable[[], bool],
        welcome: Callable[[Any, Any, Any], None],
    ) -> None:
        self._listeners, self._loop, self._has_room = listeners, loop, has_room
        self._welcome, self._are_open, self._opens_at = welcome, False, 0.0
        self._has_come, self._most = False, 1  # in this turn: anybody; clients that are let in

    def look(self) -> None:
        """Let the loop listen, or not; of several processes, another one may have room. Called once
        in each turn of the loop."""
        self._most = min(4 * self._most, LET_IN) if self._has_come else 1
        self._has_come = False
        is_wanted = self._has_room() and time.monotonic() >= self._opens_at
        if is_wanted == self._are_open:
            return
        self._are_open = is_wanted
        for listener in self._listeners:
            if is_wanted:
                self._loop.listen(listener, functools.partial(self._let_in, listener))
            else:
                self._loop.stop_listening(listener)

    def close(self) -> None:
        """Let in who has connected already, as long as there is room, and refuse from now on who
        comes. The listeners of the master and of other processes are theirs."""
        self._opens_at = float("inf")
        self.look()
        for listener in self._listeners:
            while self._let_one_in(listener):
                pass
            listener.close()

    def _let_in(self, listener: Any) -> None:
        """One, so that another process may have the next; more in each turn of the loop in which no
        other has taken them."""
        self._has_come = True
        for _ in range(self._most):
            if not self._let_one_in(listener):
                break

    def _let_one_in(self, listener: Any) -> bool:
        """Returns whether there was one."""
        if not self._has_room():
            return False
        try:
            accepted, address = listener.accept()
        except ConnectionAbortedError:  # the client has gone
            return True
        except BlockingIOError:  # another process has it, or nobody came
            return False
        except OSError:  # no file is left: the client waits until one is closed
            self._opens_at = max(self._opens_at, time.monotonic() + TICK)
            return False
        self._welcome(accepted, address, listener.getsockname())
        return True
