"""Copies of a chat: of a long one, over a slow line, and while the user does something else."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

RELEASE_FIRST = "window.held.shift()()"
# More than two hundred turns, all shown, whose messages have no ids yet: as if they were sent from
# here.
SHOWN = "document.querySelectorAll('article').length"
FORGET = "for (const each of document.querySelectorAll('article.user')) delete each.dataset.id"
FILL = """
    for (let size = 2 ** 23; size >= 1; size /= 2) {
        try { sessionStorage.setItem(`fill ${size}`, "x".repeat(size)); } catch {}
    }
"""


def import_chat(page, count):
    """A chat with so many messages, each with a reply."""
    turns = []
    for number in range(count):
        turns.append({"kind": "user", "content": f"message {number}"})
        turns.append({"kind": "assistant", "content": f"reply {number}"})
    given = page.user.post("/sessions/import", {"title": f"Of {count}", "turns": turns})
    assert given.status_code == 201
    return given.json()


def show_all(page, count):
    """Open the chat with so many messages, up to its first one."""
    page.click(f"Of {count}")
    scroll_up(page, count)


def scroll_up(page, count):
    page.wait_for_text(f"reply {count - 1}")

    def is_shown():
        page.run("document.getElementById('thread').scrollTo(0, 0)")
        return page.run(SHOWN) == 2 * count

    page.wait(is_shown)


def press(page, place, name):
    """Press the button of the turn at this position, counted from 1."""
    page.driver.execute_script(
        """
        const article = document.querySelectorAll("article")[arguments[0] - 1];
        [...article.querySelectorAll("button")].find((e) => e.ariaLabel === arguments[1]).click();
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


def test_an_early_message_of_a_long_chat_is_copied_and_edited_in_its_place(
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


def test_an_edit_of_an_early_message_of_a_long_chat_is_kept_with_its_id(browser, server):
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


def test_an_early_message_is_sent_edited_if_the_browsers_storage_is_full(browser, server, provider):
    page = enter(browser, server, 3)
    show_all(page, 3)
    page.driver.execute_script(FILL)
    edit(page, 3, "!", Keys.ENTER)
    page.wait_for_turns("message 0", "reply 0", "message 1!", "The answer.")
    assert page.find("#text").get_attribute("value") == ""


def test_nobody_can_type_into_a_message_while_it_is_copied(browser, server):
    page = enter(browser, server, 3)
    show_all(page, 3)
    page.driver.execute_script(HOLD, "fork")
    edit(page, 3, "!", Keys.ENTER)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.find("article textarea").send_keys(" More")
    assert page.find("article textarea").get_attribute("value") == "message 1!"
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("message 0", "reply 0", "message 1!", "The answer.")


def test_a_copy_that_ends_elsewhere_does_not_let_a_second_one_begin_here(browser, server):
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
