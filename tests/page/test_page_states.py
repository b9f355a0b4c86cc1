"""The page in twelve states, each on a wide screen and on a phone's, light and dark: axe finds
nothing, and nothing is wider than the screen. PICTURES=folder also saves what each looks like."""

import base64
import itertools
import os
import pathlib
import threading
from datetime import UTC, datetime, timedelta

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from browser import EVERYTHING, Page
from pictures import png
from provider import REFUSED, cut, reply, thought

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

SCREENS = {"wide": (1280, 800), "phone": (390, 844)}
FORMS = list(itertools.product(SCREENS, ("light", "dark")))

# What goes beyond the right edge and is in no box that scrolls.
TOO_WIDE = """[...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility() && !node.closest("#announcer, pre, .table, .formula, [hidden]")
    && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 100))"""

# What is too small for a thumb (WCAG 2.5.5).
TOO_SMALL = """[...document.querySelectorAll("header, #composer, #list li, #menu, .tools, .versions")]
    .flatMap((node) => [...node.querySelectorAll("button")]).filter((node) => {
        const { width, height } = node.getBoundingClientRect();
        return node.checkVisibility() && Math.min(width, height) < 43.9;
    }).map((node) => node.outerHTML.slice(0, 100))"""

ARABIC = """مرحبًا! يمكن كتابة **النص** من اليمين إلى اليسار:

1. افتح الملف `app.py`
2. أضف السطر التالي

```python
print("hello")
```
"""


