"""Write transactions: short, retried if that helps, and monitored for /health."""

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
from database.sqlite import LONG_TEXT

TRIES = 5  # of a transaction that the database aborts in favour of another
STUCK_AFTER = 5  # seconds after which a transaction counts as stuck
# PostgreSQL's SQLSTATEs for such aborts: serialization_failure, deadlock_detected.
ABORTED = ("40001", "40P01")

P = ParamSpec("P")
R = TypeVar("R")

_long_text_lock = threading.Lock()
_running: dict[object, float] = {}  # each `monitored` step that is running → when it began
_failed: dict[str, float] = {}  # `at`: when the last one failed, unless one has succeeded since
_outages: set[object] = set()  # those that are not over


@contextlib.contextmanager
def connected(seconds: float = WAIT) -> Iterator[None]:
    """A connection for this thread, which may wait for the database so long in all. For threads of
    our own, so that none forgets its time limit."""
    limit_time(seconds)
    with db.connection_context():
        yield


@contextlib.contextmanager
def long_write_lock(text: str | None) -> Iterator[None]:
    """Let one thread at a time store a long text: many could occupy all connections, and a thread
    with a short text would wait for all of them. Raises Unavailable."""
    if len(text or "") < LONG_TEXT:
        yield
        return
    if not _long_text_lock.acquire(timeout=remaining()):
        raise Unavailable("long texts are being stored")
    try:
        yield
    finally:
        _long_text_lock.release()


@contextlib.contextmanager
def monitored() -> Iterator[None]:
    """Let `check` know if a step within this takes too long, or raises Unavailable."""
    step = object()
    _running[step] = time.monotonic()
    try:
        with mapped_errors():
            yield
    except Unavailable:
        _failed["at"] = time.monotonic()
        raise
    finally:
        del _running[step]


def transaction(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: run the function in a write transaction, and again if the database aborts it in
    favour of another, or if a random id is taken. Raises Unavailable."""

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
                    if number == TRIES or not _may_retry(error):
                        raise
                time.sleep(random.uniform(0, 0.01 * 2**number))

    return wrapper


def _may_retry(error: IntegrityError | OperationalError) -> bool:
    return isinstance(error, IntegrityError) or sqlstate_of(error) in ABORTED


def begin_outage(outage: object) -> None:
    """Have `check` raise Unavailable until `end_outage`, even if transactions succeed meanwhile:
    one table may be locked while others can be written."""
    _outages.add(outage)


def end_outage(outage: object) -> None:
    _outages.discard(outage)


def check() -> None:
    """Raises Unavailable if nobody can write, if a step of this process is stuck or has failed in
    the last seconds, or if an outage is not over."""
    limit_time()
    with db.connection_context():
        db.check()
    now = time.monotonic()
    is_stuck = any(since < now - STUCK_AFTER for since in list(_running.values()))
    if _outages or is_stuck or _failed.get("at", -math.inf) > now - STUCK_AFTER - 2:
        raise Unavailable("what is to be written does not end, or failed")
