"""A reply continues where it stopped, in the same turn: by itself after its provider breaks off, or when a client asks.

Modules: `replies/reply.py`, `replies/writer.py`.
"""

import concurrent.futures
import threading

import pytest

from client import wait_for_status, wait_until
from provider import cut, fails, reply, silence, so_far, status, stream, writes
from raw_tables import tables_of

TEXT = " ".join(f"word{number}" for number in range(12)) + "."
OVERFLOW = status(400, {"error": {"message": "Too long", "code": "context_length_exceeded"}})
LIMITED = {"options": {"max_tokens": 7}}  # the stub counts words as tokens


def text_of(events):
    return "".join(event.data["delta"] for event in events if event.name == "content_delta")


def fail(client, provider, *pieces, **fields):
    """A session whose reply failed after this text."""
    provider.script = [fails(*pieces)]
    response = client.post("/sessions", {"content": "Write"} | fields)
    assert response.status_code == 502
    provider.requests.clear()
    return {"id": response.json()["errors"][0]["meta"]["session_id"]}


def go_on(client, session, **headers):
    return client.post(f"/sessions/{session['id']}/continue", **headers)


def last_of(client, session):
    return client.turns(session)[-1]


# By itself, after a break


@pytest.mark.parametrize("model, words", [("m-1", 1), ("claude-m", 5), ("m-1", 12)])
def test_a_reply_continues_after_every_break(alice, provider, model, words):
    """After any word, and twice. There is one stream and one text, wherever the stream is resumed."""
    provider.default = writes(TEXT, words, 1)
    with alice.stream("POST", "/sessions", {"content": "Write", "model": model}) as frames:
        events = list(frames)
    turn = events[-2].data
    assert (turn["content"], turn["status"], turn["stop_reason"]) == (TEXT, "complete", "stop")
    # After the last word there is nothing left to break.
    assert turn["continued"] == min(2, 13 - words)
    assert text_of(events) == TEXT
    session, seen = events[0].data, ""
    for each in events[:-1]:
        seen += each.data.get("delta", "")
        with alice.events(session, each.id) as frames:
            assert seen + text_of(frames) == TEXT
    first, second, *_ = [request.body["messages"] for request in provider.posts]
    assert second[: len(first)] == first
    assert [message["role"] for message in second[len(first) :]] == ["assistant", "user"]


@pytest.mark.parametrize(
    "broken",
    [
        reply("Half ", stop="error"),
        stream(
            {"choices": [{"delta": {"content": "Half "}}]},
            {"error": {"message": "Overloaded", "type": "overloaded_error"}},
        ),
        lambda request: (
            part for part in (*cut("Half ")(request), lambda connection: connection.reset())
        ),
    ],
)
def test_a_reply_continues_however_it_broke(alice, provider, broken):
    provider.script = [broken, reply("and half.")]
    session = alice.create("Write")
    [_, turn] = alice.turns(session)
    assert (turn["content"], turn["status"], turn["continued"], turn["error"]) == (
        "Half and half.",
        "complete",
        1,
        None,
    )
    assert so_far(provider.posts[1]) == "Half "


@pytest.mark.parametrize(
    "refusal",
    [
        status(400, {"error": {"message": "No such turns"}}),
        status(401),
        OVERFLOW,
        reply(stop="content_filter"),
    ],
)
def test_if_the_model_refuses_to_continue_the_reply_ends_as_the_break_would_have_it(
    alice, provider, refusal
):
    provider.script = [cut("Half"), refusal]
    response = alice.post("/sessions", {"content": "Write"})
    assert response.status_code == 502
    assert "broke the connection" in response.json()["errors"][0]["detail"]
    turn = last_of(alice, {"id": response.json()["errors"][0]["meta"]["session_id"]})
    assert (turn["content"], turn["status"], turn["continued"]) == ("Half", "failed", 1)


def test_a_reply_does_not_continue_after_silence_or_if_that_is_switched_off(
    start, settings, provider
):
    server = start(**settings, MODEL_TIMEOUT=1, CONTINUE_LIMIT=0)
    alice = server.client()
    provider.script = [reply("Half", threading.Event()), cut("Half")]
    for wanted in (504, 502):
        response = alice.post("/sessions", {"content": "Write"})
        assert response.status_code == wanted
        turn = last_of(alice, {"id": response.json()["errors"][0]["meta"]["session_id"]})
        assert (turn["content"], turn["status"], turn["continued"]) == ("Half", "failed", 0)
    assert len(provider.posts) == 2


