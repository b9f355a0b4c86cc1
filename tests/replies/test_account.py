"""What a reply has used: counted in the ledger, maybe counted, not counted yet, or estimated."""

import types

import pytest

from models import IN_PROGRESS, INTERRUPTED, Session, Turn
from replies.account import Account
from replies.draft import Draft
from tables.ledger import MOST_TOKENS, TOKENS, estimate

SESSION = Session(owner="alice", updated_at=0)
NOTHING = dict.fromkeys(TOKENS) | {"estimated_tokens": 0}


def turn_of(content="Half", **columns):
    return Turn(id=1, session=SESSION, status=IN_PROGRESS, content=content, model="m-1", **columns)


@pytest.mark.parametrize("size, tokens", [(-5, 0), (0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_an_estimate_is_one_token_per_four_bytes(size, tokens):
    assert estimate(size) == tokens


def test_uncounted_usage_of_a_dead_process_is_estimated_once():
    turn = turn_of("Wörd", unbilled_bytes=35, estimated_tokens=2)
    account = Account(turn)
    account.estimate_rest()
    assert (turn.estimated_tokens, turn.unbilled_bytes) == (2 + 10, -5)
    account.estimate_rest()
    assert turn.estimated_tokens == 12
    assert account.uncounted == [0, 0, 0, 10]
    account.add_up([], finished=[])
    assert turn.estimated_tokens == 12


def answer(sent=0, **usage):
    unbilled = 0 if "input_tokens" in usage else sent
    return types.SimpleNamespace(usage=usage, prompt=sent, unbilled_bytes=lambda: (unbilled, 0))


@pytest.mark.parametrize(
    "before, counted, answers, over, expected",
    [
        ({}, {}, [answer(input_tokens=5)], [], {"input_tokens": 5}),
        ({"input_tokens": 7}, {}, [answer(input_tokens=5)] * 2, [], {"input_tokens": 17}),
        ({}, {"input_tokens": 9}, [answer(input_tokens=5)], [], {"input_tokens": 9}),
        ({}, {}, [answer(40)], [], {}),
        ({"estimated_tokens": 3}, {}, [answer(40)], [answer(40)], {"estimated_tokens": 13}),
        ({}, {}, [answer(input_tokens=2**31)], [], {"input_tokens": MOST_TOKENS}),
    ],
)
def test_the_usage_of_all_answers_is_added_up(before, counted, answers, over, expected):
    account = Account(turn_of(**before))
    account.counted = NOTHING | counted
    account.add_up(answers, over)
    assert account.used == NOTHING | before | expected


def test_the_ledger_gets_only_what_it_lacks():
    draft = Draft(turn_of(input_tokens=10, output_tokens=4, estimated_tokens=1))
    draft.account.counted = NOTHING | {"input_tokens": 7}
    entry = draft.entry_of_end()
    assert (entry.owner, entry.model, entry.outcome) == ("alice", "m-1", INTERRUPTED)
    assert draft.entry() == entry._replace(outcome=None)
    assert dict(zip(TOKENS, entry.tokens, strict=True)) == {
        "input_tokens": 3,
        "output_tokens": 4,
        "cached_tokens": 0,
        "estimated_tokens": 1,
    }


def test_the_example_in_the_docstring_is_right():
    turn = turn_of("")
    account = Account(turn)
    account.add_up([answer(input_tokens=90)], finished=[])
    assert (sum(account.uncounted), account.counted_tokens) == (90, 0)
    account.mark_counted(account.used)
    assert (sum(account.uncounted), account.counted_tokens) == (0, 90)
    account.add_up([answer(input_tokens=90, output_tokens=20)], finished=[])
    account.maybe_counted = account.used
    assert (sum(account.uncounted), account.counted_tokens) == (20, 90)
    account.mark_counted_late(None)
    assert (sum(account.uncounted), account.counted_tokens) == (0, 110)


def test_unbilled_bytes_are_noted_for_a_takeover():
    """Of a call that was sent 40 bytes and has brought four bytes of text."""
    turn = turn_of("Half more")
    account = Account(turn)
    account.note_unbilled(answer(40), "Half more", "Half", is_kept=False)
    assert turn.unbilled_bytes == 36
    counted = answer(40, input_tokens=10, output_tokens=1)
    account.note_unbilled(counted, "Half more", "Half", is_kept=False)
    assert turn.unbilled_bytes == -9
    account.note_unbilled(counted, "Half more", "Half", is_kept=True)
    assert turn.unbilled_bytes == 36


def test_higher_counts_in_the_row_stay():
    account = Account(turn_of(input_tokens=5, estimated_tokens=3))
    account.mark_counted_late(turn_of(input_tokens=9))
    assert account.used == NOTHING | {"input_tokens": 9, "estimated_tokens": 3}
    assert account.uncounted == [0, 0, 0, 3]
