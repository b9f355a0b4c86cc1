"""The page's Markdown, from marked's tokens to elements, in a real browser."""

import html.parser
import json
import re
import subprocess
import urllib.parse

import pytest

from browser import written
from provider import reply, status

LEFT_OUT = {"HTML blocks", "Raw HTML", "Entity and numeric character references"}
# These contain raw HTML, which is shown as text; addresses that GitHub's Markdown makes links; or
# what is mathematics here.
DEVIATING = (
    {21, 308, 309, 344, 475, 476, 477, 491, 524, 536, 642, 643} | {602, 608, 611, 612} | {12}
)
EVIL = "document.title = 'run'"
ATTACKS = [
    f'<img src=x onerror="{EVIL}"><script>{EVIL}</script>',
    f'<svg onload="{EVIL}"><svg/onload="{EVIL}">',
    f'<iframe srcdoc="<script>parent.{EVIL}</script>"></iframe>\n\n<object data="data:text/html,<script>{EVIL}</script>">',
    f"[a](javascript:{EVIL}) [b](<java\nscript:x>)",
    "[c](JaVaScRiPt&colon;x) [d](&#106;avascript:x) [e](\x01javascript:x)",
    "[a](data:text/html;base64,PHNjcmlwdD4=) [b](vbscript:x) [c](file:///etc/passwd) [d](//evil.example) [e](blob:x)",
    f"[a]\n\n[a]: javascript:{EVIL}\n\n<javascript:{EVIL}> ![x](javascript:{EVIL}) ![x](data:image/svg+xml,<svg/onload=x>)",
    "![a](http://evil.example/a.png) [![b](http://evil.example/b.png)](http://evil.example/) <img src=//evil.example/c.png>",
    f'```"><img src=x onerror={EVIL}>\n</code></pre><script>{EVIL}</script>\n```\n`<script>{EVIL}</script>`',
    f"| <img src=x onerror={EVIL}> | b |\n|-|:-:|\n| [x](javascript:{EVIL}) | **<b onclick={EVIL}>** |",
    f'[a](http://evil.example/"onmouseover="{EVIL}) [b](http://evil.example \'x" onclick="{EVIL}\')',
    "<style>@import url(http://evil.example);</style><link rel=stylesheet href=//evil.example><base href=//evil.example>",
    "<form action=//evil.example><button>Sign in</button></form><meta http-equiv=refresh content=0;url=//evil.example>",
    "\u202eevil.example/gpj.exe\u202c \u2066a\u2069 [\u202ehttp://good.example](http://evil.example)",
    "**unclosed *and `nested [link](http://evil.example \n\n> > > - 1. # <!-- never closed\n\n$$ \\[ \\( $x",
    "> " * 500 + "deep",
    "- " * 500 + "deep",
    "[" * 2000 + "a" + "](x)" * 2000,
    "**" * 5000,
    "a**b" * 5000,
    "<" * 5000,
    "\0\ufffd&#0;&#x110000;&#xd800;&nosuch;&amp;lt;script&amp;gt;",
    "[__proto__] [constructor]\n\n[__proto__]: http://evil.example\n[constructor]: javascript:x",
]


