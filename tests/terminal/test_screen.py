"""What a server sends is shown by `flask chat`, and cannot control the terminal."""

import re

import pytest

from chats import PLACE, SESSION, TURN
from provider import Provider, reply, status

ODD = "\x1b]0;title\x07\x9b2J\u202e\u2066\r\x08"


OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


ODD_ANSWERS = {
    "ids of a list": (
        ["--list"],
        200,
        {"data": [{"id": ODD, "updated_at": "2026-11-24", "title": "text"}]},
    ),
    "times of a list": (
        ["--list"],
        200,
        {"data": [{"id": "7", "updated_at": ODD, "title": "text"}]},
    ),
    "titles of a list": (
        ["--list"],
        200,
        {"data": [{"id": "7", "updated_at": "2026-11-24", "title": ODD + "text"}]},
    ),
    "models": ([], 200, {"data": [{"id": ODD + "text", "default": True}]}),
    "a session's model": (
        ["-c"],
        200,
        {"data": [PLACE], "turns": []} | PLACE | {"model": {"id": ODD + "text\n\t"}},
    ),
    "messages": (
        ["--session", SESSION],
        200,
        PLACE | {"turns": [{"kind": "user", "content": ODD + "text"}]},
    ),
    "replies": (["--session", SESSION], 200, PLACE | {"turns": [TURN | {"content": ODD + "text"}]}),
    "outcomes": (["--session", SESSION], 200, PLACE | {"turns": [TURN | {"status": ODD + "text"}]}),
    "errors": (["--list"], 400, {"errors": [{"detail": ODD + "text"}]}),
    "errors of a session": (["--session", SESSION], 404, {"errors": [{"detail": ODD + "text"}]}),
}


@pytest.mark.parametrize("options, code, body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_text_from_a_server_cannot_control_the_terminal(terminal, options, code, body):
    server = Provider()
    server.models = status(code, body)
    chat = terminal(*options, url=server.url)
    chat.wait_for("text")
    if code == 200 and options != ["--list"]:
        chat.wait_for("> ")
        chat.type("/quit\n")
    chat.wait_for_end()
    server.close()
    assert "Traceback" not in chat.screen
    said = chat.screen.replace("\r\n", "\n")
    assert not OBEYED.search(said), said


def test_the_direction_of_text_is_not_changed(run, provider):
    provider.script = [reply("a\u202eb", "\u2066c\u2069 👩\u200d👧")]
    assert run("Hello").stdout == "abc 👩\u200d👧\n"


def test_control_sequences_do_not_reach_the_terminal(run, provider):
    provider.script = [
        reply("\x1b[31mred\x07 \x9b2J", "\x1b", "]0;title\x07\rover\x7f\u0085\n\ttab")
    ]
    assert run("Hello").stdout == "[31mred 2J]0;titleover\n\ttab\n"
