"""The list of thousands of chats: how it is grouped and loaded, what outlives a reload, a search or a
chat that moves, and the keys that go over it. The modules are `static/page/list.js`,
`static/page/loaded-chats.js` and `static/page/list-keys.js`."""

import itertools
import time
import uuid

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from raw_tables import tables_of

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

HOUR = 3600
TOP = "document.getElementById('list').scrollTop"
COUNT = "document.querySelectorAll('#list li').length"
PATHS = """
    window.asked = [];
    const ask = fetch;
    window.fetch = (path, options) => {
        if (path.startsWith("sessions?")) window.asked.push(path);
        return ask(path, options);
    };
"""


SESSION = "id owner title title_is_users folded_title model created_at updated_at"
TURN = "id session_id kind content created_at shown model status cancelled folded"
turn_ids = itertools.count(10**17)  # lower than real ones; others put theirs before these


def fill(server, page, ages, first=0):
    """Store chats `Chat 0`, `Chat 1`, … of these ages in seconds, each with a message and a reply,
    for the user of the page. Returns their ids."""
    ids = [uuid.uuid4() for _ in ages]
    times = [int((time.time() - age) * 1_000_000) for age in ages]
    sessions, turns = [], []
    for number, (key, made) in enumerate(zip(ids, times, strict=True), first):
        title = f"Chat {number}"
        sessions.append((key.hex, page.subject, title, False, title.lower(), "m-1", made, made))
        for kind in ("user", "assistant"):
            turn = (next(turn_ids), key.hex, kind, title, made, True)
            turns.append((*turn, "m-1", "complete", False, title.lower()))
    with tables_of(server.database) as tables:
        tables.fill("session", SESSION.split(), sessions)
        tables.fill("turn", TURN.split(), turns)
    return [str(key) for key in ids]


@pytest.fixture
def someone(browser, server, provider):
    """A function that opens the page of a user who has so many chats, one for each hour; `ids` are
    theirs, the newest first."""

    def someone(count):
        page = Page(browser, server)
        page.ids = fill(server, page, [60 + HOUR * number for number in range(count)])
        page.enter()
        page.wait(lambda: page.titles)
        return page

    return someone


def titles(count):
    return [f"Chat {number}" for number in range(count)]


def load(page, count):
    """Scroll down until so many chats are loaded."""
    while (before := page.run(COUNT)) < count:
        page.scroll_to_more()
        page.wait(lambda before=before: page.run(COUNT) > before)


def scroll(page, top):
    """Scroll the list, and wait until the page has noticed."""
    page.driver.execute_async_script(
        """
        const [top, done] = arguments;
        document.getElementById("list").scrollTop = top;
        requestAnimationFrame(() => requestAnimationFrame(() => done()));
        """,
        top,
    )
    assert page.run(TOP) == top


# Groups


def test_older_chats_are_grouped_by_month(browser, server):
    page = Page(browser, server)
    days = [0, 1, 3, 7, 40, 400]
    fill(server, page, [24 * HOUR * day for day in days])
    page.enter()
    page.wait(lambda: page.titles == titles(6))
    months = [
        page.run(
            "new Date(Date.now() - arguments[0] * 864e5)"
            ".toLocaleDateString('en', { month: 'long', year: 'numeric' })",
            day,
        )
        for day in (40, 400)
    ]
    assert page.texts("#list h2") == ["Today", "Yesterday", "Previous 7 days", *months]
    assert page.texts("#list section:nth-of-type(3) strong") == ["Chat 2", "Chat 3"]


def test_a_row_tells_the_hour_or_the_day_and_its_title_both(browser, server):
    page = Page(browser, server)
    fill(server, page, [0, 24 * HOUR * 2, 24 * HOUR * 800])
    page.enter()
    page.wait(lambda: page.titles == titles(3))
    today, day, year = page.texts("#list time")
    assert ":" in today and ":" not in day + year
    assert year.removesuffix(year[-4:]).endswith(", ") and len(day) < len(year)
    full = "[...document.querySelectorAll('#list time')].every((e) => e.title.includes(':') && e.dateTime)"
    assert page.run(full)


# Loading


