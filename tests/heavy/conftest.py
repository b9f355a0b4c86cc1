"""What the heavy tests have in common: which of them are left to whoever runs them by hand, and which run together."""

import pytest

from servers import Server
from together import begun_tests


def pytest_configure(config):
    Server.is_forked = False  # what is measured is Parley as its Procfile starts it
    config.addinivalue_line("markers", "long: runs only where it is asked for, by -m long")
    config.option.markexpr = config.option.markexpr or "not long"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Those that run together come last, so that they run beside no other test."""
    items.sort(key=lambda item: "begun" in item.fixturenames)


@pytest.fixture(scope="session")
def begun(request, tmp_path_factory):
    """Those that run together, of those that are asked for: name → what becomes of it."""
    names = {item.name for item in request.session.items if "begun" in item.fixturenames}
    with begun_tests(names, tmp_path_factory.mktemp) as begun:
        yield begun
