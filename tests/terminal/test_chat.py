"""`flask chat`, typed into a terminal or at the end of a pipe."""

import signal
import subprocess
import threading

import pytest

from chats import PIPES, PLACE, SESSION, TURN, first_session
from client import make_token, wait_until
from provider import Provider, reply, status


def test_piped_text_is_one_message(run, alice, provider):
    text = '/retry\n\n    exit\r\n"""odd"""\n'
    done = run(text, options=["--system", "Be kind.", "--model", "m-2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    asked = provider.posts[-1].body
    assert asked["model"] == "m-2"
    message = '/retry\n\n    exit\r\n"""odd"""'
    assert [message["content"] for message in asked["messages"]] == ["Be kind.", message]
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        message,
        "The answer.",
    ]


@pytest.mark.parametrize(
    "piped, message", [("", "Sum up"), ("\n \n", "Sum up"), (" 1\n2\n", "Sum up\n\n 1\n2")]
)
def test_an_argument_and_piped_text_are_one_message(piped, message, run, alice):
    done = run(piped, options=["Sum up"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    assert alice.turns(first_session(alice))[0]["content"] == message


@pytest.mark.parametrize("piped", ["", "\n \t\n"])
def test_nothing_is_sent_if_nothing_is_piped_in(piped, run, provider):
    done = run(piped)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: There is no message: the text that was piped in is empty.\n"
    assert not provider.requests


def test_an_argument_may_be_a_command(run, alice, provider):
    provider.script = [reply("One ", stop="length"), reply("two."), reply("Anew.")]
    assert run(options=["Count"]).stdout == "One \n"
    for command, answer in (("/continue", "two."), ("/retry", "Anew.")):
        done = run(options=["-c", command])
        assert (done.returncode, done.stdout) == (0, answer + "\n")
    assert run(options=["/model"]).stdout.splitlines()[-2:] == ["  m-1", "  m-2"]
    assert "/retry" in run(options=["/?"]).stdout
    done = run(options=["/tmp is full"])
    assert (done.returncode, done.stdout) == (1, "") and "was not sent" in done.stderr
    assert run(options=[" /tmp is full"]).returncode == 0
    assert run(options=["/etc/hosts is odd"]).returncode == 0
    assert [session["title"] for session in alice.get("/sessions").json()["data"][:2]] == [
        "/etc/hosts is odd",
        "/tmp is full",
    ]


def test_the_last_session_can_be_continued(run, alice, server):
    session = alice.create("Hello")
    alice.create("Another")
    alice.post(f"/sessions/{session['id']}/messages", {"content": "Once more"})
    assert run(options=["-c", "And again"]).stdout == "The answer.\n"
    assert [turn["content"] for turn in alice.turns(session)][::2] == [
        "Hello",
        "Once more",
        "And again",
    ]
    token = make_token("https://github.com/nobody-yet")
    done = run(options=["--continue", "Hello"], PARLEY_TOKEN=token)
    assert (done.returncode, done.stdout) == (0, "The answer.\n")
    assert done.stderr == "There is no chat yet: this is a new one.\n"


def test_words_are_shown_as_they_come(terminal, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "two\u2028", gates[1], "👩‍👩‍👧 ", gates[2], "four.")]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Count\n")
    for word, gate in zip(["One ", "two\u2028", "👩‍👩‍👧 "], gates, strict=True):
        chat.wait_for(word)
        gate.set()
    chat.wait_for("four.\r\nCount · m-1> ")
    chat.type("\x04")
    assert chat.process.wait(10) == 0


def stopped(terminal):
    """A chat whose reply was stopped after its first words."""
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Tell me a story\n")
    chat.wait_for("Once upon")
    chat.press_ctrl_c()
    chat.wait_for("[stopped] /continue goes on.\r\nTell me a story · m-1> ")
    return chat


def test_ctrl_c_stops_the_reply_and_the_chat_continues(terminal, alice, provider):
    provider.script = [reply("Once upon ", threading.Event()), reply("The end.")]
    chat = stopped(terminal)
    assert alice.turns(first_session(alice))[1]["status"] == "interrupted"
    assert provider.posts[0].hung_up.wait(5)
    chat.type("Never")
    chat.wait_for("Never")
    chat.press_ctrl_c()  # it only drops the line
    chat.wait_for("> ")
    chat.press_ctrl_c()
    chat.wait_for("Ctrl-C again, or Ctrl-D, leaves.\r\nTell me a story · m-1> ")
    chat.type("/retry\n")
    chat.wait_for("The end.\r\nTell me a story · m-1> ")
    chat.press_ctrl_c()
    chat.wait_for("leaves.\r\nTell me a story · m-1> ")
    chat.press_ctrl_c()
    assert chat.process.wait(10) == 0
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == [
        "Tell me a story",
        "The end.",
    ]


def test_continue_is_offered_only_if_the_reply_can_be_continued(terminal, provider):
    """A retry that is stopped gives way to the complete reply before it."""
    provider.script = [
        reply(threading.Event()),
        reply("Whole."),
        reply("Half ", threading.Event()),
    ]
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Hello\n")
    provider.wait_for_request(1)
    chat.press_ctrl_c()
    chat.wait_for("[stopped]\r\n")
    chat.wait_for("m-1> ")
    chat.type("Hello\n")
    chat.wait_for("Whole.\r\nHello · m-1> ")
    chat.type("/retry\n")
    chat.wait_for("Half ")
    chat.press_ctrl_c()
    chat.wait_for("[stopped]\r\nHello · m-1> ")


def test_ctrl_c_is_no_error_if_no_reply_is_in_progress(terminal):
    server = Provider()
    session = status(200, PLACE | {"turns": [TURN]})
    server.models = lambda request: (
        iter([threading.Event()]) if request.path == "/sessions" else session(request)
    )
    server.default = status(409, {"errors": [{"detail": "No reply is in progress."}]})
    chat = terminal("--session", SESSION, url=server.url)
    chat.wait_for("text\r\nT · m> ")
    chat.type("/list\n")
    wait_until(lambda: server.requests[-1].path == "/sessions")
    chat.press_ctrl_c()
    chat.wait_for(" [stopped]\r\nT · m> ")
    server.close()
    assert server.posts and "Error" not in chat.screen


def test_ctrl_c_twice_leaves_a_reply(terminal, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    chat = stopped(terminal)
    chat.press_ctrl_c()
    assert chat.process.wait(10) == 0


def test_ctrl_c_leaves_while_a_reply_is_being_cancelled(terminal, proxy, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    chat.type("Tell me a story\n")
    chat.wait_for("Once upon")
    proxy.passes.clear()
    chat.press_ctrl_c()
    chat.press_ctrl_c()
    chat.wait_for("Aborted!")
    assert chat.process.wait(10) == 1
    proxy.passes.set()
    wait_until(lambda: alice.turns(first_session(alice))[1]["status"] == "interrupted")


def test_ctrl_c_ends_one_question(command, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    with subprocess.Popen(**command("Tell me a story"), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(10) == "Once upon "
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.stderr.read()) == (
            "\n",
            " [stopped] /continue goes on.\n",
        )
    assert process.returncode == 1
    assert alice.turns(first_session(alice))[1]["status"] == "interrupted"


def test_a_reply_is_resumed_if_its_connection_breaks(command, proxy, provider):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    with subprocess.Popen(**command("Count", url=proxy.url), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(8) == "One two "
        proxy.cut()
        gate.set()
        assert (process.stdout.read(), process.stderr.read()) == (
            "three.\n",
            "No connection. Trying again.\n",
        )
    assert b"Last-Event-ID" in proxy.sent
    assert len(provider.posts) == 1


BREAKS = {"before the answer": b"", "behind its status": b"201", "within its headers": b"Locat"}


BREAKS |= {"behind its headers": b"\r\n\r\n"}


@pytest.mark.parametrize("behind", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize(
    "pieces", [("One ", "two."), ("One ", 1, "two.")], ids=["a quick reply", "a slow reply"]
)
def test_a_message_whose_answer_is_lost_is_answered_once(
    behind, pieces, terminal, proxy, alice, provider
):
    provider.script = [reply(*pieces)]
    chat = terminal(url=proxy.url)
    chat.wait_for("> ")
    proxy.cut_behind = behind
    chat.type("Count\n")
    chat.wait_for("No connection. Trying again.\r\nOne two.\r\nCount · m-1> ")
    assert len(provider.posts) == 1
    assert [turn["content"] for turn in alice.turns(first_session(alice))] == ["Count", "One two."]
