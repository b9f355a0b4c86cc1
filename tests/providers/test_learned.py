"""What refusals teach is kept for an hour, for a limited number of users and models."""

import pytest

from protocols import GPT, answered, failed
from provider import status
from providers.learned import Learned, Lesson


def unsupported(refused, instead):
    message = f"Unsupported parameter: '{refused}' is not supported with this model. Use '{instead}' instead."
    return status(
        400, {"error": {"message": message, "param": refused, "code": "unsupported_parameter"}}
    )


def test_the_parameters_that_a_server_accepts_are_learned_once(lone, provider):
    """For each model, and only if the changed request was answered."""
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
    assert old in provider.posts[0].body  # since the changed request was not answered


@pytest.fixture
def clock():
    """A clock that the test moves."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_lesson_is_kept_for_an_hour(clock):
    learned = Learned(clock=clock)
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "a")
    clock.now += 3599
    assert (learned.of("m"), learned.of("other")) == ("a", None)
    clock.now += 1
    assert learned.of("m", "nothing") == "nothing"
    learned.keep("m", "b")
    assert learned.of("m") == "b"


def test_a_lesson_repeated_or_used_is_kept_no_longer(clock):
    learned = Learned(ttl=10, clock=clock)
    for number in range(10):
        learned.keep("m", number)
        assert learned.of("m") == number
        clock.now += 1
    assert learned.of("m") is None


def test_the_least_recently_used_model_is_forgotten_first(clock):
    learned = Learned(most=3, clock=clock)
    for model in "abc":
        learned.keep(model, model.upper())
    assert learned.of("a") == "A"
    learned.keep("b", "B again")
    learned.keep("d", "D")
    assert [learned.of(model) for model in "abcd"] == ["A", "B again", None, "D"]


def test_the_lessons_of_at_most_a_thousand_users_are_kept():
    learned = Learned()
    users = [(f"user {number}", "m") for number in range(1001)]
    for user in users:
        learned.keep(user, user)
    assert [user for user in users if learned.of(user) != user] == users[:1]


def test_a_newer_lesson_keeps_what_it_does_not_say():
    lesson = Lesson(longest=300).updated(Lesson(sees_nothing=True)).updated(Lesson(longest=200))
    assert lesson == Lesson(longest=200, sees_nothing=True)