def test_a_cancelled_reply_does_not_continue_by_itself(alice, provider):
    more = threading.Event()
    provider.script = [reply("Half", more, lambda connection: connection.reset())]
    with alice.stream("POST", "/sessions", {"content": "Write"}) as frames:
        frames = iter(frames)
        session, _ = next(frames).data, next(frames)
        assert alice.post(f"/sessions/{session['id']}/cancel").json()["status"] == "interrupted"
        more.set()
        assert [each.name for each in frames] == ["assistant_turn", "done"]
    assert last_of(alice, session)["continued"] == 0
    assert len(provider.posts) == 1


@pytest.mark.parametrize("repeats", [25, 1000])
def test_text_that_the_model_repeats_is_removed(alice, provider, repeats):
    provider.default = writes(TEXT, 8, 3, repeats=repeats)
    session = alice.create("Write")
    assert last_of(alice, session)["content"] == TEXT


def test_a_slow_repetition_is_removed(alice, provider):
    """As from a model on a small machine, which writes a few characters a second."""
    text = "The quick brown fox jumps over the lazy dog, "
    slow = [part for start in range(0, len(text), 5) for part in (text[start : start + 5], 0.1)]
    provider.script = [cut(text), reply(*slow, "and sleeps.")]
    with alice.stream("POST", "/sessions", {"content": "Write"}) as frames:
        deltas = [each.data["delta"] for each in frames if each.name == "content_delta"]
    assert "".join(deltas) == text + "and sleeps."


def test_a_possible_repetition_is_held_back_for_some_seconds_only(alice, provider):
    never = threading.Event()
    provider.script = [cut("The quick brown fox and the "), reply("quick ", never)]
    with alice.stream("POST", "/sessions", {"content": "Write"}, timeout=10) as frames:
        frames = iter(frames)
        session, text = next(frames).data, ""
        while text != "The quick brown fox and the quick ":
            text += next(frames).data["delta"]
        alice.post(f"/sessions/{session['id']}/cancel")
        list(frames)


def test_the_tokens_of_all_calls_are_added_up(start, settings, provider):
    """As far as the provider reported them. Each is in the ledger once, even if a reply is continued."""
    alice = start(**settings, ANTHROPIC_BASE_URL=provider.url, ANTHROPIC_API_KEY="key").client()
    provider.script = [
        cut("One "),
        reply("two ", stop="max_tokens"),
        cut("three "),
        reply("four ", stop="max_tokens"),
        reply(),
    ]
    session = alice.create("Count", model="claude-sum", options={"max_tokens": 7})
    go_on(alice, session)
    go_on(alice, session)
    turn = last_of(alice, session)
    # The call that broke has reported its input. Three others completed, the last without new text.
    assert turn["content"] == "One two three four "
    assert turn["usage"] == {"input_tokens": 5 * 15, "output_tokens": 3 * 7, "cached_tokens": 5 * 3}
    rows = "SELECT replies, input_tokens, output_tokens, cached_tokens, estimated_tokens FROM usage WHERE model = 'claude-sum'"
    with tables_of(settings["DATABASE_URL"]) as tables:
        assert list(map(tuple, tables.rows(rows))) == [(3, 75, 21, 15, 3)]  # “One ” and “three ”


# When a client asks


@pytest.mark.parametrize("way", ["waiting", "stream", "async"])
def test_a_reply_continues_when_asked(alice, provider, way):
    session = fail(alice, provider, "Half ")
    provider.script = [reply("and half.")]
    if way == "waiting":
        response = go_on(alice, session)
        assert response.status_code == 201
        assert response.json() == last_of(alice, session)
    elif way == "stream":
        with alice.stream("POST", f"/sessions/{session['id']}/continue") as frames:
            assert (frames.status, frames.headers["Location"]) == (
                200,
                f"/sessions/{session['id']}/events",
            )
            events = list(frames)
        assert [each.name for each in events] == ["content_delta", "assistant_turn", "done"]
        assert text_of(events) == "and half."  # it begins where the text had stopped
    else:
        response = go_on(alice, session, Prefer="respond-async")
        assert (response.status_code, response.json()) == (202, {"accepted": True})
        with alice.events(session) as frames:
            assert text_of(frames) == "Half and half."
    turn = wait_for_status(alice, session, "complete")
    assert (turn["content"], turn["error"], turn["continued"]) == ("Half and half.", None, 1)
    assert so_far(provider.posts[0]) == "Half "
    assert alice.get("/sessions").json()["data"][0]["last_message_preview"] == "Half and half."


def test_a_reply_can_be_continued_after_a_limit_after_a_cancel_and_again(alice, provider):
    provider.script = [reply("One ", stop="length"), reply("two ", stop="length")]
    session = alice.create("Count", **LIMITED)
    assert last_of(alice, session)["stop_reason"] == "length"
    turn = go_on(alice, session).json()
    assert (turn["content"], turn["stop_reason"], turn["continued"]) == ("One two ", "length", 1)
    provider.script = [reply("three ", threading.Event())]
    with alice.stream("POST", f"/sessions/{session['id']}/continue") as frames:
        next(iter(frames))
        shown = last_of(alice, session)
        assert (shown["status"], shown["stop_reason"], shown["content"]) == (
            "in_progress",
            None,
            "One two three ",
        )
        assert alice.post(f"/sessions/{session['id']}/cancel").json()["status"] == "interrupted"
    provider.script = [reply("four.")]
    assert go_on(alice, session).json()["content"] == "One two three four."
    assert go_on(alice, session).status_code == 409


