"""The seconds that the documents promise are the sums next to the constants that they are made
of.

tests/heavy/test_measured_seconds.py measures them.
"""

import math
import re

import pytest

from api.events import KEEPALIVE_INTERVAL
from database.deadline import ANSWERED
from maintenance import sweeper
from models import LEASE
from product import ROOT
from replies import HANDOVER_TIMEOUT, keeper, rescuer
from serving import dispatcher, worker
from settings import SETTINGS

SECOND, HOUR = 1_000_000, 3600
WORDS = {"a": 1, "an": 1, "one": 1, "five": 5, "ten": 10}
STREAMS, OPERATING = "docs/streams.md", "docs/operating.md"


@pytest.mark.parametrize(
    ("document", "sentence", "seconds"),
    [
        (STREAMS, "A lease lasts {} seconds", LEASE / SECOND),
        (STREAMS, "| S-37 | … within {} seconds", keeper.MAX_HANG_UP_DELAY),
        (STREAMS, "| S-41 | … at least every {} seconds", KEEPALIVE_INTERVAL),
        (STREAMS, "| S-42 | … within {} second", keeper.MAX_CANCEL_DELAY),
        (STREAMS, "| S-43 | At most {} seconds after its writer died", rescuer.GIVE_UP_DELAY),
        (STREAMS, "| S-44 | … at most {} seconds later", rescuer.TAKEOVER_DELAY),
        (
            STREAMS,
            "| S-44 | … up to {} seconds if the reply had begun",
            rescuer.TAKEOVER_DELAY_IDLE,
        ),
        (STREAMS, "| S-44 | … had begun less than {} seconds", rescuer.IDLE_INTERVAL),
        (STREAMS, "| S-45 | … `GRACE` plus {} seconds after", worker.HANDOVER_RESERVE),
        (STREAMS, "| S-47 | … reads nothing for {} seconds", dispatcher.DISCONNECT_AFTER),
        (OPERATING, "another process continues them within {} seconds", rescuer.TAKEOVER_DELAY),
        (
            OPERATING,
            "another process continues its replies within {} seconds",
            rescuer.TAKEOVER_DELAY_ELSEWHERE,
        ),
        (
            OPERATING,
            "in the same container), this takes at most {} seconds",
            rescuer.TAKEOVER_DELAY,
        ),
        (OPERATING, "it checks every {} seconds", rescuer.IDLE_INTERVAL),
        (
            OPERATING,
            "its replies to others after {} to 28 seconds",
            rescuer.MIN_TAKEOVER_DELAY_ELSEWHERE,
        ),
        (
            OPERATING,
            "its replies to others after 24 to {} seconds",
            rescuer.TAKEOVER_DELAY_ELSEWHERE,
        ),
        (OPERATING, "wait longer than `GRACE` plus {} seconds", worker.HANDOVER_RESERVE),
        (
            OPERATING,
            "| a client that reads nothing while its answer is waiting | {} seconds",
            dispatcher.DISCONNECT_AFTER,
        ),
        (
            OPERATING,
            "| all waits of a request for the database together… | {} seconds",
            ANSWERED,
        ),
        (OPERATING, "died | {} hour on the dead process's machine", sweeper.INTERVAL / HOUR),
        (OPERATING, "; {} hours elsewhere", sweeper.HALF_DELETED_ELSEWHERE / HOUR),
    ],
)
def test_a_document_has_the_sum(document, sentence, seconds):
    text = re.sub(r"(?<!\|)\n(?!\||\n)", " ", (ROOT / document).read_text("utf-8"))
    before, _, after = re.escape(sentence).replace("…", r"[^\n]*?").partition(r"\{\}")
    found = re.findall(f"{before}(\\w+){after}", text)
    assert len(found) == 1, (sentence, found)
    assert int(WORDS.get(found[0], found[0])) == math.ceil(seconds)


def test_the_waits_have_the_order_that_the_design_needs():
    """Each of these depends on one wait being shorter than another."""
    # After an outage for all, leases are renewed before any process is taken for dead.
    assert keeper.MAX_RENEWAL_DELAY < (rescuer.CHECKS_UNTIL_DEAD - 1) * rescuer.CHECK_INTERVAL
    # A process that looks seldom sees a reply before its lease lapses, and before it is handed
    # over.
    assert rescuer.IDLE_INTERVAL < LEASE / SECOND
    assert rescuer.IDLE_INTERVAL < int(SETTINGS["GRACE"].default)
    # A reply is stored before the process stops waiting for others, and that is before gunicorn
    # kills it.
    assert HANDOVER_TIMEOUT < worker.EXIT_AFTER < worker.HANDOVER_RESERVE
