"""The files of requirements: each library is pinned, by its hashes, and the same everywhere."""

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from documents import block_with
from pins import PINNED_BY, Pin, read_pins
from product import ROOT


def test_what_is_required_is_pinned_by_its_hashes_and_the_same_everywhere():
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


def brought_by(requirements: list[Requirement]) -> set[str]:
    """The names of all that is installed for these, by what each of them says that it needs."""
    due, seen = [(each.name, extra) for each in requirements for extra in ("", *each.extras)], set()
    while due:
        name, extra = due.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        needs = [
            need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})
        ]
        due += [(need.name, extra) for need in needs for extra in ("", *need.extras)]
    return {name for name, extra in seen}


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "tests/requirements.in"]
)  # these are installed here
def test_all_that_the_requirements_bring_is_pinned_and_here(path: str):
    pins = {name: pin.version for name, pin in read_pins(PINNED_BY[path]).items() if pin.applies}
    brought = brought_by([pin.requirement for pin in read_pins(path).values()])
    assert {name: importlib.metadata.version(name) for name in brought} == pins


def test_a_document_tells_how_each_file_of_pins_is_made():
    commands = block_with("uv pip compile").splitlines()
    heads = [(ROOT / path).read_text("utf-8").splitlines()[1] for path in PINNED_BY.values()]
    assert [head.removeprefix("#").strip() for head in heads] == commands
