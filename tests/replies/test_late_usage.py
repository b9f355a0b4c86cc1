"""What a reply has used is counted once, whichever process ends it, whatever happens to its row.

Modules: `replies/draft.py`, `replies/commits.py`.
"""

import pytest

from late_writers import SAID
from provider import reply
from raw_tables import tables_of
from stepped import run_stepped

USED = "SELECT replies, output_tokens, estimated_tokens FROM usage"

LOST_ANSWER = """
def store_and_lose_the_answer(*given, **named):
    store(*given, **named)
    raise Unavailable

with db.connection_context():
    session, feed, writer = begin()
    while writer.step():
        keeper.round(now)
    store, commits.store = commits.store, store_and_lose_the_answer
    try:
        keeper.round(now)
    except Unavailable:
        commits.store = store
    assert feed.state is None
    delete_session(session.id)
    now += 1
    keeper.begin()
    keeper.round(now)
    print(json.dumps([feed.text, feed.state]))
"""

HEARD = """
with db.connection_context():
    session, feed, writer = begin()
    writer.step()
    keeper.round(now)
    writer.step()  # by then, it has been said what the answer used
    db.execute_sql("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
    cancel(session)
    now += 1
    keeper.round(now)
    print(json.dumps([feed.text, feed.state]))
"""

LATE_AND_LOST = """
def store_and_lose_the_answer(*given):
    store(*given)
    raise Unavailable

with db.connection_context():
    session, feed, writer = begin()
    while writer.step():
        keeper.round(now)
    delete_session(session.id)
    store, commits.store_late_usage = commits.store_late_usage, store_and_lose_the_answer
    now += 1
    try:
        keeper.round(now)
    except Unavailable:
        commits.store_late_usage = store
    assert feed.state is None
    now += 1
    keeper.begin()
    keeper.round(now)
    print(json.dumps([feed.text, feed.state]))
"""

IN_STEPS = """
from maintenance import deletion

with db.connection_context():
    session, feed, writer = begin()
    while writer.step():
        keeper.round(now)
    delete_some = deletion._delete_some
    deletion._delete_some = lambda *given: keeper.round(now) or delete_some(*given)
    delete_session(session.id)
    print(json.dumps([feed.text, feed.state]))
"""

OVERDUE = """
with db.connection_context():
    session, feed, writer = begin()
    while writer.step():
        keeper.round(now)
    delete_session(session.id)
    now += 7  # looks of others, who have taken it over meanwhile, it may be
    keeper.begin()
    keeper.round(now)
    print(json.dumps([feed.text, feed.state]))
"""


@pytest.fixture
def run(new_database, provider):
    """A function that runs a script on the provider's model. It returns the script's output and the
    row of the ledger: replies, output tokens, estimated tokens."""

    def run_one(script):
        url = new_database()
        settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
        told = run_stepped(script, DATABASE_URL=url, **settings)
        with tables_of(url) as tables:
            [row] = tables.rows(USED)
        return told, list(map(int, row))

    provider.default = reply("One ", "two.")
    return run_one


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOST_ANSWER, id="an end whose answer was lost"),
        pytest.param(LATE_AND_LOST, id="what was told late, and whose answer was lost"),
        pytest.param(IN_STEPS, id="an end between the steps of the deletion"),
    ],
)
def test_a_reply_of_a_deleted_session_is_counted_once(run, script):
    assert run(script) == (["One two.", "deleted"], [1, 7, 0])


def test_a_cancel_that_takes_a_writer_for_dead_counts_its_usage(run, provider):
    """As after a step of the clock. The writer, which knows what its answer used, counts nothing."""
    provider.default = reply("Half ", SAID, "of it", 60)
    told, (replies, output, estimated) = run(HEARD)
    assert (told, replies, output) == (["Half ", "ended"], 1, 0)
    assert estimated > 0


def test_a_writer_that_may_count_as_dead_counts_nothing_of_a_deleted_reply(run):
    told, (_, output, _) = run(OVERDUE)
    assert (told, output) == (["One two.", "deleted"], 0)
