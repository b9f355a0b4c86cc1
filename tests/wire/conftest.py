"""Connections to a provider: plain ones, and over TLS."""

import pytest

from connections import connected

on_both_lines = {"params": [False, True], "ids": ["plain", "TLS"]}


@pytest.fixture(scope="module", **on_both_lines)
def line_of_all(request, tmp_path_factory):
    # No reply is continued here: a break after its first words is its end.
    with connected(
        tmp_path_factory.mktemp("line"), request.param, MODEL_TIMEOUT=20, CONTINUE_LIMIT=0
    ) as line:
        yield line


@pytest.fixture
def line(line_of_all):
    """A connection with no requests on it yet, and no open socket."""
    line_of_all.provider.reset()
    line_of_all.provider.disconnect()
    return line_of_all


@pytest.fixture(**on_both_lines)
def impatient_line(request, tmp_path):
    with connected(tmp_path, request.param, MODEL_TIMEOUT=1.5) as line:
        yield line
