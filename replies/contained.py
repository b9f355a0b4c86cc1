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

_told: dict[tuple[str, type], float] = {}  # by what the log was told: when


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
    except Exception as error:
        of_all = error
    is_found = False
    for thing in things:
        try:
            with mapped_errors():
                do([thing])
        except Unavailable:
            raise
        except Exception as error:
            is_found = True
            on_bug(thing, error)
    if not is_found:
        tell_bug("what fails at once does not fail alone", of_all)


def tell_bug(failure: str, error: Exception) -> None:
    """Log this failure, with the stack of the error, now and then."""
    now, told = time.monotonic(), (failure, type(error))
    if now > _told.get(told, 0) + TOLD_INTERVAL:
        _told[told] = now
        log.error(failure, exc_info=error)