class Normalizer(html.parser.HTMLParser):
    """HTML as a list of its parts, without those that the page leaves out or adds."""

    def __init__(self, source):
        super().__init__()
        self.parts, self.open = [], []
        self.feed(source)
        self.text()

    def text(self):
        # The style decides how white space is shown; around block tags it means nothing.
        joined = re.sub(r"\n</code></pre>", "</code></pre>", "".join(self.parts))
        joined = re.sub(
            r"\s*(</?(?:p|h\d|ul|ol|li|blockquote|pre|hr|br)\b[^>]*>)\s*", r"\1", joined
        )
        self.parts = [re.sub(r"\s+", " ", joined).strip()]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        address = urllib.parse.unquote(values.get("href") or values.get("src") or "")
        is_allowed = re.match(r"(?:https?|mailto):", address, re.IGNORECASE)
        if tag == "img":
            label = values.get("alt") or "image"
            self.parts.append(f"<a {address}>{label}</a>" if is_allowed else label)
        elif tag == "a":
            self.open.append(bool(is_allowed))
            self.parts.append(f"<a {address}>" if is_allowed else "")
        elif tag == "figcaption":
            self.open.append(tag)
        elif tag not in ("figure", "button"):
            self.parts.append(f"<{tag} {values['start']}>" if values.get("start") else f"<{tag}>")

    def handle_endtag(self, tag):
        if tag == "a":
            self.parts.append("</a>" if self.open.pop() else "")
        elif tag == "figcaption":
            self.open.pop()
        elif tag not in ("figure", "button", "br", "hr", "img"):
            self.parts.append(f"</{tag}>")

    def handle_data(self, data):
        if "figcaption" not in self.open:
            self.parts.append(data)


def examples(npm):
    script = (
        "import('commonmark-spec').then((spec) => console.log(JSON.stringify(spec.default.tests)))"
    )
    printed = subprocess.run(
        ["node", "-e", script], cwd=npm, check=True, capture_output=True, text=True
    ).stdout
    return json.loads(printed.replace("→", "\\t"))


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
def test_the_examples_of_commonmark(page, npm):
    chosen = [example for example in examples(npm) if example["section"] not in LEFT_OUT]
    shown = written(page, [example["markdown"] for example in chosen])
    wrong = {}
    for example, ours in zip(chosen, shown, strict=True):
        expected, got = Normalizer(example["html"]).parts, Normalizer(ours).parts
        if expected != got:
            wrong[example["number"]] = example["markdown"], expected, got
    assert (
        len(chosen) == 571 and {number: wrong[number] for number in wrong.keys() - DEVIATING} == {}
    )


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
def test_text_that_comes_by_characters_gives_the_same_page(page, npm):
    texts = [example["markdown"] for example in examples(npm)] + [text[:300] for text in ATTACKS]
    assert written(page, texts, step=1) == written(page, texts)


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
def test_attacks_stay_text_and_links(page):
    for ours in written(page, ATTACKS):
        tags = set(re.findall(r"<(\w+)", ours))
        assert tags <= set(
            "a blockquote br button code del em figcaption figure h1 hr input li ol p pre span strong "
            "table tbody td th thead tr ul div".split()
        ), tags
        for attribute in re.findall(r'<\w+((?: [\w-]+="[^"]*")+)', ours):
            names = set(re.findall(r' ([\w-]+)="', attribute))
            assert names <= {
                "dir",
                "class",
                "href",
                "target",
                "rel",
                "title",
                "tabindex",
                "type",
                "aria-level",
                "start",
            }, names
        assert all(
            re.match("(?:https?|mailto):", address)
            for address in re.findall(r'href="([^"]*)"', ours)
        )


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
def test_attacks_run_nothing_and_load_nothing(page, provider):
    page.wait_for_text("No chats yet.")
    evil = "\n\n".join(text[:1500] for text in ATTACKS).replace("\0", "")
    session = page.user.create("Hello", model=ATTACKS[0][:190])
    provider.script = [reply(evil), status(400, {"error": {"message": evil[:900]}})]
    page.user.post(f"/sessions/{session['id']}/messages", {"content": evil})
    page.user.patch(f"/sessions/{session['id']}", {"title": ATTACKS[1][:200], "system": evil})
    page.user.post(f"/sessions/{session['id']}/messages", {"content": "More"})
    page.driver.refresh()
    page.click("<svg onload")
    page.wait(lambda: len(page.turns) == 6)
    assert page.turns[2].startswith("<img src=x onerror=")
    assert page.driver.title.startswith("<svg onload") and page.text("#title").startswith(
        "<svg onload"
    )
    loaded = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(page.user.url)] == []
    # A report of the policy would be in the console, which the fixture expects to be empty.


