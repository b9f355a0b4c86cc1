"""A reply whose process stops, dies or hangs is continued by another process, or ends with the text it has.

Leases are set by SQL, to save waiting: 0 is a reply that was handed over, 1 a lease that has lapsed.

Modules: `replies/rescuer.py`.
"""

import collections
import concurrent.futures
import os
import signal
import threading
import time

import pytest
import requests

from client import wait_for_status, wait_until
from late_writers import paused
from provider import REFUSED, cut, reply, silence, so_far, status, writes
from raw_tables import tables_of
from readers import Reader
from servers import Server, running

SHORT_GRACE = "--graceful-timeout 6"  # five seconds of it are for handing over
TEXT = " ".join(f"word{number}" for number in range(40)) + "."

Hosts = collections.namedtuple("Hosts", "first second url")


@pytest.fixture(scope="module")
def hosts(new_database, provider_of_all, tmp_path_factory):
    """Two servers of one worker each, with one database and one provider."""
    url, folder = new_database(), tmp_path_factory.mktemp("hosts")
    settings = {
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    servers = [
        Server(folder, **settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--timeout 300")
        for _ in range(2)
    ]
    try:
        yield Hosts(*(server.wait_until_up() for server in servers), url)
    finally:
        for server in servers:
            server.kill()
            server.stop()


def set_lease(tables, session, lease):
    tables.rows(
        "UPDATE turn SET lease_until = ? WHERE session_id = ? AND status = 'in_progress'",
        lease,
        tables.key_of(session),
    )


def lease_of(tables, session):
    return tables.value(
        "SELECT lease_until FROM turn WHERE session_id = ? AND kind = 'assistant'",
        tables.key_of(session),
    )


def begin(client, provider, *answer, **headers):
    """Ask for a reply that goes on until somebody hangs up. Returns its session once the model has said this."""
    provider.script.append(reply(*answer, threading.Event()))
    number = len(provider.posts) + 1
    session = client.post(
        "/sessions", {"content": "Hello"}, Prefer="respond-async", **headers
    ).json()
    provider.wait_for_request(number)
    wait_until(lambda: client.turns(session)[1]["content"] == "".join(answer))
    return session


def post_message(client, session, content="More"):
    return client.post(f"/sessions/{session['id']}/messages", {"content": content})


# A process that stops


def test_a_reply_that_outlasts_the_grace_period_is_continued_by_another_process(
    start, settings, provider
):
    """A client that followed it resumes with its last id and gets the rest. A client that waited is told where it continues."""
    provider.default = writes(TEXT, pace=0.06)
    first, second = (
        start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=SHORT_GRACE) for _ in range(2)
    )
    before, after = first.client(), second.client()
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        before.stream("POST", "/sessions", {"content": "Hello"}) as stream,
    ):
        waiting = pool.submit(before.post, "/sessions", {"content": "Hello"})
        events = iter(stream)
        session = next(events).data
        provider.wait_for_request(2)
        first.process.terminate()
        read_before = [next(events), *events]
        assert {event.name for event in read_before} == {"content_delta"}  # and no end
        answer = waiting.result(10)
        assert (answer.status_code, answer.headers["Location"]) == (
            201,
            f"/sessions/{answer.json()['id']}",
        )
    text = "".join(event.data["delta"] for event in read_before)
    reader = Reader([after], session, read_before[-1].id).follow()
    assert text + reader.text == TEXT and reader.names[-2:] == ["assistant_turn", "done"]
    for each in (session, answer.json()):
        turn = wait_for_status(after, each, "complete")
        assert (turn["content"], turn["continued"], turn["error"]) == (TEXT, 1, None)
    assert first.process.wait(10) == 0
    assert all(request.hung_up.is_set() for request in provider.posts[:2])
    assert len(provider.posts) == 4 and all(so_far(request) for request in provider.posts[2:])
    with tables_of(settings["DATABASE_URL"]) as tables:
        assert tables.rows("SELECT restarts FROM turn WHERE kind = 'assistant'") == [
            (0,),
            (0,),
        ]  # neither a death nor a break
    assert post_message(after, session).status_code == 201
    assert "Traceback" not in first.output() + second.output()


def test_a_stopping_process_takes_nothing_over_and_the_next_to_start_does(
    start, settings, provider
):
    first, second = (
        start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=args) for args in (SHORT_GRACE, "")
    )
    session = begin(first.client(), provider, "Half ")
    more = threading.Event()
    provider.script.append(reply("Own ", more, "reply."))
    own = second.client().post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    provider.wait_for_request(2)
    second.process.terminate()
    first.process.terminate()
    with tables_of(settings["DATABASE_URL"]) as tables:
        wait_until(lambda: lease_of(tables, session) == 0)
        for _ in range(
            2
        ):  # heartbeats of the stopping process, which has looked at the leases in between
            lease = lease_of(tables, own)
            wait_until(lambda: lease_of(tables, own) != lease)
        assert lease_of(tables, session) == 0 and len(provider.posts) == 2
        provider.script.append(reply("and half."))
        third = start(**settings, WEB_CONCURRENCY=1).client()
        assert wait_for_status(third, session, "complete")["content"] == "Half and half."
        assert so_far(provider.posts[2]) == "Half "
        assert not provider.posts[1].hung_up.is_set()
        more.set()
        assert wait_for_status(third, own, "complete")["content"] == "Own reply."
    assert len(provider.posts) == 3


