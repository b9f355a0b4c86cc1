"""What is right for a strange answer: status, stored turn, tries and time."""

from typing import NamedTuple

from protocols import CLAUDE, counts

PATIENCE = 30  # seconds, of MODEL_TIMEOUT where it does not matter
TIMEOUT = 4  # seconds, where it does: for `DRIPS`
USAGE_WAIT = 5  # seconds behind a reason
SLACK = 5  # seconds that a busy machine may take longer
MAX_TOKENS = 1000
LONGEST_TEXT = 64 * MAX_TOKENS + 65536


class Right(NamedTuple):
    code: object  # our status: one, or several of which any will do; so with `tries`
    content: object  # a text, or a function that says whether it is right
    words: str = ""  # of the error's detail
    tries: object = 1
    usage: object = "said"  # what the answer says, None where it does not matter
    seconds: tuple = (0, 12)


ONCE_TO_THRICE = (1, 2, 3)


def ok(content="The answer.", tries=1, **more):
    return Right(201, content, "", tries, **more)


def bad(code, words="", content="", **more):
    return Right(code, content, words, **more)


def said(protocol, data):
    """The usage that the bytes of an answer say. In Anthropic's message_start the output's is a place-holder."""
    if (b'"output_tokens": 7' if protocol == CLAUDE else b'"prompt_tokens": 15') in data:
        return counts(15, 7, 3)
    return counts(15, None, 3) if protocol == CLAUDE and b"message_start" in data else counts()


def among(value, right):
    return value in right if isinstance(right, tuple) else value == right
