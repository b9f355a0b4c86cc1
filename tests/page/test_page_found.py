"""A chat that is opened from the results of a search opens at the words that were found, which
are marked."""

import threading

import pytest
from selenium.webdriver.common.keys import Keys

from browser import HOLD, RELEASE, Page
from provider import reply
from raw_tables import lengthen, tables_of

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

LONG = "\n\n".join(f"Line {number}." for number in range(60))

RANGES = """
    const ranges = [...(CSS.highlights.get(arguments[0]) ?? [])].map((mark) => {
        const range = new Range();
        range.setStart(mark.startContainer, mark.startOffset);
        range.setEnd(mark.endContainer, mark.endOffset);
        return range;
    });
    const inOrder = (one, other) => one.compareBoundaryPoints(Range.START_TO_START, other);
    ranges.sort(inOrder);
"""
MARKED = RANGES + "return ranges.map(String)"
SEEN = (
    RANGES
    + """
    const log = document.getElementById("thread").getBoundingClientRect();
    const isSeen = ({ top, bottom, left, right }) =>
        top >= log.top && bottom <= log.bottom && left >= log.left && right <= log.right;
    const articles = [...document.querySelectorAll("article")];
    const element = ({ startContainer }) => startContainer.parentElement;
    return ranges.filter((range) => element(range).checkVisibility() && isSeen(range.getBoundingClientRect()))
        .map((range) => [articles.indexOf(element(range).closest("article")), String(range)]);
"""
)


def marked(page, name="found"):
    """The marked words."""
    return page.driver.execute_script(MARKED, name)


def seen(page):
    """The marks in view: the number of the turn, and the word."""
    return page.driver.execute_script(SEEN, "found")


def is_seen(page, *mark):
    return list(mark) in seen(page)


def search(page, query):
    """Search, and wait for the results."""
    page.driver.execute_script("document.getElementById('list').replaceChildren()")
    page.find("#search").send_keys(Keys.CONTROL, "a")
    page.find("#search").send_keys(query)
    page.wait(lambda: page.titles)


def talk(page, provider, *exchanges):
    """Make a chat with these messages and replies. Its title is the first message."""
    provider.script = [reply(answer) for _, answer in exchanges]
    session = page.user.create(exchanges[0][0])
    for message, _ in exchanges[1:]:
        page.user.post(f"/sessions/{session['id']}/messages", {"content": message})
    return session


def hear(page):
    page.driver.execute_script(
        "window.heard = []; document.ariaNotify = (text) => window.heard.push(text)"
    )


# The place


def test_a_chat_opens_at_the_newest_turn_with_all_words(page, provider):
    talk(
        page,
        provider,
        ("Animals", f"A quick fox.\n\n{LONG}"),
        ("More", f"A fox.\n\n{LONG}\n\nThe quick brown fox.\n\n{LONG}"),
        ("Less", f"A brown dog.\n\n{LONG}"),
    )
    hear(page)
    search(page, "fox QUICK")
    page.click("Animals")
    page.wait(lambda: is_seen(page, 3, "fox"))
    assert seen(page) == [[3, "quick"], [3, "fox"]]  # the place where the words are together
    assert marked(page) == ["quick", "fox", "fox", "quick", "fox"]
    [told] = page.run("window.heard")
    assert told.startswith("Found in what m-1 said, ")
    assert page.find("#search").get_attribute("value") == "fox QUICK"
    assert page.focused == "text" and page.shows("#down")
    page.say("Thanks")  # from here on the end is in view, and the marks stay
    page.wait(lambda: page.is_idle and page.turns[-2:] == ["Thanks", "The answer."])
    page.wait(lambda: page.gap < 2)
    assert len(marked(page)) == 5


def test_words_that_are_also_in_the_title_do_not_decide_the_place(page, provider):
    talk(
        page,
        provider,
        ("Animals", f"A fox.\n\n{LONG}"),
        ("A dog", LONG),
        ("What animals?", LONG),
    )
    search(page, "animals fox dog")
    page.click("Animals")
    page.wait(lambda: is_seen(page, 2, "dog"))
    assert marked(page) == ["Animals", "fox", "dog", "animals"]


