"""Details in a reply can be opened, and their content is Markdown. Modules:
`static/markdown/extensions.js`."""

import threading

import pytest

from browser import shown, written
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

OPEN = '<details open="" dir="auto">'
CLOSED = '<details dir="auto">'
DRAWN = {
    "<details>\n<summary>Why</summary>\n\nSo *it* is.\n\n</details>\n": (
        CLOSED + "<summary>Why</summary><p>So <em>it</em> is.</p></details>"
    ),
    "<details><summary>Why `x`?</summary>So *it* is.</details>": (
        CLOSED + "<summary>Why <code>x</code>?</summary><p>So <em>it</em> is.</p></details>"
    ),
    "<details open>\nSo.\n</details>": OPEN + "<summary>Details</summary><p>So.</p></details>",
    "<DETAILS><summary> </summary>\n</DETAILS >": CLOSED + "<summary>Details</summary></details>",
    "Before\n<details>\nIn\n</details>\nBehind": (
        f'<p dir="auto">Before</p>{CLOSED}<summary>Details</summary><p>In</p></details>'
        '<p dir="auto">Behind</p>'
    ),
    "<details>\n<details>\nInner\n</details>\nOuter\n</details>\n\nBehind": (
        CLOSED
        + "<summary>Details</summary><details><summary>Details</summary><p>Inner</p></details>"
        '<p>Outer</p></details><p dir="auto">Behind</p>'
    ),
    "- one\n  <details>\n  <summary>Why</summary>\n\n  So.\n\n  </details>\n- two": (
        '<ul dir="auto"><li>one<details><summary>Why</summary><p>So.</p></details></li>'
        "<li>two</li></ul>"
    ),
    "> <details>\n> In\n> </details>\n\nBehind": (
        '<blockquote dir="auto"><details><summary>Details</summary><p>In</p></details></blockquote>'
        '<p dir="auto">Behind</p>'
    ),
    # Details without an end tag are open, and contain all that follows.
    "<details>\n<summary>Why": OPEN + "<summary>Why</summary></details>",
    "<details>\n<summary>Why</summary>\n\nSo": OPEN + "<summary>Why</summary><p>So</p></details>",
    # Other attributes are left out, and other HTML is shown as text.
    '<details class="panel" style="x" onclick="x" id="log" name="a">\nIn\n</details>': (
        CLOSED + "<summary>Details</summary><p>In</p></details>"
    ),
    "<details>\n<summary><b>Why</b></summary>\n</details>": (
        CLOSED + "<summary>&lt;b&gt;Why&lt;/b&gt;</summary></details>"
    ),
    "</details>": '<p class="raw" dir="auto">&lt;/details&gt;</p>',
    "In a line <details>": '<p dir="auto">In a line &lt;details&gt;</p>',
}


def test_details_are_elements_with_markdown_in_them(page):
    assert dict(zip(DRAWN, written(page, list(DRAWN)), strict=True)) == DRAWN


def test_a_tag_in_code_closes_nothing(page):
    text = (
        "<details>\n\n```html\n</details>\n```\n\n`</details>` is the end.\n\n</details>\n\nBehind"
    )
    [html] = shown(page, [text])
    assert html.count("<details") == 1 and html.endswith('</details><p dir="auto">Behind</p>')
    assert "is the end.</p></details>" in html


def test_details_stay_open_or_closed_while_they_come(page, provider):
    gates = [threading.Event() for _ in range(3)]
    begun = "<details>\n<summary>Why</summary>\n\nOne\n"
    provider.script = [reply(begun, gates[0], "\nTwo\n", gates[1], "\n</details>\n\nEnd", gates[2])]
    is_open = "document.querySelector('.text details').open"
    page.say("Explain")
    page.wait_for_text("One", ".text details")
    assert page.run(is_open)  # text that is being written is never hidden
    page.find(".text summary").click()
    gates[0].set()
    page.wait(lambda: "Two" in page.turns[1])
    assert not page.run(is_open)
    page.find(".text summary").click()
    gates[1].set()
    page.wait_for_text("End", "article:last-child .text > p")
    assert page.run(is_open)
    gates[2].set()
    page.wait_for_text("tokens read", "article:last-child")
    page.driver.refresh()
    page.wait_for_text("End", "article:last-child .text > p")
    assert not page.run(is_open)


def test_long_details_continue_in_the_next_piece(page):
    text = (
        "<details>\n<summary>Long</summary>\n\n"
        + "A line of it.\n\n" * 3000
        + "</details>\n\nBehind"
    )
    [html] = shown(page, [text])
    assert html.count("<summary>Long</summary>") == html.count("<details") > 1
    assert html.count("A line of it.") == 3000
    assert html.endswith('</details><p dir="auto">Behind</p>')
