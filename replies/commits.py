"""What is committed of replies, and read of those that others write. Every write names the fence of
the attempt that it belongs to: what comes late changes nothing."""

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
from tables.idempotency import IdempotencyKey
from tables.ledger import TOKENS, Usage
from tables.search import normalize


class NewPiece(NamedTuple):
    """Text that has arrived of a reply."""

    turn_id: int
    fence: int
    start: int  # characters before it
    text: str


class Stored(NamedTuple):
    """The ids of those replies of which all was stored that was to be, and of those whose usage
    was. Of the others the row is another process's, has ended, or has more than this process
    believes, as where a commit came through that was given up."""

    whole: set[int]
    counted: set[int]


class Orphan(NamedTuple):
    """A reply under way of whose process no sign is seen any more."""

    turn_id: int
    lease: int
    restarts: int
    owner: str
    is_dead: bool  # the process is surely gone


class News(NamedTuple):
    """What has become of a reply."""

    status: str
    fence: int | None
    title: str  # of its session
    thinking_characters: int  # as far as they are stored
    text: str  # behind the position that was asked for


@transaction
def store(
    pieces: Sequence[NewPiece],
    over: Sequence[Draft],
    used: Sequence[Draft] = (),
    thoughts: Sequence[NewThoughts] = (),
) -> Callable[[], Stored]:
    """Store these pieces and thoughts, how the replies ended that are `over`, or that they are
    handed over, and what those have `used` that go on. Returns a function that says, once the
    transaction has ended, what was stored but for thoughts, which are not promised."""
    ending, released = _split(over)
    if ending:
        _hold("hold_sessions", {draft.turn.session_id for draft in ending})
    ids = {piece.turn_id for piece in pieces}.union(draft.turn.id for draft in [*over, *used])
    ids |= {new.turn_id for new in thoughts}
    if len(ids) > 1:  # else there is no order
        _hold("hold_turns", ids)
    grown = db.send(given("add_pieces", pieces)) if pieces else list
    if thoughts:
        _store_thoughts(thoughts)
    counted = _change("store_usage", used)
    released = _change("release_replies", released)
    ended = end(ending, [*released, *counted])

    def stored() -> Stored:
        grown_ids = {turn_id for (turn_id,) in grown()}
        over_ids = {draft.turn.id for draft in released + ended}
        # A piece was not taken, or an end; one that is handed over gives both.
        lacking = {piece.turn_id for piece in pieces} - grown_ids
        lacking |= {draft.turn.id for draft in over} - over_ids
        return Stored((grown_ids | over_ids) - lacking, {draft.turn.id for draft in counted})

    return stored


def _store_thoughts(thoughts: Sequence[NewThoughts]) -> None:
    figures = [(new.turn_id, new.fence, new.characters, new.milliseconds) for new in thoughts]
    db.send(given("count_thinking", figures))
    if anew := [(new.turn_id, new.fence) for new in thoughts if new.is_anew]:
        db.send(given("drop_thoughts", anew))
    if rows := [(new.turn_id, new.fence, new.start, new.text) for new in thoughts if new.text]:
        db.send(given("add_thoughts", rows))


def _split(over: Sequence[Draft]) -> tuple[list[Draft], list[Draft]]:
    """Those that end, and those that are handed over."""
    ending = [draft for draft in over if draft.turn.status != IN_PROGRESS]
    released = [draft for draft in over if draft.turn.status == IN_PROGRESS]
    return ending, released


def _hold(name: str, ids: Iterable[Any]) -> None:
    db.hold(given(name, [(each,) for each in ids]))


def end(drafts: Sequence[Draft], used: Sequence[Draft] = ()) -> list[Draft]:
    """Store how these replies ended, in the caller's transaction, which holds their sessions;
    returns those that this has ended. Others are gone, have ended before, have more tokens than
    those that are `counted`, or have another fence by now, or another lease where `lease_until` is
    set. What these, and others, have used is counted."""
    ended = _change("end_replies", drafts)
    for draft in ended:
        if draft.is_long:
            texts = {"content": draft.turn.content, "search_text": draft.turn.search_text}
            db.send(Turn.update(texts).where(Turn.id == draft.turn.id))
    if ended:
        _settle(ended)
    # By one statement, which locks them in one order, and last of all.
    entries = [draft.entry() for draft in used] + [draft.entry_of_end() for draft in ended]
    Usage.add(entries)
    return ended