def test_a_complete_or_empty_reply_cannot_be_continued(alice, provider):
    for script, message in (
        ([reply("Whole.")], "Hello"),
        ([status(400, {"error": "No"})], "Hello"),
    ):
        provider.script = script
        response = alice.post("/sessions", {"content": message})
        session = (
            response.json()
            if response.ok
            else {"id": response.json()["errors"][0]["meta"]["session_id"]}
        )
        before = alice.get(f"/sessions/{session['id']}").json()
        answer = go_on(alice, session)
        assert answer.status_code == 409
        assert "nothing to continue" in answer.json()["errors"][0]["detail"]
        assert alice.get(f"/sessions/{session['id']}").json() == before


@pytest.mark.parametrize(
    "answer, wanted, way",
    [
        (status(400, {"error": {"message": "No assistant turns, please"}}), 502, "failed"),
        (OVERFLOW, 409, "length"),
        (cut(), 502, "length"),
        (reply(), 502, "length"),
        (lambda request: reply(so_far(request))(request), 502, "failed"),  # no new text
        (lambda request: cut(so_far(request)[4:])(request), 502, "length"),
    ],
)
def test_a_continue_without_new_text_changes_nothing(alice, provider, answer, wanted, way):
    text = "One two three four five "
    if way == "failed":
        session = fail(alice, provider, text)
    else:
        provider.script = [reply(text, stop="length")]
        session = alice.create("Count", **LIMITED)
    turn = last_of(alice, session)
    provider.script = [answer] * 3
    response = go_on(alice, session, Idempotency_Key="in-vain")
    assert response.status_code == wanted, response.text
    if wanted == 409:
        assert "Start a new message" in response.json()["errors"][0]["detail"]
    after = last_of(alice, session)
    assert after == turn | {"usage": after["usage"]}  # the tokens were paid for
    provider.script = [reply("Six.")]
    again = go_on(alice, session, Idempotency_Key="in-vain").json()
    # The key names the reply. If that has failed, the model is asked again.
    assert again["content"] == text + ("Six." if way == "failed" else "")
    answer = alice.post(f"/sessions/{session['id']}/messages", {"content": "And?"})
    assert answer.status_code == 201


def test_a_continue_with_new_text_ends_like_any_reply(alice, provider):
    provider.script = [reply("One ", stop="length")]
    session = alice.create("Count", **LIMITED)
    provider.script = [cut("two "), cut("three "), cut("four ")]  # twice by itself, as always
    assert go_on(alice, session).status_code == 502
    turn = last_of(alice, session)
    assert (turn["content"], turn["status"], turn["stop_reason"]) == (
        "One two three four ",
        "failed",
        None,
    )
    provider.script = [reply("five.")]
    assert go_on(alice, session).json()["content"] == "One two three four five."


def test_a_key_returns_the_first_outcome_of_a_continue(alice, provider):
    provider.script = [reply("One ", stop="length"), reply("two ", stop="length"), reply("three.")]
    created = alice.post("/sessions", {"content": "Count"} | LIMITED, Idempotency_Key="create")
    session = created.json()
    first = go_on(alice, session, Idempotency_Key="first")
    assert go_on(alice, session, Idempotency_Key="first").json() == first.json()
    assert (
        alice.post(
            f"/sessions/{session['id']}/continue", {"odd": 1}, Idempotency_Key="first"
        ).status_code
        == 400
    )
    second = go_on(alice, session, Idempotency_Key="second").json()
    assert second["content"] == "One two three."
    for key in ("first", "second"):
        assert go_on(alice, session, Idempotency_Key=key).json() == second
    again = alice.post("/sessions", {"content": "Count"} | LIMITED, Idempotency_Key="create")
    assert (again.status_code, again.json()["id"]) == (201, session["id"])
    assert len(provider.posts) == 3


def test_a_key_asks_again_if_a_later_continue_failed(alice, provider):
    """It names the reply, in whatever state that is now."""
    provider.script = [reply("One ", stop="length")]
    session = alice.post(
        "/sessions", {"content": "Count"} | LIMITED, Idempotency_Key="create-2"
    ).json()
    provider.script = [fails("two ")]
    assert go_on(alice, session).status_code == 502
    provider.script = [reply("Whole.")]
    again = alice.post("/sessions", {"content": "Count"} | LIMITED, Idempotency_Key="create-2")
    assert (again.status_code, again.json()["id"]) == (201, session["id"])
    assert last_of(alice, session)["content"] == "Whole."


