"""Where a client resumes, by the id of the last event that it has seen."""

import pytest

from api.events import position_after
from models import COMPLETE, IN_PROGRESS, Turn
from replies import Feed


def feed_of(status):
    return Feed(Turn(id=7, status=status, content="Twelve chars"))


@pytest.mark.parametrize(
    "last_id, of_ended, of_one_under_way",
    [
        (None, (0, False), (0, False)),
        ("", (0, False), (0, False)),
        ("7-0", (0, False), (0, False)),
        ("7-5", (5, False), (5, False)),
        ("7-12", (12, False), (12, False)),
        ("7-12-turn", (12, True), (12, False)),
        ("7-12-end", None, (12, False)),
        ("7-13", (12, True), (13, False)),  # as 1.0.0 wrote the ends
        ("7-14", None, (14, False)),
        ("7-15", (0, False), (15, False)),  # a failover may have taken it back
        ("7-5-turn", (5, False), (5, False)),
        ("8-5", (0, False), (0, False)),
        ("7", (0, False), (0, False)),
        ("7-5 ", (0, False), (0, False)),
        ("7-99999999999", (0, False), (0, False)),
    ],
)
def test_a_client_resumes_behind_what_it_has(last_id, of_ended, of_one_under_way):
    assert position_after(last_id, feed_of(COMPLETE)) == of_ended
    assert position_after(last_id, feed_of(IN_PROGRESS)) == of_one_under_way
