"""The provider from hell: an answer a row, and what is right for it: status, stored turn, tries and time.

A row is read from left to right: what the provider sends, and what becomes of it. `test_strange_providers.py` asks all
rows of a table side by side; a row's model names it, so that the provider knows which answer is due.
"""

import base64
import functools
import gzip
import itertools
import json
import re
import time
import urllib.parse
import zlib
from typing import NamedTuple

from protocols import CLAUDE, GPT, WHOLE_ANSWERS, counts
from provider import KEEP, chunk, event, head

PATIENCE = 30  # seconds, of MODEL_TIMEOUT where it does not matter
TIMEOUT = 4  # seconds, where it does: for `DRIPS`
USAGE_WAIT = 5  # seconds behind a reason
SLACK = 5  # seconds that a busy machine may take longer
MAX_TOKENS = 1000
LONGEST_TEXT = 64 * MAX_TOKENS + 65536
KEY, PASSWORD = "sk-Vq7ZtR2m.Kx9LwB4n", "p@Tz5:w0rd/Gh8"

# What an answer is made of. A dict has it in both protocols; `resolve` makes of all this what goes over the wire.


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
OPEN = 20  # seconds that the provider keeps the connection open, unless the other side hangs up


class Made(NamedTuple):
    """What a function makes of the bytes of these parts."""

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


