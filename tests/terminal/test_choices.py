"""What a user of `flask chat` chooses for replies: model, system prompt, options."""

import pytest

from chats import first_session
from provider import reply, status


def sent(provider):
    """The choices as they were last sent to the model."""
    body = provider.posts[-1].body
    [*_, system] = [None] + [
        message["content"] for message in body["messages"] if message["role"] == "system"
    ]
    names = ("temperature", "reasoning_effort")
    return body["model"], system, *(body.get(name) for name in names)


@pytest.fixture
def talk(terminal):
    """A function that types a line into a chat and waits for this text after it."""
    chat = terminal()
    chat.wait_for("m-1> ")

    def talk(line, answer="", model="m-1"):
        chat.type(line + "\n")
        chat.wait_for("\r\n" + "".join(f"{each}\r\n" for each in answer.splitlines()))
        chat.wait_for(f"{model}> ")

    return talk


REST = "\ntop_p default\nseed default\nstop default"
ALL = "temperature {}\nmax_tokens {}\nreasoning_effort {}" + REST


def test_options_have_a_short_form(run, provider):
    assert run(options=["-m", "m-2", "-s", "Be kind.", "Hello"]).stdout == "The answer.\n"
    assert sent(provider) == ("m-2", "Be kind.", None, None)


def test_choices_before_the_first_message_are_sent_with_it(talk, provider, alice):
    talk("/set", ALL.format("default", "default", "default"))
    talk("/set temperature 0.7", "temperature 0.7")
    talk("/set max_tokens 500", "max_tokens 500")
    talk("/set reasoning_effort 5", "reasoning_effort 5")
    talk("/system", "There is no system prompt.")
    talk("/system Be  kind.", "Applies from the next reply.")
    talk("/system", "Be  kind.")
    talk("/set", ALL.format("0.7", "500", "5"))
    assert not provider.posts
    talk("Hello", "The answer.")
    assert sent(provider) == ("m-1", "Be  kind.", 0.7, "5")
    session = alice.get(f"/sessions/{first_session(alice)['id']}").json()
    assert session["options"] == {"temperature": 0.7, "max_tokens": 500, "reasoning_effort": "5"}


@pytest.mark.parametrize(
    "typed, texts, shown",
    [
        ("END", ["END"], '"END"'),
        ('"END" "### x" a"b', ["END", "### x", 'a"b'], '"END" "### x" "a\\"b"'),
        (r'"\n\n" "\"" "\x"', ["\n\n", '"', r'"\x"'], r'"\n\n" "\"" "\"\\x\""'),
        ('"default"', ["default"], '"default"'),
    ],
)
def test_stop_texts_may_be_in_quotes(talk, provider, typed, texts, shown):
    talk(f"/set stop {typed}", f"stop {shown}")
    talk("Hello", "The answer.")
    assert provider.posts[-1].body["stop"] == texts
    talk("/set stop default", "stop default")
    talk("Again", "The answer.")
    assert "stop" not in provider.posts[-1].body


def test_later_choices_apply_from_the_next_reply_on(talk, provider):
    talk("Hello", "The answer.")
    assert sent(provider) == ("m-1", None, None, None)
    talk("/set temperature 1", "temperature 1")
    talk("/set reasoning_effort low", "reasoning_effort low")
    talk("/system Be brief.", "Applies from the next reply.")
    talk("/model m-2", model="m-2")
    talk("/set", ALL.format("1", "default", "low"), "m-2")
    talk("/system", "Be brief.", "m-2")
    talk("Again", "The answer.", "m-2")
    assert sent(provider) == ("m-2", "Be brief.", 1, "low")


def test_a_choice_can_be_taken_back(talk, provider):
    for _ in range(2):  # before there is a session, and in it
        talk("/set temperature 1", "temperature 1")
        talk("/system Be brief.", "Applies from the next reply.")
        talk("/set temperature default", "temperature default")
        talk("/system default", "Applies from the next reply.")
        talk("/system", "There is no system prompt.")
        talk("Hello", "The answer.")
        assert sent(provider) == ("m-1", None, None, None)


