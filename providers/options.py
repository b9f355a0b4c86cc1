"""The options of a session, each described once, for the schemas, openapi.json, the requests to
providers, reading their refusals, and the terminal's `/set`. The page's fields are in
`static/page/options.js`."""

from typing import NamedTuple


class Option(NamedTuple):
    """An option, under its name in our API."""

    name: str
    kind: type[float] | type[int] | type[str]  # a number, a whole number, or one word
    description: str
    example: float | str
    # Its name in each protocol, if a request has the same value. None: the protocol does not have
    # it, or `body` in `protocols.py` translates it.
    openai: str | None
    anthropic: str | None
    # The bounds of a number. `most` may be the name of a setting.
    least: int = 0
    most: int | str | None = None
    refusal: str | None = None  # a regular expression for its name in refusals, if it is not `name`


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
)
OPTIONS = {option.name: option for option in _ALL}
