"""A process was paused while it wrote a reply: what others wrote or ended stays, and what they did not continues."""

import threading

from client import wait_for_status, wait_until
from late_writers import check_late_writer, paused
from provider import reply
from raw_tables import tables_of


def lapse_now(tables):
    """As if twenty seconds had passed; tests/heavy waits for them."""
    tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")


def hand_over(tables):
    """As a stopping process does: then the other one need not watch the lease for some seconds."""
    tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")


def test_a_late_writer_changes_nothing_that_another_process_wrote(start, settings, provider):
    """Neither the reply's text, status and usage nor what followed. It hangs up as soon as it runs again."""
    check_late_writer(start, settings, provider, False, hand_over)


def test_a_late_writer_adds_nothing_while_another_process_writes(start, settings, provider):
    """Its reader's stream stops without an end. The other process sends the rest; the late text is dropped."""
    url, more, half, sent = (
        settings["DATABASE_URL"],
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )
    late_answer = reply(
        "Half ", more, "and late.", lambda connection: sent.set(), threading.Event()
    )
    provider.script = [late_answer, reply("and ", half, "half.")]
    late = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--timeout 300")
    other = start(**settings, WEB_CONCURRENCY=1)
    with (
        tables_of(url) as tables,
        late.client().stream("POST", "/sessions", {"content": "Hello"}) as stream,
    ):
        frames = iter(stream)
        session = next(frames).data
        last = next(frames)
        with paused(late, url):
            hand_over(tables)
            alice = other.client()
            wait_until(lambda: alice.turns(session)[1]["content"] == "Half and ")
            more.set()
            assert sent.wait(5)
        assert provider.posts[0].hung_up.wait(5), "the late writer did not hang up"
        text = last.data["delta"]
        for frame in frames:
            assert frame.name == "content_delta"
            text, last = text + frame.data["delta"], frame
        with late.client().events(session, last.id) as following:
            half.set()
            rest = list(following)
        assert [frame.name for frame in rest[-2:]] == ["assistant_turn", "done"]
        assert text + "".join(frame.data["delta"] for frame in rest[:-2]) == "Half and half."
        assert rest[-2].data == wait_for_status(alice, session, "complete")
    assert len(provider.posts) == 2


def test_a_writer_that_was_only_paused_continues(start, settings, provider):
    """No other process was there to end the reply, so it is written to its end, though the lease had lapsed."""
    url, more = settings["DATABASE_URL"], threading.Event()
    provider.script = [reply("Half ", more, "and half.")]
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    with (
        tables_of(url) as tables,
        alice.stream("POST", "/sessions", {"content": "Hello"}) as stream,
    ):
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Half "}
        with paused(server, url):
            lapse_now(tables)
        lease = "SELECT lease_until FROM turn WHERE status = 'in_progress'"
        wait_until(lambda: tables.rows(lease) != [(1,)], 10)  # the next heartbeat renews it
        more.set()
        assert [frame.name for frame in frames] == ["content_delta", "assistant_turn", "done"]
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
    assert len(provider.posts) == 1