def test_a_new_session_begins_with_the_choices(talk, provider):
    talk("Hello", "The answer.")
    talk("/set temperature 1", "temperature 1")
    talk("/system Be brief.", "Applies from the next reply.")
    talk("/new", "Your next message begins a new chat.")
    talk("/set temperature", "temperature 1")
    talk("Hello", "The answer.")
    assert sent(provider) == ("m-1", "Be brief.", 1, None)


def test_a_system_prompt_may_have_several_lines(terminal, provider):
    chat = terminal()
    chat.wait_for("m-1> ")
    chat.type('/set system """Be kind.\n')
    chat.wait_for("... ")
    chat.type('  Be "brief".\n')
    chat.wait_for("... ")
    chat.type('"""\n')
    chat.wait_for("Applies from the next reply.\r\nm-1> ")
    chat.type("/system\n")
    chat.wait_for('Be kind.\r\n  Be "brief".\r\nm-1> ')
    chat.type("/system One\nTwo\n")  # as it is pasted
    chat.wait_for("Applies from the next reply.\r\nm-1> ")
    chat.type("Hello\n")
    chat.wait_for("The answer.\r\nHello · m-1> ")
    assert sent(provider)[1] == "One\nTwo"


BAD = {
    "/set temperature 9": "temperature: Give a number from 0 to 2.",
    "/set temperature warm": "temperature: Give a number from 0 to 2.",
    "/set temperature 1e999": "temperature: Give a number from 0 to 2.",
    "/set max_tokens 5.5": "max_tokens: Give a whole number from 1 to 16384.",
    "/set max_tokens 007": "max_tokens: Give a whole number from 1 to 16384.",
    "/set reasoning_effort very low": "reasoning_effort: Give one word in ASCII, such as low.",
    "/set seed 9007199254740992": (
        "seed: Give a whole number from -9007199254740991 to 9007199254740991."
    ),
}


@pytest.mark.parametrize("line", BAD)
def test_the_server_says_what_is_wrong_with_a_value(line, talk, provider):
    name, value = line.split(" ", 2)[1:]
    talk(line, f"{name} {value}")
    talk("Hello", f"Error: {BAD[line]}")  # with the first message, which was not stored
    talk(f"/set {name} default", f"{name} default")
    talk("Hello", "The answer.")
    talk(line, f"Error: {BAD[line]}")
    talk(f"/set {name}", f"{name} default")


def test_an_option_that_a_provider_refuses_is_named(talk, provider):
    refusal = {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}
    provider.script = [status(400, refusal), reply("Yes.")]
    talk("/set temperature 1", "temperature 1")
    name = f"127.0.0.1:{provider.port}"
    said = f"The provider {name} refuses the option temperature: Unsupported value: 'temperature'"
    talk("Hello", f"Error: {said}")
    talk("/set temperature default", "temperature default")
    talk("Hello", "Yes.")


def test_an_unknown_option_is_reported(talk, provider):
    talk("/set", ALL.format("default", "default", "default"))
    there_are = "There are: temperature, max_tokens, reasoning_effort, top_p, seed, stop."
    talk("/set top_k 1", f"Error: There is no such option. {there_are}")
    talk("/model m-1 m-2", "Error: A model's id has no spaces.")


def test_ollamas_commands_choose_too(talk, provider):
    talk("/set system Be kind.", "Applies from the next reply.")
    talk("/set parameter temperature 0.7", "temperature 0.7")
    shown = "model m-1\n" + ALL.format("0.7", "default", "default") + "\nsystem Be kind."
    talk("/show", shown)
    talk("Hello", "The answer.")
    assert sent(provider) == ("m-1", "Be kind.", 0.7, None)
    talk("/set system default", "Applies from the next reply.")
    talk("/show", shown.replace("Be kind.", "default"))


def test_an_old_session_keeps_its_choices(run, alice, provider):
    session = alice.create("Hello", system="Be kind.", options={"temperature": 0})
    done = run(options=["-c", "/set"])
    assert done.stdout == ALL.format("0", "default", "default") + "\n"
    assert run(options=["-c", "/system"]).stdout == "Be kind.\n"
    done = run(options=["-c", "/set temperature 2"])
    assert (done.returncode, done.stdout) == (0, "temperature 2\n")
    options = alice.get(f"/sessions/{session['id']}").json()["options"]
    assert options == {"temperature": 2}
