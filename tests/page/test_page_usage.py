"""A user's usage, as the page at `/` shows it, and what the page does when a limit is reached."""

import datetime

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from client import make_token
from provider import reply
from raw_tables import tables_of

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine", "within_a_day"),
]
COLUMNS = (
    "owner",
    "day",
    "model",
    "replies",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "estimated_tokens",
)
DAYS = "[...document.querySelectorAll('#usage tr')].filter((e) => e.checkVisibility()).map((e) => e.innerText)"
REST = "((e) => e.scrollHeight - e.scrollTop - e.clientHeight)(document.getElementById('usage'))"
WIDE = "['usage', 'app'].map((id) => document.getElementById(id)).filter((e) => e.scrollWidth > e.clientWidth).length"


def open_page(browser, server, *rows):
    """The page of a user with this usage: (how many days ago, model, replies, four kinds of
    tokens)."""
    page = Page(browser, server)
    today = datetime.datetime.now(datetime.UTC).date()
    rows = [
        (page.subject, str(today - datetime.timedelta(days=days)), *counts)
        for days, *counts in rows
    ]
    with tables_of(server.database) as tables:
        tables.fill("usage", COLUMNS, rows)
    page.enter()
    page.wait_for_text("No chats yet.")
    return page


def day(page, place=0):
    """The day of this row, as the browser has it."""
    date = page.user.get("/usage").json()["data"][place]["day"]
    options = "{ month: 'short', day: 'numeric', timeZone: 'UTC' }"
    return page.run(f"new Date(arguments[0]).toLocaleDateString([], {options})", date)


def test_usage_is_shown_and_updated_when_it_is_opened_again(page, provider):
    page.click("Usage")
    page.wait_for_text("You have used nothing in the last 30 days.", "#used")
    assert page.run(DAYS) == [] and not page.shows("#share")
    page.click("Close")
    provider.script = [reply("Much.", usage=(1234, 7, 0))]
    page.say("Hello")
    page.wait_for_turns("Hello", "Much.")
    page.click("Usage")
    page.wait_for_text("You have used 1,241 tokens in the last 30 days.", "#used")
    assert page.texts("summary bdi") == ["m-1"]
    assert page.texts("summary small") == ["1 reply, 1,234 tokens read, 7 written"]
    assert page.run(DAYS) == ["Day (UTC)\tReplies\tRead\tWritten", f"{day(page)}\t1\t1,234\t7"]
    assert "≈" not in page.text("#usage")


def test_sums_are_shown_by_model_and_by_day_and_estimates_are_marked(browser, server):
    rows = [
        (0, "m-1", 2, 100, 1000, 0, 0),
        (0, "m-2", 1, 15, 7, 3, 0),
        (1, "m-2", 1, 0, 0, 0, 1500),
        (30, "m-2", 1, 9, 9, 9, 9),
    ]
    page = open_page(browser, server, *rows)
    page.click("Usage")
    page.wait_for_text("You have used 2,622 tokens in the last 30 days.", "#used")
    assert page.texts("summary bdi") == ["m-2", "m-1"]  # by all their tokens
    sums = [
        "2 replies, 15 tokens read, 7 written, ≈ 1,500 estimated",
        "2 replies, 100 tokens read, 1,000 written",
    ]
    assert page.texts("summary small") == sums
    assert page.run(DAYS) == []
    page.find("#usage summary").click()
    days = [f"{day(page, 1)}\t1\t15\t7\t0", f"{day(page, 2)}\t1\t0\t0\t≈ 1,500"]
    assert page.run(DAYS) == ["Day (UTC)\tReplies\tRead\tWritten\tEstimated", *days]
    scopes = page.run(
        "[...document.querySelectorAll('#usage details:first-of-type th')].map((e) => e.scope)"
    )
    assert scopes == ["col"] * 5 + ["row"] * 2


