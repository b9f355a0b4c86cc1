"""The user is told if a reply ends while they are in another chat or tab. Modules:
`static/page/notifications.js`."""

import threading

import pytest

from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
UNREAD = "#list li:has(.unread) strong"
HIDE = """
    Object.defineProperty(document, "hidden", { configurable: true, get: () => arguments[0] });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
"""
# The page's own waits take a tenth of the time.
FASTER = "const wait = setTimeout; window.setTimeout = (run, time) => wait(run, time / 10)"
NOTIFY = """
    const [permission] = arguments;
    window.told = [];
    window.Notification = class {
        static permission = permission;
        static async requestPermission() { return (this.permission = "granted"); }
        constructor(title, options) { window.told.push([title, options.tag]); window.last = this; }
        close() {}
    };
"""


def leave_while_it_writes(page, provider, gate):
    """Begin a chat, and go to a new one. Returns the address of the first."""
    page.driver.execute_script(FASTER)
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count for me")
    page.wait_for_text("One", "article:last-child")
    address = page.run("location.hash")
    page.click("New chat")
    page.wait_for_text("What would you like")
    return address


def test_a_chat_whose_reply_ends_has_a_dot_until_it_is_opened(page, provider):
    gate = threading.Event()
    leave_while_it_writes(page, provider, gate)
    page.wait(lambda: page.titles == ["Count for me"])
    assert page.texts(UNREAD) == []
    gate.set()
    page.wait(lambda: page.texts(UNREAD) == ["Count for me"])
    assert page.find(".unread").accessible_name == "A new reply"
    page.driver.refresh()  # the dot stays
    page.wait(lambda: page.texts(UNREAD) == ["Count for me"])
    page.click("Count for me")
    page.wait_for_turns("Count for me", "One two.")
    page.wait(lambda: page.texts(UNREAD) == [])


def test_a_user_who_comes_back_before_the_end_gets_no_dot(page, provider):
    gate = threading.Event()
    leave_while_it_writes(page, provider, gate)
    page.click("Count for me")
    page.wait_for_text("One", "article:last-child")
    gate.set()
    page.wait_for_turns("Count for me", "One two.")
    assert page.texts(UNREAD) == [] and page.run("sessionStorage.getItem('left')") is None


def test_a_chat_that_is_deleted_meanwhile_gets_no_dot(page, provider):
    gate = threading.Event()
    address = leave_while_it_writes(page, provider, gate)
    page.user.delete(f"/sessions/{address[1:]}")
    page.wait(lambda: page.run("sessionStorage.getItem('left')") is None)
    page.wait(lambda: page.titles == [])
    assert page.text("#notice") == ""


def test_the_title_of_a_hidden_tab_says_that_a_reply_is_there(page, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count for me")
    page.wait_for_text("One", "article:last-child")
    page.driver.execute_script(HIDE, True)
    gate.set()
    page.wait(lambda: page.driver.title == "● Count for me – Parley")
    page.driver.execute_script(HIDE, False)
    page.wait(lambda: page.driver.title == "Count for me – Parley")


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_notification_leads_to_the_chat_if_the_user_allows_it(page, provider, is_allowed):
    gate = threading.Event()
    page.driver.execute_script(NOTIFY, "granted" if is_allowed else "denied")
    address = leave_while_it_writes(page, provider, gate)
    page.driver.execute_script(HIDE, True)
    gate.set()
    page.wait(lambda: page.driver.title == "● Parley")
    told = [["Count for me", address[1:]]] if is_allowed else []
    page.wait(lambda: page.run("window.told") == told)
    page.driver.execute_script(HIDE, False)
    if is_allowed:
        page.driver.execute_script("window.last.onclick()")
        page.wait_for_turns("Count for me", "One two.")


@pytest.fixture
def long_reply(page, provider):
    """An event that ends the reply being written, which has three words so far."""
    page.driver.execute_script(FASTER)
    page.driver.execute_script(NOTIFY, "default")
    end = threading.Event()
    provider.script = [reply("word0 ", "word1 ", "word2 ", end, "word3 ")]
    page.say("Count for me")
    page.wait_for_text("word2", "article:last-child")
    return end


def test_notifications_are_offered_in_a_long_reply_and_not_again_after_a_no(page, long_reply):
    assert not page.shows("#offer")
    page.wait(lambda: page.shows("#offer"))
    page.click("No")
    page.wait(lambda: not page.shows("#offer"))
    long_reply.set()
    page.wait(lambda: page.is_idle)
    assert page.run("Notification.permission") == "default"
    assert page.run("localStorage.getItem('quiet')") == "yes"


def test_accepting_the_offer_makes_the_browser_ask(page, long_reply):
    page.wait(lambda: page.shows("#offer"))
    page.click("Tell me when it’s ready")
    page.wait(lambda: page.run("Notification.permission") == "granted")
    assert not page.shows("#offer")
    page.click("Stop")
    page.wait(lambda: page.is_idle)


def test_an_offer_disappears_with_its_reply(page, long_reply):
    page.wait(lambda: page.shows("#offer"))
    long_reply.set()
    page.wait(lambda: page.is_idle)
    assert not page.shows("#offer")
