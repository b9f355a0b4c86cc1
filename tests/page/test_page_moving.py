"""Chats leave in a file, and come from one, by the panel of the account. Modules: `static/moving.js`."""

import json
import re

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from client import make_token
from page_files import chatgpt, claude, lines, node, said, short_chat, zipped
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


@pytest.fixture
def folder(browser, tmp_path):
    """Where the browser puts what is downloaded."""
    place = tmp_path / "downloads"
    place.mkdir()
    options = {"behavior": "allow", "downloadPath": str(place)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", options)
    yield place
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})


def open_panel(page):
    page.wait_for_text("No chats yet.") if not page.titles else None
    page.find("#account-button").click()
    page.wait(lambda: page.find("#account").is_displayed())


def choose(page, tmp_path, content, name="conversations.json"):
    """Choose a file of this content for the import, as the picker would."""
    (tmp_path / name).write_bytes(content)
    page.find("#file").send_keys(str(tmp_path / name))


def finish(page, sentence):
    """Wait for the end of what is under way, with this sentence."""
    page.wait(lambda: page.find("#movers").get_attribute("hidden") is None)
    assert page.text("#moved") == sentence


def import_all(page, tmp_path, content, sentence, name="conversations.json"):
    choose(page, tmp_path, content, name)
    page.wait(lambda: page.text("#moved"))
    finish(page, sentence)


def downloaded(page, folder):
    """The one file that was downloaded."""
    page.wait(lambda: list(folder.iterdir()) and not list(folder.glob("*.crdownload")))
    (file,) = folder.iterdir()
    return file


def chats(*numbers):
    return json.dumps([short_chat(number) for number in numbers]).encode()


def sessions(page):
    return page.user.get("/sessions?page[limit]=100").json()["data"]


# Out


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
    assert header == {"parley": 2, "subject": page.subject} and exported_at.startswith(
        file.name[7:17]
    )
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", exported_at)
    assert "".join(line + "\n" for line in rest).encode() == page.user.get("/export").content
    assert json.loads(end) == {"end": True, "sessions": 2}


def fill(page, count, size):
    """So many chats, of so many bytes each, which the export sends in pages of 8 MB."""
    for number in range(count):
        turns = [{"kind": "user", "content": f"Chat {number} " + "x" * size}]
        answer = page.user.post("/sessions/import", {"turns": turns, "title": f"Chat {number}"})
        assert answer.status_code == 201


def test_many_chats_come_in_pages_also_where_one_is_cut(browser, server, provider, proxy, folder):
    page = Page(browser, server, proxy.url)
    fill(page, 3, 6_000_000)
    page.enter()
    page.wait(lambda: len(page.titles) == 3)
    open_panel(page)
    proxy.cut_behind = b"xxxx"
    page.driver.execute_script(
        "window.told = []; new MutationObserver(() => window.told.push(document.getElementById('moved').innerText)).observe(document.getElementById('moved'), { childList: true })"
    )
    page.click("Download all chats")
    finish(page, "3 chats downloaded.")
    assert proxy.cut_behind is None and "1 chat so far…" in page.run("window.told")
    texts = downloaded(page, folder).read_text().splitlines()
    titles = [json.loads(line)["title"] for line in texts[1:-1]]
    assert titles == ["Chat 0", "Chat 1", "Chat 2"]


def test_a_download_is_stopped(page, folder):
    page.user.create("First")
    open_panel(page)
    page.driver.execute_script(HOLD, "export")
    page.click("Download all chats")
    page.wait(lambda: page.run("window.held.length") == 1)
    assert page.focused == "stop-moving"
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)
    finish(page, "Stopped. Nothing was downloaded.")
    assert page.focused == "download" and list(folder.iterdir()) == []


def test_what_one_downloads_another_imports_once(page, browser, server, folder, tmp_path):
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


# In


