"""The versions of a reply: what a retry has replaced is shown in its place, to be read, copied and
forked."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from provider import reply, status, thought

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

LAST = "article:last-child"
TOOLS = """[...document.querySelectorAll(`${arguments[0]} .tools button`)]
    .filter((e) => e.checkVisibility()).map((e) => e.ariaLabel ?? e.textContent)"""
FOCUSED = "document.activeElement.ariaLabel"
HEARD = "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
LOOK = "dispatchEvent(new Event('focus'))"
FETCHED = """performance.getEntriesByType("resource").map(({ name }) => name)
    .filter((name) => name.endsWith("/versions")).length"""
COPIES = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
EARLIER = "An earlier version. To go on from it, use Fork."


@pytest.fixture
def retried(page, provider):
    """The page with a reply of three versions, of which m-2 wrote the second."""
    page.wait_for_text("m-1", "#model")
    provider.script = [reply("**One**."), reply(thought(reasoning="Hm."), "Two."), reply("Three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One.")
    retry(page, "m-2", "Two.")
    retry(page, "m-1", "Three.")
    page.original = page.user.get("/sessions").json()["data"][0]
    return page


def retry(page, model, text):
    page.find("#model").send_keys(model, Keys.TAB)
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": model})
    page.click("Retry")
    page.wait_for_turns("Count", text)


def press(page, name, text, selector=LAST):
    """Press the button of the last reply, and wait until it shows this text."""
    page.find(f"{selector} [aria-label='{name} version']").click()
    page.wait(lambda: page.text(f"{selector} > .text") == text)


def number(page, selector=LAST):
    return page.text(f"{selector} [role=group] > span")


def test_earlier_versions_are_read_in_the_place_of_the_reply(retried):
    page = retried
    page.driver.execute_script(HEARD)
    assert number(page) == "3/3" and page.shows(f"{LAST} [value=later]:disabled")
    tools = page.run(TOOLS, LAST)
    assert tools == ["Copy", "Retry", "Fork", "Ask another model"]
    press(page, "Previous", "Two.")
    assert number(page) == "2/3"
    assert page.text(f"{LAST} bdi") == "m-2"
    assert page.run(TOOLS, LAST) == ["Copy", "Fork"]
    assert EARLIER in page.text(f"{LAST} footer")
    assert page.run(FOCUSED) == "Previous version"
    press(page, "Previous", "One.")
    assert page.text(f"{LAST} strong") == "One"
    assert page.run(FOCUSED) == "Next version" and page.shows(f"{LAST} [value=earlier]:disabled")
    page.press(Keys.ENTER)
    page.wait(lambda: page.text(f"{LAST} > .text") == "Two.")
    page.press(Keys.ENTER)
    page.wait(lambda: page.text(f"{LAST} > .text") == "Three.")
    assert page.run(FOCUSED) == "Previous version"
    assert page.run(TOOLS, LAST) == tools and page.text(f"{LAST} bdi") == "m-1"
    assert EARLIER not in page.text(f"{LAST} footer")
    heard = [f"Version {number} of 3" for number in (2, 1, 2, 3)]
    assert page.run("window.heard") == heard and page.run(FETCHED) == 1


def test_a_reload_shows_the_newest(retried):
    page = retried
    press(page, "Previous", "Two.")
    page.driver.refresh()
    page.wait_for_turns("Count", "Three.")
    assert number(page) == "3/3"
    press(page, "Previous", "Two.")


def test_a_version_has_its_own_thinking_and_is_copied(retried):
    page = retried
    page.driver.execute_script(COPIES)
    assert not page.texts(f"{LAST} .thinking")
    press(page, "Previous", "Two.")
    page.find(f"{LAST} summary").click()
    page.wait(lambda: page.text(f"{LAST} .thinking .text") == "Hm.")
    press(page, "Previous", "One.")
    assert not page.texts(f"{LAST} .thinking")
    page.find(f"{LAST} [value=copy]").click()
    page.wait(lambda: page.run("window.copied") == "**One**.")


def test_a_chat_goes_on_from_an_earlier_version_in_a_copy(retried, provider):
    page = retried
    press(page, "Previous", "Two.")
    page.find(f"{LAST} [value=fork]").click()
    page.wait_for_text("This continues in a copy of the chat.", "#notice")
    page.wait_for_turns("Count", "Two.")
    page.say("Go on")
    page.wait_for_turns("Count", "Two.", "Go on", "The answer.")
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Count", "Two.", "Go on"]
    page.driver.back()
    page.wait_for_turns("Count", "Three.")


def test_a_message_is_sent_after_the_newest_which_is_shown_again(retried, provider):
    page = retried
    press(page, "Previous", "Two.")
    page.say("Go on")
    page.wait_for_turns("Count", "Three.", "Go on", "The answer.")
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Count", "Three.", "Go on"]
    reply_before = "article:nth-child(2)"
    assert number(page, reply_before) == "3/3"
    press(page, "Previous", "Two.", reply_before)
    page.driver.execute_script(LOOK)
    page.say("And on")
    page.wait_for_turns("Count", "Three.", "Go on", "The answer.", "And on", "The answer.")


def release(page):
    """Let the next request through that is held."""
    page.wait(lambda: page.run("window.held.length"))
    page.driver.execute_script(RELEASE)


def test_a_look_at_another_tab_changes_nothing_until_the_reply_is_another(retried, provider):
    page = retried
    press(page, "Previous", "Two.")
    page.driver.execute_script(HOLD, "?turns")
    page.driver.execute_script(LOOK)
    release(page)

    def looks_again():  # which it does not before it has looked
        page.driver.execute_script(LOOK)
        return page.run("window.count") == 2

    page.wait(looks_again)
    assert page.turns == ["Count", "Two."]
    provider.script = [reply("Four.")]
    page.user.post(f"/sessions/{page.original['id']}/retry")
    release(page)  # sees the new reply
    release(page)  # fetches the chat
    page.wait_for_turns("Count", "Four.")
    assert number(page) == "4/4"
    press(page, "Previous", "Three.")


def test_a_failed_retry_leaves_the_versions(retried, provider):
    page = retried
    press(page, "Previous", "Two.")
    press(page, "Next", "Three.")
    provider.script = [status(400, {"error": {"message": "No."}})]
    page.click("Retry")
    page.wait_for_text("No.", "#notice")
    page.wait_for_turns("Count", "Three.")
    assert number(page) == "3/3"


def test_a_search_finds_the_words_in_the_newest(retried):
    page = retried
    press(page, "Previous", "Two.")
    page.driver.execute_script("document.getElementById('list').replaceChildren()")
    page.find("#search").send_keys("Three")
    page.wait(lambda: page.titles == ["Count"])
    page.click("Count")
    page.wait_for_turns("Count", "Three.")
    marks = "[...CSS.highlights.get('found')].map(({ startContainer }) => startContainer.data)"
    page.wait(lambda: page.run(marks) == ["Three."])


def test_a_reply_that_continues_keeps_its_versions(page, provider):
    provider.script = [reply("One."), reply("Two", stop="length"), reply(" and a half.")]
    page.say("Count")
    page.wait_for_turns("Count", "One.")
    page.click("Retry")
    page.wait_for_turns("Count", "Two")
    press(page, "Previous", "One.")
    press(page, "Next", "Two")
    page.click("Continue")
    page.wait_for_turns("Count", "Two and a half.")
    press(page, "Previous", "One.")
    press(page, "Next", "Two and a half.")


def test_versions_that_cannot_be_fetched_are_asked_for_again(retried):
    page = retried
    page.driver.execute_script("""
        const ask = fetch;
        const none = { errors: [{ status: "404", title: "Not Found", detail: "There is no such turn." }] };
        const answers = [() => Response.json(none, { status: 404, headers: { "X-Request-ID": "x" } })];
        window.fetch = (path, options) =>
            ((path.endsWith("versions") && answers.shift()) || ask)(path, options);
    """)
    page.click("Previous version")
    page.wait_for_text("There is no such turn.", "#notice:not(.faint)")
    assert page.turns == ["Count", "Three."] and page.run(FOCUSED) == "Previous version"
    press(page, "Previous", "Two.")
    assert page.text("#notice") == ""


def test_two_presses_go_back_twice_with_one_request(retried):
    page = retried
    page.driver.execute_script(HOLD, "versions")
    for _ in range(2):
        page.click("Previous version")
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("Count", "One.")
    assert page.run("window.count") == 1


def test_the_buttons_stay_in_their_place_above_other_turns(browser, server, provider):
    page = Page(browser, server).enter()
    provider.script = [reply("Line.\n\n" * 40), reply("Short."), reply("More.\n\n" * 30)]
    page.say("Count")
    page.wait(lambda: page.is_idle and len(page.turns) == 2)
    page.click("Retry")
    page.wait_for_turns("Count", "Short.")
    page.say("Go on")
    page.wait(lambda: page.is_idle and len(page.turns) == 4)
    page.driver.execute_script("document.getElementById('thread').scrollTo(0, 0)")
    group = "document.querySelector('.versions').getBoundingClientRect().top"
    for name in ("Previous", "Next", "Previous"):
        page.find(f"[aria-label='{name} version']").click()
        page.wait(lambda: page.run(FOCUSED) != f"{name} version")
        top, height = page.run(group), page.run("innerHeight")
        assert 0 < top < height, (name, top)


def test_versions_are_readable_narrow_and_not_printed(retried, check):
    page = retried
    check("the newest version")
    press(page, "Previous", "Two.")
    check("an earlier version")
    cdp = page.driver.execute_cdp_cmd
    cdp(
        "Emulation.setDeviceMetricsOverride",
        {"width": 320, "height": 568, "deviceScaleFactor": 1, "mobile": True},
    )
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        sizes = page.run(
            "[...document.querySelectorAll('.versions button')].map((e) => [e.offsetWidth, e.offsetHeight])"
        )
        assert all(width >= 44 and height >= 44 for width, height in sizes)
        assert page.run("document.documentElement.scrollWidth") == 320
    finally:
        cdp("Emulation.setTouchEmulationEnabled", {"enabled": False})
        cdp("Emulation.clearDeviceMetricsOverride", {})
    cdp("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.shows(f"{LAST} > .text") and not page.shows(".versions")
    finally:
        cdp("Emulation.setEmulatedMedia", {"media": ""})
