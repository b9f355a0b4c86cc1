"""A late writer, as in tests/replies/test_late_writers.py, whose lease lapses by itself: nobody but the processes has a hand in it."""

import pytest

from late_writers import check_late_writer

pytestmark = pytest.mark.long


def test_the_reply_of_a_paused_process_is_taken_over_within_thirty_seconds(
    start, settings, provider
):
    """By another one that nobody asks; and what the paused one does later is nothing."""
    check_late_writer(start, settings, provider, is_whole=True, lapse=lambda tables: None)
