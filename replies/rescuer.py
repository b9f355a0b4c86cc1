"""Leases, and the replies of processes that died: part of what a keeper does at a look."""

import secrets
import time
from collections.abc import Callable, Sequence

from database import Unavailable
from logs import log
from models import Turn
from replies import commits
from replies.commits import Orphan
from replies.contained import contained, do_for_all, tell_bug
from replies.doubt import DoubtfulClaim
from replies.orphans import Orphans
from replies.reply import Reply
from tables.search import normalize

ENDED_AT_ONCE = 100  # orphans that are interrupted in one transaction
DOUBT = 600  # seconds in which a claim that was given up may be committed all the same


class Rescuer:
    """Renews the leases of this process, and rescues the replies of others."""

    def __init__(
        self,
        continue_limit: int,
        take_over: Callable[[Orphan, int], bool],
        store: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` stores what has arrived meanwhile: a writer who has waited comes first."""
        self._take_over, self._store, self._clock = take_over, store, clock
        self._orphans = Orphans(continue_limit)
        self._alive: set[str] = set()  # names of processes of this machine that are known to live
        # Since when: what was answered with 503, and may be committed all the same.
        self._doubtful: list[tuple[float, DoubtfulClaim]] = []
        # What may have been taken over though that was not answered: with which fence.
        self._unanswered: dict[Orphan, int] = {}

    @property
    def is_in_doubt(self) -> bool:
        """Whether a claim may still come through that was given up."""
        return bool(self._doubtful)

    def doubt(self, claim: DoubtfulClaim) -> None:
        self._doubtful.append((self._clock(), claim))

    def forget(self) -> None:
        """There were no looks for a while."""
        self._orphans.forget()

    def renew(self, replies: Sequence[Reply], now: float, older_than: float = 0) -> None:
        """Renew the leases of these replies, but for those that have just been claimed."""
        replies = [reply for reply in replies if reply.asked_at <= now - older_than]
        if not replies:
            return
        renewed = commits.renew({reply.id: reply.fence for reply in replies})
        ids = {turn_id for (turn_id,) in renewed()}
        for reply in replies:
            if reply.id in ids:
                reply.renewed_at = now

    def undo_claims(self, now: float) -> None:
        """Undo what was told as failed and is committed all the same, before anybody takes it over
        and pays for it."""
        doubtful = list(self._doubtful)
        if not doubtful:
            return
        news = commits.read_news({claim.turn_id: None for _, claim in doubtful})
        for since, claim in doubtful:
            with contained("a claim is not undone"):
                if claim.turn_id in news and claim.undo():
                    text = "a claim that was told as failed came through, and is undone"
                    log.warning(text, {"session": claim.session_id})
            if claim.turn_id in news or now > since + DOUBT:
                self._doubtful.remove((since, claim))

    def rescue(self, until: float) -> None:
        """Take over, or end, what others have left. What is not taken over by that time waits for
        the next look."""
        found = commits.find_orphans(self._alive)
        due = self._orphans.look(found)
        for orphan in dict.fromkeys([*self._taken(found), *due.to_take_over]):
            if self._clock() >= until:
                break
            with contained("an orphan is not taken over"):
                if self._take(orphan):
                    self._store()
        for start in range(0, len(due.to_end), ENDED_AT_ONCE):
            some = due.to_end[start : start + ENDED_AT_ONCE]
            do_for_all(self._end, some, lambda _, bug: tell_bug("an orphan is not ended", bug))
            self._store()

    def _taken(self, found: Sequence[Orphan]) -> list[Orphan]:
        """Those that this process has taken over without an answer, as it is seen now: otherwise
        nobody would write them until their new leases lapse. Those of which it is not seen, and
        that are orphans still, may be taken over by a commit that comes late, or have to be looked
        at anew: the database was away, and their writers may be waiting to renew the leases."""
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
        """Take it over, again with the same fence if that was not answered: otherwise one death
        would count as two."""
        fence = self._unanswered.pop(orphan, None) or secrets.randbits(63)
        try:
            return self._take_over(orphan, fence)
        except Unavailable:
            self._unanswered[orphan] = fence
            raise

    def _end(self, orphans: Sequence[Orphan]) -> None:
        leases = {orphan.turn_id: orphan.lease for orphan in orphans}
        found = Turn.read_under_way(leases)
        turns = [turn for turn in found if turn.lease_until == leases[turn.id]]
        if turns:  # else another process was faster
            search_texts = [normalize(turn.content) for turn in turns]
            commits.interrupt(turns, search_texts, cancelled=False)
