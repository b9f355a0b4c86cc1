"""Strange providers: the framing of a body."""

import functools

from hell_answers import (
    ANSWER,
    BEGIN,
    HALF,
    REST,
    Made,
    Tries,
    chunked,
    reset,
    say,
    shortened,
    sized,
    think,
)
from hell_right import ONCE_TO_THRICE, bad, ok
from hell_statuses import PLAIN
from protocols import counts
from provider import KEEP, chunk, head


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
