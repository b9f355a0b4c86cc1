"""The audit of a history: a correct one passes, and each kind of damage is found."""

import pytest

import damaged_calls  # noqa: F401
import damaged_stores  # noqa: F401
import damaged_streams  # noqa: F401
from auditing import audit
from damaging import DAMAGES, Damaged
from talked import record_a_life


@pytest.fixture(scope="module")
def life(engine, new_database, tmp_path_factory):
    """The text of a correct history."""
    return record_a_life(tmp_path_factory.mktemp("life"), new_database()).read_text("utf-8")


def test_a_correct_history_has_no_fault(life):
    book = audit(life.splitlines())
    assert book.problems == []
    assert all(book.counts[name] for name in ("operations", "streams", "frames", "calls", "keys"))


def test_damage_is_found_and_named_by_the_broken_promise(life, subtests):
    for name, (promise, damage) in DAMAGES.items():
        with subtests.test(name):
            damaged = Damaged(life)
            damage(damaged)
            found = audit(damaged.text()).problems
            assert promise in {each.promise for each in found}, [str(each) for each in found]
