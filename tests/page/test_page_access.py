"""The page for users who hear it, or read from right to left."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import EVERYTHING, Page, paste
from client import make_token
from pictures import give, png
from provider import REFUSED, cut, reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


PANELS = {
    "#account": "#account-button",
    "#settings": "#settings-button",
    "#usage": "#usage-button",
    "#menu": "#list li button",
    "#models": "article [value=ask]",
}


def check_what_is_rare(page, check):
    """A title that is a field, chats to select, one whose deletion can be undone, pasted texts, and
    dialogs."""
    page.click("Options of")
    page.click("Rename")
    page.wait(lambda: page.texts("#list form"))
    check("renaming")
    page.press(Keys.ESCAPE)
    page.click("Shortcuts")
    page.wait_for_text("Search the chats", "dialog")
    check("shortcuts")
    page.press(Keys.ESCAPE)
    page.find("#text").click()
    paste(page, "A line of a log.\n" * 2000)
    page.click("Pasted text, 34 kB")
    page.wait_for_text("A line of a log.", "dialog")
    check("a pasted text")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    check("pasted")
    page.click("Options of")
    page.click("Select…")
    page.wait_for_text("Delete 1", "#selection")
    check("selection")
    page.press(Keys.ESCAPE)
    page.click("Options of")
    page.click("Delete")
    page.wait_for_text("Undo", "#deleted")
    check("deleted")
    page.open_link(make_token("https://github.com/another"), in_place=True)
    page.wait_for_text("You are signed in as", "#question")
    check("a question")
    page.press(Keys.ESCAPE)


def check_pictures(page, check):
    """Pictures in a message that is being written, sent and edited, one that cannot be read, and
    the viewer."""
    files = [
        ("a.png", "image/png", png()),
        ("b.png", "image/png", png(90, 90)),
        ("c.heic", "", b""),
    ]
    give(page, "#thread", *files)
    page.wait_for_text("This browser cannot read this image.", "#composer")
    page.wait(lambda: page.run("document.querySelectorAll('#composer img[src]').length") == 2)
    check("pictures")
    page.click("Remove: c.heic")
    page.click("ALT text: a.png")
    page.wait(lambda: page.run("document.querySelectorAll('dialog img[src]').length"))
    check("a picture")
    page.press(Keys.ESCAPE)
    page.say("See")
    page.wait_for_text("The answer.", "article:last-child")
    page.wait(lambda: page.is_idle and len(page.texts("article .picture")) == 2)
    check("sent pictures")
    page.find("article:nth-last-child(2) .edit").click()
    page.wait(lambda: len(page.texts("article form .picture")) == 2)
    check("editing pictures")
    page.press(Keys.ESCAPE)


def test_axe_finds_nothing(browser, server, provider, check):
    for colours, rules in (("light", []), ("dark", ["color-contrast"])):

        def look(place, where=colours, rules=rules):
            check(f"{place}, {where}", *rules)

        features = [
            {"name": "prefers-color-scheme", "value": colours},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page = Page(browser, server)
        page.wait_for_text("flask token", "#source")
        look("sign-in-page")
        page.open_link(page.user.token)
        page.wait(lambda: page.shows("#by-link"))
        look("a link")
        page.click("Sign in as")
        page.wait_for_text("No chats yet.")
        look("empty")
        provider.script = [reply(EVERYTHING), cut("Half"), REFUSED]
        page.say("Show all there is")
        page.wait_for_text("tokens read", "article:last-child")
        page.wait(lambda: len(page.texts(".text math")) == 3 and page.texts(".token-deleted"))
        page.say("And fail")
        page.wait_for_text("broke the connection", "article:last-child")
        page.wait(lambda: page.titles)
        look("conversation")
        page.click("Edit")
        look("editing")
        page.press(Keys.ESCAPE)
        for place, button in PANELS.items():
            page.find(button).click()
            page.wait(lambda: page.shows(place) and page.text("#used") != "Loading…")
            look(place)
            page.press(Keys.ESCAPE)
        check_pictures(page, look)
        check_what_is_rare(page, look)
        browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_screen_reader_hears_a_reply_once(page, provider):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    provider.script = [reply("One ", 0.1, "**two** ", 0.1, "three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One two three.")
    page.wait(lambda: page.run("window.heard.length"))
    assert page.run("window.heard") == ["One two three."]
    assert page.run("document.querySelectorAll('#app [aria-live], #app [role=log]').length") == 0


def test_text_from_right_to_left_is_aligned_right(page, provider):
    provider.script = [reply("שלום עולם\n\nHello\n\n- שלום\n\n```\ncode\n```")]
    page.say("שלום")
    page.wait_for_text("code", "article:last-child pre")
    sides = page.run(
        "[...document.querySelectorAll('article:last-child .text > *')].map((e) => getComputedStyle(e).direction)"
    )
    assert sides == ["rtl", "ltr", "rtl", "ltr"]
