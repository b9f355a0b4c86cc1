"""A chat in two tabs or on two devices: they agree when the user looks at one, and before a
message is sent. Modules: `static/page/replies.js`."""

import pytest

from browser import HOLD, RELEASE
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
LOOK = "dispatchEvent(new Event('focus'))"
GONE_ON = "This chat has continued elsewhere. Read what is new, then send again."


@pytest.fixture
def talked(page, provider):
    provider.script = [reply("First.")]
    page.say("One")
    page.wait_for_turns("One", "First.")
    page.id = page.run("location.hash.slice(1)")
    return page


def say_elsewhere(page, provider, content, answer):
    provider.script = [reply(answer)]
    page.user.post(f"/sessions/{page.id}/messages", {"content": content})


def test_messages_sent_elsewhere_appear_when_the_user_looks(talked, provider):
    say_elsewhere(talked, provider, "Two", "Second.")
    assert talked.turns == ["One", "First."]
    talked.driver.execute_script(LOOK)
    talked.wait_for_turns("One", "First.", "Two", "Second.")


def test_a_reply_that_is_written_elsewhere_is_followed_when_the_user_looks(talked, provider):
    provider.script = [reply("Sec", 1.5, "ond.")]
    talked.user.post(f"/sessions/{talked.id}/messages", {"content": "Two"}, Prefer="respond-async")
    talked.driver.execute_script(LOOK)
    talked.wait(lambda: talked.turns[-2:] == ["Two", "Sec"] and not talked.is_idle)
    talked.wait_for_turns("One", "First.", "Two", "Second.")


def test_looking_changes_nothing_if_nothing_is_new(talked, provider):
    talked.find("#text").send_keys("Half a thought")
    talked.driver.execute_script("window.seen = [...document.querySelectorAll('article')]")
    asked = (
        "performance.getEntriesByType('resource').filter((e) => e.name.includes('limit')).length"
    )
    before = talked.run(asked)
    talked.driver.execute_script(LOOK)
    talked.wait(lambda: talked.run(asked) > before)
    assert talked.run("window.seen.every((article) => article.isConnected)")
    assert talked.run("document.getElementById('text').value") == "Half a thought"


def test_a_tab_that_is_shown_and_gets_the_focus_asks_once(talked):
    talked.driver.execute_script(HOLD, "limit")
    shown = "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
    talked.driver.execute_script(f"{shown}; {LOOK}")
    assert talked.run("window.count") == 1
    talked.driver.execute_script(RELEASE)

    def has_looked_again():
        talked.driver.execute_script(LOOK)
        return talked.run("window.count") == 2

    talked.wait(has_looked_again)


def test_a_message_is_not_sent_after_turns_that_the_user_has_not_read(talked, provider):
    say_elsewhere(talked, provider, "Two", "Second.")
    talked.say("Three")
    talked.wait_for_text(GONE_ON, "#notice")
    talked.wait_for_turns("One", "First.", "Two", "Second.")
    assert talked.run("document.getElementById('text').value") == "Three"
    assert len(talked.user.turns({"id": talked.id})) == 4
    provider.script = [reply("Third.")]
    talked.press("\ue007")
    talked.wait_for_turns("One", "First.", "Two", "Second.", "Three", "Third.")


def test_a_retry_does_not_replace_a_turn_that_the_user_has_not_read(talked, provider):
    provider.script = [reply("Another.")]
    talked.user.post(f"/sessions/{talked.id}/retry")
    talked.click("Retry")
    talked.wait_for_text(GONE_ON, "#notice")
    talked.wait_for_turns("One", "Another.")
    provider.script = [reply("The third.")]
    talked.click("Retry")
    talked.wait_for_turns("One", "The third.")
