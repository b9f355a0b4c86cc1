"""A chat gets another title, in its place in the list."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

FIELD = "#list input"


def title_of(page, session):
    return page.user.get(f"/sessions/{session['id']}").json()["title"]


def rename(page, title):
    """Turn the title of this chat into a field, which has the focus."""
    page.click(f"Options of {title}")
    page.click("Rename")
    page.wait(lambda: page.run("document.activeElement.matches(arguments[0])", FIELD))


def value(page):
    return page.run("document.querySelector(arguments[0]).value", FIELD)


@pytest.fixture
def chats(door):
    """Two chats: First, and above it Second."""
    return [door.user.create(title) for title in ("First", "Second")]


@pytest.fixture
def page(door, chats):
    door.enter()
    door.wait(lambda: door.titles == ["Second", "First"])
    return door


@pytest.mark.parametrize("keys", [("Another", Keys.ESCAPE), (Keys.DELETE, Keys.ENTER), (" \n",)])
def test_escape_and_an_empty_field_leave_the_title_as_it_was(keys, page, chats):
    rename(page, "First")
    page.press(*keys)
    page.wait(lambda: page.titles == ["Second", "First"])
    assert page.run("document.activeElement.ariaLabel") == "Options of First"
    page.driver.refresh()
    page.wait(lambda: page.titles == ["Second", "First"])


def test_leaving_the_field_saves(page, chats):
    rename(page, "First")
    page.press("Third")
    page.find("#text").click()
    page.wait(lambda: page.titles == ["Second", "Third"])
    assert page.focused == "text"
    assert title_of(page, chats[0]) == "Third"


@pytest.mark.parametrize("typed", ["", "Third"])
def test_a_click_on_another_chat_saves_and_opens_it(typed, page, chats):
    rename(page, "First")
    page.press(*typed)
    page.click("Second")
    page.wait_for_turns("Second", "The answer.")
    page.wait(lambda: page.titles == ["Second", typed or "First"])


def test_a_redrawn_list_keeps_what_is_typed(page, chats, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    page.wait(lambda: page.titles == ["Count", "Second", "First"])
    rename(page, "First")
    page.press("Half a ", "title", Keys.ARROW_LEFT)
    page.user.create("Third")
    page.driver.execute_script("""
        window.lists = 0;
        const ask = fetch;
        window.fetch = async (...request) => {
            const answer = await ask(...request);
            window.lists += request[0].startsWith("sessions?");
            return answer;
        };
    """)
    gate.set()
    page.wait_for_turns("Count", "One two.")
    page.wait(lambda: page.run("window.lists") == 1)
    page.press("l")
    assert value(page) == "Half a titlle"
    page.press(Keys.ENTER)
    page.wait(lambda: "Half a titlle" in page.titles and "Third" in page.titles)
    assert title_of(page, chats[0]) == "Half a titlle"


def test_an_error_is_reported_and_the_field_stays(page, chats):
    page.user.delete(f"/sessions/{chats[0]['id']}")
    rename(page, "First")
    page.press("Lost", Keys.ENTER)
    page.wait_for_text("There is no such", "#notice")
    assert value(page) == "Lost"
    page.press("?")
    assert value(page) == "Lost?"
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts(FIELD))


def test_f2_renames_and_escape_stops_no_reply(page, chats, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    page.wait(lambda: page.titles == ["Count", "Second", "First"])
    page.driver.execute_script("document.querySelector('#list li:last-child a').focus()")
    page.press(Keys.F2)
    page.wait(lambda: page.run("document.activeElement.matches(arguments[0])", FIELD))
    page.press(Keys.F2, Keys.ESCAPE)
    page.wait(lambda: not page.texts(FIELD))
    gate.set()
    page.wait_for_turns("Count", "One two.")


def test_a_title_has_two_hundred_characters_at_most(page, chats):
    rename(page, "First")
    page.press("x" * 201, Keys.ENTER)
    page.wait(lambda: page.titles == ["Second", "x" * 200])
    assert title_of(page, chats[0]) == "x" * 200
