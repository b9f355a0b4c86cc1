"""The colours of Markdown in a terminal, while it comes.

Modules: `terminal/markdown.py`.
"""

import time

import pytest

from painted import painted, plain, styles_of, texts
from terminal.colours import BOLD, CYAN, DIM, ITALIC, MAGENTA, STRUCK, UNDERLINED
from terminal.markdown import Markdown

LOOKS = {  # of Markdown, what of it has which style; the marks are dim
    "plain words": [],
    "# A heading": [("A heading", BOLD)],
    "###### A heading": [("A heading", BOLD)],
    "#hashtag": [],
    "a # b": [],
    "**bold** *it* __bold__ _it_": [("bold", BOLD), ("it", ITALIC)] * 2,
    "***both***": [("both", f"{BOLD};{ITALIC}")],
    "**bold and *both***": [("bold and ", BOLD), ("both", f"{BOLD};{ITALIC}")],
    "~~struck~~": [("struck", STRUCK)],
    "`code`, ``a ` tick``": [("code", MAGENTA), ("a ` tick", MAGENTA)],
    "`**not bold**`": [("**not bold**", MAGENTA)],
    "# With `code`": [("With ", BOLD), ("code", f"{BOLD};{MAGENTA}")],
    "[a *link*](http://a.b/(c)_d)": [
        ("a ", UNDERLINED),
        ("link", f"{UNDERLINED};{ITALIC}"),
        ("http://a.b/(c)_d", CYAN),
    ],
    "see https://a.b/c_d_e.": [("https://a.b/c_d_e", CYAN)],
    "> quoted **so**": [("> ", CYAN), ("so", BOLD)],
    "- [x] done": [("- [x] ", CYAN)],
    "  10. ten": [("  10. ", CYAN)],
    "| a | `b` |": [("b", MAGENTA)],
    "这是**重点**内容": [("重点", BOLD)],
    "f(`x`)": [("x", MAGENTA)],
    "---": [],
}
NO_LOOKS = [  # what is no mark, as nothing ends there
    "**bold",
    "*it",
    "_it",
    "`code",
    "~~struck",
    "[label](http",
    "[label] (text)",
    "snake_case_name and _other",
    "2 * 3 * 4",
    "2*3*4",
    "**kwargs and *args",
    "** no **",
    r"\*no\* \`no\`",
    "array[1] + [2](",
    "1999 was",
    "-no list",
    "1.5 is",
]


def looks_of(text, cuts=()):
    """All styles of a text but those of marks."""
    return [(piece, style) for piece, style in styles_of(painted(text, 0, cuts)) if style != DIM]


@pytest.mark.parametrize("text, looks", LOOKS.items())
def test_markdown_has_colours(text, looks):
    assert plain(painted(text)) == text
    assert looks_of(text) == looks
    assert looks_of(text, range(len(text))) == looks


@pytest.mark.parametrize("text", NO_LOOKS)
def test_a_mark_without_an_end_is_text(text):
    assert looks_of(text) == looks_of(text, range(len(text))) == []
    behind = f"{text}\n\nand **bold** `code`"
    assert looks_of(behind) == [("bold", BOLD), ("code", MAGENTA)]
    assert plain(painted(behind)) == behind


def test_marks_are_dim():
    assert [piece for piece, style in styles_of(painted("# a **b** `c`\n---\n```\n"))] == [
        "# ", "a ", "**", "b", "**", " ", "`", "c", "`", "---", "```",
    ]  # fmt: skip


def test_what_is_known_is_given_at_once():
    markdown = Markdown(True)
    given = [
        "".join(part.text for part in markdown.feed(piece)) for piece in ("One ", "**tw", "o** ")
    ]
    assert given == ["One ", "", "**two** "]


def test_what_is_not_known_is_given_when_it_is_wanted():
    """As where a model thinks in the midst of a word."""
    markdown = Markdown(True)
    given = []
    for piece in ("A **bold", " word** and", " **bold**\n", "``", "`js\nlet"):
        given.append("".join(part.text for part in markdown.feed(piece)))
        given.append("".join(part.text for part in markdown.hurry()))
    assert given == ["A ", "**bold", " word** ", "and", " **bold**\n", "", "", "", "```js\n", "let"]


@pytest.mark.parametrize(
    "text",
    [
        "```\n**no**\n```\n**so**",
        "~~~\n```\n**no**\n~~~\n**so**",
        "````md\n```\n**no**\n```\n````\n**so**",
        "- list:\n  ```sh\n  # **no**\n  ```\n**so**",
        "> ```\n> **no**\n> ```\n**so**",
        "1. ```\n   **no**\n   ```\n**so**",
        "```js code``` is `**no**`\n**so**",
    ],
)
def test_a_block_of_code_ends_where_it_does(text):
    for cuts in ((), range(len(text))):
        bold = [piece for piece, style in looks_of(text, cuts) if style == BOLD]
        assert bold == ["so"]
        assert plain(painted(text, 0, cuts)) == text


@pytest.mark.parametrize("seed", range(10))
def test_it_does_not_matter_for_the_colours_how_a_text_is_cut(seed):
    for text, chance in texts(100, seed):
        text = text.replace("```", "").replace("~~~", "")
        whole = painted(text, 40)
        assert whole == painted(text, 40, range(len(text))), text
        cuts = chance.choices(range(len(text) + 1), k=5)
        assert whole == painted(text, 40, cuts), (text, cuts)


@pytest.mark.parametrize(
    "text",
    [
        "*a ",
        "**_",
        "[a](",
        "[a]((",
        "` ``",
        "https://",
        "~~a ",
        "- ",
        "> ",
        "1. ",
        "```a ",
        "|",
        "\\",
        "漢**",
    ],
)
def test_a_long_line_of_marks_takes_no_time(text):
    began = time.process_time()
    painted(text * (50_000 // len(text)), 80)
    line = text * (5_000 // len(text))
    painted(line, 80, range(len(line)))
    assert time.process_time() - began < 5
