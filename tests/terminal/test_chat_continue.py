"""`flask chat` continues a reply, or a session whose model is gone."""

import subprocess

import pytest

from chats import first_session
from provider import REFUSED, cut, reply, status


def test_a_stopped_reply_is_continued_where_it_stopped(run, alice, provider):
    provider.script = [reply(word, stop="length") for word in ("One ", "two ")]
    provider.script += [REFUSED, cut("three "), cut("four "), reply("five.")]
    cut_at_the_limit, went_on = (
        " [cut at the limit: /continue goes on]\n",
        " [went on after an interruption]",
    )
    done = run("Count")
    assert (done.returncode, done.stdout, done.stderr) == (0, "One \n", cut_at_the_limit)
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "two \n", went_on + cut_at_the_limit)
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("Not today.\n")
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "three four five.\n", went_on + "\n")
    done = run(options=["-c", "/continue"])
    assert (done.returncode, done.stderr.count("\n")) == (
        1,
        1,
    ) and "There is nothing to continue" in done.stderr
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        "Count",
        "One two three four five.",
    ]


def test_continue_is_not_offered_if_it_is_impossible(terminal, provider):
    whole = {
        "error": {
            "message": "This model's maximum context length is 9 tokens.",
            "code": "context_length_exceeded",
        }
    }
    provider.script = [
        REFUSED,
        reply("Whole."),
        cut("Half"),
        REFUSED,
        reply("One ", stop="length"),
        status(400, whole),
    ]
    chat = terminal()
    chat.wait_for("> ")
    for line, answer in (
        ("/continue", "There is no reply yet.\r\nm-1> "),
        ("Hello", "Not today.\r\nHello · m-1> "),
        ("Hello", "Whole.\r\nHello · m-1> "),
    ):
        chat.type(line + "\n")
        chat.wait_for(answer)
    chat.type("/retry\n")  # it gives way to the complete reply before it
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/continue\n")
    chat.wait_for("There is nothing to continue")
    assert "goes on" not in chat.screen
    chat.type("Count\n")
    chat.wait_for("One  [cut at the limit: /continue goes on]\r\nHello · m-1> ")
    chat.type("/continue\n")
    chat.wait_for("Start a new message.\r\nHello · m-1> ")


def test_a_continued_reply_is_read_once_if_the_answer_is_lost(terminal, proxy, provider):
    provider.script = [
        reply(*words, stop="length")
        for words in (["One "], ["two ", 1, "three "], ["four ", "five."])
    ]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    for behind, line, words in (
        (None, "Count", "One "),
        (b"", "/continue", "two three "),
        (b"\r\n\r\n", "/continue", "four"),
    ):
        proxy.cut_behind = behind  # before the answer, and after its headers
        chat.type(line + "\n")
        chat.wait_for(f"\n{words}")
        chat.wait_for("[cut at the limit: /continue goes on]\r\nCount · m-1> ")
    assert len(provider.posts) == 3 and proxy.cut_behind is None


@pytest.fixture
def moved_on(start, new_database, provider):
    """The settings with which alice's terminal finds her chat with echo on a server that now
    serves other models."""
    settings = {"DATABASE_URL": new_database(), "WEB_CONCURRENCY": 1}
    alice = start(**settings).client()
    alice.create("Hello")
    server = start(**settings, OPENAI_BASE_URL=provider.url + "/v1")
    return {"PARLEY_URL": server.url, "PARLEY_TOKEN": alice.token}


GONE = "[echo is not served any more: m-1 answers from here on.]\n"


@pytest.mark.parametrize("words", ["More", "/retry"])
def test_a_session_whose_model_is_gone_continues_with_the_default(
    command, moved_on, provider, words
):
    made = command("-c", words, url=moved_on["PARLEY_URL"], PARLEY_TOKEN=moved_on["PARLEY_TOKEN"])
    done = subprocess.run(**made, input="", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", GONE)
    assert [post.body["model"] for post in provider.posts] == ["m-1"]


def test_a_session_whose_provider_has_lost_its_model_continues_with_the_default(
    run, alice, provider
):
    session = alice.create("Hello")
    alice.patch(f"/sessions/{session['id']}", {"model": "m-9"})
    unknown = {"error": {"message": "The model `m-9` does not exist", "code": "model_not_found"}}
    provider.script = [status(404, unknown)]
    done = run(options=["-c", "More"])
    assert (done.returncode, done.stdout) == (0, "The answer.\n")
    assert done.stderr == GONE.replace("echo", "m-9")
    assert [turn["content"] for turn in alice.turns(session)] == [
        "Hello",
        "The answer.",
        "More",
        "The answer.",
    ]


def test_a_requested_model_is_not_replaced(run, alice, provider):
    done = run(options=["--model", "echo", "Hello"])
    assert done.returncode == 1 and "GET /models" in done.stderr and provider.posts == []
