"""The page says what a reply is waiting for, and that it still waits. Modules:
`static/page/exchange.js`."""

import re
import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import RELEASE, Page
from provider import reply, status

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
WAITING = "article:last-child .waiting"
# Answers from this path are read once they are released.
HOLD_READING = """
    window.held = [];
    const [path] = arguments;
    const read = Response.prototype.json;
    Response.prototype.json = async function () {
        const answer = await read.call(this);
        if (this.url.includes(path)) await new Promise((resolve) => window.held.push(resolve));
        return answer;
    };
"""


def test_a_silence_in_the_middle_of_a_reply_has_a_sign_of_life(page, provider):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    page.say("Count")
    page.wait_for_text("One two", "article:last-child")
    assert not page.texts(WAITING)
    page.wait_for_text(" s", WAITING)
    page.wait(lambda: page.gap < 2)  # the sign is in view
    gate.set()
    page.wait_for_turns("Count", "One two three.")
    assert not page.texts(".waiting")


def test_a_lost_connection_has_a_sign_of_life_until_there_is_text(browser, server, provider, proxy):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    page = Page(browser, server, proxy.url).enter()
    page.say("Count")
    page.wait_for_text("One two", "article:last-child")
    proxy.passes.clear()
    proxy.cut()
    page.wait_for_text("The connection is lost", "#connection")
    page.wait(lambda: page.texts(WAITING))
    proxy.passes.set()
    page.wait(lambda: page.text("#connection") == "")
    assert page.texts(WAITING)
    gate.set()
    page.wait_for_turns("Count", "One two three.")
    assert not page.texts(".waiting")


def test_an_answer_from_before_a_loss_does_not_mean_that_the_connection_is_back(
    browser, server, provider, proxy
):
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three.")]
    page = Page(browser, server, proxy.url).enter()
    page.wait_for_text("No chats yet.")  # which is an answer from the same path
    page.driver.execute_script(HOLD_READING, "sessions?")
    page.say("Count")
    page.wait_for_text("One two", "article:last-child")
    page.wait(lambda: page.run("window.held.length"))
    proxy.passes.clear()
    proxy.cut()
    page.wait_for_text("The connection is lost", "#connection")
    page.run(RELEASE)
    page.wait(lambda: page.titles == ["Count"])
    assert "The connection is lost" in page.text("#connection")
    proxy.passes.set()
    gate.set()
    page.wait_for_turns("Count", "One two three.")
    assert page.text("#connection") == ""


def test_a_message_without_an_answer_is_sent_again_after_a_while_and_answered_once(page, provider):
    """It has arrived, but its answer hangs."""
    page.driver.execute_script("""
        const wait = setTimeout, ask = fetch;
        window.setTimeout = (run, time) => wait(run, time / 20);
        window.count = 0;
        window.fetch = async (path, options) => {
            const answer = await ask(path, options);
            if (options.method !== "POST" || window.count++) return answer;
            const { signal } = options;
            return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        };
    """)
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert page.run("window.count") == 2 and len(provider.posts) == 1
    assert page.text("#connection") == ""


def test_a_message_that_a_busy_server_refuses_is_given_back(page, provider):
    page.driver.execute_script("""
        const ask = fetch;
        const busy = { errors: [{ status: "503", title: "Service Unavailable", detail: "Too many streams." }] };
        const answers = [Response.json(busy, { status: 503, headers: { "Retry-After": "1", "X-Request-ID": "x" } })];
        window.fetch = async (path, options) => (options.method === "POST" && answers.shift()) || ask(path, options);
    """)
    page.say("Hello")
    page.wait_for_text("Too many streams.", "#notice")
    assert page.run("document.getElementById('text').value") == "Hello" and page.is_idle
    assert page.turns == [] and provider.posts == []
    page.press(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.")


def test_a_providers_request_to_wait_is_shown_with_the_seconds(page, provider):
    provider.script = [status(429, Retry_After=3), reply("Here.")]
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    page.say("Hello")
    page.wait_for_text("The provider asks to wait", WAITING)
    [heard] = page.run("window.heard")
    assert re.fullmatch(
        r"The provider asks to wait [23] s\.", heard
    )  # on a busy machine, less is left
    page.wait_for_turns("Hello", "Here.")
    assert not page.texts(".waiting")
