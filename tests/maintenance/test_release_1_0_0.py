"""This release understands what processes of release 1.0.0 still do in a database."""

import re
import time

import pytest

from client import wait_for_status
from provider import reply, so_far
from raw_tables import tables_of
from releases import SECOND, ids, now
from windows import LLAMA, OPENAI, Model, sent_of, words

ENDING = 30  # seconds after which no reply of a dead process is in progress any more


def wait_until(happened, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# Replies that were in progress


def test_replies_in_progress_when_release_1_0_0_was_killed_continue_after_their_text(
    start, settings, old_tables, old, provider
):
    """Though no client asks for them. Then their sessions accept messages."""
    lapsed = -5 * SECOND
    half, half_id = old.create("Half", lease=lapsed)
    old.write(half_id, "As far ", "as thís")
    nothing, _ = old.create("Nothing", lease=lapsed)
    retried, first_id = old.answered("Retried", "The first.")
    old.write(old.retry(retried, first_id, lease=lapsed), "The sec")
    provider.default = reply("… and on.")
    server = start(**settings)
    # By SQL, because a request could be what ends them.
    under_way = "SELECT count(*) FROM turn WHERE status = 'in_progress'"
    wait_until(lambda: old_tables.value(under_way) == 0, ENDING)
    assert old_tables.value("SELECT count(*) FROM piece") == 0
    alice = server.client()
    for session_id, content in [
        (half, "As far as thís… and on."),
        (nothing, "… and on."),
        (retried, "The sec… and on."),
    ]:
        session = {"id": session_id}
        [turn] = alice.turns(session)[1:]
        assert (turn["status"], turn["content"], turn["error"]) == ("complete", content, None)
        assert (
            alice.post(f"/sessions/{session_id}/messages", {"content": "Go on"}).status_code == 201
        )
        turns = alice.turns(session)
        assert [turn["content"] for turn in turns][1:] == [content, "Go on", "… and on."]
        assert ids(turns) == sorted(ids(turns))
    found = alice.get("/sessions", params={"query": "thís"}).json()["data"]
    assert [session["id"] for session in found] == [str(half)]


def test_a_reply_of_a_live_1_0_0_is_not_taken_over_before_its_lease_lapses(
    start, settings, old_tables, old, provider
):
    session_id, turn_id = old.create("Hello", lease=60 * SECOND)
    old.write(turn_id, "Half ")
    alice = start(**settings).client()
    with alice.events({"id": session_id}, f"{turn_id}-2") as stream:
        events = iter(stream)
        assert next(events).data == {"delta": "lf "}
        assert (
            alice.post(f"/sessions/{session_id}/messages", {"content": "More"}).status_code == 409
        )
        lapses = now() + 3 * SECOND
        old_tables.rows(
            "UPDATE turn SET lease_until = ? WHERE id = ?", lapses, turn_id
        )  # its last heartbeat
        old.write(turn_id, "and half")
        assert next(events).data == {"delta": "and half"}
        asked = provider.wait_for_request(seconds=ENDING)
        assert now() > lapses
        assert so_far(asked) == "Half and half"
    assert (
        wait_for_status(alice, {"id": session_id}, "complete")["content"]
        == "Half and halfThe answer."
    )
    assert alice.post(f"/sessions/{session_id}/messages", {"content": "More"}).status_code == 201


# Clients of release 1.0.0


GREETING = "Grüße, 世界 👋!"  # of 12 characters


@pytest.mark.parametrize("status", ["complete", "interrupted", "failed"])
def test_an_event_id_of_release_1_0_0_keeps_its_meaning(start, settings, old, status):
    """7-12 is turn 7 after its 12th character. If it has no more, 7-13 comes after assistant_turn, and 7-14 is the end."""
    error = (
        {"error_status": 502, "error_message": "The model failed."} if status == "failed" else {}
    )
    before = old.answered("Before", "Another")[1]
    session_id, turn_id = old.answered("Hello", GREETING[:3], GREETING[3:], status=status, **error)
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = {"id": session_id}

    def follow(last_id):
        with alice.events(session, last_id) as stream:
            assert stream.status == 200, last_id
            events = list(stream)
        text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
        return text, [event.name for event in events if event.name != "content_delta"]

    ending = ["error"] if status == "failed" else ["assistant_turn", "done"]
    for position in (0, 1, 5, 11, 12):
        assert follow(f"{turn_id}-{position}") == (GREETING[position:], ending), position
    assert follow(f"{turn_id}-13") == ("", ending[-1:])
    with alice.events(session, f"{turn_id}-14") as stream:
        assert stream.status == 204
    strange = [
        None,
        "x",
        "-",
        "1e3-5",
        "-5",
        f"{turn_id}",
        f"{turn_id}-",
        f"{turn_id}-15",
        f"{turn_id}-999999999999",
    ]
    strange += [
        f"{turn_id}--1",
        f"{turn_id}-+5",
        f"{turn_id}-5-",
        f"{turn_id}-5-5",
        f"{turn_id}-x-end",
        f"{turn_id}-end",
    ]
    strange += [
        f"{before}-3",
        f"{before}-9",
        f"{turn_id + 1}-14",
        f"{'9' * 30}-5",
        f"{turn_id}-{'9' * 30}",
    ]
    for last_id in strange:
        assert follow(last_id) == (GREETING, ending), last_id


def test_event_ids_begin_with_the_turns_id_and_name_the_two_frames_after_its_text(
    start, settings, old
):
    """For old turns and new ones. After the id of any frame, a client gets exactly the rest."""
    session_id, _ = old.answered("Hello", GREETING)
    server = start(**settings)
    alice = server.client()
    for turn in (None, alice.create("New")):
        session = turn or {"id": session_id}
        turn = alice.turns(session)[-1]
        length = len(turn["content"])
        with alice.events(session) as stream:
            events = list(stream)
        assert [event.id for event in events] == [
            f"{turn['id']}-{length}",
            f"{turn['id']}-{length}-turn",
            f"{turn['id']}-{length}-end",
        ]
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
        assert events[1].data == turn
        for number in (0, 1):
            with alice.events(session, events[number].id) as stream:
                assert [event.name for event in stream] == [
                    "content_delta",
                    "assistant_turn",
                    "done",
                ][number + 1 :]
        with alice.events(session, events[2].id) as stream:
            assert stream.status == 204


# Release 1.0.0 beside this one


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # SQLite's columns accept every type
def test_an_old_process_works_on_after_a_newer_release_has_widened_a_column(
    engine, start, new_database
):
    url = new_database()
    client = start(DATABASE_URL=url, WEB_CONCURRENCY="1").client()
    session = client.create("Hello")

    def ask():
        path = f"/sessions/{session['id']}"
        return client.get(path).status_code, client.post(
            f"{path}/messages", {"content": "Again"}
        ).status_code

    assert {ask() for _ in range(10)} == {(200, 201)}  # by now the statements are prepared
    with tables_of(url) as old_tables:
        old_tables.rows("ALTER TABLE turn ALTER COLUMN input_tokens TYPE bigint")
    for _ in range(10):  # each connection may have to find out by itself
        ask()
    assert {ask() for _ in range(10)} == {(200, 201)}


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # on SQLite, which is one machine, the old processes stop first
def test_release_1_0_0_works_beside_this_one(start, settings, old_tables, old, provider):
    """During a deployment, the old processes still write: their turns and the new ones are in order."""
    session_id, _ = old.answered("One", "First.")
    alice = start(**settings).client()
    session, path = {"id": session_id}, f"/sessions/{session_id}"
    contents = ["One", "First."]

    def check():
        turns = alice.turns(session)
        assert [turn["content"] for turn in turns] == contents
        assert ids(turns) == sorted(set(ids(turns)))
        with alice.events(session) as stream:
            [last] = [event.data for event in stream if event.name == "assistant_turn"]
        assert last == turns[-1]

    for number in range(3):
        assert alice.post(path + "/messages", {"content": f"New {number}"}).status_code == 201
        contents += [f"New {number}", "The answer."]
        check()
        turn_id = old.ask(session_id, f"Old {number}")
        old.write(turn_id, "Half ")
        with alice.events(session) as stream:
            events = iter(stream)
            assert next(events).data == {"delta": "Half "}
            assert alice.post(path + "/messages", {"content": "Too early"}).status_code == 409
            old.write(turn_id, f"and half {number}.")
            old.end(turn_id)
            assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
        contents += [f"Old {number}", f"Half and half {number}."]
        check()
    assert alice.post(path + "/messages", {"content": "Last"}).status_code == 201
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        *contents,
        "Last",
    ]

    # It inserts a message and its reply within one millisecond.
    for number in range(40):
        made, _ = old.answered(f"Question {number}", "Answer.")
        turns = alice.turns({"id": made})
        assert [turn["content"] for turn in turns] == [f"Question {number}", "Answer."]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["id"] == str(made)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_release_1_0_0_understands_the_event_ids_of_this_one(start, settings, old_tables, old):
    """It accepts numbers of up to 18 digits. After any other id, it sends the whole text again."""
    alice = start(**settings).client()
    made, _ = old.answered("Hello", "Good day.")
    for session in (alice.create("Hello"), {"id": made}):
        with alice.events(session) as stream:
            [delta] = [event.id for event in stream if event.name == "content_delta"]
        assert re.fullmatch("[0-9]{1,18}-[0-9]{1,18}", delta), delta


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_reply_of_release_1_0_0_is_the_latest_if_it_comes_after_a_continued_one(
    start, settings, old_tables, old, provider
):
    session_id, turn_id = old.answered("One", "First ", status="interrupted")
    old.end(old.retry(session_id, turn_id), "failed", error_status=502, error_message="No.")
    old_tables.rows("UPDATE turn SET shown = (id = ?) WHERE kind = 'assistant'", turn_id)
    alice = start(**settings).client()
    session, path = {"id": session_id}, f"/sessions/{session_id}"

    def latest():
        with alice.events(session) as stream:
            return [event.data["content"] for event in stream if event.name == "assistant_turn"]

    assert alice.post(path + "/continue").status_code == 201
    assert latest() == ["First The answer."]
    asked = old.ask(session_id, "Two")
    old.write(asked, "Second.")
    old.end(asked)
    assert latest() == ["Second."]
    assert alice.post(path + "/messages", {"content": "Three"}).status_code == 201
    assert latest() == ["The answer."]


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # SQLite gives one more than the greatest id so far
def test_on_sqlite_a_turn_without_an_id_comes_after_all_others(start, settings, old_tables, old):
    """So the order is right even if something writes as release 1.0.0 does, such as a process that was overlooked."""
    session_id, _ = old.answered("One", "First.")
    alice = start(**settings).client()
    path, contents = f"/sessions/{session_id}", ["One", "First."]
    for number in range(3):
        assert alice.post(path + "/messages", {"content": f"New {number}"}).status_code == 201
        turn_id = old.ask(session_id, f"Old {number}")
        old.write(turn_id, "Old answer.")
        old.end(turn_id)
        contents += [f"New {number}", "The answer.", f"Old {number}", "Old answer."]
        turns = alice.turns({"id": session_id})
        assert [turn["content"] for turn in turns] == contents
        assert ids(turns) == sorted(set(ids(turns)))


