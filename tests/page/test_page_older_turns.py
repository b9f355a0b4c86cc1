"""Older turns come as the user scrolls up, and a line shows where the model's memory begins."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page, window
from provider import REFUSED, cut, reply
from raw_tables import lengthen, tables_of

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


TOP = "[...document.querySelectorAll('article')].find((e) => e.innerText.includes(arguments[0])).getBoundingClientRect().top"


def turns_from(number, count):
    return [f"turn {number}" for number in range(number, count)] + ["Last", "The answer."]


def scroll_to(page, top):
    page.driver.execute_script("document.getElementById('thread').scrollTo(0, arguments[0])", top)


def open_long_session(browser, server, count):
    """A page with an open session of two turns more than this count. The last fifty are shown."""
    page = Page(browser, server)
    lengthen(server.database, page.user.create("Last"), count)
    page.enter()
    page.click("Last")
    page.wait_for_turns(*turns_from(count - 48, count))
    return page


@pytest.fixture
def long_page(browser, server):
    return open_long_session(browser, server, 128)


def test_a_session_of_twenty_thousand_turns_opens_with_the_last_fifty(browser, server):
    page = open_long_session(browser, server, 19_998)
    assert page.gap < 2
    scroll_to(page, 0)
    page.wait_for_turns(*turns_from(19_900, 19_998))


@pytest.mark.parametrize("position", [0, 1, 200])
def test_older_turns_come_as_the_user_scrolls_up_and_nothing_jumps(position, long_page):
    page = long_page
    page.driver.execute_script(HOLD, "before")
    for first in (30, 0):
        seen = page.turns[2]
        scroll_to(page, position)
        page.wait(lambda: page.run("window.held.length") == 1)
        for _ in range(5):  # the user scrolls on meanwhile
            scroll_to(page, position + 5)
            scroll_to(page, position)
        top = page.run(TOP, seen)
        page.driver.execute_script(RELEASE)
        page.wait(lambda: page.turns == turns_from(first, 128))
        for _ in range(10):
            assert abs(page.run(TOP, seen) - top) <= 1
    assert page.run("window.count") == 2
    assert not page.shows("#older")
    scroll_to(page, 50)
    scroll_to(page, 0)
    assert page.run("window.count") == 2


def test_older_turns_come_by_the_keyboard(long_page):
    page = long_page
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    page.driver.execute_script(HOLD, "before")
    page.driver.execute_script("document.getElementById('older').focus({ preventScroll: true })")
    page.press(Keys.ENTER)
    page.press(Keys.ENTER)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns == turns_from(30, 128))
    page.wait(lambda: page.run("window.heard") == ["Earlier messages are shown."])
    assert page.run("window.count") == 1 and page.focused == "older"
    page.press(Keys.ENTER)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns == turns_from(0, 128))
    assert page.focused == "thread"


def test_older_turns_of_a_session_that_was_left_are_dropped(long_page):
    page = long_page
    page.user.create("Other")
    page.find("#search").send_keys(" ")
    page.wait(lambda: page.titles == ["Other", "Last"])
    page.driver.execute_script(HOLD, "before")
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Other")
    page.wait_for_turns("Other", "The answer.")
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 2)
    page.click("Other")
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    page.driver.execute_script(RELEASE)
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait_for_turns(*turns_from(30, 128))
    assert page.text("#connection") == "" and page.text("#notice") == ""


def test_older_turns_come_while_a_reply_is_written(long_page, provider):
    page, gate = long_page, threading.Event()
    provider.script = [reply("One ", gate, "two."), cut("Half"), REFUSED, reply("Again.")]
    page.say("Count")
    page.wait_for_text("One", "article:last-child")
    scroll_to(page, 0)
    page.wait(lambda: page.turns == turns_from(30, 128) + ["Count", "One "])
    assert (
        page.shows("#stop-reply")
        and page.find("article:last-child").get_attribute("aria-busy") == "true"
    )
    gate.set()
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.")
    assert page.gap > 1000
    page.say("Fail")  # the last turn is fetched again, and the others stay
    page.wait_for_text("broke the connection", "article:last-child")
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.", "Fail", "Half")
    page.click("Retry")
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.", "Fail", "Again.")
    scroll_to(page, 0)
    page.wait_for_turns(*turns_from(0, 128), "Count", "One two.", "Fail", "Again.")


# The model's memory

LINE = "document.querySelector('.context-start')?.closest('article').querySelector('.text').textContent"


FORGETS = "The model no longer sees what is above."


def test_a_line_shows_where_the_memory_of_the_model_begins(page, provider):
    provider.default = window(100)
    page.say("first " * 30)
    page.wait(lambda: page.is_idle and len(page.turns) == 2)
    page.say("second " * 30)
    page.wait(lambda: page.is_idle and len(page.turns) == 4)
    assert page.run(LINE) is None
    page.say("third " * 60)
    page.wait(lambda: page.is_idle and len(page.turns) == 6)
    page.wait(lambda: page.run(LINE))
    line = page.run(LINE)
    assert page.text(".context-start") == FORGETS and line in page.turns[2:5:2]
    page.say("fourth " * 80)
    page.wait(lambda: page.is_idle and len(page.turns) == 8)
    page.wait(lambda: page.run(LINE) == page.turns[6])
    assert page.texts(".context-start") == [FORGETS]
    page.driver.refresh()
    page.wait(lambda: [page.run(LINE)] == page.turns[6:7])
    page.find("article:nth-last-child(2) .edit").click()  # the line stays if its turn is edited
    page.press(Keys.END, "fifth", Keys.ENTER)
    page.wait(lambda: page.is_idle and "fifth" in page.turns[6])
    assert page.run(LINE) == page.turns[6]
    page.find("#model").send_keys("m-2", Keys.TAB)  # another model gets all of it
    page.wait(lambda: page.texts(".context-start") == [])


def test_the_line_is_drawn_if_the_next_request_follows_at_once(page, provider):
    provider.default = window(100)
    page.say("first " * 60)
    page.wait(lambda: page.is_idle and len(page.turns) == 2)
    page.driver.execute_script(HOLD, "turns")
    page.say("second " * 60)
    page.wait(lambda: page.run("window.held.length") == 1)  # the page looks for new turns
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run("window.held.length") == 1)  # the page asks where the memory begins
    page.click("Retry")
    page.wait(lambda: page.run("window.held.length") == 2)  # and looks for new turns
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run(LINE) == page.turns[2])


def test_the_line_of_the_memory_comes_with_the_older_turns(browser, server, check):
    page = Page(browser, server)
    session = page.user.create("Last")
    lengthen(server.database, session, 128)
    with tables_of(server.database) as tables:
        turn = tables.value("SELECT min(id) FROM turn") + 40
        key = tables.value("SELECT session_id FROM turn WHERE id = ?", turn)
        tables.rows("UPDATE session SET trim = ? WHERE id = ?", turn, key)
    page.enter()
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    assert page.texts(".context-start") == []
    scroll_to(page, 0)
    page.wait(lambda: page.turns == turns_from(30, 128))
    assert page.run(LINE) == "turn 40"
    check("a long session")
