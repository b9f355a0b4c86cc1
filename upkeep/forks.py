"""Forking a session: a copy of what is shown up to a turn, of which the model is told the
same."""

import functools
import uuid
from typing import Any, NamedTuple

from peewee import SQL, fn

from database import connected, db, transaction
from models import IN_PROGRESS, LONGEST_PAGE, PREVIEW, Missing, Refused, Session, Thought, Turn
from replies.claim import count_request, new_turn_id
from tables import given
from tables.idempotency import NO_TURN, IdempotencyKey
from upkeep import copies, storage

KEPT = (
    "title",
    "title_is_users",
    "search_title",
    "model",
    "provider",
    "system",
    "options",
    "created_at",
    "updated_at",
)


class _Source(NamedTuple):
    """A turn that is copied."""

    id: int
    status: str | None
    size: int  # bytes
    thinking: int  # bytes


class _IsKnown(Exception):
    """The key has made this session already."""

    def __init__(self, session_id: uuid.UUID) -> None:
        super().__init__()
        self.session_id = session_id


def fork(
    owner: str,
    session_id: uuid.UUID,
    turn_id: str | None,
    storage_limit: int,
    rate_limit: tuple[int, int] | None,
    key: IdempotencyKey | None = None,
) -> Session:
    """A new session of the owner with the turns that are shown up to and including this one, or
    all; if the key is known, the one that it has made. Raises Missing if there is no such turn, or
    that session was deleted; Refused if the turn is being written, the copy is too long, a limit is
    reached, or the session changes meanwhile; UnprocessableEntity if the key came with another
    body."""
    try:
        with connected():
            _refuse_known(key)
        return _fork(owner, session_id, turn_id, storage_limit, rate_limit, key)
    except _IsKnown as known:
        with connected():
            return Session.get_owned(owner, known.session_id)


def _refuse_known(key: IdempotencyKey | None) -> None:
    """Raises _IsKnown if the key has made a session."""
    if key and (known := key.known(db.now())):
        raise _IsKnown(known.session_id)


def _fork(
    owner: str,
    session_id: uuid.UUID,
    turn_id: str | None,
    storage_limit: int,
    rate_limit: tuple[int, int] | None,
    key: IdempotencyKey | None,
) -> Session:
    with connected():
        original = Session.get_owned(owner, session_id)
        sources = _up_to(turn_id, _shown(original))
    _check(sources, original.system_size)
    with connected():
        original.read_system()
    size = sum(map(_size_of, sources))
    storage.check_room(owner, size, storage_limit)
    ids: dict[int, int] = {}  # of the turns, in the copy
    steps = (_step(original, some, ids) for some in copies.in_steps(sources, _size_of))
    session = Session(**{name: getattr(original, name) for name in KEPT})
    if rate_limit:
        with connected():
            _count(owner, rate_limit, session.id)
    settle = functools.partial(_settle, session, original.trim, ids, key)
    return copies.write(owner, session, steps, size, settle)


@transaction
def _count(owner: str, rate_limit: tuple[int, int], fork_id: uuid.UUID) -> None:
    """Count a fork as a reply that was requested in it. Raises Refused."""
    db.lock(owner)
    count_request(owner, rate_limit, db.now(), fork_id, is_fork=True)


def _shown(session: Session) -> list[_Source]:
    size, of_thoughts = db.size_of(Turn.content), fn.SUM(db.size_of(Thought.text))
    thinking = fn.COALESCE(Thought.select(of_thoughts).where(Thought.turn == Turn.id), 0)
    columns = Turn.id, Turn.status, size, thinking
    rows = Turn.select(*columns).where(Turn.session == session, Turn.visible)
    return [_Source(*row) for row in rows.order_by(Turn.id).tuples()]


def _up_to(turn_id: str | None, sources: list[_Source]) -> list[_Source]:
    if turn_id is None:
        return sources
    for number, source in enumerate(sources, 1):
        if str(source.id) == turn_id:
            return sources[:number]
    raise Missing("There is no such turn in this session. Look it up in its turns.")


def _check(sources: list[_Source], system_size: int) -> None:
    """Raises Refused if these, and a system prompt of so many bytes, cannot be copied."""
    if not sources:
        raise Missing("The session was deleted.")
    if sources[-1].status == IN_PROGRESS:
        message = "The reply is under way. Wait until it is done, or fork before it."
        raise Refused(message, retry_after=1)
    if system_size + sum(source.size for source in sources) > LONGEST_PAGE:
        message = f"Fork at an earlier turn: a copy has at most {LONGEST_PAGE:,} bytes."
        raise Refused(message, status=413)


def _size_of(source: _Source) -> int:
    return source.size + source.thinking


def _step(original: Session, sources: list[_Source], ids: dict[int, int]) -> copies.Step:
    def step(session: Session, last: int) -> int:
        _hold(original)
        now = db.now()
        for source in sources:
            ids[source.id] = last = new_turn_id(now, last)
        pairs = [(source.id, ids[source.id]) for source in sources]
        statement = given("copy_turns", pairs)
        db.send(SQL(statement.sql, [*statement.params, session.key]))
        if any(source.thinking for source in sources):
            db.send(given("copy_thoughts", pairs))
        return last

    return step


def _hold(original: Session) -> None:
    """Nobody changes the turns from here on. Raises Refused where somebody has."""
    is_same = Session.id == original.id, Session.updated_at == original.updated_at
    is_owned = Session.owner == original.owner
    db.hold(Session.select(Session.id).where(Session.id == original.id))
    if not Session.select().where(*is_same, is_owned).exists():
        raise Refused("The session was changed meanwhile. Ask again.", retry_after=1)


def _settle(
    session: Session, trim: int | None, ids: dict[int, int], key: IdempotencyKey | None
) -> dict[str, Any]:
    """The preview of the copy, and where its model's memory begins. Raises _IsKnown if another
    request with this key was faster."""
    _refuse_known(key)
    if key:
        key.remember(session.id, NO_TURN, db.now())
    has_text = Turn.session == session, Turn.content != ""
    texts = Turn.select(fn.SUBSTR(Turn.content, 1, PREVIEW)).where(*has_text)
    return {
        "preview": texts.order_by(Turn.id.desc()).limit(1).scalar(),
        "trim": _trim_of(trim, ids),
    }


def _trim_of(trim: int | None, ids: dict[int, int]) -> int | None:
    """The turn from which on the model is sent what is said, as its copy; perhaps the one behind
    all. None where it has not been said here yet."""
    if not trim:
        return trim
    last = max(ids)
    if trim == last + 1:
        return ids[last] + 1
    return next((copy for source, copy in sorted(ids.items()) if source >= trim), None)
