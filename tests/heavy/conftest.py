"""Hooks for the heavy tests: which of them run only by hand, and which run together."""

import pytest

from servers import Server
from together import begun_tests


def pytest_configure(config):
    Server.is_forked = False  # the tests measure Parley as its Procfile starts it
    config.addinivalue_line("markers", "long: runs only where it is asked for, by -m long")
    config.option.markexpr = config.option.markexpr or "not long"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The tests that run together come last, so that they run beside no other test."""
    items.sort(key=lambda item: "begun" in item.fixturenames)


@pytest.fixture(scope="session")
def begun(request, tmp_path_factory):
    """The selected tests that run together: name → its outcome."""
    names = {item.name for item in request.session.items if "begun" in item.fixturenames}
    with begun_tests(names, tmp_path_factory.mktemp) as begun:
        yield begun
