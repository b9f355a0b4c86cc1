"""A late writer, as in tests/replies/test_late_writers.py, whose lease lapses by itself: the
test changes nothing in the database."""

import pytest

from late_writers import check_late_writer

pytestmark = pytest.mark.long


def test_the_reply_of_a_paused_process_is_taken_over_within_thirty_seconds(
    start, settings, provider
):
    """By another process, without a request. The paused one's later writes do nothing."""
    check_late_writer(start, settings, provider, is_whole=True, lapse=lambda tables: None)
