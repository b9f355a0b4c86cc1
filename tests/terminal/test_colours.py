"""The colours of code in a terminal, and where there are colours at all."""

import itertools
import re
import subprocess
import sys

import pygments.lexers
import pytest
from pygments.lexer import Lexer

from painted import painted, plain, styles_of
from product import ROOT
from provider import reply
from terminal import colours
from terminal.colours import BOLD, CYAN, DIM, GREEN, MAGENTA, RED
from tmux import LACKS_TMUX, NARROW, WIDE, unbroken

CODE = {  # of a language, what has which colour
    "python": [
        ("def f(x):\n", ("def", MAGENTA), ("f", BOLD)),
        ('    """A text\n', ('"""A text\n', GREEN)),
        ('    of two lines."""\n', ('of two lines."""', GREEN)),
        ("    return len(x) + 12  # end\n", ("return", MAGENTA), ("len", CYAN), ("12", CYAN)),
        ("# a comment\n", ("# a comment", DIM)),
    ],
    "js": [
        ("/** A comment\n", ("/** A comment\n", DIM)),
        (" * of several lines. */\n", ("* of several lines. */", DIM)),
        ('const a = "it\'s text"; // end\n', ("const", MAGENTA), ('"it\'s text"', GREEN)),
    ],
    "html": [("<!-- a\n", ("<!-- a\n", DIM)), ("b --><p class='c'>d</p>\n", ("p", MAGENTA))],
    "diff": [("- old\n", ("- old", RED)), ("+ new\n", ("+ new", GREEN))],
    "json": [('{"a": [1.5, true]}\n', ("1.5", CYAN), ("true", MAGENTA))],
    "C++": [("int main() { return 0; }\n", ("int", MAGENTA), ("return", MAGENTA))],
    "": [("def f(x): return 'x'\n",)],
    "no-such-language": [("def f(x): return 'x'\n",)],
}


def block(language):
    return f"```{language}\n{''.join(line for line, *_ in CODE[language])}```\n"


@pytest.mark.parametrize("language", CODE)
def test_code_has_the_colours_of_its_language(language):
    text = block(language)
    expected = [look for _, *looks in CODE[language] for look in looks]
    for cuts in ((), [place.end() for place in re.finditer("\n", text)], range(len(text))):
        written = painted(text, 20, cuts)
        assert plain(written) == text
        parts = [(piece.strip(), style) for piece, style in styles_of(written)]
        whole = " ".join(piece for piece, _ in parts)
        for piece, style in expected:
            assert any(
                piece.strip() in "".join(each for each, _ in run) or piece.strip() in whole
                for same, run in itertools.groupby(parts, lambda part: part[1])
                if same == style
            ), (piece, parts)
    assert expected or [style for _, style in styles_of(written)] == [DIM, DIM]


def test_a_long_block_keeps_its_colours():
    """Pygments is shown the end of it only."""
    lines = [f'def f{number}():\n    return "{number}"\n\n\n' for number in range(500)]
    text = f"```python\n{''.join(lines)}```"
    for cuts in ((), range(0, len(text), 1000)):
        written = painted(text, 80, cuts)
        assert plain(written) == text
        numbers = [piece for piece, style in styles_of(written) if style == GREEN]
        assert "".join(numbers) == "".join(f'"{number}"' for number in range(500))


class Mistaken(Lexer):
    def get_tokens_unprocessed(self, text):
        yield 10**6, "Token.Keyword", "x" * 10
        yield -5, "Token.Keyword", text
        raise IndexError


def test_a_lexer_with_a_bug_loses_nothing(monkeypatch):
    monkeypatch.setattr(colours, "lexer_of", lambda language: Mistaken())
    text = "```python\none two\nthree\n```\nfour"
    for cuts in ((), range(len(text))):
        assert plain(painted(text, 80, cuts)) == text


def test_every_language_of_pygments_gives_the_text_as_it_is():
    text = "if (x) { y = 'a' /* b */ }\n# c\n\n  <d e=\"f\">\n1.5 -- g\n"
    for _, names, *_ in pygments.lexers.get_all_lexers(plugins=False):
        if names:
            written = painted(f"```{names[0]}\n{text}```", 80, [30, 45])
            assert plain(written) == f"```{names[0]}\n{text}```", names


def test_a_quick_model_does_not_wait_for_colours():
    code = "x = [1, 2, 3]  # a comment\n" * 300
    text = f"```python\n{code}```"
    run = f"from painted import painted; painted({text!r}, 80, range({len(text)}))"
    timed = f"import time; {run}; print(time.process_time())"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"}
    done = subprocess.run([sys.executable, "-c", timed], env=path, capture_output=True, text=True)
    assert float(done.stdout) < 5, done.stderr


