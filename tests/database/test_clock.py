"""The time that all processes share: that of PostgreSQL's server, whatever the clock of a host says."""

import pytest

from stepped import run_stepped

# A function of that name comes before PostgreSQL's own in this connection's search path.
AHEAD = """
def set_ahead(hours):
    db.execute_sql("CREATE SCHEMA IF NOT EXISTS ahead")
    db.execute_sql(
        "CREATE OR REPLACE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql "
        f"AS $$ SELECT pg_catalog.clock_timestamp() + interval '{hours} hours' $$"
    )
    db.execute_sql("SET search_path = ahead, pg_catalog, public")


"""
CLAIMED = """
from models import Turn

with db.connection_context():
    set_ahead(HOURS)
    _, feed, _ = begin()
    Turn.update(writer="elsewhere/1/1").execute()
    print(json.dumps([orphan.turn_id for orphan in commits.find_orphans(set())]))
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("hours", [1, -1])
def test_a_lease_follows_the_servers_clock(new_database, hours):
    """Otherwise others would take the reply over at once, or not for an hour."""
    script = AHEAD + CLAIMED.replace("HOURS", str(hours))
    assert run_stepped(script, DATABASE_URL=new_database()) == []


STEPPED = """
import time, types
import database.postgresql

seconds = 0
database.postgresql.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() + seconds)
with db.connection_context():
    set_ahead(0)
    began, told = db.now(), []
    for seconds, hours in ((2, 1), (4, -1), (6, 0)):
        set_ahead(hours)
        told.append(round((db.now() - began) / 3600 / 1_000_000))
    print(json.dumps(told))
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_step_of_the_servers_clock_is_noticed_within_a_second(new_database):
    assert run_stepped(AHEAD + STEPPED, DATABASE_URL=new_database()) == [1, -1, 0]
