"""The documents, and their fenced blocks."""

import re
from typing import NamedTuple

from product import ROOT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
DOCUMENTS += sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("docs", "tools/*")
    for path in ROOT.glob(f"{folder}/*.md")
)
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS}


class Block(NamedTuple):
    document: str
    language: str
    text: str
    above: str  # the paragraph before it


def _blocks_of(document, text):
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: found.start()].rpartition("\n\n")[0].rpartition("\n\n")[2]
        yield Block(document, *found.groups(), above)


BLOCKS = [block for name, text in TEXTS.items() for block in _blocks_of(name, text)]


def blocks_of(document):
    return [block for block in BLOCKS if block.document == document]


def block_with(words, language="sh"):
    """The one block of this language, in any document, that has these words."""
    [block] = [each for each in BLOCKS if each.language == language and words in each.text]
    return block.text


def heredoc(path):
    """What a block writes into this file."""
    block = block_with(f"cat > {path} <<'END'\n")
    return block.partition(f"cat > {path} <<'END'\n")[2].partition("\nEND\n")[0] + "\n"


def text_of(language):
    """The block of this language for one host on the same machine."""
    [text] = [
        block.text
        for block in BLOCKS
        if block.language == language and block.text.count("127.0.0.1:8000") == 1
    ]
    return text