def test_words_in_the_title_alone_open_the_end(page, provider):
    session = talk(page, provider, ("Hello", f"Hi.\n\n{LONG}"))
    page.user.request("PATCH", f"/sessions/{session['id']}", {"title": "A fox"})
    search(page, "fox")
    page.wait(lambda: marked(page, "listed") == ["fox"])
    page.click("A fox")
    page.wait(lambda: len(page.turns) == 2 and page.gap < 2)
    assert marked(page) == [] and page.text("#notice") == ""


def test_an_open_chat_shows_the_place(page, provider):
    page.user.create("Other")
    provider.script = [reply(f"A fox.\n\n{LONG}")]
    page.say("Animals")
    page.wait(lambda: page.is_idle and len(page.turns) == 2 and page.gap < 2)
    search(page, "fox")
    page.wait(lambda: page.titles == ["Animals"])
    page.click("Animals")
    page.wait(lambda: is_seen(page, 1, "fox"))


def test_the_browsers_back_opens_the_place_again(page, provider):
    for name in ("One", "Two"):
        talk(page, provider, (name, f"A fox of {name}.\n\n{LONG}"))
    search(page, "fox")
    page.click("One")
    page.wait(lambda: "A fox of One." in page.text("#turns") and is_seen(page, 1, "fox"))
    page.click("Two")
    page.wait(lambda: "A fox of Two." in page.text("#turns") and is_seen(page, 1, "fox"))
    page.driver.back()
    page.wait(lambda: "A fox of One." in page.text("#turns") and is_seen(page, 1, "fox"))


# Older turns


@pytest.fixture
def long_chat(browser, server):
    """A function that opens the page with a chat of so many turns, `turn 0` and so on, and two
    more. Some of these have another text."""

    def make(count, **changed):
        page = Page(browser, server)
        lengthen(server.database, page.user.create("Last"), count)
        with tables_of(server.database) as tables:
            first = tables.value("SELECT min(id) FROM turn")  # `turn 0`
            for place, content in changed.items():
                number = first + int(place.removeprefix("turn_"))
                statement = "UPDATE turn SET content = ?, folded = ? WHERE id = ?"
                tables.rows(statement, content, content.lower(), number)
        page.enter()
        page.wait(lambda: page.titles == ["Last"])
        return page

    return make


def test_older_turns_are_fetched_up_to_the_place(long_chat):
    page = long_chat(700, turn_340="A fox and a dog.", turn_600="The fox.")
    search(page, "fox dog")
    page.driver.execute_script(HOLD, "before")
    page.click("Last")
    for pages in (1, 2):
        page.wait(lambda pages=pages: page.run("window.count") == pages)
        page.wait(lambda: page.run("window.held.length") == 1)
        assert page.gap < 2 and len(page.turns) == 50
        page.driver.execute_script("document.getElementById('thread').scrollTo(0, 0)")
        page.driver.execute_script("document.getElementById('thread').scrollTo(0, 1e9)")
        page.driver.execute_script(RELEASE)
    page.wait(lambda: len(seen(page)) == 2)
    expected = [f"turn {number}" for number in range(252, 700)] + ["Last", "The answer."]
    expected[340 - 252], expected[600 - 252] = "A fox and a dog.", "The fox."
    assert page.turns == expected
    assert page.run("window.count") == 2 and page.text("#notice") == ""
    top = page.run("document.getElementById('thread').scrollTop")
    for _ in range(10):
        assert page.run("document.getElementById('thread').scrollTop") == top
    page.driver.execute_script("document.getElementById('thread').scrollTo(0, 0)")
    page.wait(lambda: page.run("window.held.length") == 1)  # and older turns come as usual
    page.driver.execute_script(RELEASE)
    page.wait(lambda: page.turns[0] == "turn 202")


