"""A folder with a copy of the service, for the tests of its start."""

import pytest

from product import copy_of_the_service


@pytest.fixture
def folder(tmp_path):
    """The service in a folder of its own, in which it has never been started."""
    return copy_of_the_service(tmp_path / "parley")
