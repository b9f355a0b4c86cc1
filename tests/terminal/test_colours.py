"""The colours of code in a terminal, and when there are any. Modules: `terminal/reply_text.py`."""

import itertools
import re
import subprocess
import sys

import pygments.lexers
import pytest
from pygments.lexer import Lexer

from painted import plain, seen, styles_of, texts, written
from product import ROOT
from provider import reply
from terminal import colours
from terminal.reply_text import ReplyText
from terminal.rows import Rows
from tmux import LACKS_TMUX, NARROW, WIDE, unbroken

DIM, RED, GREEN, MAGENTA, CYAN = "2", "31", "32", "35", "36"
CODE = {  # for each language, which words have which colour
    "python": [
        ("def f(x):\n", ("def", MAGENTA)),
        ('    """A text\n', ('"""A text', GREEN)),
        ('    of two lines."""\n', ('of two lines."""', GREEN)),
        ("    return len(x) + 12  # end\n", ("return", MAGENTA), ("len", CYAN), ("12", CYAN)),
        ("# a comment\n", ("# a comment", DIM)),
    ],
    "js": [
        ("/** A comment\n", ("/** A comment", DIM)),
        (" * of several lines. */\n", ("* of several lines. */", DIM)),
        ('const a = "it\'s text"; // end\n', ("const", MAGENTA), ('"it\'s text"', GREEN)),
    ],
    "html": [("<!-- a\n", ("<!-- a", DIM)), ("b --><p class='c'>d</p>\n", ("p", MAGENTA))],
    "diff": [("- old\n", ("- old", RED)), ("+ new\n", ("+ new", GREEN))],
    "json": [('{"a": [1.5, true]}\n', ("1.5", CYAN), ("true", MAGENTA))],
    "C++": [("int main() { return 0; }\n", ("int", MAGENTA), ("return", MAGENTA))],
    "": [("def f(x): return 'x'\n",)],
    "no-such-language": [("def f(x): return 'x'\n",)],
}


@pytest.mark.parametrize("language", CODE)
def test_code_has_the_colours_of_its_language(language):
    text = f"```{language}\n{''.join(line for line, *_ in CODE[language])}```\n"
    expected = [look for _, *looks in CODE[language] for look in looks]
    for cuts in ((), [place.end() for place in re.finditer("\n", text)], range(len(text))):
        shown = written(text, 20, cuts)
        assert seen(shown, 20) == seen(text, 20)
        parts = styles_of(shown)
        assert set(expected) <= set(parts), cuts
    assert expected or not parts


@pytest.mark.parametrize("columns", [20, 80])
def test_a_line_gets_its_colours_when_it_is_complete(columns):
    line = "x = 12  # a comment that is longer than a row of twenty columns"
    before, after = "```python\nx = 1\n", f"\n{line}\n```"
    shown = written(before + line, columns, range(len(before), len(before) + len(line)))
    assert ("12", CYAN) not in styles_of(shown)
    shown = written(before + line + after, columns, range(200))
    assert ("12", CYAN) in styles_of(shown)
    assert seen(shown, columns) == seen(before + line + after, columns)


def test_text_beside_a_line_of_code_is_not_touched():
    """A reply that is continued in the middle of a line has its beginning elsewhere."""
    rows = Rows(lambda: (80, 24))
    text = ReplyText(rows, True, "```python\nx = ").add("12\ny = 3\n")
    assert text.startswith("12\n") and seen(text, 80) == ["12", "y = 3", ""]
    columns = 80
    reply_text = ReplyText(Rows(lambda: (columns, 24)), True)
    text = reply_text.add("```python\nx = 1")
    columns = 90
    text += reply_text.add("2\ny = 3\n")
    assert "x = 12\n" in text and styles_of(text) == [("3", CYAN)]


def test_a_line_with_more_rows_than_the_terminal_gets_no_colours():
    text = f"```python\nx = '{'y' * 80 * 40}'\n```"
    assert not styles_of(written(text, 80, [20]))


def test_a_long_block_has_colours_at_its_beginning():
    lines = [f'def f{number}():\n    return "{number}"\n\n\n' for number in range(500)]
    text = f"```python\n{''.join(lines)}```\n```python\n1\n```"
    shown = written(text, 80, range(0, len(text), 1000))
    assert seen(shown, 80) == seen(text, 80)
    assert ('"1"', GREEN) in styles_of(shown) and ('"499"', GREEN) not in styles_of(shown)
    assert styles_of(shown)[-1] == ("1", CYAN)


