"""examples/usechat, a React page with the AI SDK's useChat, in Chromium, through reloads, kills
and deploys. Each word comes once."""

import os
import subprocess
import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import Page
from client import make_token, wait_until
from pictures import png
from product import ROOT
from provider import REFUSED, fails, reply, thought
from raw_tables import tables_of
from servers import Host, free_port, npm_folder, wait_until_up

# A page does the same on both.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

EXAMPLE = ROOT / "examples" / "usechat"
VITE = "node_modules/.bin/vite"
# React's strict mode mounts, unmounts and mounts each component again, in development only.
BUILT, IN_DEVELOPMENT = "built", "in development"
both_ways = pytest.mark.parametrize("page_url", [BUILT, IN_DEVELOPMENT], indirect=True)


class Vite:
    """What serves the page to browsers: its development server, or one for the built files."""

    def __init__(self, *words, **environment):
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        command = [VITE, *words, "--host", "127.0.0.1", "--port", str(self.port), "--strictPort"]
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=EXAMPLE, env=os.environ | environment, **how)

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def port():
    """The address of the server that the page uses."""
    return free_port()


@pytest.fixture(scope="module")
def page_url(request, port, tmp_path_factory):
    npm_folder(EXAMPLE)
    environment = {"VITE_PARLEY": f"http://127.0.0.1:{port}"}
    words, way = [], getattr(request, "param", BUILT)
    if way == BUILT:
        words = ["--outDir", str(tmp_path_factory.mktemp("built"))]
        how = {"cwd": EXAMPLE, "env": os.environ | environment, "check": True}
        subprocess.run([VITE, "build", *words, "--emptyOutDir"], **how)
        words = ["preview", *words]
    vite = Vite(*words, **environment)
    try:
        wait_until_up(vite.url, vite.process)
        yield vite.url
    finally:
        vite.end()


class Home(Host):
    """The page's server, which can be killed and deployed."""

    @property
    def client(self):
        return self.server.client()

    def kill(self):
        self.server.kill()
        with tables_of(self.settings["DATABASE_URL"]) as tables:  # it would lapse, but later
            tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")

    def turns(self):
        [session] = self.client.get("/sessions").json()["data"]
        return [turn["content"] for turn in self.client.turns(session)]


@pytest.fixture
def host(tmp_path, port, page_url, new_database, provider):
    host = Home(
        tmp_path,
        port,
        ALLOWED_ORIGINS=page_url,
        DATABASE_URL=new_database(),
        DEFAULT_MODEL="m-1",
        GUNICORN_CMD_ARGS="--graceful-timeout 3",
        MAX_CONTENT_LENGTH=100_000,
        OPENAI_BASE_URL=provider.url + "/v1",
        WEB_CONCURRENCY=1,
    )
    yield host
    host.server.stop()


class Chat(Page):
    """The page of the example."""

    def __init__(self, driver, server, url, token=None):
        super().__init__(driver, server, url)
        self.wait_for("[aria-label=Token]")
        self.type("Token", token or server.client().token)

    def wait_for(self, selector):
        self.wait(lambda: self.shows(selector), f"{selector} did not come")

    def type(self, label, text):
        self.wait_for(f"[aria-label={label}]")
        field = self.find(f"[aria-label={label}]")
        field.send_keys(Keys.CONTROL, "a")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})
        field.send_keys(Keys.ENTER)

    def say(self, text):
        self.type("Message", text)

    def load_again(self):
        self.driver.refresh()
        self.wait_for("[aria-label=Message]")

    @property
    def turns(self):
        return self.texts("article")

    @property
    def is_idle(self):
        return self.run("!document.querySelector('form button').disabled")

    @property
    def error(self):
        return self.text("[role=alert]")


@pytest.fixture
def browser(driver):
    """Its console has no warnings. In development, Vite and React also log there what they do."""
    yield driver
    driver.execute_script("sessionStorage.clear(); localStorage.clear()")
    told = [entry for entry in driver.get_log("browser") if entry["source"] != "network"]
    assert [entry for entry in told if entry["level"] in ("WARNING", "SEVERE")] == []


@pytest.fixture
def chat(browser, page_url, host):
    return Chat(browser, host.server, page_url)


