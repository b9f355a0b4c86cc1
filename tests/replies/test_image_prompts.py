"""Which images a model is sent, and that no image spoils a session, whatever its provider says.

Modules: `replies/writer.py`, `providers/conversation.py`.
"""

import threading

import pytest

from client import BOB, wait_for_status
from pictures import png
from provider import REFUSED, cut, reply, so_far, status, thought, writes

BLIND = status(500, {"error": {"message": "image input is not supported by this server"}})
BROKEN = status(400, {"error": {"message": "Could not process image"}})
OVERFLOW = status(400, {"error": {"message": "Too long", "code": "context_length_exceeded"}})
MODELS = "m-1", "claude-m"


def shapes(request):
    """What each message of a request has: texts, and None for an image."""
    messages = [each for each in request.body["messages"] if each["role"] != "system"]
    return [
        [message["content"]]
        if isinstance(message["content"], str)
        else [part.get("text") for part in message["content"]]
        for message in messages
    ]


def sent(provider):
    return [shapes(request) for request in provider.posts]


def error_of(response):
    [error] = response.json()["errors"]
    return response.status_code, error["detail"], error.get("source")


def add(client, session, content="Next", **fields):
    path = f"/sessions/{session['id']}/messages"
    return client.post(path, {"content": content} | fields)


@pytest.fixture
def alone(start, settings, provider):
    """A user of one process, which remembers what its provider has refused."""
    settings |= {"ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": "k"}
    return start(**settings, WEB_CONCURRENCY=1).client()


@pytest.fixture
def seen(someone, provider):
    """A session of a model that has seen an image."""
    session = someone.create("Look", files=[someone.uploaded(png(8, 8))])
    provider.requests.clear()
    return session


# Refusals


@pytest.mark.parametrize("refusal, model", [(BLIND, "m-1"), (BROKEN, "m-1"), (BROKEN, "claude-m")])
def test_images_of_earlier_turns_are_left_out_within_the_same_reply(
    alone, provider, refusal, model
):
    seen = alone.create("Look", files=[alone.uploaded(png(8, 8))], model=model)
    provider.requests.clear()
    provider.script = [refusal, reply("An answer.")]
    answered = add(alone, seen)
    assert (answered.status_code, answered.json()["content"]) == (201, "An answer.")
    with_image = [[None, "Look"], ["The answer."], ["Next"]]
    without = [["[image]\nLook"], ["The answer."], ["Next"]]
    assert sent(provider) == [with_image, without]
    # The next reply is not asked for with images first.
    assert add(alone, seen, "More").status_code == 201
    assert shapes(provider.posts[2])[0] == ["[image]\nLook"]


def test_a_new_process_knows_which_images_were_refused(start, settings, provider):
    server = start(**settings)
    alice = server.client()
    session = alice.create("Look", files=[alice.uploaded(png(8, 8))])
    provider.script = [BROKEN]
    assert add(alice, session).status_code == 201
    server.kill()
    provider.requests.clear()
    alice = start(**settings).client()
    assert add(alice, session, "More").status_code == 201
    assert [shape[0] for shape in sent(provider)] == [["[image]\nLook"]]
    # Another model may take them.
    alice.patch(f"/sessions/{session['id']}", {"model": "m-2"})
    assert add(alice, session, "And you?").status_code == 201
    assert shapes(provider.posts[-1])[0] == [None, "Look"]


