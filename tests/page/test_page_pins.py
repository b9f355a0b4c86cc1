"""Chats that are pinned stand above all others in the list."""

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

GROUPS = """Object.fromEntries([...document.querySelectorAll("#list section")].map((group) =>
    [group.querySelector("h2").textContent, [...group.querySelectorAll("strong")].map((e) => e.textContent)]))"""


def groups(page):
    return page.run(GROUPS)


def pin(page, title, entry="Pin"):
    page.click(f"Options of {title}")
    page.wait(lambda: page.text("#pin") == entry)
    page.find("#pin").click()


def pin_elsewhere(page, session):
    answer = page.user.request("PATCH", f"/sessions/{session['id']}", {"pinned": True})
    assert answer.status_code == 200


@pytest.fixture
def chats(page):
    """Three chats: First, above it Second, and on top Third."""
    sessions = [page.user.create(title) for title in ("First", "Second", "Third")]
    page.driver.refresh()
    page.wait(lambda: page.titles == ["Third", "Second", "First"])
    return sessions


def test_a_chat_is_pinned_and_unpinned(page, chats):
    pin(page, "First")
    page.wait(lambda: groups(page) == {"Pinned": ["First"], "Today": ["Third", "Second"]})
    assert page.run("document.activeElement.ariaLabel") == "Options of First"
    page.driver.refresh()
    page.wait(lambda: groups(page) == {"Pinned": ["First"], "Today": ["Third", "Second"]})
    page.say("Another chat")
    page.wait(lambda: groups(page).get("Today") == ["Another chat", "Third", "Second"])
    assert groups(page)["Pinned"] == ["First"]
    pin(page, "First", "Unpin")
    page.wait(lambda: groups(page) == {"Today": ["Another chat", "Third", "Second", "First"]})


def test_the_keyboard_pins_and_a_screen_reader_hears_it(page, chats):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    for count in (1, 2):
        page.find("#list [aria-label='Options of First']").send_keys(Keys.ENTER)
        page.wait(lambda: page.focused == "rename")
        page.press(Keys.TAB, Keys.ENTER)
        page.wait(lambda count=count: len(page.run("window.heard")) == count)
    assert page.run("window.heard") == ["Pinned", "Unpinned"]
    page.wait(lambda: groups(page) == {"Today": ["Third", "Second", "First"]})
    assert page.run("document.activeElement.ariaLabel") == "Options of First"


def test_more_chats_follow_pinned_ones(page):
    sessions = [page.user.create(f"Chat {number}") for number in range(30)]
    pin_elsewhere(page, sessions[0])
    pin_elsewhere(page, sessions[29])
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 20)
    page.scroll_to_more()
    page.wait(lambda: len(page.titles) == 30)
    shown = groups(page)
    assert sorted(shown["Pinned"]) == ["Chat 0", "Chat 29"]
    assert shown["Today"] == [f"Chat {number}" for number in range(28, 0, -1)]


def test_a_pin_too_many_is_refused_in_words(page):
    sessions = [page.user.create(f"Chat {number}") for number in range(21)]
    for session in sessions[:20]:
        pin_elsewhere(page, session)
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 20)
    page.scroll_to_more()
    pin(page, "Chat 20")
    page.wait(lambda: page.text("#notice"))
    assert "20" in page.text("#notice")
    assert groups(page)["Today"] == ["Chat 20"]


def test_a_search_keeps_the_groups(page, chats):
    pin_elsewhere(page, chats[0])
    page.find("#search").send_keys("ir")  # Third, First
    page.wait(lambda: groups(page) == {"Pinned": ["First"], "Today": ["Third"]})
    pin(page, "First", "Unpin")
    page.wait(lambda: groups(page) == {"Today": ["Third", "First"]})


def test_a_deleted_pinned_chat_comes_back_to_its_group(page, chats):
    pin(page, "First")
    page.wait(lambda: "Pinned" in groups(page))
    page.click("Options of First")
    page.click("Delete")
    page.wait(lambda: groups(page) == {"Today": ["Third", "Second"]})
    page.click("Undo")
    page.wait(lambda: groups(page) == {"Pinned": ["First"], "Today": ["Third", "Second"]})
