"""A chat continues in a copy of itself, from any turn, or with another message instead of the
one that was sent."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from provider import reply, status

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

COPIED = "This continues in a copy of the chat."
FORKS = "[...document.querySelectorAll('article')].map((e) => [...e.querySelectorAll('button')].filter((e) => e.value === 'fork' && e.checkVisibility()).length)"


@pytest.fixture
def talked(page, talk):
    """The page with a chat of two messages and their replies."""
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.press("Be kind.")
    page.find("#temperature").send_keys("0.5")
    page.click("Save")
    return talk()


def press_fork(page, place):
    """Press the button of the turn at this position, counted from 1."""
    page.find(f"article:nth-child({place}) [value=fork]").click()


def edit(page, place, *keys):
    page.find(f"article:nth-child({place}) .edit").click()
    page.press(*keys)


def stays_as_it_was(page):
    turns = page.user.turns(page.original)
    return [turn["content"] for turn in turns] == ["First", "One.", "Second", "Two."]


def test_a_chat_forked_at_a_reply_continues(talked, provider):
    page = talked
    assert page.run(FORKS) == [1, 1, 1, 1]
    press_fork(page, 2)
    page.wait_for_turns("First", "One.")
    page.wait_for_text(COPIED, "#notice.faint")
    assert page.focused == "text" and page.original["id"] not in page.driver.current_url
    page.wait(lambda: sorted(page.titles) == ["First", "First (2)"])
    page.say("Other")
    page.wait_for_turns("First", "One.", "Other", "The answer.")
    asked = provider.posts[-1].body
    assert [message["content"] for message in asked["messages"]] == [
        "Be kind.",
        "First",
        "One.",
        "Other",
    ]
    assert asked["temperature"] == 0.5
    assert stays_as_it_was(page)
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.")


TITLES = [
    ("First", ["First (2)", "First (3)"]),
    ("Second (9)", ["Second (10)", "Second (11)"]),
    ("Euro (2024)", ["Euro (2024) (2)", "Euro (2024) (3)"]),
    ("💶" * 200, ["💶" * 190 + " (2)", "💶" * 190 + " (3)"]),
]


@pytest.mark.parametrize(("title", "copies"), TITLES, ids=["none", "own", "year", "long"])
def test_copies_have_titles_of_their_own(title, copies, talked):
    page = talked
    page.user.request("PATCH", f"/sessions/{page.original['id']}", {"title": title})
    for copy in copies:
        press_fork(page, 2)
        page.wait_for_text(copy, "#title")
        page.driver.back()
        page.wait_for_turns("First", "One.", "Second", "Two.")
    page.wait(lambda: sorted(page.titles) == sorted([title, *copies]))
    stored = [session["title"] for session in page.user.get("/sessions").json()["data"]]
    assert sorted(stored) == sorted([title, *copies])


def test_a_copy_of_a_copy_counts_on(talked):
    page = talked
    for title in ("First (2)", "First (3)"):
        press_fork(page, 4)
        page.wait_for_text(title, "#title")
        page.wait_for_turns("First", "One.", "Second", "Two.")
    edit(page, 1, "!", Keys.ENTER)  # nothing is before it: a chat with a title of its own
    page.wait_for_turns("First!", "The answer.")
    page.wait(lambda: page.titles[0] == "First!")


def test_a_chat_forked_at_a_message_is_answered_on_request(talked, provider):
    page = talked
    press_fork(page, 3)  # which has no id yet: it was just sent
    page.wait_for_turns("First", "One.", "Second")
    page.click("Retry")
    page.wait_for_turns("First", "One.", "Second", "The answer.")
    assert [message["content"] for message in provider.posts[-1].body["messages"]][1:] == [
        "First",
        "One.",
        "Second",
    ]
    page.driver.refresh()
    page.wait_for_turns("First", "One.", "Second", "The answer.")
    assert stays_as_it_was(page)


def test_a_copy_that_ends_with_a_message_takes_it_edited_or_another(talked, provider):
    page = talked
    press_fork(page, 3)
    page.wait_for_turns("First", "One.", "Second")
    provider.script = [status(400, {"error": {"message": "No."}})]
    edit(page, 3, " thoughts", Keys.ENTER)
    page.wait_for_text("No.", "article:last-child")
    assert page.turns == ["First", "One.", "Second thoughts", ""]
    press_fork(page, 3)
    page.wait_for_turns("First", "One.", "Second thoughts")
    page.say("And more")
    page.wait_for_turns("First", "One.", "Second thoughts", "And more", "The answer.")
    assert stays_as_it_was(page)


def test_an_earlier_message_is_sent_edited_in_a_copy(talked, provider):
    page = talked
    page.say("Third")
    page.wait_for_turns("First", "One.", "Second", "Two.", "Third", "The answer.")
    edit(page, 3, " thoughts")
    assert page.text("article form small") == COPIED
    field = page.find("article textarea")
    assert field.get_attribute("aria-describedby") == "copied"
    page.press(Keys.ENTER)
    page.wait_for_turns("First", "One.", "Second thoughts", "The answer.")
    assert page.text("#notice.faint").startswith(COPIED)
    asked = provider.posts[-1].body
    assert [message["content"] for message in asked["messages"]] == [
        "Be kind.",
        "First",
        "One.",
        "Second thoughts",
    ]
    assert page.find("#text").get_attribute("value") == ""
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.", "Third", "The answer.")
    assert page.texts("article form") == []  # it was sent
    edit(page, 5, "!")
    assert page.texts("article form small") == []
    page.press(Keys.ENTER)
    page.wait_for_turns("First", "One.", "Second", "Two.", "Third!", "The answer.")


def test_the_first_message_is_sent_edited_in_a_chat_like_this_one(talked, provider):
    page = talked
    page.find("#model").send_keys("m-2", Keys.TAB)
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": "m-2"})
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.press("A draft of another chat")
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.")
    edit(page, 1, " of all", Keys.ENTER)
    page.wait_for_turns("First of all", "The answer.")
    asked = provider.posts[-1].body
    assert (asked["model"], asked["temperature"]) == ("m-2", 0.5)
    assert [message["content"] for message in asked["messages"]] == ["Be kind.", "First of all"]
    page.wait(lambda: page.titles == ["First of all", "First"])
    assert page.find("#text").get_attribute("value") == "A draft of another chat"
    page.click("Settings")
    assert page.text("#system") == "Be kind."
    page.press(Keys.ESCAPE)
    assert stays_as_it_was(page)


def test_a_chat_like_this_one_keeps_settings_that_were_typed_for_the_next_chat(talked):
    page = talked
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.click("Settings")
    page.press("Be brief.")
    page.find("#max_tokens").send_keys("77")
    page.press(Keys.ESCAPE)
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.")
    edit(page, 1, " of all", Keys.ENTER)
    page.wait_for_turns("First of all", "The answer.")
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.click("Settings")
    assert page.text("#system") == "Be brief."
    assert [
        page.find(f"#{name}").get_attribute("value") for name in ("max_tokens", "temperature")
    ] == ["77", "0.5"]


def test_an_edit_of_an_earlier_message_stays_if_the_page_is_reloaded(talked):
    page = talked
    edit(page, 1, " of")
    page.wait(lambda: page.run("document.querySelector('article').dataset.id"))
    page.press(" all")
    page.driver.refresh()
    page.wait(lambda: page.texts("article:first-child form"))
    assert page.run("document.querySelector('article textarea').value") == "First of all"
    assert (
        page.run(
            "[...document.querySelectorAll('.edit')].filter((e) => e.checkVisibility()).length"
        )
        == 0
    )
    page.find("article textarea").send_keys(Keys.ESCAPE)
    page.wait(lambda: page.texts("article form") == [])
    assert page.run("document.activeElement.ariaLabel") == "Edit" and page.turns[0] == "First"
    page.driver.refresh()
    page.wait_for_turns("First", "One.", "Second", "Two.")
    assert page.texts("article form") == []


def say_three(page):
    turns = []
    for text in ("First", "Second", "Third"):
        page.say(text)
        turns += [text, "The answer."]
        page.wait_for_turns(*turns)
    return turns


def test_an_edit_stays_if_no_copy_may_be_made(browser, server_with, provider):
    page = Page(browser, server_with(RATE_LIMIT="3/day")).enter()
    turns = say_three(page)
    edit(page, 3, "!", Keys.ENTER)
    page.wait_for_text("You may ask for 3 replies", "#notice")
    assert page.run("document.querySelector('article textarea').value") == "Second!"
    assert page.titles == ["First"]
    page.find("article textarea").send_keys(Keys.ESCAPE)
    page.wait_for_turns(*turns)


def test_a_message_that_cannot_be_answered_is_kept_in_the_copy(browser, server_with, provider):
    page = Page(browser, server_with(TOKEN_LIMIT="60/month")).enter()
    say_three(page)
    edit(page, 3, "!", Keys.ENTER)
    page.wait_for_text("You have used 66 of 60 tokens", "#notice")
    page.wait_for_turns("First", "The answer.")
    assert page.find("#text").get_attribute("value") == "Second!"
    page.driver.refresh()
    page.wait_for_turns("First", "The answer.")
    assert page.find("#text").get_attribute("value") == "Second!"


def test_a_copy_cannot_end_with_a_reply_in_progress(talked, provider):
    page = talked
    gate = threading.Event()
    provider.script = [reply("Three ", gate, "and on.")]
    page.say("Third")
    page.wait_for_text("Three", "article:last-child")
    assert page.run(FORKS) == [1, 1, 1, 1, 0, 0]
    press_fork(page, 4)  # an earlier one can be its end
    page.wait_for_turns("First", "One.", "Second", "Two.")
    gate.set()
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.", "Third", "Three and on.")


def test_another_chat_that_is_opened_meanwhile_stays(talked):
    page = talked
    page.driver.execute_script(HOLD, "fork")
    press_fork(page, 2)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.press("Something else")
    page.driver.execute_script(RELEASE)
    page.wait(lambda: sorted(page.titles) == ["First", "First (2)"])
    assert page.turns == [] and page.find("#text").get_attribute("value") == "Something else"


def test_a_copy_is_awaited_if_another_is_made_or_the_connection_is_lost(talked):
    page = talked
    page.driver.execute_script("""
        const ask = fetch;
        const busy = { errors: [{ status: "503", title: "Service Unavailable", detail: "One at a time." }] };
        const answers = [
            () => Response.json(busy, { status: 503, headers: { "Retry-After": "1", "X-Request-ID": "x" } }),
            async (...request) => { await ask(...request); throw new TypeError("lost"); },
        ];
        window.fetch = (path, options) => (path.endsWith("fork") && answers.shift() || ask)(path, options);
    """)
    press_fork(page, 2)
    page.wait_for_text("One at a time. Trying again", "#connection")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    page.wait_for_turns("First", "One.")
    assert page.text("#connection") == ""
    assert sorted(page.titles) == ["First", "First (2)"]  # and no second copy


def test_a_button_that_is_pressed_twice_makes_one_copy(talked):
    page = talked
    page.driver.execute_script(HOLD, "fork")
    press_fork(page, 2)
    press_fork(page, 2)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("First", "One.")
    page.wait(lambda: sorted(page.titles) == ["First", "First (2)"])
    assert page.run("window.count") == 1


def test_a_turn_that_is_gone_says_so(talked):
    page = talked
    page.user.post(f"/sessions/{page.original['id']}/retry", {"content": "Second"})
    press_fork(page, 4)  # another reply is there now, and this one is no version of it
    page.wait(lambda: page.text("#notice.alarm, #notice:not(.faint)"))
    page.wait_for_turns("First", "One.", "Second", "Two.")


def test_a_copy_includes_turns_that_are_not_shown(browser, server, provider):
    page = Page(browser, server)
    session = page.user.create("message 0")
    for number in range(1, 30):
        page.user.post(f"/sessions/{session['id']}/messages", {"content": f"message {number}"})
    page.enter()
    page.click("message 0")
    page.wait(lambda: page.is_idle and page.turns[-2:] == ["message 29", "The answer."])
    page.run("document.getElementById('thread').scrollTo(0, 1e6)")
    first = page.turns[0]
    assert first != "message 0"
    edit(page, 1, "!", Keys.ENTER)
    page.wait(lambda: page.is_idle and page.turns[-2:] == [first + "!", "The answer."])
    place = int(first.split()[1])
    sent = [message["content"] for message in provider.posts[-1].body["messages"]][::2]
    assert sent == [f"message {number}" for number in range(place)] + [first + "!"]


def test_copies_work_under_a_prefix_and_by_the_keyboard(browser, server_with):
    page = Page(browser, server_with(SCRIPT_NAME="/chat/v1")).enter()
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    page.say("Second")
    page.wait_for_turns("First", "The answer.", "Second", "The answer.")
    page.driver.execute_script("document.querySelector('article:nth-child(2) button').focus()")
    page.press(Keys.TAB)
    assert page.run("document.activeElement.ariaLabel") == "Fork"
    page.press(Keys.ENTER)
    page.wait_for_turns("First", "The answer.")
    assert page.focused == "text"
