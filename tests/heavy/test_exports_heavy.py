"""An export of a hundred thousand turns: the memory that it needs, and what others notice
meanwhile."""

import pathlib
import re
import time
import uuid

from client import ALICE, BOB
from exports import pages_of
from others import others_at_work
from raw_tables import tables_of
from together import are_in_time, on_sqlite

SESSIONS, LENGTH = 1000, 100
MOST = 30  # MB more than before
NOW = time.time_ns() // 1000
KINDS = [("user", None, None), ("assistant", "m-1", "complete")]
TEXT = "Use a sorted set for each address: drop what is older, and count the rest. 漢字 " * 12


def fill(url):
    """A hundred thousand turns of alice's, of a kilobyte each."""
    ids = [uuid.uuid4() for _ in range(SESSIONS)]
    with tables_of(url) as tables:
        names = [one.hex if tables.is_sqlite else str(one) for one in ids]
        columns = ("id", "owner", "title", "title_is_users", "model", "created_at", "updated_at")
        rows = [
            (name, ALICE, f"Number {number}", False, "m-1", NOW + number, NOW + number, "x")
            for number, name in enumerate(names)
        ]
        tables.fill("session", (*columns, "folded_title"), rows)
        columns = ("id", "session_id", "kind", "content", "created_at", "shown", "cancelled")
        turns = [
            (
                number * LENGTH + place + 1,
                name,
                kind,
                f"{place} {TEXT}",
                NOW,
                True,
                False,
                model,
                status,
                "x",
            )
            for number, name in enumerate(names)
            for place in range(LENGTH)
            for kind, model, status in [KINDS[place % 2]]
        ]
        tables.fill("turn", (*columns, "model", "status", "folded"), turns)


def peak(server):
    """The most MB that the worker has had since the last reset."""
    [pid] = server.workers()
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def forget_peak(server):
    """Reset that maximum (man 5 proc_pid_clear_refs)."""
    [pid] = server.workers()
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


@on_sqlite
def test_an_export_of_a_hundred_thousand_turns_delays_nobody(start, settings, provider):
    server = start(**settings, WEB_CONCURRENCY=1)
    fill(settings["DATABASE_URL"])
    alice = server.client()
    with others_at_work(server.client(BOB), defer={"content": "Meanwhile"}) as took:
        time.sleep(10)  # until their own memory has stopped growing
        forget_peak(server)
        before = peak(server)
        began, count = time.monotonic(), 0
        for page in pages_of(alice):
            count += sum(len(line["turns"]) for line in page)
        seconds = time.monotonic() - began
    more = peak(server) - before
    print(f"{count} turns in {seconds:.1f} s, {more:.1f} MB more than {before:.0f}")
    assert count == SESSIONS * LENGTH
    assert more < MOST
    assert are_in_time(took["health"], 1) and are_in_time(took["create"], 1)
