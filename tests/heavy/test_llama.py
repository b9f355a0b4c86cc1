"""llama.cpp's own server as the provider, with both of its protocols and a model that is made
here."""

import itertools
import time

import pytest

from client import wait_for_status
from connections import on_linux
from llama import (
    ENDLESS,
    MAX_TOKENS,
    PLAIN,
    PROTOCOLS,
    SHORT,
    SMALL,
    THINKING,
    WINDOW,
    serving,
    wait_until,
)
from pictures import png
from protocols import answered, failed, models_of
from provider import reply
from servers import free_port, running

pytest.importorskip(
    "xllamacpp",
    reason="xllamacpp is not installed, or libgomp, which it needs",
    exc_type=ImportError,
)


@pytest.fixture(scope="module", params=PROTOCOLS)
def llama(request, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("llama"), request.param, WINDOW) as llama:
        yield llama


@pytest.mark.parametrize("template, message", [(PLAIN, "Think;"), (THINKING, "Hello")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_thinking_is_not_part_of_the_answer(tmp_path, protocol, template, message):
    """Between tags in the text, and separated by llama.cpp with a template that opens the tag."""
    with serving(tmp_path, protocol, WINDOW, template) as llama:
        asked = {"content": message, "model": llama.model}
        with llama.alice.stream("POST", "/sessions", asked) as stream:
            events = list(stream)
        session, turn = events[0].data, events[-2].data
        assert turn["content"] == SHORT
        path = f"/sessions/{session['id']}/turns/{turn['id']}/thinking"
        assert llama.alice.get(path).json()["text"].strip() == "hm"
        told = [event.data["delta"] for event in events if event.name == "thinking"]
        assert "".join(told).strip() == "hm"


def test_a_reply_streams_and_is_stored_with_its_usage(llama):
    with llama.alice.stream(
        "POST", "/sessions", {"content": "Hello", "model": llama.model, "system": "Say"}
    ) as stream:
        session, *deltas, turn, done = list(stream)
    usage = {
        "input_tokens": 12,
        "output_tokens": 6,
        "cached_tokens": turn.data["usage"]["cached_tokens"],
    }
    assert (
        llama.alice.turns(session.data)[-1]
        == turn.data
        == turn.data | {"content": SHORT, "usage": usage}
    )
    assert (
        "".join(event.data["delta"] for event in deltas) == SHORT
        and 0 <= usage["cached_tokens"] < 12
    )


@on_linux
def test_a_connection_is_used_again_until_llama_closes_it(llama, tmp_path):
    """The connection of the list serves a reply too. After a stream, llama.cpp closes it,
    whatever its `Keep-Alive` says."""
    with running(tmp_path, **llama.settings, MAX_TOKENS=MAX_TOKENS) as server:
        alice, others, is_openai = server.client(), llama.connections(), llama.model == "tiny"
        assert models_of(alice) == [
            (llama.model, "openai" if is_openai else "anthropic", is_openai)
        ]
        [kept] = llama.connections() - others
        assert (
            answered(alice, llama.model, "Hello!")["content"] == "On" + " and on" * 24 + " and"
        )  # MAX_TOKENS of them
        assert llama.connections() - others <= {kept}
        wait_until(lambda: kept not in llama.connections(["01"]))
        assert answered(alice, llama.model)["content"] == SHORT
        assert kept not in llama.connections()


def test_it_works_beside_providers_with_the_same_ids_and_a_dead_one(llama, provider, tmp_path):
    """And one lists 5,000 models. One session uses a model of each; an error names the dead one."""
    [address] = llama.settings.values()
    protocol = "" if llama.model == "tiny" else "anthropic+"
    urls = {
        "llama": protocol + address,
        "same": provider.url + "/v1",
        "gone": f"http://127.0.0.1:{free_port()}/v1",
    }
    provider.models = [llama.model, *(f"m-{number}" for number in range(5000))]
    provider.default = reply("I am another.")
    settings = {
        "PROVIDERS": ",".join(f"{name}={url}" for name, url in urls.items()),
        "WEB_CONCURRENCY": 1,
    }
    with running(tmp_path, **settings) as server:
        alice = server.client()
        began = time.monotonic()
        listed = models_of(alice)
        assert time.monotonic() - began < 5
        assert listed[0] == (f"llama/{llama.model}", "llama", True)
        assert listed[1:] == [(f"same/{model}", "same", False) for model in provider.models]
        session = alice.create()
        path = f"/sessions/{session['id']}"
        assert (session["model"]["id"], alice.turns(session)[-1]["content"]) == (
            f"llama/{llama.model}",
            SHORT,
        )
        alice.patch(path, {"model": f"same/{llama.model}"})
        assert (
            alice.post(f"{path}/messages", {"content": "And you?"}).json()["content"]
            == "I am another."
        )
        alice.patch(path, {"model": f"gone/{llama.model}"})
        response = alice.post(f"{path}/messages", {"content": "And you?"})
        assert (
            response.status_code == 502
            and "The provider gone could not be reached" in response.text
        )
        alice.patch(path, {"model": f"llama/{llama.model}"})
        assert alice.post(f"{path}/retry").json()["content"] == SHORT
        assert [post.body["model"] for post in provider.posts] == [llama.model]
        assert (
            "The models of gone cannot be had: The provider gone could not be reached"
            in server.output()
        )


def test_a_message_that_does_not_fit_alone_is_413_and_a_full_window_is_no_end(llama):
    response, error, _ = failed(llama.alice, llama.model, "x" * WINDOW)
    assert response.status_code == 413 and error["detail"].startswith("Shorten this message")
    session = llama.alice.create("x" * 3900 + "!", model=llama.model)
    turn = wait_for_status(llama.alice, session, "complete", 30)
    assert (
        ENDLESS.startswith(turn["content"]) and turn["usage"]["output_tokens"] == WINDOW - 3905
    )  # it is full
    assert turn["stop_reason"] == "length"
    turn = llama.alice.post(f"/sessions/{session['id']}/messages", {"content": "More?"}).json()
    assert (turn["content"], turn["stop_reason"], turn["turns_left_out"]) == (SHORT, "stop", 2)


@pytest.mark.parametrize(
    "protocol, mark",
    [
        pytest.param("openai", "?", id="openai, short answers"),
        pytest.param(
            "anthropic", "!", id="anthropic, answers without an end", marks=pytest.mark.long
        ),
        pytest.param("openai", "!", id="openai, answers without an end", marks=pytest.mark.long),
        pytest.param("anthropic", "?", id="anthropic, short answers", marks=pytest.mark.long),
    ],
)
def test_thirty_messages_are_answered_in_a_window_of_512_tokens(tmp_path, protocol, mark):
    """For this model, each byte is a token, and so are two words of its own: a message and its
    answer take some 50."""
    with serving(tmp_path, protocol, SMALL) as llama:
        session = llama.alice.create(f"This is message number 1{mark}", model=llama.model)
        path, turns = f"/sessions/{session['id']}", llama.alice.turns(session)[1:]
        for number in range(2, 31):
            response = llama.alice.post(
                path + "/messages", {"content": f"This is message number {number}{mark}"}
            )
            assert response.status_code == 201, (number, response.text)
            turns.append(response.json())
        shown = llama.alice.get(path)
        assert len(shown.json()["turns"]) == 60 and shown.headers["First-Turn-Sent"]
        assert {turn["stop_reason"] for turn in turns} == ({"stop"} if mark == "?" else {"length"})
        assert all(
            (turn["content"] == SHORT) if mark == "?" else ENDLESS.startswith(turn["content"])
            for turn in turns
        )
        cuts = [turn["turns_left_out"] for turn in turns]
        assert cuts == sorted(cuts) and cuts[-1] > 20
        moved = sum(later != earlier for earlier, later in itertools.pairwise(cuts))
        assert mark == "!" or moved <= 8, cuts


@on_linux
@pytest.mark.parametrize(
    "content", ["y" * 3900, "Hello!"], ids=["while it reads", "while it speaks"]
)
def test_a_cancel_hangs_up_within_a_second_and_llama_is_free_again(llama, content):
    session = llama.alice.post(
        "/sessions", {"content": content, "model": llama.model}, Prefer="respond-async"
    ).json()
    wait_until(
        lambda: (
            llama.is_busy() and (content != "Hello!" or llama.alice.turns(session)[-1]["content"])
        )
    )
    turn = llama.alice.post(f"/sessions/{session['id']}/cancel").json()
    wait_until(lambda: not llama.connections(["01"]), 1)
    wait_until(lambda: not llama.is_busy())  # while it reads, it looks once a second
    assert turn["status"] == "interrupted" and ENDLESS.startswith(turn["content"])
    assert answered(llama.alice, llama.model)["content"] == SHORT


def test_images_that_its_model_does_not_see_are_refused_and_spoil_nothing(llama):
    """In its own words, which name no image's fault: they are known."""
    alice = llama.alice
    digest = alice.uploaded(png(64, 48))
    body = {"content": "Hello", "model": llama.model, "files": [digest]}
    refused = alice.post("/sessions", body)
    [error] = refused.json()["errors"]
    assert (refused.status_code, error["source"]) == (400, {"pointer": "/files"})
    assert error["detail"].startswith("This model does not see images.")
    path = f"/sessions/{error['meta']['session_id']}"
    assert alice.post(f"{path}/messages", {"content": "Hello"}).json()["content"] == SHORT
    listed = {model["id"]: model["images"] for model in alice.get("/models").json()["data"]}
    assert listed[llama.model] is False
