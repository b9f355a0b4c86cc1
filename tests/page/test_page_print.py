"""A chat is printed completely, and in a form for paper."""

import base64
import re

import pytest

from browser import Page
from pictures import png
from provider import reply
from raw_tables import lengthen

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

HIDDEN = ["#sidebar", "#foot", "#chats", "#account-button", "article button", "#older"]


def pages(page):
    """How many sheets the browser needs for the page now."""
    pdf = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.fixture
def on_paper(browser):
    """A function that shows the page as it is printed."""

    def show():
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})

    yield show
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.fixture
def long_page(browser, server):
    """A page with a chat of 120 turns, which is not open, and another one."""
    page = Page(browser, server)
    lengthen(server.database, page.user.create("Long"), 118)
    page.user.create("Short")
    page.enter()
    page.wait(lambda: page.titles == ["Short", "Long"])
    page.driver.execute_script(
        "window.printed = []; window.print = () => window.printed.push(document.querySelectorAll('article').length)"
    )
    return page


def print_by_menu(page, title, turns):
    page.click(f"Options of {title}")
    page.click("Print")
    page.wait(lambda: page.run("window.printed") == [turns])


def test_print_fetches_the_whole_chat_first(long_page):
    print_by_menu(long_page, "Long", 120)
    assert long_page.turns == [f"turn {number}" for number in range(118)] + ["Long", "The answer."]
    assert long_page.text("#title") == "Long" and long_page.text("#notice") == ""
    assert pages(long_page) > 5


def test_pictures_are_printed_even_if_nobody_has_seen_them(browser, server, on_paper):
    page = Page(browser, server)
    files = [page.user.uploaded(png(64, 48))]
    session = page.user.create("Picture", files=files)
    lengthen(server.database, session, 118)
    page.enter()
    page.click("Picture")
    page.driver.execute_script(
        "window.print = () => window.printed = [...document.querySelectorAll('article img')].map((e) => e.naturalWidth)"
    )
    page.click("Options of Picture")
    page.click("Print")
    page.wait(lambda: page.run("window.printed"))
    assert page.run("window.printed") == [64]
    on_paper()
    assert page.shows("article .picture img") and not page.shows("article .tools button")


def test_the_browsers_own_print_says_what_is_missing(long_page, on_paper):
    long_page.click("Long")
    long_page.wait(lambda: len(long_page.turns) == 50)
    assert not long_page.shows("#unprinted")
    on_paper()
    assert "use Print" in long_page.text("#unprinted")
    long_page.run("document.getElementById('older').click()")
    # On paper, all of it is in view.
    long_page.wait(lambda: len(long_page.turns) == 120)
    assert not long_page.shows("#unprinted")


def test_printing_during_a_reply_prints_what_is_there(long_page, provider):
    provider.script = [reply("One ", 30, "two.")]
    long_page.say("Count")
    long_page.wait_for_text("One")
    print_by_menu(long_page, "Count", 2)
    long_page.driver.execute_script("window.printed = []")
    print_by_menu(long_page, "Short", 2)
    long_page.driver.execute_script("window.printed = []")
    print_by_menu(long_page, "Count", 2)
    assert long_page.turns[0] == "Count"
    long_page.click("Stop")
    long_page.wait(lambda: long_page.is_idle)


def test_paper_has_only_the_chat_in_light_colours_and_cuts_nothing(page, provider, on_paper):
    page.driver.execute_script("document.documentElement.dataset.theme = 'dark'")
    code = "```\n" + "word " * 200 + "x" * 500 + "\n```"
    provider.script = [reply(code + "\n\n| a | b |\n|--|--|\n| " + "y" * 400 + " | z |")]
    page.say("Show it")
    page.wait_for_text("tokens read", "article:last-child")
    page.click("Edit")
    on_paper()
    for selector in HIDDEN:
        assert not page.find(selector).is_displayed(), selector
    assert page.shows("#title") and page.shows(".user .text")
    assert not page.shows("article form")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    wide = "[...document.querySelectorAll('#thread *')].filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible')"
    assert page.run(wide + ".length") == 0
    beyond = "[...document.querySelectorAll('#thread *')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)"
    assert page.run(beyond + ".map((e) => e.outerHTML)") == []
    assert page.run("getComputedStyle(document.body).color") == "rgb(34, 35, 31)"
    assert (
        page.run(
            "document.getElementById('thread').scrollHeight - document.getElementById('thread').clientHeight"
        )
        <= 1
    )
