"""What a keeper does once a second: renew leases, and take over or end the replies of processes
that have died or stopped."""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from database import SECOND, Unavailable, monitored
from logs import log
from models import LEASE, RELEASED, Turn
from replies import commits
from replies.claim import UnconfirmedClaim
from replies.commits import Orphan
from replies.fault_isolation import contained, do_for_all, log_bug
from replies.reply import Reply
from tables.search import normalize

LOOK_INTERVAL = 1  # seconds
# Seconds without a reply in progress in any process after which a process is idle, and seconds
# between two of its looks. So it may see that much later that a reply is an orphan.
IDLE_AFTER, IDLE_INTERVAL = 60, 14
TAKING = 1  # seconds of a look that takeovers may last; further orphans wait for the next look
# A process counts as dead when this many looks in a row have found the same lapsed lease. An
# outage, a pause or a step of the clock may let the leases of living processes lapse: the looks
# leave them time to renew.
LOOKS = 7
# Further looks before an orphan ends, if no process has room for it. One that was handed over waits
# longer: until the process that replaces its own has started.
EXTRA_LOOKS = 2
EXTRA_LOOKS_RELEASED = 20
ENDED_AT_ONCE = 100  # orphans that are interrupted in one transaction
UNCONFIRMED = 600  # seconds for which an unconfirmed claim may still turn out to be committed

# The sums: seconds until another process takes a reply over, at the latest. They hold if the
# database answers, there is room, and one look is enough for all orphans.
TAKEN_OVER = LOOK_INTERVAL + TAKING  # it was handed over, or its process died on the same machine
# The same, if all other processes are idle: the reply began less than IDLE_INTERVAL ago.
TAKEN_OVER_BY_IDLE = IDLE_INTERVAL + TAKING
# Its process died on another host, was cut off from the database, or was paused.
TAKEN_OVER_ELSEWHERE = LEASE // SECOND + LOOKS * LOOK_INTERVAL + TAKING
# The same, at the earliest: all looks span one interval less, and the lease was last renewed up to
# one interval before.
KEPT_ELSEWHERE = LEASE // SECOND + (LOOKS - 2) * LOOK_INTERVAL
# Seconds until a reply ends for which no process has room.
GIVEN_UP = LEASE // SECOND + (LOOKS + EXTRA_LOOKS) * LOOK_INTERVAL + TAKING


class Due(NamedTuple):
    """The orphans that one look has to deal with."""

    to_take_over: list[Orphan]
    to_end: list[Orphan]


class Orphans:
    """Counts the looks that have found each orphan, and decides what is due. It is pure: it neither
    queries the database nor reads a clock. For example, with a limit of 3: a reply with a lapsed
    lease is due to be taken over at the seventh look; if no process has room, it ends at the
    ninth."""

    def __init__(self, continue_limit: int) -> None:
        self._continue_limit = continue_limit
        self._looks: dict[Orphan, int] = {}

    def look(self, found: Iterable[Orphan]) -> Due:
        """Count these orphans, which this look has found; returns what is due now."""
        self._looks = {orphan: self._looks.get(orphan, 0) + 1 for orphan in found}
        due = Due([], [])
        for orphan, looks in self._looks.items():
            if not self._is_orphaned(orphan, looks):
                continue
            extra = EXTRA_LOOKS_RELEASED if orphan.lease == RELEASED else EXTRA_LOOKS
            if self._may_go_on(orphan) and looks < LOOKS + extra:
                due.to_take_over.append(orphan)
            else:
                due.to_end.append(orphan)
        return due

    def forget(self) -> None:
        """Count from zero: this process could not look for a while."""
        self._looks = {}

    def _is_orphaned(self, orphan: Orphan, looks: int) -> bool:
        """Whether its writer counts as dead, or has handed it over."""
        return orphan.lease == RELEASED or orphan.is_dead or looks >= LOOKS

    def _may_go_on(self, orphan: Orphan) -> bool:
        if orphan.lease == RELEASED:  # a hand-over does not count as a restart
            return self._continue_limit > 0
        return orphan.restarts < self._continue_limit


