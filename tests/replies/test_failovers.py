"""What a failover loses of a reply is stored again if its writer is alive.

SQL undoes it and cuts all connections; tests/heavy/test_failover.py has servers that die.

Modules: `replies/keeper.py`.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from client import wait_until
from late_writers import SAID
from provider import reply
from raw_tables import tables_of

# A SQLite file has no failover.
pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
REPLY = "SELECT status, content FROM turn WHERE kind = 'assistant'"


def cut_all(tables):
    tables.rows(f"SELECT pg_terminate_backend(pid) {OTHERS}")


def test_text_that_a_failover_loses_is_stored_again(start, settings, provider):
    more = threading.Event()
    provider.script = [reply("One ", more, "two ", threading.Event())]
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        alice.stream("POST", "/sessions", {"content": "Count"}) as stream,
    ):
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "One "}
        more.set()
        assert next(frames).data == {"delta": "two "}
        tables.rows("DELETE FROM piece WHERE start > 0")
        cut_all(tables)
        stored = "SELECT string_agg(text, '' ORDER BY start) FROM piece"
        wait_until(lambda: tables.value(stored) == "One two ", 20)
        cancelled = alice.post(f"/sessions/{session['id']}/cancel").json()
        assert cancelled["content"] == "One two "
        assert [frame.name for frame in frames] == ["assistant_turn", "done"]


def test_an_end_that_a_failover_loses_is_stored_again_with_its_usage(start, settings, provider):
    """Including the tokens that were counted before the end."""
    more = threading.Event()
    provider.script = [reply(SAID, "One ", more, "two.")]
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    with tables_of(settings["DATABASE_URL"]) as tables:
        with alice.stream("POST", "/sessions", {"content": "Count"}) as stream:
            frames = iter(stream)
            assert [next(frames).name for _ in range(2)] == ["session", "content_delta"]
            wait_until(lambda: tables.value("SELECT coalesce(sum(input_tokens), 0) FROM usage"))
            [(turn, lease)] = tables.rows(
                "SELECT id, lease_until FROM turn WHERE status = 'in_progress'"
            )
            more.set()
            assert [frame.name for frame in frames][-1] == "done"
        tables.rows("BEGIN")
        tokens = "input_tokens = NULL, output_tokens = NULL, cached_tokens = NULL"
        before = f"status = 'in_progress', content = '', {tokens}, lease_until = ?"
        tables.rows(f"UPDATE turn SET {before} WHERE id = ?", lease, turn)
        tables.insert("piece", turn_id=turn, start=0, text="One ")
        tables.rows("DELETE FROM usage")
        tables.rows("COMMIT")
        cut_all(tables)
        wait_until(lambda: tables.rows(REPLY) == [("complete", "One two.")], 20)
        used = "SELECT replies, input_tokens, output_tokens, cached_tokens FROM usage"
        assert tables.rows(used) == [(1, 15, 7, 3)]
        assert tables.rows("SELECT * FROM piece") == []
    assert len(provider.posts) == 1


def test_a_lost_claim_does_not_look_like_a_deletion(start, settings, provider):
    """The message is lost with it, but the session is there. A client that waits is told to ask
    again; a client that resumes follows the reply before."""
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    provider.default = reply("Zero.")
    session = alice.create("Count")
    messages = f"/sessions/{session['id']}/messages"
    provider.default = reply("One ", threading.Event())
    lose = "DELETE FROM turn WHERE id > (SELECT id FROM turn WHERE status = 'complete')"
    with tables_of(settings["DATABASE_URL"]) as tables:
        with alice.stream("POST", messages, {"content": "And?"}) as stream:
            frames = iter(stream)
            assert next(frames).data == {"delta": "One "}
            tables.rows(lose)
            cut_all(tables)
            assert [frame.name for frame in frames] == []
        with alice.stream("GET", f"/sessions/{session['id']}/events") as stream:
            names = [frame.name for frame in stream]
        assert names == ["content_delta", "assistant_turn", "done"]
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(alice.post, messages, {"content": "And?"})
            wait_until(lambda: tables.value("SELECT count(*) FROM piece"))
            tables.rows(lose)
            cut_all(tables)
            response = waiting.result()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
