"""If the model's server keeps answers, a reply goes on with the same answer after its connection
breaks, or its process dies: nothing is computed twice.

Modules: `providers/reread.py`.
"""

import os
import signal
import threading

import pytest

from client import wait_for_status, wait_until
from keeping import Keeping, words
from late_writers import paused
from provider import thought
from raw_tables import tables_of
from readers import Reader

TEXT = " ".join(f"word{number}" for number in range(40)) + "."
PROTOCOLS = {
    "openai": ("OPENAI_BASE_URL", "/v1", "m-1"),
    "anthropic": ("ANTHROPIC_BASE_URL", "", "claude-1"),
}
USAGE = {"input_tokens": 15, "output_tokens": 7, "cached_tokens": 3}  # in both protocols
AS_ONE = 0, 0, 0  # continued, restarts, estimated tokens


@pytest.fixture(scope="module")
def keeping_of_all():
    keeping = Keeping()
    yield keeping
    keeping.close()


@pytest.fixture
def keeping(keeping_of_all):
    keeping_of_all.forget_all()
    yield keeping_of_all
    keeping_of_all.forget_all()


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture
def serve(start, new_database, keeping):
    """A function that starts a server with one process and these settings, which has had an answer
    of its model server, and so knows whether that keeps answers."""

    def serve(protocol="openai", **settings):
        setting, path, model = PROTOCOLS[protocol]
        settings |= {setting: keeping.url + path, "DEFAULT_MODEL": model, "WEB_CONCURRENCY": 1}
        server = start(DATABASE_URL=new_database(), **settings)
        server.settings = settings
        assert answered(server.client(), "Who are you?")["status"] == "complete"
        keeping.requests.clear()
        keeping.deleted.clear()  # of a first answer whose connection broke
        return server

    return serve


@pytest.fixture
def served(serve, protocol):
    return serve(protocol)


def begin(client, content="Hello", **fields):
    body = {"content": content} | fields
    return client.post("/sessions", body, Prefer="respond-async").json()


def answered(client, content="Hello"):
    return client.turns(client.create(content))[1]


def text_of(client, session):
    return client.turns(session)[-1]["content"]


def counts(server):
    """Of the latest reply: how often it was continued and restarted, its estimated tokens; then
    what is left of its stream."""
    with tables_of(server.database) as tables:
        [row] = tables.rows(
            "SELECT continued, restarts, estimated_tokens, stream_id, stream_start FROM turn"
            " WHERE kind = 'assistant' ORDER BY id DESC LIMIT 1"
        )
    return row


def kill(server):
    """kill -9 of its worker, in whose place another starts."""
    [worker] = server.workers()
    os.kill(worker, signal.SIGKILL)


def asked_for(keeping, method):
    return [request for request in keeping.requests if request.method == method]


def test_after_broken_connections_the_same_answer_goes_on(served, keeping):
    keeping.pieces, keeping.cuts = words(TEXT), [9, 5, 25]
    client = served.client()
    with client.stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = list(stream)
    text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
    turn = events[-2].data
    assert text == turn["content"] == TEXT
    assert turn["usage"] == USAGE
    assert counts(served) == (*AS_ONE, None, None)
    assert len(keeping.posts) == 1 and len(asked_for(keeping, "GET")) == 3
    assert keeping.deleted == []
    name = keeping.posts[0].headers["x-conversation-id"]
    assert name.startswith(f"parley-{turn['id']}-")


def test_a_connection_that_breaks_before_the_first_word_brings_no_other_request(served, keeping):
    go_on = threading.Event()
    keeping.pieces, keeping.cuts = [go_on, "Late."], [1, 0, 1]
    client = served.client()
    session = begin(client)
    wait_until(lambda: len(asked_for(keeping, "GET")) >= 2)
    go_on.set()
    assert wait_for_status(client, session, "complete")["content"] == "Late."
    assert len(keeping.posts) == 1


@pytest.mark.parametrize("protocol", ["openai"])
def test_thinking_is_told_once(served, keeping):
    """Its parts are read twice, and the answer breaks within the second half of it."""
    thoughts = [thought(reasoning_content=f"thought {number}. ") for number in range(20)]
    keeping.pieces, keeping.cuts = [*thoughts, *words(TEXT)], [12, 17]
    client = served.client()
    session = client.create()
    turn = client.turns(session)[1]
    path = f"/sessions/{session['id']}/turns/{turn['id']}/thinking"
    whole = "".join(f"thought {number}. " for number in range(20))
    assert client.get(path).json()["text"] == whole
    assert turn["thinking"]["characters"] == len(whole)
    assert turn["content"] == TEXT


