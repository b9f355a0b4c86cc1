"""The options of a session, each described once, for the schemas, openapi.json, the requests to
providers, reading their refusals, and the terminal's `/set`. The page's fields are in
`static/page/options.js`."""

from typing import NamedTuple


class Option(NamedTuple):
    """An option, under its name in our API."""

    name: str
    # A number, a whole number, one word, or a list of texts.
    kind: type[float] | type[int] | type[str] | type[list[str]]
    description: str
    example: float | str | list[str]
    # Its name in each protocol, if a request has the same value. None: the protocol does not have
    # it, or `body` in `protocols.py` translates it.
    openai: str | None
    anthropic: str | None
    # The bounds of a number. `most` may be the name of a setting.
    least: int = 0
    most: int | str | None = None
    refusal: str | None = None  # a regular expression for its name in refusals, if it is not `name`


TEXTS_MAX, TEXT_MAX = 4, 100  # texts in a list, and characters in each
# The largest integer that every JSON reader keeps exactly (RFC 8259, section 6).
EXACT_MAX = 2**53 - 1

_ALL = (
    Option(
        "temperature",
        float,
        description="How free the model is.",
        example=0.5,
        openai="temperature",
        anthropic="temperature",
        most=2,
    ),
    Option(
        "max_tokens",
        int,
        description=(
            "The longest reply, in tokens; at most the server's `MAX_TOKENS`, which is 16384 "
            "unless it is set; what the model thinks counts."
        ),
        example=1000,
        openai=None,  # every request has a limit, with this option or without
        anthropic=None,
        least=1,
        most="MAX_TOKENS",
        refusal=r"\bmax(imum)?[ _]?(completion|output|new)?[ _]?tokens\b",
    ),
    Option(
        "reasoning_effort",
        str,
        description="How much a model thinks, in its provider's words.",
        example="low",
        openai="reasoning_effort",
        anthropic=None,  # it becomes `output_config` and `thinking`
        refusal=r"\breasoning|\beffort\b|\bthink",
    ),
    Option(
        "top_p",
        float,
        description="The model chooses among the likeliest words that together have this share.",
        example=0.9,
        openai="top_p",
        anthropic="top_p",
        most=1,
    ),
    Option(
        "seed",
        int,
        description=(
            "With the same seed, a model that supports it repeats its answer as far as it can. Not "
            "sent by Anthropic's protocol."
        ),
        example=42,
        openai="seed",
        anthropic=None,
        least=-EXACT_MAX,
        most=EXACT_MAX,
    ),
    Option(
        "stop",
        list,
        description="The reply ends before the first of these texts.",
        example=["END"],
        openai="stop",
        anthropic="stop_sequences",
        refusal=r"\bstop(_sequences)?\b",
    ),
)
OPTIONS = {option.name: option for option in _ALL}
