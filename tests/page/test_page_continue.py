"""An incomplete reply on the page at `/`: it is continued, by the server itself or when the user
asks."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, WORDS, Page
from provider import REFUSED, cut, reply, status

BUTTONS = "[...document.querySelectorAll('article:last-child footer button')].map((e) => e.ariaLabel ?? e.textContent)"
pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
WENT_ON = "Resumed after an interruption."


def offers(page):
    """The buttons of the last reply, after its end."""
    page.wait(lambda: page.is_idle and page.run(BUTTONS))
    return page.run(BUTTONS)


def test_a_reply_cut_by_a_limit_is_continued_in_its_turn(page, provider):
    gate = threading.Event()
    provider.script = [reply("Once **upon", stop="length"), reply(gate, " a** ", gate, "time.")]
    page.say("Tell me a story")
    page.wait_for_turns("Tell me a story", "Once **upon")
    assert offers(page) == ["Continue", "Retry", "Copy", "Fork", "Ask another model"]
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    page.driver.execute_script("window.last = document.querySelector('article:last-child')")
    page.driver.execute_script("[...document.querySelectorAll('.again')].at(-2).focus()")
    page.press(Keys.ENTER)
    page.wait(lambda: page.texts(".dots"))
    assert page.shows("#stop-reply") and page.focused == "text" and page.run(BUTTONS) == []
    assert page.find("article:last-child").get_attribute("aria-busy") == "true"
    assert page.turns == ["Tell me a story", "Once **upon"]
    gate.set()
    page.wait_for_turns("Tell me a story", "Once upon a time.")
    assert offers(page) == ["Copy", "Retry", "Fork", "Ask another model"]
    assert page.texts("article:last-child .note")[0] == WENT_ON and page.texts(".alarm") == []
    assert page.run("window.last === document.querySelector('article:last-child')")
    page.wait(lambda: page.run("window.heard.length"))
    assert "story" not in str(page.run("window.heard")) and page.run(
        "window.heard"
    ).pop().startswith("Once upon a time.\nResumed")
    page.driver.refresh()
    page.wait_for_turns("Tell me a story", "Once upon a time.")
    page.wait_for_text(WENT_ON, "article:last-child footer")


def test_a_continued_reply_can_be_stopped_and_continued_again(page, provider):
    provider.script = [reply("Once ", stop="length"), reply(*WORDS), reply("the end.")]
    page.say("Tell me a story")
    page.wait_for_turns("Tell me a story", "Once ")
    page.click("Continue")
    page.wait_for_text("word2")
    page.click("Stop")
    assert offers(page) == ["Continue", "Retry", "Copy", "Fork", "Ask another model"]
    stopped = page.turns[1]
    assert stopped.startswith("Once word0 word1 word2 ") and provider.posts[1].hung_up.wait(5)
    page.click("Continue")
    page.wait_for_turns("Tell me a story", stopped + "the end.")
    assert page.texts("article:last-child .note").count(WENT_ON) == 1


def test_if_nothing_comes_the_turn_stays_and_the_error_is_shown(page, provider):
    whole = {
        "error": {
            "message": "This model's maximum context length is 9 tokens.",
            "code": "context_length_exceeded",
        }
    }
    provider.script = [cut("Half"), REFUSED, REFUSED, status(400, whole), reply(" and whole.")]
    page.say("Hello")
    assert offers(page) == ["Continue", "Retry", "Copy", "Fork", "Ask another model"]
    for problem in ("Not today.", "Start a new message"):
        page.click("Continue")
        page.wait_for_text(problem, "#notice")
        assert offers(page) == ["Continue", "Retry", "Copy", "Fork", "Ask another model"]
        assert page.turns == ["Hello", "Half"] and "broke the connection" in page.text(".alarm")
        assert page.focused == "text"
    page.click("Continue")
    page.wait_for_turns("Hello", "Half and whole.")
    assert page.texts(".alarm") == [] and page.text("#notice") == ""


def test_an_empty_or_complete_reply_offers_no_continue(page, provider):
    provider.script = [REFUSED]
    page.say("One")
    assert offers(page) == ["Retry", "Fork", "Ask another model"]
    page.say("Two")
    page.wait_for_turns("One", "", "Two", "The answer.")
    assert offers(page) == ["Copy", "Retry", "Fork", "Ask another model"]


def test_a_reply_that_was_continued_elsewhere_is_shown_as_it_is_now(page, provider):
    provider.script = [reply("Half", stop="length"), reply(" and whole.")]
    page.say("One")
    page.wait_for_turns("One", "Half")
    session = page.user.get("/sessions").json()["data"][0]
    assert page.user.post(f"/sessions/{session['id']}/continue").status_code == 201
    page.user.post(f"/sessions/{session['id']}/messages", {"content": "Two"})
    page.click("Continue")
    page.wait_for_text("This chat has continued elsewhere", "#notice")
    page.wait_for_turns("One", "Half and whole.", "Two", "The answer.")


def test_an_automatic_continuation_is_mentioned_once(page, provider):
    provider.script = [cut("One "), cut("two "), reply("three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One two three.")
    page.wait_for_text("tokens read", "article:last-child")
    assert page.texts("article:last-child .note").count(WENT_ON) == 1 and page.texts(".alarm") == []
    assert offers(page) == ["Copy", "Retry", "Fork", "Ask another model"]


@pytest.mark.parametrize(
    "behind, pieces",
    [(b"", ["two."]), (b"\r\n\r\n", [0.5, "two."]), (None, ["two ", 0.5, "three."])],
    ids=["before the answer", "behind its headers", "in its middle"],
)
def test_a_continued_reply_is_read_once_if_the_connection_breaks(
    behind, pieces, browser, server, provider, proxy
):
    page = Page(browser, server, proxy.url).enter()
    provider.script = [reply("One ", stop="length"), reply(*pieces)]
    page.say("Count")
    page.wait_for_turns("Count", "One ")
    page.click("Continue") if behind is None else page.driver.execute_script(HOLD, "continue")
    if behind is None:
        page.wait_for_text("One two")
        proxy.cut()
    else:
        page.click("Continue")
        page.wait(lambda: page.run("window.held.length"))
        proxy.cut_behind = behind
        page.driver.execute_script(RELEASE)
    page.wait_for_turns(
        "Count", "One " + "".join(piece for piece in pieces if isinstance(piece, str))
    )
    assert proxy.cut_behind is None and len(provider.posts) == 2
    assert offers(page) == ["Copy", "Retry", "Fork", "Ask another model"]


def test_a_continued_reply_is_not_shown_twice_if_the_connection_breaks_before_its_end(
    browser, server, provider, proxy
):
    """It breaks after the headers, so the events that come next start at the beginning."""
    gate = threading.Event()
    page = Page(browser, server, proxy.url).enter()
    provider.script = [reply("One ", stop="length"), reply("two ", gate, "three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One ")
    page.driver.execute_script(HOLD, "continue")
    page.click("Continue")
    page.wait(lambda: page.run("window.held.length"))
    proxy.cut_behind = b"\r\n\r\n"
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns == ["Count", "One two "])
    gate.set()
    page.wait_for_turns("Count", "One two three.")
    assert proxy.cut_behind is None and len(provider.posts) == 2
