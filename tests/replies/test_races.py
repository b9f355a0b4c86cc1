"""What a process is about to do with a reply while another one is faster: it waits for the other's
transaction, and finds the row changed.

The other process is SQL.
"""

import concurrent.futures
import contextlib
import threading
import time

import pytest

from late_writers import SAID
from provider import reply
from raw_tables import tables_of

COUNTING = 1  # second behind which it is stored again what was used
MEETING = 0.5  # seconds until who is about to write waits for the row
LOOK = 1.5  # seconds in which a process has looked for orphans


@contextlib.contextmanager
def faster(tables):
    """What is done within this is done before all who are about to write."""
    tables.rows("BEGIN IMMEDIATE" if tables.is_sqlite else "BEGIN")
    tables.rows("UPDATE turn SET fence = fence WHERE status = 'in_progress'")
    yield
    tables.rows("COMMIT")


@contextlib.contextmanager
def half_written(alice):
    """A session whose reply has brought "Half ", and the events that follow."""
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        yield session, frames


@pytest.mark.parametrize("is_over", [False, True], ids=["a text", "an end"])
def test_what_a_writer_brings_once_another_has_its_reply_is_not_stored(
    start, settings, provider, is_over
):
    """Nor what it has used: the other one estimates that. It has brought no word yet."""
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
            time.sleep(MEETING)
        assert list(frames) == []
        last = alice.turns(session)[1]
        assert (last["status"], last["content"]) == ("in_progress", "Half ")
        assert is_over or provider.posts[0].hung_up.wait(5)
        assert not tables.value("SELECT sum(input_tokens) FROM usage")


def test_of_two_that_find_an_orphan_at_the_same_time_one_takes_it(start, settings, provider):
    provider.script = [reply("Half ", threading.Event())]
    dying = start(**settings, WEB_CONCURRENCY=1)
    other = start(**settings, WEB_CONCURRENCY=1)
    with tables_of(settings["DATABASE_URL"]) as tables, half_written(dying.client()):
        with faster(tables):
            dying.kill()
            time.sleep(LOOK)  # the other has found it, and waits
            taken = "fence = 7, lease_until = lease_until + 1, writer = 'of another machine'"
            tables.rows(f"UPDATE turn SET {taken} WHERE status = 'in_progress'")
        time.sleep(LOOK)
        assert tables.rows("SELECT fence, restarts FROM turn WHERE status = 'in_progress'") == [
            (7, 0)
        ]
    assert len(provider.posts) == 1
    assert "Traceback" not in other.output()


def test_a_cancel_keeps_what_is_stored_until_it_has_the_row(start, settings, provider):
    """Others may have been shown that."""
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
            time.sleep(MEETING)
            tables.insert("piece", turn_id=turn_id, start=5, text="and more")
        assert cancelling.result().json()["content"] == "Half and more"
        *deltas, last, done = frames
        assert "".join(delta.data["delta"] for delta in deltas) == "and more"
        assert (last.data, done.name) == (alice.turns(session)[1], "done")
