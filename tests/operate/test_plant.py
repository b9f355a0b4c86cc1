"""Faults that can be planted: tools/plant plants them all; one of them is enough here."""

import pytest

from finders import Suite
from planting import new_copy, read_faults
from product import ROOT

FAULTS = read_faults()
QUICK = "position-off-by-one"  # what finds it needs no server


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_place_and_says_what_is_lost(name):
    fault = FAULTS[name]
    before = (ROOT / fault.file).read_text("utf-8")
    after = fault.planted_in(before)
    assert after != before
    if fault.file.endswith(".py"):
        compile(after, fault.file, "exec")
    assert fault.sentence.endswith(".") and ":" in fault.sentence
    assert fault.near and all((ROOT / path).exists() for path in fault.near)


def test_a_fault_breaks_what_a_document_promises():
    streams = (ROOT / "docs" / "streams.md").read_text("utf-8")
    for fault in FAULTS.values():
        is_of_streams = f"| {fault.promise} | " in streams
        assert is_of_streams or (ROOT / fault.promise).suffix == ".md", fault.name
        assert is_of_streams or (ROOT / fault.promise).exists(), fault.name


def test_half_of_the_faults_are_in_the_life_of_a_reply():
    of_replies = [fault for fault in FAULTS.values() if fault.file.startswith("replies/")]
    assert len(FAULTS) >= 30
    assert len(of_replies) >= 15


def test_a_planted_fault_is_found_and_nothing_is_found_without_one():
    fault = FAULTS[QUICK]
    nearest = Suite(minutes=2, workers=0, is_near_only=True)
    with new_copy() as copy:
        found = nearest.look(copy, fault)
        nothing = nearest.look(copy, fault._replace(new=fault.old))
    assert found.is_found and found.what.startswith(fault.near[0])
    assert not nothing.is_found
    assert not copy.root.exists()
