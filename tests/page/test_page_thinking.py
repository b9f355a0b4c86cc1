"""A model's thinking: a line above its answer that can be opened. It is no part of the answer."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from provider import reply, thought

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

LINE, TEXT = "article:last-child .thinking summary", "article:last-child .thinking .text"
ANSWER = "article:last-child > .text"
FETCHED = """performance.getEntriesByType("resource").map(({ name }) => name)
    .filter((name) => name.endsWith("/thinking"))"""


def test_it_is_one_line_that_a_key_opens_during_the_reply_and_afterwards(page, provider):
    more, answer = threading.Event(), threading.Event()
    provider.script = [
        reply(thought(reasoning="Hm, **first**."), more, thought(reasoning=" So."), answer, "Word.")
    ]
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    page.say("Think")
    page.wait(lambda: page.text(LINE).startswith("Thinking… "))
    assert not page.shows(TEXT)
    page.find(LINE).send_keys(Keys.ENTER)
    page.wait(lambda: page.text(TEXT) == "Hm, first.")
    assert page.text(f"{TEXT} strong") == "first"
    more.set()
    page.wait(lambda: page.text(TEXT) == "Hm, first. So.")
    answer.set()
    page.wait_for_turns("Think", "Word.")
    assert page.text(LINE) == "Thought for 1 s"
    assert page.text(TEXT) == "Hm, first. So."
    assert page.run(FETCHED) == []
    page.wait(lambda: len(page.run("window.heard")) == 2)
    assert [heard.splitlines()[0] for heard in page.run("window.heard")] == ["Thinking…", "Word."]


def test_the_text_of_an_earlier_reply_is_fetched_when_it_is_opened(page, provider):
    provider.script = [reply(thought(reasoning="Hm, **first**."), "Word.")]
    page.say("Think")
    page.wait_for_turns("Think", "Word.")
    page.driver.refresh()
    page.wait(lambda: page.text(LINE) == "Thought for 1 s")
    assert page.run(FETCHED) == []
    page.find(LINE).click()
    page.wait(lambda: page.text(f"{TEXT} strong") == "first")
    assert len(page.run(FETCHED)) == 1
    page.find(LINE).click()
    page.wait(lambda: not page.shows(TEXT))
    page.find(LINE).click()
    page.wait(lambda: page.shows(TEXT))
    assert len(page.run(FETCHED)) == 1


def test_a_copy_and_a_print_have_only_the_answer(page, provider):
    provider.script = [reply(thought(reasoning="Hm."), "Word.")]
    page.say("Think")
    page.wait_for_turns("Think", "Word.")
    page.find(LINE).click()
    page.wait(lambda: page.text(TEXT) == "Hm.")
    page.find("article:last-child footer button").click()
    page.wait(lambda: "Copied" in page.names("footer button"))
    page.find("#text").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.run("document.getElementById('text').value") == "Word.")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.shows(ANSWER) and not page.shows(LINE)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_text_that_was_taken_for_thinking_is_shown_as_text(page, provider):
    gate = threading.Event()
    provider.script = [reply("<think>Hm.", gate, " Hello.")]
    page.say("Think")
    page.wait(lambda: page.text(LINE).startswith("Thinking… "))
    gate.set()
    page.wait_for_turns("Think", "<think>Hm. Hello.")
    assert not page.shows(LINE)


def test_thinking_that_is_read_while_it_comes_stays_at_its_end(page, provider):
    """500 words a second, in paragraphs as models write them."""
    go, answer = threading.Event(), threading.Event()
    words = "Let me see what this is about, and then go on with it."
    paragraphs = [thought(reasoning=f"{words} {number}\n\n") for number in range(200)]
    slow = [part for paragraph in paragraphs for part in (paragraph, 0.026)]
    provider.script = [reply(thought(reasoning="Hm.\n\n"), go, *slow, answer, "Word.")]
    page.say("Think")
    page.wait(lambda: page.text(LINE).startswith("Thinking… "))
    page.find(LINE).send_keys(Keys.ENTER)
    page.wait(lambda: page.text(TEXT) == "Hm.")
    go.set()
    page.wait(lambda: page.text(TEXT).endswith(" 199"))
    page.wait(lambda: page.gap < 2)
    answer.set()
    page.wait_for_turns("Think", "Word.")
    page.wait(lambda: page.gap < 2)


def test_thinking_that_is_opened_above_the_end_stays_in_view(page, provider):
    provider.script = [reply(thought(reasoning="Hm.\n\n" * 200), "Word.")]
    page.say("Think")
    page.wait_for_turns("Think", "Word.")
    place = f"document.querySelector({LINE!r}).getBoundingClientRect().top"
    before = page.run(place)
    page.find(LINE).click()
    page.wait(lambda: page.text(TEXT).startswith("Hm."))
    page.wait(lambda: page.gap > 1000)
    assert abs(page.run(place) - before) < 5


def test_thinking_is_readable_and_named(page, provider, check):
    provider.script = [reply(thought(reasoning="Hm, `code`, [link](https://x.example)."), "Word.")]
    page.say("Think")
    page.wait_for_turns("Think", "Word.")
    page.find(LINE).click()
    page.wait(lambda: page.text(TEXT).startswith("Hm, "))
    check("a reply with its thinking")
