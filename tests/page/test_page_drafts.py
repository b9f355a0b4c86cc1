"""A draft is kept, and sent once."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, LOSE_ANSWERS, RELEASE, WORDS, Page
from client import make_token
from provider import reply
from proxy import Proxy

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


# Drafts


def test_a_draft_survives_a_reload_and_an_expired_token(page, provider):
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    page.find("#text").send_keys("Half a thought")
    page.driver.refresh()
    page.wait(lambda: page.turns == ["First", "The answer."])
    assert page.run("document.getElementById('text').value") == "Half a thought"
    # The token expires: the page has an old one.
    page.driver.execute_script(
        "sessionStorage.setItem('token', arguments[0])", make_token(page.subject, exp=1)
    )
    page.driver.refresh()
    page.wait_for_text("The token has expired.", "#sign-in-page")
    page.enter()
    page.wait(lambda: page.turns == ["First", "The answer."])
    page.press(", and the rest", Keys.ENTER)
    page.wait_for_turns("First", "The answer.", "Half a thought, and the rest", "The answer.")
    page.driver.refresh()
    page.wait(lambda: len(page.turns) == 4)
    assert page.run("document.getElementById('text').value") == ""


def test_an_unsent_message_stays_if_more_is_typed(page):
    page.wait_for_text("m-1", "#model")
    page.driver.execute_script("window.fetch = async () => { throw new TypeError('lost') }")
    page.say("First")
    page.wait_for_text("The connection is lost", "#connection")
    page.press("Second")
    page.driver.refresh()
    page.wait_for_text("m-1", "#model")
    assert page.run("document.getElementById('text').value") == "First\n\nSecond"


def test_a_message_that_has_arrived_is_not_given_back(page, provider):
    page.say("One")
    page.wait_for_turns("One", "The answer.")
    page.driver.execute_script(LOSE_ANSWERS)
    page.say("Two")
    page.wait_for_text("The connection is lost", "#connection")
    page.driver.refresh()
    page.wait_for_turns("One", "The answer.", "Two", "The answer.")
    assert page.run("document.getElementById('text').value") == ""
    page.say("Two")  # which is another
    page.wait_for_turns("One", "The answer.", "Two", "The answer.", "Two", "The answer.")
    assert len(provider.posts) == 3


def test_an_answer_that_is_not_the_servers_does_not_count(page, provider):
    page.wait_for_text("No chats yet.")
    page.driver.execute_script("""
        const [ask, others] = [fetch, ["<html>Sign in to the Wi-Fi", "{}", '{"data": [']];
        window.fetch = async (...request) => others.length ? new Response(others.shift()) : ask(...request);
    """)
    page.say("Hello")
    page.wait_for_text("The connection is lost", "#connection")
    page.wait_for_turns("Hello", "The answer.")
    assert len(provider.posts) == 1 and page.text("#notice") == ""


def test_a_lost_connection_comes_back_by_itself(browser, server, provider):
    proxy = Proxy(server.port)
    page = Page(browser, server, proxy.url).enter()
    page.wait_for_text("m-1", "#model")
    proxy.close()
    page.say("Hello")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    page.press("Meanwhile")
    again = Proxy(server.port, port=int(proxy.url.rpartition(":")[2]))
    page.wait_for_turns("Hello", "The answer.")
    page.wait(lambda: page.text("#connection") == "")
    assert page.run("document.getElementById('text').value") == "Meanwhile"
    again.close()
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_text("The connection is lost", "#connection")
    page.click("Stop")
    page.wait_for_turns("Hello", "The answer.")
    assert page.run("document.getElementById('text').value") == "Meanwhile"
    assert len(provider.posts) == 1


def test_stopping_before_the_server_has_answered_says_so(page, provider):
    page.wait_for_text("m-1", "#model")
    provider.script = [reply(*WORDS)]
    page.driver.execute_script(HOLD, "sessions")
    page.say("Hello")
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Stop")
    page.wait_for_text("Stopping…", "#notice")

    def is_stopped():
        page.driver.execute_script(RELEASE)
        return "Stopped" in page.text("article:last-child")

    page.wait(is_stopped)
    assert page.text("#notice") == ""