def test_after_a_death_the_same_answer_goes_on(served, keeping, protocol):
    """The reader gets each word once; thinking, text and usage are those of one call."""
    thoughts = []
    if protocol == "openai":
        thoughts = [thought(reasoning_content=f"thought {number}. ") for number in range(20)]
    go_on = threading.Event()
    keeping.pieces = [*thoughts, *words(TEXT[:100]), go_on, *words(TEXT[100:])]
    client = served.client()
    session = begin(client)
    reader = Reader([client], session)
    following = threading.Thread(target=reader.follow)
    following.start()
    wait_until(lambda: len(text_of(client, session)) >= 95)
    kill(served)
    wait_until(lambda: asked_for(keeping, "GET"))
    assert text_of(client, session) == TEXT[:100]
    go_on.set()
    following.join(60)
    turn = wait_for_status(client, session, "complete")
    assert reader.text == turn["content"] == TEXT
    assert (turn["usage"], turn["continued"]) == (USAGE, 0)
    assert counts(served) == (*AS_ONE, None, None)
    if thoughts:
        path = f"/sessions/{session['id']}/turns/{turn['id']}/thinking"
        whole = "".join(f"thought {number}. " for number in range(20))
        assert client.get(path).json()["text"] == whole
    assert len(keeping.posts) == 1


def test_a_death_between_call_and_first_word_costs_no_prompt(served, keeping):
    go_on = threading.Event()
    keeping.pieces = [go_on, *words(TEXT)]
    client = served.client()
    session = begin(client)
    keeping.wait_for_request(1)
    kill(served)
    wait_until(lambda: asked_for(keeping, "GET"))
    go_on.set()
    assert wait_for_status(client, session, "complete", 30)["content"] == TEXT
    assert len(keeping.posts) == 1 and counts(served)[:3] == AS_ONE


def test_deaths_are_no_restarts(served, keeping):
    """Not even of a continued answer: here, the model repeats the end of what it is to continue."""
    gates = [threading.Event() for _ in range(6)]
    half, rest = TEXT[:150], TEXT[150:]
    client = served.client()
    keeping.pieces = [*words(half), threading.Event()]
    session = begin(client)
    wait_until(lambda: text_of(client, session) == half)
    keeping.lies = "forgets"
    pieces = [half[-60:]]
    for number, gate in enumerate(gates):
        pieces += [rest[number * 10 : number * 10 + 10], gate]
    keeping.pieces = [*pieces, rest[60:]]
    kill(served)
    wait_until(lambda: len(text_of(client, session)) == len(half) + 10, 60)
    keeping.lies = None
    for number, gate in enumerate(gates[:5], 2):
        kill(served)
        gate.set()
        wait_until(
            lambda number=number: len(text_of(client, session)) == len(half) + 10 * number, 60
        )
    gates[5].set()
    turn = wait_for_status(client, session, "complete", 30)
    assert turn["content"] == TEXT and turn["continued"] == 1
    assert len(keeping.posts) == 2
    assert counts(served)[:2] == (1, 1)


def test_a_deploy_hands_the_answer_over(start, served, keeping):
    go_on = threading.Event()
    keeping.pieces = [*words(TEXT[:100]), go_on, *words(TEXT[100:])]
    session = begin(served.client())
    wait_until(lambda: text_of(served.client(), session) == TEXT[:100])
    other = start(DATABASE_URL=served.database, **served.settings)
    served.process.terminate()
    client = other.client()
    wait_until(lambda: asked_for(keeping, "GET"), 40)
    go_on.set()
    turn = wait_for_status(client, session, "complete", 30)
    assert (turn["content"], turn["usage"]) == (TEXT, USAGE)
    assert counts(served) == (*AS_ONE, None, None)
    assert len(keeping.posts) == 1 and keeping.deleted == []


@pytest.mark.parametrize("lie", ["other", "half", "forgets"])
def test_an_answer_that_cannot_be_read_again_is_continued(served, keeping, lie):
    keeping.pieces = [*words(TEXT[:100]), threading.Event()]
    client = served.client()
    session = begin(client)
    wait_until(lambda: text_of(client, session) == TEXT[:100])
    keeping.lies, keeping.pieces = lie, words(TEXT[100:])
    kill(served)
    turn = wait_for_status(client, session, "complete", 30)
    assert (turn["content"], turn["continued"]) == (TEXT, 1)
    assert len(keeping.posts) == 2
    first, second = (request.headers["x-conversation-id"] for request in keeping.posts)
    assert first != second and keeping.deleted == [first]
    wait_until(lambda: keeping.busy == 0, 2)
    continued, restarts, estimated = counts(served)[:3]
    assert (continued, restarts) == (1, 1) and estimated > 0


@pytest.mark.parametrize("protocol", ["openai"])
def test_thinking_that_cannot_be_read_again_is_kept(served, keeping):
    first, second = (thought(reasoning_content=text) for text in ("Hm.", "So."))
    keeping.pieces = [first, *words(TEXT[:100]), threading.Event()]
    client = served.client()
    session = begin(client)
    wait_until(lambda: text_of(client, session) == TEXT[:100])
    path = f"/sessions/{session['id']}/turns/{client.turns(session)[1]['id']}/thinking"
    wait_until(lambda: client.get(path).status_code == 200)
    keeping.lies, keeping.pieces = "forgets", [second, *words(TEXT[100:])]
    kill(served)
    assert wait_for_status(client, session, "complete", 30)["content"] == TEXT
    assert client.get(path).json()["text"] == "Hm.\n\nSo."


