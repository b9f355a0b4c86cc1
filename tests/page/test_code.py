"""Code in a reply is coloured, and its text stays the same. Modules: `static/markdown/code.js`,
`static/markdown/grammars.js`."""

import html
import re
import threading

import pytest

from browser import shown
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

# A language, by the names that replies use → a line of it, and which colour each part of the line
# has.
LINES = {
    "sh": ('for a in *; do echo "$a"; done # b', {"keyword": "for", "comment": "# b"}),
    "c": ('int main() { return 1; } // "a"', {"keyword": "int", "name": "main", "number": "1"}),
    "c++": ("class A : public B { bool a = true; };", {"keyword": "class", "number": "true"}),
    "c#": ("public string A => null; // b", {"keyword": "public", "comment": "// b"}),
    "css": ("a { color: red; } /* b */", {"name": "a", "property": "color", "comment": "/* b */"}),
    "dart": ("final a = 'b';", {"keyword": "final", "string": "'b'"}),
    "diff": ("- old\n+ new", {"deleted": "- old\n", "string": "+ new"}),
    "dockerfile": ("FROM a AS b\nRUN c", {"keyword": "FROM"}),
    "elixir": ("def a, do: 1", {"keyword": "def", "number": "1"}),
    "golang": ('func a() { b("c") }', {"keyword": "func", "string": '"c"'}),
    "graphql": ("query { b(c: 1) { d } }", {"keyword": "query", "number": "1"}),
    "haskell": ("module A where -- b", {"keyword": "module", "comment": "-- b"}),
    "terraform": ('a = "b" # c', {"string": '"b"', "comment": "# c"}),
    "ini": ("; a\nb = c", {"comment": "; a"}),
    "java": ("public class A { int a = 1; }", {"keyword": "public", "name": "A", "number": "1"}),
    "js": ("const a = `b ${c}`; // d", {"keyword": "const", "comment": "// d"}),
    "json": ('{"a": ["b", 1, null]}', {"property": '"a"', "string": '"b"', "number": "1"}),
    "jsx": ('const a = <b c="d">e</b>;', {"keyword": "const"}),
    "julia": ("function a() 1 end", {"keyword": "function", "number": "1"}),
    "kotlin": ("fun a(): Int = 1", {"keyword": "fun", "number": "1"}),
    "tex": ("\\section{a} % b", {"comment": "% b"}),
    "lua": ("local a = 'b' -- c", {"keyword": "local", "string": "'b'"}),
    "make": ("a: b\n\tc # d", {"comment": "# d"}),
    "md": ("# a", {"name": "# a"}),
    "html": ('<a b="c">d</a><!-- e -->', {"comment": "<!-- e -->"}),
    "matlab": ("function a = 1 % b", {"keyword": "function", "number": "1"}),
    "nginx": ("server { listen 80; }", {"keyword": "server"}),
    "perl": ("my $a = 1; # b", {"keyword": "my", "number": "1", "comment": "# b"}),
    "php": ("<?php echo 'a'; // b", {"string": "'a'", "comment": "// b"}),
    "powershell": ("function A { } # b", {"keyword": "function", "comment": "# b"}),
    "proto": ("message A { string a = 1; }", {"keyword": "message", "number": "1"}),
    "py": ("def a(): return 'b' # c", {"keyword": "def", "string": "'b'", "comment": "# c"}),
    "r": ("a <- 1 # b", {"number": "1", "comment": "# b"}),
    "rb": ("def a; 1; end # b", {"keyword": "def", "number": "1", "comment": "# b"}),
    "rs": ("fn a() -> u8 { 1 } // b", {"keyword": "fn", "comment": "// b"}),
    "scala": ("def a = 1 // b", {"keyword": "def", "number": "1", "comment": "// b"}),
    "scss": ("$a: 1px; // b", {"property": "$a", "comment": "// b"}),
    "sql": ("SELECT 1 FROM a -- b", {"keyword": "SELECT", "number": "1", "comment": "-- b"}),
    "swift": ('let a = "b" // c', {"keyword": "let", "comment": "// c"}),
    "toml": ('a = "b" # c', {"property": "a", "string": '"b"', "comment": "# c"}),
    "tsx": ("const a: b = <c />;", {"keyword": "const"}),
    "ts": ("interface A { b: string }", {"keyword": "interface", "name": "A"}),
    "yml": ("a: 'b' # c", {"property": "a", "string": "'b'", "comment": "# c"}),
}
LONG = "\n\n".join(f"def f{number}():\n    return 'a < b' # {number}" for number in range(600))
PLAIN = {
    "a language that is not known": ("brainfuck", "+++[->+<]"),
    "no language": ("", "let a = 1;"),
    "a name that every object has": ("constructor", "let a = 1;"),
    "a line that nobody reads": ("js", "let a = 1;" * 300),
    "code that would take long": ("cpp", "0'a " * 400),
    "code that nests too deep": ("js", "`${" * 900),
}


def fenced(language, code):
    return f"```{language}\n{code}\n```"


def coloured(shown_html):
    """The coloured parts of some code: the first text of each colour."""
    found = {}
    for colour, text in re.findall(
        r'<span class="token-(\w+)">(.*?)</span>', shown_html, re.DOTALL
    ):
        found.setdefault(colour, html.unescape(re.sub("<.*?>", "", text)))
    return found


