"""Chats come from a file, by the account panel. Modules: `static/page/transfer.js`."""

import json

import pytest
from selenium.webdriver.common.keys import Keys

from archives import OPENWEBUI, asked_of_openwebui
from browser import FASTER, HOLD, RELEASE, Page
from client import make_token
from page_files import (
    chatgpt,
    chats,
    choose,
    claude,
    finish,
    import_all,
    lines,
    node,
    open_panel,
    said,
    sessions,
    short_chat,
    zipped,
)

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]


def test_chats_of_chatgpt_are_imported_and_the_omissions_are_named(page, tmp_path):
    image = {"content_type": "image_asset_pointer"}
    full = chatgpt(
        node("user", image, "What is it?", of="multimodal_text"),
        node("assistant", of="thoughts"),
        node("assistant", "search()", recipient="web"),
        node("assistant", "A cat."),
        title="Cats",
    )
    full["mapping"]["n9"] = node("user", "What is that?", parent="root")
    open_panel(page)
    choose(page, tmp_path, json.dumps([full, short_chat(1)]).encode())
    finish(page, "2 chats imported.")
    left = [
        "1 image or file was left out.",
        "1 tool call or result was left out.",
        "1 message of another branch was left out.",
    ]
    assert page.texts("#transfer-list li") == left
    page.wait(lambda: sorted(page.titles) == ["Cats", "Chat 1"])
    assert page.text("#list time").endswith(", 2023")
    page.press(Keys.ESCAPE)
    page.click("Cats")
    page.wait_for_turns("[image]\n\nWhat is it?", "A cat.")
    page.say("Sure?")  # the user can write in it at once
    page.wait_for_turns("[image]\n\nWhat is it?", "A cat.", "Sure?", "The answer.")


def test_chats_of_claude_are_imported_from_a_zip(page, tmp_path):
    given = claude(said("human", "Hello"), said("assistant", "Hi."), name="Greeting")
    open_panel(page)
    content = zipped({"a/conversations.json": json.dumps([given]), "users.json": "[]"})
    import_all(page, tmp_path, content, "1 chat imported.", "data.zip")
    assert page.texts("#transfer-list li") == []
    page.wait(lambda: page.titles == ["Greeting"])
    session = sessions(page)[0]
    assert session["created_at"] == "2025-07-03T15:16:39Z"


def test_chats_of_open_webui_are_imported_with_their_thinking(page, tmp_path):
    open_panel(page)
    other = asked_of_openwebui(2)[0] | {"title": "Waves"}
    content = json.dumps([OPENWEBUI, other], indent=2).encode()
    import_all(page, tmp_path, content, "2 chats imported.", "chat-export-1.json")
    left = [
        "1 image or file was left out.",
        "2 tool calls and results were left out.",
        "3 messages of other branches were left out.",
    ]
    assert page.texts("#transfer-list li") == left
    page.press(Keys.ESCAPE)
    page.click("Seas")
    page.wait_for_turns("What is a sea?", "I look it up.Much water.", "[image]", "A wave.")
    page.wait(lambda: "Thought for 5 s" in page.texts("article .thinking summary"))
    open_panel(page)
    import_all(page, tmp_path, content, "0 chats imported, 2 were here already.", "again.json")
    assert page.texts("#transfer-list li") == []


NO_CONVERSATION = "This is not a conversation of ChatGPT, Claude, Open WebUI or Parley."


def test_refused_chats_are_named_and_the_rest_is_imported(page, tmp_path):
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
    assert page.texts("#transfer-list li") == [
        f"A folder: {NO_CONVERSATION}",
        "Circle: Its messages refer to each other in a circle.",
        "Not mine: It has no message of yours.",
        "Of the future: turns/0/created_at: Give a time in the past: this one is in the future.",
        f"Conversation 5, at byte {strange}: {NO_CONVERSATION}",
        f"Conversation 7, at byte {at}: It is larger than 16 MB.",
        f"Conversation 8, at byte {at + len(large)}: It is not UTF-8.",
    ]
    page.wait(lambda: page.titles == ["Chat 1"])


def test_a_chat_that_is_too_large_for_the_server_is_named(browser, server_with, tmp_path):
    page = Page(browser, server_with(MAX_CONTENT_LENGTH="100000")).enter()
    page.wait_for_text("No chats yet.")
    open_panel(page)
    large = chatgpt(node("user", "x" * 3_000_000), title="Large")
    content = json.dumps([large, short_chat(1)]).encode()
    import_all(page, tmp_path, content, "1 chat imported, 1 was refused.")
    assert page.texts("#transfer-list li") == ["Large: Send at most 1600000 bytes."]


def is_not_whole(content):
    return content.rpartition(b'{"end"')[0]


