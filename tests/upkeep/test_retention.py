"""`RETENTION_DAYS`: what is deleted, when for the first time, and what is told of it."""

import re
import uuid

import pytest

from client import wait_until
from raw_tables import tables_of

DAY = 86_400_000_000  # microseconds


@pytest.fixture
def old(start, settings, provider):
    """A client whose three sessions were not used for 8, 20 and 40 days, and a young one."""
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with tables_of(settings["DATABASE_URL"]) as tables:
        for days in (8, 20, 40, 0):
            session = alice.create(f"{days} days")
            name = uuid.UUID(session["id"]).hex if tables.is_sqlite else session["id"]
            tables.rows(
                "UPDATE session SET updated_at = updated_at - ? WHERE id = ?", days * DAY, name
            )
    return alice


def titles(client):
    return [row["title"] for row in client.get("/sessions").json()["data"]]


def started(start, settings, days):
    """A server that keeps sessions for so many days, and what its first line says of it."""
    server = start(**settings, WEB_CONCURRENCY=1, RETENTION_DAYS=days)
    line = server.wait_for_output(" start version=")
    return server, re.search('retention="([^"]+)"', line)[1]


def pass_a_day(settings, *ended):
    """Have a day pass on which these servers are not there any more: each looks at its start, and hourly."""
    for server in ended:
        server.stop()
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE release SET retention_since = retention_since - ?", DAY)


def swept(server):
    """How many sessions each sweep of this server has deleted, by its log."""
    return [
        int(count)
        for count in re.findall("INFO retention days=[0-9]+ deleted=([0-9]+)", server.output())
    ]


def test_the_start_says_how_many_are_due_and_the_first_day_deletes_none(start, settings, old):
    server, said = started(start, settings, 7)
    assert re.fullmatch(
        r"3 sessions are due, unused for 7 days; what is due goes from \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ on",
        said,
    )
    with tables_of(settings["DATABASE_URL"]) as tables:
        wait_until(lambda: tables.value("SELECT retention_since FROM release"))
    server.client().create("Meanwhile")  # the keeper has looked
    assert len(titles(old)) == 5 and swept(server) == []


def test_the_first_sweep_is_a_day_after_and_tells_how_many_went(start, settings, old):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first)
    server, said = started(start, settings, 30)
    assert said.startswith("1 session is due, unused for 30 days")
    wait_until(lambda: swept(server) == [1])
    assert titles(old) == ["0 days", "8 days", "20 days"]


def test_a_lower_number_has_a_day_of_its_own_and_a_higher_one_none(start, settings, old):
    first, _ = started(start, settings, 30)
    pass_a_day(settings, first)
    server, _ = started(start, settings, 7)
    server.client().create("Meanwhile")
    assert "8 days" in titles(old) and swept(server) == []
    pass_a_day(settings, server)
    server, _ = started(start, settings, 15)
    wait_until(lambda: swept(server) == [2])
    assert titles(old) == ["Meanwhile", "0 days", "8 days"]


def test_a_setting_that_was_taken_back_has_its_day_again(start, settings, old):
    first, _ = started(start, settings, 7)
    pass_a_day(settings, first)
    start(**settings, WEB_CONCURRENCY=1)
    server, _ = started(start, settings, 7)
    server.client().create("Meanwhile")
    assert len(titles(old)) == 5 and swept(server) == []
