"""`flask chat` in a real terminal, by tmux: what is typed and pasted, and what the screen shows,
wide and narrow."""

import re
import stat
import threading
import time

import pytest

from provider import reply, so_far, status, thought, writes
from raw_tables import tables_of
from servers import Server
from tmux import LACKS_TMUX, NARROW, WIDE, unbroken

pytestmark = LACKS_TMUX

TURN = {"kind": "user", "content": "Hi"}


def said(provider):
    """The user's last message, as the model gets it."""
    return provider.posts[-1].body["messages"][-1]["content"]


TALK = '''\
$ flask chat
A new chat with m-1 at URL, /? for help
m-1> Hello, 世界 👋
The answer.
Hello, 世界 👋 · m-1> Hello again, 世界 👋
The answer.
Hello, 世界 👋 · m-1> def f(x):
    return x + 1

f(2)
The answer.
Hello, 世界 👋 · m-1> one
...   two
... three
The answer.
Hello, 世界 👋 · m-1> """a question
... /quit
...     exit"""
The answer.
Hello, 世界 👋 · m-1> /tmp is full of files, and none of them is mine: what would you do?
Error: It was not sent: there is no such command, /? lists them. To send it, put a space first.
Hello, 世界 👋 · m-1>  /tmp is full of files, and none of them is mine: what would you do?
漢字かな漢字かな漢字かな漢字かな漢字かな漢字かな 👩 and back.
Hello, 世界 👋 · m-1> /model
* m-1
  m-2
Hello, 世界 👋 · m-1> /model m-2
Hello, 世界 👋 · m-2> Tell me a story
Once upon a time ^C [stopped] /continue goes on.
Hello, 世界 👋 · m-2> Exit
$'''


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_chat(columns, tmux, provider):
    chat = tmux(columns)
    chat.enter("flask chat")
    chat.wait_for("/? for help\nm-1>")
    chat.enter("Hello, 世界 👋")
    here = "Hello, 世界 👋" + (" · m-1>" if columns == WIDE else ">")
    chat.wait_for(f"The answer.\n{here}")
    chat.press("Up", *["Left"] * 6)
    chat.enter(" again")
    chat.wait_for(f"again, 世界 👋\nThe answer.\n{here}")
    assert said(provider) == "Hello again, 世界 👋"

    code = "def f(x):\n    return x + 1\n\nf(2)"
    chat.paste(code, "-p")
    chat.wait_for("f(2)")
    chat.press("Enter")
    chat.wait_for(f"f(2)\nThe answer.\n{here}")
    assert said(provider) == code
    chat.paste("one\n  two\nthree\n")
    chat.wait_for(f"three\nThe answer.\n{here}")
    assert said(provider) == "one\n  two\nthree"
    for line in ('"""a question', "/quit", '    exit"""'):
        chat.wait_for((here, "...")[not line.startswith('"')])
        chat.enter(line)
    chat.wait_for(f'exit"""\nThe answer.\n{here}')
    assert said(provider) == "a question\n/quit\n    exit"
    assert len(provider.posts) == 5

    chat.enter("/tmp is full of files, and none of them is mine: what would you do?")
    chat.wait_for(f"a space first.\n{here}")
    assert len(provider.posts) == 5
    provider.script = [
        reply("漢字かな" * 3, 0.1, "漢字かな" * 3, " 👩 and back."),
        reply("Once upon a time ", threading.Event()),
    ]
    chat.press("Up", "C-a", "Space", "Enter")
    chat.wait_for(f"back.\n{here}")
    assert said(provider).strip().startswith("/tmp is full")
    chat.enter("/model")
    chat.wait_for(f"m-2\n{here}")
    chat.enter("/model m-2")
    here = here.replace("m-1", "m-2")
    chat.wait_for(f"/model m-2\n{here}")
    chat.enter("Tell me a story")
    chat.wait_for("Once upon a time")
    assert provider.posts[-1].body["model"] == "m-2"
    chat.press("C-c")
    chat.wait_for(f"goes on.\n{here}")
    assert provider.posts[-1].hung_up.wait(5)
    chat.enter("Exit")
    talk = TALK if columns == WIDE else re.sub(" · m-[12]>", ">", TALK)
    assert unbroken(chat.wait_for("$")) == unbroken(talk)
    assert len(provider.posts) == 7
    history = chat._socket.parent / ".parley_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert (
        "Hello again" in history.read_text()
        and chat.server.client().token not in history.read_text()
    )