def _settle(ended: Sequence[Draft]) -> None:
    """Change what depends on how these replies ended."""
    rows = [(draft.turn.id, draft.trim) for draft in ended]
    if any(draft.has_pieces for draft in ended):
        db.send(given("drop_pieces", rows))
    if any(draft.turn.replaces for draft in ended):
        db.send(given("show_turns", rows))
    db.send(given("change_sessions", rows, preview=PREVIEW))


def _change(name: str, drafts: Sequence[Draft]) -> list[Draft]:
    """Execute the statement of this name for these; returns those that it has changed."""
    if not drafts:
        return []
    columns = statements.columns(name)
    rows = [[draft.column(column) for column in columns] for draft in drafts]
    ids = {turn_id for (turn_id,) in db.send(given(name, rows))()}
    return [draft for draft in drafts if draft.turn.id in ids]


@transaction
def interrupt(
    turns: Sequence[Turn],
    search_texts: Iterable[str],
    cancelled: bool,
    key: IdempotencyKey | None = None,
) -> list[Turn]:
    """End these replies, whose texts are these normalized, with what was stored since: `cancelled`,
    or else orphaned, as long as their leases are still these. Returns those that this has ended;
    where there are any, the key is forgotten."""
    if key is not None:
        db.lock(key.owner)  # as a claim with a key does, before it locks rows
    # With their sessions and rows held, nobody adds a piece behind those that are read here.
    _hold("hold_sessions", {turn.session_id for turn in turns})
    _hold("hold_turns", {turn.id for turn in turns})
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
    """The draft of a reply that ends here, of which this rest was stored since it was read."""
    draft = Draft.of(
        turn,
        content=turn.content + rest,
        search_text=search_text + normalize(rest, alone=False),
        cancelled=cancelled,
    )
    draft.set(**draft.fallback())
    if not cancelled or turn.is_lost():  # else its process knows better, and will say so
        draft.estimate_rest()
    return draft


def cancel(session: Session) -> Turn:
    """Interrupt the reply under way and return it as far as it got. Raises Refused where there is
    none."""
    while True:
        with db.connection_context():
            turn = Turn.latest(session.id)
        if turn.status != IN_PROGRESS:
            raise Refused("No reply is under way, so there is nothing to cancel.")
        search_text = normalize(turn.content)  # without a connection, for which others may wait
        with db.connection_context():
            if ended := interrupt([turn], [search_text], cancelled=True):
                return ended[0]  # else it has ended, or changed hands


@transaction
def store_late_usage(draft: Draft, thoughts: NewThoughts | None = None) -> None:
    """Store, once, what a reply has used that this process wrote, and that somebody cancelled or
    deleted; and what its model has thought. It is counted as a reply by then."""
    turn = draft.turn
    db.lock(turn.session.owner)  # see Usage.add_late
    # So nobody continues it meanwhile.
    db.hold(Session.select(Session.id).where(Session.id == turn.session_id))
    if draft.trim:
        is_its = Session.id == turn.session_id, Session.model == turn.model
        db.send(Session.update(trim=draft.trim).where(*is_its))
    columns = [getattr(Turn, name) for name in TOKENS]
    stored = Turn.select(*columns).where(Turn.id == turn.id).first()
    if stored is None:
        draft.counted = draft.offered or draft.counted
        Usage.add([draft.entry()])
        return
    if stored.estimated_tokens > turn.estimated_tokens:
        return  # the request that cancelled it took this process for dead, and has estimated it
    if thoughts:
        _store_thoughts([thoughts])
    draft.counted = stored.usage
    for name, count in stored.usage.items():
        if count:
            setattr(turn, name, max(count, getattr(turn, name) or 0))
    Usage.add([each.entry() for each in _change("settle_usage", [draft])])