def test_pygments_is_loaded_by_code_alone():
    run = "import sys, app, terminal, painted; painted.painted('# a `b`'); print('pygments' in sys.modules)"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"}
    done = subprocess.run([sys.executable, "-c", run], env=path, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


REPLY = 'A **bold** word\n```python\nx = "text"\n```\n'


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"TERM": ""}, {"TERM": "xterm", "NO_COLOR": "1"}],
    ids=["a dumb terminal", "an unknown one", "NO_COLOR"],
)
def test_there_are_no_colours_where_nobody_wants_them(environment, terminal, provider):
    provider.script = [reply(*REPLY)]
    chat = terminal("Hello", **environment)
    assert chat.wait_for_end() == 0
    assert chat.screen == REPLY.replace("\n", "\r\n")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_there_are_colours_on_a_terminal(terminal, provider):
    provider.script = [reply(*REPLY)]
    chat = terminal("Hello", TERM="xterm", NO_COLOR="")
    assert chat.wait_for_end() == 0
    assert plain(chat.screen) == REPLY.replace("\n", "\r\n")
    assert ("bold", BOLD) in styles_of(chat.screen) and ('"text"', GREEN) in styles_of(chat.screen)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_what_is_piped_on_is_the_text_of_the_reply(run, provider):
    words = " ".join(["word"] * 100)
    provider.script = [reply(*f"{REPLY}{words}  \n\n")]
    assert run("Hello", TERM="xterm").stdout == f"{REPLY}{words}  \n\n"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_what_a_terminal_would_obey_does_not_reach_it_by_code_either(terminal, provider):
    odd = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e\r\x08"
    text = f"{odd}# a {odd} `b{odd}` [c{odd}](d{odd})\n```py{odd}thon\n{odd}x = '{odd}'\n```{odd}\n"
    provider.script = [reply(*text)]
    chat = terminal("Hello", TERM="xterm")
    assert chat.wait_for_end() == 0
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", plain(chat.screen))
    assert set(re.findall("\x1b.", chat.screen)) == {"\x1b["}
    assert "\x1b[31m" not in chat.screen and "]0;title[31m2J# a" in plain(chat.screen)


TALK = """\
# A heading

Some **bold words**, `code`, and a [link](https://example.com/a/long/address/that/is/longer/than/a/narrow/terminal).

- a list whose first entry is so long that it takes several rows, **with bold words** in them
- 漢字かな交じり文は、行の端で正しく折り返される必要があります。「引用」も、そして句読点も。

| name | value |
|------|------:|
| a    | `1`   |

```python
def f(x):
    return f"{x}: a line of code that is longer than the terminal is wide"  # which breaks it
```

The end."""


@LACKS_TMUX
@pytest.mark.parametrize("columns", [WIDE, NARROW])
def test_a_reply_in_a_terminal(columns, tmux, provider):
    provider.script = [reply(*re.findall(r"\s*\S+", TALK))]
    chat = tmux(columns)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    screen = chat.wait_for("The end.\nHello · m-1>")
    said = screen.partition("> Hello\n")[2].removesuffix("\nHello · m-1>")
    assert unbroken(said) == unbroken(TALK)
    # What the terminal breaks by itself is copied whole.
    wholes = [line for line in TALK.splitlines() if line.startswith(("    ", "|"))]
    assert [line for line in said.splitlines() if line in wholes] == wholes
    assert "https://example.com/a/long/address/that/is/longer/than/a/narrow/terminal" in said
    assert (TALK.splitlines()[4] in said) == (columns == WIDE)
    if columns == NARROW:
        assert "it takes several rows, **with\n  bold words** in them\n- 漢字" in said
        assert "折り\n  返される必要があります。「引用」も、そ\n  して句読点も。" in said
    coloured = chat.screen("-e")
    assert "1mA heading" in coloured and "35mdef" in coloured


@LACKS_TMUX
def test_a_terminal_that_is_resized_shows_each_word_once(tmux, provider):
    words = [f"word{number} " for number in range(300)]
    provider.script = [reply(*(part for word in words for part in (word, 0.01)))]
    chat = tmux(WIDE)
    chat.enter("flask chat")
    chat.wait_for("m-1>")
    chat.enter("Hello")
    for columns in itertools.cycle((NARROW, 100, 60, WIDE)):
        chat.tmux("resize-window", "-x", str(columns))
        if chat.screen().endswith("Hello · m-1>"):
            break
    said = chat.screen().partition("> Hello\n")[2].removesuffix("\nHello · m-1>")
    assert said.split() == "".join(words).split()
