"""The parts of a strange provider's answer.

A dict has one for each protocol; `resolve` makes of all this what goes over the wire.
"""

import json
import time
from typing import NamedTuple

from protocols import CLAUDE, GPT, WHOLE_ANSWERS
from provider import KEEP, chunk, event, head


def named(data):
    return event(data, data["type"])


def choice(delta, reason=None):
    return event(
        {
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
    )


def say(text):
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }
    return {CLAUDE: named(delta), GPT: choice({"content": text})}


def think(text):
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": text},
    }
    return {CLAUDE: named(delta), GPT: choice({"reasoning_content": text})}


def stop(reason=None):
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": reason or "end_turn"},
        "usage": {"output_tokens": 7},
    }
    return {CLAUDE: named(delta), GPT: choice({}, reason or "stop")}


def fault(error):
    return {CLAUDE: named({"type": "error", "error": error}), GPT: event({"error": error})}


def numbers(**usage):
    return event({"choices": [], "usage": usage})


INPUT = {
    "input_tokens": 11,
    "cache_read_input_tokens": 3,
    "cache_creation_input_tokens": 1,
    "output_tokens": 1,
}
BEGIN = {
    CLAUDE: named({"type": "message_start", "message": {"id": "msg_1", "usage": INPUT}}),
    GPT: choice({"role": "assistant", "content": None}),
}
COUNT = {
    CLAUDE: b"",
    GPT: numbers(prompt_tokens=15, completion_tokens=7, prompt_tokens_details={"cached_tokens": 3}),
}
PING = {CLAUDE: named({"type": "ping"}), GPT: b": OPENROUTER PROCESSING\n\n"}
END = {CLAUDE: named({"type": "message_stop"}), GPT: event("[DONE]")}
REST = (stop(), COUNT, END)
ANSWER = (BEGIN, say("The answer."), REST)
HALF = (head(), BEGIN, say("Half"))
JSON = {protocol: json.dumps(answer).encode() for protocol, answer in WHOLE_ANSWERS.items()}
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><p>data: hello</p></body></html>"
MEGABYTES = 150  # of a body that has no end
# Seconds for which the provider keeps the connection open, unless the other side hangs up.
OPEN = 20


class Made(NamedTuple):
    """The result of a function of these parts' bytes."""

    make: callable
    parts: object


class Tries(list):
    """An answer for each try, the last for all that follow."""


def resolve(part, protocol):
    if isinstance(part, dict):
        yield from resolve(part[protocol], protocol)
    elif isinstance(part, Made):
        yield from resolve(part.make(b"".join(resolve(part.parts, protocol))), protocol)
    elif isinstance(part, (tuple, list, map)):
        for each in part:
            yield from resolve(each, protocol)
    else:
        yield part


def sized(*parts, more=0, **headers):
    return Made(
        lambda data: [
            head(Content_Length=len(data) + more, **headers),
            data,
            b"" if more else KEEP,
        ],
        parts,
    )


def chunked(*parts, last=b"0\r\n\r\n"):
    return Made(
        lambda data: [
            head(Transfer_Encoding="chunked"),
            chunk(data),
            last,
            KEEP if last.startswith(b"0\r\n") else b"",
        ],
        parts,
    )


def drip(part, every=0.25, seconds=OPEN):
    """Send it again and again, until the other side hangs up."""

    def send(data, connection):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not connection.over.wait(every):
            connection.send(data)

    return Made(lambda data: [lambda connection: send(data, connection)], part)


def flood(part):
    """Send a lot of it, as fast as the other side takes it."""
    return Made(
        lambda data: [
            lambda connection: [
                connection.send(data) for _ in range(MEGABYTES * 2**20 // len(data))
            ]
        ],
        part,
    )


def shortened(part, count):
    return Made(lambda data: [data[:-count]], part)


def reset(connection):
    connection.reset()


def refusal(code, body=b'{"error": {"message": "It is odd."}}', kind="application/json", **headers):
    """An error after which a client may try again at once."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (head(code, kind, Content_Length=len(body), Retry_After_Ms=1, **headers), body, KEEP)