# What may begin something: marks, pairs of marks, links, mathematics, lists, tables, HTML,
# addresses, and text that is no mark at all. fmt: off
UNITS = [
    "*",
    "_",
    "~",
    "`",
    "[",
    "]",
    "(",
    ")",
    "!",
    "<",
    ">",
    "#",
    "$",
    "\\",
    "|",
    "&",
    "-",
    "+",
    "=",
    ":",
    ".",
    "^",
    '"',
    "'",
    "**",
    "__",
    "~~",
    "``",
    "```",
    "***",
    "*_",
    "_*",
    "*~",
    "_a_ __",
    "*a* **",
    "a**b",
    "a*b ",
    "_a ",
    " _a",
    "~a~ ~~",
    "*a_b*",
    "![",
    "[a]",
    "[a](",
    "[a](b)",
    "[a]:",
    "[a]: b\n",
    "[[",
    "](",
    "![a](b",
    "[a][",
    "[^a]",
    "[a\n",
    "[`",
    "[*a",
    "<a",
    "</a>",
    "<!--",
    '<a href="',
    "<http://",
    "<?",
    "<![CDATA[",
    "&amp;",
    "&#",
    "&#x1;",
    "\\*",
    "\\\\",
    "\\[",
    "\\(",
    "\\]",
    "$$",
    "$a",
    "$a$ ",
    "a\n\\[",
    "a\n$$",
    "$$\na\n",
    "`a` ``",
    "`` ` ",
    "a`b",
    "# a\n",
    "a\n=\n",
    "a\n-\n",
    "***\n",
    "> ",
    "> a\n",
    ">a\n\n",
    "- a\n",
    "- ",
    "* a\n  ",
    "1. a\n",
    "1) ",
    "- [ ] a\n",
    "-\n",
    "|a|\n",
    "|a|b|\n|-|-|\n",
    "a|b\n-|-\n",
    "|-",
    "```\n",
    "~~~a\n",
    "    a\n",
    "http://a ",
    "www.a.b ",
    "a@b.c ",
    "a@",
    "http://",
    "a.",
    "aé",
    "漢字",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\u200b",
    "\u202e",
    "\t",
    "  \n",
    "\r",
    "a\n\n",
    "*漢",
    "a_漢_",
    "[漢](",
    "_a*b~c`",
    "*[a](b)_",
    "~[`$\\",
    "<b>*a*</b>",
    "![a]_b_(",
    "**a** __b__ ",
    "| `a` | *b* |\n",
]
# fmt: on

TIMES = """
    const [units, size, done] = arguments;
    import("/static/markdown/markdown.js").then(({ Markdown }) => {
        /** The least milliseconds of some tries, until one takes no longer than `most`: another program may hold it up. */
        const draw = (unit, most) => {
            const text = unit.repeat(size / unit.length);
            let least = Infinity;
            for (let tries = 0; tries < 6 && least > most; tries++) {
                const began = performance.now(), markdown = new Markdown(document.createElement("div"));
                markdown.tail = text;
                markdown.draw(true);
                least = Math.min(least, performance.now() - began);
            }
            return least;
        };
        draw(units[0], 0);
        const ordinary = draw("Some *words* of an answer, as `code` or [a link](http://a.b/).\\n\\n", 0);
        done([ordinary, units.map((unit) => draw(unit, 5 * ordinary))]);
    });
"""


def test_no_text_blocks_the_page(page):
    """12 kB of any text take at most as long as sixty ordinary answers with as many elements. A
    text for which marked needs the square of the length took six hundred times as long."""
    assert len(UNITS) >= 100
    page.driver.set_script_timeout(300)
    ordinary, times = page.driver.execute_async_script(TIMES, UNITS, 12_000)
    slow = {
        unit: round(time / ordinary, 1)
        for unit, time in zip(UNITS, times, strict=True)
        if time > 60 * ordinary
    }
    print(f"an ordinary text takes {ordinary:.0f} ms, the slowest {max(times):.0f} ms")
    assert not slow