def test_older_turns_that_are_being_fetched_are_waited_for(long_chat):
    page = long_chat(128, turn_40="A fox.")
    page.click("Last")
    page.wait(lambda: len(page.turns) == 50 and page.gap < 2)
    page.driver.execute_script(HOLD, "before")
    page.driver.execute_script("document.getElementById('thread').scrollTo(0, 0)")
    page.wait(lambda: page.run("window.held.length") == 1)
    search(page, "fox")
    page.click("Last")
    page.driver.execute_script(RELEASE)
    page.wait(lambda: is_seen(page, 40 - 30, "fox"))
    expected = [f"turn {number}" for number in range(30, 128)] + ["Last", "The answer."]
    expected[40 - 30] = "A fox."
    assert page.turns == expected


def test_words_beyond_the_last_two_thousand_turns_are_said_to_be_further_up(long_chat):
    page = long_chat(2_400, turn_30="A fox.")
    search(page, "fox")
    page.driver.execute_script("""
        window.said = [];
        const notice = document.getElementById("notice");
        new MutationObserver(() => window.said.push(notice.textContent)).observe(notice, { childList: true });
    """)
    page.click("Last")
    page.wait_for_text("The words are further up in this chat", "#notice.faint")
    assert "Looking for the words further up…" in page.run("window.said")
    assert len(page.turns) == 50 and page.gap < 2


def test_a_place_two_thousand_turns_up_is_shown_soon(long_chat):
    page = long_chat(1_990, turn_5="A fox.")
    search(page, "fox")
    page.click("Last")
    page.wait(lambda: seen(page))
    assert len(page.turns) == 1_992 and page.text("#notice") == ""


def test_another_chat_that_is_opened_meanwhile_stays(long_chat):
    page = long_chat(300, turn_30="A fox.")
    page.user.create("Other fox")
    search(page, "fox")
    page.wait(lambda: page.titles == ["Other fox", "Last"])
    page.driver.execute_script(HOLD, "before")
    page.click("Last")
    page.wait(lambda: page.run("window.held.length") == 1)
    page.click("Other fox")
    page.wait(lambda: page.turns == ["Other fox", "The answer."] and marked(page) == ["fox"])
    page.driver.execute_script(RELEASE)
    page.find("#search").clear()
    page.click("Last")
    page.wait(lambda: page.turns[-2:] == ["Last", "The answer."] and len(page.turns) == 50)
    assert marked(page) == [] and page.gap < 2


# The marks


def test_marks_disappear_with_the_search(page, provider):
    talk(page, provider, ("Animals", "A fox."))
    page.user.create("Other")
    search(page, "fox")
    page.click("Animals")
    page.wait(lambda: marked(page) == ["fox"])
    page.find("#search").send_keys(Keys.ESCAPE)
    page.wait(lambda: marked(page) == [] and marked(page, "listed") == [])
    assert page.find("#search").get_attribute("value") == ""
    search(page, "fox")
    page.click("Animals")
    page.wait(lambda: marked(page) == ["fox"])
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    assert marked(page) == []


def test_titles_and_previews_in_the_list_are_marked(page, provider):
    talk(page, provider, ("A fox", "Foxes are foxy."))
    search(page, "fox")
    page.wait(lambda: marked(page, "listed") == ["fox", "Fox", "fox"])
    page.find("#search").send_keys("y")
    page.wait(lambda: marked(page, "listed") == ["foxy"])


PREVIEWS = "[...document.querySelectorAll('#list a > :last-child')].map((e) => e.textContent)"
ARE_IN_VIEW = (
    RANGES
    + """
    return ranges.map((range) => {
        const { left, right } = range.startContainer.parentElement.getBoundingClientRect();
        const mark = range.getBoundingClientRect();
        return mark.left >= left && mark.right <= right;
    });
"""
)


