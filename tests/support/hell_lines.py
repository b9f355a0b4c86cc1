"""Strange providers: the lines of a stream."""

import itertools
import re

from hell_answers import ANSWER, BEGIN, COUNT, END, HALF, PING, REST, Made, say, stop, think
from hell_right import ONCE_TO_THRICE, bad, ok
from protocols import CLAUDE, GPT
from provider import KEEP, chunk, event, head

AWKWARD = "é世👩‍👧\u2028\x85 "
MANY = 220  # at least as many bytes as an event has
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
    """Deltas with this JSON, exactly as it is written."""
    claude = (
        '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "%s"}}'
    )
    gpt = '{"choices": [{"index": 0, "delta": {"content": "%s"}}]}'
    return {
        model: [event(form % body) for body in bodies]
        for model, form in ((CLAUDE, claude), (GPT, gpt))
    }


def replaced(*pairs):
    """The answer with these bytes replaced."""

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
