"""What a terminal gets of a text in Markdown that comes in pieces."""

import itertools
import random
import re

from terminal.markdown import Markdown
from terminal.rows import Rows

# Of these, and in any order, texts are made that go wrong if anything does.
ATOMS = """
    word a ** * _ __ ` `` ``` ~~ ~~~ [ ]( ) ( http https://a.b/c_d | - 1. > # --- [x] *bold* \\ ' " /* */ <!--
    漢字 、 。 「 」 👩‍👩‍👧 ❤️ 👍🏽 🇩🇪 é 한국어 கி def JSON
""".split()
ATOMS += [
    "\n",
    "\n\n",
    "\n- ",
    "\n```python\n",
    "\n```\n",
    "\n~~~js\n",
    "\n| a | b |\n|---|---|\n",
    "# ",
]
ATOMS += [" ", " ", " ", "  ", "\t", "\xa0", "\u2028", "e\u0301", "x" * 50, "字" * 50, "`code` "]


def texts(count, seed):
    """So many, with a generator for more of the same chance."""
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(chance.choices(ATOMS, k=chance.randrange(60))), chance


def painted(text, columns=0, cuts=(), is_coloured=True):
    """All that is written of a text that comes in these pieces. `columns` is a number, or a function for a terminal that
    is resized."""
    rows = Rows(columns if callable(columns) else lambda: columns, is_coloured)
    markdown = Markdown(is_coloured)
    places = [0, *sorted(cuts), len(text)]
    parts = [
        part for begin, end in itertools.pairwise(places) for part in markdown.feed(text[begin:end])
    ]
    return "".join(map(rows.add, parts + markdown.flush())) + rows.flush()


def plain(written):
    """The same without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", written)


def styles_of(written):
    """What has a style: pieces of text, with the parameters of SGR that they were given."""
    found = re.findall(r"\x1b\[0;([\d;]+)m([^\x1b]*)", written)
    return [(text, style) for style, text in found if text]
