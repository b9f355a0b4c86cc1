"""What `flask chat` shows of an existing session."""

import threading
import urllib.parse

import pytest

from chats import PLACE, SESSION, TURN
from pictures import png
from provider import REFUSED, Provider, cut, reply, status
from terminal.transcript import mark_of

MORE = "[There is more before this: /history shows all.]"


def test_the_last_exchange_is_shown_and_continued(terminal, alice, provider):
    provider.script = [reply("A1"), cut("A2"), REFUSED, reply("A3")]
    session = alice.create("Q1")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Q2\nin two lines"})
    chat = terminal("--session", session["id"], "--model", "m-2", "--system", "Be brief.")
    chat.wait_for(
        f'"Q1" with m-2 at {chat.url}, /? for help\r\n{MORE}\r\n> Q2\r\n> in two lines\r\n'
    )
    chat.wait_for("A2 [went on after an interruption] [failed: The provider ")
    chat.wait_for("broke the connection. Ask again.]\r\nQ1 · m-2> ")
    chat.type("Q3\n")
    chat.wait_for("A3\r\nQ1 · m-2> ")
    assert provider.posts[-1].body["model"] == "m-2"
    assert provider.posts[-1].body["messages"][0]["content"] == "Be brief."


def test_a_whole_session_is_shown_on_request(terminal, alice, provider):
    provider.script = [reply("A1"), reply("A2\n")]
    session = alice.create("Q1")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Q2"})
    chat = terminal("-c")
    chat.wait_for(f"{MORE}\r\n> Q2\r\nA2\r\nQ1 · m-1> ")
    chat.type("/history\n")
    chat.wait_for("/history\r\n> Q1\r\nA1\r\n> Q2\r\nA2\r\nQ1 · m-1> ")


def test_images_are_shown_by_their_size_and_alternative_text(run, alice):
    described = {"id": alice.uploaded(png(64, 48)), "alt": "A heron\non a\x1b[31m post"}
    alice.create("What?", files=[described, alice.uploaded(png(640, 480))])
    shown = "> [image 64×48 A heron on a [31m post] [image 640×480] What?"
    assert run(options=["-c", "/history"]).stdout == f"{shown}\nThe answer.\n"


def test_a_session_with_one_exchange_has_no_more(terminal, alice, provider):
    alice.create("Q1")
    chat = terminal("-c")
    chat.wait_for("/? for help\r\n> Q1\r\nThe answer.\r\nQ1 · m-1> ")


def test_nothing_is_shown_of_an_empty_session(run):
    assert run(options=["/history"]).stdout == "Nothing has been said yet.\n"


def test_a_message_without_a_reply_is_the_last_exchange(terminal, alice):
    """As in an imported session."""
    kinds = {"Q1": "user", "A1": "assistant", "Q2": "user"}
    turns = [{"kind": kind, "content": text} for text, kind in kinds.items()]
    assert alice.post("/sessions/import", {"turns": turns}).status_code == 201
    chat = terminal("-c")
    chat.wait_for(f"{MORE}\r\n> Q2\r\n")
    chat.wait_for("> ")


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_a_long_session_is_shown_page_by_page(count, run, alice):
    kinds = ["user", "assistant"]
    turns = [{"kind": kinds[number % 2], "content": f"turn {number}"} for number in range(count)]
    alice.post("/sessions/import", {"turns": turns})
    lines = run(options=["-c", "/history"]).stdout.splitlines()
    assert lines == ["> " * (number % 2 == 0) + f"turn {number}" for number in range(count)]


def test_only_what_is_shown_is_read(terminal):
    server = Provider()
    server.models = status(200, PLACE | {"turns": [TURN], "meta": {"has_more": True}})
    chat = terminal("--session", SESSION, url=server.url)
    chat.wait_for("text")
    chat.type("/quit\n")
    chat.wait_for_end()
    server.close()
    assert chat.screen.index(MORE) < chat.screen.index("text")
    asked = [urllib.parse.unquote(request.path) for request in server.requests]
    assert [path.partition("?")[2] for path in asked] == ["turns[limit]=1", "turns[limit]=2"]


def test_a_server_of_an_older_release_sends_all_turns(terminal):
    turns = [{"kind": "user", "content": "Q1"}, TURN, {"kind": "user", "content": "Q2"}, TURN]
    server = Provider()
    server.models = status(200, PLACE | {"turns": turns})
    chat = terminal("--session", SESSION, url=server.url)
    chat.wait_for(f"{MORE}\r\n> Q2\r\ntext\r\n")
    chat.type("/history\n")
    chat.wait_for("> Q1\r\ntext\r\n> Q2\r\ntext\r\n")
    server.close()


def test_a_reply_in_progress_elsewhere_is_followed(terminal, alice, provider):
    gate, words = threading.Event(), [part for number in range(60) for part in (f"{number} ", 0.05)]
    provider.script = [reply("One ", *words, gate, "two.")]
    alice.post("/sessions", {"content": "Count"}, Prefer="respond-async").json()
    chat = terminal("-c")
    chat.wait_for("> Count\r\nOne ")
    gate.set()
    chat.wait_for("".join(words[::2]) + "two.\r\nCount · m-1> ")


def test_lists_the_latest_sessions(run, alice):
    session = alice.create("Hello")
    alice.patch(f"/sessions/{session['id']}", {"title": "Two\nlines \x1b[31mred"})
    line = run(options=["--list"]).stdout.splitlines()[0]
    assert line == f"{session['id']}  {session['created_at'][:10]}  Two lines [31mred"


def test_a_failed_reply_shows_the_providers_reason_if_the_server_sends_it(engine):
    failed = {"status": "failed", "error": {"status": 502, "message": "It failed."}}
    assert mark_of(failed) == " [failed: It failed.]"
    failed["error"]["reason"] = "Boom 7"
    assert mark_of(failed) == " [failed: It failed. Boom 7]"