def test_a_continue_counts_against_the_limit(start, settings, provider):
    alice = start(**settings, RATE_LIMIT="2/hour").client()
    provider.script = [reply("One ", stop="length"), reply("two ", stop="length")]
    session = alice.create("Count", **LIMITED)
    assert go_on(alice, session).status_code == 201
    answer = go_on(alice, session)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_after_a_failed_retry_the_shown_reply_is_continued(alice, provider):
    provider.script = [reply("One ", stop="length"), cut("Uno"), status(400, {"error": "No"})]
    session = alice.create("Count", **LIMITED)
    assert alice.post(f"/sessions/{session['id']}/retry").status_code == 502
    with alice.events(session) as frames:
        assert text_of(frames) == "Uno"
    provider.script = [reply("two.")]
    assert go_on(alice, session).json()["content"] == "One two."
    with alice.events(session) as frames:
        assert text_of(frames) == "One two."  # of the reply that was continued last
    provider.script = [reply("Three.")]
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Go"})
    with alice.events(session) as frames:
        assert text_of(frames) == "Three."


def test_a_continued_retry_stays_however_it_ends(alice, provider):
    provider.script = [reply("Old."), reply("New ", stop="length"), fails("and more ")]
    session = alice.create("Count", **LIMITED)
    alice.post(f"/sessions/{session['id']}/retry")
    assert go_on(alice, session).status_code == 502
    turn = last_of(alice, session)
    assert (turn["content"], turn["status"]) == ("New and more ", "failed")


def test_a_continue_uses_the_model_that_wrote_the_reply(alice, provider):
    provider.script = [reply("One ", stop="length"), reply("two.")]
    session = alice.create("Count", **LIMITED)
    alice.patch(f"/sessions/{session['id']}", {"model": "m-2"})
    turn = go_on(alice, session).json()
    assert (turn["content"], turn["model"]) == ("One two.", {"id": "m-1"})
    assert provider.posts[1].body["model"] == "m-1"


def test_echo_continues_with_its_words(start, new_database):
    """After its process died in the middle of them."""
    database = new_database()
    alice = start(DATABASE_URL=database).client()
    session = alice.create("One two three four")
    with tables_of(database) as tables:
        tables.rows(
            "UPDATE turn SET content = 'One two ', status = 'interrupted' WHERE kind = 'assistant'"
        )
    assert go_on(alice, session).json()["content"] == "One two three four"


def test_a_messages_key_outlives_a_continue_without_new_text(alice, provider):
    provider.script = [fails("Half")]
    first = alice.post("/sessions", {"content": "Write"}, Idempotency_Key="create-3")
    session = {"id": first.json()["errors"][0]["meta"]["session_id"]}
    provider.script = [status(400)]
    assert go_on(alice, session, Idempotency_Key="in-vain-2").status_code == 502
    again = alice.post(
        "/sessions", {"content": "Write"}, Idempotency_Key="create-3"
    )  # the reply had failed, so the model is asked again
    assert (again.status_code, again.json()["id"]) == (201, session["id"])
    assert [turn["content"] for turn in alice.turns(session)] == ["Write", "The answer."]


def test_nothing_is_requested_while_an_older_reply_is_continued(alice, provider):
    """After it there is a retry that failed, which is not shown."""
    provider.script = [
        reply("One ", stop="length"),
        status(400, {"error": "No"}),
        reply("two ", threading.Event()),
    ]
    session = alice.create("Count", **LIMITED)
    alice.post(f"/sessions/{session['id']}/retry")
    with alice.stream("POST", f"/sessions/{session['id']}/continue") as frames:
        next(iter(frames))
        for path, body in (("messages", {"content": "Next"}), ("retry", None), ("continue", None)):
            answer = alice.post(f"/sessions/{session['id']}/{path}", body)
            assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
        assert alice.post(f"/sessions/{session['id']}/cancel").json()["content"] == "One two "


def test_a_continue_cancelled_before_any_text_is_no_failure(alice, provider):
    for session in (fail(alice, provider, "Half "), None):
        provider.script = [silence(60)]
        if session is None:
            provider.script.insert(0, reply("Half ", stop="length"))
            session = alice.create("Count", **LIMITED)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(go_on, alice, session)
            request = wait_until(lambda: [post for post in provider.posts if so_far(post)])[-1]
            turn = alice.post(f"/sessions/{session['id']}/cancel").json()
            assert waiting.result().status_code == 201
        assert request.hung_up.wait(5)
        assert waiting.result().json() == turn
        assert (turn["content"], turn["error"], turn["continued"]) == ("Half ", None, 0)
        provider.requests.clear()
