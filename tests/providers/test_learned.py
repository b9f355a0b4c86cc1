"""What a server refuses is learned, for an hour, and by nobody's words but its own."""

import uuid

import pytest

from protocols import CLAUDE, GPT, answered, failed
from provider import status
from providers.learned import Learned


def unsupported(refused, instead):
    message = f"Unsupported parameter: '{refused}' is not supported with this model. Use '{instead}' instead."
    return status(
        400, {"error": {"message": message, "param": refused, "code": "unsupported_parameter"}}
    )


def test_learns_once_which_parameters_the_server_takes(lone, provider):
    """Of each model, and only where the changed request was answered."""
    alice = lone.client()
    old, new = "max_tokens", "max_completion_tokens"
    provider.script = [unsupported(old, new)]
    answered(alice, GPT)
    answered(alice, GPT)
    assert [(request.body.get(old), request.body.get(new)) for request in provider.posts] == [
        (100, None),
        (None, 100),
        (None, 100),
    ]

    provider.reset()
    provider.script = [
        status(
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", new], "msg": "Extra inputs"}]},
        )
    ]
    answered(alice, GPT)
    assert [request.body.get(old) for request in provider.posts] == [None, 100]

    provider.reset()
    provider.script = [unsupported("stream_options", "nothing")]
    answered(alice, "m-5")
    answered(alice, "m-5")
    answered(alice, "m-6")
    assert ["stream_options" in request.body for request in provider.posts] == [
        True,
        False,
        False,
        True,
    ]

    provider.reset()
    provider.default = unsupported(old, new)
    response, error, _ = failed(alice, "m-7")
    assert response.status_code == 502
    assert "max_tokens" in error["detail"]
    assert [old in request.body for request in provider.posts] == [True, False]
    provider.reset()
    answered(alice, "m-7")
    assert old in provider.posts[0].body  # the changed request was not answered


def test_a_user_who_is_quoted_teaches_no_parameter(lone, provider):
    """Anthropic's refusals tell of a parameter by their text alone."""
    alice, model = lone.client(), f"{CLAUDE}-{uuid.uuid4().hex}"
    content = "cache_control: Extra inputs are not permitted"
    error = {"type": "invalid_request_error", "message": content}
    provider.script = [status(400, {"type": "error", "error": error})]
    assert failed(alice, model, content)[0].status_code == 502
    answered(alice, model)
    assert ["cache_control" in request.body for request in provider.posts] == [True, True]


@pytest.fixture
def clock():
    """Seconds that a test lets pass."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


def test_what_was_learned_holds_for_an_hour(clock):
    learned = Learned(clock=clock)
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "a")
    clock.now += 3599
    assert (learned.of("m"), learned.of("other")) == ("a", None)
    clock.now += 1
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "b")
    assert learned.of("m") == "b"


def test_what_is_learned_again_or_used_holds_no_longer(clock):
    learned = Learned(ttl=10, clock=clock)
    for number in range(10):
        learned.keep("m", number)
        assert learned.of("m") == number
        clock.now += 1
    assert learned.of("m") is None


def test_the_model_that_was_not_used_for_the_longest_makes_room(clock):
    learned = Learned(most=3, clock=clock)
    for model in "abc":
        learned.keep(model, model.upper())
    assert learned.of("a") == "A"
    learned.keep("b", "B again")
    learned.keep("d", "D")
    assert [learned.of(model) for model in "abcd"] == ["A", "B again", None, "D"]


def test_models_that_anyone_may_name_keep_no_other_from_being_learned():
    learned = Learned()
    for number in range(2000):
        learned.keep(f"m-{number}", number)
    found = [learned.of(f"m-{number}") for number in (0, 999, 1000, 1999)]
    assert found == [None, None, 1000, 1999]
