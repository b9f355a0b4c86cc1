"""Versions of a reply: the complete replies that were shown in its place before it. Modules:
`replies/claim.py`, `turns.py`."""

import threading

import pytest

from client import BOB, wait_until
from provider import cut, fails, reply, thought


def versions_of(client, session, turn):
    response = client.get(f"/sessions/{session['id']}/turns/{turn['id']}/versions")
    assert response.status_code == 200, response.text
    return response.json()["data"]


def retry(client, provider, session, answer, **body):
    provider.script = [answer]
    return client.post(f"/sessions/{session['id']}/retry", body)


def texts(turns):
    return [turn["content"] for turn in turns]


def conversation(client, provider, *answers):
    """A session whose only message has had these replies. Returns the last one, too."""
    provider.script = [reply(answers[0])]
    session = client.create("Question")
    for answer in answers[1:]:
        assert retry(client, provider, session, reply(answer)).status_code == 201
    return session, client.turns(session)[-1]


def test_a_replaced_reply_is_a_version(someone, provider):
    session, first = conversation(someone, provider, "One.")
    assert (first["versions"], versions_of(someone, session, first)) == (0, [])
    retry(someone, provider, session, reply("Two."))
    second = someone.turns(session)[-1]
    assert (second["versions"], versions_of(someone, session, second)) == (1, [first])
    retry(someone, provider, session, reply("Three."))
    third = someone.turns(session)[-1]
    assert (third["versions"], versions_of(someone, session, third)) == (2, [second, first])


def test_a_reply_that_is_not_complete_is_no_version(someone, provider):
    session, first = conversation(someone, provider, "One.")
    assert retry(someone, provider, session, fails("Half ")).status_code == 502
    assert someone.turns(session)[-1] == first
    retry(someone, provider, session, reply("Two."))
    second = someone.turns(session)[-1]
    assert texts(versions_of(someone, session, second)) == ["One."]


def test_a_failed_reply_that_is_replaced_is_no_version(someone, provider):
    provider.script = [fails("Half ")]
    response = someone.post("/sessions", {"content": "Question"})
    session = {"id": response.json()["errors"][0]["meta"]["session_id"]}
    retry(someone, provider, session, reply("One."))
    shown = someone.turns(session)[-1]
    assert (shown["versions"], versions_of(someone, session, shown)) == (0, [])


