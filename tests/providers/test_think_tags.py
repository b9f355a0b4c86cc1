"""Thoughts between tags at the beginning of an answer, however it is cut into pieces."""

import itertools

import pytest

from providers.think_tags import ThinkTags


def told(pieces, goes_on=False):
    """(text, thoughts, what turns out to be text at the end) of these pieces."""
    tags = ThinkTags(goes_on)
    pairs = [tags.add(piece) for piece in pieces]
    return (
        "".join(text for text, _ in pairs),
        "".join(thoughts for _, thoughts in pairs),
        tags.rest(),
    )


def cuts_of(text):
    """All ways to cut the text at two places, and character by character."""
    for one, two in itertools.combinations(range(len(text) + 1), 2):
        yield text[:one], text[one:two], text[two:]
    yield tuple(text)


ANSWERS = {
    "<think>Hm.</think>\n\nHello": ("Hello", "Hm.", ""),
    " \n<think>\nHm </thin> ?\n</think>Hello <think>x</think>": (
        "Hello <think>x</think>",
        "\nHm </thin> ?\n",
        "",
    ),
    "<think></think>Hello": ("Hello", "", ""),
    "<think>Hm.</think>": ("", "Hm.", ""),
    "<think>Hm.</think> \n": ("", "Hm.", ""),
    "Hello <think>Hm.</think>": ("Hello <think>Hm.</think>", "", ""),
    "<thinking>Hm.</thinking>": ("<thinking>Hm.</thinking>", "", ""),
    " \n Hello": (" \n Hello", "", ""),
    " <thi": ("", "", " <thi"),
    "": ("", "", ""),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_tags_may_be_cut_anywhere(answer):
    for pieces in cuts_of(answer):
        assert told(pieces) == ANSWERS[answer], pieces


def test_an_answer_whose_tag_is_never_closed_is_all_text():
    answer = " <think>Hm. </thi"
    for pieces in cuts_of(answer):
        text, thoughts, rest = told(pieces)
        assert (text, rest) == ("", answer) and "Hm. ".startswith(thoughts)


@pytest.mark.parametrize(
    "answer, text",
    [
        ("<think>Hm.</think>\n\nlo", "lo"),
        ("<think>Hm.</think>\n\n world", " world"),
        ("<think>Hm.</think>\n    indented", "    indented"),
        ("<think>Hm.</think> world", " world"),
    ],
)
def test_a_continuation_keeps_the_white_space_after_the_last_line_break(answer, text):
    for pieces in cuts_of(answer):
        assert told(pieces, goes_on=True)[0] == text, pieces


def test_endless_white_space_costs_little():
    tags = ThinkTags()
    assert sum(len(tags.add("    ")[0]) for _ in range(100_000)) > 390_000
    tags = ThinkTags(goes_on=True)
    tags.add("<think>Hm.</think>")
    for _ in range(100_000):
        tags.add("    ")
    assert tags.add("x")[0].strip() == "x"
