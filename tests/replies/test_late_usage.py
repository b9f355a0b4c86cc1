"""What a reply has used is counted once, whoever ends it, whatever becomes of its row meanwhile.

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
    assert feed.over is None
    delete_session(session.id)
    now += 1
    keeper.begin()
    keeper.round(now)
    print(json.dumps([feed.text, feed.over]))
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
    print(json.dumps([feed.text, feed.over]))
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
    assert feed.over is None
    now += 1
    keeper.begin()
    keeper.round(now)
    print(json.dumps([feed.text, feed.over]))
"""

IN_STEPS = """
from upkeep import deletion

with db.connection_context():
    session, feed, writer = begin()
    while writer.step():
        keeper.round(now)
    delete_some = deletion._delete_some
    deletion._delete_some = lambda *given: keeper.round(now) or delete_some(*given)
    delete_session(session.id)
    print(json.dumps([feed.text, feed.over]))
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
    print(json.dumps([feed.text, feed.over]))
"""


@pytest.fixture
def run(new_database, provider):
    """A function that runs a script on the provider's model: what that prints, and the row of the
    ledger, which is replies, output tokens and estimated tokens."""

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
def test_a_reply_whose_session_is_deleted_is_counted_once(run, script):
    assert run(script) == (["One two.", "deleted"], [1, 7, 0])


def test_a_cancel_that_takes_a_writer_for_dead_counts_it_in_its_place(run, provider):
    """As where the clock is stepped. The writer, which knows what its answer used, says nothing."""
    provider.default = reply("Half ", SAID, "of it", 60)
    told, (replies, output, estimated) = run(HEARD)
    assert (told, replies, output) == (["Half ", "ended"], 1, 0)
    assert estimated > 0


def test_a_writer_that_others_may_have_taken_for_dead_counts_nothing_of_a_reply_that_is_gone(run):
    told, (_, output, _) = run(OVERDUE)
    assert (told, output) == (["One two.", "deleted"], 0)
