"""Write an imported or forked session in short transactions, invisible until it is complete.

If the process dies before that, a sweep deletes what it has written; `maintenance/sweeper.py` says
when.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import processes
from database import Unavailable, connected, db, insertion, transaction
from maintenance import deletion
from models import Session

STEP_SIZE = 2**20  # bytes of text in one transaction, unless a single text is longer
STEP_ROWS = 500
UNKNOWN = "?"  # the process, on a system where `processes` cannot name it

T = TypeVar("T")
# Inserts some turns of this session, with ids after this one. Returns the id of the last.
Step = Callable[[Session, int], int]
# Runs in the last transaction. Returns the last changes to the session's columns, or raises.
LastChanges = Callable[[], dict[str, Any]]


def write(
    owner: str, session: Session, steps: Iterable[Step], size: int, last_changes: LastChanges = dict
) -> Session:
    """Store this session with the turns that the steps write, whose texts have `size` bytes
    together. The last transaction gives it to the owner. If a step fails, everything is deleted
    again, by the sweeper if the database cannot be reached. Raises Unavailable, and whatever a step
    or `last_changes` raises."""
    session.owner, session.writer = "", processes.this_process() or UNKNOWN
    session.size = size
    last, is_begun = 0, False
    try:
        for step, following in itertools.pairwise(itertools.chain(steps, [None])):
            with connected():
                if following is None:
                    return _write_last(owner, session, step, last, is_begun, last_changes)
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
    """These turns in lists, one for each transaction. `size_of` gives the bytes of a turn."""
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
    owner: str, session: Session, step: Step, last: int, is_begun: bool, last_changes: LastChanges
) -> Session:
    db.lock(owner)  # before any rows, in the same order as a claim with a key
    _insert(session, step, last, is_begun)
    changes = {"owner": owner, "writer": None, "updated_at": session.updated_at} | last_changes()
    changes["sized_at"] = changes["updated_at"]
    Session.update(changes).where(Session.id == session.id).execute()
    return Session.get_owned(owner, session.id)


def _insert(session: Session, step: Step, last: int, is_begun: bool) -> int:
    if is_begun:
        is_this = Session.id == session.id, Session.owner == ""
        db.lock_rows(Session.select(Session.id).where(*is_this))
        if not Session.select().where(*is_this).exists():
            raise Unavailable("it took so long that a sweep has deleted what was written")
    else:
        session.imported_at = db.now()
        db.send(insertion(session))
    return step(session, last)
