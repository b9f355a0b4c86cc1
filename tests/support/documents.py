"""The README and what is in docs/: their blocks."""

import re
from collections import namedtuple

from product import ROOT

README = (ROOT / "README.md").read_text("utf-8")


Block = namedtuple("Block", "language text above")  # `above` is the paragraph before it


BLOCKS = [
    Block(language, text, README[: found.start()].rpartition("\n\n")[0].rpartition("\n\n")[2])
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for language, text in [found.groups()]
]


def heredoc(path):
    """What a block of the README writes into this file."""
    [text] = re.findall(
        rf"^cat > {re.escape(path)} <<'END'\n(.*?)^END$", README, re.MULTILINE | re.DOTALL
    )
    return text


def text_of(language):
    """The README's block of this language for one host on the same machine."""
    [text] = [
        block.text
        for block in BLOCKS
        if block.language == language and block.text.count("127.0.0.1:8000") == 1
    ]
    return text
