"""A database as release 1.0.0 left it."""

import pytest

from product import ROOT
from raw_tables import tables_of
from releases import Release100

SCHEMAS = ROOT / "tests" / "support" / "release_1_0_0"


@pytest.fixture
def old_tables(engine, settings):
    """The tables of a database of release 1.0.0, which servers with `settings` use."""
    with tables_of(settings["DATABASE_URL"]) as old_tables:
        old_tables.run((SCHEMAS / f"{engine}.sql").read_text())
        yield old_tables


@pytest.fixture
def old(old_tables):
    return Release100(old_tables)