# A conversation that was too long for release 1.0.0


def ended_by_100(old, count=12, size=30):
    """A session of `count` messages, of which the last two were too long for release 1.0.0, and the ids of both replies."""
    session_id, turn_id = old.answered(words(size, "Message 1:"), words(size, "Answer 1:"))
    for number in range(2, count - 1):
        turn_id = old.ask(session_id, words(size, f"Message {number}:"))
        old.write(turn_id, words(size, f"Answer {number}:"))
        old.end(turn_id)
    for number in (count - 1, count):
        turn_id = old.ask(session_id, words(size, f"Message {number}:"))
        message = (
            "The conversation is too long for the model's context window. Start a new session."
        )
        old.end(turn_id, "failed", error_status=413, error_message=message)
    return session_id


@pytest.mark.parametrize(
    "operation, content", [("messages", "Go on."), ("retry", None), ("retry", "Go on.")]
)
def test_a_session_that_release_1_0_0_had_ended_can_continue(
    start, settings, old, provider, operation, content
):
    session_id = ended_by_100(old)
    provider.default = model = Model(400, LLAMA, OPENAI)
    model.name = "m-1"  # the model of 1.0.0's sessions
    alice, path = start(**settings).client(), f"/sessions/{session_id}"
    before = alice.get(path)
    assert "First-Turn-Sent" not in before.headers
    response = alice.post(f"{path}/{operation}", content and {"content": content})
    assert response.status_code == 201, response.text
    assert response.json()["turns_left_out"] > 0
    assert sent_of(model.accepted[-1])[-1] == (content or words(30, "Message 12:"))
    after = alice.get(path)
    turns = after.json()["turns"]
    assert turns[:22] == before.json()["turns"][:22], "all that there was is still shown"
    assert turns[-1] == response.json()
    assert after.headers["First-Turn-Sent"] in {
        turn["id"] for turn in turns if turn["kind"] == "user"
    }
    for number in range(13, 30):
        response = alice.post(path + "/messages", {"content": words(30, f"Message {number}:")})
        assert response.status_code == 201
    assert model.share > 0.6


def test_replies_of_release_1_0_0_have_no_stop_reason(start, settings, old, provider):
    session_id = ended_by_100(old, 4)
    alice = start(**settings).client()
    replies = alice.turns({"id": session_id})[1::2]
    assert [
        (turn["status"], turn["stop_reason"], turn["continued"], turn["turns_left_out"])
        for turn in replies
    ] == [
        *[("complete", None, 0, 0)] * 2,
        *[("failed", None, 0, 0)] * 2,
    ]
    whole = alice.get(f"/sessions/{session_id}").json()
    assert (whole["options"], whole["meta"]) == ({}, {"has_more": False})
    assert alice.patch(f"/sessions/{session_id}", {"options": {"temperature": 1}}).json()[
        "options"
    ] == {"temperature": 1}
    assert (
        alice.post(f"/sessions/{session_id}/messages", {"content": "Go on."}).json()["stop_reason"]
        == "stop"
    )
    assert provider.posts[-1].body["temperature"] == 1
