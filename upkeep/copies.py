"""Writing a session that is there already, elsewhere or here: in short steps, unseen until it is
whole. What a dead process has begun is cleared away by the next sweep (`deletion.py`)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import processes
from database import DRIVER_ERRORS, Unavailable, connected, db, insertion, transaction
from models import Session
from upkeep.deletion import delete_session

STEP_SIZE = 2**20  # bytes of the texts that one transaction writes, or one text that is longer
STEP_ROWS = 500
UNKNOWN = "?"  # a process, on a system that has no names for them

T = TypeVar("T")
# Writes some turns of this session, which come behind this id; returns the id of the last.
Step = Callable[[Session, int], int]
# The columns of the session that are decided as it becomes the owner's; or raises.
Settle = Callable[[], dict[str, Any]]


def write(owner: str, session: Session, steps: Iterable[Step], settle: Settle = dict) -> Session:
    """Store this session, with the turns that the steps write, as the owner's. Where that fails,
    nothing is left of it."""
    session.owner, session.writer = "", processes.this_process() or UNKNOWN
    last = 0
    try:
        for number, step in enumerate(steps):
            with connected():
                last = _write(session, step, last, number == 0)
        with connected():
            return _publish(owner, session, settle)
    except BaseException:
        with contextlib.suppress(Unavailable, *DRIVER_ERRORS), connected():
            delete_session(session.id)
        raise


def in_steps(turns: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """These turns, so many at a time as one transaction writes. `size_of` are the bytes of one."""
    some: list[T] = []
    size = 0
    for turn in turns:
        more = size_of(turn)
        if some and (size + more > STEP_SIZE or len(some) == STEP_ROWS):
            yield some
            some, size = [], 0
        some.append(turn)
        size += more
    yield some


@transaction
def _write(session: Session, step: Step, last: int, is_first: bool) -> int:
    if is_first:
        session.imported_at = db.now()
        db.send(insertion(session))
    return step(session, last)


@transaction
def _publish(owner: str, session: Session, settle: Settle) -> Session:
    db.lock(owner)
    changes = {"owner": owner, "writer": None} | settle()
    published = Session.update(changes).where(Session.id == session.id, Session.owner == "")
    if not published.execute():  # it took so long that it was swept
        raise Unavailable("the session was cleared away before it was whole")
    return Session.get_owned(owner, session.id)