@transaction
def renew(fences: dict[int, int]) -> Callable[[], list[tuple[int]]]:
    """Extend the leases of these replies, {id: fence}. Returns a function that returns, once the
    transaction has ended, the ids of those that are still this process's, as rows."""
    return db.send(given("renew_leases", sorted(fences.items()), lease=LEASE))


@transaction
def take_over(turn_id: int, lease: int, limit: int, fence: int) -> Draft | None:
    """Have this process write, with this fence, on a reply whose lease is still this one, and that
    went on by itself less often than `limit`; that it was handed over does not count. Returns None
    where that is not so, or another process was faster. Where this raises Unavailable, it is done
    once by being done again."""
    restarts = int(lease != RELEASED)
    row = turn_id, fence, lease, restarts, limit, processes.this_process()
    taken = db.execute(given("take_over", [row], lease=LEASE)).fetchall()
    turn = Turn.read(turn_id)
    has_come = turn is not None and turn.status == IN_PROGRESS and turn.fence == fence
    if turn is None or not (taken or has_come):
        return None
    turn.session = Session.get_owned(turn.session.owner, turn.session_id)
    draft = Draft(turn, turn.usage, turn.base)
    if turn.thinking_characters:
        draft.thoughts = Thought.text_of(turn.id)
    if lease == RELEASED and draft.in_vain:
        turn.continued -= 1  # it was handed over before a word
    draft.estimate_rest()
    return draft


def count_restart(turn: Turn) -> bool:
    """Count that this reply goes on by itself; returns whether it is still this process's. Where
    this raises Unavailable, it is counted once by being done again."""
    counts = {"continued": turn.continued + 1, "restarts": turn.restarts + 1}
    if not _store_restart(turn, counts):
        return False
    turn.continued, turn.restarts = counts["continued"], counts["restarts"]
    return True


@transaction
def _store_restart(turn: Turn, counts: dict[str, int]) -> int:
    # One that hung, and was tried again, does not take back those that followed.
    is_newer = Turn.restarts <= counts["restarts"]
    is_ours = Turn.id == turn.id, Turn.fence == turn.fence, Turn.under_way(), is_newer
    return Turn.update(counts).where(*is_ours).execute()


def read_news(positions: dict[int, int | None]) -> dict[int, News]:
    """The news of these replies by id, with their texts behind these positions where one is given.
    Those that do not exist any more are left out."""
    rows = db.execute(given("read_news", list(positions.items()))).fetchall()
    return {turn_id: News(*news) for turn_id, *news in rows}


def read_thoughts(positions: dict[int, int]) -> dict[int, str]:
    """What is stored of the thinking of these replies by id, from these characters on."""
    return dict(db.execute(given("read_thoughts", list(positions.items()))).fetchall())


def find_orphans(alive: set[str]) -> list[Orphan]:
    """Replies under way that were handed over, or whose processes are gone, or held up. `alive` are
    the names of processes of this machine of which it is known that they live; those that are found
    to do so are added."""
    alive -= {name for name in alive if processes.is_dead(name)}
    orphans = []
    for turn_id, lease, restarts, owner, writer, has_lapsed in _read_orphans(alive):
        is_dead = processes.is_dead(writer)
        if is_dead or has_lapsed:
            orphans.append(Orphan(turn_id, lease, restarts, owner, is_dead))
        if not is_dead and writer:
            alive.add(writer)
    if orphans:
        # If nobody can write, they are not told of: their writers may be waiting, too, to renew the
        # leases. A full disk takes SQLite's transactions as long as they are empty.
        db.check()
        _hold_alone({orphan.turn_id for orphan in orphans})
    return orphans


@transaction
def _hold_alone(turn_ids: Iterable[int]) -> None:
    """Raises Unavailable where nobody can write."""
    _hold("hold_turns", turn_ids)


def _read_orphans(alive: set[str]) -> list[tuple[Any, ...]]:
    machine = f"{processes.machine()}/"
    values = {"longest": LEASE + SECOND, "machine": machine, "length": len(machine)}
    names = [(name,) for name in alive or {""}]
    return db.execute(given("find_orphans", names, **values)).fetchall()