@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_server_may_die_in_the_middle_of_a_reply_and_come_back(columns, tmux, provider, tmp_path):
    text = " ".join(f"word{number}" for number in range(30)) + "."
    gate = threading.Event()
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/p.db",
    }
    first = Server(tmp_path, **settings, WEB_CONCURRENCY=1).wait_until_up()
    chat = tmux(columns, first)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    provider.script = [reply(*[word + " " for word in text.split()[:10]], gate), writes(text)]
    chat.enter("Write")
    chat.wait_for("word9")
    first.kill()
    chat.wait_for("No connection. Trying again.")
    with tables_of(settings["DATABASE_URL"]) as tables:  # its lease has lapsed, to save waiting
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
    second = Server(
        tmp_path, **settings, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{first.port}"
    )
    try:
        second.wait_until_up()
        words = text.split()
        begun, rest = " ".join(words[:10]), " ".join(words[10:])
        end = f"m-1> Write\n{begun}\nNo connection. Trying again.\n{rest} [went on after an interruption]\nWrite · m-1>"
        assert "[waiting" not in chat.wait_for(end, 40, is_broken=True)
        assert so_far(provider.posts[-1]) == begun + " "
        [_, turn] = second.client().turns(second.client().get("/sessions").json()["data"][0])
        assert (turn["content"], turn["status"], turn["continued"]) == (text, "complete", 1)
        chat.press("C-d")
        chat.wait_for("[went on after an interruption]\nWrite · m-1>\n$")
    finally:
        second.kill()
        for server in (first, second):
            server.stop()  # closes its log


def test_a_sign_of_life_leaves_no_trace(tmux, provider):
    """It is shown on an empty line only, and the next output replaces it."""
    gates = [threading.Event() for _ in range(3)]
    provider.script = [
        reply(
            thought(reasoning="Hm."),
            gates[0],
            "世界 first ",
            gates[1],
            "words\n\n",
            gates[2],
            "one word more.",
        ),
    ]
    chat = tmux(NARROW)
    chat.enter("flask chat --hide-thinking")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for_sign("> Hello\n[thinking")
    gates[0].set()
    chat.wait_for("> Hello\n世界 first")
    time.sleep(2.2)  # no event says that nothing is shown
    assert chat.screen().endswith("> Hello\n世界 first")
    gates[1].set()
    chat.wait_for_sign("> Hello\n世界 first words\n\n[waiting")
    gates[2].set()
    chat.wait_for("> Hello\n世界 first words\n\none word more.\nHello · m-1>")


def test_no_sign_of_life_is_drawn_into_a_question(tmux, place, provider):
    chat = tmux()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("The answer.\nHello · m-1>")
    chat.enter("/delete")
    chat.wait_for('\nDelete "Hello"? [y/N]')
    time.sleep(2.2)  # no event says that nothing is shown
    assert chat.screen().endswith('\nDelete "Hello"? [y/N]')
    chat.enter("y")
    chat.wait_for('Delete "Hello"? [y/N] y\nYour next message begins a new chat.\nm-1>')
    chat.press("Up")  # the answer is not in the history
    chat.wait_for("\nm-1> /delete")


def test_a_sign_of_life_says_how_long_a_provider_asks_to_wait(tmux, provider):
    provider.script = [status(429, {}, Retry_After=4), reply("Yes.")]
    chat = tmux()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("> Hello\n[the provider asks to wait 4 s, 1 s]")
    chat.wait_for("> Hello\nYes.\nHello · m-1>")


def test_a_sign_of_life_is_cut_at_the_edge_of_the_terminal(tmux, provider):
    """More than one row could not be erased."""
    provider.script = [status(429, {}, Retry_After=4), reply("Yes.")]
    chat = tmux(20)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("> Hello\n[the provider asks")
    chat.wait_for("> Hello\nYes.\nHello>")


def test_thinking_is_broken_between_words(tmux, provider):
    provider.script = [reply(thought(reasoning="These thoughts fill more than one row."), "Yes.")]
    chat = tmux(NARROW - 10)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    thoughts = "These thoughts fill more than\none row."
    chat.wait_for(f"> Hello\n{thoughts}\n[thought for 1 s]\nYes.\nHello · m-1>")


def test_a_terminal_without_colours_says_only_how_long(tmux, provider):
    gate = threading.Event()
    provider.script = [reply(thought(reasoning="Hm."), gate, "Yes.")]
    chat = tmux(NO_COLOR="1")
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for_sign("> Hello\n[thinking")
    gate.set()
    screen = chat.wait_for("\nYes.\nHello · m-1>")
    assert re.search(r"> Hello\n\[thought for \d s\]\nYes\.", screen)


