"""Copies of a chat: of a long one, on a slow line, and where something else is done meanwhile."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

RELEASE_FIRST = "window.held.shift()()"
# More than two hundred turns that are all shown, of which the messages have no ids yet: as where
# they were sent from here.
SHOWN = "document.querySelectorAll('article').length"
FORGET = "for (const each of document.querySelectorAll('article.user')) delete each.dataset.id"
FILL = """
    for (let size = 2 ** 23; size >= 1; size /= 2) {
        try { sessionStorage.setItem(`fill ${size}`, "x".repeat(size)); } catch {}
    }
"""


def import_chat(page, count):
    """A chat of so many messages, each with a reply."""
    turns = []
    for number in range(count):
        turns.append({"kind": "user", "content": f"message {number}"})
        turns.append({"kind": "assistant", "content": f"reply {number}"})
    given = page.user.post("/sessions/import", {"title": f"Of {count}", "turns": turns})
    assert given.status_code == 201
    return given.json()


def show_all(page, count):
    """Open the chat that has so many messages, up to its first one."""
    page.click(f"Of {count}")
    scroll_up(page, count)


def scroll_up(page, count):
    page.wait_for_text(f"reply {count - 1}")

    def is_shown():
        page.run("document.getElementById('log').scrollTo(0, 0)")
        return page.run(SHOWN) == 2 * count

    page.wait(is_shown)


def press(page, place, name):
    """Press the button of the turn at this place, from 1 on."""
    page.driver.execute_script(
        """
        const article = document.querySelectorAll("article")[arguments[0] - 1];
        [...article.querySelectorAll("button")].find((e) => e.textContent === arguments[1]).click();
        """,
        place,
        name,
    )


def edit(page, place, *keys):
    press(page, place, "Edit")
    page.press(*keys)


def enter(browser, server, *counts):
    page = Page(browser, server)
    for count in counts:
        import_chat(page, count)
    return page.enter()


def test_an_early_message_of_a_long_talk_is_copied_and_changed_where_it_is(
    browser, server, provider
):
    page = enter(browser, server, 110)
    show_all(page, 110)
    page.driver.execute_script(FORGET)
    press(page, 5, "Fork")
    page.wait(lambda: page.turns[2:] == ["message 1", "reply 1", "message 2"])
    page.driver.back()
    scroll_up(page, 110)
    page.driver.execute_script(FORGET)
    edit(page, 5, "!", Keys.ENTER)
    page.wait_for_turns("message 0", "reply 0", "message 1", "reply 1", "message 2!", "The answer.")
    assert len(provider.posts[-1].body["messages"]) == 5


def test_a_change_of_an_early_message_of_a_long_talk_is_kept_with_its_id(browser, server):
    page = enter(browser, server, 110)
    show_all(page, 110)
    page.driver.execute_script(FORGET)
    page.driver.execute_script(HOLD, "before")
    edit(page, 5, "!")
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run("document.querySelectorAll('article')[4].dataset.id"))
    kept = (
        "JSON.parse(Object.entries(sessionStorage).find(([name]) => name.startsWith('edit '))[1])"
    )
    page.wait(lambda: page.run(kept)[2])
    assert page.run(kept)[:2] == ["message 2", "message 2!"]


def test_a_message_that_is_not_found_makes_no_copy(browser, server):
    page = enter(browser, server, 3)
    show_all(page, 3)
    page.driver.execute_script(FORGET)
    page.driver.execute_script("delete document.querySelector('article:last-child').dataset.id")
    session = page.user.get("/sessions").json()["data"][0]
    page.user.post(f"/sessions/{session['id']}/messages", {"content": "From elsewhere"})
    for _ in range(2):
        press(page, 5, "Fork")
        page.wait_for_text("This message cannot be found in the chat.", "#notice:not(.faint)")
    assert page.run(SHOWN) == 6
    assert len(page.user.get("/sessions").json()["data"]) == 1


def test_an_early_message_is_sent_changed_where_the_browser_keeps_no_more(
    browser, server, provider
):
    page = enter(browser, server, 3)
    show_all(page, 3)
    page.driver.execute_script(FILL)
    edit(page, 3, "!", Keys.ENTER)
    page.wait_for_turns("message 0", "reply 0", "message 1!", "The answer.")
    assert page.find("#text").get_attribute("value") == ""


def test_nothing_is_typed_into_a_message_of_which_the_copy_is_being_made(browser, server):
    page = enter(browser, server, 3)
    show_all(page, 3)
    page.driver.execute_script(HOLD, "fork")
    edit(page, 3, "!", Keys.ENTER)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.find("article textarea").send_keys(" More")
    assert page.find("article textarea").get_attribute("value") == "message 1!"
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("message 0", "reply 0", "message 1!", "The answer.")


def test_a_copy_that_ends_elsewhere_lets_no_second_one_begin_here(browser, server):
    page = enter(browser, server, 3, 4)
    show_all(page, 3)
    page.driver.execute_script(HOLD, "fork")
    press(page, 2, "Fork")
    page.wait(lambda: page.run("window.held.length") == 1)
    show_all(page, 4)
    press(page, 2, "Fork")
    page.wait(lambda: page.run("window.held.length") == 2)
    page.driver.execute_script(RELEASE_FIRST)
    page.wait(lambda: len(page.titles) == 3)
    press(page, 2, "Fork")
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("message 0", "reply 0")
    assert page.run("window.count") == 2
