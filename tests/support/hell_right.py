"""The right result of a strange answer: status, stored turn, tries and time."""

from typing import NamedTuple

from protocols import CLAUDE, counts

PATIENCE = 30  # seconds, MODEL_TIMEOUT if it does not matter
TIMEOUT = 4  # seconds, MODEL_TIMEOUT if it matters: for `DRIPS`
USAGE_WAIT = 5  # seconds to wait for the usage after a reason
SLACK = 5  # more seconds, for a busy machine
MAX_TOKENS = 1000
LONGEST_TEXT = 64 * MAX_TOKENS + 65536


class Right(NamedTuple):
    code: object  # our status, or several if any of them will do; the same for `tries`
    content: object  # a text, or a function that says whether it is right
    words: str = ""  # in the error's detail
    tries: object = 1
    usage: object = "said"  # the answer's own, or None if it does not matter
    seconds: tuple = (0, 12)


ONCE_TO_THRICE = (1, 2, 3)


def ok(content="The answer.", tries=1, **more):
    return Right(201, content, "", tries, **more)


def bad(code, words="", content="", **more):
    return Right(code, content, words, **more)


def said(protocol, data):
    """The usage in the bytes of an answer. In Anthropic's message_start, the output's is a
    placeholder."""
    if (b'"output_tokens": 7' if protocol == CLAUDE else b'"prompt_tokens": 15') in data:
        return counts(15, 7, 3)
    return counts(15, None, 3) if protocol == CLAUDE and b"message_start" in data else counts()


def among(value, right):
    return value in right if isinstance(right, tuple) else value == right
