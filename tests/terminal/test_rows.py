"""How a text is broken into the rows of a terminal."""

import pytest

from painted import painted, plain, texts
from terminal.rows import Part, Rows, width_of


def rows_of(text, columns):
    return painted(text, columns, is_coloured=False).split("\n")


@pytest.mark.parametrize(
    "text, columns, expected",
    [
        ("one two three", 9, ["one two ", "three"]),
        ("one two three", 8, ["one two ", "three"]),
        ("one two three", 7, ["one two", "three"]),  # there is no room for the blank
        ("one two   three", 9, ["one two  ", "three"]),
        ("  one two three", 9, ["  one two", "  three"]),  # as deep as the line
        ("a-b/c_d.e", 5, ["a-b/c_d.e"]),  # a word that is longer is the terminal's
        ("see https://example.com/a", 10, ["see ", "https://example.com/a"]),
        ("no\xa0break here", 9, ["no\xa0break ", "here"]),
        ("one\n\ntwo", 9, ["one", "", "two"]),
        ("- one two three", 9, ["- one two", "  three"]),
        ("10. one two", 8, ["10. one ", "    two"]),
        ("- [x] one two", 12, ["- [x] one ", "      two"]),
        ("  - one two", 8, ["  - one ", "    two"]),
        ("> one two three", 10, ["> one two ", "  three"]),
        ("> - one two", 9, ["> - one ", "    two"]),
        ("## one two", 8, ["## one ", "two"]),
        ("- one two", 3, ["- ", "one", "two"]),  # there is no room to indent
        ("```\none two three\n```", 5, ["```", "one two three", "```"]),
        ("| one | two |\n|---|---|", 5, ["| one | two |", "|---|---|"]),
        ("one two", 0, ["one two"]),  # a terminal that does not say
    ],
)
def test_a_line_is_broken_between_words(text, columns, expected):
    assert rows_of(text, columns) == expected


@pytest.mark.parametrize(
    "text, columns, expected",
    [
        ("漢字かな漢字", 5, ["漢字", "かな", "漢字"]),
        ("漢字かな漢字", 8, ["漢字かな", "漢字"]),
        ("漢字、かな。", 4, ["漢", "字、", "か", "な。"]),  # no row begins with a point
        ("「漢字」かな", 6, ["「漢", "字」か", "な"]),  # and none ends with an opening quote
        ("ab漢字cd", 4, ["ab漢", "字cd"]),
        ("**漢字**かな", 6, ["**漢", "字**か", "な"]),
        ("한국어 단어", 8, ["한국어 ", "단어"]),
        ("a 한국어단어 둘", 10, ["a ", "한국어단어", "둘"]),
        ("👍🏽👍🏽", 5, ["👍🏽", "👍🏽"]),  # an emoji is not broken
        ("👩‍👧 👩‍👧", 5, ["👩‍👧 ", "👩‍👧"]),
        ("e\u0301e\u0301 a", 3, ["e\u0301e\u0301 ", "a"]),
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
        ("⭐\ufe0f", 2),
        ("🇩🇪", 2),
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),  # the same of three letters
        ("a\u200bb", 2),
    ],
)
def test_the_width_of_a_text(text, width):
    assert width_of(text) == width


def test_a_word_is_held_back_until_it_has_come():
    rows = Rows(lambda: 9, False)
    assert [rows.add(Part(text)) for text in ("one", " two", " thr", "ee", "\n")] == [
        "",
        "one ",
        "two ",
        "",
        "\nthree\n",
    ]


def test_what_is_flushed_goes_on_in_its_row():
    rows = Rows(lambda: 9, False)
    assert rows.add(Part("one tw")) + rows.flush() == "one tw"
    assert rows.add(Part("o")) + rows.flush() == "o"
    assert rows.add(Part(" [stopped]\n")) == " \n[stopped]\n"


def test_a_row_that_was_full_ends_there_though_the_terminal_has_grown():
    widths = iter([7, 20])
    rows = Rows(lambda: next(widths), False)
    assert rows.add(Part("one two ")) + rows.add(Part("three\n")) == "one two\nthree\n"


def test_a_style_does_not_reach_the_indentation_of_a_row():
    rows = Rows(lambda: 8, True)
    written = rows.add(Part("- ", "", 2)) + rows.add(Part("one two", "4", 2)) + rows.flush()
    assert written == "- \x1b[0;4mone \x1b[0m\n  \x1b[0;4mtwo\x1b[0m"


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_or_doubled(seed):
    """However it is cut, and though the terminal is resized meanwhile. A break takes the place of blanks."""
    for text, chance in texts(100, seed):
        cuts = chance.choices(range(len(text) + 1), k=chance.choice([0, 3, 3 * len(text)]))
        columns = chance.choice([0, 1, 5, 20, 40, 80])
        resized = chance.choice([columns, lambda: chance.choice([0, 3, 20, 40])])
        written = plain(painted(text, resized, cuts, chance.random() < 0.7))
        assert "".join(written.split()) == "".join(text.split()), (text, cuts)


@pytest.mark.parametrize("seed", range(10))
def test_it_does_not_matter_how_a_text_is_cut(seed):
    for text, chance in texts(100, seed):
        columns = chance.choice([0, 1, 5, 20, 40, 80])
        whole = plain(painted(text, columns))
        assert whole == plain(painted(text, columns, range(len(text)))), text
        cuts = chance.choices(range(len(text) + 1), k=5)
        assert whole == plain(painted(text, columns, cuts)), (text, cuts)


@pytest.mark.parametrize("seed", range(10))
def test_words_stay_whole_and_rows_are_no_wider_than_the_terminal(seed):
    for text, chance in texts(100, seed):
        text = " ".join(
            word[:10] for word in text.split() if word.isascii() and word[0] not in "`~|"
        )
        columns = chance.choice([20, 40, 80])
        rows = plain(painted(text, columns, range(len(text)))).split("\n")
        assert " ".join(rows).split() == text.split()
        assert max(map(len, rows)) <= columns, text