@pytest.mark.parametrize("lie", ["other", "half", "forgets"])
def test_a_broken_connection_to_an_answer_that_is_gone_is_continued(served, keeping, lie):
    keeping.cuts, keeping.lies = [6], lie
    keeping.pieces = lambda request: words(
        TEXT[50:] if len(request.body["messages"]) > 1 else TEXT[:50]
    )
    client = served.client()
    turn = answered(client)
    assert len(keeping.posts) == 2 and turn["continued"] == 1
    assert keeping.deleted == [keeping.posts[0].headers["x-conversation-id"]]
    wait_until(lambda: keeping.busy == 0, 2)


@pytest.mark.parametrize("way", ["cancel", "delete"])
@pytest.mark.parametrize("is_dead", [False, True], ids=["alive", "dead"])
def test_whoever_ends_a_reply_ends_its_answer(start, served, keeping, way, is_dead):
    keeping.pieces = [*words(TEXT[:100]), threading.Event()]
    session = begin(served.client())
    wait_until(lambda: text_of(served.client(), session) == TEXT[:100])
    ender = served
    if is_dead:
        ender = start(DATABASE_URL=served.database, **served.settings | {"CONTINUE_LIMIT": 0})
    client = ender.client()
    with paused(served, served.database) if is_dead else tables_of(served.database):
        if way == "cancel":
            assert client.post(f"/sessions/{session['id']}/cancel").status_code == 200
        else:
            assert client.delete(f"/sessions/{session['id']}").status_code == 204
        wait_until(lambda: keeping.busy == 0, 2)
    assert keeping.deleted[0] == keeping.posts[0].headers["x-conversation-id"]


def test_a_process_that_has_lost_a_reply_leaves_its_answer_alone(start, served, keeping):
    go_on = threading.Event()
    keeping.pieces = [*words(TEXT[:100]), go_on, *words(TEXT[100:])]
    session = begin(served.client())
    wait_until(lambda: text_of(served.client(), session) == TEXT[:100])
    other = start(DATABASE_URL=served.database, **served.settings)
    with paused(served, served.database), tables_of(served.database) as tables:
        tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
        wait_until(lambda: asked_for(keeping, "GET"))
    assert keeping.posts[0].hung_up.wait(10)
    go_on.set()
    assert wait_for_status(other.client(), session, "complete")["content"] == TEXT
    assert len(keeping.posts) == 1 and keeping.deleted == []


def test_an_answer_that_is_given_up_is_ended(serve, keeping):
    client = serve(MODEL_TIMEOUT=2).client()
    keeping.pieces = ["Half ", threading.Event()]
    session = begin(client)
    turn = wait_for_status(client, session, "failed", 20)
    assert turn["error"]["status"] == 504
    wait_until(lambda: keeping.busy == 0, 2)


def test_an_orphan_that_ends_ends_its_answer(serve, keeping):
    server = serve(CONTINUE_LIMIT=0)
    client = server.client()
    keeping.pieces = ["Half ", threading.Event()]
    session = begin(client)
    wait_until(lambda: text_of(client, session) == "Half ")
    kill(server)
    wait_for_status(client, session, "interrupted", 30)
    wait_until(lambda: keeping.busy == 0, 2)


def test_a_router_that_lacks_the_route_is_asked_once(served, keeping):
    """After that, requests have no header, so that a hang-up ends an answer as ever."""
    keeping.has_route = False
    keeping.pieces, keeping.cuts = words(TEXT), [9]
    client = served.client()
    assert answered(client)["continued"] == 1
    assert len(asked_for(keeping, "GET")) == 1
    keeping.pieces, keeping.cuts = words(TEXT), [9]
    assert answered(client)["continued"] == 1
    assert len(asked_for(keeping, "GET")) == 1
    assert [("x-conversation-id" in request.headers) for request in keeping.posts][-2:] == 2 * [
        False
    ]


def test_other_servers_see_no_difference(serve, keeping):
    keeping.is_named = False
    client = serve().client()
    keeping.pieces, keeping.cuts = words(TEXT), [9]
    assert answered(client)["continued"] == 1
    assert not any("x-conversation-id" in request.headers for request in keeping.posts)
    assert asked_for(keeping, "GET") == asked_for(keeping, "DELETE") == []


def test_titles_are_not_kept(serve, keeping):
    client = serve(TITLE_MODEL="m-2").client()
    client.create("And who are you?")
    wait_until(lambda: {"m-1", "m-2"} <= {request.body["model"] for request in keeping.posts})
    named = {
        request.body["model"] for request in keeping.posts if "x-conversation-id" in request.headers
    }
    assert named == {"m-1"}
