"""The keeper of a process: it alone stores the text that arrives here, and then shows it to
followers. Thoughts are shown first and stored later.

A round stores the new text of all replies, and polls for changes that other processes made to the
replies that are known here. Once a second, it also renews leases and looks for orphans. `Keeper`
neither waits nor starts a thread: `KeeperThread` calls its rounds.
"""

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from database import (
    SECOND,
    Unavailable,
    begin_outage,
    db,
    end_outage,
    limit_time,
    monitored,
    reason,
)
from limits import Overloaded
from logs import log
from models import IN_PROGRESS, LEASE, Session, Turn
from replies import commits
from replies.claim import UnconfirmedClaim
from replies.commits import NewPiece, Orphan, Stored
from replies.draft import Draft
from replies.fault_isolation import contained, do_for_all
from replies.feed import Feed
from replies.reply import Pending, Registry, Reply, store_pending
from replies.rescuer import CHECK_INTERVAL, CHECKS_UNTIL_DEAD, IDLE_AFTER, IDLE_INTERVAL, Rescuer
from replies.thinking import Thoughts

POLL_INTERVAL = 0.25  # seconds
POLL_INTERVAL_ELSEWHERE = 0.1  # the same while a reply of another process is followed here
# If many replies are known here, an interval is at least this many seconds for each of them.
MIN_POLL_INTERVAL_PER_REPLY = 0.001
MAX_COMMIT_SIZE = 2**20  # characters stored in one transaction, unless one reply alone has more
# Seconds between two commits: this many for each reply that is written here, but not more than
# MAX_COMMIT_INTERVAL.
COMMIT_INTERVAL_PER_REPLY = 0.0001
MAX_COMMIT_INTERVAL = 0.25
READ_AT_ONCE = 200  # replies
RECENT_TIME = 10  # seconds for which an end is kept, in case a failover of the database loses it
MAX_RECENT_SIZE = 2**23  # characters of all that are kept
FAILURE_PAUSE = 1  # seconds after a failure
RECONNECT_TIMEOUT = 3  # seconds

# How long some things take at most, in seconds: sums of the above.
# Within this time after an outage of the database, each process has renewed its leases, and then
# stores and shows at once what has arrived meanwhile. It is shorter than the time in which any
# process can check CHECKS_UNTIL_DEAD times.
MAX_RENEWAL_DELAY = FAILURE_PAUSE + RECONNECT_TIMEOUT
# If a process was paused, or cut off from the database, others take its replies over. Within this
# time after it reaches the database again, it has hung up on the providers of these replies.
MAX_HANG_UP_DELAY = MAX_RENEWAL_DELAY + POLL_INTERVAL
# Within this time after a reply was cancelled or deleted, its writer has hung up on the provider
# and ended its streams there. Streams of the reply in other processes end within
# POLL_INTERVAL_ELSEWHERE, or later if the keeper gathers text just then, by MAX_COMMIT_INTERVAL at
# most. With many replies in a process, see MIN_POLL_INTERVAL_PER_REPLY.
MAX_CANCEL_DELAY = POLL_INTERVAL + MAX_COMMIT_INTERVAL