def test_chats_of_chatgpt_are_imported_and_what_is_left_out_is_told(page, tmp_path):
    image = {"content_type": "image_asset_pointer"}
    full = chatgpt(
        node("user", image, "What is it?", of="multimodal_text"),
        node("assistant", of="thoughts"),
        node("assistant", "A cat."),
        title="Cats",
    )
    full["mapping"]["n9"] = node("user", "What is that?", parent="root")
    open_panel(page)
    choose(page, tmp_path, json.dumps([full, short_chat(1)]).encode())
    finish(page, "2 chats imported.")
    left = [
        "1 image or file was left out.",
        "1 tool call, result or thought was left out.",
        "1 message of another branch was left out.",
    ]
    assert page.texts("#moved-list li") == left
    page.wait(lambda: sorted(page.titles) == ["Cats", "Chat 1"])
    assert page.text("#list time").endswith(", 2023")
    page.press(Keys.ESCAPE)
    page.click("Cats")
    page.wait_for_turns("What is it?", "A cat.")
    page.say("Sure?")  # it can be talked in at once
    page.wait_for_turns("What is it?", "A cat.", "Sure?", "The answer.")


def test_chats_of_claude_are_imported_from_a_zip(page, tmp_path):
    given = claude(said("human", "Hello"), said("assistant", "Hi."), name="Greeting")
    open_panel(page)
    content = zipped({"a/conversations.json": json.dumps([given]), "users.json": "[]"})
    import_all(page, tmp_path, content, "1 chat imported.", "data.zip")
    assert page.texts("#moved-list li") == []
    page.wait(lambda: page.titles == ["Greeting"])
    session = sessions(page)[0]
    assert session["created_at"] == "2025-07-03T15:16:39Z"


def test_what_is_refused_is_named_and_the_rest_is_taken(page, tmp_path):
    circle = chatgpt(title="Circle", current="a") | {
        "mapping": {"a": node("user", "x", parent="a")}
    }
    given = [
        {"title": "A folder"},
        circle,
        chatgpt(node("assistant", "Hi"), title="Not mine"),
        chatgpt(node("user", "x", at=9e9), title="Of the future"),
        {"a": 1},
        short_chat(1),
    ]
    large = b',{"title": "' + b"x" * 40_000_000 + b'"}'
    content = json.dumps(given).encode()
    content = content[:-1] + large + b',{"title": "\xff"}]'
    open_panel(page)
    import_all(page, tmp_path, content, "1 chat imported, 7 were refused.")
    at = len(content) - len(large) - len(b',{"title": "\xff"}]') + 1
    strange = content.index(b'{"a": 1}')
    assert page.texts("#moved-list li") == [
        "A folder: It is of no shape that is known here.",
        "Circle: Its messages refer to each other in a circle.",
        "Not mine: It has no message of yours.",
        "Of the future: turns/0/created_at: Give a time that has been: this one lies in the future.",
        f"Conversation 5, from byte {strange} on: It is of no shape that is known here.",
        f"Conversation 7, from byte {at} on: It is larger than 16 MB.",
        f"Conversation 8, from byte {at + len(large)} on: It is not UTF-8.",
    ]
    page.wait(lambda: page.titles == ["Chat 1"])


def test_a_chat_that_is_too_large_for_the_server_is_named(browser, start, settings, tmp_path):
    page = Page(browser, start(**settings, MAX_CONTENT_LENGTH="100000")).enter()
    page.wait_for_text("No chats yet.")
    open_panel(page)
    large = chatgpt(node("user", "x" * 3_000_000), title="Large")
    content = json.dumps([large, short_chat(1)]).encode()
    import_all(page, tmp_path, content, "1 chat imported, 1 was refused.")
    assert page.texts("#moved-list li") == ["Large: Send at most 1600000 bytes."]


def is_not_whole(content):
    return content.rpartition(b'{"end"')[0]


