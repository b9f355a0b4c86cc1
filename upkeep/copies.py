"""Writing a session that is there already, elsewhere or here: in short steps, unseen until it is
whole. What a dead process has begun is cleared away by the next sweep (`deletion.py`)."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import processes
from database import Unavailable, connected, db, insertion, transaction
from models import Session
from upkeep import deletion

STEP_SIZE = 2**20  # bytes of the texts that one transaction writes, or one text that is longer
STEP_ROWS = 500
UNKNOWN = "?"  # a process, on a system that has no names for them

T = TypeVar("T")
# Writes some turns of this session, which come behind this id; returns the id of the last.
Step = Callable[[Session, int], int]
# The columns of the session that are decided as it becomes the owner's; or raises.
Settle = Callable[[], dict[str, Any]]


def write(
    owner: str, session: Session, steps: Iterable[Step], size: int, settle: Settle = dict
) -> Session:
    """Store this session, with the turns that the steps write, which have texts of so many bytes
    together, as the owner's; the last step gives it to the owner. If one fails, nothing is left; if
    the database is away, the sweeper deletes what was written as soon as it is back. Raises
    Unavailable, and what a step or `settle` raises."""
    session.owner, session.writer = "", processes.this_process() or UNKNOWN
    session.size = size
    last, is_begun = 0, False
    try:
        for step, following in itertools.pairwise(itertools.chain(steps, [None])):
            with connected():
                if following is None:
                    return _write_last(owner, session, step, last, is_begun, settle)
                last = transaction(_insert)(session, step, last, is_begun)
            is_begun = True
    except BaseException as error:
        if is_begun:
            deletion.backlog.add(session.id)
        if is_begun and not isinstance(error, Unavailable):
            with connected():
                deletion.delete_session(session.id)
        raise
    raise ValueError("without a step there is no session")


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
    if some:
        yield some


@transaction
def _write_last(
    owner: str, session: Session, step: Step, last: int, is_begun: bool, settle: Settle
) -> Session:
    db.lock(owner)  # before any rows, as a claim with a key does
    _insert(session, step, last, is_begun)
    changes = {"owner": owner, "writer": None, "updated_at": session.updated_at} | settle()
    changes["sized_at"] = changes["updated_at"]
    Session.update(changes).where(Session.id == session.id).execute()
    return Session.get_owned(owner, session.id)


def _insert(session: Session, step: Step, last: int, is_begun: bool) -> int:
    if is_begun:
        is_its = Session.id == session.id, Session.owner == ""
        db.hold(Session.select(Session.id).where(*is_its))
        if not Session.select().where(*is_its).exists():
            raise Unavailable("it took so long that what was written was cleared away")
    else:
        session.imported_at = db.now()
        db.send(insertion(session))
    return step(session, last)
