"""The transactions that store replies, and the queries for the replies of other processes. Every
write names its writer's fence, so a late write of an earlier writer changes nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import processes
from database import SECOND, db, transaction
from models import (
    IN_PROGRESS,
    LEASE,
    PREVIEW,
    RELEASED,
    Refused,
    Session,
    Thought,
    Turn,
)
from replies.draft import Draft
from replies.thinking import NewThoughts
from tables import given, statements
from tables.columns import described_for
from tables.idempotency import IdempotencyKey
from tables.ledger import TOKENS, Usage
from tables.search import normalize


class Changes(NamedTuple):
    """Columns that a statement sets to values from its table `given`."""

    columns: tuple[tuple[str, str], ...]  # their names and types
    sql: str  # the assignments


def _changes_of(use: str) -> Changes:
    fields = described_for(Turn, use)
    sql = ", ".join(f"{field.column_name} = given.{field.name}" for field in fields)
    return Changes(tuple((field.name, field.field_type) for field in fields), sql)


# The columns that an end sets; and those that only the writer knows, which it may set after the
# end.
END_COLUMNS, WRITER_COLUMNS = _changes_of("at_end"), _changes_of("told_late")


class NewPiece(NamedTuple):
    """New text of a reply."""

    turn_id: int
    fence: int
    start: int  # characters before it
    text: str


class Stored(NamedTuple):
    """The ids of the replies that a commit has stored. For any other reply, the row was deleted,
    has ended, has another process's fence, or has more than this process assumes: an earlier
    commit, which was not answered, has come through."""

    stored_whole: set[int]  # replies of which all text, and the end or the hand-over, was stored
    counted: set[int]  # replies in progress of which the usage was stored


class Orphan(NamedTuple):
    """A reply in progress that was handed over, or whose process seems to have died."""

    turn_id: int
    lease: int
    restarts: int
    owner: str
    is_dead: bool  # the process is known to have died; otherwise only its lease has lapsed


class News(NamedTuple):
    """The state of a reply in the database."""

    status: str
    fence: int | None
    title: str  # of its session
    thinking_characters: int  # that are stored
    text: str  # after the requested position


@transaction
def store(
    pieces: Sequence[NewPiece],
    finished: Sequence[Draft],
    in_progress: Sequence[Draft] = (),
    thoughts: Sequence[NewThoughts] = (),
) -> Callable[[], Stored]:
    """Store new pieces of text and thoughts; the ends or hand-overs of the replies in `finished`;
    and the usage of the replies in `in_progress`. Returns a function that returns, once the
    transaction has ended, what was stored. It does not report thoughts, since those may be lost."""
    ending, released = _split(finished)
    if ending:
        _lock_rows("lock_sessions", {draft.turn.session_id for draft in ending})
    ids = {piece.turn_id for piece in pieces}.union(
        draft.turn.id for draft in [*finished, *in_progress]
    )
    ids |= {new.turn_id for new in thoughts}
    if len(ids) > 1:  # one row alone needs no order of locks
        _lock_rows("lock_turns", ids)
    added_pieces = db.send(given("add_pieces", pieces)) if pieces else list
    if thoughts:
        _store_thoughts(thoughts)
    counted = _change("store_usage", in_progress, WRITER_COLUMNS, reply="goes on")
    released = _change("store_usage", released, WRITER_COLUMNS, reply="released")
    ended = end(ending, [*released, *counted])

    def stored() -> Stored:
        added_ids = {turn_id for (turn_id,) in added_pieces()}
        finished_ids = {draft.turn.id for draft in released + ended}
        # A reply is whole if its piece and its end were stored. For a reply that is handed over,
        # that means both its piece and its hand-over.
        lacking = {piece.turn_id for piece in pieces} - added_ids
        lacking |= {draft.turn.id for draft in finished} - finished_ids
        return Stored((added_ids | finished_ids) - lacking, {draft.turn.id for draft in counted})

    return stored


def _store_thoughts(thoughts: Sequence[NewThoughts]) -> None:
    figures = [(new.turn_id, new.fence, new.characters, new.milliseconds) for new in thoughts]
    db.send(given("count_thinking", figures))
    if replaced := [(new.turn_id, new.fence) for new in thoughts if new.replaces_stored]:
        db.send(given("drop_thoughts", replaced))
    if rows := [(new.turn_id, new.fence, new.start, new.text) for new in thoughts if new.text]:
        db.send(given("add_thoughts", rows))


def _split(finished: Sequence[Draft]) -> tuple[list[Draft], list[Draft]]:
    """The drafts of replies that end, and of those that are handed over."""
    ending = [draft for draft in finished if draft.turn.status != IN_PROGRESS]
    released = [draft for draft in finished if draft.turn.status == IN_PROGRESS]
    return ending, released


def _lock_rows(name: str, ids: Iterable[Any]) -> None:
    if db.row_lock:  # SQLite has one writer at a time, and locks no rows
        db.lock_rows(given(name, [(each,) for each in ids]))


def end(drafts: Sequence[Draft], used: Sequence[Draft] = ()) -> list[Draft]:
    """End these replies, and add to the ledger their usage, and that of the drafts in `used`. The
    caller's transaction has locked their sessions. Returns those that it has ended. Any other was
    deleted, has ended before, has another fence, has more tokens than `counted`, or has another
    lease than its draft, if the draft has one."""
    ended = _change("end_replies", drafts, END_COLUMNS)
    for draft in ended:
        if draft.is_long:
            texts = {"content": draft.turn.content, "search_text": draft.turn.search_text}
            db.send(Turn.update(texts).where(Turn.id == draft.turn.id))
    if ended:
        _update_dependent_rows(ended)
    # One statement for all entries, so that their rows are locked in order. It comes last, so that
    # they are not locked for long.
    entries = [draft.entry() for draft in used] + [draft.entry_of_end() for draft in ended]
    Usage.add(entries)
    return ended


def _update_dependent_rows(ended: Sequence[Draft]) -> None:
    """Change the rows that depend on how these replies ended."""
    rows = [(draft.turn.id, draft.context_start) for draft in ended]
    if any(draft.has_pieces for draft in ended):
        db.send(given("drop_pieces", rows))
    if any(draft.turn.replaces for draft in ended):
        db.send(given("show_turns", rows))
    db.send(given("change_sessions", rows, preview=PREVIEW))


def _change(name: str, drafts: Sequence[Draft], changes: Changes, **values: str) -> list[Draft]:
    """Execute this statement of `queries.sql` for the drafts, with these changes as {changes}.
    Returns the drafts whose rows it has changed."""
    if not drafts:
        return []
    names = [*statements.columns(name), *dict(changes.columns)]
    rows = [[draft.column(name) for name in names] for draft in drafts]
    statement = given(name, rows, changes.columns, changes=changes.sql, **values)
    ids = {turn_id for (turn_id,) in db.send(statement)()}
    return [draft for draft in drafts if draft.turn.id in ids]


@transaction
def interrupt(
    turns: Sequence[Turn],
    search_texts: Iterable[str],
    cancelled: bool,
    key: IdempotencyKey | None = None,
) -> list[Turn]:
    """End these replies as interrupted: they were `cancelled`, or are orphans whose leases have not
    changed since they were read. Text that was stored meanwhile is kept. `search_texts` are their
    texts, normalized. Returns the turns that this has ended; if there are any, `key` is deleted."""
    if key is not None:
        db.lock(key.owner)  # as a claim with a key does, before it locks rows
    # With sessions and turns locked, no piece is added after those that are read here.
    _lock_rows("lock_sessions", {turn.session_id for turn in turns})
    _lock_rows("lock_turns", {turn.id for turn in turns})
    news = read_news({turn.id: len(turn.content) for turn in turns})
    drafts = [
        _interrupted(turn, search_text, news[turn.id].text if turn.id in news else "", cancelled)
        for turn, search_text in zip(turns, search_texts, strict=True)
    ]
    ended = [draft.turn for draft in end(drafts)]
    if ended and key is not None:
        key.forget()
    return ended


def _interrupted(turn: Turn, search_text: str, rest: str, cancelled: bool) -> Draft:
    """The draft of an interrupted reply. `rest` is the text that was stored since it was read."""
    draft = Draft.of(
        turn,
        content=turn.content + rest,
        search_text=search_text + normalize(rest, alone=False),
        cancelled=cancelled,
    )
    draft.turn.ended_stream = turn.stream_id
    draft.set(**draft.fallback())
    if not cancelled or turn.is_lost():  # otherwise its writer will store the exact usage
        draft.account.estimate_rest()
    return draft


def cancel(session: Session) -> Turn:
    """Interrupt the session's reply in progress; returns the turn as it ended. Raises Refused if no
    reply is in progress."""
    while True:
        with db.connection_context():
            turn = Turn.latest(session.id)
        if turn.status != IN_PROGRESS:
            raise Refused("No reply is in progress, so there is nothing to cancel.")
        search_text = normalize(turn.content)  # may take long, so it occupies no connection
        with db.connection_context():
            if ended := interrupt([turn], [search_text], cancelled=True):
                return ended[0]  # otherwise it has ended, or another process has taken it over


@transaction
def store_images_start(reply: Turn, start: int) -> None:
    """Note in the session that images of turns before this one are not sent to the reply's model
    any more; only the writer of the reply may."""
    db.lock_rows(Session.select(Session.id).where(Session.id == reply.session_id))
    writes = Turn.id == reply.id, Turn.fence == reply.fence, Turn.is_in_progress()
    session = Session.select(Session.id, Session.images_start).join(Turn).where(*writes).first()
    if session is not None:
        starts = session.images_start
        starts.pop(str(reply.model), None)
        starts[str(reply.model)] = start  # the last of them
        db.send(Session.update(images_start=starts).where(Session.id == session.id))


@transaction
def store_late_usage(draft: Draft, thoughts: NewThoughts | None = None) -> None:
    """Store the usage and thoughts of a reply that this process wrote until it was cancelled or
    deleted. The request that ended the reply has already counted the reply in the ledger. If this
    is called again, nothing is counted twice."""
    turn = draft.turn
    db.lock(turn.session.owner)  # see Usage.add_late
    # The session is locked so that the reply is not continued meanwhile.
    db.lock_rows(Session.select(Session.id).where(Session.id == turn.session_id))
    if draft.context_start:
        conditions = Session.id == turn.session_id, Session.model == turn.model
        db.send(Session.update(context_start=draft.context_start).where(*conditions))
    columns = [getattr(Turn, name) for name in TOKENS]
    stored = Turn.select(*columns).where(Turn.id == turn.id).first()
    if stored is None:
        draft.account.mark_counted_late(None)
        Usage.add([draft.entry()])
        return
    if stored.estimated_tokens > turn.estimated_tokens:
        return  # the request that cancelled it presumed this process dead, and estimated the usage
    if thoughts:
        _store_thoughts([thoughts])
    draft.account.mark_counted_late(stored)
    told = _change("store_usage", [draft], WRITER_COLUMNS, reply="cancelled")
    Usage.add([each.entry() for each in told])


@transaction
def renew(fences: dict[int, int]) -> Callable[[], list[tuple[int]]]:
    """Renew the leases of these replies, {id: fence}. Returns a function that returns rows once the
    transaction has ended: the ids of the replies that this process still writes."""
    return db.send(given("renew_leases", sorted(fences.items()), lease=LEASE))


@transaction
def take_over(turn_id: int, lease: int, limit: int, fence: int) -> Draft | None:
    """Take a reply over with this fence. This is done if its lease has not changed, and if it will
    not have more than `limit` restarts. Taking over after a hand-over does not count as a restart.
    Nobody knows whether the text is whole. So unless the model's server still has the answer, the
    model is asked to continue the text; if nothing more comes, the reply is complete.

    Returns None if the reply cannot be taken over. After Unavailable, call this again with the same
    fence: the restart is counted only once."""
    restarts = int(lease != RELEASED)
    row = turn_id, fence, lease, restarts, limit, processes.this_process()
    taken = db.execute(given("take_over", [row], lease=LEASE)).fetchall()
    turn = Turn.read(turn_id)
    is_ours_already = turn is not None and turn.status == IN_PROGRESS and turn.fence == fence
    if turn is None or not (taken or is_ours_already):
        return None
    turn.session = Session.get_owned(turn.session.owner, turn.session_id)
    draft = Draft(turn)
    if turn.thinking_characters:
        draft.thoughts = Thought.text_of(turn.id)
    if turn.stream_id is not None:
        draft.uncounted_restarts = restarts  # its usage is not estimated either: see Reply
        return draft
    if lease == RELEASED and draft.no_progress:
        turn.continued -= 1  # it was handed over before it made progress
    draft.account.estimate_rest()
    return draft


def count_takeover(draft: Draft) -> bool:
    """Count the takeover of a reply whose model's server does not have the answer any more. Returns
    what `count_restart` returns."""
    if draft.uncounted_restarts == 0 and draft.no_progress:
        return True  # it was handed over before it made progress
    return count_restart(draft.turn, draft.uncounted_restarts)


def count_restart(turn: Turn, restarts: int = 1) -> bool:
    """Count a restart of this reply; a hand-over counts as none. Returns whether this process still
    writes the reply. After Unavailable, call this again: the restart is counted only once."""
    counts = {"continued": turn.continued + 1, "restarts": turn.restarts + restarts}
    if not _store_restart(turn, counts):
        return False
    turn.continued, turn.restarts = counts["continued"], counts["restarts"]
    return True


@transaction
def _store_restart(turn: Turn, counts: dict[str, int]) -> int:
    # A statement that hung, and was tried again meanwhile, must not undo later restarts.
    is_newer = Turn.restarts <= counts["restarts"]
    conditions = Turn.id == turn.id, Turn.fence == turn.fence, Turn.is_in_progress(), is_newer
    return Turn.update(counts).where(*conditions).execute()


@transaction
def store_stream(turn: Turn, stream_id: str | None, start: int | None) -> bool:
    """Store by which name the model's server will keep the answer to the next call, and how many
    characters the text has before it. Returns whether this process still writes the reply."""
    conditions = Turn.id == turn.id, Turn.fence == turn.fence, Turn.is_in_progress()
    columns = {"stream_id": stream_id, "stream_start": start}
    return bool(Turn.update(columns).where(*conditions).execute())


def read_news(positions: dict[int, int | None]) -> dict[int, News]:
    """The states of these replies, by id, with the text after each position, or none if the
    position is None. Replies that do not exist any more are left out."""
    rows = db.execute(given("read_news", list(positions.items()))).fetchall()
    return {turn_id: News(*news) for turn_id, *news in rows}


def read_thoughts(positions: dict[int, int]) -> dict[int, str]:
    """The stored thinking of these replies, by id, from these characters on."""
    return dict(db.execute(given("read_thoughts", list(positions.items()))).fetchall())


def find_orphans(alive: set[str]) -> list[Orphan]:
    """The replies in progress that were handed over, or whose processes have died or do not renew
    their leases. `alive` is a cache, updated here: names of processes that run on this machine, and
    whose replies need not be read unless their leases lapse."""
    alive -= {name for name in alive if processes.is_dead(name)}
    orphans = []
    for turn_id, lease, restarts, owner, writer, has_lapsed in _read_orphans(alive):
        is_dead = processes.is_dead(writer)
        if is_dead or has_lapsed:
            orphans.append(Orphan(turn_id, lease, restarts, owner, is_dead))
        if not is_dead and writer:
            alive.add(writer)
    if orphans:
        # If the database accepts no writes, the processes of these replies may be alive, and only
        # waiting to renew their leases. The two calls below raise Unavailable in that case. The
        # lock alone is not enough: with a full disk, SQLite commits a transaction that changes
        # nothing.
        db.check()
        _check_can_lock({orphan.turn_id for orphan in orphans})
    return orphans


@transaction
def _check_can_lock(turn_ids: Iterable[int]) -> None:
    """Raises Unavailable if these turns cannot be locked."""
    _lock_rows("lock_turns", turn_ids)


def _read_orphans(alive: set[str]) -> list[tuple[Any, ...]]:
    machine = f"{processes.machine()}/"
    values: dict[str, Any] = {"longest": LEASE + SECOND, "machine": machine, "length": len(machine)}
    names = [(name,) for name in alive or {""}]
    return db.execute(given("find_orphans", names, **values)).fetchall()