def test_a_process_that_ends_after_max_requests_takes_nothing_over(start, settings, provider):
    """gunicorn ends it without a signal: it serves its streams to their ends, and stops as on SIGTERM."""
    first = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--timeout 300")
    session, more = begin(first.client(), provider, "Half "), threading.Event()
    second = start(**settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--max-requests 12")
    alice = second.client()
    provider.script.append(reply("Own ", more, "reply."))
    with (
        tables_of(settings["DATABASE_URL"]) as tables,
        alice.stream("POST", "/sessions", {"content": "Hello"}) as stream,
    ):
        events = iter(stream)
        own = next(events).data
        assert next(events).data == {"delta": "Own "}
        with pytest.raises(requests.ReadTimeout):  # gunicorn starts the next one after this ends
            for _ in range(12):
                alice.get("/health", timeout=1)
        with paused(first, settings["DATABASE_URL"]):
            set_lease(tables, session, 0)
            for _ in range(2):  # heartbeats
                lease = lease_of(tables, own)
                wait_until(lambda: lease_of(tables, own) != lease)
            assert lease_of(tables, session) == 0
        more.set()
        assert [event.name for event in events][-1] == "done"
    assert first.client().post(f"/sessions/{session['id']}/cancel").status_code == 200
    assert len(provider.posts) == 2


# Replies without a writer


def test_a_cancel_during_a_handover_wins(hosts, provider):
    first, second, url = hosts
    alice = second.client()
    session, other = (begin(first.client(), provider, text) for text in ("Half ", "Other "))
    provider.default = reply(threading.Event())
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 0)
        turn = alice.post(f"/sessions/{session['id']}/cancel").json()
        assert (turn["status"], turn["content"]) == ("interrupted", "Half ")
        calls = len(provider.posts)
        assert calls <= 3  # one of them may just have been taken over
        provider.default = reply("text.")
        set_lease(tables, other, 0)
        assert wait_for_status(alice, other, "complete")["content"] == "Other text."
        assert [so_far(request) for request in provider.posts[calls:]] == ["Other "]
    assert all(request.hung_up.wait(5) for request in provider.posts[:calls])
    assert alice.turns(session)[1] == turn
    assert post_message(alice, session).status_code == 201


def test_an_orphaned_session_refuses_messages_until_its_reply_has_ended(hosts, provider):
    first, second, url = hosts
    alice, key, more = (
        second.client(),
        {"Idempotency_Key": "the key of an orphan"},
        threading.Event(),
    )
    session = begin(first.client(), provider, "Half ", **key)
    provider.script.append(reply("and ", more, "half."))
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 1)
        for _ in range(2):
            for operation, body in (
                ("messages", {"content": "More"}),
                ("retry", None),
                ("continue", None),
            ):
                answer = alice.post(f"/sessions/{session['id']}/{operation}", body)
                assert (answer.status_code, "Retry-After" in answer.headers) == (409, True)
            assert alice.post("/sessions", {"content": "Hello"}, **key).status_code == 409
            set_lease(tables, session, 0)
            wait_until(lambda: alice.turns(session)[1]["content"] == "Half and ")
        more.set()
        assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
        calls = len(provider.posts)
        again = alice.post("/sessions", {"content": "Hello"}, **key)
        assert (again.status_code, again.json()["id"]) == (201, session["id"])
        assert len(provider.posts) == calls == 2
        assert post_message(alice, session).status_code == 201


def test_an_orphaned_session_is_deleted_at_once(hosts, provider):
    first, second, url = hosts
    alice = second.client()
    session, other = (begin(first.client(), provider, text) for text in ("Half ", "Other "))
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 1)
        began = time.monotonic()
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        assert time.monotonic() - began < 5
        assert alice.get(f"/sessions/{session['id']}").status_code == 404
        provider.script.append(reply("text."))
        set_lease(tables, other, 0)
        assert wait_for_status(alice, other, "complete")["content"] == "Other text."
        assert tables.rows("SELECT * FROM piece") == []
    assert all(request.hung_up.wait(5) for request in provider.posts[:2])
    assert len(provider.posts) == 3
    assert [turn["content"] for turn in alice.turns(other)] == ["Hello", "Other text."]


