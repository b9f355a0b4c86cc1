"""Writing: in short transactions, tried again where that helps, and watched."""

import contextlib
import functools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from peewee import IntegrityError, OperationalError

from database.connection import db
from database.deadline import WAIT, limit_time, remaining
from database.failures import Unavailable, mapped_errors, sqlstate_of
from database.sqlite import LONG

TRIES = 5  # of a transaction that the database gives up for another's sake
STUCK = 5  # seconds after which a transaction that waits, or writes, is taken for one without end
# PostgreSQL's SQLSTATEs of one that it gives up: serialization_failure, deadlock_detected.
GIVEN_UP = ("40001", "40P01")

P = ParamSpec("P")
R = TypeVar("R")

_storing_long_text = threading.Lock()
_begun: dict[object, float] = {}  # what is `monitored` → since when
_failed: dict[str, float] = {}  # `at`: when one failed, as long as none has succeeded since


@contextlib.contextmanager
def connected(seconds: float = WAIT) -> Iterator[None]:
    """A connection for this thread, which within this waits for the database so long at most. So a
    thread of our own cannot forget to limit its time."""
    limit_time(seconds)
    with db.connection_context():
        yield


@contextlib.contextmanager
def turn_to_store(text: str | None) -> Iterator[None]:
    """A long text is stored by one thread at a time. Many of them would have all connections, and
    a thread that stores a short one would wait for all of them. Raises Unavailable."""
    if len(text or "") < LONG:
        yield
        return
    if not _storing_long_text.acquire(timeout=remaining()):
        raise Unavailable("long texts are being stored")
    try:
        yield
    finally:
        _storing_long_text.release()


@contextlib.contextmanager
def monitored() -> Iterator[None]:
    """`check` is told where what is done within this takes too long, or raises Unavailable."""
    step = object()
    _begun[step] = time.monotonic()
    try:
        with mapped_errors():
            yield
    except Unavailable:
        _failed["at"] = time.monotonic()
        raise
    finally:
        del _begun[step]


def transaction(function: Callable[P, R]) -> Callable[P, R]:
    """Do the function in one write transaction: again where the database gives it up for another's
    sake, or chance gave an id twice. Raises Unavailable."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with monitored():
            number = 0
            while True:
                number += 1
                try:
                    with db.write():
                        result = function(*args, **kwargs)
                    _failed.clear()
                    return result
                except (IntegrityError, OperationalError) as error:
                    if number == TRIES or not _is_worth_another_try(error):
                        raise
                time.sleep(random.uniform(0, 0.01 * 2**number))

    return wrapper


def _is_worth_another_try(error: IntegrityError | OperationalError) -> bool:
    return isinstance(error, IntegrityError) or sqlstate_of(error) in GIVEN_UP


def check() -> None:
    """Raises Unavailable where nobody can write, or a step of this process does not end, or has
    failed lately."""
    limit_time()
    with db.connection_context():
        db.check()
    now = time.monotonic()
    is_stuck = any(since < now - STUCK for since in list(_begun.values()))
    if is_stuck or _failed.get("at", -math.inf) > now - STUCK - 2:
        raise Unavailable("what is to be written does not end, or failed")
