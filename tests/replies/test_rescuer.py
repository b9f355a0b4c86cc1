"""Which replies count as orphaned, by what each look sees."""

import itertools

import pytest

from models import RELEASED
from replies.commits import Orphan
from replies.rescuer import Orphans

LIMIT = 3
LAPSED = Orphan(turn_id=1, lease=5, restarts=0, owner="alice", is_dead=False)
DEAD = LAPSED._replace(is_dead=True)
HANDED_OVER = LAPSED._replace(lease=RELEASED, restarts=LIMIT)
WORN_OUT = LAPSED._replace(restarts=LIMIT)


def looks_of(orphan, limit=LIMIT, count=30):
    """What each of `count` looks says of an orphan that no process takes."""
    orphans = Orphans(limit)
    for _ in range(count):
        due = orphans.check([orphan])
        if orphan in due.to_take_over:
            yield "take over"
        elif orphan in due.to_end:
            yield "end"
        else:
            yield "wait"


@pytest.mark.parametrize(
    "orphan, limit, expected",
    [
        (LAPSED, LIMIT, {"wait": 6, "take over": 2, "end": 22}),
        (DEAD, LIMIT, {"take over": 8, "end": 22}),
        (HANDED_OVER, LIMIT, {"take over": 26, "end": 4}),
        (WORN_OUT, LIMIT, {"wait": 6, "end": 24}),
        (WORN_OUT._replace(is_dead=True), LIMIT, {"end": 30}),
        (LAPSED, 0, {"wait": 6, "end": 24}),
        (HANDED_OVER, 0, {"end": 30}),
    ],
)
def test_the_rescuer_waits_for_an_orphan_then_takes_it_over_then_ends_it(orphan, limit, expected):
    groups = [
        (what, len(list(looks))) for what, looks in itertools.groupby(looks_of(orphan, limit))
    ]
    assert dict(groups) == expected and len(groups) == len(expected)


def test_a_renewed_lease_starts_the_count_again():
    orphans = Orphans(LIMIT)
    for _ in range(6):
        assert orphans.check([LAPSED]) == ([], [])
    for _ in range(6):
        assert orphans.check([LAPSED._replace(lease=6)]) == ([], [])


def test_an_orphan_that_is_not_seen_is_forgotten():
    orphans = Orphans(LIMIT)
    for seen in (6 * [[LAPSED]], [[]], 6 * [[LAPSED]]):
        for found in seen:
            assert orphans.check(found) == ([], [])
    assert orphans.check([LAPSED]) == ([LAPSED], [])


def test_after_a_failed_look_the_count_starts_again():
    orphans = Orphans(LIMIT)
    for _ in range(6):
        orphans.check([LAPSED])
    orphans.reset_checks()
    assert orphans.check([LAPSED]) == ([], [])
