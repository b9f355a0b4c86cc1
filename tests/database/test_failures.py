"""Whether what a driver raises is a bug or an outage, by its code."""

import os
import subprocess
import sys

import pytest

import forked
from client import SECRET
from product import ROOT
from raw_tables import tables_of
from stepped import run_stepped

# By the driver's code

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


# For each engine: our bugs, and outages.
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
    """What the application takes these statements' failures for."""
    environment = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET} | settings
    told = forked.run(["-c", IN_PROCESS, *statements], ROOT, environment)
    assert told.returncode == 0, told.stderr
    return told.stdout.split()


def test_the_drivers_code_tells_a_bug_from_an_outage(engine, settings):
    is_sqlite = engine == "sqlite"
    bugs, outages = (BUGS, OUTAGES) if is_sqlite else (POSTGRESQL_BUGS, POSTGRESQL_OUTAGES)
    told = ["bug"] * len(bugs) + ["outage"] * len(outages) + ["none"]
    assert kinds(settings, [*bugs, *outages, "SELECT 1"]) == told


OF_A_COMMAND = """
import sys
import database
from database import db
from maintenance.migrations import MIGRATIONS

database.open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
try:
    with database.connected(), db.write():
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())").fetchall()
except database.Unavailable as error:
    print(database.reason(error))
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_the_driver_prints_nothing_about_a_lost_connection(settings):
    command = [sys.executable, "-c", OF_A_COMMAND, settings["DATABASE_URL"]]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout and told.stderr == ""


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_file_that_cannot_be_written_is_an_outage(settings):
    statements = ["DELETE FROM turn", "PRAGMA query_only = 1", "DELETE FROM turn"]
    assert kinds(settings, statements) == ["none", "none", "outage"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_transaction_that_sqlite_ended_itself_is_an_outage(settings):
    """If the disk is full or a writing statement is interrupted, there is nothing left to roll back."""
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
from maintenance.migrations import MIGRATIONS
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
def test_a_host_that_vanishes_in_a_transaction_locks_no_row_for_long(settings):
    """The server waits for more of its pipeline. The limit for idle transactions does not apply there."""
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
from maintenance.migrations import MIGRATIONS

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
def test_a_transaction_that_postgresql_aborts_is_tried_again(settings, code):
    command = [sys.executable, "-c", GIVEN_UP, settings["DATABASE_URL"], RAISED.format(code)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout == "done after 2 tries\n", told.stderr


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_connection_that_cannot_come_in_time_is_not_begun(new_database):
    """libpq waits for at least two seconds, which a request may not have left."""
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


def test_a_machine_that_has_just_started_is_healthy(new_database):
    """Its monotonic clock is near zero."""
    script = """
import types
import database, database.transactions
database.transactions.time = types.SimpleNamespace(monotonic=lambda: 1.0)
print(json.dumps(database.check()))
"""
    assert run_stepped(script, DATABASE_URL=new_database()) is None


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_connection_to_a_server_that_became_a_standby_is_not_kept(new_database):
    """Even if its refusal comes at the end of a pipeline from which nothing was read."""
    script = """
from peewee import SQL

told = []
with db.connection_context():
    db.execute_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
for _ in range(2):
    try:
        with db.connection_context(), db.write():
            db.send(SQL("UPDATE session SET title = title"))
        told.append("written")
    except Unavailable:
        told.append("unavailable")
print(json.dumps(told))
"""
    assert run_stepped(script, DATABASE_URL=new_database()) == ["unavailable", "written"]


def test_our_own_thread_waits_for_the_database_as_long_as_it_said(new_database):
    url = new_database()
    script = """
import threading
from database import connected

told = []


def write():
    try:
        with connected(0.5), db.write():
            db.execute_sql("UPDATE session SET title = title")
    except Unavailable:
        told.append("unavailable")


thread = threading.Thread(target=write, daemon=True)
with db.connection_context():
    _, feed, _ = begin()
with contextlib.closing(connect()) as other:
    other.execute("BEGIN")
    other.execute("UPDATE session SET title = title")
    thread.start()
    thread.join(10)
print(json.dumps(told))
"""
    opening = "import contextlib, sqlite3\n"
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        opening += f"connect = lambda: sqlite3.connect({path!r}, isolation_level=None)\n"
    else:
        opening += f"import psycopg\nconnect = lambda: psycopg.connect({url!r})\n"
    assert run_stepped(opening + script, DATABASE_URL=url) == ["unavailable"]
