"""The list of keys, made from the table that decides what the keys do."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


def is_shown(page):
    return "Search the chats" in page.text("dialog")


def test_a_question_mark_shows_the_list_and_escape_leaves_it(page):
    page.find("#new").send_keys("?")
    page.wait(lambda: is_shown(page))
    assert page.run("document.activeElement.closest('dialog') !== null")
    assert page.texts("dialog kbd")[:2] == ["Enter", "Shift Enter"]
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    assert page.focused == "new"


def test_a_question_mark_can_be_typed(page):
    page.press("?")
    assert page.run("document.getElementById('text').value") == "?"
    page.press("/", hold=Keys.CONTROL)
    page.wait(lambda: is_shown(page))
    page.click("Close")
    page.wait(lambda: not page.texts("dialog"))
    assert page.focused == "text"
    page.click("Shortcuts")
    page.wait(lambda: is_shown(page))


def test_no_other_key_acts_under_the_list(page, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    page.press("/", hold=Keys.CONTROL)
    page.wait(lambda: is_shown(page))
    page.press("n", hold=Keys.ALT)
    page.press("?")
    assert len(page.texts("dialog")) == 1
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    gate.set()
    page.wait_for_turns("Count", "One two.")


def test_a_sign_in_that_ends_closes_dialogs(page):
    page.press("/", hold=Keys.CONTROL)
    page.wait(lambda: is_shown(page))
    page.driver.execute_script("""
        const refusal = { errors: [{ detail: "The token has expired." }] };
        window.fetch = () => new Response(JSON.stringify(refusal), { status: 401 });
        document.getElementById("search").dispatchEvent(new Event("input"));
    """)
    page.wait_for_text("The token has expired.", "#refusal")
    assert page.texts("dialog") == [] and page.focused == "token"
