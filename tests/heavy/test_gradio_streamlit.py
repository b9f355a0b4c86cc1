"""examples/gradio and examples/streamlit in Chromium, each in an environment of its own, through
reloads, kills and restarts. Each word comes once."""

import os
import re
import subprocess
import threading

import pytest
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.keys import Keys

from browser import Page
from client import ALICE, make_token, wait_until
from packages import UV
from product import ROOT
from provider import REFUSED, fails, reply
from servers import Host, free_port, wait_until_up

# A page does the same on both.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
    "STREAMLIT_SERVER_HEADLESS": "true",
}
TURNS = "[data-testid=user], [data-testid=bot], [data-testid=stChatMessageContent]"
FIELD = """[...document.querySelectorAll("textarea")]
    .find((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled)"""


class App:
    """The process of an example, which can be started again at the same port."""

    def __init__(self, name, python, home, parley):
        self.folder = ROOT / "examples" / name
        self.command = [python, *(["-m", "streamlit", "run"] if name == "streamlit" else [])]
        self.log, self.port = home / f"{name}.log", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ports = dict.fromkeys(("GRADIO_SERVER_PORT", "STREAMLIT_SERVER_PORT"), str(self.port))
        self.environment = SETTINGS | ports | {"PARLEY_URL": parley, "HOME": str(home)}
        self.process = None

    def start(self, token=None):
        own = {"PATH": os.environ["PATH"], "PARLEY_TOKEN": token or make_token(ALICE)}
        with self.log.open("ab") as log:
            how = {"cwd": self.folder, "env": self.environment | own, "stdout": log, "stderr": log}
            self.process = subprocess.Popen([*self.command, "chat.py"], **how)
        wait_until_up(self.url, self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def port():
    """The port of the server that the examples use."""
    return free_port()


@pytest.fixture(scope="module", params=["gradio", "streamlit"])
def app(request, port, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    python = home / "environment" / "bin" / "python"
    install = [UV, "pip", "install", "--quiet", "--python", python]
    pins = ROOT / "examples" / request.param / "requirements.txt"
    for words in (
        [UV, "venv", "--quiet", home / "environment"],
        [*install, "--require-hashes", "-r", pins],
        [*install, ROOT / "clients" / "python"],
    ):
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        if done.returncode and re.search("Failed to fetch|error sending request", done.stderr):
            pytest.skip("there is no network")
        assert done.returncode == 0, done.stderr
    app = App(request.param, python, home, f"http://127.0.0.1:{port}")
    app.start()
    yield app
    app.kill()


class Home(Host):
    """The server of the examples."""

    def turns(self):
        """The texts of the latest session."""
        client = self.server.client()
        return [turn["content"] for turn in client.turns(client.get("/sessions").json()["data"][0])]


@pytest.fixture
def host(tmp_path, port, new_database, provider):
    host = Home(
        tmp_path,
        port,
        DATABASE_URL=new_database(),
        DEFAULT_MODEL="m-1",
        OPENAI_BASE_URL=provider.url + "/v1",
        WEB_CONCURRENCY=1,
    )
    yield host
    host.end()


@pytest.fixture
def browser(driver):
    """Both libraries log to its console that a connection is lost: so leave their page before their
    server ends, else that is in the log of whichever test comes next."""
    yield driver
    driver.get("about:blank")
    driver.get_log("browser")


class Chat(Page):
    """The page of an example."""

    @property
    def turns(self):
        texts = self.run(
            "[...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", TURNS
        )
        return [re.sub(r"\s+", " ", text).strip() for text in texts]

    def shows_turns(self, *turns, seconds=20):
        self.wait(lambda: self.turns == list(turns), f"{turns} did not come", seconds)

    @property
    def is_idle(self):
        return self.run(f"Boolean({FIELD})")

    def say(self, text):
        def has_focus():
            try:
                return self.run(f"({FIELD}).focus() || true")
            except JavascriptException:  # the field is not there, or disabled
                return False

        self.wait(has_focus, "there is no field")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})
        self.press(Keys.ENTER)

    def stop(self):
        if self.shows(".stop-button"):  # Gradio's has no name
            self.find(".stop-button").click()
        else:
            self.click("Stop the reply")

    def wait_for_url(self):
        self.wait(lambda: "?session=" in self.driver.current_url)


@pytest.fixture
def chat(browser, app, host):
    return Chat(browser, host.server, app.url)