LINE = {"id": "i", "title": "Line", "turns": [{"kind": "user", "content": "Hello"}]}
PARLEY = lines(
    {"parley": 2, "subject": "s", "exported_at": "2026-11-30T12:00:00Z"},
    LINE,
    {"end": True, "sessions": 1},
)
SHORT = "The file is incomplete: its last line is missing. 1 chat imported."
CUT = "The file is incomplete: it ends within conversation 2. 1 chat imported."
TWO = chats(1, 2)
TOLD = {
    "Parley's": (PARLEY, "1 chat imported."),
    "its last line is missing": (is_not_whole(PARLEY), SHORT),
    "cut in a conversation": (TWO[:-10], CUT),
    "an operator's copy": (
        lines({"parley": 2, "everything": True}, LINE),
        "This is an operator's copy of a whole server: only flask import --all of release 2.0.0 reads it. 0 chats imported.",
    ),
    "of another release": (
        lines({"parley": 4}, LINE),
        "This file was made by another release of Parley. Import it with that one. 0 chats imported.",
    ),
    "cut, with another one behind it": (
        is_not_whole(PARLEY) + PARLEY,
        "The file is incomplete: another export begins in it. 1 chat imported.",
    ),
    "a line too few": (
        lines({"parley": 2}, LINE, {"end": True, "sessions": 2}),
        "The file is incomplete: its last line names 2 chats, and it has 1. 1 chat imported.",
    ),
    "of another shape": (b'[{"name": "x"}, {"a": []}]', "0 chats imported, 2 were refused."),
    "of another shape, and long": (
        lines(*({"a": number} for number in range(2000))),
        "The first 100 chats of this file were all refused, so it was not read on. "
        "Choose an export of ChatGPT, Claude, Open WebUI or Parley. 0 chats imported, 100 were refused.",
    ),
    "no JSON": (
        b"%PDF-1.7",
        "The file is not a JSON list of conversations: unexpected content at byte 0. 0 chats imported.",
    ),
    "a ZIP without chats": (
        zipped({"a.txt": ""}),
        "There is no conversations.json in this ZIP. 0 chats imported.",
    ),
    "a ZIP that unfolds": (
        zipped({"conversations.json": TWO[:-1] + b" " * 60_000_000 + b"]"}),
        "conversations.json unpacks to more than 200 times what is in the ZIP. 2 chats imported.",
    ),
    "nothing": (b"[]", "0 chats imported."),
}


def test_the_page_says_what_a_file_is_and_keeps_its_chats(page, tmp_path, subtests):
    open_panel(page)
    for name, (content, sentence) in TOLD.items():
        with subtests.test(name):
            import_all(page, tmp_path, content, sentence)
            assert f"{len(sessions(page))} chat" in sentence
            for session in sessions(page):  # so that the next file's are not there already
                page.user.delete(f"/sessions/{session['id']}")


def test_an_import_can_be_stopped_and_started_again(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    page.driver.execute_script("document.getElementById('import').focus()")
    content = chats(*range(10))
    choose(page, tmp_path, content)
    for done in range(3):
        page.wait(lambda: page.run("window.held.length") == 1)
        said = f"{done} chats imported. 0.1 of 0.1 MB read."
        assert page.text("#transfer-status") == said.replace("1 chats", "1 chat")
        assert page.shows("#transfer-progress")
        page.driver.execute_script(RELEASE)
        page.wait(lambda done=done: page.text("#transfer-status").startswith(str(done + 1)))
    page.wait(lambda: page.run("window.held.length") == 1)
    assert page.focused == "stop-transfer"
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)  # chats that were sent stay
    finish(page, "Stopped. 4 chats imported.")
    assert page.focused == "import" and not page.shows("#transfer-progress")
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
        () => Response.json(busy, { status: 503, headers: { "Retry-After": "10", "X-Request-ID": "x" } }),
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
    page.driver.execute_script(FASTER)
    open_panel(page)
    choose(page, tmp_path, chats(1, 2))
    page.wait_for_text("One at a time. Trying again", "#connection")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    finish(page, "1 chat imported, 1 was here already.")  # the answer to this one was lost
    assert page.run("window.sent[1] - window.sent[0]") >= 990
    assert len(sessions(page)) == 2 and page.text("#connection") == ""


def test_an_import_that_waits_can_be_stopped(page, tmp_path):
    page.driver.execute_script("window.fetch = async () => { throw new TypeError('lost') }")
    open_panel(page)
    choose(page, tmp_path, chats(1, 2))
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    page.click("Stop")
    page.wait_for_text("Stopped. 0 chats imported.", "#transfer-status")


def test_the_user_can_chat_during_an_import(page, provider, tmp_path):
    page.wait_for_text("m-1", "#model")
    open_panel(page)
    choose(page, tmp_path, chats(*range(100)))
    page.press(Keys.ESCAPE)
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    # If the panel is not open.
    page.wait(lambda: page.text("#notice.faint") == "100 chats imported.")
    open_panel(page)
    assert page.text("#transfer-status") == "100 chats imported."
    assert page.turns == []


def test_an_expired_token_stops_an_import(page, tmp_path):
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
    page.wait_for_text("The token has expired.", "#sign-in-page")
    assert page.focused == "token"
    page.enter()
    page.wait(lambda: page.shows("#app") and len(page.titles) == 2)
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 2)
    open_panel(page)
    assert page.text("#transfer-status") == ""


def test_signing_out_stops_an_import(page, tmp_path):
    page.driver.execute_script(HOLD, "import")
    open_panel(page)
    choose(page, tmp_path, chats(*range(5)))
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Sign out")
    page.wait(lambda: page.shows("#token"))
    assert sessions(page) == []


def test_a_screen_reader_hears_the_end_once(page, tmp_path):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    open_panel(page)
    import_all(page, tmp_path, chats(*range(3)), "3 chats imported.")
    assert page.run("window.heard") == ["3 chats imported."]
    assert page.find("#import").accessible_name == "Import"
    assert page.find("#transfer-progress").get_attribute("aria-label")


def test_the_results_fit_a_narrow_screen_and_axe_finds_nothing(page, tmp_path, check):
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
