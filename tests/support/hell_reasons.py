"""Strange providers: reasons for an end, in the words of either protocol."""

from hell_answers import ANSWER, BEGIN, COUNT, END, Tries, say, stop, think
from hell_right import Right, bad, ok
from provider import head

GOOD = [
    "stop",
    "end_turn",
    "stop_sequence",
    "eos",
    "eos_token",
]
TOOLS = ["tool_calls", "tool_use", "function_call"]
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
    # As COUNT says, the answer is shorter than our limit, so the window is full. After thoughts
    # that were not counted, we cannot know.
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
        f"{reason} behind text": (ends_with(reason, "So far"), bad(502, "run a tool", "So far"))
        for reason in TOOLS
    },
    **{f"{reason} alone": (ends_with(reason), bad(502, "run a tool")) for reason in TOOLS},
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
