"""What a driver raises is a bug or an outage, by its code."""

import os
import subprocess
import sys

import pytest

from client import SECRET
from product import ROOT
from raw_tables import tables_of
from stepped import run_stepped

# By the code of the driver

IN_PROCESS = """
import sys
import app, database, models
from database import db

app.create_app()
for statement in sys.argv[1:]:
    database.limit_time(3)  # a connection is not tried for with less than two seconds
    try:
        with db.connection_context(), db.write():
            db.execute_sql(statement).fetchall()
        print("none")
    except database.Unavailable:
        print("outage")
    except Exception:
        print("bug")
"""


# Of each engine: what is a bug of ours, and what an outage.
ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


BUGS = [
    "SELEC 1",
    "SELECT * FROM missing",
    "SELECT missing FROM session",
    "INSERT INTO session (id) VALUES (NULL)",
    "INSERT INTO turn (id) VALUES ('text')",
]


OUTAGES = [ENDLESS]


RAISED = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{}'; END $$"


POSTGRESQL_BUGS = [*BUGS, "SELECT 1 / 0"] + [
    RAISED.format(code) for code in ("0A000", "22001", "23505", "25P02", "42501", "XX000")
]


POSTGRESQL_OUTAGES = [
    ENDLESS,
    "SELECT pg_sleep(9)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
] + [
    RAISED.format(code)
    for code in ("08006", "25006", "25P03", "40P01", "53300", "55P03", "57014", "58030", "XX001")
]


def kinds(settings, statements):
    """What the application takes these statements for."""
    environment = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET} | settings
    command = [sys.executable, "-c", IN_PROCESS, *statements]
    run = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 60}
    told = subprocess.run(command, **run)
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


def test_a_bug_is_told_from_an_outage_by_the_code_of_the_driver(engine, settings):
    is_sqlite = engine == "sqlite"
    bugs, outages = (BUGS, OUTAGES) if is_sqlite else (POSTGRESQL_BUGS, POSTGRESQL_OUTAGES)
    told = ["bug"] * len(bugs) + ["outage"] * len(outages) + ["none"]
    assert kinds(settings, [*bugs, *outages, "SELECT 1"]) == told


OF_A_COMMAND = """
import sys
import database
from database import db
from upkeep.migrations import MIGRATIONS

database.open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
try:
    with database.connected(), db.write():
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())").fetchall()
except database.Unavailable as error:
    print(database.reason(error))
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_of_a_lost_connection_the_driver_prints_nothing_besides(settings):
    command = [sys.executable, "-c", OF_A_COMMAND, settings["DATABASE_URL"]]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout and told.stderr == ""


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_file_that_takes_no_writes_is_an_outage(settings):
    statements = ["DELETE FROM turn", "PRAGMA query_only = 1", "DELETE FROM turn"]
    assert kinds(settings, statements) == ["none", "none", "outage"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_transaction_that_sqlite_has_ended_itself_is_an_outage(settings):
    """Where the disk is full, or a statement that writes is interrupted: there is nothing left to roll back."""
    large = "INSERT INTO piece SELECT 1, 1, zeroblob(10000000)"
    endless = ENDLESS.replace("SELECT count(*) FROM n", "INSERT INTO piece SELECT x, x, '' FROM n")
    no_key = "PRAGMA foreign_keys = 0"
    statements = [no_key, "PRAGMA max_page_count = 100", large, endless, "DELETE FROM turn"]
    assert kinds(settings, statements) == ["none", "none", "outage", "outage", "none"]


VANISHES = """
import socket, sys, time
sys.path.append("tests/support")
import database
from database import db
from peewee import SQL
from upkeep.migrations import MIGRATIONS
from vanishing import drop_all_that_comes

database.open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
with database.connected(), db.write():
    db.send(SQL("SELECT id FROM release FOR UPDATE"))()
    with socket.socket(fileno=db.connection().fileno()) as sock:
        drop_all_that_comes(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)  # and nothing is sent
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        sock.detach()
    print("vanished", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_host_that_vanishes_in_a_transaction_holds_no_row_for_long(settings):
    """The server waits for more of its pipeline, where no limit of an idle transaction counts."""
    command = [sys.executable, "-c", VANISHES, settings["DATABASE_URL"]]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
        tables_of(settings["DATABASE_URL"]) as tables,
    ):
        try:
            assert process.stdout.readline() == "vanished\n"
            tables.rows("SET lock_timeout = '20s'")
            assert tables.rows("SELECT count(*) FROM (SELECT id FROM release FOR UPDATE) AS held")
        finally:
            process.kill()


GIVEN_UP = """
import sys
from database import db, limit_time, open_database, transaction
from upkeep.migrations import MIGRATIONS

open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
statements = [sys.argv[2], "SELECT 1"]


@transaction
def change():
    db.execute_sql(statements.pop(0))


limit_time()
with db.connection_context():
    change()
print("done after", 2 - len(statements), "tries")
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("code", ["40001", "40P01"], ids=["serialization", "deadlock"])
def test_a_transaction_that_postgresql_gives_up_is_tried_again(settings, code):
    command = [sys.executable, "-c", GIVEN_UP, settings["DATABASE_URL"], RAISED.format(code)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout == "done after 2 tries\n", told.stderr


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_connection_that_could_not_come_in_time_is_not_begun(new_database):
    """libpq waits for two seconds at least, which a request may not have left."""
    script = """
import time
from database import limit_time
limit_time(1.5)
began = time.monotonic()
try:
    with db.connection_context():
        told = "connected"
except Unavailable:
    told = "unavailable"
print(json.dumps([told, time.monotonic() - began < 1]))
"""
    assert run_stepped(script, DATABASE_URL=new_database()) == ["unavailable", True]


def test_a_machine_that_has_just_started_is_well(new_database):
    """Its monotonic clock is near zero."""
    script = """
import types
import database, database.transactions
database.transactions.time = types.SimpleNamespace(monotonic=lambda: 1.0)
print(json.dumps(database.check()))
"""
    assert run_stepped(script, DATABASE_URL=new_database()) is None