def text_of(shown_html):
    [code] = re.findall("<code.*?>(.*)</code>", shown_html, re.DOTALL)
    return html.unescape(re.sub("<.*?>", "", code))


def test_each_language_has_colours(page):
    codes = [fenced(language, line) for language, (line, _) in LINES.items()]
    drawn = dict(zip(LINES, shown(page, codes), strict=True))
    found = {language: coloured(each) for language, each in drawn.items()}
    assert {
        language: found[language]
        for language, (_, colours) in LINES.items()
        if not colours.items() <= found[language].items()
    } == {}
    assert [text_of(each) for each in drawn.values()] == [line for line, _ in LINES.values()]


def test_the_library_has_all_languages_that_the_page_knows(page):
    script = """
        const [done] = arguments;
        const files = ["markdown/languages", "vendor/prism"].map((name) => import(`/static/${name}.js`));
        Promise.all(files).then(([{ languageOf }, { languages }]) =>
            done(arguments[1].map((name) => typeof languages[languageOf(name)])));
    """
    script = script.replace("arguments[1]", repr(list(LINES)))
    assert page.driver.execute_async_script(script) == ["object"] * len(LINES)


def test_code_in_an_unknown_language_has_no_colours(page):
    for name, each in zip(
        PLAIN, shown(page, [fenced(*each) for each in PLAIN.values()]), strict=True
    ):
        assert coloured(each) == {}, name
        assert text_of(each) == PLAIN[name][1], name


def test_a_long_block_has_colours_to_its_end(page):
    [each] = shown(page, [fenced("python", LONG)])
    assert text_of(each) == LONG
    assert each.count('<span class="token-keyword">def</span>') == 600
    assert each.count('<span class="token-comment"># ') == 600


def test_colours_come_when_the_block_is_complete(page, provider):
    gates = [threading.Event(), threading.Event()]
    provider.script = [
        reply("```py\ndef a():\n", gates[0], "    pass\n```\n\nNow", gates[1], " more.")
    ]
    page.say("Code")
    page.wait_for_text("def a():", "article:last-child code")
    assert page.texts(".token-keyword") == []
    gates[0].set()
    page.wait(lambda: page.texts(".token-keyword") == ["def", "pass"])
    assert page.texts("article:last-child code") == ["def a():\n    pass"]
    gates[1].set()
    page.wait_for_text("tokens read", "article:last-child")


def test_a_selection_in_code_stays_when_colours_come(page, provider):
    gate = threading.Event()
    provider.script = [reply("```py\ndef a():\n    return 'one' + 'two'\n```", gate, "\n\nEnd")]
    page.say("Code")
    page.wait_for_text("two", "article:last-child code")
    page.driver.execute_script("""
        const text = document.querySelector("article:last-child code").firstChild;
        getSelection().setBaseAndExtent(text, text.data.indexOf("one"), text, text.data.indexOf("two"));
    """)
    gate.set()
    page.wait(lambda: page.texts(".token-keyword") == ["def", "return"])
    assert page.run("String(getSelection())") == "one' + '"


def test_copying_copies_the_code(page, provider):
    code = "def a(b: str = 'c') -> int:  # <d>\n\treturn f\"{b}\""
    provider.script = [reply(fenced("python", code) + "\n\nEnd")]
    page.say("Code")
    page.wait(lambda: page.texts(".token-keyword"))
    page.driver.execute_script(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    )
    page.find("figcaption button").click()
    page.wait_for_text("Copied", "figcaption")
    assert page.run("window.copied") == code


def test_the_copy_button_stays_in_view_in_a_long_block(page, provider):
    provider.script = [reply("Before\n\n" + fenced("python", LONG[:20_000]) + "\n\nBehind")]
    page.say("Code")
    page.wait_for_text("tokens read", "article:last-child")
    for share in (0.1, 0.5, 0.9):
        page.driver.execute_script(
            """
            const log = document.getElementById("thread");
            log.scrollTop = log.scrollHeight * arguments[0];
            """,
            share,
        )
        in_sight = """(() => {
            const [log, button] = ["#thread", "figcaption button"].map((each) => document.querySelector(each).getBoundingClientRect());
            const seen = document.elementFromPoint(button.left + 5, button.top + 5);
            return button.top >= log.top && button.bottom < log.top + 60 && seen.matches("figcaption button");
        })()"""
        page.wait(lambda: page.run(in_sight))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_each_colour_has_enough_contrast(page, colours):
    """4.5 to 1, on the background of code."""
    media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    script = """
        const kinds = ["comment", "keyword", "string", "number", "name", "property", "deleted"];
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
        const light = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
            const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const pre = document.createElement("pre");
        document.body.append(pre);
        const ground = light(getComputedStyle(pre).backgroundColor);
        return kinds.map((kind) => {
            const span = Object.assign(document.createElement("span"), { className: `token-${kind}` });
            pre.append(span);
            const levels = [ground, light(getComputedStyle(span).color)].sort((a, b) => b - a);
            return (levels[0] + 0.05) / (levels[1] + 0.05);
        });
    """
    ratios = page.driver.execute_script(script)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(ratios) == 7 and min(ratios) >= 4.5, ratios
