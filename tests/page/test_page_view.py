"""What is in view while a reply is written."""

import threading

import pytest

from browser import fast_pieces
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


# The end of the reply


@pytest.mark.parametrize("rate", [8, 100, 500])
def test_the_end_stays_in_view_at_any_speed(rate, page, provider):
    # The words of a second and a half, in paragraphs. Above 50 words a second, several come at a
    # time.
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


GAPS = """
    window.gaps = [];
    const log = document.getElementById("thread");
    const channel = new MessageChannel();
    channel.port1.onmessage = () => window.gaps.push(log.scrollHeight - log.scrollTop - log.clientHeight);
    const frame = () => {
        channel.port2.postMessage(""); // it comes behind what the frame shows
        requestAnimationFrame(frame);
    };
    frame();
"""


def test_the_end_stays_in_view_with_formulas_and_code_at_500_words_a_second(page, provider):
    provider.script = [reply("Line\n\n" * 60, *fast_pieces(20))]
    page.say("Much")
    page.wait_for_text("Part 1", "article:last-child")
    page.driver.execute_script(GAPS)
    page.wait_for_text("tokens read", "article:last-child")
    page.wait(lambda: page.gap < 2)
    gaps = page.run("window.gaps")
    late = [gap for gap in gaps if gap > 2]
    assert len(late) <= len(gaps) / 50, f"{len(late)} of {len(gaps)} frames: {late}"
    assert len(page.texts(".text math")) == 20 * 6
    assert len(page.texts(".token-keyword")) >= 20 * 4


def test_a_reader_who_scrolls_away_is_left_there_and_can_return(page, provider):
    gate = threading.Event()
    provider.script = [reply("Line\n\n" * 60, gate, *["More\n\n", 0.02] * 40)]
    page.say("Talk")
    page.wait(
        lambda: page.gap < 2 and page.run("document.getElementById('thread').scrollHeight") > 2000
    )
    page.run("document.getElementById('thread').scrollBy(0, -30)")  # by less than a line or two
    page.wait(lambda: page.gap > 20)
    gate.set()
    page.wait_for_text("tokens read", "article:last-child")
    assert page.gap > 1000
    page.find("#down").click()
    page.wait(lambda: page.gap < 2 and not page.shows("#down"))


def test_the_caption_of_code_stays_in_view(page, provider):
    provider.script = [reply("Look:\n\n```python\n" + "line\n" * 90 + "```\n\nThat is all.")]
    page.say("Show code")
    page.wait_for_text("tokens read", "article:last-child")
    page.wait(lambda: page.gap < 2)
    page.run("document.querySelector('pre').scrollIntoView()")
    page.run("document.getElementById('thread').scrollBy(0, 300)")
    # What is at the upper edge of the log, from its first pixel on.
    seen = """(() => {
        const { left, top, width } = document.getElementById("thread").getBoundingClientRect();
        return [1, 8, 16].map((y) => document.elementFromPoint(left + width / 2, top + y).localName);
    })()"""
    page.wait(lambda: page.run(seen) == ["figcaption"] * 3)


def test_a_selection_stays_while_a_reply_is_written(page, provider):
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
