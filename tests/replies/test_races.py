"""What a process is about to do with a reply while another one is faster: it waits for the other
transaction, and finds the row changed.

The other process is SQL.
"""

import concurrent.futures
import contextlib
import threading
import time

import pytest

from client import wait_for_status, wait_until
from late_writers import SAID
from provider import reply
from raw_tables import tables_of

COUNTING = 1  # second after which usage is stored again


@contextlib.contextmanager
def faster(tables):
    """What is done within this comes before all that others are about to write."""
    tables.rows("BEGIN IMMEDIATE" if tables.is_sqlite else "BEGIN")
    tables.rows("UPDATE turn SET fence = fence WHERE status = 'in_progress'")
    yield
    tables.rows("COMMIT")


def wait_for_others(tables, url, seconds):
    """Until another transaction waits for the row. SQLite does not show that: wait as long as it takes at most."""
    if tables.is_sqlite:
        time.sleep(seconds)
        return
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with tables_of(url) as beside:
        wait_until(lambda: beside.value(waiting))


@contextlib.contextmanager
def half_written(alice):
    """A session whose reply has brought "Half ", and the rest of the events."""
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        yield session, frames


@pytest.mark.parametrize("is_over", [False, True], ids=["a text", "an end"])
def test_what_a_writer_gets_after_a_takeover_is_not_stored(start, settings, provider, is_over):
    """Nor is its usage: the other process, which has no text yet, estimates it."""
    more, sent = threading.Event(), threading.Event()
    rest = [lambda connection: sent.set()]
    if not is_over:
        rest = [SAID, "and late.", *rest, threading.Event()]
    provider.script = [reply("Half ", more, *rest)]
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        half_written(alice) as (session, frames),
    ):
        time.sleep(COUNTING)
        with faster(tables):
            tables.rows("UPDATE turn SET fence = 7 WHERE status = 'in_progress'")
            more.set()
            assert sent.wait(5)
            wait_for_others(tables, settings["DATABASE_URL"], 0.5)
        assert list(frames) == []
        last = alice.turns(session)[1]
        assert (last["status"], last["content"]) == ("in_progress", "Half ")
        assert is_over or provider.posts[0].hung_up.wait(5)
        assert not tables.value("SELECT sum(input_tokens) FROM usage")


def test_if_two_processes_find_an_orphan_one_takes_it(start, settings, provider):
    """The other one, which has seen both orphans, takes only the second."""
    provider.script = [reply("Half ", threading.Event())] * 2 + [reply("whole.")]
    dying = start(**settings, WEB_CONCURRENCY=1)
    other = start(**settings, WEB_CONCURRENCY=1)
    alice = dying.client()
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        half_written(alice),
        half_written(alice) as (second, _),
    ):
        (first,), _ = tables.rows("SELECT id FROM turn WHERE status = 'in_progress' ORDER BY id")
        with faster(tables):
            dying.kill()
            wait_for_others(tables, settings["DATABASE_URL"], 1.5)
            taken = "fence = 7, lease_until = lease_until + 1, writer = 'of another machine'"
            tables.rows(f"UPDATE turn SET {taken} WHERE id = {first}")
        assert wait_for_status(other.client(), second, "complete")["content"] == "Half whole."
        assert tables.rows(f"SELECT fence, restarts FROM turn WHERE id = {first}") == [(7, 0)]
    assert len(provider.posts) == 3
    assert "Traceback" not in other.output()


def test_a_cancel_keeps_what_is_stored_until_it_has_locked_the_row(start, settings, provider):
    """Other clients may have been shown that text."""
    provider.script = [reply("Half ", threading.Event())]
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        half_written(alice) as (session, frames),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        turn_id = tables.value("SELECT id FROM turn WHERE status = 'in_progress'")
        with faster(tables):
            cancelling = pool.submit(alice.post, f"/sessions/{session['id']}/cancel")
            wait_for_others(tables, settings["DATABASE_URL"], 0.5)
            tables.insert("piece", turn_id=turn_id, start=5, text="and more")
        assert cancelling.result().json()["content"] == "Half and more"
        *deltas, last, done = frames
        assert "".join(delta.data["delta"] for delta in deltas) == "and more"
        assert (last.data, done.name) == (alice.turns(session)[1], "done")
