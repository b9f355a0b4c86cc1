"""How a text is broken into the rows of a terminal."""

import pytest

from painted import seen, texts, written
from terminal.rows import Rows, width_of


def rows_of(text, columns):
    whole = seen(written(text, columns), columns)
    assert seen(written(text, columns, range(len(text))), columns) == whole
    return [row.rstrip(" ") for row in whole]


@pytest.mark.parametrize(
    "text, columns, expected",
    [
        ("one two three", 9, ["one two", "three"]),
        ("one two three", 8, ["one two", "three"]),
        ("one two three", 14, ["one two three"]),
        ("one two three", 13, ["one two", "three"]),  # the last column stays empty
        ("one two   three", 10, ["one two", "three"]),
        ("  one two three", 10, ["  one two", "three"]),
        ("a-b/c_d.efg", 5, ["a-b/c", "_d.ef", "g"]),  # the terminal itself breaks a word
        ("see https://example.com/a b", 12, ["see", "https://exam", "ple.com/a b"]),
        ("no\xa0break here", 10, ["no\xa0break", "here"]),
        ("one\n\ntwo", 9, ["one", "", "two"]),
        ("```\none two three\n```", 5, ["```", "one t", "wo th", "ree", "```"]),
        ("| one | two |\n|---|---|", 9, ["| one | t", "wo |", "|---|---|"]),
        ("one\ttwo\tthree", 14, ["one     two", "three"]),
        ("one two", 1, list("onetwo")),
    ],
)
def test_a_line_is_broken_between_words(text, columns, expected):
    assert rows_of(text, columns) == expected


@pytest.mark.parametrize(
    "text, columns, expected",
    [
        ("漢字かな漢字", 6, ["漢字", "かな", "漢字"]),
        ("漢字かな漢字", 9, ["漢字かな", "漢字"]),
        ("ab漢字cd", 7, ["ab漢字", "cd"]),
        ("one 漢字two 字", 10, ["one 漢字", "two 字"]),
        ("👍👍👍", 6, ["👍👍", "👍"]),
        ("e\u0301e\u0301 a", 4, ["e\u0301e\u0301", "a"]),
    ],
)
def test_characters_have_their_widths(text, columns, expected):
    assert rows_of(text, columns) == expected


@pytest.mark.parametrize(
    "text, width",
    [
        ("abc", 3),
        ("漢字", 4),
        ("ｱ", 1),
        ("Ａ", 2),
        ("é", 1),
        ("e\u0301", 1),
        ("👋", 2),
        ("❤", 1),
        ("❤\ufe0f", 2),
        ("🇩🇪", 2),
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),  # the same in three letters
        ("a\u200bb", 2),
    ],
)
def test_the_width_of_a_text(text, width):
    assert width_of(text) == width


def test_a_word_is_written_as_it_comes_and_moved_if_it_does_not_fit():
    rows = Rows(lambda: (9, 24))
    pieces = "one", " tw", "o t", "hree", " four", "\n"
    assert [rows.add(piece) for piece in pieces] == [
        "one",
        " tw",
        "o \nt",
        "hree",
        " fo\x1b[2D\x1b[K\nfour",
        "\n",
    ]


def test_a_word_is_not_moved_if_the_terminal_is_resized_while_it_comes():
    widths = iter([20, 9, 9, 9])
    rows = Rows(lambda: (next(widths), 24))
    assert rows.add("one two thr") + rows.add("eeeeeeee") == "one two threeeeeeee"
    assert rows.add(" four") + rows.add(" five") == " four f\x1b[1D\x1b[K\nfive"


def test_output_that_is_no_terminal_gets_the_text_unchanged():
    for text, chance in texts(100, 0):
        cuts = chance.choices(range(len(text) + 1), k=5)
        assert written(text, 0, cuts, is_coloured=False) == text


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_or_doubled(seed):
    """However it is split. A row break replaces blanks."""
    for text, chance in texts(100, seed):
        text = text.replace("\t", " ")  # all terminals agree on its width
        cuts = chance.choices(range(len(text) + 1), k=chance.choice([0, 3, 3 * len(text)]))
        columns = chance.choice([5, 20, 40, 80])
        shown = seen(written(text, columns, cuts), columns)
        assert "".join("".join(shown).split()) == "".join(text.split()), (text, cuts, columns)


@pytest.mark.parametrize("seed", range(10))
def test_words_stay_whole(seed):
    for text, chance in texts(100, seed):
        text = " ".join(
            word[:10] for word in text.split() if word.isascii() and word[0] not in "`~|"
        )
        columns = chance.choice([20, 40, 80])
        shown = seen(written(text, columns, range(len(text))), columns)
        assert " ".join(shown).split() == text.split()
        assert max(map(len, shown)) < columns, text