@pytest.mark.parametrize("limit", ["2000/month", "2000/day"])
def test_a_limit_is_shown_with_its_usage_and_its_reset(limit, browser, server_with):
    server = server_with(TOKEN_LIMIT=limit)
    page = open_page(browser, server, (0, "m-1", 3, 1000, 0, 0, 500))
    page.click("Usage")
    meta = page.user.get("/usage").json()["meta"]
    reset = page.run(
        "new Date(arguments[0]).toLocaleString([], { dateStyle: 'full', timeStyle: 'short' })",
        meta["resets_at"],
    )
    page.wait_for_text(
        f"You have used 1,500 of 2,000 tokens. The count starts over on {reset}.", "#used"
    )
    assert page.run("document.getElementById('share').position") == 0.75
    assert page.text("#usage h3") == "The last 30 days"  # which may be more or less
    page.press(Keys.ESCAPE)
    with tables_of(server.database) as tables:
        tables.rows("UPDATE usage SET output_tokens = 600 WHERE owner = ?", page.subject)
    page.click("Usage")
    page.wait_for_text(f"You have used 2,100 of 2,000 tokens. Ask again on {reset}.", "#used")
    assert page.run("document.getElementById('share').position") == 1


def test_it_is_opened_and_closed_by_the_keyboard_and_stops_no_reply(page, provider):
    provider.script = [reply("One ", 60)]
    page.say("Talk")
    page.wait_for_text("One", "article:last-child")
    page.driver.execute_script("document.getElementById('usage-button').focus()")
    page.press(Keys.ENTER)
    page.wait(lambda: page.focused == "usage" and page.text("#used") != "Loading…")
    assert (
        page.find("#usage").aria_role == "dialog" and page.find("#usage").accessible_name == "Usage"
    )
    assert page.find("#used").aria_role == "status"
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.focused == "usage-button" and not page.shows("#usage"))
    assert page.shows("#stop-reply")
    page.press(Keys.ENTER)
    page.wait(lambda: page.focused == "usage")
    page.press(Keys.TAB, Keys.ENTER)  # the button that closes it
    page.wait(lambda: page.focused == "usage-button" and not page.shows("#usage"))
    page.click("Stop")
    page.wait(lambda: page.is_idle)


def test_much_usage_fits_a_narrow_screen(browser, server):
    name = "ollama/a-model-with-a-name-that-is-rather-long-{}"
    rows = [
        (days, name.format(model), 100, 9_000_000, 900_000, 0, 99_000)
        for days in range(30)
        for model in range(20)
    ]
    page = open_page(browser, server, *rows)
    metrics = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.wait(lambda: page.shows("#chats"))
        page.click("Chats")
        page.click("Usage")
        page.wait(lambda: len(page.texts("#usage summary")) == 20)
        browser.execute_script(
            "document.querySelectorAll('details').forEach((details) => (details.open = true))"
        )
        assert len(page.run(DAYS)) == 20 * 31
        assert page.run(WIDE) == 0 and page.run("document.documentElement.scrollWidth") == 360
        top, bottom = page.run(
            "(({ top, bottom }) => [top, bottom])(document.getElementById('usage').getBoundingClientRect())"
        )
        assert 0 < top < bottom < 640
        page.press(Keys.END)
        page.wait(lambda: page.run(REST) < 2)
        page.press(Keys.ESCAPE)
        page.wait(lambda: page.focused == "usage-button")  # in the drawer, which is still open
        assert page.shows("#list")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_says_that_it_loads_and_drops_the_earlier_request(page):
    page.driver.execute_script("""
        const ask = fetch;
        window.asked = [];
        window.fetch = (path, options) => {
            window.asked.push(options.signal);
            return window.asked.length === 1 ? new Promise(() => {}) : ask(path, options);
        };
    """)
    page.click("Usage")
    page.wait_for_text("Loading…", "#used")
    page.click("Close")
    page.click("Usage")
    page.wait_for_text("You have used nothing", "#used")
    assert page.run("window.asked.map(({ aborted }) => aborted)") == [True, False]