def test_a_retry_that_is_cancelled_leaves_the_versions_as_they_were(someone, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    path, gate = f"/sessions/{session['id']}", threading.Event()
    provider.script = [reply("Three ", gate)]
    with someone.stream("POST", f"{path}/retry", {}) as stream:
        next(iter(stream))
        assert someone.turns(session)[-1]["status"] == "in_progress"
        someone.post(f"{path}/cancel")
    gate.set()
    assert someone.turns(session)[-1] == second
    assert texts(versions_of(someone, session, second)) == ["One."]


def test_a_changed_message_starts_again(someone, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    retry(someone, provider, session, reply("Three."), content="Another question")
    third = someone.turns(session)[-1]
    assert (third["versions"], versions_of(someone, session, third)) == (0, [])
    assert (
        someone.get(f"/sessions/{session['id']}/turns/{second['id']}/versions").status_code == 404
    )
    retry(someone, provider, session, reply("Four."))
    fourth = someone.turns(session)[-1]
    assert texts(versions_of(someone, session, fourth)) == ["Three."]


def test_a_continued_reply_keeps_its_versions(someone, provider):
    session, _ = conversation(someone, provider, "One.")
    retry(someone, provider, session, reply("Two", stop="length"))
    provider.script = [reply(" and more.")]
    assert someone.post(f"/sessions/{session['id']}/continue").status_code == 201
    whole = someone.turns(session)[-1]
    assert (whole["content"], whole["versions"]) == ("Two and more.", 1)
    assert texts(versions_of(someone, session, whole)) == ["One."]
    retry(someone, provider, session, reply("Three."))
    last = someone.turns(session)[-1]
    assert texts(versions_of(someone, session, last)) == ["Two and more.", "One."]


def test_each_reply_has_its_own_versions(someone, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    provider.script = [reply("Other one.")]
    someone.post(f"/sessions/{session['id']}/messages", {"content": "Next"})
    retry(someone, provider, session, reply("Other two."))
    other = someone.turns(session)[-1]
    assert texts(versions_of(someone, session, other)) == ["Other one."]
    assert texts(versions_of(someone, session, second)) == ["One."]


def test_the_last_twenty_versions_are_shown(someone, provider):
    session, last = conversation(someone, provider, *(f"Reply {number}." for number in range(23)))
    shown = versions_of(someone, session, last)
    assert (len(shown), last["versions"]) == (20, 20)
    assert texts(shown) == [f"Reply {number}." for number in range(21, 1, -1)]


def test_versions_have_at_most_eight_megabytes_together(someone, provider):
    answers = [bird * 800_000 for bird in "🦆🦉🦅🦜"]  # each has 3,200,000 bytes
    session, last = conversation(someone, provider, *answers)
    assert last["versions"] == 2
    assert texts(versions_of(someone, session, last)) == [answers[2], answers[1]]


def test_only_a_shown_reply_of_ones_own_has_versions(someone, server, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    message = someone.turns(session)[0]
    assert versions_of(someone, session, message) == []
    [first] = versions_of(someone, session, second)
    path = f"/sessions/{session['id']}/turns"
    for turn in (first["id"], "x", "9" * 19, str(int(second["id"]) + 1)):
        assert someone.get(f"{path}/{turn}/versions").status_code == 404, turn
    assert server.client(BOB).get(f"{path}/{second['id']}/versions").status_code == 404


# What reads turns leaves versions out


@pytest.fixture
def replaced(someone, provider):
    """A session in which a reply with the word "heron" was replaced."""
    session, _ = conversation(someone, provider, "A heron.", "A stork.")
    return session


def test_a_session_is_shown_without_versions(someone, replaced):
    path = f"/sessions/{replaced['id']}"
    assert texts(someone.turns(replaced)) == ["Question", "A stork."]
    last = someone.turns(replaced)[-1]
    page = someone.get(path, params={"turns[before]": last["id"]}).json()
    assert (texts(page["turns"]), page["meta"]) == (["Question"], {"has_more": False})
    assert "heron" not in someone.get(path, Accept="text/markdown").text


def test_a_list_is_shown_and_searched_without_versions(someone, replaced):
    assert someone.get("/sessions").json()["data"][0]["last_message_preview"] == "A stork."
    assert len(someone.get("/sessions", params={"query": "stork"}).json()["data"]) == 1
    assert someone.get("/sessions", params={"query": "heron"}).json()["data"] == []


def test_a_model_is_sent_no_versions(someone, provider, replaced):
    someone.post(f"/sessions/{replaced['id']}/messages", {"content": "And?"})
    sent = provider.posts[-1].body["messages"]
    assert texts(sent) == ["Question", "A stork.", "And?"]
    assert someone.turns(replaced)[-1]["turns_left_out"] == 0


def test_a_retry_is_sent_no_versions(someone, provider, replaced):
    retry(someone, provider, replaced, reply("A crane."))
    assert texts(provider.posts[-1].body["messages"]) == ["Question"]


def test_an_export_has_no_versions(someone, replaced):
    text = someone.get("/export").text
    assert "A stork." in text and "heron" not in text and "versions" not in text


def test_events_follow_the_shown_reply(someone, replaced):
    with someone.events(replaced) as stream:
        assert (
            "".join(e.data.get("delta", "") for e in stream if e.name == "content_delta")
            == "A stork."
        )


def test_a_fork_has_no_versions(someone, replaced):
    copy = someone.post(f"/sessions/{replaced['id']}/fork").json()
    last = someone.turns(copy)[-1]
    assert (last["content"], last["versions"]) == ("A stork.", 0)
    assert versions_of(someone, copy, last) == []


# What a version is good for


def test_a_fork_goes_on_from_a_version(someone, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    provider.script = [reply("Last.")]
    someone.post(f"/sessions/{session['id']}/messages", {"content": "Next"})
    [first] = versions_of(someone, session, second)
    response = someone.post(f"/sessions/{session['id']}/fork", {"turn": first["id"]})
    assert response.status_code == 201, response.text
    copy = response.json()
    turns = someone.turns(copy)
    assert texts(turns) == ["Question", "One."] and turns[-1]["versions"] == 0
    someone.post(f"/sessions/{copy['id']}/messages", {"content": "And?"})
    assert texts(provider.posts[-1].body["messages"]) == ["Question", "One.", "And?"]


def test_a_reply_that_never_was_a_version_cannot_be_forked(someone, provider):
    session, second = conversation(someone, provider, "One.", "Two.")
    retry(someone, provider, session, reply("Three."), content="Another question")
    for turn in (second["id"], str(int(second["id"]) + 1)):
        response = someone.post(f"/sessions/{session['id']}/fork", {"turn": turn})
        assert response.status_code == 404


def test_the_thinking_of_a_version_can_be_read(someone, provider):
    provider.script = [reply(thought(reasoning="Hm, a bird."), "One.")]
    session = someone.create("Question")
    first = someone.turns(session)[-1]
    retry(someone, provider, session, reply("Two."))
    path = f"/sessions/{session['id']}/turns/{first['id']}/thinking"
    assert someone.get(path).json() == {"text": "Hm, a bird."}
    retry(someone, provider, session, reply("Three."), content="Another question")
    assert someone.get(path).status_code == 404


def test_a_reply_that_goes_on_elsewhere_has_its_versions(someone, provider):
    """It breaks, is continued by itself, and then replaces the one before it."""
    session, _ = conversation(someone, provider, "One.")
    retry(someone, provider, session, cut("Two "))
    wait_until(lambda: someone.turns(session)[-1]["status"] == "complete")
    last = someone.turns(session)[-1]
    assert last["continued"] == 1 and texts(versions_of(someone, session, last)) == ["One."]
