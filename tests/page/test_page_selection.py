"""Several chats are selected in the list, and deleted at once; until some seconds later, the user
can undo it. The modules are `static/page/selection.js` and `static/page/deletion.js`."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

# The eight seconds take two tenths of one.
FASTER = "const wait = setTimeout; window.setTimeout = (run, time) => wait(run, time === 8000 ? 200 : time)"

# Deletions arrive, and are not answered.
NO_ANSWERS = """
    const ask = fetch;
    window.fetch = async (path, options) => {
        const answer = await ask(path, options);
        if (options.method === "DELETE") await new Promise(() => {});
        return answer;
    };
"""

CHECKED = "[...document.querySelectorAll('#list input:checked')].map((e) => e.parentElement.title)"

TITLES = ["Fourth", "Third", "Second", "First"]


def stored(page):
    sessions = page.user.get("/sessions?page[limit]=100").json()["data"]
    return [session["title"] for session in sessions]


def select(page, *titles):
    """Select these chats; the selection begins in the menu of the first."""
    page.click(f"Options of {titles[0]}")
    page.click("Select…")
    page.wait(lambda: page.run(CHECKED) == [titles[0]])
    for title in titles[1:]:
        page.find(f"#list label[title='{title}']").click()


def has_no_boxes(page):
    return not page.shows("#selection") and not page.texts("#list label")


@pytest.fixture
def chats(page):
    """Four chats; on top Fourth, which is open."""
    sessions = [page.user.create(title) for title in reversed(TITLES)]
    page.driver.refresh()
    page.wait(lambda: page.titles == TITLES)
    page.click("Fourth")
    page.wait_for_turns("Fourth", "The answer.")
    return sessions


def test_several_chats_are_deleted_and_brought_back(page, chats):
    select(page, "Third", "First")
    assert page.titles == TITLES and not page.texts("#list button")
    page.click("Delete 2")
    page.wait_for_text("Deleted 2 chats.", "#deleted")
    assert page.titles == ["Fourth", "Second"] and has_no_boxes(page)
    assert page.turns == ["Fourth", "The answer."]
    page.click("Undo")
    assert page.titles == TITLES and page.text("#deleted") == ""
    assert page.run("document.activeElement.hash") == f"#{chats[2]['id']}"
    assert sorted(stored(page)) == sorted(TITLES)


def test_they_are_deleted_on_the_server_one_after_the_other(page, chats):
    page.driver.execute_script(HOLD, "sessions/")
    page.driver.execute_script(FASTER)
    select(page, "Third", "Second", "First")
    page.click("Delete 3")
    for count in (1, 2, 3):
        page.wait(lambda: page.run("window.held.length") == 1)
        assert page.run("window.count") == count
        page.driver.execute_script(RELEASE)
    page.wait(lambda: stored(page) == ["Fourth"])
    assert page.titles == ["Fourth"]


def test_an_open_chat_among_them_leaves_the_screen_and_comes_back(page, chats):
    select(page, "Third", "Fourth")
    page.click("Delete 2")
    assert page.text("#title") == "New chat" and "#" not in page.driver.current_url
    page.click("Undo")
    page.wait_for_turns("Fourth", "The answer.")
    assert page.titles == TITLES


def test_those_that_fail_come_back_and_the_error_is_said_once(page, chats):
    page.driver.execute_script(
        """
        window.said = [];
        const notice = document.getElementById("notice");
        new MutationObserver(() => window.said.push(notice.textContent)).observe(notice, { childList: true });
        const ask = fetch;
        const refusal = { errors: [{ detail: "The database does not answer." }] };
        window.fetch = (path, options) => options.method === "DELETE" && !path.endsWith(arguments[0])
            ? new Response(JSON.stringify(refusal), { status: 503 })
            : ask(path, options);
        """,
        chats[1]["id"],
    )
    page.driver.execute_script(FASTER)
    select(page, "Third", "Second", "First")
    page.click("Delete 3")
    page.wait(lambda: page.titles == ["Fourth", "Third", "First"])
    page.wait_for_text("The database does not answer.", "#notice")
    assert page.run("window.said.filter(Boolean)") == ["The database does not answer."]
    assert stored(page) == ["Fourth", "Third", "First"]


@pytest.mark.parametrize("is_sending", [False, True])
def test_a_hundred_are_deleted_when_the_page_is_left(is_sending, page, provider):
    for number in range(100):
        page.user.create(f"Chat {number}")
    page.driver.refresh()
    page.wait(lambda: len(page.titles) == 20)
    page.scroll_to_more()
    page.wait(lambda: len(page.titles) == 100)
    select(page, "Chat 99")
    page.find("#select-all").click()
    if is_sending:
        page.driver.execute_script(FASTER)
        page.driver.execute_script(NO_ANSWERS)
    page.click("Delete 100")
    if is_sending:
        page.wait(lambda: len(stored(page)) == 99)
    page.driver.refresh()
    page.wait(lambda: stored(page) == [])


def test_all_that_are_shown_are_selected_and_a_search_keeps_only_what_it_shows(page, chats):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    select(page, "Third")
    all_of_them = page.find("#select-all")
    assert all_of_them.get_property("indeterminate")
    all_of_them.click()
    assert page.run(CHECKED) == TITLES and page.text("#delete-selected") == "Delete 4"
    assert page.run("window.heard") == ["4 selected"]
    all_of_them.click()
    assert page.run(CHECKED) == [] and page.text("#delete-selected") == "Delete"
    assert not page.find("#delete-selected").is_enabled()
    all_of_them.click()
    page.find("#search").send_keys("ir")  # Third, First
    page.wait(lambda: page.titles == ["Third", "First"])
    assert page.text("#delete-selected") == "Delete 2" and all_of_them.is_selected()
    page.find("#search").send_keys(Keys.ESCAPE)
    page.wait(lambda: page.titles == TITLES)
    assert page.run(CHECKED) == ["Third", "First"]


def test_a_redrawn_list_keeps_the_selection_and_the_focus(page, chats, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    select(page, "Second", "Third")
    page.user.create("Fifth")
    gate.set()
    page.wait(lambda: "Fifth" in page.titles)
    assert page.run(CHECKED) == ["Third", "Second"]
    assert page.run("document.activeElement.value") == chats[2]["id"]


def test_the_keyboard_does_all_of_it(page, chats):
    page.find("#list [aria-label='Options of Third']").send_keys(Keys.ENTER)
    page.wait(lambda: page.focused == "rename")
    page.press(*[Keys.TAB] * 4, Keys.ENTER)
    page.wait(lambda: page.run(CHECKED) == ["Third"])
    page.press(Keys.ARROW_DOWN, Keys.SPACE)
    assert page.run(CHECKED) == ["Third", "Second"]
    page.press(Keys.TAB, Keys.TAB, hold=Keys.SHIFT)  # Cancel, and the button before it
    assert page.focused == "delete-selected"
    page.press(Keys.ENTER)
    page.wait(lambda: page.focused == "undo")
    assert page.titles == ["Fourth", "First"]
    page.press("z", hold=Keys.CONTROL)
    page.wait(lambda: page.titles == TITLES)


@pytest.mark.parametrize("how", ["Escape", "Cancel"])
def test_the_selection_is_left_and_the_focus_stays(how, page, chats, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    page.say("Count")
    page.wait_for_text("One")
    select(page, "Second", "First")
    if how == "Cancel":
        page.click("Cancel")
    else:
        page.press(Keys.ESCAPE)
    assert has_no_boxes(page)
    focused = "First" if how == "Escape" else "Second"
    assert page.run("document.activeElement.ariaLabel") == f"Options of {focused}"
    select(page, "Third")  # nothing of the earlier selection is left
    page.press(Keys.ESCAPE)
    gate.set()
    page.wait_for_turns("Fourth", "The answer.", "Count", "One two.")


def test_escape_in_the_search_clears_that_first(page, chats):
    select(page, "Third")
    page.find("#search").send_keys("third")
    page.wait(lambda: page.titles == ["Third"])
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.titles == TITLES)
    assert page.run(CHECKED) == ["Third"]
    page.press(Keys.ESCAPE)
    assert has_no_boxes(page) and page.focused == "search"


def test_a_phone_selects_in_the_drawer(browser, server, check):
    metrics = {"width": 320, "height": 568, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = Page(browser, server)
        for title in reversed(TITLES):
            page.user.create(title)
        page.enter()
        page.wait(lambda: page.shows("#chats"))
        page.find("#chats").click()
        page.wait(lambda: page.titles == TITLES)
        select(page, "Third", "First")
        bar = page.run(
            "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.getElementById('selection'))"
        )
        assert bar and page.run("document.documentElement.scrollWidth") == 320
        check("selection")
        page.press(Keys.ESCAPE)
        assert has_no_boxes(page) and page.shows("#sidebar")
        select(page, "Third", "First")
        page.click("Delete 2")
        page.wait_for_text("Deleted 2 chats.", "#deleted")
        page.click("Undo")
        page.wait(lambda: page.titles == TITLES)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


HEIGHTS = "[...document.querySelectorAll('#list li')].map((e) => e.getBoundingClientRect().height)"


def test_a_row_is_as_high_as_before(page, chats):
    before = page.run(HEIGHTS)
    select(page, "Third")
    assert page.run(HEIGHTS) == before