def flood(part, megabytes=300):
    """So much of it, as fast as the other side takes it."""
    return Made(
        lambda data: [
            lambda connection: [
                connection.send(data) for _ in range(megabytes * 2**20 // len(data))
            ]
        ],
        part,
    )


def shortened(part, count):
    return Made(lambda data: [data[:-count]], part)


def reset(connection):
    connection.reset()


def refusal(code, body=b'{"error": {"message": "It is odd."}}', kind="application/json", **headers):
    """An error, after which one may ask again at once."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (head(code, kind, Content_Length=len(body), Retry_After_Ms=1, **headers), body, KEEP)


# What is right


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


# Status lines and headers

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
ONCE = [
    400,
    402,
    404,
    405,
    406,
    410,
    411,
    412,
    414,
    415,
    416,
    417,
    418,
    421,
    422,
    423,
    424,
    425,
    426,
    428,
    431,
    451,
    499,
]
TWICE_MORE = [500, 502, 504, 506, 507, 508, 510, 520, 521, 522, 524, 530, 599]
INTERIM = {
    code: b"HTTP/1.1 %d \r\nLink: </style.css>; rel=preload\r\n\r\n" % code
    for code in (100, 102, 103)
}
STATUSES = {
    **{f"{code} and a stream": ((head(code), ANSWER), ok()) for code in (200, 201, 203)},
    **{
        f"{code} and JSON": ((head(code, "application/json"), JSON), ok("All of it."))
        for code in (200, 201, 203)
    },
    **{
        f"{code} and nothing": ((head(code, Connection="close"), b""), bad(502))
        for code in (204, 205)
    },
    **{
        str(code): (refusal(code, Location="/elsewhere"), bad(502, "redirects"))
        for code in (300, 301, 302, 303, 305, 307, 308, 399)
    },
    **{
        str(code): (refusal(code), bad(502, "used up" if code == 402 else "It is odd."))
        for code in (*ONCE, 600, 777, 999)
    },
    **{
        str(code): (refusal(code), bad(502, "refused this server's own key")) for code in (401, 403)
    },
    "407": (refusal(407, Proxy_Authenticate="Basic"), bad(502, "proxy")),
    **{
        str(code): (refusal(code), bad(502, f"status {code}", tries=3))
        for code in (408, 409, *TWICE_MORE)
    },
    "413": (refusal(413), bad(413, "context window")),
    **{str(code): (refusal(code), bad(503, "", tries=3)) for code in (429, 503, 529)},
    **{f"{code} first": ((part, head(), ANSWER), ok()) for code, part in INTERIM.items()},
    **{
        f"{code} first, then 500": ((part, refusal(500)), bad(502, "status 500", tries=3))
        for code, part in INTERIM.items()
    },
    "all of 100, 102 and 103 first": ((list(INTERIM.values()), head(), ANSWER), ok()),
    "a hundred of 100 first": ((INTERIM[100] * 100, head(), ANSWER), ok()),
    "a hundred of 103 first": ((INTERIM[103] * 100, head(), ANSWER), ok()),
    "100 and nothing": ((INTERIM[100],), bad(502, tries=3)),
    "103 and nothing": ((INTERIM[103],), bad(502, tries=3)),
    "no reason": ((b"HTTP/1.1 200\r\n\r\n", ANSWER), ok()),
    "another reason": ((b"HTTP/1.1 200 Not \xff\xfe at all\r\n\r\n", ANSWER), ok()),
    "HTTP/1.0": ((b"HTTP/1.0 200 OK\r\n\r\n", ANSWER), ok()),
    "line feeds alone": ((b"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n", ANSWER), ok()),
    "a folded header": ((PLAIN + b"X-Odd: a\r\n b\r\n\tc\r\n\r\n", ANSWER), ok()),
    "an empty header": ((PLAIN + b"X-Odd:\r\nY-Odd:   \r\n\r\n", ANSWER), ok()),
    "a header in latin-1": ((PLAIN + b"X-Odd: \xe9\xff\r\n\r\n", ANSWER), ok()),
    "a header twice": ((PLAIN + b"Content-Type: text/plain\r\n\r\n", ANSWER), ok()),
    "ninety headers": ((PLAIN + b"X-Odd: 1\r\n" * 90 + b"\r\n", ANSWER), ok()),
    "a header of 60 kB": ((PLAIN + b"X-Odd: %s\r\n\r\n" % (b"x" * 60_000), ANSWER), ok()),
    "too many headers": (
        (PLAIN + b"X-Odd: 1\r\n" * 500 + b"\r\n", ANSWER),
        bad(502, tries=ONCE_TO_THRICE, usage=None),
    ),
    "a header of 70 kB": (
        (PLAIN + b"X-Odd: %s\r\n\r\n" % (b"x" * 70_000), ANSWER),
        bad(502, tries=ONCE_TO_THRICE, usage=None),
    ),
    "a status line of 70 kB": (
        (b"HTTP/1.1 200 %s\r\n\r\n" % (b"x" * 70_000), ANSWER),
        bad(502, tries=ONCE_TO_THRICE, usage=None),
    ),
    **{
        f"{line!r} first": (Tries([(line,), (head(), ANSWER)]), ok(tries=2))
        for line in [
            b"",
            b"\r\n",
            b"SSH-2.0-OpenSSH\r\n",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"HTTP/1.1 200 OK\r\nContent-",
        ]
        + [
            b"HTTP/2 200\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 99 No\r\n\r\n",
        ]
    },
    "a reset first": (Tries([(reset,), (head(), ANSWER)]), ok(tries=2)),
    "nothing, ever": ((b"",), bad(502, tries=3)),
    "500, nothing, an answer": (Tries([refusal(500), (b"",), (head(), ANSWER)]), ok(tries=3)),
    "429 three times, then an answer": (
        Tries([refusal(429)] * 3 + [(head(), ANSWER)]),
        bad(503, tries=3),
    ),
    "500 with half a body": ((refusal(500)[0], b'{"err'), bad(502, "status 500", tries=3)),
    "400 with half a body": ((refusal(400)[0], b'{"err'), bad(502, "status 400")),
    "400 with a body that is reset": ((refusal(400)[0], b'{"err', reset), bad(502)),
}

# How a body is framed


def in_pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def in_chunks(data, size):
    return [
        head(Transfer_Encoding="chunked"),
        [chunk(piece) for piece in in_pieces(data, size)],
        chunk(b""),
        KEEP,
    ]


FRAMES = {
    "to the end of the connection": ((head(), ANSWER), ok()),
    "with its length": ((sized(ANSWER), KEEP), ok()),
    "in chunks": ((chunked(ANSWER), KEEP), ok()),
    "a byte at a time": (Made(lambda data: [head(), in_pieces(data, 1)], ANSWER), ok()),
    **{
        f"in chunks of {size}": (
            Made(functools.partial(in_chunks, size=size), ANSWER),
            ok(usage=counts(15, 7, 3)),
        )
        for size in (1, 2, 3, 16, 1000)
    },
    "a chunk with extensions": (
        Made(
            lambda data: [
                head(Transfer_Encoding="chunked"),
                b'%X;a=1;b="2"\r\n%s\r\n0;c\r\n\r\n' % (len(data), data),
            ],
            ANSWER,
        ),
        ok(),
    ),
    "a chunk with zeros first": (
        Made(
            lambda data: [
                head(Transfer_Encoding="Chunked"),
                b"000%x\r\n%s\r\n000\r\n\r\n" % (len(data), data),
            ],
            ANSWER,
        ),
        ok(),
    ),
    "chunks and trailers": (
        chunked(ANSWER, last=b"0\r\nX-Odd: 1\r\nContent-Length: 5\r\n\r\n"),
        ok(),
    ),
    "chunks and a length": (
        Made(
            lambda data: [
                head(Transfer_Encoding="chunked", Content_Length=7),
                chunk(data),
                chunk(b""),
            ],
            ANSWER,
        ),
        ok(),
    ),
    "the same length twice": (
        Made(
            lambda data: [PLAIN + b"Content-Length: %d\r\n" % len(data) * 2 + b"\r\n", data], ANSWER
        ),
        ok(),
    ),
    "a length that is none": ((head(Content_Length="many"), ANSWER), ok()),
    "a length below zero": ((head(Content_Length=-1), ANSWER), ok()),
    "a length too short": (
        Made(
            lambda data: [head(Content_Length=len(data), Connection="close"), data, [REST]],
            (BEGIN, say("Half")),
        ),
        bad(502, "cut its answer short", "Half", usage=None),
    ),
    "a length of nothing": (
        (head(Content_Length=0, Connection="close"), ANSWER),
        bad(502, "cut its answer short", tries=3, usage=None),
    ),
    "an empty body": ((head(),), bad(502, "cut its answer short", tries=3)),
    "an empty body in chunks": (chunked(), bad(502, "cut its answer short", tries=3)),
    "no size of a chunk": ((head(Transfer_Encoding="chunked"), b"odd\r\n"), bad(502, tries=3)),
    "no size of a chunk behind a word": (
        chunked(BEGIN, say("Half"), last=b"odd\r\n"),
        bad(502, "", "Half"),
    ),
    "a reset behind a word": ((HALF, 0.2, reset), bad(502, "", "Half")),
    "a cut behind a word": (chunked(BEGIN, say("Half"), last=b""), bad(502, "", "Half")),
    "a cut within an event": ((HALF, shortened(say("No."), 20)), bad(502, "", "Half")),
    "a cut before the first word": ((head(), BEGIN), bad(502, "cut its answer short", tries=3)),
    "a cut before the first word, then an answer": (
        Tries([(head(), BEGIN), (head(), ANSWER)]),
        ok(tries=2),
    ),
    "thoughts alone": (
        (head(), BEGIN, think("Hm")),
        bad(502, "cut its answer short", tries=ONCE_TO_THRICE),
    ),
    "what follows an answer": (
        (sized(ANSWER, Connection="close"), b"HTTP/1.1 500 No\r\n\r\n", 0.5),
        ok(),
    ),
    "an answer to nothing": ((sized(ANSWER, Connection="close"), sized(ANSWER), 0.5), ok()),
    "slow chunks": (
        (
            head(Transfer_Encoding="chunked"),
            b"0",
            0.4,
            b"0",
            0.4,
            b"0",
            0.4,
            Made(chunk, ANSWER),
            chunk(b""),
        ),
        ok(),
    ),
}

# What a body is called, and how it is encoded

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

# The lines of a stream

AWKWARD = "é世👩‍👧\u2028\x85 "
MANY = 220  # as many bytes as an event has, or more
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}
FORMS = {
    "": lambda data: data,
    "comments between": lambda data: b": x\n" + data.replace(b"data:", b":\ndata:"),
    "two lines of data": lambda data: data.replace(b'"delta": ', b'"delta":\ndata:'),
    "other fields": lambda data: b"id: 1\nretry: 5\ndatax: no\n data: no\nfoo\n" + data,
}
GAPS = {
    "once": (0,),
    "around a byte": (0, 1),
    "around two": (0, 2),
    "around three": (0, 3),
    "everywhere": None,
}


def split(end, form, gaps):
    """An event again and again, cut at its first byte, then at its second, and so on."""

    def make(data):
        data = form(data).replace(b"\n", end)
        if gaps is None:
            return [[chunk(data[i : i + 1]) for i in range(len(data))] * 10]
        assert len(data) + max(gaps) <= MANY
        cuts = {n * len(data) + n % len(data) + gap for n in range(MANY) for gap in gaps} | {
            0,
            MANY * len(data),
        }
        cuts, data = sorted(cut for cut in cuts if cut <= MANY * len(data)), data * MANY
        return [b"".join(chunk(data[i:j]) for i, j in itertools.pairwise(cuts))]

    def whole(data):
        return chunk(data.replace(b"\n", end))

    parts = (
        head(Transfer_Encoding="chunked"),
        Made(whole, BEGIN),
        Made(make, say(AWKWARD)),
        Made(whole, REST),
        chunk(b""),
    )
    return (parts, KEEP), ok(AWKWARD * (10 if gaps is None else MANY))


SPLITS = {
    f"{end}, {form or 'nothing else'}, {gap}": split(LINE_ENDS[end], FORMS[form], GAPS[gap])
    for end, form, gap in itertools.product(LINE_ENDS, FORMS, GAPS)
}


def spelt(*bodies):
    """Deltas whose JSON is written by hand."""
    claude = (
        '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "%s"}}'
    )
    gpt = '{"choices": [{"index": 0, "delta": {"content": "%s"}}]}'
    return {
        model: [event(form % body) for body in bodies]
        for model, form in ((CLAUDE, claude), (GPT, gpt))
    }


def replaced(*pairs):
    """The answer with other bytes for these."""

    def make(data):
        for old, new in pairs:
            assert old in data
            data = data.replace(old, new)
        return [head(), data]

    return Made(make, ANSWER)


def without_names(data):
    return re.sub(rb"event: .*\n", b"", data)


LINES = {
    "no space behind the colon": (replaced((b"data: ", b"data:")), ok()),
    "more space behind the colon": (replaced((b"data: ", b"data:  ")), ok()),
    "space at the end": (replaced((b"}\n", b"} \t\n")), ok()),
    "no names of events": (Made(lambda data: [head(), without_names(data)], ANSWER), ok()),
    "another name of events": (
        Made(lambda data: [head(), b"event: message\n" + without_names(data)], ANSWER),
        ok(),
    ),
    "a name behind the data": (replaced((b"\n\n", b"\nevent: x\n\n")), ok()),
    "names in capitals": (replaced((b"data:", b"DATA: no\ndata:")), ok()),
    "empty events": (replaced((b"\n\n", b"\n\n\n\ndata\n\ndata:\n\ndata: \n\nevent: x\n\n")), ok()),
    "a mark at the start": ((head(), b"\xef\xbb\xbf", ANSWER), ok()),
    "comments": (
        (head(), b": hello\n\n:\n\n", BEGIN, b":\n", say("The answer."), b": bye\n", REST),
        ok(),
    ),
    "a comment of 50 kB": ((head(), b":" + b"x" * 50_000 + b"\n\n", ANSWER), ok()),
    "eight thousand comments": ((head(), b": ping\n\n" * 8000, ANSWER), ok()),
    "pings": (
        (head(), PING, BEGIN, PING, say("The answer."), PING, stop(), PING, COUNT, END),
        ok(),
    ),
    "an event of the future": (
        (head(), BEGIN, event({"type": "future", "delta": "No."}), say("The answer."), REST),
        ok(),
    ),
    "a choice of none": (
        (head(), BEGIN, event({"choices": [], "error": None}), say("The answer."), REST),
        ok(),
    ),
    "an error of null": (
        (head(), event({"type": "future", "error": None, "choices": None}), ANSWER),
        ok(),
    ),
    "no beginning": ((head(), say("The "), say("answer."), REST), ok(usage=None)),
    "thousands of empty words": ((head(), BEGIN, [say("")] * 3000, say("The answer."), REST), ok()),
    "thousands of letters": ((head(), BEGIN, [say("x")] * 4000, REST), ok("x" * 4000)),
    "thoughts": ((head(), BEGIN, [think("Hm. ")] * 3000, say("The answer."), REST), ok()),
    "escapes": ((head(), BEGIN, spelt("The \\u0061nswer\\u002e"), REST), ok()),
    "halves of characters": ((head(), BEGIN, spelt("a\\ud83c", "\\udf89b"), REST), ok("a🎉b")),
    "lone halves": (
        (head(), BEGIN, spelt("a\\ud83c", "b", "\\udf89c", "\\ud83c"), REST),
        ok("a\ufffdb\ufffdc\ufffd"),
    ),
    "NUL": ((head(), BEGIN, spelt("a\\u0000b"), REST), ok("a\ufffdb")),
    "line ends in words": (
        (head(), BEGIN, spelt("a\\r\\nb\\rc\\u2028d\u2028e\x85f"), REST),
        ok("a\r\nb\rc\u2028d\u2028e\x85f"),
    ),
    "bytes that are no UTF-8": (
        (head(), BEGIN, Made(lambda data: [data.replace(b"@", b"\xff\xfe")], say("a@b")), REST),
        ok("a\ufffd\ufffdb"),
    ),
    "latin-1": (
        (
            head(200, "text/event-stream; charset=latin-1"),
            BEGIN,
            Made(lambda d: [d.replace(b"@", b"\xe9")], say("a@b")),
            REST,
        ),
        ok("a\ufffdb"),
    ),
    "UTF-16": (
        Made(lambda data: [head(), data.decode().encode("utf-16")], ANSWER),
        bad(502, tries=ONCE_TO_THRICE, usage=None),
    ),
    "no JSON": (
        (HALF, event('{"choices": [{"del'), REST),
        bad(502, "not understood", "Half", usage=None),
    ),
    "an array": ((HALF, event("[1, 2]"), REST), bad(502, "", "Half", usage=None)),
    "nested deeply": ((HALF, event("[" * 50_000), REST), bad(502, "", "Half", usage=None)),
    "NaN": ((HALF, event('{"type": "future", "x": NaN, "y": 1e999}'), say("."), REST), ok("Half.")),
    "long numbers": (
        (HALF, event('{"type": "future", "x": 1%s}' % ("0" * 4000)), say("."), REST),
        ok("Half."),
    ),
    "a key twice": (
        (HALF, event('{"type": "future", "type": "of", "choices": []}'), say("."), REST),
        ok("Half."),
    ),
}

# Ends

CLOSINGS = {
    "kept open": (OPEN,),
    "a reset": (0.1, reset),
    "comments without end": (drip(b": x\n\n"),),
    "pings without end": (drip(PING),),
    "blank lines without end": (drip(b"\n\n"),),
    "words without end": (drip(say("No.")),),
    "an error": (fault({"type": "overloaded_error", "message": "Overloaded"}),),
    "a field error": (b'error: {"code": 500, "message": "No."}\n\n',),
    "text": (say("No."),),
    "another answer": (BEGIN, say("No."), stop(), END),
    "no JSON": (event('{"choices": [{"del'), b"data: {"),
    "a page": (PAGE,),
    "bytes that are no UTF-8": (b"\xff\xfe\x00data: \xff\n\n",),
    "a broken usage": (
        numbers(prompt_tokens=15, prompt_tokens_details=7),
        event({"type": "message_delta", "usage": 7}),
    ),
    "a usage that is none": (
        numbers(),
        event({"choices": 5, "usage": []}),
        event({"type": "message_delta", "delta": 5}),
    ),
}
MARKS = {
    "the end": (REST, USAGE_WAIT - 0.5),
    "the reason": ((stop(),), USAGE_WAIT + SLACK),
    "the usage": ((stop(), COUNT), USAGE_WAIT + SLACK),
}
IN_CHUNKS = {
    "no last chunk": b"",
    "half a last chunk": b"0\r",
    "a chunk that is cut": b"ff\r\n: x",
    "garbage for a chunk": b"odd\r\n\r\n",
}


def second(*deltas, index=1, reason=None):
    """A choice besides the first."""
    return [
        event({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]})
        for text in deltas
    ]


ENDS = {
    **{
        f"{closing} behind {mark}": (
            (head(), BEGIN, say("The answer."), parts, CLOSINGS[closing]),
            ok(seconds=(0, longest), usage=None if "usage" in closing else "said"),
        )
        for closing, (mark, (parts, longest)) in itertools.product(CLOSINGS, MARKS.items())
        if (closing, mark) != ("a broken usage", "the end")
    },
    **{
        f"{name} behind {mark}": (
            chunked(BEGIN, say("The answer."), parts, last=last),
            ok(seconds=(0, longest)),
        )
        for (name, last), (mark, (parts, longest)) in itertools.product(
            IN_CHUNKS.items(), MARKS.items()
        )
    },
    **{
        f"a length too long behind {mark}": (
            sized(BEGIN, say("The answer."), parts, more=50),
            ok(seconds=(0, longest)),
        )
        for mark, (parts, longest) in MARKS.items()
    },
    **{
        f"no end of the {('line', 'event')[count - 1]} behind {mark}": (
            (head(), BEGIN, say("The answer."), shortened(parts, 3 - count)),
            ok(seconds=(0, longest)),
        )
        for count, (mark, (parts, longest)) in itertools.product((1, 2), MARKS.items())
    },
    "the usage a second later": ((head(), BEGIN, say("The answer."), stop(), 1, COUNT, END), ok()),
    "the usage a second later, and no end": (
        (head(), BEGIN, say("The answer."), stop(), 1, COUNT),
        ok(),
    ),
    "a word without the end of its event": (
        (head(), BEGIN, say("Ha"), shortened(say("lf"), 2)),
        bad(502, "cut its answer short", "Half"),
    ),
    "the end twice": ((head(), ANSWER, END), ok()),
    "no usage": ((head(), BEGIN, say("The answer."), stop(), END), ok()),
    "no word": ((head(), BEGIN, REST), ok("")),
    "a reason that is empty": (
        (
            head(),
            BEGIN,
            {
                CLAUDE: named({"type": "message_delta", "delta": {"stop_reason": None}}),
                GPT: choice({}, ""),
            },
            say("The answer."),
            REST,
        ),
        ok(),
    ),
}
ENDS_OF = {
    GPT: {
        "[DONE] without a space": (
            (head(), BEGIN, say("The answer."), stop(), COUNT, b"data:[DONE]\n\n", OPEN),
            ok(seconds=(0, USAGE_WAIT - 0.5)),
        ),
        "[DONE] with spaces": (
            (head(), BEGIN, say("The answer."), stop(), COUNT, b"data:  [DONE] \n\n", OPEN),
            ok(seconds=(0, USAGE_WAIT - 0.5)),
        ),
        "[DONE] without a reason": ((HALF, END), bad(502, "cut its answer short", "Half")),
        "[DONE] alone": ((head(), END), bad(502, "cut its answer short", tries=3)),
        "[DONE] alone, then an answer": (Tries([(head(), END), (head(), ANSWER)]), ok(tries=2)),
        "a reason with the last word": (
            (head(), BEGIN, say("The "), choice({"content": "answer."}, "stop"), COUNT, END),
            ok(),
        ),
        "a reason and a usage with the only word": (
            (
                head(),
                event(
                    {
                        "choices": [
                            {"index": 0, "delta": {"content": "All."}, "finish_reason": "stop"}
                        ],
                        "usage": {"prompt_tokens": 4},
                    }
                ),
            ),
            ok("All.", usage=counts(4)),
        ),
        "a usage with each word": (
            (head(), [numbers(prompt_tokens=15, completion_tokens=n) for n in (1, 2)], ANSWER),
            ok(),
        ),
        "a second choice": (
            (head(), BEGIN, second("No."), say("The answer."), second(" No."), REST),
            ok(),
        ),
        "a second choice first": ((head(), second("No.", reason="stop"), ANSWER), ok()),
        "a second choice that ends first": (
            (HALF, second("No.", reason="length"), say("."), REST),
            ok("Half."),
        ),
        "a second choice that fails": (
            (HALF, second("No.", reason="content_filter"), say("."), REST),
            ok("Half."),
        ),
        "a second choice behind the end": (
            (head(), BEGIN, say("The answer."), stop(), second("No."), COUNT, END),
            ok(),
        ),
        "two choices in one event": (
            (
                head(),
                BEGIN,
                event(
                    {
                        "choices": [
                            {"index": i, "delta": {"content": t}}
                            for i, t in ((1, "No."), (0, "The answer."))
                        ]
                    }
                ),
                REST,
            ),
            ok(),
        ),
        "a choice without an index": (
            (head(), event({"choices": [{"delta": {"content": "The answer."}}]}), REST),
            ok(),
        ),
        "a choice with an index of null": ((head(), second("The answer.", index=None), REST), ok()),
        "a whole answer of two choices": (
            (
                NO_KIND,
                json.dumps(
                    {
                        "choices": [
                            {"index": i, "message": {"content": t}, "finish_reason": "stop"}
                            for i, t in ((1, "No."), (0, "Yes."))
                        ]
                    }
                ).encode(),
            ),
            ok("Yes."),
        ),
    },
    CLAUDE: {
        "a reason, but no end": ((head(), BEGIN, say("The answer."), stop()), ok()),
        "an end without a reason": ((head(), BEGIN, say("The answer."), END), ok()),
        "a reason of null, and no end": (
            (
                HALF,
                named(
                    {
                        "type": "message_delta",
                        "delta": {"stop_reason": None},
                        "usage": {"output_tokens": 7},
                    }
                ),
            ),
            bad(502, "cut its answer short", "Half"),
        ),
        "the end alone": ((head(), END), Right((201, 502), "", tries=ONCE_TO_THRICE)),
        "a block behind the reason": (
            (
                head(),
                BEGIN,
                say("The answer."),
                stop(),
                named(
                    {
                        "type": "content_block_start",
                        "index": 1,
                        "content_block": {"type": "text", "text": "No."},
                    }
                ),
                END,
            ),
            ok(),
        ),
        "a usage at the beginning and none at the end": (
            (
                head(),
                BEGIN,
                say("The answer."),
                named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
                END,
            ),
            ok(usage=counts(15, None, 3)),
        ),
    },
}

# Reasons, in the words of either protocol

GOOD = [
    "stop",
    "end_turn",
    "stop_sequence",
    "eos",
    "eos_token",
    "tool_calls",
    "tool_use",
    "function_call",
]
LIMITS = ["length", "max_tokens", "model_length", "model_context_window_exceeded"]
DECLINED = ["content_filter", "refusal", "safety", "recitation", "sensitive"]
BREAKS = [
    "error",
    "abort",
    "insufficient_system_resource",
    "network_error",
    "cancelled",
    "timeout",
    "pause_turn",
]
UNKNOWN = ["reason_of_the_future", "Reason of the future; 42%", "future" * 50]
ODD_REASONS = [5, True, ["stop"], {"a": 1}]


def ends_with(reason, *words):
    return (head(), BEGIN, *map(say, words), stop(reason), COUNT, END)


REASONS = {
    **{
        f"{reason} behind text": (ends_with(reason, "So far"), ok("So far"))
        for reason in (*GOOD, *LIMITS, *UNKNOWN)
    },
    **{f"{reason} alone": (ends_with(reason), ok("")) for reason in (*GOOD, *UNKNOWN)},
    # As COUNT says, the answer is shorter than our limit: the window is full. Behind thoughts that nobody counted, who knows.
    **{f"{reason} alone": (ends_with(reason), bad(413)) for reason in LIMITS},
    **{
        f"{reason} behind thoughts": (
            (head(), BEGIN, think("Hm"), stop(reason), END),
            bad((502, 413)),
        )
        for reason in LIMITS
    },
    **{
        f"{reason} behind text": (ends_with(reason, "So ", "far"), bad(502, "declined", "So far"))
        for reason in DECLINED
    },
    **{f"{reason} alone": (ends_with(reason), bad(502, "declined")) for reason in DECLINED},
    **{
        f"{reason} behind text": (
            ends_with(reason, "So far"),
            bad(502, "cut its answer short", "So far"),
        )
        for reason in BREAKS
    },
    **{
        f"{reason} alone": (ends_with(reason), bad(502, "cut its answer short", tries=3))
        for reason in BREAKS
    },
    **{
        f"{reason} first": (Tries([ends_with(reason), (head(), ANSWER)]), ok(tries=2))
        for reason in BREAKS
    },
    **{
        f"{reason!r} for a reason": (
            ends_with(reason, "So far"),
            Right((201, 502), "So far", usage=None),
        )
        for reason in ODD_REASONS
    },
}

# Errors in a stream


def event_error(data):
    return b"event: error\n" + event(data)


OVERFLOW = "the request exceeds the available context size. try increasing the context size or enable context shift"
FAULTS = {  # the error; our status, words of the detail, how often it is asked where it comes first
    "overloaded_error": (
        fault({"type": "overloaded_error", "message": "Overloaded"}),
        503,
        "overloaded",
        3,
    ),
    "rate_limit_error": (fault({"type": "rate_limit_error", "message": "Slow"}), 503, "limits", 3),
    "out of credit": (fault({"message": "Pay", "code": "insufficient_quota"}), 502, "used up", 1),
    "api_error": (fault({"type": "api_error", "message": "Internal"}), 502, "status 500", 3),
    "a code in words": (fault({"message": "No.", "code": "504"}), 502, "status 504", 3),
    "a code in digits": (fault({"message": "No.", "code": 502}), 502, "status 502", 3),
    "a code of 429": (fault({"message": "No.", "code": 429}), 503, "limits", 3),
    "invalid_request_error": (
        fault({"type": "invalid_request_error", "message": "It is odd."}),
        502,
        "It is odd.",
        1,
    ),
    "an unknown model": (
        fault({"type": "not_found_error", "message": "model: m-0"}),
        400,
        "no such model",
        1,
    ),
    "too long": (
        fault({"message": "No.", "code": "context_length_exceeded"}),
        413,
        "context window",
        1,
    ),
    "a bad key": (fault({"type": "authentication_error", "message": "No."}), 502, "own key", 1),
    "not allowed": (fault({"type": "permission_error", "message": "No."}), 502, "own key", 1),
    "a text": (event({"error": "It is odd."}), 502, "", ONCE_TO_THRICE),
    "an empty object": (event({"error": {}}), 502, "", ONCE_TO_THRICE),
    "a type and no more": (event({"type": "error"}), 502, "", ONCE_TO_THRICE),
    "a type and a message": (
        event({"type": "error", "message": "It is odd.", "code": 400}),
        502,
        "It is odd.",
        1,
    ),
    "vllm's": (
        event({"object": "error", "message": "It is odd.", "type": "BadRequestError", "code": 400}),
        502,
        "It is odd.",
        1,
    ),
    "an event with a message": (
        event_error({"message": "It is odd.", "code": 400}),
        502,
        "It is odd.",
        1,
    ),
    "an event with a detail": (event_error({"detail": "It is odd."}), 502, "", ONCE_TO_THRICE),
    "an event with an error": (
        event_error({"error": {"message": "It is odd.", "code": 422}}),
        502,
        "It is odd.",
        1,
    ),
    "an event with a text": (event_error("It is odd."), 502, "", ONCE_TO_THRICE),
    "an event that is too long": (
        event_error({"message": OVERFLOW, "code": 400}),
        413,
        "context window",
        1,
    ),
    "llama.cpp's field": (
        b'error: {"code":400,"message":"%s","type":"invalid_request_error"}\n\n'
        % OVERFLOW.encode(),
        413,
        "context window",
        1,
    ),
    "llama.cpp's field, of 500": (
        b'error: {"code":500,"message":"No.","type":"server_error"}\n\n',
        502,
        "status 500",
        3,
    ),
    "llama.cpp's field, while it loads": (
        b'error: {"code":503,"message":"Loading","type":"unavailable_error"}\n\n',
        503,
        "",
        3,
    ),
    "llama.cpp's field, of 400": (
        b'error: {"code":400,"message":"It is odd."}\n\n',
        502,
        "It is odd.",
        1,
    ),
}
ERRORS = {
    **{
        f"{name}, first": ((head(), part), bad(code, words, tries=tries))
        for name, (part, code, words, tries) in FAULTS.items()
    },
    **{
        f"{name}, behind the beginning": ((head(), BEGIN, part, END), bad(code, words, tries=tries))
        for name, (part, code, words, tries) in FAULTS.items()
    },
    **{
        f"{name}, behind a word": ((HALF, part, END), bad(code, words, "Half"))
        for name, (part, code, words, _) in FAULTS.items()
    },
    **{
        f"{name}, first, then an answer": (Tries([(head(), part), (head(), ANSWER)]), ok(tries=2))
        for name, (part, _, _, tries) in FAULTS.items()
        if tries == 3
    },
    "plain JSON behind a word": (
        (HALF, b'{"error": {"message": "It is odd."}}\n'),
        bad(502, "", "Half"),
    ),
    "gemini's list": (
        (head(200, "application/json"), b'[{"error": {"code": 400, "message": "No."}}]'),
        bad(502, tries=ONCE_TO_THRICE),
    ),
    "openrouter's beside a choice": (
        (HALF, choice({"content": ""}, "error"), event({"error": {"code": 502, "message": "No."}})),
        bad(502, "", "Half"),
    ),
}

# Errors that are none, or long

LONG = "model " * 40_000
SHAPES = {
    "nothing": (b"", "status 400"),
    "blanks": (b" \n", "status 400"),
    "null": (b"null", ""),
    "a number": (b"5", ""),
    "a list": (b'["It is odd."]', ""),
    "a text": (b'"It is odd."', ""),
    "an object of nothing": ({}, "status 400"),
    "an error of null": ({"error": None}, ""),
    "an error of a list": ({"error": [{"message": "No."}]}, ""),
    "an error of a text": ({"error": "It is odd."}, "It is odd."),
    "a message": ({"message": "It is odd."}, "It is odd."),
    "a detail": ({"detail": "It is odd."}, "It is odd."),
    "a detail of a list": ({"detail": [{"loc": ["body"], "msg": "It is odd."}]}, "It is odd."),
    "a message of a number": ({"error": {"message": 5}}, ""),
    "a message of an object": ({"error": {"message": {"a": [1]}}}, ""),
    "odd types": (
        {"error": {"message": ["It is odd."], "type": 5, "code": {"a": 1}, "param": []}},
        "It is odd.",
    ),
    "line ends": ({"error": {"message": "It\r\nis\todd."}}, "It is odd."),
    "what no database holds": ({"error": {"message": "a\0b\ud800c"}}, "a\ufffdb\ufffdc"),
    "no UTF-8": (b'{"error": {"message": "\xff"}}', ""),
    "UTF-16": ('{"error": {"message": "No."}}'.encode("utf-16"), ""),
    "a mark": (b'\xef\xbb\xbf{"error": {"message": "It is odd."}}', ""),
    "nested 900 deep": (b'{"error": ' + b'{"error": ' * 900 + b"5" + b"}" * 901, ""),
    "nested 100,000 deep": (b"[" * 100_000, "status 400"),
    "long digits": (b'{"error": {"message": "It is odd.", "code": 1%s}}' % (b"0" * 5000), ""),
    "a page": (PAGE, "status 400"),
    "a long message": ({"error": {"message": "It is odd. " * 6000}}, ""),
    **{
        f"a long {name}": ({"error": {"message": "No."} | {name: LONG}}, "")
        for name in ("type", "code", "param", "message")
    },
    **{
        f"a {name} of 60 kB": ({"error": {"message": "It is odd."} | {name: LONG[:60_000]}}, "")
        for name in ("type", "code", "param")
    },
    "a message of 60 kB": ({"error": {"message": LONG[:60_000]}}, ""),
    "60 kB of not_found_error": (
        {"error": {"type": "not_found_error " * 3700, "message": "not_found_error"}},
        "",
    ),
}
SHAPED = {
    **{
        f"{name}, 400": (refusal(400, body), bad((502, 413, 400), words))
        for name, (body, words) in SHAPES.items()
    },
    **{
        f"{name}, 500": (refusal(500, body), bad((502, 413), tries=ONCE_TO_THRICE))
        for name, (body, _) in SHAPES.items()
    },
    "a text of as many characters as MAX_TOKENS can mean": (
        (head(), BEGIN, [say("x" * 10_000)] * 12, REST),
        ok("x" * 120_000),
    ),
    "the same in one event": ((head(), BEGIN, say("x" * 120_000), REST), ok("x" * 120_000)),
    "a text of more": (
        (head(), BEGIN, [say("x" * 10_000)] * 60, REST),
        bad(502, "", lambda text: 1 <= len(text) <= LONGEST_TEXT + 65536, usage=None),
    ),
    "a line of more": (
        (head(), BEGIN, say("x" * 3_000_000), REST),
        bad(502, "", lambda text: len(text) <= LONGEST_TEXT, tries=ONCE_TO_THRICE, usage=None),
    ),
}

# Answers that drip, or stop: nothing of an answer for MODEL_TIMEOUT seconds is a 504

LATE = {"seconds": (TIMEOUT - 0.5, TIMEOUT + 2 * SLACK)}
SILENT = bad(504, "nothing of an answer", usage=None, **LATE)
JSON_HEAD = head(200, "application/json")
AT_LAST = {"seconds": (0, 2 * TIMEOUT + 2 * SLACK)}
NOTHING = {
    "nothing": (OPEN,),
    "comments": (drip(b": x\n\n"),),
    "pings": (drip(PING),),
    "blank lines": (drip(b"\n"),),
    "empty words": (drip(say("")),),
    "events of the future": (drip(event({"type": "future", "choices": []})),),
    "a line without an end": (b"data: ", drip(b"x")),
    "a name without an end": (b"event: ", drip(b"x")),
}
DRIPS = {
    "nothing": ((OPEN,), SILENT),
    "a status line": ((b"HTTP/1.1 200 ", drip(b"x")), SILENT),
    "half a status line": ((b"HTT", OPEN), SILENT),
    "a header": ((PLAIN + b"X-Odd: ", drip(b"x")), SILENT),
    "headers": ((PLAIN, drip(b"X-Odd: 1\r\n")), SILENT),
    **{f"{code} without end": ((drip(part),), SILENT) for code, part in INTERIM.items()},
    **{f"{name} behind the headers": ((head(), parts), SILENT) for name, parts in NOTHING.items()},
    **{
        f"{name} behind the beginning": ((head(), BEGIN, parts), SILENT)
        for name, parts in NOTHING.items()
    },
    **{
        f"{name} behind a word": (
            (HALF, parts),
            bad(504, "nothing of an answer", "Half", usage=None, **LATE),
        )
        for name, parts in NOTHING.items()
    },
    "the size of a chunk": ((head(Transfer_Encoding="chunked"), drip(b"0")), SILENT),
    "the extension of a chunk": ((head(Transfer_Encoding="chunked"), b"5;", drip(b"x")), SILENT),
    "the beginning": (
        (head(), drip(BEGIN)),
        bad(504, "nothing of an answer", usage=None, **AT_LAST),
    ),
    "JSON": ((JSON_HEAD, b"{", drip(b" ")), SILENT),
    "JSON that falls silent": ((JSON_HEAD, b'{"choices": [', OPEN), SILENT),
    "JSON of nothing": ((JSON_HEAD, drip(b" ")), SILENT),
    "a page": ((head(200, "text/html"), PAGE, drip(b" ")), bad((502, 504), **AT_LAST)),
    **{
        f"an error of {code}": (
            (head(code, "application/json", Retry_After_Ms=1), b"{", drip(b" ")),
            bad((502, 503, 504), tries=ONCE_TO_THRICE, **AT_LAST),
        )
        for code in (400, 429, 500)
    },
    "an error of 500 that falls silent": (
        (head(500, Content_Length=9), b"{", OPEN),
        bad((502, 504), tries=ONCE_TO_THRICE, **AT_LAST),
    ),
    "errors that are slow": ((TIMEOUT * 0.42, refusal(500)), bad((502, 504), tries=(2, 3), **LATE)),
    "breaks that are slow": ((TIMEOUT * 0.42, b"SSH"), bad((502, 504), tries=(2, 3), **LATE)),
    "a pause that is too long": (
        (head(429, Content_Length=0, Retry_After=2),),
        bad((503, 504), tries=ONCE_TO_THRICE, **AT_LAST),
    ),
    "words": (
        (HALF, [(TIMEOUT * 0.4, say("."))] * 4, REST),
        ok("Half....", seconds=(TIMEOUT * 1.6, 19)),
    ),
    "thoughts": (
        (head(), BEGIN, [(TIMEOUT * 0.4, think("."))] * 4, say("The answer."), REST),
        ok(seconds=(TIMEOUT * 1.6, 19)),
    ),
    "a beginning, then an answer": (
        (head(), TIMEOUT * 0.6, BEGIN, TIMEOUT * 0.6, say("The answer."), REST),
        ok(seconds=(TIMEOUT * 1.2, 18)),
    ),
    "a word, then the end": ((HALF, TIMEOUT * 0.7, REST), ok("Half", seconds=(0, 18))),
    "an answer after comments": ((head(), [(0.2, b": x\n\n")] * 4, ANSWER), ok()),
}

# Secrets: no stretch of six characters of them may be told


def forms_of(secret):
    """(each way to write it, how long six of its characters are in it)"""
    data = secret.encode()
    quoted = "".join(f"%{byte:02X}" for byte in data)
    return [
        (secret, 6),
        (urllib.parse.quote(secret, ""), 6),
        (data.hex(), 12),
        (data.hex().upper(), 12),
        (quoted, 18),
    ] + [
        (base64.b64encode(b"x" * shift + data).decode()[4 if shift else 0 :].rstrip("="), 8)
        for shift in range(3)
    ]


BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
STRETCHES = {
    (length, form[i : i + length])
    for form, length in [*forms_of(KEY), *forms_of(PASSWORD), (BASIC[8:], 8)]
    for i in range(len(form) - length + 1)
}


def told(text):
    """What a text tells of the secrets."""
    return {
        text[i : i + length]
        for length in (6, 8, 12, 18)
        for i in range(len(text))
        if (length, text[i : i + length]) in STRETCHES
    }


def ways_of(secret):
    return [form for form, _ in forms_of(secret)] + [
        secret[:9] + "***" + secret[-8:],
        secret[4:12],
        secret[-6:],
    ]


# Each protocol's provider repeats what it was sent: the one a password, the other a key.
WAYS = [
    {CLAUDE: password, GPT: key}
    for password, key in zip(
        [*ways_of(PASSWORD), BASIC, BASIC[:16] + "…", f"user:{PASSWORD}"],
        [*ways_of(KEY), BASIC, f"Bearer {KEY}", urllib.parse.quote(PASSWORD, "")],
        strict=True,
    )
]
PLACES = {
    "a message": lambda text: (
        refusal(400, {"error": {"message": f"bad header: Basic {text}"}}),
        bad(502, "refused"),
    ),
    "a detail": lambda text: (
        refusal(422, {"detail": [{"loc": ["header"], "msg": text, "input": text}]}),
        bad(502),
    ),
    "an unknown model": lambda text: (
        refusal(404, {"error": {"message": f"no such model: {text}"}}),
        bad(400),
    ),
    "a type and a code": lambda text: (
        refusal(418, {"error": {"type": text, "code": text, "param": text}}),
        bad(502),
    ),
    "a stream": lambda text: (
        (HALF, fault({"type": "invalid_request_error", "message": f"({text})"})),
        bad(502, "", "Half"),
    ),
    "an event": lambda text: (
        (HALF, event_error({"message": text, "code": 400})),
        bad(502, "", "Half"),
    ),
    "a field": lambda text: (
        (HALF, b'error: {"code": 400, "message": "%s"}\n\n' % text.encode()),
        bad(502, "", "Half"),
    ),
    "a request id": lambda text: (
        (
            head(
                X_Request_Id=text.encode().decode("latin-1"),
                Request_Id=text.encode().decode("latin-1"),
            ),
            ANSWER,
        ),
        ok(),
    ),
    "a reason": lambda text: (ends_with(f"odd {text}", "So far"), ok("So far")),
    "a redirect": lambda text: (
        refusal(307, Location=f"/elsewhere/{urllib.parse.quote(text)}"),
        bad(502, "redirects"),
    ),
}
OF_A_KEY = [
    "Incorrect API key provided: sk***gA. You can obtain an API key from https://console.x.ai.",
    "invalid api_key",
    "No API-Key!",
]


def repeated(texts, make):
    """A row in which each protocol's provider repeats its text."""
    rows = {protocol: make(text) for protocol, text in texts.items()}
    return {protocol: spec for protocol, (spec, _) in rows.items()}, rows[GPT][1]


SECRETS = {
    **{
        f"{place}, {number}": repeated(texts, make)
        for (number, texts), (place, make) in itertools.product(enumerate(WAYS), PLACES.items())
    },
    **{
        f"status {code}": (
            {
                protocol: refusal(code, {"error": {"message": f"It is {text}."}})
                for protocol, text in WAYS[0].items()
            },
            bad((502, 503, 400), tries=ONCE_TO_THRICE),
        )
        for code in (400, 401, 402, 403, 404, 407, 409, 418, 422, 429, 500, 503, 529)
    },
    **{
        f"{text} {code}": (
            refusal(code, {"error": text}),
            bad(502, "refused this server's own key"),
        )
        for text in OF_A_KEY
        for code in (400, 422)
    },
    **{
        f"{text} in a stream": (
            (head(), fault({"message": text})),
            bad(502, "refused this server's own key", tries=ONCE_TO_THRICE),
        )
        for text in OF_A_KEY
    },
    **{
        f"{text} behind a word": (
            (HALF, fault({"message": text})),
            bad(502, "refused this server's own key", "Half"),
        )
        for text in OF_A_KEY
    },
}

SIDE_BY_SIDE = {"ends that are waited for": 128, "drips": 128}  # rows at a time, else 24
TABLES = {
    "statuses": STATUSES,
    "frames": FRAMES,
    "bodies": BODIES,
    "splits": SPLITS,
    "lines": LINES,
    "ends": {name: row for name, row in ENDS.items() if row[1].seconds[1] != USAGE_WAIT + SLACK},
    "ends that are waited for": {
        name: row for name, row in ENDS.items() if row[1].seconds[1] == USAGE_WAIT + SLACK
    },
    "reasons": REASONS,
    "errors": ERRORS,
    "shapes": SHAPED,
    "secrets": SECRETS,
}
