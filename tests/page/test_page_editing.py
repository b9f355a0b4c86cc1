"""The last message can be edited in its place."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import WORDS, Page
from provider import REFUSED, cut, reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


# Editing the last message


def test_the_last_message_is_edited_and_answered_again(page, provider):
    page.say("One")
    page.wait_for_turns("One", "The answer.")
    page.say("Twwo")
    page.wait_for_turns("One", "The answer.", "Twwo", "The answer.")
    assert page.run(EDITS) == 2
    page.find("#text").send_keys("A draft")
    gate = threading.Event()
    provider.script = [reply("Better", gate)]
    page.find("article:nth-child(3) .edit").click()
    page.press(Keys.BACKSPACE * 2, "o")
    page.press(Keys.ENTER, hold=Keys.SHIFT)
    page.press("lines", Keys.ENTER)
    page.wait(lambda: page.turns == ["One", "The answer.", "Two\nlines", "Better"])
    assert page.run(EDITS) == 0  # while a reply is in progress
    gate.set()
    page.wait_for_turns("One", "The answer.", "Two\nlines", "Better")
    assert provider.posts[-1].body["messages"][-1] == {"role": "user", "content": "Two\nlines"}
    assert page.find("#text").get_attribute("value") == "A draft"
    assert page.run(EDITS) == 2 and page.texts("article form") == []
    page.driver.refresh()
    page.wait_for_turns("One", "The answer.", "Two\nlines", "Better")


EDITS = "[...document.querySelectorAll('article .edit')].filter((e) => e.checkVisibility()).length"


def test_editing_is_left_by_escape_and_by_a_button(page, provider):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    for leave in (lambda: page.press(Keys.ESCAPE), lambda: page.click("Cancel")):
        page.click("Edit")
        page.press(", and more")
        leave()
        page.wait(lambda: page.texts("article form") == [])
        assert page.text("article .text") == "Hello"
        assert page.run("document.activeElement.ariaLabel") == "Edit"
    page.press(Keys.ENTER)  # and the keyboard begins it again
    assert page.run("document.activeElement.value") == "Hello"
    page.say("Another")  # which ends it too
    page.wait_for_turns("Hello", "The answer.", "Another", "The answer.")
    assert page.texts("article form") == [] and page.text("article .text") == "Hello"
    assert len(provider.posts) == 2


def test_an_unsent_edit_stays_if_the_page_is_reloaded(page, provider):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.click("Edit")
    page.press(" there")
    page.driver.refresh()
    page.wait(lambda: page.texts("article form"))
    assert page.run("document.querySelector('article textarea').value") == "Hello there"
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.driver.back()
    page.wait(lambda: page.texts("article form"))
    page.find("article .main").click()
    page.wait_for_turns("Hello there", "The answer.")
    page.driver.refresh()
    page.wait_for_turns("Hello there", "The answer.")
    assert page.texts("article form") == []


def test_an_edited_message_is_answered_once_if_the_answer_is_lost(browser, server, provider, proxy):
    page = Page(browser, server, proxy.url).enter()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    provider.script = [reply("One ", 0.5, "two.")]
    proxy.cut_behind = b""
    page.click("Edit")
    page.press(" there", Keys.ENTER)
    page.wait_for_turns("Hello there", "One two.")
    assert proxy.cut_behind is None and len(provider.posts) == 2


def test_an_edit_stays_if_its_reply_fails_or_is_stopped(page, provider):
    provider.script = [reply("Old."), cut("Half"), REFUSED, reply(*WORDS)]
    page.say("One")
    page.wait_for_turns("One", "Old.")
    page.click("Edit")
    page.press(" more", Keys.ENTER)
    page.wait_for_turns("One more", "Half")
    page.wait_for_text("broke the connection", "article:last-child")
    page.click("Edit")
    page.press(" time", Keys.ENTER)
    page.wait_for_text("word1")
    page.click("Stop")
    page.wait_for_text("Stopped", "article:last-child")
    assert page.turns[0] == "One more time" and "word1" in page.turns[1]


def test_a_refused_edit_is_given_back(page, provider):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    gate = threading.Event()
    provider.script = [reply("Elsewhere ", gate, "done.")]
    session = page.user.get("/sessions").json()["data"][0]
    page.user.post(f"/sessions/{session['id']}/retry", Prefer="respond-async")
    page.click("Edit")
    page.press(" there", Keys.ENTER)
    page.wait_for_text("This chat has continued elsewhere", "#notice")
    page.wait_for_text("Elsewhere")
    assert page.run("document.querySelector('article textarea').value") == "Hello there"
    gate.set()
    page.wait(lambda: page.is_idle)
    page.find("article .main").click()
    page.wait_for_turns("Hello there", "The answer.")


TYPED = "document.querySelector('article textarea')?.value"


def test_an_edit_in_progress_stays_if_something_else_is_sent(page):
    page.say("One")
    page.wait_for_turns("One", "The answer.")
    page.click("Edit")
    page.press(" more")
    assert page.texts("article form small") == []
    page.say("Two")
    page.wait_for_turns("One", "The answer.", "Two", "The answer.")
    assert page.run(TYPED) == "One more"
    assert page.texts("article form small") == ["This continues in a copy of the chat."]
    page.click("Retry")
    page.wait_for_turns("One", "The answer.", "Two", "The answer.")
    assert page.run(TYPED) == "One more"
    page.driver.refresh()
    page.wait(lambda: page.run(TYPED) == "One more")
    page.find("article .main").click()
    page.wait_for_turns("One more", "The answer.")