def test_each_word_comes_once_through_reload_kill_and_restart(chat, app, host, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [
        reply("One ", gates[0], "two ", gates[1]),
        reply("three ", gates[2], "four."),
    ]
    chat.say("Count")
    chat.shows_turns("Count", "One")
    chat.wait_for_url()
    chat.driver.refresh()
    chat.shows_turns("Count", "One")
    gates[0].set()
    chat.shows_turns("Count", "One two")
    host.server.kill()
    host.start()
    chat.shows_turns("Count", "One two three", seconds=40)
    app.kill()
    app.start()
    # Both pages find the new process by themselves.
    chat.shows_turns("Count", "One two three", seconds=40)
    gates[2].set()
    chat.wait_for_turns("Count", "One two three four.")
    assert not chat.shows("[aria-label=Retry], [aria-label=Undo]")  # they would not reach Parley
    assert host.turns() == chat.turns
    assert len(provider.posts) == 2
    provider.script = [reply("Five ", threading.Event()), reply("six.")]
    chat.say("More")  # this reply is not followed after a reload, but received with its message
    chat.shows_turns("Count", "One two three four.", "More", "Five")
    wait_until(lambda: host.turns()[-1] == "Five ")
    host.server.kill()
    host.start()
    chat.shows_turns("Count", "One two three four.", "More", "Five six.", seconds=40)
    assert host.turns() == chat.turns
    chat.wait(lambda: chat.is_idle)


def test_the_page_is_reloaded_while_the_server_is_away(chat, host, provider):
    provider.script = [reply("One ", threading.Event()), reply("two.")]
    chat.say("Count")
    chat.shows_turns("Count", "One")
    chat.wait_for_url()
    host.server.kill()
    chat.driver.refresh()
    chat.wait_for_text("The server does not answer.", "body")
    host.start()
    chat.shows_turns("Count", "One two.", seconds=40)
    assert host.turns() == chat.turns


def test_two_tabs_show_one_chat_and_a_new_chat_is_another(chat, app, host, provider):
    gates = [threading.Event() for _ in range(2)]
    provider.script = [reply("One ", gates[0], "two."), reply("Three ", gates[1], "four.")]
    chat.say("Hello")
    chat.wait_for_url()
    driver = chat.driver
    first, url = driver.current_window_handle, driver.current_url
    driver.switch_to.new_window("tab")
    driver.get(url)
    chat.shows_turns("Hello", "One")
    gates[0].set()
    chat.wait_for_turns("Hello", "One two.")
    second = driver.current_window_handle
    driver.switch_to.window(first)
    chat.wait_for_turns("Hello", "One two.")
    chat.say("More")
    chat.shows_turns("Hello", "One two.", "More", "Three")
    driver.switch_to.window(second)
    chat.say("And more")
    chat.wait_for_text("A reply is in progress.", "body")
    gates[1].set()
    driver.close()
    driver.switch_to.window(first)
    chat.wait_for_turns("Hello", "One two.", "More", "Three four.")
    assert host.turns() == chat.turns
    chat.click("New chat")
    chat.wait_for_turns()
    chat.say("Other")
    chat.wait_for_turns("Other", "The answer.")
    assert host.turns() == chat.turns
    chat.wait_for_url()
    assert driver.current_url != url
    driver.get(url)
    chat.wait_for_turns("Hello", "One two.", "More", "Three four.")


@pytest.mark.parametrize("app", ["gradio"], indirect=True)
def test_clear_begins_a_new_chat(chat, provider):
    chat.say("Hello")
    chat.wait_for_turns("Hello", "The answer.")
    chat.wait_for_url()
    chat.click("Clear")
    chat.wait(lambda: chat.turns == [] and "session" not in chat.driver.current_url)
    chat.say("Other")
    chat.wait_for_turns("Other", "The answer.")
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == ["Other"]


def test_a_reply_is_stopped(chat, host, provider):
    gate = threading.Event()
    # Streamlit notices a click when the next word comes.
    words = ["two ", 0.2] * 100
    provider.script = [reply("One ", gate, *words), reply("Three.")]
    chat.say("Hello")
    chat.shows_turns("Hello", "One")
    chat.stop()
    gate.set()
    assert provider.wait_for_request().hung_up.wait(5)
    chat.wait(lambda: chat.is_idle)
    chat.say("More")
    chat.wait(lambda: chat.turns[-2:] == ["More", "Three."] and chat.is_idle)


def test_a_failed_reply_says_why_also_after_a_reload(chat, provider):
    gate = threading.Event()
    provider.script, provider.default = [fails("Some ", gate)], REFUSED
    chat.say("Hello")
    chat.shows_turns("Hello", "Some")
    gate.set()
    chat.wait(lambda: chat.turns[-1:] and chat.turns[-1].endswith("It is odd.") and chat.is_idle)
    turns = chat.turns
    assert turns[0] == "Hello" and turns[1].startswith("Some ")
    chat.driver.refresh()
    chat.wait_for_turns(*turns)


def test_a_refused_token_is_told_as_text(chat, app):
    app.kill()
    app.start(token="nonsense")
    try:
        chat.driver.get(app.url)
        chat.say("Hello")
        chat.wait_for_text("The token is incomplete", "body")
        assert "nonsense" not in app.log.read_text()
    finally:
        app.kill()
        app.start()
