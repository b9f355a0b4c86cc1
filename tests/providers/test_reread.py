"""Each word of an answer once, however often the answer is read."""

import pytest

from providers.reread import AnotherAnswer, Reread

TEXT = "One two three four."
BEFORE = "This is what the reply has had so far. "


def read(reread, *pieces, is_whole=True):
    reread.begin()
    new = "".join(reread.add(piece) for piece in pieces)
    return new + reread.end() if is_whole else new


@pytest.mark.parametrize("known", range(len(TEXT) + 1))
@pytest.mark.parametrize("size", [1, 3, len(TEXT)])
def test_what_is_known_is_dropped_wherever_the_pieces_begin(known, size):
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    assert read(Reread("", TEXT[:known]), *pieces) == TEXT[known:]


def test_it_may_break_again_and_again():
    reread = Reread()
    assert read(reread, "One tw", is_whole=False) == "One tw"
    assert read(reread, "One", is_whole=False) == ""
    assert read(reread, "One two t", is_whole=False) == "o t"
    assert read(reread, TEXT) == "hree four."


def test_what_the_model_repeats_is_no_part_of_it():
    assert read(Reread(BEFORE, "One tw"), BEFORE[-30:], "One two three") == "o three"
    assert read(Reread(BEFORE), BEFORE[-30:]) == ""


@pytest.mark.parametrize("pieces", [["One tow"], ["One"], ["Another"], []])
def test_another_answer_or_a_part_of_it_is_noticed(pieces):
    with pytest.raises(AnotherAnswer):
        read(Reread("", "One two"), *pieces)
