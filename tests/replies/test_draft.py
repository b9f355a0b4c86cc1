"""How a reply ends that has nothing more, how the ledger counts it, and what is estimated."""

import contextlib
import types

import pytest

from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Session, Turn, outcome_of
from replies.draft import Draft
from replies.reply import Reply, count_usage
from tables.ledger import MOST_TOKENS, TOKENS, estimate

SESSION = Session(owner="alice", updated_at=0)
NOTHING = dict.fromkeys(TOKENS) | {"estimated_tokens": 0}


def draft_of(content="Half", base=0, **columns):
    turn = Turn(id=1, session=SESSION, status=IN_PROGRESS, content=content, model="m-1", **columns)
    return Draft(turn, turn.usage, base)


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({}, outcome_of(INTERRUPTED)),
        ({"base": 2, "stop_reason": "length"}, outcome_of(INTERRUPTED)),
        ({"base": 4}, outcome_of(INTERRUPTED) | {"continued": 1}),
        (
            {"base": 4, "stop_reason": "length"},
            outcome_of(COMPLETE, stop_reason="length") | {"continued": 1},
        ),
        (
            {"base": 4, "error_status": 502, "error_message": "It broke."},
            outcome_of(FAILED, 502, "It broke.") | {"continued": 1},
        ),
        (
            {"base": 4, "error_status": 502, "error_message": "It broke.", "cancelled": True},
            outcome_of(INTERRUPTED) | {"continued": 1},
        ),
    ],
)
def test_a_reply_to_which_nothing_comes_ends_as_it_had(columns, expected):
    assert draft_of(continued=4, restarts=2, **columns).fallback() == expected


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({}, INTERRUPTED),
        ({"base": 4}, FAILED),
        ({"base": 4, "cancelled": True}, INTERRUPTED),
        ({"base": 2}, INTERRUPTED),
    ],
)
def test_what_a_reply_under_way_counts_as(columns, expected):
    assert draft_of(**columns).outcome == expected


@pytest.mark.parametrize("status", [COMPLETE, FAILED, INTERRUPTED])
def test_what_an_ended_reply_counts_as(status):
    draft = draft_of(base=2)
    draft.set(status=status)
    assert draft.outcome == status


@pytest.mark.parametrize("size, tokens", [(-5, 0), (0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_an_estimate_is_a_token_for_four_bytes(size, tokens):
    assert estimate(size) == tokens


def test_what_a_dead_process_has_not_counted_is_estimated_once():
    draft = draft_of("Wörd", uncounted=35, estimated_tokens=2)
    draft.estimate_rest()
    assert (draft.turn.estimated_tokens, draft.turn.uncounted) == (2 + 10, -5)
    draft.estimate_rest()
    assert draft.turn.estimated_tokens == 12


def answer(uncounted=0, **usage):
    return types.SimpleNamespace(usage=usage, uncounted=lambda: (uncounted, 0))


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
def test_what_answers_used_is_added_up(before, counted, answers, over, expected):
    draft = draft_of()
    draft.counted = NOTHING | counted
    count_usage(draft, NOTHING | before, answers, over)
    assert draft.turn.usage == NOTHING | {"estimated_tokens": 0} | expected


def test_the_ledger_gets_what_it_lacks():
    draft = draft_of(input_tokens=10, output_tokens=4, estimated_tokens=1)
    draft.counted = NOTHING | {"input_tokens": 7}
    entry = draft.entry_of_end()
    assert (entry.owner, entry.model, entry.outcome) == ("alice", "m-1", INTERRUPTED)
    assert draft.entry() == entry._replace(outcome=None)
    assert dict(zip(TOKENS, entry.tokens, strict=True)) == {
        "input_tokens": 3,
        "output_tokens": 4,
        "cached_tokens": 0,
        "estimated_tokens": 1,
    }


def test_a_name_that_no_provider_knows_is_not_kept():
    assert draft_of(error_status=400).entry().model == "other"
    assert draft_of(error_status=400, input_tokens=1).entry().model == "m-1"


def test_text_that_arrives_after_the_end_is_decided_is_dropped():
    """It is neither counted nor found by a search."""
    reply = Reply(draft_of(""), contextlib.ExitStack(), memory=None)
    reply.arrive("One ")
    reply.finish(outcome_of(INTERRUPTED))
    reply.arrive("two")
    turn = reply.take().ended.turn
    assert (turn.content, turn.search_text) == ("One ", "one ")
