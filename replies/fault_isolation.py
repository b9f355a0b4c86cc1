"""Keeps a bug in one reply, or in one step, from stopping all others. The bug is logged with its
stack. An outage of the database concerns them all, so Unavailable is raised."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from database import Unavailable, mapped_errors
from logs import log

LOG_INTERVAL = 10  # seconds between two lines of the log about the same failure

Item = TypeVar("Item")

_logged: dict[tuple[str, type], float] = {}  # (failure, type of the error) → when it was logged


@contextlib.contextmanager
def contained(failure: str) -> Iterator[None]:
    """Log a bug within this step, and continue: the keeper soon repeats each of its steps. Raises
    Unavailable."""
    try:
        with mapped_errors():
            yield
    except Unavailable:
        raise
    except Exception as error:
        log_bug(failure, error)


def do_for_all(
    do: Callable[[Sequence[Item]], None],
    items: Sequence[Item],
    on_bug: Callable[[Item, Exception], None],
) -> None:
    """Call `do` for all items together. If that fails because of a bug, call it for each alone,
    and `on_bug` for those that fail. Raises Unavailable."""
    bug_in_all = _bug_in(do, items)
    if bug_in_all is None:
        return
    is_found = False
    for item in items:
        if bug := _bug_in(do, [item]):
            is_found = True
            on_bug(item, bug)
    if not is_found:
        log_bug("a step failed for several items together, but for none of them alone", bug_in_all)


def _bug_in(do: Callable[[Sequence[Item]], None], items: Sequence[Item]) -> Exception | None:
    """Call `do`. Returns the bug if there is one. Raises Unavailable."""
    try:
        with mapped_errors():
            do(items)
    except Unavailable:
        raise
    except Exception as error:
        return error
    return None


def log_bug(failure: str, error: Exception) -> None:
    """Log this failure with the stack of the error, unless that was done a few seconds ago."""
    now, bug = time.monotonic(), (failure, type(error))
    if now > _logged.get(bug, -LOG_INTERVAL) + LOG_INTERVAL:
        _logged[bug] = now
        log.error(failure, exc_info=error)
