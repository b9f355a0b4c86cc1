"""How a reply ends if nothing more comes, and what it counts as in the ledger."""

import contextlib

import pytest

from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Session, Turn, outcome_of
from replies.draft import Draft
from replies.reply import Reply

SESSION = Session(owner="alice", updated_at=0)


def draft_of(content="Half", base=0, **columns):
    turn = Turn(id=1, session=SESSION, status=IN_PROGRESS, content=content, model="m-1", **columns)
    turn.base = base
    return Draft(turn)


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
def test_a_reply_without_new_text_ends_as_it_had_before(columns, expected):
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
def test_the_outcome_of_a_reply_in_progress(columns, expected):
    assert draft_of(**columns).outcome == expected


def test_a_model_name_that_no_provider_knows_is_not_kept():
    assert draft_of(error_status=400).entry().model == "other"
    assert draft_of(error_status=400, input_tokens=1).entry().model == "m-1"


def test_text_after_the_end_is_decided_is_dropped():
    """It is neither counted nor found by a search."""
    reply = Reply(draft_of(""), contextlib.ExitStack(), memory=None)
    reply.receive("One ")
    reply.finish(outcome_of(INTERRUPTED))
    reply.receive("two")
    turn = reply.pending().final_draft.turn
    assert (turn.content, turn.search_text) == ("One ", "one ")
