"""The page at `/`, in a real browser: what a user sees, types and presses."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import EVERYTHING, HOLD, RELEASE, WORDS, Page, read_through_a_break
from client import make_token
from provider import REFUSED, cut, reply, status

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


def test_a_reply_is_shown_as_it_comes(page, provider):
    gate = threading.Event()
    provider.script = [reply("Hel", "lo ", gate, "wörld\u2028🎉"), reply("Fine.")]
    page.say("Add rate limiting to the auth endpoints")
    page.wait(lambda: page.turns[1:] == ["Hello "])
    assert page.find("article:last-child").get_attribute("aria-busy") == "true"
    gate.set()
    page.wait_for_turns("Add rate limiting to the auth endpoints", "Hello wörld\u2028🎉")
    assert page.find("article:last-child").get_attribute("aria-busy") == "false"
    page.wait_for_text("15 tokens read, 7 written", "article:last-child")
    page.wait(lambda: page.titles == ["Add rate limiting to the auth endpoints"])
    assert page.text("#title") == "Add rate limiting to the auth endpoints"
    page.say("How are you?")
    page.wait_for_turns(
        "Add rate limiting to the auth endpoints", "Hello wörld\u2028🎉", "How are you?", "Fine."
    )
    assert len(page.user.get("/sessions").json()["data"]) == 1


def test_text_is_never_markup(page, provider):
    evil = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>\n  <b>&amp;</b>"
    shown = evil.replace("&amp;", "&")
    provider.script = [reply(evil)]
    page.say(evil)
    page.wait_for_turns(evil, shown)
    page.driver.refresh()
    page.wait_for_turns(evil, shown)
    page.wait(lambda: page.titles)
    assert page.texts("article :is(img, script, b), #list img, h2 img") == []
    assert page.driver.title != "run"


def test_the_policy_lets_nothing_else_run(page):
    page.driver.execute_script("""
        const sinks = { innerHTML: "p", outerHTML: "p", textContent: "script", src: "script" };
        const refused = Object.entries(sinks).map(([name, tag]) => {
            const node = document.createElement(tag);
            document.body.append(node);
            try { node[name] = "document.title = 'run'"; } catch { return name; }
        });
        window.refused = refused;
        document.body.append(Object.assign(document.createElement("img"), { src: "//elsewhere.test/" }));
    """)
    complaints = []
    page.wait(
        lambda: complaints.extend(page.driver.get_log("browser")) or "img-src" in str(complaints)
    )
    assert page.run("window.refused") == ["innerHTML", "outerHTML", "textContent", "src"]


def test_a_reply_can_be_stopped_and_retried(page, provider):
    provider.script = [reply(*WORDS), reply("Once ", *WORDS), reply("The end.")]
    page.say("Tell me a story")
    page.wait_for_text("word2")
    page.click("Stop")
    page.wait(lambda: page.is_idle)
    page.wait_for_text("Stopped", "article:last-child")
    assert page.texts(".alarm") == []
    assert "word2" in page.turns[1] and "word59" not in page.turns[1]
    assert provider.posts[0].hung_up.wait(5)
    stopped = page.turns[1]
    page.click("Retry")
    page.wait_for_text("Once")
    page.press(Keys.ESCAPE)
    page.wait_for_turns(
        "Tell me a story", stopped
    )  # a retry that is not complete gives way to the reply before it
    page.click("Retry")
    page.wait_for_turns("Tell me a story", "The end.")


def test_a_failure_says_why_and_offers_a_retry(page, provider):
    provider.script = [cut("Half"), REFUSED, cut("Less"), REFUSED, reply("Whole.")]
    page.say("Hello")
    page.wait_for_turns("Hello", "Half")
    page.wait_for_text(
        f"The provider 127.0.0.1:{provider.port} broke the connection", "article:last-child"
    )
    page.driver.refresh()
    page.wait_for_text(
        f"The provider 127.0.0.1:{provider.port} broke the connection", "article:last-child"
    )
    page.click("Retry")
    page.wait_for_turns("Hello", "Half")
    page.click("Retry")
    page.wait_for_turns("Hello", "Whole.")


def test_a_message_can_follow_a_failure_at_once(page, provider):
    gate = threading.Event()
    provider.script = [cut("Half ", gate), REFUSED]
    page.say("One")
    page.wait_for_text("Half", "article:last-child")
    page.driver.execute_script(HOLD, "turns")  # the failed turn's request waits
    gate.set()
    page.wait(lambda: page.run("window.held.length") == 1)
    page.say("Two")
    page.wait(
        lambda: page.run("window.held.length") == 2
    )  # and so does the one that looks for new turns
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.texts("article:nth-child(2) .alarm") and page.is_idle)
    assert page.turns == ["One", "Half ", "Two", "The answer."]


ASK = "Ask another model"


def test_only_the_last_reply_can_be_retried(page, provider):
    provider.script = [status(400, {"error": {"message": "No."}}), reply("Good.")]
    page.say("One")
    page.wait_for_text("No.", "article:last-child")
    page.say("Two")
    page.wait_for_turns("One", "", "Two", "Good.")
    buttons = "[...document.querySelectorAll('footer button')].filter((e) => e.checkVisibility()).map((e) => e.ariaLabel ?? e.textContent)"
    page.wait(lambda: page.run(buttons) == ["Fork", ASK, "Copy", "Retry", "Fork", ASK])
    page.say("Three")
    page.wait_for_turns("One", "", "Two", "Good.", "Three", "The answer.")
    assert page.run(buttons) == ["Fork", ASK, "Copy", "Fork", ASK, "Copy", "Retry", "Fork", ASK]


def test_a_refused_message_is_given_back(page, provider):
    provider.script = [
        status(404, {"error": {"message": "No such model.", "code": "model_not_found"}}),
        reply(*WORDS),
    ]
    page.say("Hello")
    page.wait_for_text("has no such model", "article:last-child")
    session = page.user.get("/sessions").json()["data"][0]
    page.user.post(f"/sessions/{session['id']}/retry", Prefer="respond-async")
    page.say("More")
    page.wait_for_text("This chat has continued elsewhere", "#notice")
    assert page.find("#text").get_attribute("value") == "More"
    page.wait_for_text("word1")  # and the other reply is shown
    page.click("Stop")
    page.wait(lambda: page.is_idle)


def test_model_and_system_prompt_apply_from_the_next_reply_on(page, provider):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.press("Be kind.\n", "Be short.")
    page.click("Save")
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert provider.posts[0].body["messages"][0] == {
        "role": "system",
        "content": "Be kind.\nBe short.",
    }
    page.click("Settings")
    assert page.text("#system") == "Be kind.\nBe short."
    page.find("#system").clear()
    page.click("Save")
    page.wait(lambda: not page.shows("#settings"))
    page.find("#model").send_keys("m-2", Keys.TAB)
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": "m-2"})
    page.say("More")
    page.wait_for_turns("Hello", "The answer.", "More", "The answer.")
    asked = provider.posts[1].body
    assert (asked["model"], asked["messages"][0]["role"]) == ("m-2", "user")
    assert page.text("article:last-child h2 bdi") == "m-2"


def test_a_system_prompt_keeps_its_lines_when_the_page_is_reloaded(page, provider):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.press("Be kind.\n", "Be short.")
    page.click("Save")
    page.driver.refresh()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert provider.posts[0].body["messages"][0]["content"] == "Be kind.\nBe short."


def test_sessions_are_renamed_and_deleted_in_the_list(page, provider):
    for text in ("First", "Second"):
        page.click("New chat")
        page.wait(lambda: not page.turns)
        page.say(text)
        page.wait_for_turns(text, "The answer.")
    page.wait(lambda: page.titles == ["Second", "First"])
    page.click("Options of First")
    page.click("Rename")
    assert page.retitle("My own title") == "First"
    page.wait(lambda: page.titles == ["Second", "My own title"])
    assert page.run("document.activeElement.ariaLabel") == "Options of My own title"
    assert page.text("#title") == "Second"
    page.click("Options of Second")
    page.click("Delete")
    page.wait(lambda: page.titles == ["My own title"])
    assert page.text("#title") == "New chat" and page.turns == []
    page.driver.refresh()
    page.wait(lambda: page.titles == ["My own title"])
    assert [session["title"] for session in page.user.get("/sessions").json()["data"]] == [
        "My own title"
    ]


def test_sessions_are_listed_found_and_opened(browser, server, provider):
    page = Page(browser, server)
    for number in range(25):
        page.user.create(f"Question {number}")
    page.enter()
    page.wait(lambda: page.titles == [f"Question {number}" for number in range(24, 4, -1)])
    page.scroll_to_more()
    page.wait(lambda: page.titles == [f"Question {number}" for number in range(24, -1, -1)])
    page.click("Question 3")
    page.wait_for_turns("Question 3", "The answer.")
    assert page.text("#list [aria-current=page] strong") == "Question 3"
    page.find("#search").send_keys("QUEST 7")
    page.wait(lambda: page.titles == ["Question 17", "Question 7"])
    page.find("#search").send_keys("zzz")
    page.wait_for_text("Nothing found.", "#list")
    page.driver.back()
    page.wait(lambda: page.turns == [])
    page.driver.forward()
    page.wait_for_turns("Question 3", "The answer.")


def test_a_message_goes_to_the_open_session(page, provider):
    gone, there = page.user.create("Gone"), page.user.create("There")
    page.driver.refresh()
    page.click("There")
    page.wait_for_turns("There", "The answer.")
    page.user.delete(f"/sessions/{gone['id']}")
    page.click("Gone")
    page.wait_for_text("There is no such", "#notice")
    page.wait(lambda: page.titles == ["There"])
    assert page.turns == [] and gone["id"] not in page.driver.current_url
    page.say("Meant for another")
    page.wait_for_turns("Meant for another", "The answer.")
    assert len(page.user.turns(there)) == 2


def test_a_reply_is_resumed_if_the_connection_breaks(browser, server, provider, proxy):
    read_through_a_break(Page(browser, server, proxy.url).enter(), provider, proxy)


def test_a_reply_is_resumed_if_the_page_is_reloaded(page, provider):
    provider.script = [reply(*WORDS[:40], "end.")]
    page.say("Talk")
    page.wait_for_text("word2")
    page.driver.refresh()
    page.wait_for_text("word2", "article:last-child")
    page.click("New chat")  # and if it is left and opened again
    page.wait(lambda: page.turns == [] and page.is_idle)
    page.driver.back()
    page.wait_for_turns("Talk", "".join(WORDS[:40:2]) + "end.")
    assert len(provider.posts) == 1


def test_a_reply_is_shown_if_its_session_is_left_and_opened_again_at_once(page, provider):
    provider.script = [reply("Old."), reply("New.")]
    page.say("Hello")
    page.wait_for_turns("Hello", "Old.")
    page.driver.execute_script(HOLD, "retry")
    page.click("Retry")
    page.wait(lambda: page.run("window.held.length") == 1)  # the server does not have it yet
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.driver.back()
    page.wait_for_turns("Hello", "Old.")
    page.driver.execute_script(RELEASE)
    page.wait_for_turns("Hello", "New.")


@pytest.mark.parametrize(
    "behind", [b"", b"\r\n\r\n"], ids=["before the answer", "behind its headers"]
)
def test_a_message_whose_answer_is_lost_is_answered_once(behind, browser, server, provider, proxy):
    page = Page(browser, server, proxy.url).enter()
    page.wait_for_text("No chats yet.")
    page.wait_for_text("m-1", "#model")
    provider.script = [reply("One ", 0.5, "two.")]
    proxy.cut_behind = behind
    page.say("Count")
    page.wait_for_turns("Count", "One two.")
    assert proxy.cut_behind is None
    assert page.text("#title") == "Count"
    assert len(provider.posts) == 1
    assert len(page.user.get("/sessions").json()["data"]) == 1


def test_a_refused_token_brings_back_its_field(browser, server, provider):
    page = Page(browser, server).enter("none")
    page.wait_for_text("The token is incomplete", "#sign-in-page")
    page.enter(make_token(exp=1))
    page.wait_for_text("The token has expired.", "#sign-in-page")
    page.enter()
    page.wait_for_text("No chats yet.")
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.shows("#token"))
    page.driver.refresh()
    page.wait(lambda: page.shows("#token"))
    assert page.run("sessionStorage.length + localStorage.length") == 0


def test_everything_can_be_done_with_the_keyboard(browser, server, provider):
    page = Page(browser, server)
    page.wait(lambda: page.focused == "token")
    page.press(page.user.token, Keys.ENTER)
    page.wait_for_text("No chats yet.")
    page.press("Two")
    page.press(Keys.ENTER, hold=Keys.SHIFT)
    page.press("lines", Keys.ENTER)
    page.wait_for_turns("Two\nlines", "The answer.")
    page.press("n", hold=Keys.ALT)
    page.wait(lambda: page.turns == [])
    page.press("Second", Keys.ENTER)
    page.wait_for_turns("Second", "The answer.")
    provider.script = [reply(*WORDS)]
    page.press("Talk", Keys.ENTER)
    page.wait_for_text("word1")
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.is_idle)
    page.press("k", hold=Keys.CONTROL)
    page.press("two")
    page.wait(lambda: page.titles == ["Two"])
    page.press(Keys.TAB, Keys.ENTER)
    page.wait_for_turns("Two\nlines", "The answer.")
    assert page.focused == "text"
    page.press(Keys.TAB, hold=Keys.SHIFT)
    page.press("/")
    assert page.focused == "search"
    page.press(Keys.TAB, Keys.ARROW_RIGHT, Keys.ENTER)  # over the link to its other buttons
    page.wait(lambda: page.focused == "rename")
    page.press(Keys.ENTER)
    page.retitle("Renamed")
    page.wait_for_text("Renamed", "#title")


def test_the_page_fits_a_narrow_screen_with_the_list_as_a_drawer(page, provider):
    provider.script = [reply(EVERYTHING + "x" * 500)]
    question = "What is the longest title that a session gets by itself, in a word or more?"
    page.say(question)
    page.wait_for_text("tokens read", "article:last-child")
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.wait(lambda: not page.shows("#sidebar"))
        assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [320, 320], (
            "it is wider than the screen"
        )
        page.click("Chats")
        page.wait(lambda: page.shows("#list"))
        page.press(Keys.ESCAPE)
        page.wait(lambda: not page.shows("#sidebar"))
        page.click("Chats")
        page.click("New chat")
        page.wait(lambda: page.turns == [] and not page.shows("#sidebar"))
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        page.find("#text").send_keys("Two")
        page.find("#newline").click()
        page.press("lines", Keys.ENTER)
        page.wait_for_turns("Two\nlines", "The answer.")
        page.click("Edit")
        page.press(Keys.ENTER, "x" * 100)  # a phone's keyboard has no Shift-Enter
        assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [320, 320], (
            "editing is wider than the screen"
        )
        page.find("article .main").click()
        page.wait_for_turns("Two\nlines\n" + "x" * 100, "The answer.")
        page.click("Settings")
        assert page.run("document.getElementById('settings').scrollWidth") <= 320
        page.press(Keys.ESCAPE)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
