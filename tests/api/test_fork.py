"""`POST /sessions/{id}/fork`: a copy up to a turn, which gives the model the same context. Module:
`transfer/forks.py`."""

import concurrent.futures
import uuid

import pytest

from client import at_once, wait_for_status, wait_until
from exports import imported, turns_of
from provider import fails, reply, status

MEGABYTE = 2**20


def fork(client, session, turn=None):
    body = {"turn": turn["id"]} if turn else None
    response = client.post(f"/sessions/{session['id']}/fork", body)
    assert response.status_code == 201, response.text
    copy = response.json()
    assert response.headers["Location"] == f"/sessions/{copy['id']}"
    assert list(copy) == ["id", "title", "model", "created_at", "updated_at"]
    return copy


def but_for_ids(turns):
    """What a fork has of these turns: other ids, and no versions."""
    left_out = {"id", "versions"}
    return [{name: value for name, value in turn.items() if name not in left_out} for turn in turns]


def conversation(client, provider, count=3):
    session = client.create("Message 1", system="Be kind.", options={"temperature": 0.5})
    for number in range(2, count + 1):
        provider.script = [reply(f"Reply {number}", usage=(number, 5, 1))]
        client.post(f"/sessions/{session['id']}/messages", {"content": f"Message {number}"})
    return session


def test_a_fork_has_all_shown_turns_with_new_ids(someone, provider):
    session = conversation(someone, provider)
    someone.patch(f"/sessions/{session['id']}", {"title": "Mine"})
    someone.post(f"/sessions/{session['id']}/retry")
    original = someone.get(f"/sessions/{session['id']}").json()
    usage, calls = someone.get("/usage").json(), len(provider.posts)
    copy = fork(someone, session)
    shown = someone.get(f"/sessions/{copy['id']}").json()
    assert but_for_ids(shown["turns"]) == but_for_ids(original["turns"])
    rest = {name: value for name, value in shown.items() if name not in ("id", "turns")}
    assert rest == {name: value for name, value in original.items() if name in rest}
    ids = [turn["id"] for turn in original["turns"] + shown["turns"]]
    assert len(set(ids)) == len(ids) and copy["id"] != session["id"]
    assert (someone.get("/usage").json(), len(provider.posts)) == (usage, calls)
    first, second = someone.get("/sessions").json()["data"]
    for row in (first, second):
        assert (row["title"], row["last_message_preview"]) == ("Mine", "The answer.")


@pytest.mark.parametrize("place", range(6))
def test_a_fork_ends_with_the_named_turn(someone, provider, place):
    session = conversation(someone, provider)
    original = someone.turns(session)
    copy = fork(someone, session, original[place])
    assert but_for_ids(someone.turns(copy)) == but_for_ids(original[: place + 1])
    [listed] = [row for row in someone.get("/sessions").json()["data"] if row["id"] == copy["id"]]
    assert listed["last_message_preview"] == original[place]["content"]


def test_a_fork_and_its_original_change_separately(someone, provider):
    session = conversation(someone, provider)
    copy = fork(someone, session)
    before = someone.turns(session)
    someone.post(f"/sessions/{copy['id']}/messages", {"content": "Only here"})
    someone.post(f"/sessions/{copy['id']}/retry", {"content": "Here alone"})
    someone.patch(f"/sessions/{copy['id']}", {"title": "Another"})
    assert someone.turns(session) == before
    assert someone.get(f"/sessions/{session['id']}").json()["title"] != "Another"
    someone.delete(f"/sessions/{session['id']}")
    assert len(someone.turns(copy)) == 8


def test_a_fork_has_no_origin(someone):
    body = {"turns": turns_of("Hello", "Hi"), "origin": "elsewhere:1"}
    first = imported(someone, **body)
    copy = fork(someone, first)
    someone.delete(f"/sessions/{first['id']}")
    assert imported(someone, **body)["id"] not in (first["id"], copy["id"])


