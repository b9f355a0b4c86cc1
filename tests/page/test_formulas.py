"""Formulas in a reply are MathML, and link to nothing. Modules: `static/markdown/formulas.js`."""

import re
import threading

import pytest

from browser import shown
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

LOADED = "performance.getEntriesByType('resource').map((entry) => entry.name)"
# What is shown as it is written: text that is no formula to Temml, has links, defines commands, or
# would be too large.
SOURCES = [
    r"\undefinedcommand{x}",
    r"\frac{1",
    r"{x",
    "x_1_2",
    r"\begin{nothing}x\end{nothing}",
    r"\href{https://evil.example}{x}",
    r"\url{https://evil.example}",
    r"\includegraphics{https://evil.example/a.png}",
    r"\class{main}{x}",
    r"\style{color: red}{x}",
    r"\id{log}{x}",
    r"\data{a=b}{x}",
    r"\def\a{x}\a",
    r"\newcommand{\a}{x}\a",
    r"\gdef\a#1!{\a#1#1!}\a x!",
    r"\let\a=\frac",
    r"\df@tag",
    "x^{" * 300 + "x" + "}" * 300,
    r"\frac{" * 90 + "x" + "}{y}" * 90,
    r"\begin{matrix}" + "&" * 300 + r"\\" * 300 + r"\end{matrix}",
    "x" * 900,
]


def test_each_way_to_write_a_formula_is_drawn(page):
    ways = [
        "$x^2$",
        r"\(x^2\)",
        "$$x^2$$",
        "$$\nx^2\n$$",
        r"\[x^2\]",
        "a $$x^2$$ b",
        "| $x^2$ |\n|---|",
    ]
    inline, _, display, *_ = drawn = shown(page, ways)
    math = "<msup><mi>x</mi><mn>2</mn></msup></math>"
    assert inline == f'<p dir="auto"><span class="formula" dir="ltr"><math>{math}</span></p>'
    assert display == f'<p class="formula display" dir="ltr"><math display="block">{math}</p>'
    assert [html.count(math) for html in drawn] == [1] * len(ways)
    assert [html.count('display="block"') for html in drawn] == [0, 0, 1, 1, 1, 1, 0]


def test_text_that_is_no_formula_is_shown_as_written(page):
    for source, html in zip(SOURCES, shown(page, [f"$${each}$$" for each in SOURCES]), strict=True):
        as_html = source.replace("&", "&amp;")
        assert html == f'<p class="math raw" dir="ltr">$${as_html}$$</p>', source
    sums, code = shown(page, ["From $5 to $10", "`$x$` and\n\n```\n$x$\n```"])
    assert "<math" not in sums + code


def test_a_formula_has_known_elements_and_attributes_only(page):
    formulas = [
        r"\boxed{\cancel{x}} \color{red}{y} \colorbox{red}{z} \textcolor{#123456}{q}",
        r"\begin{array}{|c|c|} \hline a & b \\ \hline \end{array} \tag{1} \label{log}",
        r"x \ref{log} \eqref{log} \Huge{x} \rule{1em}{2em} \phantom{x} \smash{x} \text{<b>}",
        r"\rule{99999em}{1e9em} \kern{99999em} \raisebox{99999em}{x} \hspace{-99999cm} \phase{x}",
        r"\cancelto{0}{x} \mathllap{x} \overline{x} \underline{x} \overbrace{a+b}^{n} \pmb{x}",
    ]
    for html in shown(page, [f"$${each}$$" for each in formulas]):
        tags = set(re.findall(r"<(\w+)", html)) - {"p"}
        assert tags and all(re.fullmatch("math|m[a-z]+", tag) for tag in tags)
        names = set(re.findall(r' ([\w-]+)="', html))
        assert not names & {"href", "id", "title", "src", "mathcolor", "onclick", "actiontype"}
        assert "99999" not in html and "1e9" not in html and "url(" not in html
        for colour in re.findall(r"[^-]color: ([^;]*);", html):
            assert colour.startswith("light-dark(oklch("), colour


def test_formulas_are_drawn_while_the_reply_is_written(page, provider):
    gates = [threading.Event(), threading.Event()]
    provider.script = [
        reply(r"The half $\frac{1}", gates[0], "{2}$ of it.\n\nNow", gates[1], " more.")
    ]
    page.say("Explain")
    page.wait_for_text(r"The half $\frac{1}", "article:last-child .text")
    gates[0].set()
    page.wait(lambda: page.texts(".formula mfrac") == ["12"])
    assert page.turns[1] == "The half 12 of it.Now"
    gates[1].set()
    page.wait_for_text("tokens read", "article:last-child")
    page.driver.refresh()
    page.wait(lambda: page.texts(".formula mfrac") == ["12"])


def test_neither_library_is_loaded_if_it_is_not_needed(page, provider):
    provider.script = [
        reply("Some `code`, and\n\n```\nmore\n```\n\n```nothing\nsuch\n```"),
        reply("$x$"),
    ]
    page.say("One")
    page.wait_for_text("tokens read", "article:last-child")
    page.driver.refresh()
    page.wait_for_text("tokens read", "article:last-child")
    files = {name.rpartition("/")[2] for name in page.run(LOADED)}
    assert "marked.js" in files and not files & {"temml.js", "prism.js", "formulas.js", "code.js"}
    page.say("Two")
    page.wait(lambda: page.texts(".formula math"))
    files = {name.rpartition("/")[2] for name in page.run(LOADED)}
    assert "temml.js" in files and "prism.js" not in files


def test_the_source_is_shown_until_the_library_can_be_loaded(page, provider):
    def block(*patterns):
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": list(patterns)})

    page.driver.execute_cdp_cmd("Network.enable", {})
    block("*/temml.js")
    provider.script = [reply("One $x$."), reply("Two $y$.")]
    page.say("One")
    page.wait_for_turns("One", "One $x$.")
    block()
    page.driver.refresh()
    page.wait(lambda: page.texts(".formula math") == ["x"])
    page.driver.execute_cdp_cmd("Network.disable", {})


def test_a_wide_formula_scrolls_in_a_box_of_its_own(page, provider):
    page.driver.set_window_size(500, 800)
    wide = " + ".join(f"x_{{{number}}}" for number in range(60))
    provider.script = [reply(f"A ${wide}$ within, $y$, and\n\n$${wide}$$\n\n$$z$$")]
    page.say("Sum")
    page.wait(lambda: len(page.texts("math")) == 4)
    log = "document.getElementById('thread')"
    assert page.run(f"{log}.scrollWidth <= {log}.clientWidth")
    page.wait(lambda: page.run("document.querySelectorAll('.formula[tabindex]').length") == 2)
    scrolls = "[...document.querySelectorAll('.formula')].map((e) => [e.scrollWidth > e.clientWidth, e.tabIndex])"
    assert page.run(scrolls) == [[True, 0], [False, -1], [True, 0], [False, -1]]
    page.driver.set_window_size(1280, 800)


def test_a_formula_covers_nothing_else(page, provider):
    """Whatever moves it, it is visible within its own box only."""
    provider.script = [
        reply(r"$\kern-90em\text{Sign in}$ and" + "\n\n" + r"$$\raisebox{90em}{\text{Sign in}}$$")
    ]
    page.say("Harm")
    page.wait(lambda: len(page.texts("math")) == 2)
    boxes = "[...document.querySelectorAll('.formula')].map((e) => getComputedStyle(e).overflow)"
    assert page.run(boxes) == ["auto hidden", "auto hidden"]
