"""The page at `/`, in a real browser: what a user sees, types and presses."""

import threading
import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from selenium.webdriver.common.keys import Keys

from browser import Page, read_through_a_break
from client import make_token, running
from provider import REFUSED, cut, event, reply, status
from proxy import Proxy
from raw_tables import lengthen, tables_of

EVERYTHING = """
### Headings

> quotes, **strong**, *emphasis*, ~~struck~~ and `code`, [links](https://example.com) and <https://example.com>

1. one
2. two
   - [x] three
   - [ ] four

| left | right |
|:-----|------:|
| 1    | 2     |

```python
print("a line that is so long that it does not fit into the column, and has to be scrolled: " + "a" * 1_000)
```

# Back to the top

$$ x^2 $$
"""
pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
WORDS = [word for number in range(60) for word in (f"word{number} ", 0.1)]  # 6 s of talk


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
    page.say(evil.replace("\n", Keys.SHIFT + Keys.ENTER + Keys.SHIFT))
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
        document.body.append(Object.assign(document.createElement("img"), { src: "/health" }));
    """)
    complaints = []
    page.wait(
        lambda: complaints.extend(page.driver.get_log("browser")) or "img-src" in str(complaints)
    )
    assert page.run("window.refused") == ["innerHTML", "outerHTML", "textContent", "src"]


def test_a_reply_is_stopped_and_asked_for_again(page, provider):
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
    )  # a retry that is not complete gives way to what there was
    page.click("Retry")
    page.wait_for_turns("Tell me a story", "The end.")


def test_a_failure_says_why_and_offers_a_retry(page, provider):
    provider.script = [cut("Half"), REFUSED, cut("Less"), REFUSED, reply("Whole.")]
    page.say("Hello")
    page.wait_for_turns("Hello", "Half")
    page.wait_for_text("The provider openai broke the connection", "article:last-child")
    page.driver.refresh()
    page.wait_for_text("The provider openai broke the connection", "article:last-child")
    page.click("Retry")
    page.wait_for_turns("Hello", "Half")
    page.click("Retry")
    page.wait_for_turns("Hello", "Whole.")


def test_a_message_may_follow_a_failure_at_once(page, provider):
    gate = threading.Event()
    provider.script = [cut("Half ", gate), REFUSED]
    page.say("One")
    page.wait_for_text("Half", "article:last-child")
    page.driver.execute_script(HOLD, "turns")  # what became of it is long in coming
    gate.set()
    page.wait(lambda: page.run("window.held.length") == 1)
    page.say("Two")
    page.wait(lambda: page.run("window.held.length") == 2)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.texts("article:nth-child(2) .alarm") and page.is_idle)
    assert page.turns == ["One", "Half ", "Two", "The answer."]


def test_only_the_last_reply_is_asked_for_again(page, provider):
    provider.script = [status(400, {"error": {"message": "No."}}), reply("Good.")]
    page.say("One")
    page.wait_for_text("No.", "article:last-child")
    page.say("Two")
    page.wait_for_turns("One", "", "Two", "Good.")
    buttons = "[...document.querySelectorAll('footer button')].filter((e) => e.checkVisibility()).map((e) => e.textContent)"
    page.wait(lambda: page.run(buttons) == ["Copy", "Retry"])
    page.say("Three")
    page.wait_for_turns("One", "", "Two", "Good.", "Three", "The answer.")
    assert page.run(buttons) == ["Copy", "Copy", "Retry"]


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
    page.wait_for_text("A reply is under way", "#notice")
    assert page.find("#text").get_attribute("value") == "More"
    page.wait_for_text("word1")  # and it is the other reply that is shown
    page.click("Stop")
    page.wait(lambda: page.is_idle)


def test_model_and_system_prompt_hold_from_the_next_reply_on(page, provider):
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
    page.wait(lambda: not page.find("#settings").is_displayed())
    page.find("#model").send_keys("m-2", Keys.TAB)
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": "m-2"})
    page.say("More")
    page.wait_for_turns("Hello", "The answer.", "More", "The answer.")
    asked = provider.posts[1].body
    assert (asked["model"], asked["messages"][0]["role"]) == ("m-2", "user")
    assert page.text("article:last-child h3 bdi") == "m-2"


def test_a_system_prompt_keeps_its_lines_where_the_page_is_loaded_again(page, provider):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.press("Be kind.\n", "Be short.")
    page.click("Save")
    page.driver.refresh()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert provider.posts[0].body["messages"][0]["content"] == "Be kind.\nBe short."


def test_renames_and_deletes_sessions_in_the_list(page, provider):
    for text in ("First", "Second"):
        page.click("New chat")
        page.wait(lambda: not page.turns)
        page.say(text)
        page.wait_for_turns(text, "The answer.")
    page.wait(lambda: page.titles == ["Second", "First"])
    page.click("Options of First")
    page.click("Rename")
    assert page.answer("My own title") == "Title"
    page.wait(lambda: page.titles == ["Second", "My own title"])
    assert page.run("document.activeElement.ariaLabel") == "Options of My own title"
    assert page.text("#title") == "Second"
    page.click("Options of Second")
    page.click("Delete")
    page.answer(False)
    page.click("Options of Second")
    page.click("Delete")
    page.answer(True)
    page.wait(lambda: page.titles == ["My own title"])
    assert page.text("#title") == "New chat" and page.turns == []
    assert [session["title"] for session in page.user.get("/sessions").json()["data"]] == [
        "My own title"
    ]


def test_lists_searches_and_opens_sessions(browser, server, provider):
    page = Page(browser, server)
    for number in range(25):
        page.user.create(f"Question {number}")
    page.enter()
    page.wait(lambda: page.titles == [f"Question {number}" for number in range(24, 4, -1)])
    page.click("More")
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


def test_a_message_goes_to_the_session_that_is_opened(page, provider):
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


def test_a_reply_goes_on_where_the_connection_breaks(browser, server, provider, proxy):
    read_through_a_break(Page(browser, server, proxy.url).enter(), provider, proxy)


def test_a_reply_goes_on_where_the_page_is_loaded_again(page, provider):
    provider.script = [reply(*WORDS[:40], "end.")]
    page.say("Talk")
    page.wait_for_text("word2")
    page.driver.refresh()
    page.wait_for_text("word2", "article:last-child")
    page.click("New chat")  # and where it is left, and opened again
    page.wait(lambda: page.turns == [] and page.is_idle)
    page.driver.back()
    page.wait_for_turns("Talk", "".join(WORDS[:40:2]) + "end.")
    assert len(provider.posts) == 1


def test_a_reply_is_shown_where_its_session_is_left_and_opened_again_at_once(page, provider):
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


def test_a_bad_token_brings_back_its_field(browser, server, provider):
    page = Page(browser, server).enter("none")
    page.wait_for_text("The token is not whole", "#door")
    page.enter(make_token(exp=1))
    page.wait_for_text("The token has expired.", "#door")
    page.enter()
    page.wait_for_text("No chats yet.")
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.find("#token").is_displayed())
    page.driver.refresh()
    assert page.find("#token").is_displayed()
    assert page.run("sessionStorage.length + localStorage.length") == 0


def test_everything_can_be_done_with_the_keyboard(browser, server, provider):
    page = Page(browser, server)
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
    page.press(Keys.TAB, Keys.TAB, Keys.ENTER)  # over the link to what belongs to it
    page.wait(lambda: page.focused == "rename")
    page.press(Keys.ENTER)
    page.answer("Renamed")
    page.wait_for_text("Renamed", "#title")


def test_fits_a_narrow_screen_with_the_list_as_a_drawer(page, provider):
    provider.script = [reply(EVERYTHING + "x" * 500)]
    question = "What is the longest title that a session gets by itself, in a word or more?"
    page.say(question)
    page.wait_for_text("tokens read", "article:last-child")
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.wait(lambda: not page.find("#sidebar").is_displayed())
        assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [320, 320], (
            "it is wider than the screen"
        )
        page.click("Chats")
        page.wait(lambda: page.find("#list").is_displayed())
        page.press(Keys.ESCAPE)
        page.wait(lambda: not page.find("#sidebar").is_displayed())
        page.click("Chats")
        page.click("New chat")
        page.wait(lambda: page.turns == [] and not page.find("#sidebar").is_displayed())
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


# Keeping up


@pytest.mark.parametrize("rate", [8, 50, 100, 500])
def test_the_end_stays_in_view_at_any_speed(rate, page, provider):
    # Words of a second and a half, in paragraphs, of which several come at a time where they come faster than 50 a second.
    step = max(1, rate // 50)
    words = [
        f"word{number} " + ("\n\n" if number % 6 == 5 else "")
        for number in range(max(60, rate * 3 // 2))
    ]
    start = len(words) - rate * 3 // 2
    pieces = ["".join(words[:start])]
    for at in range(start, len(words), step):
        pieces += ["".join(words[at : at + step]), step / rate]
    provider.script = [reply(*pieces)]
    page.say("Talk")
    page.wait_for_text(f"word{start + 3}", "article:last-child")
    page.driver.execute_script("""
        window.away = 0;
        const watch = () => { window.away += !document.getElementById("down").hidden; requestAnimationFrame(watch); };
        watch();
    """)
    page.wait_for_text("tokens read", "article:last-child")
    page.wait(lambda: page.gap < 2)
    assert page.run("window.away") == 0


def test_a_reader_who_scrolls_away_is_left_there_and_brought_back(page, provider):
    gate = threading.Event()
    provider.script = [reply("Line\n\n" * 60, gate, *["More\n\n", 0.02] * 40)]
    page.say("Talk")
    page.wait(
        lambda: page.gap < 2 and page.run("document.getElementById('log').scrollHeight") > 2000
    )
    page.run("document.getElementById('log').scrollBy(0, -30)")  # by less than a line or two
    page.wait(lambda: page.gap > 20)
    gate.set()
    page.wait_for_text("tokens read", "article:last-child")
    assert page.gap > 1000
    page.find("#down").click()
    page.wait(lambda: page.gap < 2 and not page.find("#down").is_displayed())


def test_a_selection_stays_while_a_reply_goes_on(page, provider):
    gate = threading.Event()
    begun = "# One\n\nTwo **three** four.\n\n- five\n- six"
    provider.script = [reply(begun, gate, " seven\n", 0.1, "- eight\n\nNine\n\n", 0.1, "Ten")]
    page.say("Count")
    page.wait_for_text("six", "article:last-child li:last-child")
    page.driver.execute_script("""
        const [paragraph, item] = document.querySelectorAll("article:last-child :is(.text > p, li)");
        getSelection().setBaseAndExtent(paragraph.firstChild, 0, item.firstChild, 4);
        window.chosen = String(getSelection());
    """)
    gate.set()
    page.wait_for_text("tokens read", "article:last-child")
    assert page.run("window.chosen").endswith("five")
    assert page.run("String(getSelection()) === window.chosen")


def test_something_moves_until_the_first_word_is_there(page, provider):
    gate = threading.Event()
    provider.script = [reply(gate, "Word")]
    page.say("Think")
    page.wait(lambda: page.run("document.querySelector('.dots')?.getAnimations().length"))
    page.wait_for_text("1 s", ".waiting")
    gate.set()
    page.wait_for_turns("Think", "Word")
    assert page.texts(".waiting") == []


# What is typed and shown


def test_a_draft_survives_a_reload_and_a_token_that_ran_out(page, provider):
    page.say("First")
    page.wait_for_turns("First", "The answer.")
    page.find("#text").send_keys("Half a thought")
    page.driver.refresh()
    page.wait(lambda: page.turns == ["First", "The answer."])
    assert page.run("document.getElementById('text').value") == "Half a thought"
    # The token runs out: the page holds one that is old by now.
    page.driver.execute_script(
        "sessionStorage.setItem('token', arguments[0])", make_token(page.subject, exp=1)
    )
    page.driver.refresh()
    page.wait_for_text("The token has expired.", "#door")
    page.enter()
    page.wait(lambda: page.turns == ["First", "The answer."])
    page.press(", and the rest", Keys.ENTER)
    page.wait_for_turns("First", "The answer.", "Half a thought, and the rest", "The answer.")
    page.driver.refresh()
    page.wait(lambda: len(page.turns) == 4)
    assert page.run("document.getElementById('text').value") == ""


def test_a_message_that_is_not_sent_yet_stays_where_more_is_typed(page):
    page.wait_for_text("m-1", "#model")
    page.driver.execute_script("window.fetch = async () => { throw new TypeError('lost') }")
    page.say("First")
    page.wait_for_text("The connection is lost", "#connection")
    page.press("Second")
    page.driver.refresh()
    page.wait_for_text("m-1", "#model")
    assert page.run("document.getElementById('text').value") == "First\n\nSecond"


def test_a_message_that_has_arrived_is_not_given_back(page, provider):
    page.say("One")
    page.wait_for_turns("One", "The answer.")
    page.driver.execute_script("""
        const ask = fetch;
        window.fetch = async (...request) => { await ask(...request); throw new TypeError("lost"); };
    """)
    page.say("Two")
    page.wait_for_text("The connection is lost", "#connection")
    page.driver.refresh()
    page.wait_for_turns("One", "The answer.", "Two", "The answer.")
    assert page.run("document.getElementById('text').value") == ""
    page.say("Two")  # which is another
    page.wait_for_turns("One", "The answer.", "Two", "The answer.", "Two", "The answer.")
    assert len(provider.posts) == 3


def test_an_answer_that_is_not_the_servers_is_none(page, provider):
    page.wait_for_text("No chats yet.")
    page.driver.execute_script("""
        const [ask, others] = [fetch, ["<html>Sign in to the Wi-Fi", "{}", '{"data": [']];
        window.fetch = async (...request) => others.length ? new Response(others.shift()) : ask(...request);
    """)
    page.say("Hello")
    page.wait_for_text("The connection is lost", "#connection")
    page.wait_for_turns("Hello", "The answer.")
    assert len(provider.posts) == 1 and page.text("#notice") == ""


def test_a_lost_connection_comes_back_by_itself(browser, server, provider):
    proxy = Proxy(server.port)
    page = Page(browser, server, proxy.url).enter()
    page.wait_for_text("m-1", "#model")
    proxy.close()
    page.say("Hello")
    page.wait_for_text("The connection is lost. Trying again", "#connection")
    page.press("Meanwhile")
    again = Proxy(server.port, port=int(proxy.url.rpartition(":")[2]))
    page.wait_for_turns("Hello", "The answer.")
    page.wait(lambda: page.text("#connection") == "")
    assert page.run("document.getElementById('text').value") == "Meanwhile"
    again.close()
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_text("The connection is lost", "#connection")
    page.click("Stop")
    page.wait_for_turns("Hello", "The answer.")
    assert page.run("document.getElementById('text').value") == "Meanwhile"
    assert len(provider.posts) == 1


def test_code_and_replies_are_copied_as_they_are_stored(page, provider):
    text = "Run:\n\n```sh\necho  <b> && ls\n```\n\n**Done**"
    provider.script = [reply(text)]
    page.say("How?")
    page.wait_for_text(
        "tokens read", "article:last-child"
    )  # it has ended: nothing is drawn anew under the click
    page.find("figcaption button").click()
    page.wait_for_text("Copied", "figcaption")
    page.find("#text").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.run("document.getElementById('text').value") == "echo  <b> && ls")
    page.find("#text").clear()
    page.find("footer button").click()
    page.wait_for_text("Copied", "footer")
    page.find("#text").send_keys(Keys.CONTROL, "v")
    page.wait(lambda: page.run("document.getElementById('text').value") == text)


def test_sessions_stand_under_their_days(page):
    page.user.create("Hello")
    for days, name in ((0, "Today"), (1, "Yesterday"), (2, "Earlier")):
        page.driver.execute_script(
            f"window.now ??= Date.now; Date.now = () => window.now() + {days} * 86400000"
        )
        page.find("#search").send_keys(" ")
        page.wait(lambda: page.texts("#list h2") == [name])


def test_colours_are_chosen_and_kept(page):
    def ground():
        return page.run("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.find("#account-button").click()
    page.find("#theme").send_keys("Dark", Keys.TAB)
    page.wait(lambda: ground() != light)
    dark = ground()
    page.driver.refresh()
    assert ground() == dark
    page.driver.execute_script("localStorage.removeItem('theme')")


# What the model is told, and how it answers


def test_options_hold_from_the_next_reply_on_and_an_empty_field_clears_one(page, provider):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.find("#temperature").send_keys("0.5")
    page.find("#max_tokens").send_keys("100")
    page.find("#reasoning_effort").send_keys("low")
    page.driver.refresh()  # what is not sent yet stays
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    [session] = page.user.get("/sessions").json()["data"]
    assert options_of(page, session) == {
        "temperature": 0.5,
        "max_tokens": 100,
        "reasoning_effort": "low",
    }
    page.click("Settings")
    page.find("#max_tokens").clear()
    page.find("#temperature").clear()
    page.find("#temperature").send_keys("0")
    page.click("Save")
    page.wait(lambda: not page.find("#settings").is_displayed())
    assert options_of(page, session) == {"temperature": 0, "reasoning_effort": "low"}
    page.driver.refresh()
    page.wait_for_turns("Hello", "The answer.")
    page.click("Settings")
    fields = "['temperature', 'max_tokens', 'reasoning_effort'].map((name) => document.getElementById(name).value)"
    assert page.run(fields) == ["0", "", "low"]
    page.press(Keys.ESCAPE)
    page.click("New chat")  # which has none of them
    page.wait(lambda: page.turns == [])
    assert page.run(fields) == ["", "", ""]
    page.say("More")
    page.wait_for_turns("More", "The answer.")
    assert options_of(page, page.user.get("/sessions").json()["data"][0]) == {}
    assert [post.body.get("temperature") for post in provider.posts] == [0.5, None]


def options_of(page, session):
    return page.user.get(f"/sessions/{session['id']}").json()["options"]


def test_an_option_that_is_refused_says_so_at_its_place(page):
    page.wait_for_text("m-1", "#model")
    page.click("Settings")
    page.find("#temperature").send_keys("7")
    page.find("#settings .main").click()
    page.wait(lambda: not page.find("#settings").is_displayed())
    page.say("Hello")  # the settings open again, where the new session was refused
    page.wait(lambda: page.text("#temperature-fault"))
    assert (page.focused, page.text("#notice"), page.turns) == ("temperature", "", [])
    assert page.find("#temperature").get_attribute("aria-invalid") == "true"
    assert page.find("#text").get_attribute("value") == "Hello"
    page.press(Keys.BACKSPACE, "1", Keys.ENTER)
    page.wait(lambda: not page.find("#settings").is_displayed())
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.")
    page.click("Settings")
    page.find("#temperature").send_keys("7")
    page.click("Save")
    page.wait(lambda: page.text("#temperature-fault"))
    assert page.find("#settings").is_displayed() and page.text("#notice") == ""
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.find("#settings").is_displayed())
    page.click("Settings")
    assert page.text("#temperature-fault") == ""


def test_a_reply_that_a_limit_cut_says_so(page, provider):
    provider.script = [reply("Half a", stop="length"), reply("Whole.")]
    page.say("Talk")
    page.wait_for_text("Cut at the limit", "article:last-child footer")
    page.driver.refresh()
    page.wait_for_text("Cut at the limit", "article:last-child footer")
    page.click("Retry")
    page.wait_for_turns("Talk", "Whole.")
    assert "Cut at the limit" not in page.text("#turns")


def test_thinking_is_shown_until_text_comes(page, provider):
    gate, more = threading.Event(), threading.Event()
    thoughts = [
        event({"choices": [{"index": 0, "delta": {"reasoning_content": "x" * size}}]})
        for size in (1234, 1000)
    ]
    provider.script = [reply(thoughts[0], gate, 1, thoughts[1], more, "Word")]
    page.say("Think")
    page.wait_for_text("Thinking … 1,234 characters", "article:last-child .waiting")
    assert page.find("article:last-child").get_attribute("aria-busy") == "true"
    gate.set()
    page.wait_for_text("Thinking … 2,234 characters", "article:last-child .waiting")
    more.set()
    page.wait_for_turns("Think", "Word")
    assert "Thinking" not in page.text("#turns")


# Editing the last message


def test_the_last_message_is_edited_and_answered_anew(page, provider):
    page.say("One")
    page.wait_for_turns("One", "The answer.")
    page.say("Twwo")
    page.wait_for_turns("One", "The answer.", "Twwo", "The answer.")
    assert page.run(EDITS) == 1  # of the last alone
    page.find("#text").send_keys("A draft")
    gate = threading.Event()
    provider.script = [reply("Better", gate)]
    page.click("Edit")
    page.press(Keys.BACKSPACE * 2, "o")
    page.press(Keys.ENTER, hold=Keys.SHIFT)
    page.press("lines", Keys.ENTER)
    page.wait(lambda: page.turns == ["One", "The answer.", "Two\nlines", "Better"])
    assert page.run(EDITS) == 0  # while a reply is under way
    gate.set()
    page.wait_for_turns("One", "The answer.", "Two\nlines", "Better")
    assert provider.posts[-1].body["messages"][-1] == {"role": "user", "content": "Two\nlines"}
    assert page.find("#text").get_attribute("value") == "A draft"
    assert page.run(EDITS) == 1 and page.texts("article form") == []
    page.driver.refresh()
    page.wait_for_turns("One", "The answer.", "Two\nlines", "Better")


EDITS = "[...document.querySelectorAll('article .edit')].filter((e) => e.checkVisibility()).length"


def test_editing_is_left_by_escape_and_by_a_button(page, provider):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    for leave in (lambda: page.press(Keys.ESCAPE), lambda: page.click("Cancel")):
        page.click("Edit")
        page.press(", and more")
        leave()
        page.wait(lambda: page.texts("article form") == [])
        assert page.text("article .text") == "Hello"
        assert page.run("document.activeElement.textContent") == "Edit"
    page.press(Keys.ENTER)  # and it begins again by the keyboard
    assert page.run("document.activeElement.value") == "Hello"
    page.say("Another")  # which ends it too
    page.wait_for_turns("Hello", "The answer.", "Another", "The answer.")
    assert page.texts("article form") == [] and page.text("article .text") == "Hello"
    assert len(provider.posts) == 2


def test_an_edited_message_that_is_not_sent_yet_stays_where_the_page_is_loaded_again(
    page, provider
):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.click("Edit")
    page.press(" there")
    page.driver.refresh()
    page.wait(lambda: page.texts("article form"))
    assert page.run("document.querySelector('article textarea').value") == "Hello there"
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.driver.back()
    page.wait(lambda: page.texts("article form"))
    page.find("article .main").click()
    page.wait_for_turns("Hello there", "The answer.")
    page.driver.refresh()
    page.wait_for_turns("Hello there", "The answer.")
    assert page.texts("article form") == []


def test_an_edited_message_is_answered_once_where_the_answer_is_lost(
    browser, server, provider, proxy
):
    page = Page(browser, server, proxy.url).enter()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    provider.script = [reply("One ", 0.5, "two.")]
    proxy.cut_behind = b""
    page.click("Edit")
    page.press(" there", Keys.ENTER)
    page.wait_for_turns("Hello there", "One two.")
    assert proxy.cut_behind is None and len(provider.posts) == 2


def test_an_edit_whose_reply_fails_or_is_stopped_stands(page, provider):
    provider.script = [reply("Old."), cut("Half"), REFUSED, reply(*WORDS)]
    page.say("One")
    page.wait_for_turns("One", "Old.")
    page.click("Edit")
    page.press(" more", Keys.ENTER)
    page.wait_for_turns("One more", "Half")
    page.wait_for_text("broke the connection", "article:last-child")
    page.click("Edit")
    page.press(" time", Keys.ENTER)
    page.wait_for_text("word1")
    page.click("Stop")
    page.wait_for_text("Stopped", "article:last-child")
    assert page.turns[0] == "One more time" and "word1" in page.turns[1]


def test_an_edit_that_is_refused_is_given_back(page, provider):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    gate = threading.Event()
    provider.script = [reply("Elsewhere ", gate, "done.")]
    session = page.user.get("/sessions").json()["data"][0]
    page.user.post(f"/sessions/{session['id']}/retry", Prefer="respond-async")
    page.click("Edit")
    page.press(" there", Keys.ENTER)
    page.wait_for_text("A reply is under way", "#notice")
    page.wait_for_text("Elsewhere")
    assert page.run("document.querySelector('article textarea').value") == "Hello there"
    gate.set()
    page.wait(lambda: page.is_idle)
    page.find("article .main").click()
    page.wait_for_turns("Hello there", "The answer.")


# Long sessions

HOLD = """
    window.held = [];
    window.count = 0;
    const ask = fetch;
    window.fetch = async (path, options) => {
        if (path.includes(arguments[0])) {
            window.count++;
            await new Promise((resolve) => window.held.push(resolve));
        }
        return ask(path, options);
    };
