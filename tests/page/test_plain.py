"""The plain text of a preview: the beginning of a message without its marks. Modules:
`static/markdown/plain.js`."""

import pytest

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

PLAIN = {
    "": "",
    "word": "word",
    "**Bold**, *it* and ***both***": "Bold, it and both",
    "__Bold__, _it_ and ___both___": "Bold, it and both",
    "**a *b* c** ~~gone~~": "a b c gone",
    "**Cut off bold te": "Cut off bold te",
    "*Cut off it": "Cut off it",
    "off at its beginning**: or *there*, ~~too": "off at its beginning: or there, too",
    "limits** and **more** (x**2 **kw)": "limits and more (x**2 kw)",
    "snake_case_name, 2 * 3 * 4, a > b, a || b": "snake_case_name, 2 * 3 * 4, a > b, a || b",
    "f(*args, x)": "f(*args, x)",
    r"\*no emphasis\*": "*no emphasis*",
    "# Title\n\nText": "Title Text",
    "# Title Text ## Part more": "Title Text Part more",
    "Title\n===\ntext": "Title text",
    "C# code, issue # 5": "C# code, issue # 5",
    "---\n\ntext\n\n***\n\nmore": "text more",
    "Use `**kwargs` and ``a`b``": "Use **kwargs and a`b",
    "`unclosed code": "unclosed code",
    "```python\n# no heading\nprint(1)\n```\nand *more*": "# no heading print(1) and more",
    "```python # no heading print(1) ``` and *more*": "# no heading print(1) and more",
    "```python\nprint(": "print(",
    "```py": "",
    'See [the docs](https://example.com/a_b "Title") now': "See the docs now",
    "See [the docs](https://exam": "See the docs",
    "See [the do": "See the do",
    "[text][label] and <https://a.example/>": "text and https://a.example/",
    "[![badge](a.png)](b) ![an image](http://a)": "badge an image",
    "- one\n- two\n  - three": "one two three",
    "1. one\n2) two": "one two",
    "- [ ] todo\n- [x] done": "todo done",
    "- [ ] todo - [x] done": "todo done",
    "> quoted\n> > more": "quoted more",
    "| a | b |\n|---|:-:|\n| 1 | 2 |": "a b 1 2",
    "| a | b | |---|---| | 1 | 2 |": "a b 1 2",
    "a | b\n--|--\n1 | 2": "a b 1 2",
    "<details open><summary>Why</summary>\n\nBecause\n</details>": "Why Because",
    "<details><summ": "<summ",
    "<b>other</b> HTML stays": "<b>other</b> HTML stays",
    "The sum $a_1 * b_1 * c$ and $$x_*y*$$": "The sum $a_1 * b_1 * c$ and $$x_*y*$$",
    r"\[ a*b*c \] and \(_a_\)": r"\[ a*b*c \] and \(_a_\)",
    "from $5 to $10 *now*": "from $5 to $10 now",
    "two\n\n\nlines\tand  blanks ": "two lines and blanks",
    "\ue000 is nobody's": "\ue000 is nobody's",
}
SCRIPT = """
    const [texts, done] = arguments;
    import("/static/markdown/plain.js").then(({ plain }) => done(texts.map((text) => plain(text))));
"""


def test_previews_have_no_marks(page):
    shown = page.driver.execute_async_script(SCRIPT, list(PLAIN))
    assert dict(zip(PLAIN, shown, strict=True)) == PLAIN


def test_previews_of_any_text_come_soon(page):
    """A hundred previews of texts that begin something at each character."""
    units = [
        "*",
        "_",
        "[",
        "![",
        "`",
        "$",
        "\\[",
        "~~",
        "<details",
        "|-",
        "> ",
        "**a",
        "((",
        "\n",
        "[[a]",
    ]
    texts = [(one + other) * 200 for one in units for other in units[:7]]
    timed = "const began = performance.now(); " + SCRIPT.replace(
        "done(texts.map((text) => plain(text)))",
        "done([texts.map((text) => plain(text)).length, performance.now() - began])",
    )
    count, milliseconds = page.driver.execute_async_script(timed, texts)
    assert count == len(texts) and milliseconds < 1000
