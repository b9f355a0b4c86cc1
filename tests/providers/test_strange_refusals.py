"""Strange providers: what a refusal teaches, and what it does not."""

import pytest

from hell_answers import ANSWER, refusal, resolve
from hellish import open_pit
from protocols import GPT, counts
from provider import head

OLD, NEW, USAGE = "max_tokens", "max_completion_tokens", "stream_options"


WORDS = f"{USAGE} {OLD} {NEW}"


def unsupported(param, code="unsupported_parameter", message="Unsupported parameter: 'x'."):
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


def forbidden(*loc, kind="extra_forbidden", given="x"):
    return [{"type": kind, "loc": loc, "msg": "Extra inputs are not permitted", "input": given}]


LESSONS = {  # a refusal, and which of these three parameters a request has afterwards
    "openai, the old name": (400, unsupported(OLD), {NEW, USAGE}),
    "openai, usage": (400, unsupported(USAGE, "unknown_parameter"), {OLD}),
    "fastapi, usage": (422, {"detail": forbidden("body", USAGE)}, {OLD}),
    "fastapi, the old name": (422, {"detail": forbidden("body", OLD)}, {NEW, USAGE}),
    "mistral, usage": (
        422,
        {"object": "error", "message": {"detail": forbidden("body", USAGE)}, "param": None},
        {OLD},
    ),
    "mistral of today": (
        422,
        {
            "object": "Error",
            "detail": forbidden("body", USAGE),
            "message": forbidden("body", USAGE),
            "code": 3001,
        },
        {OLD},
    ),
    "vllm": (
        400,
        {
            "object": "error",
            "message": str(forbidden("body", USAGE)),
            "detail": forbidden("body", USAGE),
        },
        {OLD},
    ),
    "both, one after the other": (
        422,
        {"detail": [*forbidden("body", USAGE), *forbidden("body", OLD)]},
        None,
    ),
    "transformers": (
        400,
        {"detail": f"Server is pinned to 'x'; requested '{WORDS}'."},
        {OLD, USAGE},
    ),
    "a text": (400, {"error": f"Unsupported parameter: {WORDS}"}, {OLD, USAGE}),
    "a message": (
        400,
        {"error": {"message": f"Unknown parameter: '{USAGE}'. Use '{NEW}' in place of '{OLD}'."}},
        {OLD, USAGE},
    ),
    "a message with a code": (400, unsupported(None, message=WORDS), {OLD, USAGE}),
    "a message about another": (
        400,
        unsupported("temperature", message=f"Use {WORDS}."),
        {OLD, USAGE},
    ),
    "a value": (400, unsupported(OLD, "invalid_value"), {OLD, USAGE}),
    "a parameter without a code": (400, unsupported(USAGE, None), {OLD, USAGE}),
    "another code": (400, unsupported(USAGE, "unknown_model"), {OLD, USAGE}),
    "parameters of odd types": (400, unsupported([USAGE], ["unknown_parameter"]), {OLD, USAGE}),
    "pydantic's input": (
        422,
        {"detail": forbidden("body", "messages", 0, kind="string_type", given=WORDS)},
        {OLD, USAGE},
    ),
    "another type": (422, {"detail": forbidden("body", USAGE, kind="missing")}, {OLD, USAGE}),
    "another place": (422, {"detail": forbidden("body", "messages", 0, USAGE)}, {OLD, USAGE}),
    "odd places": (422, {"detail": forbidden(["body"], {USAGE: 1}, None)}, {OLD, USAGE}),
    "no place": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": USAGE}, USAGE, 5, None]},
        {OLD, USAGE},
    ),
}


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    with open_pit(tmp_path_factory.mktemp("school")) as pit:
        yield pit


def parameters(pit, model):
    return [{OLD, NEW, USAGE} & set(body) for body in pit.hell.bodies(model)]


@pytest.mark.parametrize("code, body, learnt", LESSONS.values(), ids=LESSONS)
def test_a_refusal_teaches_by_its_structure_alone(school, request, code, body, learnt):
    """And only for its own model."""
    model, first = request.node.callspec.id, {OLD, USAGE}
    answers = [list(resolve(part, GPT)) for part in (refusal(code, body), (head(), ANSWER))]
    outcome = school.ask(model, answers)
    school.ask(model, answers)
    school.ask(f"another than {model}", answers[1:])
    assert parameters(school, f"another than {model}") == [first]
    if learnt == first:
        assert outcome.response.status_code in (400, 502)
        assert parameters(school, model) == [first, first]
    else:
        assert outcome.response.status_code == 201
        assert outcome.turn["usage"] == counts(15, 7, 3)
        *_, second, third = parameters(school, model)
        assert second == third == ({NEW} if learnt is None else learnt)


def test_a_change_that_is_refused_too_teaches_nothing(school):
    refused = [list(resolve(refusal(400, unsupported(name)), GPT)) for name in (OLD, NEW)]
    for again in (False, True):
        outcome = school.ask(f"stubborn {again}", [*refused, refused[1]])
        assert outcome.response.status_code == 502
    model = "stubborn"
    school.ask(model, [*refused, list(resolve((head(), ANSWER), GPT))])
    school.ask(model, [list(resolve((head(), ANSWER), GPT))])
    assert OLD in parameters(school, "stubborn True")[0]
    assert OLD in parameters(school, model)[-1]


def test_the_changed_request_does_not_count_as_one_of_three_tries(school):
    parts = [refusal(400, unsupported(OLD)), refusal(500), refusal(500), (head(), ANSWER)]
    outcome = school.ask("patient", [list(resolve(part, GPT)) for part in parts])
    assert (outcome.response.status_code, outcome.tries) == (201, 4)


def test_a_quoted_model_name_changes_no_other_requests(school):
    """A server pinned to one model quotes the name that was requested."""
    quoted = {"detail": f"Server is pinned to 'x'; requested '{WORDS}'."}
    assert school.ask(WORDS, [list(resolve(refusal(400, quoted), GPT))]).response.status_code in (
        400,
        502,
    )
    assert parameters(school, WORDS) == [{OLD, USAGE}]
    outcome = school.ask("of somebody else", [list(resolve((head(), ANSWER), GPT))])
    assert parameters(school, "of somebody else") == [{OLD, USAGE}]
    assert outcome.turn["usage"] == counts(15, 7, 3)