class Keeper:
    """Makes the rounds of one process. Times are in seconds of the clock that it is given."""

    def __init__(
        self,
        registry: Registry,
        continue_limit: int,
        take_over: Callable[[Orphan, int], bool],
        end_answer: Callable[[Turn], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`take_over` takes an orphan over with a fence, and returns whether this has succeeded.
        `end_answer` ends the answer to the last call of a reply that has ended."""
        self._registry, self._clock = registry, clock
        self._rescuer = Rescuer(continue_limit, take_over, self.store_all, end_answer, clock)
        self._recent_ends = RecentEnds()
        self._next_poll = self._next_check = self._stored_at = 0.0
        self._has_more = False  # the last round has left text for the next
        self._busy_at = clock()  # when a reply was last in progress, here or elsewhere
        self.stopping = False  # this process takes over no more replies
        self.is_idle = False  # it polls nothing, and rests until the next check

    def poll_soon(self) -> None:
        """Have the next round poll."""
        self._next_poll = 0.0

    def undo_if_committed(self, claim: UnconfirmedClaim) -> None:
        """Undo this claim if it turns out to be committed."""
        self._rescuer.undo_if_committed(claim)

    # Rounds

    def begin(self) -> None:
        """Renew the leases, and catch up with the database. It is called on a new connection,
        before the first round."""
        with monitored():
            # This comes first: if our leases have lapsed, other processes may already be counting
            # up to CHECKS_UNTIL_DEAD.
            with contained("could not renew the leases"):
                self._rescuer.renew(self._registry.written(), self._clock())
            with contained("could not compare the replies with the database"):
                self._catch_up()

    def round(self, now: float) -> None:
        with monitored():
            self.store_all()
            if now >= self._next_poll:
                with contained("could not poll"):
                    self.poll()
        if now >= self._next_check:
            self.check()

    def seconds_to_rest(self) -> float:
        """The seconds until the next round is due, unless the keeper is woken before."""
        self._recent_ends.drop_old(self._clock())
        # Set before the registry is read: a thread that adds a reply after that wakes us.
        self.is_idle = True
        is_quiet = self._clock() > self._stored_at + CHECK_INTERVAL
        self.is_idle = is_quiet and not self._registry.known()
        if self._has_more:
            return 0.0
        due = self._next_check if self.is_idle else min(self._next_check, self._next_poll)
        return max(0.0, due - self._clock())

    def seconds_to_gather(self) -> float:
        """Set the times of the next check and poll, which an idle keeper had put off. Returns the
        seconds for which to gather text before the next round. They grow with the number of replies
        that are written here, so that one commit has the text of many."""
        now = self._clock()
        self._next_check = min(self._next_check, now + CHECK_INTERVAL)
        if self.is_idle:  # the reply that woke it is new, so there is nothing to poll yet
            self._next_poll = now + POLL_INTERVAL_ELSEWHERE
        gathering = min(
            COMMIT_INTERVAL_PER_REPLY * len(self._registry.written()), MAX_COMMIT_INTERVAL
        )
        return max(0.0, self._stored_at + gathering - now)

    def reset_checks(self) -> None:
        """Count checks from zero: the rounds were interrupted."""
        self._rescuer.reset_checks()

    # Storing

    def store_all(self) -> None:
        """Store what has arrived. If that is too much for one transaction, store only the first
        replies. After a bug, the replies are stored one by one, so that only the one that has the
        bug fails."""
        self._has_more = False
        written = list(self._written().values())
        batch = _first_of(written)
        do_for_all(self.store, batch, self._give_up)
        self._has_more = len(batch) < len(written)

    def _written(self) -> dict[int, Reply]:
        """The replies that are written here, by id. If two of them have the same turn, this process
        has lost the older one, and then taken the turn over again. The next poll removes the older
        one."""
        written = sorted(self._registry.written(), key=lambda reply: reply.began_at)
        return {reply.id: reply for reply in written}

    def _give_up(self, reply: Reply, error: Exception) -> None:
        """End a reply as failed because it could not be stored. If its failure cannot be stored
        either, only its followers are told, and its lease lapses."""
        log.error("could not store a reply", reply.log_fields, exc_info=error)
        if not reply.is_given_up:
            reply.give_up()
            return
        self._end_as(reply, reply.draft.turn)

    def store(self, replies: Sequence[Reply]) -> None:
        """Commit the new text, usage and ends of these replies in one transaction; then tell their
        followers."""
        limit_time()
        batch = [pending for pending in (reply.pending() for reply in replies) if _is_news(pending)]
        if not batch:
            return
        stored = store_pending(batch)
        self._stored_at = self._clock()
        outcome = stored()
        for pending in batch:
            self._tell(pending, outcome)

    def _tell(self, pending: Pending, outcome: Stored) -> None:
        reply = pending.reply
        if pending.text or pending.is_over:
            self._show(pending, reply.id in outcome.stored_whole)
        if pending.usage_draft:
            self._note_usage(reply, pending.usage_draft, reply.id in outcome.counted)
        if pending.thoughts:
            reply.mark_thoughts_stored(pending.thoughts)

    def _show(self, pending: Pending, is_stored: bool) -> None:
        """Show the text and the end of a reply that are stored; if they are not stored, end the
        reply here as its row says."""
        reply = pending.reply
        if not is_stored:
            self._end(reply, Turn.read(reply.id))
            return
        if reply.draft.turn.status == IN_PROGRESS:
            reply.show_stored(pending.text)
        else:
            self._recent_ends.add(reply.draft, self._clock())
        if pending.is_over:
            self._end(reply, reply.draft.turn)

    def _note_usage(self, reply: Reply, used: Draft, is_counted: bool) -> None:
        if is_counted:
            reply.draft.account.mark_counted(used.account.used)
        elif self._registry.is_written(reply):
            self._end(reply, Turn.read(reply.id))

    def _catch_up(self) -> None:
        """Compare what we have shown with what the database has. A commit that was not answered may
        have come through. A failover may have lost the last commits: what they stored is stored
        again."""
        written = self._written()
        for turn in _read_in_progress(written):
            # The next poll removes replies that have another fence.
            if turn.fence == written[turn.id].fence:
                # Each gets a new time limit, since there may be many, and the database may be far
                # away.
                limit_time()
                self._correct_by_row(written[turn.id], turn)
        ended = {draft.turn.id: draft for draft in self._recent_ends.drafts()}
        lost = []
        for turn in _read_in_progress(ended):
            ended[turn.id].account.counted = turn.usage
            lost.append(ended[turn.id])
        limit_time()
        commits.store(pieces=[], finished=lost)

    def _correct_by_row(self, reply: Reply, turn: Turn) -> None:
        """Correct, from the row of a reply in progress, what this process takes as stored. Text
        that was shown and that the row lacks is stored again."""
        reply.draft.account.counted = turn.usage
        reply.draft.set(unbilled_bytes=turn.unbilled_bytes)
        reply.exchange.has_used = True
        reply.show_stored(turn.content[len(reply.text) :])
        if lost := reply.text[len(turn.content) :]:
            commits.store([NewPiece(reply.id, reply.fence, len(turn.content), lost)], finished=[])

    # Polling

    def poll(self) -> None:
        """Read what other processes, or requests of this one, did to the replies that are known
        here, and tell the followers."""
        feeds = self._registry.known()
        positions = {feed.id: None for feed in feeds}
        others = [feed for feed in feeds if not isinstance(feed, Reply)]
        elsewhere = {feed.id: len(feed.text) for feed in others}
        interval = POLL_INTERVAL_ELSEWHERE if elsewhere else POLL_INTERVAL
        self._next_poll = self._clock() + max(interval, len(feeds) * MIN_POLL_INTERVAL_PER_REPLY)
        if not feeds:
            return
        news = commits.read_news(positions | elsewhere)
        for feed in feeds:
            with contained("could not update a reply from a poll"):
                self._update(feed, news.get(feed.id))
        with contained("could not read the thinking of other processes' replies"):
            _update_thoughts(others, news)

    def _update(self, feed: Feed, news: commits.News | None) -> None:
        fence = feed.fence if isinstance(feed, Reply) else None
        if news is None or news.status != IN_PROGRESS or fence not in (None, news.fence):
            self._end(feed, Turn.read(feed.id))
            return
        if fence is None:
            feed.add(news.text)
        if news.title != feed.progress.title:
            feed.update_progress(title=news.title)

    # Checks

    def check(self) -> None:
        """Renew the leases of this process, undo unconfirmed claims, and take over or end the
        orphans of other processes."""
        now = self._clock()
        self._next_check = now + CHECK_INTERVAL
        with contained("could not renew the leases"):
            self._rescuer.renew(self._registry.written(), now, older_than=CHECK_INTERVAL)
        with contained("could not undo claims"):
            self._rescuer.undo_claims(now)
        if not self.stopping:
            with contained("could not look for orphans"):
                self._look_for_orphans(now)

    def _look_for_orphans(self, now: float) -> None:
        with monitored():
            is_busy = (
                self._registry.known() or self._rescuer.has_unconfirmed or Turn.is_any_in_progress()
            )
        if is_busy:
            self._busy_at = now
            self._rescuer.rescue()
        elif now > self._busy_at + IDLE_AFTER:
            self._next_check = now + IDLE_INTERVAL

    # Ends

    def _end(self, feed: Feed, turn: Turn | None) -> None:
        """End a feed as the row of its reply says; `turn` is None if the row was deleted. If the
        row is in progress, only a reply of our own ends: it was handed over, or another process has
        taken it over."""
        # This query comes first: if the database does not answer, nothing has been changed yet.
        is_undone = turn is None and Session.is_there(feed.session_id)
        if isinstance(feed, Reply):
            self._end_own(feed, turn, is_undone)
        elif turn is None or turn.status != IN_PROGRESS:
            self._registry.remove(feed)
            feed.end(turn, is_undone)

    def _end_own(self, reply: Reply, turn: Turn | None, is_undone: bool) -> None:
        shown = turn
        if turn is not reply.draft.turn:
            if turn is not None and turn.status == IN_PROGRESS and turn.fence == reply.fence:
                self._correct_by_row(reply, turn)  # it is still ours
                return
            # Another process has taken it over: it may be reading the same answer.
            reply.goes_on_elsewhere = turn is not None and turn.status == IN_PROGRESS
            reply.call.hang_up()  # at once: what follows may wait for the database
            self._store_late_usage(reply, turn)
        if reply.failure and _is_end_of(reply, turn):
            shown = Draft.of(reply.draft.turn, **reply.failure).turn
        self._end_as(reply, shown, is_undone)
        reply.log(turn)

    def _end_as(self, reply: Reply, shown: Turn | None, is_undone: bool = False) -> None:
        """Forget a reply, and tell its followers that it has ended as `shown`."""
        self._registry.remove(reply)
        reply.end(shown, is_undone)
        reply.let_go()

    def _store_late_usage(self, reply: Reply, turn: Turn | None) -> None:
        """Store the usage of a reply that was cancelled or deleted: only this process knows it."""
        draft, prompt = reply.draft, reply.prompt
        reply.count_usage()
        if prompt:
            draft.context_start = prompt.context_start(reply.id)
            draft.set(turns_left_out=prompt.left_out)
        # In any other case, the process that took the reply over stores an estimate.
        lacks_usage = turn is None or turn.cancelled
        if lacks_usage and self._counts_as_alive(reply, turn):
            try:
                commits.store_late_usage(draft, reply.thoughts_to_store())
            except Unavailable:  # it may have been committed all the same
                draft.account.maybe_counted = draft.account.used
                raise

    def _counts_as_alive(self, reply: Reply, turn: Turn | None) -> bool:
        """Whether it is certain that this process has not been presumed dead by another one, which
        would then have estimated the usage. If a request cancelled the reply, that is certain until
        the lease lapses. If the row was deleted, another process may have taken the reply over
        before: that is possible from its seventh check on."""
        seconds = (CHECKS_UNTIL_DEAD - 1) * CHECK_INTERVAL if turn is None else LEASE / SECOND
        return self._clock() < reply.renewed_at + seconds


def _is_end_of(reply: Reply, turn: Turn | None) -> bool:
    """Whether `turn` is the end that this writer has stored. If the commit was not answered, `turn`
    was read from the database, so it is not the same object as the draft's turn."""
    return turn is not None and turn.fence == reply.fence and not turn.cancelled


def _is_news(pending: Pending) -> bool:
    return bool(pending.text or pending.is_over or pending.usage_draft or pending.thoughts)


def _update_thoughts(feeds: list[Feed], news: dict[int, commits.News]) -> None:
    """For each reply of another process, tell its followers which thinking has been stored since
    the last poll. If the writer of a reply has changed, all of its thinking is read again."""
    wanted = {}
    for feed in feeds:
        if (of_reply := news.get(feed.id)) is None or feed.state:
            continue
        thinking, characters = feed.progress.thinking, of_reply.thinking_characters
        is_other = of_reply.fence != feed.known_fence
        if characters != thinking.characters or (characters and is_other):
            reads_all = is_other or characters < thinking.characters
            feed.known_fence = of_reply.fence
            if reads_all:
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
        feed.update_progress(thinking=Thoughts(text, characters, thinking.version))


def _read_in_progress(ids: Iterable[int]) -> Iterator[Turn]:
    """Those of these replies that are in progress, with their texts. One query reads many, since
    the database may be far away, but not all, since their texts may be long."""
    left = list(ids)
    while left:
        limit_time()
        yield from Turn.read_in_progress(left[:READ_AT_ONCE])
        del left[:READ_AT_ONCE]


def _first_of(replies: list[Reply]) -> list[Reply]:
    """The first of these replies: as many as one transaction can store without blocking others for
    long, but at least one."""
    sizes = itertools.accumulate(reply.size_to_store() for reply in replies)
    fitting = sum(size <= MAX_COMMIT_SIZE for size in sizes)
    return replies[: max(1, fitting)]


class _RecentEnd(NamedTuple):
    since: float
    size: int  # characters
    draft: Draft


class RecentEnds:
    """The replies that ended here lately, to store their ends again if a failover of the database
    loses them. If they have too many characters in all, the oldest are dropped."""

    def __init__(self) -> None:
        self._kept: collections.deque[_RecentEnd] = collections.deque()
        self._size = 0  # characters

    def add(self, draft: Draft, now: float) -> None:
        size = len(draft.turn.content) + len(draft.turn.search_text)
        self._kept.append(_RecentEnd(now, size, draft))
        self._size += size

    def drop_old(self, now: float) -> None:
        while self._kept and (
            self._kept[0].since <= now - RECENT_TIME or self._size > MAX_RECENT_SIZE
        ):
            self._size -= self._kept.popleft().size

    def drafts(self) -> list[Draft]:
        return [kept.draft for kept in self._kept]


class KeeperThread:
    """Makes the rounds of a keeper on one connection, which stays open until it breaks."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._thread: threading.Thread | None = None
        self._lock, self._wake = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Start it if it does not run. Raises Overloaded if no thread can be started."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                log.error("%s", error)
                raise Overloaded from None

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        outage = Outage()
        while True:
            try:
                self._make_rounds(outage)
            except Unavailable as error:
                # What has arrived stays in memory, and is not shown, until the database is back.
                outage.begin(error)
            except Exception as error:
                # Any bug is caught: without a keeper, no reply of this process would be stored.
                log.error("the keeper failed, and begins again", exc_info=error)
            self._keeper.reset_checks()
            time.sleep(FAILURE_PAUSE)

    def _make_rounds(self, outage: "Outage") -> None:
        # This limits a new connection. An idle one is had at once, and is either broken, or answers
        # as soon as the server does.
        limit_time(RECONNECT_TIMEOUT)
        with db.connection_context():
            limit_time()
            self._keeper.begin()
            while True:
                self._keeper.round(time.monotonic())
                outage.end()
                self._wake.wait(self._keeper.seconds_to_rest())
                if pause := self._keeper.seconds_to_gather():
                    time.sleep(pause)
                self._wake.clear()


class Outage:
    """Logs once that the database does not answer, and once that it answers again. In between,
    `/health` reports it, even while the keeper pauses or waits for a connection."""

    def __init__(self) -> None:
        self._began: float | None = None

    def begin(self, error: BaseException) -> None:
        if self._began is None:
            self._began = time.monotonic()
            begin_outage(self)
            log.error("the database does not answer: %s", reason(error))

    def end(self) -> None:
        if self._began is not None:
            seconds = time.monotonic() - self._began
            log.warning("the database answers again after %.0f s", seconds)
            self._began = None
            end_outage(self)
