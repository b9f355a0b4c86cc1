"""A deleted chat leaves the list at once, and the server some seconds later. Until then, the
user can undo it."""

import threading

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

# The eight seconds take two tenths of one.
FASTER = "const wait = setTimeout; window.setTimeout = (run, time) => wait(run, time === 8000 ? 200 : time)"

DRAFT = "sessionStorage.getItem('draft ' + arguments[0])"


def is_there(page, session):
    return page.user.get(f"/sessions/{session['id']}").status_code == 200


def delete(page, title):
    page.click(f"Options of {title}")
    page.click("Delete")
    page.wait_for_text(f"Deleted “{title}”.", "#deleted")


def delete_by_keys(page, title):
    page.click(f"Options of {title}")
    page.wait(lambda: page.focused == "rename")
    page.press(*[Keys.TAB] * 5, Keys.ENTER)
    page.wait(lambda: page.focused == "undo")


@pytest.fixture
def chats(page):
    """Three chats: First, above it Second, and on top Third, which is open."""
    sessions = [page.user.create(title) for title in ("First", "Second", "Third")]
    page.driver.refresh()
    page.wait(lambda: page.titles == ["Third", "Second", "First"])
    page.click("Third")
    page.wait_for_turns("Third", "The answer.")
    return sessions


def test_undo_brings_a_chat_back_to_its_place(page, chats):
    delete(page, "Second")
    assert page.titles == ["Third", "First"] and page.turns == ["Third", "The answer."]
    page.click("Undo")
    assert page.titles == ["Third", "Second", "First"] and page.text("#deleted") == ""
    assert page.run("document.activeElement.hash") == f"#{chats[1]['id']}"
    page.driver.refresh()
    page.wait(lambda: page.titles == ["Third", "Second", "First"])


def test_an_open_chat_leaves_the_screen_and_comes_back(page, chats):
    page.press("A draft")
    delete(page, "Third")
    assert page.text("#title") == "New chat" and "#" not in page.driver.current_url
    assert page.run("document.getElementById('text').value") == ""
    page.click("Undo")
    page.wait_for_turns("Third", "The answer.")
    assert page.run("document.getElementById('text').value") == "A draft"
    assert page.text("#list [aria-current=page] strong") == "Third"


def test_undo_does_not_leave_the_chat_that_was_opened_since(page, chats):
    delete(page, "Third")
    page.click("First")
    page.wait_for_turns("First", "The answer.")
    page.click("Undo")
    page.wait(lambda: page.titles == ["Third", "Second", "First"])
    assert page.turns == ["First", "The answer."]


def test_it_is_deleted_after_some_seconds_and_its_draft_is_forgotten(page, chats):
    page.press("A draft")
    page.driver.execute_script(FASTER)
    delete(page, "Third")
    assert page.run(DRAFT, chats[2]["id"]) == "A draft"
    page.wait(lambda: not is_there(page, chats[2]))
    page.wait(lambda: page.text("#deleted") == "" and page.run(DRAFT, chats[2]["id"]) is None)
    assert page.titles == ["Second", "First"]


def test_the_eight_seconds_are_eight(page, chats):
    began = page.run("performance.now()")
    delete(page, "Second")
    page.wait(lambda: page.text("#deleted") == "")
    assert 7900 < page.run("performance.now()") - began < 10_000


def test_it_waits_while_the_focus_or_the_pointer_is_on_the_line(page, chats):
    page.driver.execute_script(FASTER)
    delete_by_keys(page, "Second")
    ActionChains(page.driver).move_to_element(page.find("#deleted span")).perform()
    page.press(Keys.TAB)
    page.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert page.text("#deleted") and is_there(page, chats[1])
    page.press(Keys.TAB, hold=Keys.SHIFT)
    assert page.focused == "undo"
    ActionChains(page.driver).move_to_element(page.find("#thread")).perform()
    page.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert page.text("#deleted") and is_there(page, chats[1])
    page.press(Keys.TAB)
    page.wait(lambda: not is_there(page, chats[1]))


@pytest.mark.parametrize("leave", ["refresh", "close", "sign out"])
def test_it_is_deleted_when_the_page_is_left(leave, page, chats):
    delete(page, "Second")
    first = page.driver.current_window_handle
    if leave == "refresh":
        page.driver.refresh()
    elif leave == "sign out":
        page.find("#account-button").click()
        page.click("Sign out")
    else:
        page.driver.switch_to.new_window("tab")
        other = page.driver.current_window_handle
        page.driver.switch_to.window(first)
        page.driver.close()
        page.driver.switch_to.window(other)
        page.driver.get(page.user.url)  # the tab has storage, which is cleared in the end
    page.wait(lambda: not is_there(page, chats[1]))


def test_another_deletion_ends_the_first(page, chats):
    delete(page, "Second")
    delete(page, "First")
    page.wait(lambda: not is_there(page, chats[1]))
    page.click("Undo")
    page.wait(lambda: page.titles == ["Third", "First"])
    assert is_there(page, chats[0])


def test_a_reply_in_progress_continues_until_then(page, chats, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    delete(page, "Third")
    assert page.is_idle
    page.click("Undo")
    page.wait_for_text("One", "article:last-child")
    gate.set()
    page.wait_for_turns("Third", "The answer.", "Count", "One two.")
    assert len(provider.posts) == 4


def test_a_reloaded_list_does_not_have_it(page, chats):
    delete(page, "Second")
    page.find("#search").send_keys("answer")
    page.wait(lambda: page.titles == ["Third", "First"])
    page.find("#search").clear()
    page.find("#search").send_keys("second")
    page.wait_for_text("Nothing found.", "#list")
    page.click("Undo")
    page.wait(lambda: page.titles == ["Second"])


def test_a_failed_deletion_is_reported_and_the_chat_comes_back(page, chats):
    page.driver.execute_script("""
        const ask = fetch;
        const refusal = { errors: [{ detail: "The database does not answer." }] };
        window.fetch = (path, options) => options.method === "DELETE"
            ? new Response(JSON.stringify(refusal), { status: 503 })
            : ask(path, options);
    """)
    page.driver.execute_script(FASTER)
    delete(page, "Second")
    page.wait_for_text("The database does not answer.", "#notice")
    page.wait(lambda: page.titles == ["Third", "Second", "First"])


def test_the_browsers_back_button_restores_the_chat(page, chats):
    page.click("First")
    page.wait_for_turns("First", "The answer.")
    page.click("Second")
    page.wait_for_turns("Second", "The answer.")
    delete(page, "First")
    page.driver.back()
    page.wait_for_turns("First", "The answer.")
    page.wait(lambda: page.titles == ["Third", "Second", "First"])
    assert page.text("#deleted") == ""


def test_a_key_undoes_it_but_not_while_the_user_types(page, chats):
    delete(page, "Second")
    page.find("#text").click()
    page.press("z", hold=Keys.CONTROL)
    assert page.titles == ["Third", "First"]
    page.find("#thread").click()
    page.press("z", hold=Keys.CONTROL)
    page.wait(lambda: page.titles == ["Third", "Second", "First"])
