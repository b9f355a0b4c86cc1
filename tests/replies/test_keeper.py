"""The keeper of a process without threads: writers are steps, a round is a call, time is a number.

Modules: `replies/keeping.py`.
"""

import pytest

from provider import reply
from stepped import run_stepped

STEPS = """
with db.connection_context():
    _, feed, writer = begin()
    told = [[feed.text, feed.over]]
    has_more = True
    while has_more:
        has_more = writer.step()
        told.append([feed.text, feed.over])  # nothing is shown before it is stored
        now += 1
        keeper.round(now)
        told.append([feed.text, feed.over])
    print(json.dumps([told, feed.turn.status]))
"""


def test_a_reply_is_written_step_by_step_and_shown_round_by_round(new_database):
    told, status = run_stepped(STEPS, DATABASE_URL=new_database())
    texts = ["", "One ", "One two ", "One two three"]
    stored = [[text, None] for text in texts for _ in range(2)]
    assert told == [*stored, ["One two three", "ended"]]
    assert status == "complete"


CANCELLED = """
from wire import HungUp


def write_nothing(*given):
    raise Unavailable


def is_hung_up(call):
    try:
        call.check()
    except HungUp:
        return True
    return False


with db.connection_context():
    session, feed, writer = begin()
    writer.step()
    keeper.round(now)
    cancel(session)
    commits.store_late_usage = write_nothing
    now += 2
    told = [[is_hung_up(feed.call), feed.over]]
    try:
        keeper.round(now)
    except Unavailable:
        told.append([is_hung_up(feed.call), feed.over])
    print(json.dumps(told))
"""


def test_a_cancel_hangs_up_before_what_was_used_is_stored(new_database):
    """That may wait for the database, and so the reply is not over here before."""
    told = run_stepped(CANCELLED, DATABASE_URL=new_database())
    assert told == [[False, None], [True, None]]


HANDED_OVER = """
from models import IN_PROGRESS, outcome_of

with db.connection_context():
    _, feed, writer = begin()
    writer.step()
    keeper.round(now)
    # A commit that hung comes through, and counts what this process does not know of.
    db.execute_sql("UPDATE turn SET estimated_tokens = 3 WHERE status = 'in_progress'")
    writer.step()
    feed.finish(outcome_of(IN_PROGRESS))
    told = []
    for _ in range(2):
        keeper.round(now)
        [lease] = db.execute_sql("SELECT lease_until FROM turn WHERE kind = 'assistant'").fetchone()
        told.append([feed.text, feed.over, lease == 0])
    print(json.dumps(told))
"""


def test_a_reply_is_handed_over_though_more_is_counted_than_its_process_knows(new_database):
    """Its text is stored at once, and then it is released: it is not left to lapse."""
    told = run_stepped(HANDED_OVER, DATABASE_URL=new_database())
    assert told == [["One two ", None, False], ["One two ", "detached", True]]


RESTARTED = """
from models import Turn

with db.connection_context():
    _, feed, _ = begin()
    hung = Turn.get_by_id(feed.id)
    told = [commits.count_restart(feed.draft.turn) for _ in range(2)]
    told.append(commits.count_restart(hung))
    told.append(Turn.get_by_id(feed.id).restarts)
    print(json.dumps(told))
"""


def test_a_restart_that_hung_takes_none_back_that_followed(new_database):
    assert run_stepped(RESTARTED, DATABASE_URL=new_database()) == [True, True, False, 2]


COUNTED_IN_VAIN = """
from models import Turn


def fail(*given):
    raise Unavailable


with db.connection_context():
    _, feed, _ = begin()
    store, commits._store_restart = commits._store_restart, fail
    try:
        commits.count_restart(feed.draft.turn)
    except Unavailable:
        commits._store_restart = store
    told = [commits.count_restart(feed.draft.turn), Turn.get_by_id(feed.id).restarts]
    print(json.dumps(told))
"""


