"""Strange providers: status lines and headers."""

from hell_answers import ANSWER, JSON, Tries, refusal, reset
from hell_right import ONCE_TO_THRICE, bad, ok
from provider import head

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
