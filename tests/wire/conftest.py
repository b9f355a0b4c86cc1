"""Lines to a provider: plain, and by TLS."""

import pytest

from connections import connected

on_both_lines = {"params": [False, True], "ids": ["plain", "TLS"]}


@pytest.fixture(scope="module", **on_both_lines)
def line_of_all(request, tmp_path_factory):
    # No reply goes on: a break behind its first words is the end of it.
    with connected(
        tmp_path_factory.mktemp("line"), request.param, MODEL_TIMEOUT=20, CONTINUE_LIMIT=0
    ) as line:
        yield line


@pytest.fixture
def line(line_of_all):
    """Nothing has been asked on it yet, and no connection is open."""
    line_of_all.provider.reset()
    line_of_all.provider.disconnect()
    return line_of_all


@pytest.fixture(**on_both_lines)
def impatient_line(request, tmp_path):
    with connected(tmp_path, request.param, MODEL_TIMEOUT=1.5) as line:
        yield line