def test_the_list_shows_the_words_that_were_found(page, provider):
    early = f"{'Some words. ' * 40}It is a **quick** [brown fox](https://example.com). {'And more. ' * 40}"
    talk(page, provider, ("Animals", early), ("More", "That was all."))
    session = talk(page, provider, ("Hello", "Only the title has it."))
    page.user.request("PATCH", f"/sessions/{session['id']}", {"title": "A fox"})
    page.driver.refresh()
    page.wait(lambda: page.titles == ["A fox", "Animals"])
    heights = (
        "[...document.querySelectorAll('#list li')].map((e) => e.getBoundingClientRect().height)"
    )
    before = page.run(heights)
    assert page.run(PREVIEWS) == ["Only the title has it.", "That was all."]
    search(page, "Quick FOX")
    page.wait(lambda: len(page.run(PREVIEWS)) == 1)
    [preview] = page.run(PREVIEWS)
    assert "a quick brown fox. And more." in preview and len(preview) < 110
    assert preview.startswith("…") and preview.index("quick") < 20
    page.wait(lambda: marked(page, "listed") == ["quick", "fox"])
    assert page.driver.execute_script(ARE_IN_VIEW, "listed") == [True, True]
    search(page, "fox")
    page.wait(lambda: len(page.titles) == 2)
    assert page.run(PREVIEWS)[0] == "Only the title has it."
    assert page.run(heights) == before
    page.find("#search").send_keys(Keys.ESCAPE)
    page.wait(lambda: page.run(PREVIEWS) == ["Only the title has it.", "That was all."])


@pytest.mark.parametrize(("query", "word"), [("東京", "東京"), ("fox", "Fox")])
def test_words_inside_long_words_are_in_view(query, word, page, provider):
    around = "今日はいい天気ですね。" * 10 if query == "東京" else "antidisestablishment" * 2
    talk(page, provider, ("Words", f"{around}{word}{around}"))
    search(page, query)
    page.wait(lambda: marked(page, "listed") == [word])
    assert page.driver.execute_script(ARE_IN_VIEW, "listed") == [True]


SPELLINGS = [
    ("strasse", "Die STRASSE, die Straße, die STRAẞE.", ["STRASSE", "Straße", "STRAẞE"]),
    ("CAFÉ", "Ein café, ein cafe\u0301!", ["café", "cafe\u0301"]),
    ("efficient", "It is eﬃcient.", ["eﬃcient"]),
    ("abc", "Wide: ＡＢＣ", ["ＡＢＣ"]),
    ("οδοσ", "ΟΔΟΣ, οδός, οδος", ["ΟΔΟΣ", "οδος"]),
    ("истанбул", "ИСТАНБУЛ 🎉 Истанбул", ["ИСТАНБУЛ", "Истанбул"]),
    ("東京", "今日は東京にいます。東京は大きい。", ["東京", "東京"]),
    ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af", ["\u1112\u1161\u11ab\u1100\u1173\u11af"]),
    ("ガ", "ｶﾞ", ["ｶﾞ"]),
    ("100%_x", "It is 100%_X.", ["100%_X"]),
]


def test_words_are_marked_in_every_spelling_that_the_server_finds(page, provider, subtests):
    for query, text, marks in SPELLINGS:
        with subtests.test(query):
            talk(page, provider, ("Spellings", f"{text}\n\n{LONG}"))
            search(page, query)
            assert page.titles == ["Spellings"]
            page.click("Spellings")
            page.wait(lambda: [turn[: len(text)] for turn in page.turns[1:]] == [text])
            page.wait(lambda: seen(page))
            assert marked(page) == marks


def test_words_are_marked_through_elements_but_not_through_blocks(page, provider):
    text = "A **fo**x and a `fo`x.\n\n- fo\n- x\n\n| fo | x |\n|---|---|\n| 1 | 2 |\n\n```fox\na fox\n```\n\nCopy fo  \nx"
    talk(page, provider, ("Fox", text))
    search(page, "fox")
    page.click("Fox")
    page.wait(lambda: marked(page))
    assert marked(page) == ["Fox", "fox", "fox", "fox", "fox"]  # the title, and the code's language


def test_words_that_are_not_shown_have_their_turn_in_view(page, provider):
    link = f"Begin here.\n\n{LONG}\n\n[A link](https://example.com/hidden)"
    talk(page, provider, ("Links", link), ("More", LONG))
    search(page, "hidden")
    page.click("Links")
    top = "document.querySelectorAll('article')[1].getBoundingClientRect().top - document.getElementById('thread').getBoundingClientRect().top"
    page.wait(lambda: page.turns and 0 <= page.run(top) < 50)
    assert marked(page) == []


