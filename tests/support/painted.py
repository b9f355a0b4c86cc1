"""What a terminal shows of a text that comes in pieces."""

import itertools
import random
import re

from terminal.reply_text import ReplyText
from terminal.rows import Rows, width_of

LINES = 30
# Random texts of these show most errors.
ATOMS = """
    word a ** * ` `` ``` ~~ ~~~ [ ]( http https://a.b/c_d | - 1. > # *bold* \\ ' " /* */ <!--
    漢字 、 。 「 」 👍 é 한국어 கி def JSON
""".split()
ATOMS += ["\n", "\n\n", "\n- ", "\n```python\n", "\n```\n", "\n~~~js\n", "\n| a | b |\n|---|---|\n"]
ATOMS += [" ", " ", " ", "  ", "\t", "\xa0", "\u2028", "e\u0301", "x" * 50, "字" * 50, "`code` "]


def texts(count, seed):
    """So many texts, and the random generator, for more."""
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(chance.choices(ATOMS, k=chance.randrange(60))), chance


def written(text, columns=0, cuts=(), is_coloured=True):
    """All that is written of a reply that comes in these pieces."""
    reply = ReplyText(Rows(lambda: (columns, LINES)), is_coloured)
    places = [0, *sorted(cuts), len(text)]
    return "".join(reply.add(text[begin:end]) for begin, end in itertools.pairwise(places))


def plain(written):
    """The output without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", written)


def styles_of(written):
    """The styled pieces of text on one line, with their SGR parameters."""
    parts, style = [], ""
    for parameters, text in re.findall(r"(?:\x1b\[([\d;]+)m)?([^\x1b]*)", written):
        if parameters:
            style = "" if parameters == "39;49;00" else parameters.lstrip("0")
        if parts and text and parts[-1][1] == style:
            parts[-1] = parts[-1][0] + text, style
        elif text:
            parts.append((text, style))
    return [(text.strip(), style) for text, style in parts if style]


def seen(written, columns):
    """The rows that a terminal of so many columns shows after this, as xterm does."""
    rows, row, column = [[]], 0, 0
    for escape, character in re.findall(r"\x1b\[([\d;]*[A-Za-z])|(.)", plain(written), re.DOTALL):
        count = int(escape[:-1] or 1) if escape else 0
        if escape.endswith("D"):
            column = max(0, min(column, columns - 1) - count)
        elif escape.endswith("A"):
            row -= count
            assert row >= 0
        elif escape.endswith("K"):
            del rows[row][column:]
        elif escape.endswith("J"):
            del rows[row][column:], rows[row + 1 :]
        elif character == "\r":
            column = 0
        elif character == "\n":
            row, column = row + 1, 0
        elif character == "\t":
            column = min(column // 8 * 8 + 8, columns - 1)
        elif width := width_of(character):
            if column + width > columns:
                row, column = row + 1, 0
            rows += [[] for _ in range(row + 1 - len(rows))]
            rows[row] += [" "] * (column - len(rows[row]))
            rows[row][column : column + width] = [character] + [""] * (width - 1)
            column += width
        elif column:
            rows[row][column - 1] += character
        rows += [[] for _ in range(row + 1 - len(rows))]
    return ["".join(cells) for cells in rows]
