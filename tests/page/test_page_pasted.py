"""Long pasted texts are kept apart from what is typed, and the field stays fast."""

import itertools
import statistics

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, LOSE_ANSWERS, RELEASE, paste
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

LOG = "a line of a log, which has its number\n" * 13_000  # 494 kB
BOOK = "and so on " * 50_000  # in one paragraph
SHORT = "a few lines\n" * 1000


def pasted(page):
    return page.texts("#pasted li button:first-child")


def wait_for_pasted(page, *names):
    page.wait(lambda: pasted(page) == list(names), f"{names} did not come")


def typed(page):
    return page.run("document.getElementById('text').value")


def spent(page, on="TaskDuration"):
    """The milliseconds that the page's own thread has spent on its tasks, or on layout."""
    page.driver.execute_async_script(
        "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    )
    page.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * next(each["value"] for each in metrics if each["name"] == on)


def time_of_a_key(page):
    """The milliseconds that the page's own thread needs for a key: the median of nine."""
    key = {"key": "a", "code": "KeyA", "windowsVirtualKeyCode": 65}
    times = [spent(page)]
    for _ in range(9):
        page.driver.execute_cdp_cmd(
            "Input.dispatchKeyEvent", {"type": "keyDown", "text": "a"} | key
        )
        page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp"} | key)
        times.append(spent(page))
    return statistics.median(after - before for before, after in itertools.pairwise(times))


@pytest.mark.parametrize("text", [LOG, BOOK], ids=["lines", "one line"])
def test_a_long_text_goes_before_the_message_and_typing_stays_fast(text, page, provider):
    page.wait_for_text("m-1", "#model")
    paste(page, text)
    page.wait(lambda: pasted(page))
    assert typed(page) == ""
    assert time_of_a_key(page) < 16
    before = spent(page, "LayoutDuration")
    page.press(Keys.ENTER)
    page.wait_for_turns(text + "\n\n" + "a" * 9, "The answer.")
    assert spent(page, "LayoutDuration") - before < 500
    assert provider.posts[0].body["messages"] == [
        {"role": "user", "content": text + "\n\n" + "a" * 9}
    ]
    assert pasted(page) == [] and typed(page) == ""


def test_a_short_text_is_typed_unless_it_fills_the_field(page):
    paste(page, SHORT)
    page.wait(lambda: typed(page) == SHORT)
    paste(page, SHORT)
    wait_for_pasted(page, "Pasted text, 12 kB")
    paste(page, "a word")
    page.wait(lambda: typed(page) == SHORT + "a word")


def test_a_pasted_text_can_be_read_and_removed(page):
    paste(page, LOG)
    wait_for_pasted(page, "Pasted text, 494 kB")
    paste(page, "ab\r\n" * 10_000)
    wait_for_pasted(page, "Pasted text, 494 kB", "Pasted text, 30 kB")
    page.find("#pasted li:last-child button").click()
    page.wait_for_text("Pasted text, 30 kB", "dialog")
    assert page.run("document.querySelector('dialog .raw').textContent") == "ab\n" * 10_000
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    page.click("Remove: Pasted text, 494 kB")
    wait_for_pasted(page, "Pasted text, 30 kB")
    assert page.focused == "text"


def test_a_pasted_text_is_part_of_the_draft(page, provider):
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    paste(page, LOG)
    page.press("What is it?")
    wait_for_pasted(page, "Pasted text, 494 kB")
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    assert pasted(page) == [] and typed(page) == ""
    page.driver.back()
    page.wait_for_turns("First", "The answer.")
    wait_for_pasted(page, "Pasted text, 494 kB")
    page.driver.refresh()
    wait_for_pasted(page, "Pasted text, 494 kB")
    assert typed(page) == "What is it?"
    page.press(Keys.ENTER)
    page.wait_for_turns("First", "The answer.", LOG + "\n\nWhat is it?", "The answer.")
    page.driver.refresh()
    page.wait_for_turns("First", "The answer.", LOG + "\n\nWhat is it?", "The answer.")
    assert pasted(page) == [] and typed(page) == ""


def test_a_refused_message_comes_back_with_its_pasted_text(page):
    page.wait_for_text("m-1", "#model")
    for _ in range(3):
        paste(page, LOG)
    page.wait(lambda: len(pasted(page)) == 3)
    page.press("What is it?", Keys.ENTER)
    page.wait_for_text("Send at most", "#notice")
    assert len(pasted(page)) == 3 and typed(page) == "What is it?"
    page.driver.refresh()
    page.wait(lambda: len(pasted(page)) == 3)
    assert typed(page) == "What is it?"


def test_a_text_that_is_pasted_during_sending_belongs_to_the_next_message(page, provider):
    page.wait_for_text("m-1", "#model")
    provider.script = [reply("Good.")]
    page.driver.execute_script(HOLD, "sessions")
    paste(page, LOG)
    wait_for_pasted(page, "Pasted text, 494 kB")
    page.press("One", Keys.ENTER)
    page.wait(lambda: page.run("window.held.length") == 1)
    assert pasted(page) == []
    paste(page, "x" * 30_000)
    page.press("Two")
    wait_for_pasted(page, "Pasted text, 30 kB")
    page.driver.execute_script(RELEASE)
    page.wait_for_turns(LOG + "\n\nOne", "Good.")
    page.driver.refresh()
    wait_for_pasted(page, "Pasted text, 30 kB")
    assert typed(page) == "Two"


def test_a_pasted_text_that_has_arrived_is_not_given_back(page, provider):
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    page.driver.execute_script(LOSE_ANSWERS)
    paste(page, LOG)
    wait_for_pasted(page, "Pasted text, 494 kB")
    page.press("What is it?", Keys.ENTER)
    page.wait_for_text("The connection is lost", "#connection")
    page.driver.refresh()
    page.wait_for_turns("First", "The answer.", LOG + "\n\nWhat is it?", "The answer.")
    assert pasted(page) == [] and typed(page) == ""


def test_editing_the_end_of_a_long_message_is_as_fast(page, provider):
    page.wait_for_text("m-1", "#model")
    paste(page, LOG)
    wait_for_pasted(page, "Pasted text, 494 kB")
    page.press("What is it?", Keys.ENTER)
    page.wait_for_turns(LOG + "\n\nWhat is it?", "The answer.")
    page.click("Edit")
    page.wait_for_text("494 kB before this stay", "article form")
    assert page.run("document.activeElement.value") == "What is it?"
    assert time_of_a_key(page) < 16
    page.driver.refresh()
    field = "document.querySelector('article textarea')?.value"
    page.wait(lambda: page.run(field) == "What is it?" + "a" * 9)
    page.find("article textarea").send_keys(Keys.ENTER)
    page.wait_for_turns(LOG + "\n\nWhat is it?" + "a" * 9, "The answer.")
    assert provider.posts[1].body["messages"][0]["content"].endswith("?" + "a" * 9)
    page.click("Edit")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("article form"))