def test_a_word_at_the_end_of_a_long_line_of_code_is_in_view(page, provider):
    talk(page, provider, ("Code", f"```\n{'x ' * 400}fox{' x' * 400}\n```\n\n{LONG}"))
    search(page, "fox")
    page.click("Code")
    page.wait(lambda: is_seen(page, 1, "fox"))


def test_a_word_in_a_folded_part_is_unfolded(page, provider):
    talk(page, provider, ("Folded", f"fox\n\n{LONG}"))
    search(page, "folded")
    page.click("Folded")
    page.wait(lambda: len(page.turns) == 2)
    page.driver.execute_script("""
        const [paragraph] = document.querySelectorAll(".assistant .text > p");
        const outer = document.createElement("details");
        const inner = document.createElement("details");
        paragraph.before(outer);
        outer.append(inner);
        inner.append(paragraph);
    """)
    search(page, "fox")
    page.click("Folded")
    page.wait(lambda: is_seen(page, 1, "fox"))


def test_a_long_reply_that_is_drawn_piece_by_piece_shows_the_place_in_the_end(page, provider):
    long = "\n\n".join(f"**Word** *number* {number}, `code` and [link]." for number in range(6_000))
    talk(page, provider, ("Long", f"{long}\n\nA fox.\n\n{LONG}"))
    search(page, "fox")
    page.click("Long")
    page.wait(lambda: is_seen(page, 1, "fox"))
    assert page.gap > 1000


def test_a_reply_in_progress_is_followed_while_the_place_is_in_view(page, provider):
    gate, more = threading.Event(), threading.Event()
    session = talk(page, provider, ("Animals", f"A fox.\n\n{LONG}"))
    provider.script = [reply("More of a ", gate, f"fox.\n\n{LONG}", more, "And a fox.")]
    page.user.post(
        f"/sessions/{session['id']}/messages", {"content": "Go on"}, Prefer="respond-async"
    )
    search(page, "fox")
    page.click("Animals")
    page.wait(lambda: is_seen(page, 1, "fox"))
    page.wait_for_text("More of a", "article:last-child")
    gate.set()
    page.wait(lambda: marked(page) == ["fox", "fox"])
    assert is_seen(page, 1, "fox")
    more.set()
    page.wait(lambda: page.is_idle and marked(page) == ["fox", "fox", "fox"])
    assert is_seen(page, 1, "fox")


def test_the_modules_are_not_fetched_before_a_search(page, provider):
    loaded = "performance.getEntriesByType('resource').map(({ name }) => name.split('/').at(-1)).filter((name) => arguments[0].includes(name)).toSorted()"
    names = [
        "search-jump.js",
        "highlights.js",
        "folding.js",
        "scroll-to-match.js",
        "older-turns.js",
    ]
    talk(page, provider, ("Animals", "A fox."))
    page.driver.refresh()
    page.click("Animals")
    page.wait_for_turns("Animals", "A fox.")
    assert page.run(loaded, names) == []
    page.find("#search").send_keys("fox")
    page.wait(lambda: page.run(loaded, names) == sorted(names))


def test_a_browser_without_highlights_shows_the_place(page, provider):
    talk(page, provider, ("Animals", f"A fox.\n\n{LONG}"))
    page.driver.execute_script("delete window.Highlight; delete CSS.highlights")
    search(page, "fox")
    page.click("Animals")
    top = "document.querySelectorAll('article')[1].getBoundingClientRect().top"
    page.wait(lambda: page.turns and page.run(top) > 0)
    assert page.gap > 1000


def test_axe_finds_nothing_with_marks(page, provider, check):
    talk(page, provider, ("Animals", "A fox, [a fox](https://example.com), `a fox`."))
    search(page, "fox")
    page.click("Animals")
    page.wait(lambda: len(marked(page)) == 3)
    check("found")
