"""The keeper of a process: it alone stores what arrives of replies, and then tells their followers.

A round stores what has arrived, sees what others did to the replies that are known here, and once a
second renews leases and looks for orphans. It is called by one thread, `keeping.py`; no part of it
waits or starts a thread.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from database import SECOND, Unavailable, limit_time, monitored
from logs import log
from models import IN_PROGRESS, LEASE, Session, Turn
from replies import commits
from replies.commits import NewPiece, Orphan, Stored
from replies.contained import contained, do_for_all
from replies.doubt import DoubtfulClaim
from replies.draft import Draft
from replies.ended import Ended
from replies.feed import Feed
from replies.orphans import LOOKS
from replies.registry import Registry
from replies.reply import Reply, Taken, store_taken
from replies.rescuer import Rescuer
from replies.thinking import Thoughts

POLL_INTERVAL = 0.25  # seconds
POLL_INTERVAL_ELSEWHERE = 0.1  # where a reply is followed that another process writes
POLLING = 0.001  # seconds from one poll to the next, at least, for each reply that is known here
LOOK_INTERVAL = 1  # seconds
# Where nothing has been under way anywhere for so long, a look is as seldom: what begins elsewhere
# meanwhile lapses later.
IDLE_AFTER, IDLE_INTERVAL = 60, 15
TAKING = 2  # seconds of a look in which orphans are taken over; the rest waits for the next one
LONGEST_COMMIT = 2**20  # characters that are stored in one transaction, but for those of one reply
# Seconds from one commit to the next, for each reply under way here, and at most.
GATHERING, LONGEST_GATHERING = 0.0001, 0.25
READ_AT_ONCE = 200  # replies


class Keeper:
    """Times are those of the clock that is handed in, in seconds."""

    def __init__(
        self,
        registry: Registry,
        continue_limit: int,
        take_over: Callable[[Orphan, int], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`take_over` begins to write an orphan here, with a fence, and returns whether it did."""
        self._registry, self._clock = registry, clock
        self._rescuer = Rescuer(continue_limit, take_over, self.store_all, clock)
        self._ended = Ended()
        self._next_poll = self._next_look = self._stored_at = 0.0
        self._has_more = False  # to store, than the last round did
        self._busy_at = clock()  # when a reply was under way, here or elsewhere
        self.stopping = False  # this process takes over nothing any more
        self.is_idle = False  # it may rest for long

    def poll_soon(self) -> None:
        """The next round looks at what has become of the replies."""
        self._next_poll = 0.0

    def doubt(self, claim: DoubtfulClaim) -> None:
        """This claim may be committed, though its client was told that it failed."""
        self._rescuer.doubt(claim)

    # A round

    def begin(self) -> None:
        """The first thing on a new connection."""
        with monitored():
            # First of all: others may have begun to look.
            with contained("leases are not renewed"):
                self._rescuer.renew(self._registry.written(), self._clock())
            with contained("what is stored is not seen"):
                self._catch_up()

    def round(self, now: float) -> None:
        with monitored():
            self.store_all()
            if now >= self._next_poll:
                with contained("what others did is not seen"):
                    self.poll()
        if now >= self._next_look:
            self.look()

    def rest(self) -> float:
        """How long nothing is to be done, unless somebody wakes the keeper."""
        self._ended.let_go(self._clock())
        self.is_idle = True  # before the look: who begins a reply behind it wakes us
        is_quiet = self._clock() > self._stored_at + LOOK_INTERVAL
        self.is_idle = is_quiet and not self._registry.known()
        if self._has_more:
            return 0.0
        due = self._next_look if self.is_idle else min(self._next_look, self._next_poll)
        return max(0.0, due - self._clock())

    def after_rest(self) -> float:
        """Reckon with what the rest was broken for; returns how long the next round waits for more
        to store: the more replies are under way, the longer they are gathered for one commit."""
        now = self._clock()
        self._next_look = min(self._next_look, now + LOOK_INTERVAL)  # it was far, while idle
        if self.is_idle:  # nothing has become yet of what is new
            self._next_poll = now + POLL_INTERVAL_ELSEWHERE
        gathering = min(GATHERING * len(self._registry.written()), LONGEST_GATHERING)
        return max(0.0, self._stored_at + gathering - now)

    def forget(self) -> None:
        """The rounds have ended for a while."""
        self._rescuer.forget()

    # Storing what has arrived

    def store_all(self) -> None:
        """Store what there is, or the first of it, where that is much. A bug costs the reply that
        it is in."""
        self._has_more = False
        written = list(self._written().values())
        batch = _first_of(written)
        do_for_all(self.store, batch, self._give_up)
        self._has_more = len(batch) < len(written)

    def _written(self) -> dict[int, Reply]:
        """What is written here, by id. Of two of the same turn the older one is lost, as the next
        poll will see."""
        written = sorted(self._registry.written(), key=lambda reply: reply.asked_at)
        return {reply.id: reply for reply in written}

    def _give_up(self, reply: Reply, error: Exception) -> None:
        """It cannot be stored: it ends as failed. Where that cannot be stored either, its followers
        are told all the same, and its lease lapses."""
        log.error("a reply is not stored", reply.names, exc_info=error)
        if not reply.is_given_up:
            reply.give_up()
            return
        self._end_as(reply, reply.draft.turn)

    def store(self, replies: Sequence[Reply]) -> None:
        """Commit in one transaction what has arrived of these replies and how they ended; then tell
        their followers."""
        limit_time()
        batch = [taken for taken in (reply.take() for reply in replies) if _is_news(taken)]
        if not batch:
            return
        stored = store_taken(batch)
        self._stored_at = self._clock()
        outcome = stored()
        for taken in batch:
            self._tell(taken, outcome)

    def _tell(self, taken: Taken, outcome: Stored) -> None:
        reply = taken.reply
        if taken.text or taken.is_over:
            self._show(taken, reply.id in outcome.whole)
        if taken.used:
            self._note_usage(reply, taken.used, reply.id in outcome.counted)
        if taken.thoughts:
            reply.thoughts_stored(taken.thoughts)

    def _show(self, taken: Taken, is_stored: bool) -> None:
        """Show what is stored of a reply: a text, and its end."""
        reply = taken.reply
        if not is_stored:
            self._end(reply, Turn.read(reply.id))
            return
        if reply.draft.turn.status == IN_PROGRESS:
            reply.stored(taken.text)
        else:
            self._ended.add(reply.draft, self._clock())
        if taken.is_over:
            self._end(reply, reply.draft.turn)

    def _note_usage(self, reply: Reply, used: Draft, is_counted: bool) -> None:
        if is_counted:
            reply.draft.counted, reply.draft.offered = used.turn.usage, None
        elif self._registry.is_written(reply):
            self._end(reply, Turn.read(reply.id))

    def _catch_up(self) -> None:
        """See what is stored, after a fault: a commit may have come through all the same, and a
        database that another took the place of may have lost the last ones."""
        written = self._written()
        for turn in _under_way(written):
            # Else the next poll tells.
            if turn.fence == written[turn.id].fence:
                limit_time()  # they may be many, and the database far away
                self._believe(written[turn.id], turn)
        ended = {draft.turn.id: draft for draft in self._ended.drafts()}
        lost = []
        for turn in _under_way(ended):
            ended[turn.id].counted = turn.usage
            lost.append(ended[turn.id])
        limit_time()
        commits.store(pieces=[], over=lost)

    def _believe(self, reply: Reply, turn: Turn) -> None:
        """Take what the row of a reply has, which goes on here, for what is stored of it. What it
        lacks is stored again."""
        reply.draft.counted = turn.usage
        reply.draft.set(uncounted=turn.uncounted)
        reply.exchange.has_used = True
        reply.stored(turn.content[len(reply.text) :])
        if lost := reply.text[len(turn.content) :]:
            commits.store([NewPiece(reply.id, reply.fence, len(turn.content), lost)], over=[])

    # Learning what others did

    def poll(self) -> None:
        """See what other processes, or requests in this one, did to the replies that are known
        here."""
        feeds = self._registry.known()
        positions = {feed.id: None for feed in feeds}
        others = [feed for feed in feeds if not isinstance(feed, Reply)]
        elsewhere = {feed.id: len(feed.text) for feed in others}
        interval = POLL_INTERVAL_ELSEWHERE if elsewhere else POLL_INTERVAL
        self._next_poll = self._clock() + max(interval, len(feeds) * POLLING)
        if not feeds:
            return
        news = commits.read_news(positions | elsewhere)
        for feed in feeds:
            with contained("what others did to a reply is not seen"):
                self._take_in(feed, news.get(feed.id))
        with contained("what others' models think is not seen"):
            _take_in_thoughts(others, news)

    def _take_in(self, feed: Feed, news: commits.News | None) -> None:
        fence = feed.fence if isinstance(feed, Reply) else None
        if news is None or news.status != IN_PROGRESS or fence not in (None, news.fence):
            self._end(feed, Turn.read(feed.id))
            return
        if fence is None:
            feed.add(news.text)
        if news.title != feed.told.title:
            feed.note(title=news.title)

    # Looks

    def look(self) -> None:
        """Renew the leases of what is written here; take over, or end, what dead processes have
        left and others handed over."""
        now = self._clock()
        self._next_look = now + LOOK_INTERVAL
        with contained("leases are not renewed"):
            self._rescuer.renew(self._registry.written(), now, older_than=LOOK_INTERVAL)
        with contained("claims are not undone"):
            self._rescuer.undo_claims(now)
        if not self.stopping:
            with contained("orphans are not found"):
                self._look_for_orphans(now)

    def _look_for_orphans(self, now: float) -> None:
        if self._registry.known() or self._rescuer.is_in_doubt or Turn.is_any_under_way():
            self._busy_at = now
            self._rescuer.rescue(until=now + TAKING)
        elif now > self._busy_at + IDLE_AFTER:
            self._next_look = now + IDLE_INTERVAL

    # The end

    def _end(self, feed: Feed, turn: Turn | None) -> None:
        """`turn` is the reply as it ended; None where it is gone. In progress it has been handed
        over, or another process writes it."""
        # Asked before anything is done: the database may not answer.
        is_undone = turn is None and Session.is_there(feed.session_id)
        if isinstance(feed, Reply):
            self._end_of_ours(feed, turn, is_undone)
        elif turn is None or turn.status != IN_PROGRESS:
            self._registry.remove(feed)
            feed.end(turn, is_undone)

    def _end_of_ours(self, reply: Reply, turn: Turn | None, is_undone: bool) -> None:
        shown = turn
        if turn is not reply.draft.turn:
            if turn is not None and turn.status == IN_PROGRESS and turn.fence == reply.fence:
                self._believe(reply, turn)  # it goes on after all
                return
            reply.call.hang_up()  # at once: what follows may wait for the database
            self._store_late_usage(reply, turn)
        if reply.failure and _is_end_of(reply, turn):
            shown = Draft.of(reply.draft.turn, **reply.failure).turn
        self._end_as(reply, shown, is_undone)
        reply.log(turn)

    def _end_as(self, reply: Reply, shown: Turn | None, is_undone: bool = False) -> None:
        """Forget it, and tell its followers that this is its end."""
        self._registry.remove(reply)
        reply.end(shown, is_undone)
        reply.let_go()

    def _store_late_usage(self, reply: Reply, turn: Turn | None) -> None:
        """Somebody else has ended this reply: what it has used is still ours to say."""
        draft, prompt = reply.draft, reply.prompt
        reply.take_usage()
        if prompt:
            draft.trim = prompt.trim(reply.id)
            draft.set(turns_left_out=prompt.left_out)
        is_untold = turn is None or turn.cancelled  # else another writer tells it, or has
        if is_untold and self._counts_as_alive(reply, turn):
            try:
                commits.store_late_usage(draft, reply.thoughts_to_store())
            except Unavailable:  # it may be committed all the same
                draft.offered = draft.turn.usage
                raise

    def _counts_as_alive(self, reply: Reply, turn: Turn | None) -> bool:
        """Whether nobody took this process for dead, and estimated what the reply has used: its
        lease has not lapsed. A row that is gone does not tell whether somebody had taken it over,
        as one may at the seventh look."""
        seconds = (LOOKS - 1) * LOOK_INTERVAL if turn is None else LEASE / SECOND
        return self._clock() < reply.renewed_at + seconds