@pytest.fixture(params=FORMS, ids=["-".join(form) for form in FORMS])
def form(request, browser):
    """Gives the browser such a screen, and returns the name of this form."""
    screen, colours = request.param
    width, height = SCREENS[screen]
    cdp = browser.execute_cdp_cmd
    is_phone = screen == "phone"
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
    features = [
        {"name": "prefers-color-scheme", "value": colours},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    cdp("Emulation.setDeviceMetricsOverride", metrics)
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": is_phone})
    cdp("Emulation.setEmulatedMedia", {"features": features})
    yield "-".join(request.param)
    cdp("Emulation.setEmulatedMedia", {"features": []})
    cdp("Emulation.setTouchEmulationEnabled", {"enabled": False})
    cdp("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def look(browser, check, form):
    """A function that looks at the page as it is now."""
    folder = os.environ.get("PICTURES")

    def look(state):
        if folder:
            data = browser.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
            file = pathlib.Path(folder, f"{state}-{form}.png")
            file.write_bytes(base64.b64decode(data))
        check(f"{state}, {form}")
        assert browser.execute_script("return " + TOO_WIDE) == [], f"{state}, {form}"
        if "phone" in form:
            assert browser.execute_script("return " + TOO_SMALL) == [], f"{state}, {form}"

    return look


def chats_of(page):
    """Chats of different days."""
    now = datetime.now(UTC)
    names = "Plan a week in Lisbon|Rate limiting in Flask|Why is the sky blue?|A birthday poem"
    for number, title in enumerate(f"{names}|Sourdough at 70 %|Tax return|Kubernetes".split("|")):
        time = f"{now - timedelta(days=number**3 / 2, minutes=5):%Y-%m-%dT%H:%M:%SZ}"
        turns = [
            {"kind": "user", "content": title, "created_at": time},
            {"kind": "assistant", "content": f"About {title}: first of all, it depends."},
        ]
        answer = page.user.post("/sessions/import", {"title": title, "turns": turns})
        assert answer.status_code == 201
    return answer.json()


def open_chat(page, turns, title):
    chat = page.user.post("/sessions/import", {"title": title, "turns": turns}).json()
    page.driver.get(f"{page.user.url}/#{chat['id']}")
    page.wait(lambda: page.text("#title") == title and len(page.turns) == len(turns))


def turns_of(*texts, **fields):
    kinds = itertools.cycle(("user", "assistant"))
    return [{"kind": kind, "content": text} for kind, text in zip(kinds, texts, strict=False)]


def test_signing_in_and_a_server_without_a_model(browser, server_with, form, look):
    page = Page(browser, server_with(OPENAI_BASE_URL="", DEFAULT_MODEL=""))
    page.wait_for_text("flask token", "#source")
    look("sign-in")
    page.open_link(page.user.token)
    page.wait(lambda: page.shows("#by-link"))
    look("link")
    page.click("Sign in as")
    page.wait_for_text("echo", "#model")
    page.wait_for_text("OPENAI_BASE_URL", "#app")
    look("no-model")


def test_a_chat(browser, server, provider, form, look):
    page = Page(browser, server).enter()
    page.wait_for_text("m-1", "#model")
    look("new")
    chats_of(page)
    words = "Rate limiting counts the requests of each user in a window of time. " * 12
    question = "Could you explain how I add rate limiting to the auth endpoints of a Flask app?"
    short = "And with two servers?"
    open_chat(
        page,
        turns_of(question, words, short, words + "\n\n- one\n- two", "Thanks!", "Any time."),
        "Long",
    )
    look("long")
    open_chat(page, turns_of("Show all there is", EVERYTHING), "Everything")
    page.wait(lambda: len(page.texts(".text math")) == 3 and page.texts(".token-deleted"))
    look("code")
    open_chat(page, turns_of("كيف أكتب من اليمين إلى اليسار؟", ARABIC), "من اليمين إلى اليسار")
    page.wait(lambda: page.texts(".token-name, .token-string"))
    look("arabic")
    files = [page.user.uploaded(png(640, 480, 90_000)), page.user.uploaded(png(300, 400, 40_000))]
    session = page.user.create("What are these?", files=files)
    page.driver.get(f"{page.user.url}/#{session['id']}")
    page.wait(lambda: page.run("document.querySelectorAll('article img[src]').length") == 2)
    look("pictures")
    more = threading.Event()
    provider.script = [
        reply(thought(reasoning="First, **what** is asked? " * 9), more, "It is 42.")
    ]
    page.driver.get(f"{page.user.url}/#")
    page.wait(lambda: page.turns == [])
    page.say("What is the answer?")
    page.wait(lambda: page.shows("article:last-child .thinking summary"))
    page.find("article:last-child .thinking summary").click()
    page.wait_for_text("First, what is asked?", "article:last-child .thinking")
    look("thinking")
    more.set()
    page.wait_for_turns("What is the answer?", "It is 42.")
    provider.script = [cut("It was begun "), REFUSED, REFUSED, REFUSED]
    page.say("Why?")
    page.wait_for_text("broke the connection", "article:last-child")
    page.wait(lambda: page.is_idle)
    look("error")
    page.find("#settings-button").click()
    page.wait(lambda: page.shows("#settings"))
    look("settings")
    page.run("document.getElementById('settings').hidePopover()")
    if page.shows("#chats"):
        page.find("#chats").click()
    page.wait(lambda: page.shows("#list"))
    page.wait(lambda: "Tax return" in page.titles)
    page.click("Options of Rate limiting")
    page.wait(lambda: page.shows("#menu"))
    look("list")


SHOWN = """[...document.querySelectorAll("article .tools")].map((node) => getComputedStyle(node).opacity)"""


def test_a_turns_buttons_are_shown_when_they_are_wanted(talk):
    page = talk()
    assert page.run(SHOWN) == ["0", "0", "0", "1"]
    page.find("article:nth-child(2) [value=copy]").send_keys(Keys.TAB)
    assert page.run(SHOWN) == ["0", "1", "0", "1"]
    ActionChains(page.driver).move_to_element(page.find("article .text")).perform()
    assert page.run(SHOWN) == ["1", "1", "0", "1"]


def test_what_a_new_chat_proposes_goes_into_the_field_and_is_no_draft(page):
    page.wait(lambda: page.shows("#ideas"))
    page.find("#idea-code").click()
    page.wait(lambda: "quicksort" in page.run("document.getElementById('text').value"))
    assert page.focused == "text" and not page.shows("#ideas")
    page.find("#new").click()
    page.wait(lambda: page.shows("#ideas"))
    page.find("#idea-leave").click()
    page.press(Keys.ENTER)
    page.wait(lambda: len(page.turns) == 2 and page.is_idle)
    assert page.turns[0].startswith("Explain how TCP") and not page.shows("#welcome")
