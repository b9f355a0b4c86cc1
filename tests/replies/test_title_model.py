"""`TITLE_MODEL`: its title comes while the reply is written, and never delays it."""

import threading
import time

from client import wait_until
from ledgers import counts_of
from provider import cut, reply, status


def test_a_title_is_requested_once(start, settings, provider):
    alice = start(**settings, TITLE_MODEL="m-2").client()
    answer = reply("The answer.")
    provider.default = lambda request: (cut() if request.body["model"] == "m-2" else answer)(
        request
    )
    alice.create("Hello")
    provider.wait_for_request(2)
    time.sleep(1.2)  # a second try would have come by now
    assert [request.body["model"] for request in provider.posts].count("m-2") == 1


def test_a_title_is_written_while_the_reply_is(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", MODELS="m-1", TITLE_MODEL="m-title", REPLY_WAIT="5"
    ).client()
    more = threading.Event()

    def answer(request):
        is_title = request.body["model"] == "m-title"
        yield from (reply('**"A Fine Title"**') if is_title else reply("Text", more, "."))(request)

    provider.default = answer
    with alice.stream("POST", "/sessions", {"content": "x" * 2000}) as stream:
        events = iter(stream)
        first = next(events)
        assert first.name == "session" and first.data["title"] == "x" * 60
        second, third = next(events), next(events)
        renamed = second if second.name == "session" else third
        assert renamed.data == {**first.data, "title": "A Fine Title"}
        more.set()
        assert [event.name for event in events][-2:] == ["assistant_turn", "done"]
    assert alice.get(f"/sessions/{first.data['id']}").json()["title"] == "A Fine Title"
    title_call = next(request for request in provider.posts if request.body["model"] == "m-title")
    assert title_call.body["messages"][-1]["content"] == "x" * 1000
    assert title_call.body["max_tokens"] < 1000


def test_a_title_never_overwrites_the_users_own_or_delays_a_reply(start, provider):
    alice = start(
        OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", TITLE_MODEL="m-title"
    ).client()
    late = threading.Event()

    def answer(request):
        is_title = request.body["model"] == "m-title"
        yield from (reply(late, "Too Late") if is_title else reply("Text."))(request)

    provider.default = answer
    session = alice.create("Hello there")
    assert session["title"] == "Hello there"
    alice.patch(f"/sessions/{session['id']}", {"title": "Mine"})
    late.set()
    time.sleep(0.5)
    assert alice.get(f"/sessions/{session['id']}").json()["title"] == "Mine"
    provider.default = lambda request: (
        status(500)(request) if request.body["model"] == "m-title" else reply("Text.")(request)
    )
    assert alice.create("Hello again")["title"] == "Hello again"


def test_a_title_that_its_user_confirmed_is_not_overwritten(start, settings, provider, tables):
    server = start(**settings, TITLE_MODEL="m-title")
    alice, late = server.client(), threading.Event()

    def answer(request):
        is_title = request.body["model"] == "m-title"
        yield from (reply(late, "Too Late") if is_title else reply("Text."))(request)

    provider.default = answer
    session = alice.create("Hello there")
    alice.patch(f"/sessions/{session['id']}", {"title": session["title"]})
    late.set()
    wait_until(lambda: "m-title" in counts_of(alice))
    server.stop()  # this waits until nothing more is made of that title
    assert tables.value("SELECT title FROM session") == "Hello there"