@pytest.mark.parametrize(
    "refusal, said",
    [
        (
            BLIND,
            "This model does not see images. Choose another one, or send a message without them.",
        ),
        (BROKEN, "Could not process image"),
    ],
)
def test_the_last_messages_own_images_are_told_by_a_400(alone, provider, refusal, said):
    """The request without them is closed as soon as it is answered, and the session goes on."""
    hung_up = threading.Event()
    provider.script = [refusal, reply("I see no", hung_up)]
    digest = alone.uploaded(png(8, 8))
    response = alone.post("/sessions", {"content": "Look", "files": [digest]})
    status, detail, source = error_of(response)
    assert (status, source) == (400, {"pointer": "/files"})
    assert said in detail and "another" in detail
    assert provider.posts[-1].hung_up.wait(5)
    hung_up.set()
    session = {"id": response.json()["errors"][0]["meta"]["session_id"]}
    assert [turn["kind"] for turn in alone.turns(session)] == ["user", "assistant"]
    assert alone.turns(session)[0]["files"][0]["id"] == digest
    # A retry asks nobody; with other files it does, and later messages have none of the old ones.
    provider.requests.clear()
    path = f"/sessions/{session['id']}/retry"
    assert error_of(alone.post(path))[0::2] == (400, {"pointer": "/files"})
    assert provider.posts == []
    assert add(alone, session, "Without").status_code == 201
    assert sent(provider) == [[["[image]\nLook\n\nWithout"]]]


def test_other_files_of_a_retry_are_sent_although_the_first_were_refused(someone, provider):
    provider.script = [BROKEN]
    body = {"content": "Look", "files": [someone.uploaded(png(8, 8))]}
    refused = someone.post("/sessions", body)
    assert refused.status_code == 400
    provider.requests.clear()
    path = f"/sessions/{refused.json()['errors'][0]['meta']['session_id']}/retry"
    assert someone.post(path, {"files": [someone.uploaded(png(9, 9))]}).status_code == 201
    assert sent(provider) == [[[None, "Look"]]]


def test_images_of_earlier_turns_are_left_out_before_the_last_ones(someone, provider, seen):
    provider.script = [BROKEN, reply("An answer.")]
    answered = add(someone, seen, "And this?", files=[someone.uploaded(png(9, 9))])
    assert answered.status_code == 201
    assert sent(provider)[1] == [["[image]\nLook"], ["The answer."], [None, "And this?"]]


def test_if_it_is_not_the_images_the_first_refusal_is_told(someone, provider, seen):
    first = status(400, {"error": {"message": "Nothing on Wednesdays"}})
    other = status(400, {"error": {"message": "Nothing at all"}})
    provider.script = [first, other, other]
    refused = add(someone, seen, "And this?", files=[someone.uploaded(png(9, 9))])
    assert error_of(refused)[::2] == (502, None)
    assert "Nothing on Wednesdays" in error_of(refused)[1]
    assert len(provider.posts) == 3
    # Nothing was learned from that.
    assert add(someone, seen, "Again").status_code == 201
    assert shapes(provider.posts[-1])[0] == [None, "Look"]


@pytest.mark.parametrize(
    "refusal", [status(429, {}), status(401, {}), status(402, {}), status(403, {})]
)
def test_what_is_not_about_images_leaves_none_out(someone, provider, seen, refusal):
    provider.script = [refusal] * 5
    assert not add(someone, seen).ok
    assert all(shape[0] == [None, "Look"] for shape in sent(provider))


def test_after_a_413_images_are_left_out_before_turns(someone, provider, seen):
    provider.script = [status(413, {"error": {"message": "Request Entity Too Large"}})]
    answered = add(someone, seen)
    assert (answered.status_code, answered.json()["turns_left_out"]) == (201, 0)
    assert shapes(provider.posts[-1])[0] == ["[image]\nLook"]


def test_a_full_window_leaves_out_turns_and_their_images(someone, provider, seen):
    provider.script = [OVERFLOW]
    answered = add(someone, seen)
    assert (answered.status_code, answered.json()["turns_left_out"]) == (201, 2)
    assert sent(provider)[-1] == [["Next"]]


def test_known_words_are_remembered_for_the_user_and_the_model(start, settings, provider):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client(BOB)
    provider.script = [BLIND]
    digest = alice.uploaded(png(8, 8))
    body = {"content": "Look", "files": [digest]}
    for _ in range(2):
        assert error_of(alice.post("/sessions", body))[::2] == (400, {"pointer": "/files"})
    assert len(provider.posts) == 2
    assert alice.post("/sessions", body | {"model": "m-2"}).status_code == 201
    assert bob.uploaded(png(8, 8)) == digest
    assert bob.post("/sessions", body).status_code == 201


