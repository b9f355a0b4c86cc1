"""Chats are downloaded as a file, by the account panel and by a chat's menu. Modules:
`static/page/transfer.js`."""

import json
import re

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from page_files import finish, import_all, open_panel, sessions
from provider import reply

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]


@pytest.fixture
def folder(browser, tmp_path):
    """The folder of the browser's downloads."""
    place = tmp_path / "downloads"
    place.mkdir()
    options = {"behavior": "allow", "downloadPath": str(place)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", options)
    yield place
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})


def downloaded(page, folder):
    """The one file that was downloaded."""
    page.wait(lambda: list(folder.iterdir()) and not list(folder.glob("*.crdownload")))
    (file,) = folder.iterdir()
    return file


def test_all_chats_are_downloaded_as_one_file(page, provider, folder):
    provider.script = [reply("Ärger \u2028 🎉"), reply("Two.")]
    page.say("First")
    page.wait_for_turns("First", "Ärger \u2028 🎉")
    page.user.create("Second")
    open_panel(page)
    page.click("Download all chats")
    finish(page, "2 chats downloaded.")
    file = downloaded(page, folder)
    assert re.fullmatch(r"parley-\d{4}-\d\d-\d\d\.ndjson", file.name)
    header, *rest, end = file.read_text().split("\n")[:-1]
    header = json.loads(header)
    exported_at = header.pop("exported_at")
    assert header == {"parley": 3, "subject": page.subject} and exported_at.startswith(
        file.name[7:17]
    )
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", exported_at)
    assert "".join(line + "\n" for line in rest).encode() == page.user.get("/export").content
    assert json.loads(end) == {"end": True, "sessions": 2}


def fill(page, count, size):
    """So many chats of so many bytes each. The export sends them in pages of 8 MB."""
    for number in range(count):
        turns = [{"kind": "user", "content": f"Chat {number} " + "x" * size}]
        answer = page.user.post("/sessions/import", {"turns": turns, "title": f"Chat {number}"})
        assert answer.status_code == 201


def test_many_chats_come_in_pages_even_if_one_is_cut(browser, server, provider, proxy, folder):
    page = Page(browser, server, proxy.url)
    fill(page, 3, 6_000_000)
    page.enter()
    page.wait(lambda: len(page.titles) == 3)
    open_panel(page)
    proxy.cut_behind = b"xxxx"
    page.driver.execute_script(
        "window.told = []; new MutationObserver(() => window.told.push(document.getElementById('transfer-status').innerText)).observe(document.getElementById('transfer-status'), { childList: true })"
    )
    page.click("Download all chats")
    finish(page, "3 chats downloaded.")
    assert proxy.cut_behind is None and "1 chat so far…" in page.run("window.told")
    texts = downloaded(page, folder).read_text().splitlines()
    titles = [json.loads(line)["title"] for line in texts[1:-1]]
    assert titles == ["Chat 0", "Chat 1", "Chat 2"]


def test_a_download_can_be_stopped(page, folder):
    page.user.create("First")
    open_panel(page)
    page.driver.execute_script(HOLD, "export")
    page.click("Download all chats")
    page.wait(lambda: page.run("window.held.length") == 1)
    assert page.focused == "stop-transfer"
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)
    finish(page, "Stopped. Nothing was downloaded.")
    assert page.focused == "download" and list(folder.iterdir()) == []


def test_a_download_can_be_imported_by_another_user_once(page, browser, server, folder, tmp_path):
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    open_panel(page)
    page.click("Download all chats")
    finish(page, "1 chat downloaded.")
    content = downloaded(page, folder).read_bytes()
    import_all(page, tmp_path, content, "0 chats imported, 1 was here already.", "parley.ndjson")
    page.click("Sign out")
    other = Page(browser, server).enter()
    open_panel(other)
    import_all(other, tmp_path, content, "1 chat imported.", "parley.ndjson")
    import_all(other, tmp_path, content, "0 chats imported, 1 was here already.", "parley.ndjson")
    other.wait(lambda: other.titles == ["First"])
    assert without_ids(other.user.get("/export")) == without_ids(page.user.get("/export"))


def without_ids(export):
    session = json.loads(export.text)
    turns = [{name: turn[name] for name in turn if name != "id"} for turn in session["turns"]]
    return session | {"id": None, "turns": turns}


def test_a_chat_is_downloaded_as_markdown(page, provider, folder):
    provider.script = [reply("**Bold**")]
    page.say("Why?")
    page.wait_for_turns("Why?", "Bold")
    session = sessions(page)[0]
    page.user.patch(f"/sessions/{session['id']}", {"title": "..what/is: <this>? 🎉 "})
    page.driver.refresh()
    page.wait_for_text("what/is", "#list")
    page.find("#list li button").click()
    page.click("Download as Markdown")
    file = downloaded(page, folder)
    assert file.name == "what is this 🎉.md"
    asked = page.user.get(f"/sessions/{session['id']}", Accept="text/markdown")
    assert file.read_bytes() == asked.content and b"**Bold**" in asked.content
    assert page.run("document.activeElement.ariaLabel").startswith("Options of")


def test_downloads_work_under_a_prefix(browser, server_with, folder, tmp_path):
    page = Page(browser, server_with(SCRIPT_NAME="/chat/v1"))
    fill(page, 2, 6_000_000)
    page.enter()
    page.wait(lambda: len(page.titles) == 2)
    open_panel(page)
    page.click("Download all chats")
    finish(page, "2 chats downloaded.")
    content = downloaded(page, folder).read_bytes()
    assert content.count(b"\n") == 4
    import_all(page, tmp_path, content, "0 chats imported, 2 were here already.", "parley.ndjson")


def test_a_chat_that_is_no_longer_listed_is_downloaded_from_its_menu(page, folder):
    page.user.create("First")
    page.driver.refresh()
    page.wait_for_text("First", "#list")
    page.find("#list li button").click()
    page.driver.execute_script(
        """
        document.getElementById("search").value = "Other";
        document.getElementById("search").dispatchEvent(new Event("input"));
        """
    )
    page.wait(lambda: page.titles == [])
    page.click("Download as Markdown")
    assert downloaded(page, folder).name == "First.md"


def test_a_busy_server_is_not_asked_for_a_chat_for_ever(page):
    page.user.create("First")
    page.driver.refresh()
    page.wait_for_text("First", "#list")
    page.driver.execute_script("""
        const ask = fetch;
        const busy = { errors: [{ status: "503", title: "Service Unavailable", detail: "Too busy." }] };
        const isAsked = ({ headers }) => headers.Accept === "text/markdown";
        window.fetch = async (path, options) => isAsked(options)
            ? Response.json(busy, { status: 503, headers: { "Retry-After": "1", "X-Request-ID": "x" } }) : ask(path, options);
    """)
    page.find("#list li button").click()
    page.click("Download as Markdown")
    page.wait_for_text("Too busy.", "#notice")
    assert page.text("#connection") == ""
