"""The requirements files: each library is pinned by its hashes, and to the same version
everywhere."""

import re

from documents import block_with
from pins import PINNED_BY, Pin, read_pins
from product import ROOT


def test_requirements_are_pinned_by_hashes_and_the_same_everywhere():
    together: dict[str, Pin] = {}
    for path, pinned in PINNED_BY.items():
        pins = read_pins(pinned)
        for name, required in read_pins(path).items():
            assert required.version == pins[name].version, name
        for name, pin in pins.items():
            assert re.fullmatch(r"\d[\w.]*", pin.version), name
            assert pin.hashes and all(
                re.fullmatch(r"sha256:[\da-f]{64}", word) for word in pin.hashes
            ), name
            first = together.setdefault(name, pin)
            assert (pin.version, pin.hashes) == (first.version, first.hashes), name


def test_a_document_says_how_each_file_of_pins_is_made():
    commands = block_with("uv pip compile").splitlines()
    heads = [(ROOT / path).read_text("utf-8").splitlines()[1] for path in PINNED_BY.values()]
    assert [head.removeprefix("#").strip() for head in heads] == commands
