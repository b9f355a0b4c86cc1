"""A model's thinking, as `flask chat` shows it."""

import contextlib
import re
import threading

from chats import PLACE, SESSION, TURN
from client import wait_until
from painted import plain, styles_of
from provider import KEEP, Provider, chunk, event, head, raw, reply, status, thought
from proxy import Proxy

COLOURED = {"TERM": "xterm", "NO_COLOR": ""}


def shown(chat):
    """The screen without colours, and with 1 in place of the seconds of thinking."""
    return re.sub(r"(?<=\[thought for )\d+(?= s\])", "1", plain(chat.screen)).replace("\r", "")


def faint(chat):
    return "".join(text for text, style in styles_of(chat.screen) if style == "2")


def test_thinking_is_faint_and_comes_before_the_answer(terminal, provider):
    gates = [threading.Event(), threading.Event()]
    first, rest = thought(reasoning="\n\n"), thought(reasoning="Hm, **so**\n")
    odd = thought(reasoning="it \x1b[31mis")
    provider.script = [reply(first, rest, gates[0], odd, gates[1], 2.2, "The **answer**.")]
    chat = terminal("Hello", **COLOURED)
    for words, gate in zip(("so**", "is"), gates, strict=True):
        chat.wait_for(words)
        gate.set()
    assert chat.wait_for_end() == 0
    assert shown(chat) == "Hm, **so**\nit [31mis\n[thought for 1 s]\nThe **answer**.\n"
    assert int(re.search(r"thought for (\d+) s", chat.screen)[1]) >= 2
    assert re.match(r"Hm, \*\*so\*\*\r\nit \[31mis\[thought for \d+ s\]", faint(chat))


def test_a_model_that_thinks_again_begins_a_line(terminal, provider):
    pieces = thought(reasoning="Hm."), 0.5, "The ", 0.5, thought(reasoning="So."), 0.5, "answer."
    provider.script = [reply(*pieces)]
    chat = terminal("Hello", **COLOURED)
    assert chat.wait_for_end() == 0
    mark = "[thought for 1 s]"
    assert shown(chat) == f"Hm.\n{mark}\nThe \nSo.\n{mark}\nanswer.\n"


def test_a_reply_with_only_thinking_says_for_how_long(terminal, provider):
    provider.script = [reply(thought(reasoning="Hm."))]
    chat = terminal("Hello", **COLOURED)
    assert chat.wait_for_end() == 1
    assert shown(chat).startswith("Hm.\n[thought for 1 s]\nError: ")


def test_text_that_was_taken_for_thinking_is_shown_as_text(terminal, provider):
    gate = threading.Event()
    provider.script = [reply("<think>Hm, ", gate, "yes.")]
    chat = terminal("Hello", **COLOURED)
    chat.wait_for("Hm,")
    gate.set()
    assert chat.wait_for_end() == 0
    said = shown(chat).partition("\n<think>")
    assert said[0].startswith("Hm,") and said[2] == "Hm, yes.\n"


def test_thinking_is_shown_once_though_the_connection_breaks(start, settings, terminal, provider):
    server = start(**settings, WEB_CONCURRENCY=1)  # another process knows only what is stored
    proxy, token = Proxy(server.port), server.client().token
    gate = threading.Event()
    pieces = thought(reasoning="Hm, "), gate, thought(reasoning="so."), 1, "Yes."
    provider.script = [reply(*pieces)]
    chat = terminal("Hello", url=proxy.url, PARLEY_TOKEN=token, **COLOURED)
    chat.wait_for("Hm,")
    proxy.cut()
    wait_until(lambda: b"Last-Event-ID" in proxy.sent)
    gate.set()
    assert chat.wait_for_end() == 0
    proxy.close()
    lost = "No connection. Trying again."
    assert shown(chat) == f"Hm, \n{lost}\nso.\n[thought for 1 s]\nYes.\n"


def stream_of(*events):
    """A stream that breaks after these events, unless the last is its end."""
    parts = [head(Transfer_Encoding="chunked", Location=f"/sessions/{SESSION}")]
    parts += [chunk(b"id: 2-0\n" + event(data, name)) for name, data in events]
    return raw(*parts, *([chunk(b""), KEEP] if events[-1][0] == "done" else []))