def test_a_reply_whose_session_is_being_deleted_is_not_taken_over(hosts, provider, tmp_path):
    """The process that was deleting it died halfway. The next process to start deletes the rest."""
    first, second, url = hosts
    session, other = (begin(first.client(), provider, text) for text in ("Half ", "Other "))
    provider.script.append(reply("text."))
    with tables_of(url) as tables, paused(first, url):
        tables.rows("UPDATE session SET owner = '' WHERE id = ?", tables.key_of(session))
        for each in (session, other):
            set_lease(tables, each, 0)
        wait_for_status(second.client(), other, "complete")
        with running(tmp_path, DATABASE_URL=url, WEB_CONCURRENCY=1):
            wait_until(
                lambda: (
                    tables.rows("SELECT id FROM session WHERE id = ?", tables.key_of(session)) == []
                )
            )
    assert [so_far(request) for request in provider.posts] == ["", "", "Other "]
    assert all(request.hung_up.wait(5) for request in provider.posts[:2])


def test_a_reply_without_text_is_requested_again(hosts, provider):
    first, second, url = hosts
    session = begin(first.client(), provider)
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 0)
        turn = wait_for_status(second.client(), session, "complete")
    assert (turn["content"], turn["continued"]) == ("The answer.", 1)
    assert [request.body["messages"] for request in provider.posts] == 2 * [
        [{"role": "user", "content": "Hello"}]
    ]


@pytest.mark.parametrize("code", [400, 413])
def test_a_reply_that_its_model_refuses_to_continue_ends_with_its_text(hosts, provider, code):
    first, second, url = hosts
    alice, session = second.client(), begin(first.client(), provider, "Half ")
    provider.script.append(status(code, {"error": {"message": "no"}}))
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 0)
        turn = wait_for_status(alice, session, "interrupted")
    assert (turn["content"], turn["error"], turn["stop_reason"]) == ("Half ", None, None)
    assert Reader([alice], session).follow().names == ["content_delta", "assistant_turn", "done"]
    assert len(provider.posts) == 2
    assert post_message(alice, session).status_code == 201
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        "Hello",
        "Half ",
        "More",
    ]


def test_a_handed_over_continue_without_new_text_changes_nothing(hosts, provider):
    first, second, url = hosts
    alice = second.client()
    session = begin(first.client(), provider, "Half ")
    assert alice.post(f"/sessions/{session['id']}/cancel").status_code == 200
    before = alice.turns(session)
    provider.script = [silence(threading.Event()), REFUSED]
    first.client().post(f"/sessions/{session['id']}/continue", Prefer="respond-async")
    provider.wait_for_request(2)
    with tables_of(url) as tables, paused(first, url):
        set_lease(tables, session, 0)
        wait_for_status(alice, session, "interrupted")
    assert alice.turns(session) == before
    assert len(provider.posts) == 3


# How often a reply continues


def kill_worker(server):
    """kill -9 the only worker; returns once its successor is there."""
    [worker] = server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: server.workers() not in ([], [worker]))


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # it takes long, and the count is the same on both
def test_a_reply_continues_by_itself_as_often_as_the_limit_says(start, new_database, provider):
    """Deaths and breaks count alike. If the limit is 0, a reply continues neither after a death nor after a stop."""
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "WEB_CONCURRENCY": 1,
    }
    urls = {1: new_database(), 0: new_database()}
    servers = {
        limit: start(
            DATABASE_URL=url, CONTINUE_LIMIT=limit, GUNICORN_CMD_ARGS=SHORT_GRACE, **settings
        )
        for limit, url in urls.items()
    }
    once, never = (server.client() for server in servers.values())
    provider.script = [cut("Half "), reply("and ", threading.Event())]
    broken = once.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    provider.wait_for_request(2)
    whole, alone = begin(once, provider, "Half "), begin(never, provider, "Half ")
    with tables_of(urls[1]) as tables, tables_of(urls[0]) as others:
        kill_worker(servers[0])
        stopped = begin(never, provider, "Half ")
        provider.script = [reply("and half.")]
        kill_worker(servers[1])
        for each, session in ((tables, broken), (tables, whole), (others, alone)):
            set_lease(each, session, 1)
        for client, session, text in ((once, broken, "Half and "), (never, alone, "Half ")):
            turn = wait_for_status(client, session, "interrupted", 20)
            assert (turn["content"], turn["error"]) == (text, None)
            assert Reader([client], session).follow().names == [
                "content_delta",
                "assistant_turn",
                "done",
            ]
        turn = wait_for_status(once, whole, "complete", 20)
        assert (turn["content"], turn["continued"]) == ("Half and half.", 1)
        restarts = "SELECT restarts FROM turn WHERE session_id = ? AND kind = 'assistant'"
        assert [tables.value(restarts, tables.key_of(session)) for session in (broken, whole)] == [
            1,
            1,
        ]
    with never.events(stopped) as stream:
        servers[0].process.terminate()
        events = list(stream)
    assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
    assert (events[1].data["status"], events[1].data["content"]) == ("interrupted", "Half ")
    assert len(provider.posts) == 6
    assert post_message(once, broken).status_code == 201