def test_more_chats_come_when_the_end_is_near_a_hundred_at_a_time(someone):
    page = someone(250)
    page.driver.execute_script(PATHS)
    assert page.titles == titles(20)
    for count in (119, 218, 250):
        page.scroll_to_more()
        page.wait(lambda count=count: page.run(COUNT) == count)
    assert page.titles == titles(250) and not page.shows("#list > button")
    assert all("limit%5D=100" in path for path in page.run("window.asked"))


def test_the_button_loads_more_and_the_focus_goes_to_the_first_of_them(someone):
    page = someone(60)
    page.driver.execute_script(
        "window.IntersectionObserver.prototype.observe = () => {};"
        "document.querySelector('#list > button').focus({ preventScroll: true })"
    )
    page.press(Keys.ENTER)
    page.wait(lambda: page.titles == titles(60))
    page.wait(lambda: page.run("document.activeElement.title") == "Chat 20")


def test_chats_that_are_added_moved_and_deleted_meanwhile_are_neither_lost_nor_shown_twice(
    someone, server
):
    page = someone(330)
    load(page, 119)
    fill(server, page, [1, 2, 3], first=1000)  # above all
    fill(server, page, [HOUR * 200.5], first=2000)  # further down
    for number in range(50, 60):
        page.user.delete(f"/sessions/{page.ids[number]}")
    page.user.post(f"/sessions/{page.ids[300]}/messages", {"content": "Up"})
    load(page, 300)
    page.scroll_to_more()
    gone = {300, *range(50, 60)}
    rest = [number for number in range(330) if number not in gone]
    expected = [f"Chat {number}" for number in (300, 1000, 1001, 1002, *rest)]
    expected.insert(expected.index("Chat 201"), "Chat 2000")
    page.wait(lambda: page.titles == expected)


def test_more_than_a_page_of_new_chats_joins_those_that_are_loaded(someone, server):
    page = someone(200)
    load(page, 200)
    fill(server, page, [30 + number / 10 for number in range(150)], first=1000)
    page.say("Now")
    new = [f"Chat {number}" for number in range(1000, 1150)]
    page.wait(lambda: page.titles == ["Now", *new, *titles(200)] and page.is_idle)


def test_chats_of_an_import_are_shown_in_their_places(someone, server):
    page = someone(200)
    load(page, 200)
    fill(server, page, [HOUR * 180.5], first=1000)
    page.driver.execute_async_script(
        "const [done] = arguments; import('/static/page/list.js').then(({ listAgain }) => listAgain()).then(done)"
    )
    assert page.titles == [*titles(181), "Chat 1000", *titles(200)[181:]]


# What outlives


def test_a_reload_keeps_the_length_and_the_position(someone, server):
    page = someone(450)
    load(page, 400)
    scroll(page, 15_000)
    page.driver.refresh()
    page.wait(lambda: page.run(TOP) == 15_000)
    page.wait(lambda: page.run(COUNT) >= 400)
    assert page.titles[:400] == titles(400)


def test_a_reload_shows_the_first_page_before_the_others_and_stays_where_the_reader_scrolls(
    someone,
):
    page = someone(450)
    load(page, 400)
    scroll(page, 15_000)
    held = HOLD.replace("arguments[0]", "'offset%5D=99&'")
    source = {"source": held}
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        page.driver.refresh()
        page.wait(lambda: page.run("window.held?.length") == 1)
        assert page.titles == titles(100) and page.run(TOP) == 0
        scroll(page, 1000)
        page.driver.execute_script(RELEASE)
        page.wait(lambda: page.run(COUNT) >= 400)
        assert page.run(TOP) == 1000
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_reload_while_chats_change_loses_none(someone, server):
    page = someone(450)
    load(page, 400)
    source = {"source": HOLD.replace("arguments[0]", "'offset%5D=198&'")}
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        page.driver.refresh()
        page.wait(lambda: page.run("window.held?.length") == 1)
        page.user.post(f"/sessions/{page.ids[350]}/messages", {"content": "Up"})
        for number in (*range(5), *range(390, 393)):
            page.user.delete(f"/sessions/{page.ids[number]}")
        gone = {*range(5), *range(390, 393), 350}
        expected = ["Chat 350", *[f"Chat {n}" for n in range(400) if n not in gone]]

        def has_come():
            page.driver.execute_script(RELEASE)
            return page.titles[: len(expected)] == expected

        page.wait(has_come)
        assert len(set(page.titles)) == len(page.titles)
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_reply_that_moves_a_chat_to_the_top_leaves_all_others(someone):
    page = someone(350)
    load(page, 350)
    page.driver.get(page.driver.current_url.partition("#")[0] + f"#{page.ids[150]}")
    page.wait(lambda: page.texts("#list [aria-current] strong") == ["Chat 150"])
    scroll(page, 5_000)
    place = "document.querySelector('#list [title=\"Chat 90\"]').getBoundingClientRect().top"
    before = page.run(place)
    page.driver.execute_script("document.querySelector('#list li a').isSame = true")
    page.say("Up")
    page.wait(lambda: page.titles[0] == "Chat 150" and page.is_idle)
    assert page.titles == ["Chat 150", *[title for title in titles(350) if title != "Chat 150"]]
    assert abs(page.run(place) - before) < 1
    assert page.run("document.querySelector('#list [title=\"Chat 0\"]').isSame")


