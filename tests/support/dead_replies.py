"""Many replies at once whose processes are dead."""

import time

import trouble
from client import ALICE, BOB
from raw_tables import tables_of
from talk import Asking

# What lasts


def check_many_dead(start, settings, count):
    """All of one owner. Within half a minute they continue, or have ended, while another user is
    served as usual."""
    url = settings["DATABASE_URL"]
    server = start(**settings)
    session = server.client(ALICE).create("Hello")
    server.stop()
    trouble.copy_as_dead(url, session, count)
    server = start(**settings)
    began, alice = time.monotonic(), server.client(ALICE)
    dead = "SELECT count(*) FROM turn WHERE lease_until = 1000000 AND status = 'in_progress'"
    with (
        tables_of(url) as tables,
        Asking(alice, session, writers=2, user=server.client(BOB)) as asking,
    ):
        while tables.value(dead):
            assert time.monotonic() < began + 30, tables.value(dead)
            time.sleep(0.2)
    slowest = max(
        (answer for answer in asking.answers if answer.what == "create"),
        key=lambda each: each.seconds,
    )
    print(
        f"{count} ended {time.monotonic() - began:.1f} s after the start; the slowest creation took {slowest.seconds:.2f} s"
    )
    assert slowest.seconds < 1
    asking.check()
    assert asking.told("list") == asking.told("show") == {200}
    assert "ERROR" not in server.output()
