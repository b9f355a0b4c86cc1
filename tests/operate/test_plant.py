"""tools/plant plants faults in copies, and says which test finds each. One fault is enough here."""

from finders import Suite
from planting import new_copy, read_faults

QUICK = "position-off-by-one"  # the test that finds it needs no server


def test_a_planted_fault_is_found_and_nothing_is_found_without_one():
    fault = read_faults()[QUICK]
    nearest = Suite(minutes=2, workers=0, is_near_only=True)
    with new_copy() as copy:
        found = nearest.look(copy, fault)
        nothing = nearest.look(copy, fault._replace(new=fault.old))
    assert found.is_found and found.what.startswith(fault.near[0])
    assert not nothing.is_found
    assert not copy.root.exists()