def test_thoughts_of_the_request_without_images_are_not_shown(someone, provider):
    provider.script = [BROKEN, reply(thought(reasoning_content="Hm, which"), " image?")]
    body = {"content": "Look", "files": [someone.uploaded(png(8, 8))]}
    refused = someone.post("/sessions", body)
    assert refused.status_code == 400
    session = {"id": refused.json()["errors"][0]["meta"]["session_id"]}
    turn = someone.turns(session)[1]
    assert (turn["content"], turn["thinking"], turn["status"]) == ("", None, "failed")


# Limits, breaks and takeovers


def test_the_newest_twenty_are_sent_and_the_boundary_moves_by_halves(someone, provider):
    digest = someone.uploaded(png(8, 8))
    session = someone.create("1", files=[digest] * 7)
    for number in (2, 3):
        add(someone, session, str(number), files=[digest] * 7)
    images = [sum(part is None for part in message) for message in shapes(provider.posts[-1])]
    assert images == [0, 0, 0, 0, 7]  # 21 are too many, and 14 more than half
    assert shapes(provider.posts[-1])[0] == ["\n".join(["[image]"] * 7) + "\n1"]
    add(someone, session, "4", files=[digest] * 3)
    images = [sum(part is None for part in message) for message in shapes(provider.posts[-1])]
    assert images == [0, 0, 0, 0, 7, 0, 3]
    # The fork has the boundary, too: seventeen would do for it.
    fork = someone.post(f"/sessions/{session['id']}/fork").json()
    someone.post(f"/sessions/{fork['id']}/retry")
    images = [sum(part is None for part in message) for message in shapes(provider.posts[-1])]
    assert images == [0, 0, 0, 0, 7, 0, 3]


def test_at_most_16_MB_are_sent(someone, provider):
    large = [someone.uploaded(png(1200, 1000, 3_500_000, color)) for color in range(5)]
    session = someone.create("Look", files=large)
    assert shapes(provider.posts[-1]) == [[None] * 4 + ["[image]\nLook"]]
    add(someone, session, "And this?", files=[someone.uploaded(png(8, 8))])
    assert [shape[0] for shape in shapes(provider.posts[-1])][::2] == [
        "\n".join(["[image]"] * 5) + "\nLook",
        None,
    ]


@pytest.mark.parametrize("model", MODELS)
def test_a_break_is_continued_with_the_same_prefix(someone, provider, model):
    provider.default = writes("One two three.", 1)
    files = [someone.uploaded(png(8, 8)), someone.uploaded(png(9, 9))]
    session = someone.create("Count", files=files, model=model)
    assert someone.turns(session)[-1]["content"] == "One two three."
    first, second = provider.posts
    assert so_far(second) == "One "
    assert second.body["messages"][: len(first.body["messages"])] == first.body["messages"]


def test_a_takeover_sends_the_images_again(start, settings, provider):
    provider.script = [reply("One ", threading.Event())]
    server = start(**settings)
    alice = server.client()
    body = {"content": "Count", "files": [alice.uploaded(png(8, 8))]}
    with alice.stream("POST", "/sessions", body) as frames:
        events = iter(frames)
        session = next(events).data
        assert any("One" in str(event.data) for event in events)
    server.kill()
    provider.default = writes("One two three.")
    alice = start(**settings).client()
    assert wait_for_status(alice, session, "complete")["content"] == "One two three."
    assert shapes(provider.posts[-1])[0] == [None, "Count"]


def test_images_that_no_provider_counts_are_estimated(someone, provider):
    provider.default = REFUSED
    provider.script = [cut("Fine.")]
    someone.post("/sessions", {"content": "?", "files": [someone.uploaded(png(1500, 1000))]})
    [used] = someone.get("/usage").json()["data"]
    assert 1600 <= used["estimated_tokens"] <= 1610
