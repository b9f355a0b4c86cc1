"""tools/kill compares one kill of four programs. Here it kills Parley; the others have to be installed,
and are run by hand."""

import json

import pytest

import programs
from documents import TEXTS
from killing import Seen, kill_once, what_was_seen
from stub import Call
from words import WORDS, Counted, count

REPLY = [f"word{number} " for number in range(1, WORDS + 1)]


@pytest.mark.parametrize(
    "text, counted",
    [
        ("".join(REPLY), Counted(WORDS, 0, 0)),
        ("".join(REPLY[:15] + REPLY), Counted(WORDS - 15, 15, 0)),
        ("".join(REPLY[:3] + REPLY[:2] + REPLY[:2]), Counted(1, 2, WORDS - 3)),
        ("".join(REPLY).replace("word7 ", ""), Counted(WORDS - 1, 0, 1)),
        ("", Counted(0, 0, WORDS)),
    ],
    ids=["each once", "begun again", "begun twice", "one is missing", "nothing came"],
)
def test_words_that_come_twice_or_never_are_counted(text, counted):
    assert count(text) == counted


def seen_after_a_kill_at_10(prompt, *texts):
    """The second call comes after 11 seconds, with this prompt. `texts`: (seconds, the last word)."""
    first, second = Call([]), Call([{"role": "assistant", "content": prompt}])
    first.at, second.at = 0, 11
    return what_was_seen(
        [first, second], [(at, "".join(REPLY[:last])) for at, last in texts], killed=10
    )


def test_a_word_that_was_on_its_way_or_stored_is_not_the_next_one():
    seen = seen_after_a_kill_at_10("word1 word2 word3", (9, 1), (10.1, 2), (12, 3), (13, 4))
    assert seen == Seen(Counted(4, 0, WORDS - 4), seconds=3, sent=3)


def test_a_word_that_comes_again_is_not_the_next_one():
    seen = seen_after_a_kill_at_10("", (9, 2), (12, 1), (13, 2), (14, 3))
    assert (seen.seconds, seen.sent) == (4, 0)


def test_parleys_reader_gets_each_word_once():
    name, seen = kill_once(programs.parley)
    assert (name, seen.counted) == ("Parley", Counted(WORDS, 0, 0))
    assert seen.sent > 0


def test_the_decisions_have_the_versions_that_are_pinned():
    """Another version is another experiment: run it again, and change the table and its date."""
    rows = TEXTS["docs/decisions.md"].splitlines()
    for name in (programs.FLUE, programs.DBOS, programs.PYDANTIC_AI):
        assert [row for row in rows if row.startswith(f"| {name} | ")], name
    lock = json.loads((programs.HERE / "flue" / "package-lock.json").read_text("utf-8"))
    for name, version in programs.FROM_NPM.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
