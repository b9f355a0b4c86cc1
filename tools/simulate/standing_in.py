"""What stands in for the system: its time, its threads, its chance, the numbers of its processes.

It is installed before any module of the product is imported. They then find it in place of Python's
own, and need no change for it.
"""

import secrets
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from simulate.machine import Machine

EPOCH = 1_764_547_200  # seconds since 1970, at which the machine's clock began


class System:
    """The machine of the current run."""

    machine: Machine


def now() -> float:
    return System.machine.now if hasattr(System, "machine") else 0.0


def sleep(seconds: float) -> None:
    System.machine.wait(seconds)


class Event:
    """Like `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, seconds: float | None = None) -> bool:
        if self._is_set or seconds == 0:
            return self._is_set
        return System.machine.wait(seconds, self.is_set)


class Condition:
    """Like `threading.Condition`. No other task runs in between, so there is nothing to lock."""

    def __init__(self, lock: Any = None) -> None:
        self._notified = 0

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass

    def notify(self, n: int = 1) -> None:
        self._notified += 1

    notify_all = notify

    def wait(self, seconds: float | None = None) -> bool:
        before = self._notified
        return System.machine.wait(seconds, lambda: self._notified != before)

    def wait_for(self, predicate: Callable[[], Any], seconds: float | None = None) -> Any:
        if not predicate() and seconds != 0:
            System.machine.wait(seconds, lambda: bool(predicate()))
        return predicate()


class Thread:
    """Like `threading.Thread`: a task of the process that starts it."""

    def __init__(
        self, target: Callable[..., Any], args: Any = (), name: str = "", **_: Any
    ) -> None:
        self._target, self._args, self._name = target, args, name
        self._is_alive = False

    def start(self) -> None:
        machine = System.machine
        self._is_alive = True
        machine.spawn(self._name, machine.home, self._target, *self._args)

    def is_alive(self) -> bool:
        return self._is_alive


class Threads:
    """Like `limits.CachedThreads`."""

    def start(self, function: Callable[..., Any], *given: Any) -> None:
        machine = System.machine
        machine.spawn(function.__name__.strip("_"), machine.home, function, *given)


def install() -> None:
    threading.Event, threading.Condition = Event, Condition  # type: ignore[assignment, misc]
    threading.Thread = Thread  # type: ignore[assignment, misc]
    time.monotonic, time.sleep = now, sleep  # type: ignore[assignment]
    time.time = lambda: EPOCH + now()
    time.time_ns = lambda: int((EPOCH + now()) * 1_000_000_000)
    secrets.randbits = lambda k: System.machine.chance.numbers.getrandbits(k)
    uuid.uuid4 = lambda: uuid.UUID(int=System.machine.chance.numbers.getrandbits(128), version=4)


def install_processes() -> None:
    """Called once the product is imported: how its processes know each other."""
    import processes

    processes.machine = lambda: System.machine.home.host  # type: ignore[assignment]
    processes.this_process = lambda: System.machine.home.name
    processes.is_dead = lambda name: System.machine.home.knows_dead(name)
