"""Strange providers: what comes after the end of an answer, or in its place."""

import itertools
import json

from hell_answers import (
    ANSWER,
    BEGIN,
    COUNT,
    END,
    HALF,
    OPEN,
    PAGE,
    PING,
    REST,
    Tries,
    choice,
    chunked,
    drip,
    fault,
    named,
    numbers,
    reset,
    say,
    shortened,
    sized,
    stop,
)
from hell_bodies import NO_KIND
from hell_right import ONCE_TO_THRICE, SLACK, USAGE_WAIT, Right, bad, ok
from protocols import CLAUDE, GPT, counts
from provider import event, head

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
    """A second choice next to the first."""
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