LINE = {"id": "i", "title": "Line", "turns": [{"kind": "user", "content": "Hello"}]}
PARLEY = lines(
    {"parley": 2, "subject": "s", "exported_at": "2026-11-30T12:00:00Z"},
    LINE,
    {"end": True, "sessions": 1},
)
SHORT = "The file is not whole: its last line is missing. 1 chat imported."
CUT = "The file is not whole: it ends within conversation 2. 1 chat imported."
TWO = chats(1, 2)
TOLD = {
    "Parley's": (PARLEY, "1 chat imported."),
    "its last line is missing": (is_not_whole(PARLEY), SHORT),
    "cut in a conversation": (TWO[:-10], CUT),
    "an operator's copy": (
        lines({"parley": 2, "everything": True}, LINE),
        "This is an operator's copy of a whole server: only flask import --all reads it. 0 chats imported.",
    ),
    "of another release": (
        lines({"parley": 3}, LINE),
        "This file was made by another release of Parley. Import it with that one. 0 chats imported.",
    ),
    "a line too few": (
        lines({"parley": 2}, LINE, {"end": True, "sessions": 2}),
        "The file is not whole: its last line names 2 chats, and it has 1. 1 chat imported.",
    ),
    "of another shape": (
        b'[{"name": "x"}, {"a": []}]',
        "These are no chats. Choose an export of ChatGPT, Claude or Parley. 0 chats imported.",
    ),
    "no JSON": (
        b"%PDF-1.7",
        "The file is no list of conversations in JSON: at byte 0 there is something else. 0 chats imported.",
    ),
    "a ZIP without chats": (
        zipped({"a.txt": ""}),
        "There is no conversations.json in this ZIP. 0 chats imported.",
    ),
    "a ZIP that unfolds": (
        zipped({"conversations.json": TWO[:-1] + b" " * 60_000_000 + b"]"}),
        "conversations.json unfolds to more than 200 times what is in the ZIP. 2 chats imported.",
    ),
    "nothing": (b"[]", "0 chats imported."),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_a_file_is_is_told_and_what_it_had_is_kept(name, page, tmp_path):
    content, sentence = TOLD[name]
    open_panel(page)
    import_all(page, tmp_path, content, sentence)
    assert f"{len(sessions(page))} chat" in sentence


def test_an_import_is_stopped_and_begun_again(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    page.driver.execute_script("document.getElementById('import').focus()")
    content = chats(*range(10))
    choose(page, tmp_path, content)
    for done in range(3):
        page.wait(lambda: page.run("window.held.length") == 1)
        said = f"{done} chats imported. 0.1 of 0.1 MB are read."
        assert page.text("#moved") == said.replace("1 chats", "1 chat")
        assert page.find("#moved-share").is_displayed()
        page.driver.execute_script(RELEASE)
        page.wait(lambda done=done: page.text("#moved").startswith(str(done + 1)))
    page.wait(lambda: page.run("window.held.length") == 1)
    assert page.focused == "stop-moving"
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)  # what was sent is not taken back
    finish(page, "Stopped. 4 chats imported.")
    assert page.focused == "import" and not page.find("#moved-share").is_displayed()
    page.wait(lambda: len(page.titles) == 4)
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 4)
    open_panel(page)
    import_all(page, tmp_path, content, "6 chats imported, 4 were here already.")
    page.wait(lambda: len(page.titles) == 10)


BREAKS = """
    const ask = fetch;
    const busy = { errors: [{ status: "503", title: "Service Unavailable", detail: "One at a time." }] };
    const answers = [
        () => Response.json(busy, { status: 503, headers: { "Retry-After": "1", "X-Request-ID": "x" } }),
        () => { throw new TypeError("lost"); },
        () => new Response("<html>Bad Gateway", { status: 502 }),
        async (...request) => { await ask(...request); throw new TypeError("lost"); },
    ];
    window.sent = [];
    window.fetch = (path, options) => {
        if (!path.endsWith("import")) return ask(path, options);
        window.sent.push(performance.now());
        return (answers.shift() ?? ask)(path, options);
    };
"""


