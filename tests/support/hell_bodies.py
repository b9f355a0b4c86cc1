"""Strange providers: the declared type of a body, and its encoding."""

import gzip
import itertools
import json
import zlib

from hell_answers import ANSWER, JSON, PAGE, Made, chunked, refusal, sized
from hell_frames import in_pieces
from hell_right import ONCE_TO_THRICE, bad, ok
from protocols import CLAUDE, GPT
from provider import KEEP, head

KINDS = [
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
    "text/plain",
    "text/html",
    "application/octet-stream",
]
KINDS += [
    "",
    "TEXT/EVENT-STREAM; charset=latin-1",
    "text/event-stream;charset=utf-16",
    "odd",
    "\xff",
]
NO_KIND = b"HTTP/1.1 200 OK\r\n\r\n"


def zipped(data):
    return gzip.compress(data, 1)


ENCODINGS = {
    "gzip": zipped,
    "x-gzip": zipped,
    "GZIP": zipped,
    "deflate": zlib.compress,
    "gzip, gzip": lambda d: zipped(zipped(d)),
}
ENCODINGS |= {name: lambda data: data for name in ("br", "zstd", "compress", "identity, gzip")}
PAGES = [
    PAGE,
    b"<html>No.</html>",
    b"\r\n  <HTML lang=en>",
    b"\xef\xbb\xbf<!doctype html>",
    b"<!-- x --><html>",
    b"<?xml version='1.0'?>",
]
PAGES += [b"<head><meta charset=utf-8>", b"<html" + b" " * 200_000, b"<body>" + b"x" * 200_000]


def finished(reason, text):
    """A whole answer with another end."""
    content, choices = (
        [{"type": "text", "text": text}],
        [{"message": {"content": text}, "finish_reason": reason}],
    )
    answers = {
        CLAUDE: {"type": "message", "content": content, "stop_reason": reason},
        GPT: {"choices": choices},
    }
    return {protocol: json.dumps(answer).encode() for protocol, answer in answers.items()}


BODIES = {
    **{f"a stream called {kind!r}": ((head(200, kind), ANSWER), ok()) for kind in KINDS},
    "a stream called nothing": ((NO_KIND, ANSWER), ok()),
    **{f"JSON called {kind!r}": ((head(200, kind), JSON), ok("All of it.")) for kind in KINDS},
    "JSON called nothing": ((NO_KIND, JSON), ok("All of it.")),
    "JSON in an encoding that is none": (
        (head(200, Content_Encoding="UTF-8"), JSON),
        ok("All of it."),
    ),
    "JSON in chunks": ((chunked(JSON), KEEP), ok("All of it.")),
    "JSON with its length": ((sized(JSON), KEEP), ok("All of it.")),
    "JSON a byte at a time": (
        Made(lambda data: [NO_KIND, in_pieces(data, 1)], JSON),
        ok("All of it."),
    ),
    "JSON behind blanks": ((NO_KIND, b" \r\n\t\n ", JSON, b"\n\n"), ok("All of it.")),
    "JSON behind a mark": (
        (head(200, "application/json"), b"\xef\xbb\xbf", JSON),
        ok("All of it."),
    ),
    "JSON on many lines": (
        Made(lambda data: [NO_KIND, json.dumps(json.loads(data), indent=2).encode()], JSON),
        ok("All of it."),
    ),
    "JSON that is cut": (
        Made(lambda data: [head(Content_Length=9999), data[:60]], JSON),
        bad(502, tries=ONCE_TO_THRICE, usage=None),
    ),
    "JSON cut by a limit": ((NO_KIND, finished("length", "So far")), ok("So far")),
    "JSON of nothing but thoughts": ((NO_KIND, finished("max_tokens", "")), bad(502, "MAX_TOKENS")),
    "JSON that was filtered": (
        (NO_KIND, finished("content_filter", "So far")),
        bad(502, "declined", "So far"),
    ),
    "JSON that broke off": (
        (NO_KIND, finished("error", "So far")),
        bad(502, "cut its answer short", "So far"),
    ),
    "JSON that broke off at once": (
        (NO_KIND, finished("abort", "")),
        bad(502, "cut its answer short", tries=3),
    ),
    **{
        f"JSON that is {text}": ((NO_KIND, text.encode()), bad(502, tries=ONCE_TO_THRICE))
        for text in ("[]", "{}", "null", '"a"', "5", "[[[")
    },
    "JSON nested deeply": ((NO_KIND, b"[" * 100_000), bad(502, tries=ONCE_TO_THRICE)),
    "an error as JSON": (
        (NO_KIND, b'{"error": {"message": "It is odd.", "type": "invalid_request_error"}}'),
        bad(502, "It is odd."),
    ),
    "an error as JSON called a stream": (
        (head(), b'{"error": {"message": "Slow", "code": "rate_limit_exceeded"}}'),
        bad(503, "limits", tries=3),
    ),
    "blanks": ((head(), b"\n \r\n" * 50), bad(502, tries=ONCE_TO_THRICE)),
    "a sentence": (
        (head(200, "text/plain"), b"Internal Server Error"),
        bad(502, tries=ONCE_TO_THRICE),
    ),
    "noise": (
        (head(200, "application/octet-stream"), bytes(range(256)) * 99),
        bad(502, tries=ONCE_TO_THRICE),
    ),
    **{
        f"page {number} called {kind!r}": (
            (head(200, kind) if kind is not None else NO_KIND, page),
            bad(502, "page"),
        )
        for (number, page), kind in itertools.product(
            enumerate(PAGES), ("text/html", "text/event-stream", "application/json", None)
        )
    },
    "a page in chunks": (chunked(PAGE), bad(502, "page")),
    **{
        f"an answer in {name}": (
            Made(lambda data, n=name, f=code: [head(Content_Encoding=n), f(data)], ANSWER),
            bad(502, usage=None),
        )
        for name, code in ENCODINGS.items()
    },
    **{
        f"JSON in {name}": (
            Made(
                lambda data, n=name, f=code: [
                    head(200, "application/json", Content_Encoding=n),
                    f(data),
                ],
                JSON,
            ),
            bad(502, usage=None),
        )
        for name, code in ENCODINGS.items()
    },
    **{
        f"an error in {name}": (
            refusal(400, code(b'{"error": {"message": "No."}}'), Content_Encoding=name),
            bad(502),
        )
        for name, code in ENCODINGS.items()
    },
    "an encoding that is none": ((head(Content_Encoding="identity"), ANSWER), ok()),
    "an encoding without a name": ((head(Content_Encoding=""), ANSWER), ok()),
}