def test_a_message_and_a_further_one_are_answered_word_by_word(chat, host, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two."), reply("Three.")]
    chat.say("Hello")
    chat.wait(lambda: chat.turns == ["Hello", "One "])
    gate.set()
    chat.wait_for_turns("Hello", "One two.")
    chat.say("More")
    chat.wait_for_turns("Hello", "One two.", "More", "Three.")
    assert host.turns() == chat.turns
    chat.click("New chat")
    chat.wait(lambda: chat.turns == [] and chat.is_idle)
    chat.driver.back()
    chat.wait_for_turns("Hello", "One two.", "More", "Three.")


def test_thinking_is_there_when_the_user_opens_it(chat, provider):
    gate = threading.Event()
    provider.script = [reply(thought(reasoning="Hm."), gate, "One.")]
    chat.say("Hello")
    chat.wait(lambda: chat.text("details") == "Thinking")
    gate.set()
    chat.wait(lambda: chat.text("article.assistant") == "Thinking\nOne.")
    chat.find("summary").click()
    chat.wait(lambda: chat.text("article.assistant") == "Thinking\nHm.\nOne.")


@both_ways
def test_each_word_comes_once_through_reload_kill_and_deploy(chat, host, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [reply("One ", gates[0], "two ", gates[1]), reply("three ", gates[2])]
    provider.script += [reply("four.")]
    chat.say("Count")
    chat.wait(lambda: chat.turns == ["Count", "One "])
    chat.load_again()
    chat.wait(lambda: chat.turns == ["Count", "One "], "the reply is not followed")
    gates[0].set()
    chat.wait(lambda: chat.turns == ["Count", "One two "])
    wait_until(lambda: host.turns() == chat.turns)
    host.kill()
    host.start()
    chat.wait(lambda: chat.turns == ["Count", "One two three "], "it did not go on", 40)
    wait_until(lambda: host.turns() == chat.turns)
    host.server.process.terminate()  # as a deploy does
    host.server.process.wait(30)
    host.start()
    chat.wait(lambda: chat.turns == ["Count", "One two three four."], "it did not go on", 40)
    chat.wait(lambda: chat.is_idle)
    assert host.turns() == chat.turns
    assert len(provider.posts) == 3
    chat.load_again()
    chat.wait_for_turns("Count", "One two three four.")


def test_the_page_is_reloaded_while_the_server_is_away(chat, host, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate), reply("two.")]
    chat.say("Count")
    chat.wait(lambda: chat.turns == ["Count", "One "])
    wait_until(lambda: host.turns() == chat.turns)
    host.kill()
    chat.driver.refresh()
    chat.wait(lambda: chat.error.endswith("."))
    host.start()
    chat.click("Try again")
    chat.wait(lambda: chat.turns == ["Count", "One two."], "it did not come", 40)


def test_a_stopped_reply_continues_on_request(chat, host, provider):
    provider.script = [reply("One ", threading.Event()), reply("two.")]
    chat.say("Hello")
    chat.wait(lambda: chat.turns == ["Hello", "One "])
    chat.click("Stop")
    assert provider.wait_for_request().hung_up.wait(5)
    chat.wait_for_turns("Hello", "One ")
    chat.click("Continue")
    chat.wait_for_turns("Hello", "One two.")
    assert host.turns() == chat.turns


@both_ways
def test_another_chat_is_opened_and_the_reply_continues(chat, host, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    chat.say("Hello")
    chat.wait(lambda: chat.turns == ["Hello", "One "])
    chat.click("New chat")
    chat.wait(lambda: chat.turns == [])
    gate.set()
    wait_until(lambda: host.turns() == ["Hello", "One two."])
    chat.driver.back()
    chat.wait_for_turns("Hello", "One two.")


def test_the_last_message_is_answered_again_and_edited(chat, host, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three."), fails("Some "), REFUSED]
    chat.say("Hello")
    chat.wait_for_turns("Hello", "One.")
    chat.click("Answer again")
    chat.wait_for_turns("Hello", "Two.")
    chat.load_again()
    chat.click("Edit")
    chat.wait(lambda: chat.run("document.querySelector('[aria-label=Message]').value") == "Hello")
    chat.say("Servus")
    chat.wait_for_turns("Servus", "Three.")
    assert host.turns() == chat.turns
    for _ in range(2):  # the failed reply gives way to the one before it
        chat.click("Answer again")
        chat.wait(lambda: chat.error.endswith("."))
        chat.wait_for_turns("Servus", "Three.")
    assert host.turns() == chat.turns


def test_images_are_shown_and_an_edit_keeps_them(chat, host, provider, tmp_path):
    provider.script = [reply("One."), reply("Two."), reply("Three.")]
    for name, color in [("a", 0), ("b", 7)]:
        (tmp_path / f"{name}.png").write_bytes(png(64, 48, color=color))

    def widths_in(place="article.user"):
        found = f"[...document.querySelectorAll('{place} img')]"
        return chat.run(f"{found}.map((image) => image.naturalWidth)")

    def stored():
        [session] = host.client.get("/sessions").json()["data"]
        return host.client.turns(session)[0]["files"]

    field = chat.find("[type=file]")
    field.send_keys("\n".join(str(tmp_path / name) for name in ("a.png", "b.png")))
    chat.wait(lambda: widths_in("main > button") == [64, 64])
    chat.say("What?")
    chat.wait_for_turns("What?", "One.")
    chat.load_again()
    chat.wait(lambda: widths_in() == [64, 64])
    both = stored()
    assert len(both) == 2
    chat.click("Edit")
    chat.wait(lambda: widths_in("main > button") == [64, 64])
    chat.say("And now?")
    chat.wait_for_turns("And now?", "Two.")
    assert stored() == both
    chat.click("Edit")
    chat.wait_for("[aria-label='Remove image']")
    chat.find("[aria-label='Remove image']").click()
    chat.say("And this?")
    chat.wait_for_turns("And this?", "Three.")
    assert (widths_in(), stored()) == ([64], both[1:])


def test_a_refused_message_is_reported_and_can_be_rewritten(chat, host, provider):
    provider.script = [reply("One.")]
    long = "x" * 200_000
    chat.say(long)
    chat.wait(lambda: chat.error.endswith("."))
    value = "document.querySelector('[aria-label=Message]').value.length"
    chat.wait(lambda: chat.run(value) == len(long) and chat.turns == [])
    chat.say("Hello")
    chat.wait_for_turns("Hello", "One.")
    assert host.turns() == chat.turns and chat.error == ""


def test_an_unknown_user_reads_why_and_signs_in_again(browser, page_url, host, provider):
    provider.script = [reply("One.")]
    chat = Chat(browser, host.server, page_url, make_token(exp=1))
    chat.say("Hello")
    chat.wait(lambda: chat.error.endswith("."))
    chat.click("Sign out")
    chat.type("Token", host.client.token)
    chat.say("Hello")
    chat.wait_for_turns("Hello", "One.")
