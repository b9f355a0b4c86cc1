"""Which replies of other processes are orphaned. Pure: what was seen goes in, what is due comes
out."""

from collections.abc import Iterable
from typing import NamedTuple

from models import RELEASED
from replies.commits import Orphan

# A lapsed lease is seen unchanged at so many looks, a second apart, before its process counts as
# dead. So what holds up all processes, as an outage, a pause or a step of the clock, costs none its
# reply: it renews the lease first.
LOOKS = 7
# Further looks for which a reply waits that no process has room for; where it was handed over, it
# waits for the process that starts in the place of its own.
PATIENCE = 2
PATIENCE_RELEASED = 20


class Due(NamedTuple):
    to_take_over: list[Orphan]
    to_end: list[Orphan]


class Orphans:
    """How often each was seen. For example, with a limit of 3: a lapsed reply is due to be taken
    over at its seventh look; if no process has room for it, it ends at its ninth."""

    def __init__(self, continue_limit: int) -> None:
        self._continue_limit = continue_limit
        self._looks: dict[Orphan, int] = {}

    def look(self, found: Iterable[Orphan]) -> Due:
        """What is due of those that are found at this look."""
        self._looks = {orphan: self._looks.get(orphan, 0) + 1 for orphan in found}
        due = Due([], [])
        for orphan, looks in self._looks.items():
            if not self._is_orphaned(orphan, looks):
                continue
            patience = PATIENCE_RELEASED if orphan.lease == RELEASED else PATIENCE
            if self._may_go_on(orphan) and looks < LOOKS + patience:
                due.to_take_over.append(orphan)
            else:
                due.to_end.append(orphan)
        return due

    def forget(self) -> None:
        """Begin anew: this process could not look for a while."""
        self._looks = {}

    def _is_orphaned(self, orphan: Orphan, looks: int) -> bool:
        """Whether nobody comes back to it."""
        return orphan.lease == RELEASED or orphan.is_dead or looks >= LOOKS

    def _may_go_on(self, orphan: Orphan) -> bool:
        if orphan.lease == RELEASED:  # which does not count as a restart
            return self._continue_limit > 0
        return orphan.restarts < self._continue_limit