def test_it_says_what_went_wrong_and_waits_for_a_lost_connection(page):
    page.driver.execute_script("""
        const ask = fetch;
        const refusal = { errors: [{ status: "503", title: "Service Unavailable", detail: "The database is away." }] };
        const answers = [
            () => Response.json(refusal, { status: 503 }),
            () => { throw new TypeError("lost"); },
            () => new Response("<html>Bad Gateway", { status: 502 }),
        ];
        window.fetch = async (...request) => (answers.shift() ?? (() => ask(...request)))();
    """)
    page.click("Usage")
    page.wait_for_text("The database is away.", "#used.alarm")
    assert page.text("#notice") == ""
    page.click("Close")
    page.click("Usage")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    assert page.text("#used:not(.alarm)") == "Loading…"
    page.wait_for_text("You have used nothing", "#used:not(.alarm)")
    assert page.text("#connection") == ""


def test_an_expired_token_brings_back_its_field(page):
    page.driver.execute_script(
        """
        const [ask, token] = [fetch, arguments[0]];
        window.fetch = (path, options) => ask(path, { ...options, headers: { ...options.headers, Authorization: token } });
    """,
        "Bearer " + make_token(page.subject, exp=1),
    )
    page.click("Usage")
    page.wait_for_text("The token has expired.", "#sign-in-page")
    assert page.focused == "token" and not page.shows("#usage")
    page.driver.refresh()
    page.click("Usage")
    page.wait_for_text("You have used nothing", "#used")


def test_usage_works_under_a_prefix(browser, server_with):
    server = server_with(SCRIPT_NAME="/chat/v1")
    page = open_page(browser, server, (0, "m-1", 3, 1000, 0, 0, 500))
    page.click("Usage")
    page.wait_for_text("You have used 1,500 tokens in the last 30 days.", "#used")


LIMITS = {
    "RATE_LIMIT": ("2/day", r"You may ask for 2 replies in "),
    "TOKEN_LIMIT": ("44/month", "You have used 44 of 44 tokens of this month (UTC)."),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_reached_says_so_and_removes_nothing(name, browser, server_with, provider):
    limit, sentence = LIMITS[name]
    page = Page(browser, server_with(**{name: limit})).enter()
    provider.script = [reply("One."), reply("Half", stop="length")]
    page.say("First")
    page.wait_for_turns("First", "One.")
    page.say("Second")
    page.wait_for_turns("First", "One.", "Second", "Half")
    page.wait(lambda: page.titles == ["First"])
    assert int(page.user.post("/sessions", {"content": "x"}).headers["Retry-After"]) > 1
    page.driver.execute_script(HOLD, "sessions/")  # counts the requests, and lets them wait
    turns, asked = page.turns, 0

    def is_refused(ask):
        nonlocal asked
        ask()
        for _ in range(2):  # the look for new turns, and the message
            asked += 1
            page.wait(lambda: page.run("window.count") == asked)
            assert page.text("#notice") == ""
            page.driver.execute_script(RELEASE)
        page.wait_for_text(sentence, "#notice")
        page.wait_for_turns(*turns)
        assert page.run("window.count") == asked, "it was sent again"

    is_refused(lambda: page.say("Third"))
    assert page.find("#text").get_attribute("value") == "Third"
    is_refused(lambda: page.click("Retry"))
    is_refused(lambda: page.click("Continue"))
    page.find("article:nth-last-child(2) .edit").click()
    is_refused(lambda: page.press(" edited", Keys.ENTER))
    assert page.run("document.querySelector('article textarea').value") == "Second edited"
    page.driver.refresh()
    page.wait_for_turns(*turns)
    assert page.find("#text").get_attribute("value") == "Third"
    assert page.run("document.querySelector('article textarea').value") == "Second edited"
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.say("Fourth")
    page.wait_for_text(sentence, "#notice")
    page.wait(lambda: page.turns == [] and page.is_idle)
    assert page.find("#text").get_attribute("value") == "Fourth" and page.titles == ["First"]
    assert len(provider.posts) == 2
