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

CHECK_INTERVAL = 1  # seconds
# A process is idle once no process has had a reply in progress for IDLE_AFTER seconds. It then
# checks only every IDLE_INTERVAL seconds, so it may find an orphan later by so much.
IDLE_AFTER, IDLE_INTERVAL = 60, 14
# Seconds that the takeovers of one check may last; further orphans wait for the next check.
TAKEOVER_TIME = 1
# A process is presumed dead when this many checks in a row have found the same lapsed lease. An
# outage, a pause or a step of the clock may let the leases of living processes lapse: the checks
# leave them time to renew.
CHECKS_UNTIL_DEAD = 7
# Further checks before an orphan ends, if no process has room for it. An orphan that was handed
# over waits longer, so that the process that replaces its former one can start.
EXTRA_CHECKS = 2
EXTRA_CHECKS_RELEASED = 20
ENDED_AT_ONCE = 100  # orphans that are interrupted in one transaction
# Seconds for which an unconfirmed claim may still turn out to be committed.
UNCONFIRMED_TIMEOUT = 600

# Seconds until another process takes a reply over, at the latest; each is a sum of the above. They
# hold if the database answers, there is room, and one check is enough for all orphans.
# If the reply was handed over, or its process died on the same machine: after the death of the only
# one, counted from the start of the next. A container that is started again, or a machine, is
# another one: see `processes.machine`.
TAKEOVER_DELAY = CHECK_INTERVAL + TAKEOVER_TIME
# The same if all other processes are idle, so the reply began less than IDLE_INTERVAL ago. A reader
# that follows it at one of them wakes that process; then it is TAKEOVER_DELAY.
TAKEOVER_DELAY_IDLE = IDLE_INTERVAL + TAKEOVER_TIME
# If its process died on another host, was cut off from the database, or was paused:
TAKEOVER_DELAY_ELSEWHERE = LEASE // SECOND + CHECKS_UNTIL_DEAD * CHECK_INTERVAL + TAKEOVER_TIME
# The same at the earliest. The first and the last of CHECKS_UNTIL_DEAD checks are only
# CHECKS_UNTIL_DEAD - 1 intervals apart, and the lease may be two intervals old when the process
# dies, since a reply younger than one interval is not renewed.
MIN_TAKEOVER_DELAY_ELSEWHERE = LEASE // SECOND + (CHECKS_UNTIL_DEAD - 3) * CHECK_INTERVAL
# Seconds until a reply for which no process has room ends.
GIVE_UP_DELAY = TAKEOVER_DELAY_ELSEWHERE + EXTRA_CHECKS * CHECK_INTERVAL


class Due(NamedTuple):
    """The orphans that one check has to deal with."""

    to_take_over: list[Orphan]
    to_end: list[Orphan]