class Rescuer:
    """Renews the leases of this process, and takes over or ends the orphans of others."""

    def __init__(
        self,
        continue_limit: int,
        take_over: Callable[[Orphan, int], bool],
        store: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` stores what has arrived here. It is called after each takeover, since a batch of
        them may take a second."""
        self._take_over, self._store, self._clock = take_over, store, clock
        self._orphans = Orphans(continue_limit)
        self._alive: set[str] = set()  # names of processes that run on this machine
        self._unconfirmed: list[tuple[float, UnconfirmedClaim]] = []  # since when, and which
        # Takeovers whose commits were not answered: each orphan, and the fence for it.
        self._unanswered: dict[Orphan, int] = {}

    @property
    def has_unconfirmed(self) -> bool:
        """Whether a claim may still have to be undone."""
        return bool(self._unconfirmed)

    def undo_if_committed(self, claim: UnconfirmedClaim) -> None:
        self._unconfirmed.append((self._clock(), claim))

    def forget(self) -> None:
        """Count the looks from zero: this process could not look for a while."""
        self._orphans.forget()

    def renew(self, replies: Sequence[Reply], now: float, older_than: float = 0) -> None:
        """Renew the leases of those replies that are at least `older_than` seconds old."""
        replies = [reply for reply in replies if reply.asked_at <= now - older_than]
        if not replies:
            return
        renewed = commits.renew({reply.id: reply.fence for reply in replies})
        ids = {turn_id for (turn_id,) in renewed()}
        for reply in replies:
            if reply.id in ids:
                reply.renewed_at = now

    def undo_claims(self, now: float) -> None:
        """Undo the unconfirmed claims that turn out to be committed. It must be done before a
        process takes their replies over: the model would answer a message that its client has been
        told was not accepted."""
        unconfirmed = list(self._unconfirmed)
        if not unconfirmed:
            return
        with monitored():
            news = commits.read_news({claim.turn_id: None for _, claim in unconfirmed})
        for since, claim in unconfirmed:
            with contained("a claim is not undone"):
                if claim.turn_id in news and claim.undo():
                    text = "a claim that was answered with 503 was committed, and is undone"
                    log.warning(text, {"session": claim.session_id})
            if claim.turn_id in news or now > since + UNCONFIRMED:
                self._unconfirmed.remove((since, claim))

    def rescue(self, seconds: float = TAKING) -> None:
        """Look for orphans, and take over or end those that are due. Takeovers stop after this many
        seconds; further orphans wait for the next look."""
        with monitored():
            found = commits.find_orphans(self._alive)
            taken = self._late_takeovers(found)
        due = self._orphans.look(found)
        until = self._clock() + seconds
        for orphan in dict.fromkeys([*taken, *due.to_take_over]):
            if self._clock() >= until:
                break
            with contained("an orphan is not taken over"):
                if self._take(orphan):
                    self._store()
        for start in range(0, len(due.to_end), ENDED_AT_ONCE):
            some = due.to_end[start : start + ENDED_AT_ONCE]
            do_for_all(self._end, some, lambda _, bug: log_bug("an orphan is not ended", bug))
            self._store()

    def _late_takeovers(self, found: Sequence[Orphan]) -> list[Orphan]:
        """The orphans whose unanswered takeovers turn out to be committed. By their rows,
        this process writes them, but it has not begun: it must take them at once, or nobody writes
        them until their new leases lapse. Takeovers of replies that are still orphans may yet be
        committed, so their fences are kept."""
        if not self._unanswered:
            return []
        news = commits.read_news({orphan.turn_id: None for orphan in self._unanswered})
        taken = [
            orphan
            for orphan, fence in self._unanswered.items()
            if orphan.turn_id in news and news[orphan.turn_id].fence == fence
        ]
        known = {*taken, *found}
        self._unanswered = {each: f for each, f in self._unanswered.items() if each in known}
        return taken

    def _take(self, orphan: Orphan) -> bool:
        """Take an orphan over; returns whether that succeeded. After an unanswered takeover, the
        same fence is used: with another one, one death could count as two restarts."""
        fence = self._unanswered.pop(orphan, None) or secrets.randbits(63)
        try:
            return self._take_over(orphan, fence)
        except Unavailable:
            self._unanswered[orphan] = fence
            raise

    def _end(self, orphans: Sequence[Orphan]) -> None:
        leases = {orphan.turn_id: orphan.lease for orphan in orphans}
        found = Turn.read_in_progress(leases)
        turns = [turn for turn in found if turn.lease_until == leases[turn.id]]
        if turns:  # otherwise another process was faster
            search_texts = [normalize(turn.content) for turn in turns]
            commits.interrupt(turns, search_texts, cancelled=False)