"""
RELEASE = "window.held.splice(0).forEach((resolve) => resolve())"
TOP = "[...document.querySelectorAll('article')].find((e) => e.innerText.includes(arguments[0])).getBoundingClientRect().top"


def turns_from(number, count):
    return [f"turn {number}" for number in range(number, count)] + ["Last", "The answer."]


def scroll_to(page, top):
    page.driver.execute_script("document.getElementById('log').scrollTo(0, arguments[0])", top)


def open_long_session(browser, server, url, count):
    """A page whose user has a session of two turns more than this count, opened: the last fifty are shown."""
    page = Page(browser, server)
    lengthen(url, page.user.create("Last"), count)
    page.enter()
    page.click("Last")
    page.wait_for_turns(*turns_from(count - 48, count))
    return page


@pytest.fixture
def long_page(browser, start, settings):
    return open_long_session(browser, start(**settings), settings["DATABASE_URL"], 128)


def test_a_session_of_twenty_thousand_turns_opens_with_the_last_fifty(browser, start, settings):
    page = open_long_session(browser, start(**settings), settings["DATABASE_URL"], 19_998)
    assert page.gap < 2
    scroll_to(page, 0)
    page.wait_for_turns(*turns_from(19_900, 19_998))


@pytest.mark.parametrize("position", [0, 1, 200])
def test_older_turns_come_as_one_scrolls_up_and_nothing_jumps(position, long_page):
    page = long_page
    page.driver.execute_script(HOLD, "before")
    for first in (30, 0):
        seen = page.turns[2]
        scroll_to(page, position)
        page.wait(lambda: page.run("window.held.length") == 1)
        for _ in range(5):  # whoever scrolls on meanwhile
            scroll_to(page, position + 5)
            scroll_to(page, position)
        top = page.run(TOP, seen)
        page.driver.execute_script(RELEASE)
        page.wait(lambda: page.turns == turns_from(first, 128))
        for _ in range(10):
            assert abs(page.run(TOP, seen) - top) <= 1
    assert page.run("window.count") == 2
    assert not page.find("#older").is_displayed()
    scroll_to(page, 50)
    scroll_to(page, 0)
    assert page.run("window.count") == 2


def test_older_turns_come_by_the_keyboard(long_page):
    page = long_page
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    page.driver.execute_script(HOLD, "before")
    page.driver.execute_script("document.getElementById('older').focus({ preventScroll: true })")
    page.press(Keys.ENTER)
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns == turns_from(30, 128))
    page.wait(lambda: page.run("window.heard") == ["Earlier messages are shown."])
    assert page.run("window.count") == 1 and page.focused == "older"
    page.press(Keys.ENTER)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns == turns_from(0, 128))
    assert page.focused == "log"


def test_older_turns_of_a_session_that_was_left_come_nowhere(long_page):
    page = long_page
    page.user.create("Other")
    page.find("#search").send_keys(" ")
    page.wait(lambda: page.titles == ["Other", "Last"])
    page.driver.execute_script(HOLD, "before")
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Other")
    page.wait_for_turns("Other", "The answer.")
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 2)
    page.click("Other")
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    page.driver.execute_script(RELEASE)
    scroll_to(page, 0)
    page.wait(lambda: page.run("window.held.length") == 1)
    page.driver.execute_script(RELEASE)
    page.wait_for_turns(*turns_from(30, 128))
    assert page.text("#connection") == "" and page.text("#notice") == ""


def test_older_turns_come_while_a_reply_is_written(long_page, provider):
    page, gate = long_page, threading.Event()
    provider.script = [reply("One ", gate, "two."), cut("Half"), REFUSED, reply("Again.")]
    page.say("Count")
    page.wait_for_text("One", "article:last-child")
    scroll_to(page, 0)
    page.wait(lambda: page.turns == turns_from(30, 128) + ["Count", "One "])
    assert (
        page.find("#stop").is_displayed()
        and page.find("article:last-child").get_attribute("aria-busy") == "true"
    )
    gate.set()
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.")
    assert page.gap > 1000
    page.say("Fail")  # the last turn is fetched again, and what was there stays
    page.wait_for_text("broke the connection", "article:last-child")
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.", "Fail", "Half")
    page.click("Retry")
    page.wait_for_turns(*turns_from(30, 128), "Count", "One two.", "Fail", "Again.")
    scroll_to(page, 0)
    page.wait_for_turns(*turns_from(0, 128), "Count", "One two.", "Fail", "Again.")


# The model's memory

LINE = "document.querySelector('.memory')?.closest('article').querySelector('.text').textContent"
FORGETS = "The model no longer sees what is above."


def window(words):
    """A provider whose model reads so many words at most."""

    def answer(request):
        read = sum(len(message["content"].split()) for message in request.body["messages"])
        whole = {
            "error": {
                "message": f"This model's maximum context length is {words} tokens. However, your messages "
                f"resulted in {read} tokens.",
                "code": "context_length_exceeded",
            }
        }
        yield from (reply("Good.") if read <= words else status(400, whole))(request)

    return answer


def test_a_line_shows_where_the_memory_of_the_model_begins(page, provider):
    provider.default = window(100)
    page.say("first " * 30)
    page.wait(lambda: page.is_idle and len(page.turns) == 2)
    page.say("second " * 30)
    page.wait(lambda: page.is_idle and len(page.turns) == 4)
    assert page.run(LINE) is None
    page.say("third " * 60)
    page.wait(lambda: page.is_idle and len(page.turns) == 6)
    page.wait(lambda: page.run(LINE))
    line = page.run(LINE)
    assert page.text(".memory") == FORGETS and line in page.turns[2:5:2]
    page.say("fourth " * 80)
    page.wait(lambda: page.is_idle and len(page.turns) == 8)
    page.wait(lambda: page.run(LINE) == page.turns[6])
    assert page.texts(".memory") == [FORGETS]
    page.driver.refresh()
    page.wait(lambda: [page.run(LINE)] == page.turns[6:7])
    page.click("Edit")  # the line stays where its turn is changed
    page.press(Keys.END, "fifth", Keys.ENTER)
    page.wait(lambda: page.is_idle and "fifth" in page.turns[6])
    assert page.run(LINE) == page.turns[6]
    page.find("#model").send_keys("m-2", Keys.TAB)  # another model is sent all of it
    page.wait(lambda: page.texts(".memory") == [])


def test_the_line_is_drawn_where_the_next_request_follows_at_once(page, provider):
    provider.default = window(100)
    page.say("first " * 60)
    page.wait(lambda: page.is_idle and len(page.turns) == 2)
    page.driver.execute_script(HOLD, "turns")
    page.say("second " * 60)
    page.wait(lambda: page.run("window.held.length") == 1)  # it asks where the memory begins
    page.click("Retry")
    page.wait(lambda: page.run("window.held.length") == 2)
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.run(LINE) == page.turns[2])


def test_the_line_of_the_memory_comes_with_the_older_turns(browser, start, settings, check):
    page = Page(browser, start(**settings))
    session = page.user.create("Last")
    lengthen(settings["DATABASE_URL"], session, 128)
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows("UPDATE session SET trim = (SELECT id FROM turn WHERE content = 'turn 40')")
    page.enter()
    page.click("Last")
    page.wait_for_turns(*turns_from(80, 128))
    assert page.texts(".memory") == []
    scroll_to(page, 0)
    page.wait(lambda: page.turns == turns_from(30, 128))
    assert page.run(LINE) == "turn 40"
    check("a long session")


# Signing in


def test_a_link_signs_in_and_leaves_nothing_in_the_address(browser, server, provider):
    page = Page(browser, server)
    page.open_link(page.user.token)
    page.wait_for_text(f"signs in \u2068{page.subject}\u2069. If that is you, sign in.", "#door")
    assert "token" not in browser.current_url and not page.find("#app").is_displayed()
    page.press(Keys.ENTER)
    page.wait_for_text(page.subject.rpartition("/")[2], "header")
    assert "token" not in browser.current_url
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    browser.back()
    page.wait(lambda: page.turns == [])
    assert "token" not in browser.current_url
    assert page.run("localStorage.token") is None


@pytest.mark.parametrize("rest", ["%20", ")", "&x=1"])
def test_a_link_that_was_copied_badly_shows_its_token_to_nobody(rest, page, server):
    for token in (page.user.token, page.user.token + rest):  # at once, since it is the same user's
        page.open_link(token)
        page.wait_for_text("No chats yet.")
        assert "token" not in page.driver.current_url
    assert page.user.token not in server.output()


@pytest.mark.parametrize("in_place", [False, True], ids=["a new page", "in place"])
def test_a_link_signs_in_nobody_who_is_not_asked(browser, server, in_place):
    """Who is not signed in would write into the account of whoever has sent it."""
    page, other = Page(browser, server), "https://github.com/mallory"
    page.wait_for_text("flask token", "#source")
    page.open_link(make_token(other), in_place)
    page.wait_for_text(other, "#refusal")
    assert page.run("sessionStorage.length + localStorage.length") == 0
    page.driver.refresh()
    page.wait_for_text("flask token", "#source")
    assert page.text("#refusal") == "" and page.find("#token").get_attribute("value") == ""
    page.open_link("none", in_place)
    page.wait_for_text("This link signs in \u2068nobody\u2069.", "#refusal")
    page.press(Keys.ENTER)
    page.wait_for_text("The token is not whole", "#refusal")


@pytest.mark.parametrize(
    "rest, shown",
    [("eve?x=/alice", "eve"), ("eve#/alice", "eve"), ("a/eve", "eve"), ("", "https://id.example/")],
)
def test_the_name_that_is_shown_is_the_last_segment_of_the_path(browser, server, rest, shown):
    # Users of their own: another test's may have chats.
    page = Page(browser, server).enter(make_token("https://id.example/" + rest))
    page.wait_for_text("No chats yet.")
    assert page.text("#user") == shown


def test_a_link_in_a_new_tab_asks_too(page):
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open_link(make_token("https://github.com/mallory"))
    assert page.subject in page.answer(False)
    page.wait_for_text("No chats yet.")  # as who was signed in
    assert page.text("#user") == page.subject.rpartition("/")[2]
    page.driver.close()
    page.driver.switch_to.window(first)


def test_a_new_tab_is_signed_in_as_the_first_and_a_new_browser_is_not(page):
    page.find("#account-button").click()
    first, address = page.driver.current_window_handle, page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.driver.get(address)
    page.wait_for_text("No chats yet.")
    assert page.text("#user") == page.subject.rpartition("/")[2]
    assert page.run("localStorage.token") is None  # it was not asked to remember it
    for window in page.driver.window_handles:
        if window != first:
            page.driver.close()
    page.driver.switch_to.window(first)
    page.run("sessionStorage.clear()")
    page.driver.get("about:blank")  # nobody is there who could answer
    page.driver.get(address)
    page.wait(lambda: page.find("#door").is_displayed())


def test_a_link_offers_to_remember(browser, server):
    page = Page(browser, server)
    page.open_link(page.user.token)
    page.wait_for_text("signs in", "#door")
    page.find("#remember").click()
    page.find("#door button").click()
    page.wait_for_text("No chats yet.")
    assert page.run("localStorage.token") == page.user.token


@pytest.fixture
def moved_on(browser, start, new_database, provider):
    """The page of a user with a chat of echo, on a server that serves other models by now."""
    settings = {"DATABASE_URL": new_database(), "WEB_CONCURRENCY": 1}
    alice = start(**settings).client()
    session = alice.create("Hello")
    server = start(**settings, OPENAI_BASE_URL=provider.url + "/v1")
    provider.models = ["m-1", "m-2"]
    page = Page(browser, server).enter(alice.token)
    page.wait_for_text("Hello", "#list")
    browser.get(f"{server.url}/#{session['id']}")
    page.wait_for_turns("Hello", "Hello")
    return page


@pytest.mark.parametrize("action", ["a message", "Retry", "Edit"])
def test_a_chat_whose_model_is_gone_goes_on_with_the_default(moved_on, provider, action):
    page = moved_on
    if action == "a message":
        page.say("More")
        page.wait_for_turns("Hello", "Hello", "More", "The answer.")
    elif action == "Retry":
        page.click("Retry")
        page.wait_for_turns("Hello", "The answer.")
    else:
        page.click("Edit")
        page.press("!", Keys.ENTER)
        page.wait_for_turns("Hello!", "The answer.")
    assert page.text("#notice") == "echo is not served any more: m-1 answers from here on."
    assert page.run("document.getElementById('model').value") == "m-1"
    assert len(provider.posts) == 1
    page.say("And now?")
    page.wait(lambda: page.turns[-2:] == ["And now?", "The answer."] and page.is_idle)
    assert page.text("#notice") == ""


def test_a_chat_whose_provider_has_lost_its_model_goes_on_with_the_default(page, provider):
    """The provider says so, and the reply has failed; then the model is not listed any more."""
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    session = page.run("location.hash.slice(1)")
    page.user.patch(f"/sessions/{session}", {"model": "m-9"})
    page.driver.refresh()
    page.wait_for_turns("Hello", "The answer.")
    unknown = {"error": {"message": "The model `m-9` does not exist", "code": "model_not_found"}}
    provider.models = ["m-1", "m-2"]
    provider.script = [status(404, unknown)]
    page.say("More")
    page.wait_for_turns("Hello", "The answer.", "More", "The answer.")
    assert page.text("#notice") == "m-9 is not served any more: m-1 answers from here on."
    assert [post.body["model"] for post in provider.posts] == ["m-1", "m-9", "m-1"]


def test_who_signs_out_is_signed_out_in_all_tabs(browser, server):
    page = Page(browser, server)
    page.find("#remember").click()
    page.enter()
    page.wait_for_text("No chats yet.")
    page.press("A draft")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(page.user.url)
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.find("#door").is_displayed())
    browser.close()
    browser.switch_to.window(first)
    page.wait(lambda: page.find("#door").is_displayed())
    assert page.run("sessionStorage.length + localStorage.length") == 0
    page.enter(make_token(f"https://github.com/{uuid.uuid4().hex}"))
    page.wait_for_text("No chats yet.")
    assert page.run("document.getElementById('text').value") == ""


def test_a_link_of_another_user_asks_first(browser, server, provider):
    page = Page(browser, server).enter()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    mine, other = page.subject, "https://github.com/" + "x" * 20
    for in_place in (True, False):
        page.open_link(make_token(other), in_place)
        question = page.answer(False)
        assert mine in question and other in question
        page.wait(lambda: page.titles == ["Hello"])
        assert "token" not in browser.current_url
    page.open_link(make_token(other, key="another secret of 32 bytes or more!!"))
    page.answer(True)
    page.wait_for_text("not signed with a key", "#notice")
    page.wait(lambda: page.titles == ["Hello"])
    page.open_link(make_token(other))
    page.answer(True)
    page.wait_for_text("No chats yet.")
    assert page.text("#user") == "x" * 20


def test_a_sign_in_is_remembered_where_that_is_chosen(browser, server):
    page = Page(browser, server)
    page.find("#remember").click()
    page.enter()
    page.wait_for_text("No chats yet.")
    browser.switch_to.new_window("tab")
    browser.get(page.user.url)
    page.wait_for_text("No chats yet.")
    page.find("#account-button").click()
    assert page.find("#remembered").is_selected()
    page.find("#remembered").click()
    assert page.run("localStorage.token") is None
    browser.close()
    browser.switch_to.window(browser.window_handles[0])


def test_says_where_tokens_come_from_and_that_echo_is_no_model(browser, server, tmp_path):
    page = Page(browser, server)
    page.wait_for_text(".venv/bin/flask token https://github.com/you", "#source code")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    with running(
        tmp_path, JWT_SECRET="", JWT_PUBLIC_KEY=pem, JWT_ISSUER="https://id.example.com"
    ) as other:
        page = Page(browser, other)
        page.wait_for_text("Tokens for this server come from https://id.example.com.", "#source")
        page.enter(make_token(key=key, algorithm="EdDSA", iss="https://id.example.com"))
        page.wait_for_text("OPENAI_BASE_URL=http://127.0.0.1:11434/v1", "#echo")
        page.say("Hello")
        page.wait_for_turns("Hello", "Hello")


# For everyone


@pytest.fixture
def check(browser, npm):
    """A function that asserts that axe finds nothing, where the page has come to."""
    axe = (npm / "axe-core" / "axe.min.js").read_text()

    def check(place):
        found = browser.execute_async_script(
            axe
            + """;
            const say = arguments[0];
            axe.run().then(({ violations }) => say(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])));
        """
        )
        assert found == [], f"{place}, {found}"

    return check


PANELS = {
    "#account": "#account-button",
    "#settings": "#settings-button",
    "#usage": "#usage-button",
    "#menu": "#list li button",
}


def test_axe_finds_nothing(browser, server, provider, check):
    for colours in ("light", "dark"):
        features = [
            {"name": "prefers-color-scheme", "value": colours},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page = Page(browser, server)
        page.wait_for_text("flask token", "#source")
        check(f"door, {colours}")
        page.enter()
        page.wait_for_text("No chats yet.")
        check(f"empty, {colours}")
        provider.script = [reply(EVERYTHING), cut("Half"), REFUSED]
        page.say("Show all there is")
        page.wait_for_text("tokens read", "article:last-child")
        page.say("And fail")
        page.wait_for_text("broke the connection", "article:last-child")
        page.wait(lambda: page.titles)
        check(f"conversation, {colours}")
        page.click("Edit")
        check(f"editing, {colours}")
        page.press(Keys.ESCAPE)
        for place, button in PANELS.items():
            page.find(button).click()
            page.wait(lambda: page.find(place).is_displayed() and page.text("#used") != "Loading…")
            check(f"{place}, {colours}")
            page.press(Keys.ESCAPE)
        browser.execute_script("sessionStorage.clear()")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_screen_reader_hears_a_reply_once(page, provider):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )
    provider.script = [reply("One ", 0.1, "**two** ", 0.1, "three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One two three.")
    page.wait(lambda: page.run("window.heard.length"))
    assert page.run("window.heard") == ["One two three.\n15 tokens read, 7 written"]
    assert page.run("document.querySelectorAll('#app [aria-live], #app [role=log]').length") == 0


def test_text_from_right_to_left_stands_right(page, provider):
    provider.script = [reply("שלום עולם\n\nHello\n\n- שלום\n\n```\ncode\n```")]
    page.say("שלום")
    page.wait_for_text("code", "article:last-child pre")
    sides = page.run(
        "[...document.querySelectorAll('article:last-child .text > *')].map((e) => getComputedStyle(e).direction)"
    )
    assert sides == ["rtl", "ltr", "rtl", "ltr"]
