"""Strange providers: answers that drip, or stop.

An answer that is silent for MODEL_TIMEOUT seconds is a 504.
"""

from hell_answers import ANSWER, BEGIN, HALF, OPEN, PAGE, PING, REST, drip, refusal, say, think
from hell_right import ONCE_TO_THRICE, SLACK, TIMEOUT, bad, ok
from hell_statuses import INTERIM, PLAIN
from provider import event, head

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
