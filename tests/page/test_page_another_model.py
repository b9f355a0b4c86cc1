"""Another model answers the same message, in a copy of the chat."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from provider import reply, status

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

COPIED = "This continues in a copy of the chat. Back to the original"
ASKS = "[...document.querySelectorAll('[value=ask]')].filter((e) => e.checkVisibility()).length"
FOCUSED = "document.activeElement.ariaLabel ?? document.activeElement.textContent"


@pytest.fixture
def talked(page, talk):
    """The page with a chat of two messages and their replies by m-1; m-2 is there, too."""
    page.wait_for_text("m-1", "#model")
    return talk()


def open_menu(page, place):
    """Open the menu of the reply at this position, counted from 1."""
    page.find(f"article:nth-child({place}) [value=ask]").click()
    page.wait(lambda: page.shows("#models"))


def ask(page, place, model="m-2"):
    open_menu(page, place)
    page.click(model)


def copy_of(page):
    (copy,) = [
        each
        for each in page.user.get("/sessions").json()["data"]
        if each["id"] != page.original["id"]
    ]
    return copy


def test_a_message_is_answered_by_another_model_in_a_copy(talked, provider):
    page = talked
    assert page.run(ASKS) == 2
    gate = threading.Event()
    provider.script = [reply("Another ", gate, "two.")]
    open_menu(page, 4)
    assert page.texts("#models button") == ["m-2"]
    page.click("m-2")
    page.wait_for_text("Another", "article:last-child")
    assert page.turns[:3] == ["First", "One.", "Second"]
    assert page.text("#notice.faint") == COPIED
    gate.set()
    page.wait_for_turns("First", "One.", "Second", "Another two.")
    assert page.texts("article h2 bdi") == ["You", "m-1", "You", "m-2"]
    asked = provider.posts[-1].body
    assert asked["model"] == "m-2"
    assert [message["content"] for message in asked["messages"]] == ["First", "One.", "Second"]
    assert page.run("document.getElementById('model').value") == "m-2"
    page.click("Back to the original")
    page.wait_for_turns("First", "One.", "Second", "Two.")
    assert (
        page.text("#notice") == "" and page.run("document.getElementById('model').value") == "m-1"
    )
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Another two.")
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.")


def test_the_menu_of_an_earlier_reply_works_by_the_keyboard(talked, provider):
    page = talked
    page.driver.execute_script("document.querySelector('article:nth-child(2) [value=ask]').focus()")
    page.press(Keys.ENTER)
    page.wait(lambda: page.run(FOCUSED) == "m-2")
    page.press(Keys.ESCAPE)
    assert page.run(FOCUSED) == "Ask another model" and not page.shows("#models")
    page.press(Keys.ENTER)
    page.wait(lambda: page.run(FOCUSED) == "m-2")
    page.press(Keys.ENTER)
    page.wait_for_turns("First", "The answer.")
    assert page.focused == "text"
    assert len(provider.posts[-1].body["messages"]) == 1
    assert [turn["content"] for turn in page.user.turns(page.original)] == [
        "First",
        "One.",
        "Second",
        "Two.",
    ]


def test_a_reply_has_no_such_button_if_there_is_no_other_model(browser, server_with, provider):
    provider.models = ["only"]
    page = Page(browser, server_with(DEFAULT_MODEL="only")).enter()
    page.wait_for_text("only", "#model")
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    assert page.names("article:last-child footer button")[:2] == ["Copy", "Retry"]
    assert page.run(ASKS) == 0


def test_replies_that_are_shown_before_the_models_are_listed_get_the_button(talked):
    page = talked
    script = {"source": f"(function () {{{HOLD}}})('models')"}
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        page.driver.refresh()
        page.wait_for_turns("First", "One.", "Second", "Two.")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert page.run(ASKS) == 0
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run(ASKS) == 2)


def test_a_model_that_is_refused_leaves_a_copy_with_the_message(talked, provider):
    page = talked
    page.driver.execute_script("""
        const ask = fetch;
        window.fetch = (path, options) =>
            ask(path, options.body?.includes?.("m-2") ? { ...options, body: '{"model": "echo"}' } : options);
    """)
    ask(page, 2)
    page.wait_for_turns("First")
    page.wait_for_text("GET /models lists what this server serves", "#notice:not(.faint)")
    page.click("Retry")
    page.wait_for_turns("First", "The answer.")
    assert provider.posts[-1].body["model"] == "m-1"


def test_a_reply_that_is_refused_leaves_a_copy_with_the_message(browser, server_with, provider):
    page = Page(browser, server_with(TOKEN_LIMIT="20/month")).enter()
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    ask(page, 2)
    page.wait_for_text("You have used 22 of 20 tokens", "#notice:not(.faint)")
    page.wait_for_turns("First")
    assert page.shows("article:last-child .again")
    assert page.run("document.getElementById('model').value") == "m-2"


def test_a_failed_reply_can_be_asked_of_another_model(page, provider):
    provider.script = [status(400, {"error": {"message": "No."}})]
    page.say("First")
    page.wait_for_text("No.", "article:last-child")
    ask(page, 2)
    page.wait_for_turns("First", "The answer.")
    assert provider.posts[-1].body["model"] == "m-2"


def test_a_reply_that_follows_another_is_answered_from_its_message(browser, server, provider):
    page = Page(browser, server)
    kinds = ["user", "assistant", "assistant", "user", "assistant"]
    turns = [{"kind": kind, "content": f"turn {at}"} for at, kind in enumerate(kinds)]
    page.user.post("/sessions/import", {"title": "Imported", "turns": turns})
    page.enter()
    page.click("Imported")
    page.wait(lambda: len(page.turns) == 5)
    open_menu(page, 3)
    page.click("m-2")
    page.wait_for_turns("turn 0", "The answer.")
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == ["turn 0"]


def test_another_chat_that_is_opened_meanwhile_stays(talked, provider):
    page = talked
    posts = len(provider.posts)
    page.driver.execute_script(HOLD, "fork")
    ask(page, 2)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.driver.execute_script(RELEASE)
    page.wait(lambda: sorted(page.titles) == ["First", "First (2)"])
    assert page.turns == [] and len(provider.posts) == posts


def test_a_reply_is_asked_for_once_if_its_answers_are_lost(talked, provider):
    page = talked
    posts = len(provider.posts)
    page.driver.execute_script("""
        const ask = fetch;
        const lost = new Set(["POST", "PATCH"]);
        window.fetch = async (path, options) => {
            const response = await ask(path, options);
            if (lost.delete(options.method)) throw new TypeError("lost");
            return response;
        };
    """)
    ask(page, 2)
    page.wait_for_turns("First", "The answer.")
    page.wait(lambda: sorted(page.titles) == ["First", "First (2)"])
    assert len(provider.posts) == posts + 1 and copy_of(page)["model"] == {"id": "m-2"}


def test_a_hundred_models_scroll_in_a_menu_that_a_phone_shows(browser, server_with, provider):
    names = [f"accounts-of-a-provider-models-llama-instruct-{number}" for number in range(100)]
    provider.models = names
    cdp = browser.execute_cdp_cmd
    metrics = {"width": 320, "height": 568, "deviceScaleFactor": 1, "mobile": True}
    cdp("Emulation.setDeviceMetricsOverride", metrics)
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page = Page(browser, server_with(DEFAULT_MODEL=names[0])).enter()
        page.wait_for_text(names[0], "#model")
        page.say("First")
        page.wait_for_turns("First", "The answer.")
        open_menu(page, 2)
        assert page.texts("#models button") == names[1:]
        box = page.run("document.getElementById('models').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0 and box["right"] <= 320
        assert box["top"] >= 0 and box["bottom"] <= 568
        cut = "[...document.querySelectorAll('#models button')].some((e) => e.scrollWidth > e.clientWidth || e.clientHeight < 42)"
        assert not page.run(cut)
        provider.script = [reply("Another answer.")]
        page.find("#models button:last-child").click()  # which scrolls to it
        page.wait_for_turns("First", "Another answer.")
        assert provider.posts[-1].body["model"] == names[-1]
    finally:
        cdp("Emulation.setTouchEmulationEnabled", {"enabled": False})
        cdp("Emulation.clearDeviceMetricsOverride", {})