def test_different_thinking_begins_a_line(terminal):
    """As if another process took the reply over, and the beginning of the thinking was not
    stored."""
    begun = {"characters": 7, "start": 0, "delta": "One way"}
    other = {"characters": 12, "start": 0, "delta": "Another way."}
    ends = ("content_delta", {"delta": "Yes."}), ("assistant_turn", TURN), ("done", {})
    with contextlib.closing(Provider()) as server:
        server.default = stream_of(("session", PLACE), ("thinking", begun))
        resumed, sessions = stream_of(("thinking", other), *ends), status(200, {"data": []})
        server.models = lambda request: (resumed if request.path.endswith("/events") else sessions)(
            request
        )
        chat = terminal("Hello", url=server.url, **COLOURED)
        assert chat.wait_for_end() == 0
    thoughts = "One way\nNo connection. Trying again.\nAnother way."
    assert shown(chat) == f"{thoughts}\n[thought for 1 s]\nYes.\n"


def test_a_continued_reply_does_not_show_its_thinking_again(terminal, provider):
    provider.script = [reply(thought(reasoning="Hm."), "One ", stop="length")]
    provider.script += [reply("two ", stop="length"), reply(thought(reasoning="So."), "three.")]
    chat = terminal("Count", **COLOURED)
    assert chat.wait_for_end() == 0
    chat = terminal("-c", "/continue", **COLOURED)
    assert chat.wait_for_end() == 0
    assert shown(chat).startswith("two  [went on")
    chat = terminal("-c", **COLOURED)
    chat.wait_for("m-1> ")
    chat.type("/continue\n")
    chat.wait_for("three.")
    assert "Hm." not in chat.screen
    assert "/continue\nSo.\n[thought for 1 s]\nthree." in shown(chat)


def test_ctrl_c_during_thinking_leaves_no_faint_terminal(terminal, provider):
    provider.script = [reply(thought(reasoning="Hm, so"), threading.Event())]
    chat = terminal("Hello", **COLOURED)
    chat.wait_for("Hm,")
    chat.press_ctrl_c()
    assert chat.wait_for_end() == 1
    assert "so\x1b[0m [stopped]" in chat.screen and "thought for" not in chat.screen


def test_a_server_that_only_counts_thinking_has_none_to_show(start, settings, terminal, provider):
    counting = start(**settings, THINKING="count")
    provider.script = [reply(thought(reasoning="Hm."), "Yes.")]
    token = counting.client().token
    chat = terminal("Hello", url=counting.url, PARLEY_TOKEN=token, **COLOURED)
    assert chat.wait_for_end() == 0
    assert shown(chat) == "[thought for 1 s]\nYes.\n"


def test_thinking_is_not_mentioned_without_a_terminal(run, provider):
    pieces = thought(reasoning="Hm."), 1.5, "The first ", thought(reasoning="So."), 1.5, "words."
    provider.script = [reply(*pieces)]
    done = run("Hello", **COLOURED)
    assert (done.stdout, done.stderr) == ("The first words.\n", "")


def test_thinking_is_not_mentioned_if_it_is_hidden(terminal, provider):
    provider.script = [reply(thought(reasoning="Hm."), "Yes.")]
    chat = terminal("--hide-thinking", "Hello", **COLOURED)
    assert chat.wait_for_end() == 0
    assert shown(chat) == "Yes.\n"


def test_the_thinking_of_the_last_reply_can_be_shown(terminal, run, provider):
    assert run(options=["/thinking"]).stderr == "Error: There is no reply yet.\n"
    provider.script = [reply(thought(reasoning="Hm, \x1b[31m**so**."), "Yes."), reply("No.")]
    chat = terminal("--hide-thinking", **COLOURED)
    chat.wait_for("m-1> ")
    chat.type("Hello\n")
    chat.wait_for("Yes.\r\nHello · m-1> ")
    chat.type("/th\t\n")
    chat.wait_for("/thinking")
    chat.wait_for("Hello · m-1> ")
    assert shown(chat).endswith("/thinking\nHm, [31m**so**.\nHello · m-1> ")
    assert faint(chat) == "Hm, [31m**so**."
    assert run(options=["-c", "/thinking"]).stdout == "Hm, [31m**so**.\n"
    chat.type("Again\n")
    chat.wait_for("No.\r\nHello · m-1> ")
    chat.type("/thinking\n")
    chat.wait_for("The last reply has no thinking.\r\nHello · m-1> ")
