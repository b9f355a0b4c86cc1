"""Fifty replies on two hosts, while processes die and hosts are replaced. `-s` shows how long
their readers waited."""

from fleet import Fleet, kill_worker, tell
from together import on_postgresql

GRACE = "--graceful-timeout 7"  # of which five seconds are for handing over


@on_postgresql
def test_fifty_replies_survive_a_killed_worker_and_a_replaced_host(start, settings, provider):
    """A worker is killed, and the other host is replaced: every reader gets the whole text,
    once."""
    fleet = Fleet(start, settings, provider, pace=0.7, words=36)
    first, second = fleet.host(), fleet.host(GRACE)
    with fleet.reading():
        fleet.happens("kill -9 of a worker", first)
        kill_worker(first)
        fleet.happens(
            "SIGTERM of a host", second
        )  # which hands over its replies while those of the worker are orphans
        second.process.terminate()
        fleet.leave(second)
        fleet.host(GRACE)
    waits = fleet.waits()
    tell(waits)
    # The second host may have taken the dead worker's replies over at once, and handed them over
    # soon after.
    fleet.check(most_calls=2)
    died, stopped = waits.values()
    assert died and died[-1] < 35
    assert stopped and stopped[-1] < 10
