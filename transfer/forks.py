"""Fork a session: copy its visible turns up to one of them, and where the model's context
starts."""

import functools
import uuid
from typing import Any, NamedTuple

from peewee import SQL, fn

from database import connected, db, transaction
from maintenance import storage
from models import IN_PROGRESS, LONGEST_PAGE, Missing, Refused, Session, Thought, Turn
from replies.claim import count_request, new_turn_id, newest_preview
from tables import given
from tables.columns import described_for, listed
from tables.idempotency import NO_TURN, IdempotencyKey
from transfer import staged_session

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
COPIED = described_for(Turn, "copied")


class _SourceTurn(NamedTuple):
    """A turn to copy."""

    id: int
    status: str | None
    size: int  # bytes
    thinking: int  # bytes
    has_files: bool


class _AlreadyForked(Exception):
    """The idempotency key has made this session already."""

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
    """A new session of the owner with the visible turns up to and including this one, or all; or
    the session that this key has made before. Raises Missing if there is no such turn, or the
    session has been deleted; Refused if the turn is being written, the copy is too long, a limit is
    reached, or the session changes while it is copied; UnprocessableEntity if the key was used with
    another body."""
    try:
        with connected():
            _refuse_repeated(key)
            original = Session.get_owned(owner, session_id)
            sources = _up_to(turn_id, original)
            _check(sources, original.system_size)
            original.read_system()
        size = sum(map(_size_of, sources))
        storage.check_room(owner, size, storage_limit)
        session = Session(**{name: getattr(original, name) for name in KEPT})
        if rate_limit:
            with connected():
                _count_request(owner, rate_limit, session.id)
        ids: dict[int, int] = {}  # of the copies, by those of the turns
        steps = (_step(original, some, ids) for some in staged_session.in_steps(sources, _size_of))
        last_changes = functools.partial(_last_changes, session, original, ids, key)
        return staged_session.write(owner, session, steps, size, last_changes)
    except _AlreadyForked as known:
        with connected():
            return Session.get_owned(owner, known.session_id)


def _refuse_repeated(key: IdempotencyKey | None) -> None:
    """Raises _AlreadyForked if the key has made a session."""
    if key and (known := key.known(db.now())):
        raise _AlreadyForked(known.session_id)


@transaction
def _count_request(owner: str, rate_limit: tuple[int, int], fork_id: uuid.UUID) -> None:
    """Count a fork as a reply that was requested in it. Raises Refused."""
    db.lock(owner)
    count_request(owner, rate_limit, db.now(), fork_id, is_fork=True)


def _sources(*conditions: Any) -> list[_SourceTurn]:
    size, of_thoughts = db.size_of(Turn.content), fn.SUM(db.size_of(Thought.text))
    thinking = fn.COALESCE(Thought.select(of_thoughts).where(Thought.turn == Turn.id), 0)
    columns = Turn.id, Turn.status, size, thinking, Turn.files.is_null(False)
    rows = Turn.select(*columns).where(*conditions).order_by(Turn.id)
    return [_SourceTurn(*row) for row in rows.tuples()]


def _up_to(turn_id: str | None, session: Session) -> list[_SourceTurn]:
    """The turns to copy. A version is copied in the place of its reply."""
    if turn_id is None:
        return _sources(Turn.session == session, Turn.visible)
    last = Turn.find(session.id, turn_id, or_version=True)
    is_before = Turn.visible & (Turn.id < last.id)
    return _sources(Turn.session == session, is_before | (Turn.id == last.id))


def _check(sources: list[_SourceTurn], system_size: int) -> None:
    """Raises Refused if these turns, and a system prompt of so many bytes, cannot be copied."""
    if not sources:
        raise Missing("The session was deleted.")
    if sources[-1].status == IN_PROGRESS:
        message = "The reply is in progress. Wait until it is done, or fork at an earlier turn."
        raise Refused(message, retry_after=1)
    if system_size + sum(source.size for source in sources) > LONGEST_PAGE:
        message = f"Fork at an earlier turn: a copy has at most {LONGEST_PAGE:,} bytes."
        raise Refused(message, status=413)


def _size_of(source: _SourceTurn) -> int:
    return source.size + source.thinking


def _step(
    original: Session, sources: list[_SourceTurn], ids: dict[int, int]
) -> staged_session.Step:
    def step(session: Session, last: int) -> int:
        _lock_original(original)
        now = db.now()
        for source in sources:
            ids[source.id] = last = new_turn_id(now, last)
        pairs = [(source.id, ids[source.id]) for source in sources]
        values = {"columns": listed(COPIED), "values": listed(COPIED, "turn.{}")}
        statement = given("copy_turns", pairs, **values)
        db.send(SQL(statement.sql, [*statement.params, session.key]))
        if any(source.thinking for source in sources):
            db.send(given("copy_thoughts", pairs))
        if any(source.has_files for source in sources):
            db.send(given("copy_files", pairs))
        return last

    return step


def _lock_original(original: Session) -> None:
    """Lock the session, so that nobody changes its turns. Raises Refused if somebody has changed
    it."""
    is_same = Session.id == original.id, Session.updated_at == original.updated_at
    is_owned = Session.owner == original.owner
    db.lock_rows(Session.select(Session.id).where(Session.id == original.id))
    if not Session.select().where(*is_same, is_owned).exists():
        raise Refused("The session has just changed. Try again.", retry_after=1)


def _last_changes(
    session: Session, original: Session, ids: dict[int, int], key: IdempotencyKey | None
) -> dict[str, Any]:
    """The preview of the copy, and which of its turns and images models are sent. Raises
    _AlreadyForked if another request with this key was faster."""
    _refuse_repeated(key)
    if key:
        key.remember(session.id, NO_TURN, db.now())
    starts = {model: _copy_of(start, ids) for model, start in original.images_start.items()}
    return {
        "preview": newest_preview(Turn.session == session),
        "context_start": _copy_of(original.context_start, ids),
        "images_start": {model: start for model, start in starts.items() if start},
    }


def _copy_of(start: int | None, ids: dict[int, int]) -> int | None:
    """The copy of a turn from which on something is sent to the model: of `start`, which may also
    be the next turn after all. None if the copied turns end before it."""
    if not start:
        return start
    last = max(ids)
    if start == last + 1:
        return ids[last] + 1
    return next((copy for source, copy in sorted(ids.items()) if source >= start), None)
