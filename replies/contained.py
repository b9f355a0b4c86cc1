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
    of_all = _bug_in(do, things)
    if of_all is None:
        return
    is_found = False
    for thing in things:
        if bug := _bug_in(do, [thing]):
            is_found = True
            on_bug(thing, bug)
    if not is_found:
        tell_bug("what fails at once does not fail alone", of_all)


def _bug_in(do: Callable[[Sequence[Thing]], None], things: Sequence[Thing]) -> Exception | None:
    """Do this; returns the bug that was in the way, if there was one. Raises Unavailable."""
    try:
        with mapped_errors():
            do(things)
    except Unavailable:
        raise
    except Exception as error:
        return error
    return None


def tell_bug(failure: str, error: Exception) -> None:
    """Log this failure, with the stack of the error, now and then."""
    now, told = time.monotonic(), (failure, type(error))
    if now > _told.get(told, -TOLD_INTERVAL) + TOLD_INTERVAL:
        _told[told] = now
        log.error(failure, exc_info=error)