def test_ctrl_c_and_ctrl_d(tmux, provider):
    provider.script = [reply("Once upon ", threading.Event()) for _ in range(2)]
    chat = tmux()
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.type("never sent")
    chat.wait_for("never sent")
    chat.press("C-c")
    chat.wait_for("never sent\nm-1>")
    chat.enter('"""never sent')
    chat.wait_for("...")
    chat.press("C-c")
    chat.wait_for("...\nm-1>")
    chat.press("C-c")
    chat.wait_for("m-1>\nCtrl-C again, or Ctrl-D, leaves.\nm-1>")
    chat.enter("Tell me a story")  # which makes it the first one again
    chat.wait_for("Once upon")
    chat.press("C-c")
    chat.wait_for("[stopped] /continue goes on.\nTell me a story · m-1>")
    chat.press("C-c")
    chat.wait_for("goes on.\nTell me a story · m-1>\n$")
    assert len(provider.posts) == 1
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.press("C-d")
    chat.wait_for("/? for help\nm-1>\n$")
    chat.enter("flask chat 'Tell me a story'")
    chat.wait_for("Once upon")
    chat.press("C-c")
    chat.wait_for("^C [stopped] /continue goes on.\n$")


def test_words_for_leaving_and_commands_are_not_sent(tmux, provider):
    chat = tmux()
    for word in ("exit", "/quit", "Bye"):
        chat.enter("flask chat --model m-1")
        chat.wait_for("m-1>")
        chat.enter(word)
        chat.wait_for(f"m-1> {word}\n$")
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("/?")
    screen = chat.wait_for("put a space first.\nm-1>")
    for line in (
        "  /retry           ask again",
        "  /continue        finish the last reply",
        "  /open 3          open number 3 of the last list (or /load 3)",
        '  """              start and end a message of several lines',
        "  /quit            leave (or /bye, /exit, Ctrl-D)",
    ):
        assert f"\n{line}\n" in screen
    chat.enter("/retry")
    chat.wait_for("Error: There is no reply yet.\nm-1>")
    refusal = "Error: It was not sent: there is no such command, /? lists them. To send it, put a space first."
    for line in ("/nothing", "/retry now", "/RETRY"):
        chat.enter(line)
        chat.wait_for(f"m-1> {line}\n{refusal}\nm-1>")
    assert not provider.posts
    chat.enter("Hello")
    chat.wait_for("The answer.\nHello · m-1>")
    chat.enter("/new")
    chat.wait_for("Your next message begins a new chat.\nm-1>")
    chat.enter("exit the loop")
    chat.wait_for("The answer.\nexit the loop · m-1>")
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        "exit the loop"
    ]


def test_a_long_model_name_is_shortened(tmux, provider):
    provider.models = ["hf.co/somebody/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"]
    chat = tmux(NARROW)
    chat.enter(f"flask chat --model {provider.models[0]}")
    chat.wait_for("Llama-3.2-3B-Instru…>")
    chat.enter("Hello")
    chat.wait_for("Llama-3.2-3B-Instru…> Hello\nThe answer.\nHello>")
    assert provider.posts[0].body["model"] == provider.models[0]


@pytest.mark.parametrize(
    "title, shown",
    [
        ("How do I write a long letter?", "How do I write a lo…"),
        ("漢字かな漢字かな漢字かな", "漢字かな漢字かな漢…"),
        ("👍🏽 👩‍👩‍👧 ❤️ " * 3, "👍 👩 ❤ 👍 👩 ❤ 👍…"),
        ("Two\nlines \x1b[31m\u202ered", "Two lines [31mred"),
    ],
)
def test_a_line_can_be_edited_after_the_title_of_a_chat(title, shown, tmux, place):
    place.client().post("/sessions/import", {"title": title, "turns": [TURN]})
    chat = tmux(NARROW)
    chat.enter("flask chat -c")
    chat.wait_for(f"> Hi\n{shown}>")
    chat.type("a line that is longer than this terminal is wide")
    chat.wait_for(f"\n{shown}> a line that is longer than this terminal is wide", is_broken=True)
    chat.press(*["BSpace"] * 30, "C-a")
    chat.enter("/rename B: ")
    chat.wait_for("\nB: a line that is l…>")
    assert f"\n{shown}> /rename B: a line that is lon\n" in chat.screen()


@pytest.mark.parametrize("home", ["", "/nowhere"])
def test_no_history_is_kept_without_a_home_directory(home, tmux):
    chat = tmux(HOME=home)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    chat.wait_for("m-1> Hello\nThe answer.\nHello · m-1>")
    chat.press("Up")
    chat.wait_for("Hello · m-1> Hello")
    chat.enter(" again")
    chat.wait_for("m-1> Hello again\nThe answer.\nHello · m-1>")


def test_python_may_lack_readline(tmux, provider, tmp_path):
    (tmp_path / "readline.py").write_text("raise ImportError")
    chat = tmux(PYTHONPATH=str(tmp_path))
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.paste("one\n  two\nthree\n", "-p")
    chat.wait_for("The answer.\none · m-1>")
    assert said(provider) == "one\n  two\nthree"
    chat.press("C-d")
    chat.wait_for("The answer.\n$")