def test_a_restart_that_is_counted_in_vain_costs_none(new_database):
    assert run_stepped(COUNTED_IN_VAIN, DATABASE_URL=new_database()) == [True, 1]


LATE_TAKEOVER = """
lease = "SELECT lease_until, restarts FROM turn WHERE kind = 'assistant'"

with db.connection_context():
    begin()
    replies.registry.remove(threads.things[0][1].reply)
    db.execute_sql("UPDATE turn SET lease_until = 0, writer = NULL WHERE kind = 'assistant'")
    replies.stop(0)
    keeper.stopping = False  # it was looking for orphans already
    keeper.look()
    taken = [db.execute_sql(lease).fetchone()[0] > 0]
    keeper.stopping = True
    keeper.round(now)
    print(json.dumps(taken + list(db.execute_sql(lease).fetchone())))
"""


def test_what_is_taken_over_as_its_process_stops_is_handed_over(new_database):
    """Its takeover had begun before."""
    assert run_stepped(LATE_TAKEOVER, DATABASE_URL=new_database()) == [False, 0, 0]


IN_VAIN = """
def write(feed, writer):
    while writer.step():
        keeper.round(now)


def store_and_lose_the_answer(*given, **named):
    store(*given, **named)
    raise Unavailable


with db.connection_context():
    session, feed, writer = begin()
    write(feed, writer)
    keeper.round(now)
    request = ReplyRequest(owner="alice", session_id=session.id, goes_on=True)
    _, feed = replies.start(request, watched=True, memory=Slot(replies.memory, "alice"))
    write(feed, threads.things[-1][1])
    store, commits.store = commits.store, store_and_lose_the_answer
    try:
        keeper.round(now)
    except Unavailable:
        commits.store = store
    told = [feed.over]
    keeper.begin()
    keeper.round(now)
    row = "SELECT status, stop_reason FROM turn WHERE kind = 'assistant'"
    told += [feed.over, feed.turn.error_status, *db.execute_sql(row).fetchone()]
    print(json.dumps(told))
"""


def test_a_continue_in_vain_is_told_so_though_the_answer_of_its_commit_is_lost(
    new_database, provider
):
    """The row says how the reply had ended before: read alone, it would look as if all was well."""
    provider.script = [reply("One ", stop="length"), reply()]
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    told = run_stepped(IN_VAIN, DATABASE_URL=new_database(), **settings)
    assert told == [None, "ended", 502, "complete", "length"]


UNANSWERED = """
def take_and_lose_the_answer(*given):
    take(*given)
    raise Unavailable


def look():
    global now
    now += 1
    keeper.look()


with db.connection_context():
    _, _, writer = begin()
    writer.step()
    keeper.round(now)
    replies.registry.remove(writer.reply)
    db.execute_sql("UPDATE turn SET lease_until = 1, writer = NULL WHERE kind = 'assistant'")
    take, commits.take_over = commits.take_over, take_and_lose_the_answer
    told = []
    try:
        while True:
            look()
    except Unavailable:
        told.append(len(replies.registry.written()))
    commits.take_over = take
    keeper.forget()
    keeper.begin()
    for _ in range(2):
        look()
        told.append(len(replies.registry.written()))
    row = "SELECT continued, restarts FROM turn WHERE kind = 'assistant'"
    print(json.dumps(told + list(db.execute_sql(row).fetchone())))
"""


def test_a_takeover_that_was_not_answered_is_written_on_at_once_and_counted_once(new_database):
    assert run_stepped(UNANSWERED, DATABASE_URL=new_database()) == [0, 1, 1, 1, 1]


BROKEN = """
from models import Turn
from providers.answer import Answer

with db.connection_context():
    _, feed, writer = begin()
    told = []
    for word in ("One ", "two "):
        Answer(feed.exchange, 10, 10, 13)  # a call is made, with thirteen bytes
        feed.exchange.answers[-1].size = 4
        feed.go_on()
        feed.arrive(word)
        keeper.round(now)
        told.append(Turn.get_by_id(feed.id).estimated_tokens)
        now += 0.01
    print(json.dumps(told))
"""


