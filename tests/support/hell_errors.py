"""Strange providers: errors in a stream, and errors that are none, or long."""

from hell_answers import ANSWER, BEGIN, END, HALF, PAGE, REST, Tries, choice, fault, refusal, say
from hell_right import LONGEST_TEXT, ONCE_TO_THRICE, bad, ok
from provider import event, head


def event_error(data):
    return b"event: error\n" + event(data)


OVERFLOW = "the request exceeds the available context size. try increasing the context size or enable context shift"
FAULTS = {  # the error → our status, words of the detail, how often the provider is asked if it comes first
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