def test_a_search_that_is_cleared_leaves_the_list_as_it_was(someone):
    page = someone(350)
    load(page, 350)
    scroll(page, 9_000)
    page.find("#search").send_keys("chat 34")
    page.wait(lambda: page.titles == [title for title in titles(350) if "34" in title])
    assert page.run(TOP) == 0
    page.find("#search").send_keys(Keys.ESCAPE)
    page.wait(lambda: page.titles == titles(350))
    assert page.run(TOP) == 9_000


def test_a_chat_that_is_unpinned_goes_back_to_its_place(someone):
    page = someone(250)
    page.user.request("PATCH", f"/sessions/{page.ids[150]}", {"pinned": True})
    load(page, 200)
    page.driver.refresh()
    page.wait(lambda: page.run(COUNT) >= 200 and page.titles[0] == "Chat 150")
    page.click("Options of Chat 150")
    page.wait(lambda: page.text("#pin") == "Unpin")
    page.find("#pin").click()
    page.wait(lambda: page.titles[:200] == titles(200))


# Thousands


# How many elements are made when the list is drawn.
DRAW = """
    const [done] = arguments;
    import("/static/page/list.js").then(({ drawList }) => {
        const create = document.createElement;
        let made = 0;
        document.createElement = function (...names) { made++; return create.apply(this, names); };
        drawList();
        document.createElement = create;
        done(made);
    });
"""

HEIGHTS = """(() => {
    const probe = document.createElement("div");
    probe.style.height = "var(--row)";
    document.getElementById("list").append(probe);
    const height = probe.getBoundingClientRect().height;
    probe.remove();
    return [height, ...new Set([...document.querySelectorAll("#list li")].map((row) =>
        row.getBoundingClientRect().height).concat(document.querySelector("#list li").firstChild
        .getBoundingClientRect().height))];
})()"""


def test_five_thousand_chats_come_back_and_are_not_drawn_anew(browser, server, provider):
    page = Page(browser, server)
    page.ids = fill(server, page, [HOUR * number for number in range(5_000)])
    page.driver.execute_script(
        """sessionStorage.setItem("list", '{"length":5000,"top":200000}');
        sessionStorage.setItem("subject", arguments[0])""",
        page.subject,
    )
    page.enter()
    page.wait(lambda: page.run(COUNT) == 5_000)
    page.wait(lambda: page.run(TOP) == 200_000)
    assert page.titles == titles(5_000)
    assert page.driver.execute_async_script(DRAW) == 0
    page.user.create("New")
    page.say("Another")
    page.wait(lambda: page.titles == ["Another", "New", *titles(5_000)] and page.is_idle)


def test_rows_that_are_not_in_view_are_as_high_as_those_that_are(someone):
    page = someone(100)
    load(page, 100)
    height, *rows = page.run(HEIGHTS)
    assert rows == [height] and height >= 44


# Keys


FOCUSED = (
    """(({ localName, title, value }) => [localName, value || title])(document.activeElement)"""
)


def is_at(page, number, name="a"):
    return page.run(FOCUSED) == [name, f"Chat {number}" if name == "a" else page.ids[number]]


def open_chat(page, number):
    page.driver.get(page.driver.current_url.partition("#")[0] + f"#{page.ids[number]}")
    page.wait(lambda: page.texts("#list [aria-current] strong") == [f"Chat {number}"])
    page.wait(lambda: page.turns)


