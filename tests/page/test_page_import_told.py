"""What the page says about an import and about refusals, and where. Modules:
`static/page/transfer.js`."""

import json

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from page_files import chatgpt, chats, choose, finish, import_all, node, open_panel, short_chat

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]


def test_long_names_are_cut_and_two_hundred_at_most_are_listed(page, tmp_path):
    long = chatgpt(node("assistant", "x"), title="wide " * 2_000_000)
    others = [{"name": f"No chat {number}"} for number in range(300)]
    content = json.dumps([short_chat(1), long, *others]).encode()
    open_panel(page)
    choose(page, tmp_path, content)
    page.wait(
        lambda: page.text("#transfer-status").startswith("1 chat imported, 301 were refused.")
    )
    refused = page.texts("#transfer-list li")
    assert refused[0] == f"{'wide ' * 12}…: It has no message of yours."
    assert refused[199:] == [
        "No chat 198: This is not a conversation of ChatGPT, Claude, Open WebUI or Parley.",
        "and 101 more.",
    ]


ANSWERS_408 = """
    const ask = fetch;
    const late = { errors: [{ status: "408", title: "Request Timeout", detail: "It came too slowly." }] };
    let count = 0;
    window.fetch = (path, options) => path.endsWith("import") && !count++
        ? Promise.resolve(Response.json(late, { status: 408, headers: { "X-Request-ID": "x" } })) : ask(path, options);
"""


def test_a_chat_that_is_sent_too_slowly_is_named_and_the_next_is_imported(page, tmp_path):
    page.driver.execute_script(ANSWERS_408)
    open_panel(page)
    import_all(page, tmp_path, chats(1, 2), "1 chat imported, 1 was refused.")
    assert page.texts("#transfer-list li") == ["Chat 1: It came too slowly."]


def test_the_focus_stays_where_the_user_put_it_during_an_import(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    choose(page, tmp_path, chats(1))
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script("document.getElementById('theme').focus()")
    page.driver.execute_script(RELEASE)
    finish(page, "1 chat imported.")
    assert page.focused == "theme"


def test_stopping_before_an_answer_says_so(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    choose(page, tmp_path, chats(1, 2))
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Stop")
    page.wait_for_text("Stopping…", "#transfer-status")
    page.driver.execute_script(RELEASE)
    finish(page, "Stopped. 1 chat imported.")


def test_the_end_of_an_import_replaces_no_refusal(browser, server_with, tmp_path):
    page = Page(browser, server_with(RATE_LIMIT="1/day")).enter()
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    choose(page, tmp_path, chats(1))
    page.wait(lambda: page.run("window.held.length") == 1)
    page.press(Keys.ESCAPE)
    page.say("Second")
    page.wait_for_text("You may ask for 1 ", "#notice")
    page.driver.execute_script(RELEASE)
    page.wait_for_text("1 chat imported.", "#notice")
    assert page.text("#notice").startswith("You may ask for 1 ")