def test_what_a_broken_call_has_used_is_stored_with_the_first_word_behind_it(new_database):
    """Its process may die within the second for which usage is gathered."""
    assert run_stepped(BROKEN, DATABASE_URL=new_database()) == [0, 5]


AHEAD = """
with db.connection_context():
    _, _, writer = begin()
    writer.step()
    keeper.round(now)
    replies.registry.remove(writer.reply)
    ahead = "writer = 'elsewhere/1/1', lease_until = lease_until + 3600000000"
    db.execute_sql("UPDATE turn SET " + ahead + " WHERE status = 'in_progress'")
    for _ in range(8):
        now += 1
        keeper.look()
    print(json.dumps([reply.text for reply in replies.registry.written()]))
"""


def test_a_reply_whose_lease_lies_in_the_future_is_taken_over(new_database):
    """The clock was set back by an hour, and the process that wrote the reply is gone."""
    assert run_stepped(AHEAD, DATABASE_URL=new_database()) == ["One "]


UNORDERED = """
with db.connection_context():
    _, feed, _ = begin()
    for start, text in ((4, "two "), (0, "One "), (8, "three")):
        values = (feed.id, start, text)
        db.execute_sql("INSERT INTO piece (turn_id, start, text) VALUES (%d, %d, '%s')" % values)
    print(json.dumps(commits.read_news({feed.id: 2})[feed.id].text))
"""


def test_followers_in_another_process_get_the_pieces_in_their_order(new_database):
    assert run_stepped(UNORDERED, DATABASE_URL=new_database()) == "e two three"


ON_A_FULL_DISK = """
import collections, database.sqlite
from models import Turn
disk = collections.namedtuple("disk", "free")
with db.connection_context():
    begin()
    Turn.update(lease_until=1, writer="elsewhere/1/1").execute()
    told = [len(commits.find_orphans(set()))]
    database.sqlite.shutil.disk_usage = lambda path: disk(0)
    try:
        commits.find_orphans(set())
    except Unavailable:
        told.append("unavailable")
    print(json.dumps(told))
"""


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_nobody_takes_a_reply_over_while_the_disk_is_full(new_database):
    """SQLite takes empty transactions all the same. The reply's writer is waiting for room, too."""
    assert run_stepped(ON_A_FULL_DISK, DATABASE_URL=new_database()) == [1, "unavailable"]


RETAKEN = """
from replies.commits import Orphan
from replies.rescuer import Rescuer
from models import Turn
asked = []

def take_over(orphan, fence):
    asked.append(fence)
    if len(asked) == 1:
        if came_through:
            commits.take_over(orphan.turn_id, orphan.lease, 2, fence)
        raise Unavailable
    return True

told = []
for came_through in (False, True):
    asked.clear()
    with db.connection_context():
        begin()
        last = Turn.select().order_by(Turn.id.desc()).first()
        Turn.update(status="complete").where(Turn.id != last.id).execute()
        Turn.update(lease_until=1, writer="elsewhere/1/1").where(Turn.id == last.id).execute()
        rescuer = Rescuer(2, take_over, lambda: None)
        looks = 0
        while len(asked) < 2:
            try:
                rescuer.rescue(until=float("inf"))
            except Unavailable:
                rescuer.forget()
                looks = 0
            looks += 1
        told.append([looks - 1, asked[0] == asked[1]])
print(json.dumps(told))
"""


def test_a_takeover_that_failed_is_tried_again_after_seven_looks_and_one_that_came_through_at_once(
    new_database,
):
    """The writer of the reply may have been waiting for the database, too, to renew its lease."""
    assert run_stepped(RETAKEN, DATABASE_URL=new_database()) == [[7, True], [1, True]]