def sent(provider, client, session):
    """The request that the model gets with the next message."""
    answer = client.post(f"/sessions/{session['id']}/messages", {"content": "And now?"})
    assert answer.status_code == 201
    shown = client.get(f"/sessions/{session['id']}").json()
    return provider.posts[-1].body, answer.json()["turns_left_out"], shown


def test_a_fork_sends_the_model_what_its_original_would(someone, provider):
    session = conversation(someone, provider, 4)
    provider.script = [fails("Half ")]
    someone.post(f"/sessions/{session['id']}/messages", {"content": "Fails"})
    someone.patch(f"/sessions/{session['id']}", {"model": "m-2", "options": {"max_tokens": 77}})
    copy = fork(someone, session)
    assert sent(provider, someone, session)[0] == sent(provider, someone, copy)[0]
    assert provider.posts[-1].body["model"] == "m-2"


def test_a_fork_remembers_as_much_as_its_original(someone, provider):
    """The model's window was full: turns that are no longer sent are not sent from the fork either."""
    session = imported(
        someone, turns=turns_of(*[f"{number} " + "x" * 1000 for number in range(20)])
    )
    path = f"/sessions/{session['id']}"
    provider.script = [status(413, {"error": {"message": "too long"}}), reply("Shorter")]
    assert someone.post(path + "/messages", {"content": "Go on"}).status_code == 201
    first = someone.get(path).headers["First-Turn-Sent"]
    ids = [turn["id"] for turn in someone.turns(session)]
    copy = fork(someone, session)
    copied = [turn["id"] for turn in someone.turns(copy)]
    told = someone.get(f"/sessions/{copy['id']}").headers["First-Turn-Sent"]
    assert copied.index(told) == ids.index(first) > 0
    one, other = sent(provider, someone, session), sent(provider, someone, copy)
    assert one[:2] == other[:2] and one[1] > 0
    early = fork(someone, session, someone.turns(session)[3])
    assert "First-Turn-Sent" not in someone.get(f"/sessions/{early['id']}").headers


def test_a_fork_of_only_the_first_message_has_no_reply_yet(someone, provider):
    session = conversation(someone, provider)
    copy = fork(someone, session, someone.turns(session)[0])
    path = f"/sessions/{copy['id']}"
    assert someone.get(path + "/events", Accept="text/event-stream").status_code == 204
    assert someone.post(path + "/cancel").status_code == 409
    assert someone.post(path + "/continue").status_code == 409
    with someone.stream("POST", path + "/retry") as stream:
        names = [event.name for event in stream]
    assert names[-2:] == ["assistant_turn", "done"]
    assert [turn["kind"] for turn in someone.turns(copy)] == ["user", "assistant"]


def test_a_reply_in_progress_is_not_forked(someone, provider):
    session = someone.create("Before")
    path = f"/sessions/{session['id']}"
    provider.script = [reply("So far ", 5, "and no further.")]
    with someone.stream("POST", path + "/messages", {"content": "Write"}) as stream:
        assert next(event for event in stream if event.name == "content_delta")
        turns = someone.turns(session)
        for turn in (None, turns[3]):
            refused = someone.post(path + "/fork", {"turn": turn["id"]} if turn else None)
            assert refused.status_code == 409 and refused.headers["Retry-After"]
        copy = fork(someone, session, turns[2])
        assert [turn["content"] for turn in someone.turns(copy)][::2] == ["Before", "Write"]
        someone.post(path + "/cancel")
    wait_for_status(someone, session, "interrupted")
    assert len(someone.turns(fork(someone, session))) == 4


def test_a_turn_that_is_not_shown_in_this_session_is_refused(someone, bob, provider):
    session, other = conversation(someone, provider), someone.create()
    path = f"/sessions/{session['id']}/fork"
    hidden = someone.turns(session)[-1]["id"]
    someone.post(f"/sessions/{session['id']}/retry", {"content": "Another message"})
    for turn in (hidden, someone.turns(other)[0]["id"], "7", "", "x", "٧", "9" * 400):
        response = someone.post(path, {"turn": turn})
        assert response.status_code == 404, turn
    assert someone.post(path, {"turn": 7}).status_code == 400
    assert someone.post(path, {"turns": "7"}).status_code == 400
    assert bob.post(path).status_code == 404
    assert someone.post(f"/sessions/{uuid.uuid4()}/fork").status_code == 404
    assert len(someone.get("/sessions").json()["data"]) == 2


