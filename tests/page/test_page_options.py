"""Copy buttons, days, colours, options, and the details of a reply."""

import pytest
from selenium.webdriver.common.keys import Keys

from provider import reply
from providers.options import OPTIONS

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


def test_code_and_replies_are_copied_as_they_are_stored(page, provider):
    text = "Run:\n\n```sh\necho  <b> && ls\n```\n\n**Done**"
    provider.script = [reply(text)]
    page.say("How?")
    page.wait_for_text(
        "tokens read", "article:last-child"
    )  # it has ended: nothing is drawn anew under the click
    page.find("figcaption button").click()
    page.wait_for_text("Copied", "figcaption")
    page.find("#text").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.run("document.getElementById('text').value") == "echo  <b> && ls")
    page.find("#text").clear()
    page.find("footer button").click()
    page.wait(lambda: "Copied" in page.names("footer button"))
    page.find("#text").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.run("document.getElementById('text').value") == text)


def test_sessions_are_grouped_by_day(page):
    page.user.create("Hello")
    for days, name in ((0, "Today"), (1, "Yesterday"), (2, "Previous 7 days")):
        page.driver.execute_script(
            f"window.now ??= Date.now; Date.now = () => window.now() + {days} * 86400000"
        )
        page.find("#search").send_keys(" ")
        page.wait(lambda: page.texts("#list h2") == [name])


def test_colours_are_chosen_and_kept(page):
    def ground():
        return page.run("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.find("#account-button").click()
    page.find("#theme").send_keys("Dark", Keys.TAB)
    page.wait(lambda: ground() != light)
    dark = ground()
    page.driver.refresh()
    assert ground() == dark
    page.driver.execute_script("localStorage.removeItem('theme')")


# Options


def test_options_apply_from_the_next_reply_on_and_an_empty_field_clears_one(page, provider):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.find("#temperature").send_keys("0.5")
    page.find("#max_tokens").send_keys("100")
    page.find("#reasoning_effort").send_keys("low")
    page.driver.refresh()  # unsent options stay
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    [session] = page.user.get("/sessions").json()["data"]
    assert options_of(page, session) == {
        "temperature": 0.5,
        "max_tokens": 100,
        "reasoning_effort": "low",
    }
    page.click("Settings")
    page.find("#max_tokens").clear()
    page.find("#temperature").clear()
    page.find("#temperature").send_keys("0")
    page.click("Save")
    page.wait(lambda: not page.shows("#settings"))
    assert options_of(page, session) == {"temperature": 0, "reasoning_effort": "low"}
    page.driver.refresh()
    page.wait_for_turns("Hello", "The answer.")
    page.click("Settings")
    fields = "['temperature', 'max_tokens', 'reasoning_effort'].map((name) => document.getElementById(name).value)"
    assert page.run(fields) == ["0", "", "low"]
    page.press(Keys.ESCAPE)
    page.click("New chat")  # which has those that were saved last
    page.wait(lambda: page.turns == [])
    assert page.run(fields) == ["0", "", "low"]
    page.click("Settings")
    for name in ("temperature", "reasoning_effort"):
        page.find(f"#{name}").clear()
    page.press(Keys.ESCAPE)
    page.say("More")
    page.wait_for_turns("More", "The answer.")
    assert options_of(page, page.user.get("/sessions").json()["data"][0]) == {}
    assert [post.body.get("temperature") for post in provider.posts] == [0.5, None]


def test_the_page_has_a_field_for_each_option(page):
    assert page.run(
        "[...document.querySelectorAll('#options :is(input, textarea)')].map(({ id }) => id)"
    ) == [*OPTIONS]


def test_stop_texts_are_shown_and_kept_as_they_are(page, provider):
    """A line of the field is a text; a new line and a backslash in it are escaped."""
    stops = ["END", "\n\n", "C:\\new ", " "]
    session = page.user.create("Hello", options={"stop": stops, "seed": 2**53 - 1, "top_p": 0.25})
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("Hello", "The answer.")
    page.click("Settings")
    assert page.find("#stop").get_attribute("value") == "END\n\\n\\n\nC:\\\\new \n "
    page.click("Save")
    page.wait(lambda: not page.shows("#settings"))
    kept = {"stop": stops, "seed": 2**53 - 1, "top_p": 0.25}
    assert options_of(page, session) == kept
    page.click("Settings")
    page.find("#stop").clear()
    page.find("#stop").send_keys("x" * 101)
    page.click("Save")
    page.wait(lambda: page.text("#stop-fault"))
    assert (page.focused, options_of(page, session)) == ("stop", kept)
    page.find("#stop").clear()
    page.click("Save")
    page.wait(lambda: not page.shows("#settings"))
    assert options_of(page, session) == {"seed": 2**53 - 1, "top_p": 0.25}


def options_of(page, session):
    return page.user.get(f"/sessions/{session['id']}").json()["options"]


def test_a_refused_option_says_so_at_its_field(page):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.find("#temperature").send_keys("7")
    page.find("#settings .main").click()
    page.wait(lambda: not page.shows("#settings"))
    page.say("Hello")  # the settings open again if the new session was refused
    page.wait(lambda: page.text("#temperature-fault"))
    assert (page.focused, page.text("#notice"), page.turns) == ("temperature", "", [])
    assert page.find("#temperature").get_attribute("aria-invalid") == "true"
    assert page.find("#text").get_attribute("value") == "Hello"
    page.press(Keys.BACKSPACE, "1", Keys.ENTER)
    page.wait(lambda: not page.shows("#settings"))
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.")
    page.click("Settings")
    page.find("#temperature").send_keys("7")
    page.click("Save")
    page.wait(lambda: page.text("#temperature-fault"))
    assert page.shows("#settings") and page.text("#notice") == ""
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.shows("#settings"))
    page.click("Settings")
    assert page.text("#temperature-fault") == ""


def test_a_reply_cut_by_a_limit_says_so(page, provider):
    provider.script = [reply("Half a", stop="length"), reply("Whole.")]
    page.say("Talk")
    page.wait_for_text("Cut off at the token limit", "article:last-child footer")
    page.driver.refresh()
    page.wait_for_text("Cut off at the token limit", "article:last-child footer")
    page.click("Retry")
    page.wait_for_turns("Talk", "Whole.")
    assert "Cut off at the token limit" not in page.text("#turns")