def test_the_list_is_one_tab_stop_at_the_open_chat(someone):
    page = someone(15)
    page.run("document.getElementById('search').focus()")
    page.press(Keys.TAB)
    assert is_at(page, 0)
    page.press(Keys.TAB)
    assert page.focused == "usage-button"
    open_chat(page, 7)
    page.run("document.getElementById('search').focus()")
    page.press(Keys.TAB)
    assert is_at(page, 7)
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert is_at(page, 9)
    page.press(Keys.TAB, hold=Keys.SHIFT)
    assert page.focused == "search"
    page.press(Keys.TAB)
    assert is_at(page, 7)


def test_arrow_keys_go_over_the_list_and_enter_opens_a_chat(someone):
    page = someone(60)
    page.run("document.getElementById('search').focus()")
    page.press(Keys.TAB, Keys.ARROW_UP)
    assert is_at(page, 0)
    page.press(Keys.PAGE_DOWN)
    row = page.run("document.activeElement.closest('li').querySelector('strong').textContent")
    assert 3 <= int(row.removeprefix("Chat ")) <= 12
    page.press(Keys.PAGE_UP)
    assert is_at(page, 0)
    page.press(Keys.END)
    assert is_at(page, 19)
    page.wait(lambda: page.run(COUNT) == 60)  # since its end is near
    assert is_at(page, 19)
    page.press(Keys.END)
    assert is_at(page, 59)
    page.press(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    page.wait_for_turns("Chat 2", "Chat 2")
    assert page.focused == "text"


def test_a_chats_menu_is_to_the_right(someone):
    page = someone(5)
    page.run("document.getElementById('search').focus()")
    page.press(Keys.TAB, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert is_at(page, 1, "button")
    page.press(Keys.ARROW_DOWN)
    assert is_at(page, 2, "button")
    page.press(Keys.ENTER)
    page.wait(lambda: page.focused == "rename")
    page.press(Keys.ESCAPE)
    page.wait(lambda: is_at(page, 2, "button"))
    page.press(Keys.ARROW_LEFT)
    assert is_at(page, 2)
    page.press(Keys.F2)
    page.wait(lambda: page.run("document.activeElement.ariaLabel") == "Title")
    page.press(Keys.HOME, Keys.ARROW_DOWN, "A ")  # within the field
    page.wait(lambda: "Chat 2" in page.run("document.activeElement.value"))
    page.press(Keys.ESCAPE)
    page.wait(lambda: is_at(page, 2, "button"))
    page.find("#shortcuts").click()
    page.wait_for_text("Go to the chat’s options in the list", "dialog")


# The link to the chat


def test_the_first_tab_stop_leads_to_the_chat(someone, check):
    page = someone(3)
    open_chat(page, 1)
    page.run("document.getElementById('new').focus()")
    page.press(Keys.TAB, hold=Keys.SHIFT)
    assert page.focused == "skip"
    assert page.run("getComputedStyle(document.activeElement).opacity") == "1"
    check("the link to the chat")
    page.press(Keys.ENTER)
    assert page.focused == "thread" and page.driver.current_url.endswith(page.ids[1])
    assert page.run("getComputedStyle(document.getElementById('skip')).opacity") == "0"


def test_on_a_phone_the_link_closes_the_drawer_that_would_cover_it(someone):
    page = someone(3)
    metrics = {"width": 320, "height": 568, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        open_chat(page, 1)
        page.find("#chats").click()
        page.wait(lambda: page.shows("#sidebar"))
        page.run("document.getElementById('chats').focus()")
        page.press(Keys.TAB, hold=Keys.SHIFT)
        assert page.focused == "skip" and not page.shows("#sidebar")
        page.press(Keys.ENTER)
        assert page.focused == "thread"
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_drawer_of_a_phone_keeps_its_position(someone):
    page = someone(120)
    metrics = {"width": 320, "height": 568, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.find("#chats").click()
        page.wait(lambda: page.shows("#sidebar"))
        load(page, 119)
        scroll(page, 2_000)
        page.click("Chat 40")
        page.wait_for_turns("Chat 40", "Chat 40")
        page.wait(lambda: not page.shows("#sidebar"))
        page.find("#chats").click()
        page.wait(lambda: page.run(TOP) == 2_000)
        page.driver.refresh()
        page.wait(lambda: page.turns)
        page.find("#chats").click()
        page.wait(lambda: page.run(TOP) == 2_000)
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
