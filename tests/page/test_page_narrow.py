"""What a narrow or low screen shows: nothing is cut but names that may be long."""

import pytest

from browser import Page
from provider import reply

LONG = "accounts-fireworks-models-llama-v3p1-405b-instruct"

SCREENS = {"phone": (390, 844), "small phone": (320, 568), "phone on its side": (844, 390)}

# Buttons whose names are cut, and what is beyond the right edge.
CUT = """[...document.querySelectorAll("#composer button, article button")].filter((e) => {
    const isCut = e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > innerWidth;
    return e.checkVisibility() && isCut;
}).map((e) => e.innerText)"""

OVER = """[...document.querySelectorAll("#composer > div > *")].filter((e) => e.checkVisibility())
    .map((e) => e.getBoundingClientRect()).some(({ left }, at, all) => at && left < all[at - 1].right)"""


@pytest.fixture(params=SCREENS, ids=SCREENS)
def narrow(request, browser, server_with, provider):
    """The page on such a screen, where the model has a long name."""
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


def test_no_button_is_cut_or_lies_over_another(narrow, provider):
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
    assert page.texts(".user .tools button") == ["Copy", "Retry", "Fork", "Edit"]
    assert page.run(CUT) == [] and not page.run(OVER)
    assert page.run("document.documentElement.scrollWidth") == page.run("innerWidth")


def test_a_finger_has_no_use_for_a_list_of_keys(narrow):
    page = narrow
    if page.find("#chats").is_displayed():
        page.find("#chats").click()
    page.wait(lambda: page.find("#usage-button").is_displayed())
    assert not page.find("#shortcuts").is_displayed()