class Orphans:
    """Counts the checks that have found each orphan, and decides what is due. It is pure: it
    neither queries the database nor reads a clock. For example, a reply with a lapsed lease is due
    to be taken over at the seventh check; if no process has room, it ends at the ninth."""

    def __init__(self, continue_limit: int) -> None:
        self._continue_limit = continue_limit
        self._checks: dict[Orphan, int] = {}

    def check(self, found: Iterable[Orphan]) -> Due:
        """Count these orphans, which this check has found. Returns what is due now."""
        self._checks = {orphan: self._checks.get(orphan, 0) + 1 for orphan in found}
        due = Due([], [])
        for orphan, checks in self._checks.items():
            if not self._is_abandoned(orphan, checks):
                continue
            extra = EXTRA_CHECKS_RELEASED if orphan.lease == RELEASED else EXTRA_CHECKS
            if self._may_restart(orphan) and checks < CHECKS_UNTIL_DEAD + extra:
                due.to_take_over.append(orphan)
            else:
                due.to_end.append(orphan)
        return due

    def reset_checks(self) -> None:
        """Count from zero: this process could not check for a while."""
        self._checks = {}

    def _is_abandoned(self, orphan: Orphan, checks: int) -> bool:
        """Whether its writer is presumed dead, or has handed it over."""
        return orphan.lease == RELEASED or orphan.is_dead or checks >= CHECKS_UNTIL_DEAD

    def _may_restart(self, orphan: Orphan) -> bool:
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
        end_answer: Callable[[Turn], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` stores what has arrived here. It is called after each takeover, since a batch of
        them may take a second."""
        self._take_over, self._store, self._clock = take_over, store, clock
        self._end_answer = end_answer
        self._orphans = Orphans(continue_limit)
        self._alive: set[str] = set()  # names of processes that run on this machine
        self._unconfirmed: list[tuple[float, UnconfirmedClaim]] = []  # each, and when it was made
        # Takeovers whose commits were not answered: each orphan, and the fence for it.
        self._unanswered: dict[Orphan, int] = {}

    @property
    def has_unconfirmed(self) -> bool:
        """Whether a claim may still have to be undone."""
        return bool(self._unconfirmed)

    def undo_if_committed(self, claim: UnconfirmedClaim) -> None:
        self._unconfirmed.append((self._clock(), claim))

    def reset_checks(self) -> None:
        """Count the checks from zero: this process could not check for a while."""
        self._orphans.reset_checks()

    def renew(self, replies: Sequence[Reply], now: float, older_than: float = 0) -> None:
        """Renew the leases of those replies that are at least `older_than` seconds old."""
        replies = [reply for reply in replies if reply.began_at <= now - older_than]
        if not replies:
            return
        renewed = commits.renew({reply.id: reply.fence for reply in replies})
        ids = {turn_id for (turn_id,) in renewed()}
        for reply in replies:
            if reply.id in ids:
                reply.renewed_at = now

    def undo_claims(self, now: float) -> None:
        """Undo the unconfirmed claims that turn out to be committed. It must be done before a
        process takes their replies over: otherwise the model would answer a message although its
        client was told that it was not accepted."""
        unconfirmed = list(self._unconfirmed)
        if not unconfirmed:
            return
        with monitored():
            news = commits.read_news({claim.turn_id: None for _, claim in unconfirmed})
        for since, claim in unconfirmed:
            with contained("could not undo a claim"):
                if claim.turn_id in news and claim.undo():
                    text = "a claim that was answered with 503 was committed, and is undone"
                    log.warning(text, {"session": claim.session_id})
            if claim.turn_id in news or now > since + UNCONFIRMED_TIMEOUT:
                self._unconfirmed.remove((since, claim))

    def rescue(self, seconds: float = TAKEOVER_TIME) -> None:
        """Look for orphans, and take over or end those that are due. Takeovers stop after this many
        seconds; further orphans wait for the next check."""
        with monitored():
            found = commits.find_orphans(self._alive)
            taken = self._late_takeovers(found)
        due = self._orphans.check(found)
        until = self._clock() + seconds
        for orphan in dict.fromkeys([*taken, *due.to_take_over]):
            if self._clock() >= until:
                break
            with contained("could not take over an orphan"):
                if self._take(orphan):
                    self._store()
        for start in range(0, len(due.to_end), ENDED_AT_ONCE):
            some = due.to_end[start : start + ENDED_AT_ONCE]
            do_for_all(self._end, some, lambda _, bug: log_bug("could not end an orphan", bug))
            self._store()

    def _late_takeovers(self, found: Sequence[Orphan]) -> list[Orphan]:
        """The orphans whose unanswered takeovers turn out to be committed. Their rows name this
        process as the writer, but it has not begun to write: it must take them at once, or nobody
        writes them until their new leases lapse. If a reply is still an orphan, its takeover may
        still be committed, so the fence of the takeover is kept."""
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
        """Take an orphan over. Returns whether this has succeeded. After an unanswered takeover,
        the same fence is used: with another one, one death could count as two restarts."""
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
            for turn in commits.interrupt(turns, search_texts, cancelled=False):
                self._end_answer(turn)