def test_a_busy_server_and_a_lost_connection_are_waited_for(page, tmp_path):
    page.driver.execute_script(BREAKS)
    open_panel(page)
    choose(page, tmp_path, chats(1, 2))
    page.wait_for_text("One at a time. Trying again", "#connection")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    finish(page, "1 chat imported, 1 was here already.")  # of which the answer was lost
    assert page.run("window.sent[1] - window.sent[0]") >= 990
    assert len(sessions(page)) == 2 and page.text("#connection") == ""


def test_an_import_that_waits_can_be_stopped(page, tmp_path):
    page.driver.execute_script("window.fetch = async () => { throw new TypeError('lost') }")
    open_panel(page)
    choose(page, tmp_path, chats(1, 2))
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    page.click("Stop")
    page.wait_for_text("Stopped. 0 chats imported.", "#moved")


def test_one_talks_while_chats_are_imported(page, provider, tmp_path):
    page.wait_for_text("m-1", "#model")
    open_panel(page)
    choose(page, tmp_path, chats(*range(300)))
    page.press(Keys.ESCAPE)
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.wait_for_text("300 chats imported.", "#notice.faint")  # where the panel is not open
    open_panel(page)
    assert page.text("#moved") == "300 chats imported."
    assert page.turns == []


def test_a_token_that_has_run_out_stops_an_import(page, tmp_path):
    open_panel(page)
    page.driver.execute_script(
        """
        const [ask, token] = [fetch, arguments[0]];
        let count = 0;
        window.fetch = (path, options) => {
            if (path.endsWith("import") && ++count > 2) options.headers.Authorization = token;
            return ask(path, options);
        };
    """,
        "Bearer " + make_token(page.subject, exp=1),
    )
    choose(page, tmp_path, chats(*range(5)))
    page.wait_for_text("The token has expired.", "#door")
    assert page.focused == "token"
    page.enter()
    page.wait(lambda: page.find("#app").is_displayed() and len(page.titles) == 2)
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 2)
    open_panel(page)
    assert page.text("#moved") == ""


def test_who_signs_out_stops_an_import(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    choose(page, tmp_path, chats(*range(5)))
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Sign out")
    page.wait(lambda: page.find("#token").is_displayed())
    assert sessions(page) == []


def test_is_done_under_a_prefix(browser, start, settings, folder, tmp_path):
    page = Page(browser, start(**settings, SCRIPT_NAME="/chat/v1"))
    fill(page, 2, 6_000_000)
    page.enter()
    page.wait(lambda: len(page.titles) == 2)
    open_panel(page)
    page.click("Download all chats")
    finish(page, "2 chats downloaded.")
    content = downloaded(page, folder).read_bytes()
    assert content.count(b"\n") == 4
    import_all(page, tmp_path, content, "0 chats imported, 2 were here already.", "parley.ndjson")


def test_a_screen_reader_hears_the_end_once(page, tmp_path):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    open_panel(page)
    import_all(page, tmp_path, chats(*range(3)), "3 chats imported.")
    assert page.run("window.heard") == ["3 chats imported."]
    assert page.find("#import").accessible_name == "Import"
    assert page.find("#moved-share").get_attribute("aria-label")


def test_what_is_told_fits_a_narrow_screen_and_axe_finds_nothing(page, tmp_path, check):
    open_panel(page)
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        given = [
            chatgpt(node("assistant", "x"), title=f"{number} {'wide' * 40}") for number in range(40)
        ]
        import_all(page, tmp_path, json.dumps(given).encode(), "0 chats imported, 40 were refused.")
        assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [320, 320]
        assert page.run(
            "((panel) => panel.scrollWidth <= panel.clientWidth)(document.getElementById('account'))"
        )
        for colours in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": colours}]
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            check(f"a list of refusals, {colours}")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
