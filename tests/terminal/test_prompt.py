"""Typing into `flask chat` in a real terminal: Tab, and what it must not do."""

import pytest

from provider import Provider, status
from tmux import LACKS_TMUX


@pytest.fixture
def chat(tmux):
    chat = tmux()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    return chat


@LACKS_TMUX
def test_tab_completes_commands_models_and_options(chat, provider):
    chat.type("/mod")
    chat.press("Tab")
    chat.wait_for("m-1> /model")
    chat.press("Tab")
    chat.wait_for("m-1> /model m-")  # which both have
    chat.type("2")
    chat.press("Enter")
    chat.wait_for("m-2>")
    chat.type("/set")
    chat.press("Tab")
    chat.type("te")
    chat.press("Tab")
    chat.type("1")
    chat.press("Enter")
    chat.wait_for("m-2> /set temperature 1\ntemperature 1\nm-2>")
    chat.type("/mo")
    chat.press("Tab", "Tab", "Tab", "Tab")
    chat.wait_for("\nm-1  m-2\nm-2> /model m-")
    chat.press("C-u", "/", "Tab", "Tab")
    listed = chat.wait_for("/thinking\nm-2> /").rpartition("\nm-1  m-2\n")[2].split()
    for command in (
        *("/continue", "/history", "/list", "/model", "/new", "/quit", "/retry", "/set", "/show"),
        *("/clear", "/delete", "/load", "/open", "/rename", "/save", "/search"),
    ):
        assert command in listed
    assert not provider.posts


@LACKS_TMUX
def test_a_tab_in_a_message_is_a_tab(chat, provider):
    chat.type("a\tb")
    chat.press("Enter")
    chat.wait_for("The answer.\na b · m-1>")
    code = "if x:\n\ty = 1\n\n\tz\t= 2"
    for options in ([], ["-p"]):
        chat.paste(code, *options)
        chat.wait_for("= 2")
        chat.press("Enter")
        chat.wait_for("= 2\nThe answer.\na b · m-1>")
    said = [post.body["messages"][-1]["content"] for post in provider.posts]
    assert said == ["a\tb", code, code]


def test_tab_works_on_if_the_server_is_away(terminal):
    server = Provider()
    server.models = status(200, {"data": [{"id": "m-1", "default": True}]})
    chat = terminal(url=server.url)
    chat.wait_for("m-1> ")
    server.close()
    chat.type("/model \tm-2\n")
    chat.wait_for("m-2> ")


def test_completions_cannot_control_the_terminal(terminal):
    server = Provider()
    ids = ["m-1", "odd\x1b[31m-\x072"]
    server.models = status(200, {"data": [{"id": each, "default": each == "m-1"} for each in ids]})
    chat = terminal(url=server.url)
    chat.wait_for("m-1> ")
    chat.type("/model o\t")
    chat.wait_for("/model odd[31m-2")
    server.close()
