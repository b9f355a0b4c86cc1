"""`RETENTION_DAYS`: what is deleted, when the first time is, and what is said about it."""

import re
import time

import pytest

from client import wait_until
from moves import move
from raw_tables import tables_of

DAY = 86_400_000_000  # microseconds


@pytest.fixture
def old(start, settings, provider):
    """A client with sessions that were not used for 8, 20 and 40 days, and a new one."""
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with tables_of(settings["DATABASE_URL"]) as tables:
        for days in (8, 20, 40, 0):
            session = alice.create(f"{days} days")
            later = "UPDATE session SET updated_at = updated_at - ? WHERE id = ?"
            tables.rows(later, days * DAY, tables.key_of(session))
    return alice


def titles(client):
    return [row["title"] for row in client.get("/sessions").json()["data"]]


def started(start, settings, days):
    """A server that keeps sessions for `days` days and has swept once, and what its first line says."""
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET sized_at = NULL")
        server = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=days)
        # The sweep counts sizes after it has looked for what is due.
        unsized = "SELECT count(*) FROM session WHERE sized_at IS NULL AND owner <> ''"
        wait_until(lambda: not tables.value(unsized))
    line = server.wait_for_output(" start version=")
    return server, re.search('retention="([^"]+)"', line)[1]


def pass_a_day(settings, server, *, seen=True):
    """Stop this server, as if that had been a day after its start. If the day was not `seen`, no server
    has watched the clock."""
    server.stop()
    with tables_of(settings["DATABASE_URL"]) as tables:
        for column in ("retention_since", "most_due_since", *(() if seen else ("watched_at",))):
            tables.rows(f"UPDATE release SET {column} = {column} - ?", DAY)


def swept(server):
    """How many sessions each sweep of this server has deleted, from its log."""
    return [
        int(count)
        for count in re.findall("INFO retention days=[0-9]+ deleted=([0-9]+)", server.output())
    ]


def test_the_start_says_how_many_are_due_and_the_first_day_deletes_none(start, settings, old):
    server, said = started(start, settings, 7)
    assert re.fullmatch(
        r"3 sessions are due, unused for 7 days; deletion begins at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        said,
    )
    assert len(titles(old)) == 4 and swept(server) == []


def test_the_first_sweep_comes_a_day_later_and_says_how_many_it_deleted(start, settings, old):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first)
    server, said = started(start, settings, 30)
    assert said.startswith("1 session is due, unused for 30 days")
    wait_until(lambda: swept(server) == [1])
    assert titles(old) == ["0 days", "8 days", "20 days"]


def test_a_lower_number_waits_a_day_of_its_own_and_a_higher_one_does_not(start, settings, old):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first)
    server, _ = started(start, settings, 7)
    assert "8 days" in titles(old) and swept(server) == []
    server.client().create("Young")  # now only two of five are due
    pass_a_day(settings, server)
    server, _ = started(start, settings, 15)
    wait_until(lambda: swept(server) == [2])
    assert titles(old) == ["Young", "0 days", "8 days"]


def test_a_setting_that_was_undone_waits_its_day_again(start, settings, old):
    first, _ = started(start, settings, 7)
    pass_a_day(settings, first)
    start(**settings, WEB_CONCURRENCY=1)
    server, _ = started(start, settings, 7)
    assert len(titles(old)) == 4 and swept(server) == []


WAITS = "nothing is deleted before "


def test_a_server_that_was_off_for_a_day_waits_a_day(start, settings, old):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first, seen=False)
    server, said = started(start, settings, 30)
    assert WAITS in server.output() and "1 session is due" in said
    assert len(titles(old)) == 4 and swept(server) == []
    pass_a_day(settings, server)
    server, _ = started(start, settings, 30)
    wait_until(lambda: swept(server) == [1])
    assert WAITS not in server.output()


AGAIN = "the database was restored or moved: " + WAITS


def test_a_restored_database_waits_a_day(start, settings, old):
    first, _ = started(start, settings, 30)
    assert WAITS not in first.output()
    pass_a_day(settings, first)
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE release SET retention_since = NULL")  # as `flask restore` does
    server, _ = started(start, settings, 30)
    assert AGAIN in server.output()
    assert len(titles(old)) == 4 and swept(server) == []


def test_a_moved_database_waits_a_day(start, settings, provider, new_database, tmp_path):
    first = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=30)
    first.client().create("Old")
    pass_a_day(settings, first)
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET updated_at = updated_at - ?", 40 * DAY)
    target = settings | {"DATABASE_URL": new_database()}
    move(tmp_path, settings["DATABASE_URL"], target["DATABASE_URL"])
    server, said = started(start, target, 30)
    assert AGAIN in server.output() and said.startswith("1 session is due")
    assert titles(server.client()) == ["Old"] and swept(server) == []


@pytest.mark.parametrize("column", ["watched_at", "retention_since"])
def test_after_a_clock_was_ahead_the_server_waits_one_day(start, settings, old, column):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first)
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(f"UPDATE release SET {column} = {column} + ?", 100 * DAY)
    server, _ = started(start, settings, 30)
    assert WAITS in server.output() and len(titles(old)) == 4
    pass_a_day(settings, server)
    server, _ = started(start, settings, 30)
    wait_until(lambda: swept(server) == [1])


def test_a_sweep_of_more_than_half_of_all_sessions_waits_a_day(start, settings, old):
    """What other processes import at the moment does not count."""
    imported = [old.create("Imported") for _ in range(2)]
    writing = "UPDATE session SET owner = '', writer = 'other/1/1', imported_at = ? WHERE id = ?"
    with tables_of(settings["DATABASE_URL"]) as tables:
        for session in imported:
            tables.rows(writing, time.time_ns() // 1000, tables.key_of(session))
    first, _ = started(start, settings, 7)
    pass_a_day(settings, first)
    server, said = started(start, settings, 7)
    assert "more than half of all sessions are due: " + WAITS in server.output()
    assert said.startswith("3 sessions are due") and len(titles(old)) == 4
    pass_a_day(settings, server)
    server, _ = started(start, settings, 7)
    wait_until(lambda: swept(server) == [3])
    assert titles(old) == ["0 days"]