def test_a_key_forks_once(someone, provider):
    session = conversation(someone, provider)
    path = f"/sessions/{session['id']}/fork"
    turn = {"turn": someone.turns(session)[1]["id"]}
    first = someone.post(path, turn, Idempotency_Key="k")
    assert first.status_code == 201
    someone.post(f"/sessions/{session['id']}/messages", {"content": "More"})
    again = someone.post(path, turn, Idempotency_Key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert someone.post(path, Idempotency_Key="k").status_code == 422
    other = someone.post(path, turn, Idempotency_Key="k-2")
    assert other.status_code == 201 and other.json()["id"] != first.json()["id"]
    assert len(someone.get("/sessions").json()["data"]) == 3
    someone.delete(first.headers["Location"])
    assert someone.post(path, turn, Idempotency_Key="k").status_code == 404


def test_a_key_sent_several_times_at_once_forks_once(start, settings, provider):
    """In either of two processes, each of which makes one fork per user at a time."""
    alice = start(**settings).client()
    session = conversation(alice, provider)
    path = f"/sessions/{session['id']}/fork"
    told = at_once(8, lambda number: alice.post(path, Idempotency_Key="k"))
    assert {answer.status_code for answer in told} <= {201, 503}
    assert len({answer.json()["id"] for answer in told if answer.status_code == 201}) == 1
    assert len(alice.get("/sessions").json()["data"]) == 2


def test_a_fork_has_at_most_eight_megabytes(someone):
    session = imported(someone, turns=turns_of("Begin", *(["x" * MEGABYTE, "go on"] * 9)))
    turns = someone.turns(session)
    while len(turns) < 19:
        turns = (
            someone.get(
                f"/sessions/{session['id']}?turns[limit]=9&turns[before]={turns[0]['id']}"
            ).json()["turns"]
            + turns
        )
    refused = someone.post(f"/sessions/{session['id']}/fork")
    assert refused.status_code == 413 and "8,388,608 bytes" in refused.json()["errors"][0]["detail"]
    copy = fork(someone, session, turns[14])  # seven megabytes
    shown = someone.turns(copy)
    assert [len(turn["content"]) for turn in shown] == [len(turn["content"]) for turn in turns[:15]]


def import_that_waits(pool, user, body):
    """An import that has its place and waits. An invalid one, which is refused at once if it gets
    the place, tells that; if it has taken the place first, the import is sent again."""
    began = [pool.submit(user.post, "/sessions/import", body)]

    def has_its_place():
        if user.post("/sessions/import", {}).status_code == 503:
            return True
        if began[-1].done():
            began.append(pool.submit(user.post, "/sessions/import", body))
        return False

    wait_until(has_its_place)
    return began[-1]


def test_one_fork_or_import_per_user_and_two_in_all_are_made_at_a_time(start, settings, tables):
    server = start(**settings, WEB_CONCURRENCY=1)
    users = [server.client(f"https://github.com/u{number}") for number in range(3)]
    sessions = [user.create() for user in users]
    body = {"turns": turns_of("Hello", "Hi")}
    # Until COMMIT, the database accepts no writes.
    tables.rows("BEGIN IMMEDIATE" if tables.is_sqlite else "BEGIN")
    if not tables.is_sqlite:
        tables.rows("LOCK TABLE session IN EXCLUSIVE MODE")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [import_that_waits(pool, user, body) for user in users[:2]]
        asked = users[0].post(f"/sessions/{sessions[0]['id']}/fork")
        for refused in (asked, users[2].post("/sessions/import", body)):
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
            assert refused.json()["errors"][0]["detail"].startswith("Another import or fork is")
        assert users[2].get("/sessions").status_code == 200
        tables.rows("COMMIT")
        assert {each.result().status_code for each in waiting} == {201}
    assert imported(users[2], **body)
    assert fork(users[0], sessions[0])
