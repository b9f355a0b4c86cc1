"""The rules as the table of docs/streams.md, which a test compares with this."""

import re

from model.rules import RULES


def table() -> str:
    """The table in Markdown."""
    heads = "from", "to", "who", "condition"
    first, *rows = (re.sub(" +", " ", f"| {' | '.join(row)} |") for row in (heads, *RULES.values()))
    return "\n".join([first, "|" + "---|" * len(heads), *rows])
