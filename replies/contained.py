"""Bugs in what many replies depend on: each costs what it is in, and has its stack in the log. An
outage costs all, so it is raised."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from database import Unavailable, mapped_errors
from logs import log

TOLD_INTERVAL = 10  # seconds from one time that the log is told of a step to the next

Thing = TypeVar("Thing")

_told: dict[str, float] = {}  # by what the log was told: when


@contextlib.contextmanager
def contained(failure: str) -> Iterator[None]:
    """A bug within this step, which is made again soon, costs no other step. Raises Unavailable."""
    try:
        with mapped_errors():
            yield
    except Unavailable:
        raise
    except Exception as error:
        tell_bug(failure, error)


def do_for_all(
    do: Callable[[Sequence[Thing]], None],
    things: Sequence[Thing],
    on_bug: Callable[[Thing, Exception], None],
) -> None:
    """Do this for all at once. Where a bug is in the way, do it for each alone, and tell `on_bug`
    of those in whose way it is. Raises Unavailable."""
    try:
        with mapped_errors():
            do(things)
        return
    except Unavailable:
        raise
    except Exception:
        pass  # those that have it raise it again
    for thing in things:
        try:
            with mapped_errors():
                do([thing])
        except Unavailable:
            raise
        except Exception as error:
            on_bug(thing, error)


def tell_bug(failure: str, error: Exception) -> None:
    """Log this failure, with the stack of the error, now and then."""
    now = time.monotonic()
    if now > _told.get(failure, 0) + TOLD_INTERVAL:
        _told[failure] = now
        log.error(failure, exc_info=error)