def _is_end_of(reply: Reply, turn: Turn | None) -> bool:
    """Whether this attempt ended so: also where the answer of that commit was lost, and the row was
    read instead."""
    return turn is not None and turn.fence == reply.fence and not turn.cancelled


def _is_news(taken: Taken) -> bool:
    return bool(taken.text or taken.is_over or taken.used or taken.thoughts)


def _take_in_thoughts(feeds: list[Feed], news: dict[int, commits.News]) -> None:
    """Tell the followers of these replies, which others write, what has been stored of their
    thinking since. After another process has taken one over, all of it is told anew."""
    wanted = {}
    for feed in feeds:
        if (of_reply := news.get(feed.id)) is None or feed.over:
            continue
        thinking, characters = feed.told.thinking, of_reply.thinking_characters
        is_other = of_reply.fence != feed.known_fence
        if characters != thinking.characters or (characters and is_other):
            is_anew = is_other or characters < thinking.characters
            feed.known_fence = of_reply.fence
            if is_anew:
                thinking = Thoughts(version=thinking.version + 1)
            wanted[feed.id] = feed, thinking, characters
    if not wanted:
        return
    texts = commits.read_thoughts(
        {turn_id: len(thinking.text or "") for turn_id, (_, thinking, _) in wanted.items()}
    )
    for turn_id, (feed, thinking, characters) in wanted.items():
        # With THINKING=live, none of the text is stored.
        text = (thinking.text or "") + texts[turn_id] or None
        feed.note(thinking=Thoughts(text, characters, thinking.version))


def _under_way(ids: Iterable[int]) -> Iterator[Turn]:
    """The rows of these replies that are under way, with their texts: many in one query, since the
    database may be far away, and not all, since their texts may be long."""
    left = list(ids)
    while left:
        limit_time()
        yield from Turn.read_under_way(left[:READ_AT_ONCE])
        del left[:READ_AT_ONCE]


def _first_of(replies: list[Reply]) -> list[Reply]:
    """The first of these replies, as many as are stored at once without that others wait long."""
    sizes = itertools.accumulate(reply.size_to_store() for reply in replies)
    fitting = sum(size <= LONGEST_COMMIT for size in sizes)
    return replies[: max(1, fitting)]