class Mistaken(Lexer):
    def get_tokens_unprocessed(self, text):
        yield 0, pygments.token.Keyword, "something else"


class Broken(Lexer):
    def get_tokens_unprocessed(self, text):
        raise IndexError


@pytest.mark.parametrize("lexer", [Mistaken, Broken])
def test_a_bug_in_a_lexer_loses_no_text(lexer, monkeypatch):
    monkeypatch.setattr(colours, "lexer_of", lambda language: lexer())
    text = "```python\none two\nthree\n```\nfour"
    for cuts in ((), range(len(text))):
        assert written(text, 80, cuts) == text


@pytest.mark.parametrize("seed", range(5))
def test_colours_change_nothing_else(seed):
    for text, chance in texts(50, seed):
        cuts = chance.choices(range(len(text) + 1), k=chance.choice([0, 3, 3 * len(text)]))
        columns = chance.choice([20, 40, 80])
        plainly = written(text, columns, cuts, is_coloured=False)
        assert seen(written(text, columns, cuts), columns) == seen(plainly, columns), (text, cuts)


def test_only_code_loads_pygments():
    run = "import sys, painted; painted.written('# a `b`'); print('pygments' in sys.modules)"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"}
    done = subprocess.run([sys.executable, "-c", run], env=path, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


REPLY = 'A **bold** word\n```python\nx = "text"\n```\n'


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"TERM": ""}, {"TERM": "xterm", "NO_COLOR": "1"}],
    ids=["a dumb terminal", "an unknown one", "NO_COLOR"],
)
def test_a_dumb_terminal_and_no_color_get_no_colours(environment, terminal, provider):
    provider.script = [reply(*REPLY)]
    chat = terminal("Hello", **environment)
    assert chat.wait_for_end() == 0
    assert chat.screen == REPLY.replace("\n", "\r\n")


def test_there_are_colours_on_a_terminal(terminal, provider):
    provider.script = [reply(REPLY)]
    chat = terminal("Hello", TERM="xterm", NO_COLOR="")
    assert chat.wait_for_end() == 0
    assert plain(chat.screen) == REPLY.replace("\n", "\r\n")
    assert ('"text"', GREEN) in styles_of(chat.screen)


def test_piped_output_is_the_text_of_the_reply(run, provider):
    words = " ".join(["word"] * 100)
    provider.script = [reply(*f"{REPLY}{words}  \n\n")]
    assert run("Hello", TERM="xterm").stdout == f"{REPLY}{words}  \n\n"


def test_code_cannot_control_the_terminal_either(terminal, provider):
    odd = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e\r\x08"
    text = (
        f"{odd}# a {odd} `b{odd}` [c{odd}](d{odd})\n```python {odd}\n{odd}x = '{odd}'\n```{odd}\n"
    )
    provider.script = [reply(*text)]
    chat = terminal("Hello", TERM="xterm")
    assert chat.wait_for_end() == 0
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", plain(chat.screen))
    # The only escape sequences left are colours; another test is about these.
    assert set(re.findall("\x1b.", chat.screen)) <= {"\x1b["}
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
    # A line that the terminal itself breaks is copied whole.
    wholes = [line for line in TALK.splitlines() if line.startswith(("    ", "|"))]
    assert [line for line in said.splitlines() if line in wholes] == wholes
    assert "https://example.com/a/long/address/that/is/longer/than/a/narrow/terminal" in said
    assert (TALK.splitlines()[4] in said) == (columns == WIDE)
    if columns == NARROW:
        assert "that it takes several rows, **with bold\nwords** in them\n- 漢字" in said
        assert "折\nり返される必要があります。「引用」も、\nそして句読点も。" in said
    assert "35mreturn" in chat.screen("-e")  # on two rows if it is narrow


@LACKS_TMUX
def test_a_resized_terminal_shows_each_word_once(tmux, provider):
    words = [f"word{number} " for number in range(70)] + ["\n\n```python\n"]
    words += [piece for number in range(40) for piece in (f"x{number} = ", f"{number}\n")]
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
