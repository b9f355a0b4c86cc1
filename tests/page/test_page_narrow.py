"""A narrow or low screen: nothing is cut except names that may be long."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import Page
from provider import reply

LONG = "accounts-fireworks-models-llama-v3p1-405b-instruct"

SCREENS = {"phone": (390, 844), "small phone": (320, 568), "phone on its side": (844, 390)}

# Buttons whose names are cut, and elements beyond the right edge.
CUT = """[...document.querySelectorAll("#composer button, article button")].filter((e) => {
    const isCut = e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > innerWidth;
    return e.checkVisibility() && isCut;
}).map((e) => e.innerText)"""

OVER = """[...document.querySelectorAll("#composer > div > *")].filter((e) => e.checkVisibility())
    .map((e) => e.getBoundingClientRect()).some(({ left }, at, all) => at && left < all[at - 1].right)"""


@pytest.fixture(params=SCREENS, ids=SCREENS)
def narrow(request, browser, server_with, provider):
    """The page on such a screen, with a model that has a long name."""
    width, height = SCREENS[request.param]
    provider.models = [LONG]
    cdp = browser.execute_cdp_cmd
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    cdp("Emulation.setDeviceMetricsOverride", metrics)
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page = Page(browser, server_with(DEFAULT_MODEL=LONG)).enter()
    page.wait_for_text(LONG, "#model")
    yield page
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": False})
    cdp("Emulation.clearDeviceMetricsOverride", {})


def test_no_button_is_cut_or_covers_another(narrow, provider):
    page = narrow
    assert page.run(CUT) == [] and not page.run(OVER)
    provider.script = [reply("One ", 30, "two.")]
    page.say("A question")
    page.wait_for_text("One", "article:last-child")
    assert page.run(CUT) == [] and not page.run(OVER)
    page.click("Stop")
    page.wait_for_text("Stopped", "article:last-child")
    assert "Continue" in page.text("article:last-child footer")
    page.driver.execute_script("document.querySelector('article:last-child').remove()")
    assert page.names(".user .tools button") == ["Copy", "Retry", "Fork", "Edit"]
    assert page.run(CUT) == [] and not page.run(OVER)
    assert page.run("document.documentElement.scrollWidth") == page.run("innerWidth")


@pytest.fixture
def zoomed(browser, server):
    """The page in a window of 1280 × 800 at 400 %."""
    metrics = {"width": 320, "height": 200, "deviceScaleFactor": 4, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page = Page(browser, server).enter()
    page.wait_for_text("m-1", "#model")
    yield page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def height(page, selector):
    return page.run("document.querySelector(arguments[0]).getBoundingClientRect().height", selector)


def test_a_page_at_400_percent_has_room_for_the_chat_the_list_and_the_settings(zoomed, provider):
    page = zoomed
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert height(page, "#thread") >= 100
    assert page.run(CUT) == [] and not page.run(OVER)
    script = """(() => {
        const field = document.getElementById("text");
        field.value = "A line\\n".repeat(20);
        field.dispatchEvent(new Event("input"));
    })()"""
    page.driver.execute_script(script)
    assert height(page, "#thread") >= 60
    page.driver.execute_script(
        "document.getElementById('notice').textContent = 'It failed. '.repeat(50)"
    )
    assert height(page, "#thread") >= 20 and height(page, "#text") >= 24
    page.find("#settings-button").click()
    page.wait(lambda: page.shows("#settings"))
    assert height(page, "#settings") >= 180
    page.press(Keys.ESCAPE)
    page.find("#chats").click()
    page.wait(lambda: page.shows("#sidebar"))
    link = page.find("#list a")
    page.driver.execute_script("arguments[0].scrollIntoView()", link)
    assert link.rect["height"] > 40 and height(page, "#new") > 30
    link.click()
    page.wait(lambda: not page.shows("#sidebar"))


def test_a_touch_screen_shows_no_list_of_keys(narrow):
    page = narrow
    if page.shows("#chats"):
        page.find("#chats").click()
    page.wait(lambda: page.shows("#usage-button"))
    assert not page.shows("#shortcuts")


def test_a_chats_menu_fits_on_a_low_screen(zoomed):
    page = zoomed
    for number in range(6):
        page.user.create(f"Chat {number}")
    page.driver.refresh()
    page.wait(lambda: page.shows("#chats"))
    page.find("#chats").click()
    page.wait(lambda: len(page.titles) == 6)
    for name in ("Chat 5", "Chat 2", "Chat 0"):
        page.click(f"Options of {name}")
        page.wait(lambda: page.focused == "rename")
        top, bottom = page.run(
            "(({ top, bottom }) => [top, bottom])(document.getElementById('menu').getBoundingClientRect())"
        )
        assert 0 <= top < bottom < 201
        page.press(*[Keys.TAB] * 5)
        assert page.focused == "delete"
        page.press(Keys.ESCAPE)
        page.wait(lambda: not page.shows("#menu"))
