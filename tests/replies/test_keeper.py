"""The keeper without threads: writers are steps, a round is a call, time is a number."""

import pytest

from provider import reply
from stepped import run_stepped

STEPS = """
with db.connection_context():
    _, feed, writer = begin()
    told = [[feed.text, feed.state]]
    has_more = True
    while has_more:
        has_more = writer.step()
        told.append([feed.text, feed.state])  # nothing is shown before it is stored
        now += 1
        keeper.round(now)
        told.append([feed.text, feed.state])
    print(json.dumps([told, feed.turn.status]))
"""


def test_a_reply_is_written_step_by_step_and_shown_round_by_round(new_database):
    told, status = run_stepped(STEPS, DATABASE_URL=new_database())
    texts = ["", "One ", "One two ", "One two three"]
    stored = [[text, None] for text in texts for _ in range(2)]
    assert told == [*stored, ["One two three", "ended"]]
    assert status == "complete"


HANG_UPS = """
from wire import HungUp


def is_hung_up(call):
    try:
        call.check()
    except HungUp:
        return True
    return False
"""

CANCELLED = (
    HANG_UPS
    + """
def write_nothing(*given):
    raise Unavailable


with db.connection_context():
    session, feed, writer = begin()
    writer.step()
    keeper.round(now)
    cancel(session)
    commits.store_late_usage = write_nothing
    now += 2
    told = [[is_hung_up(feed.call), feed.state]]
    try:
        keeper.round(now)
    except Unavailable:
        told.append([is_hung_up(feed.call), feed.state])
    print(json.dumps(told))
"""
)


def test_a_cancel_hangs_up_before_the_usage_is_stored(new_database):
    """Storing may wait for the database. Until then the reply is not over in this process."""
    told = run_stepped(CANCELLED, DATABASE_URL=new_database())
    assert told == [[False, None], [True, None]]


POLLED = (
    HANG_UPS
    + """
from models import Piece, Turn

with db.connection_context():
    _, reply, writer = begin()
    writer.step()
    keeper.round(now)
    commits.take_over(reply.id, reply.draft.turn.lease_until, 2, fence=7)
    now += 2
    keeper.round(now)
    told = [[reply.text, reply.state, is_hung_up(reply.call)]]
    follower = replies.follow(Turn.read(reply.id), watched=True)
    Piece.create(turn=reply.id, start=len(reply.text), text="more ")
    now += 2
    keeper.round(now)
    told.append([follower.text, follower.state])
    print(json.dumps(told))
"""
)


def test_a_poll_sees_another_writer_and_the_text_of_that(new_database):
    """The first writer's model says nothing more, so no commit of its own tells that it is late."""
    told = run_stepped(POLLED, DATABASE_URL=new_database())
    assert told == [["One ", "detached", True], ["One more ", None]]


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
        told.append([feed.text, feed.state, lease == 0])
    print(json.dumps(told))
"""


def test_a_reply_is_handed_over_even_if_the_row_counts_more_than_its_process_knows(new_database):
    """Its text is stored at once, and then the reply is released: its lease need not lapse."""
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


def test_a_late_commit_of_a_restart_undoes_no_later_restart(new_database):
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


def test_a_restart_whose_commit_failed_is_not_counted(new_database):
    assert run_stepped(COUNTED_IN_VAIN, DATABASE_URL=new_database()) == [True, 1]


LATE_TAKEOVER = """
lease = "SELECT lease_until, restarts FROM turn WHERE kind = 'assistant'"

with db.connection_context():
    begin()
    replies.registry.remove(threads.things[0][1].reply)
    db.execute_sql("UPDATE turn SET lease_until = 0, writer = NULL WHERE kind = 'assistant'")
    replies.stop()
    keeper.stopping = False  # it was looking for orphans already
    keeper.check()
    taken = [db.execute_sql(lease).fetchone()[0] > 0]
    keeper.stopping = True
    keeper.round(now)
    print(json.dumps(taken + list(db.execute_sql(lease).fetchone())))
"""


def test_a_reply_taken_over_during_a_stop_is_handed_over(new_database):
    """The takeover had begun before the stop."""
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
    request = ReplyRequest(owner="alice", session_id=session.id, continues_last=True)
    _, feed = replies.start(request, watched=True, memory=Slot(replies.memory_bulkhead, "alice"))
    write(feed, threads.things[-1][1])
    store, commits.store = commits.store, store_and_lose_the_answer
    try:
        keeper.round(now)
    except Unavailable:
        commits.store = store
    told = [feed.state]
    if others := json.loads(sys.argv[2]):
        db.execute_sql(f"UPDATE turn SET {others} WHERE kind = 'assistant'")
    keeper.begin()
    keeper.round(now)
    row = "SELECT status, stop_reason FROM turn WHERE kind = 'assistant'"
    told += [feed.state, feed.turn.error_status, *db.execute_sql(row).fetchone()]
    print(json.dumps(told))
"""


@pytest.mark.parametrize(
    "others, shown",
    [
        pytest.param("", [502, "complete", "length"], id="no other process"),
        pytest.param(
            "fence = 7, stop_reason = 'stop'", [None, "complete", "stop"], id="a later writer"
        ),
        pytest.param(
            "cancelled = TRUE, status = 'interrupted'",
            [None, "interrupted", "length"],
            id="a cancel",
        ),
    ],
)
def test_a_continue_without_new_text_fails_even_if_the_answer_to_its_commit_is_lost(
    new_database, provider, others, shown
):
    """The row says how the reply had ended before. Read alone, it would look like a success. If
    another process has ended the reply meanwhile, its row is right."""
    provider.script = [reply("One ", stop="length"), reply()]
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    told = run_stepped(IN_VAIN, others, DATABASE_URL=new_database(), **settings)
    assert told == [None, "ended", *shown]


UNANSWERED = """
def take_and_lose_the_answer(*given):
    take(*given)
    raise Unavailable


def look():
    global now
    now += 1
    keeper.check()


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
    keeper.reset_checks()
    keeper.begin()
    for _ in range(2):
        look()
        told.append(len(replies.registry.written()))
    row = "SELECT continued, restarts FROM turn WHERE kind = 'assistant'"
    print(json.dumps(told + list(db.execute_sql(row).fetchone())))
"""


def test_a_takeover_whose_answer_was_lost_is_continued_at_once_and_counted_once(new_database):
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
        feed.expect_next_call()
        feed.receive(word)
        keeper.round(now)
        told.append(Turn.get_by_id(feed.id).estimated_tokens)
        now += 0.01
    print(json.dumps(told))
"""


def test_a_broken_calls_usage_is_stored_with_the_next_text(new_database):
    """The process may die within the second in which usage is gathered."""
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
        keeper.check()
    print(json.dumps([reply.text for reply in replies.registry.written()]))
"""


def test_a_reply_whose_lease_lies_in_the_future_is_taken_over(new_database):
    """The clock was set back by an hour, and the writer's process is gone."""
    assert run_stepped(AHEAD, DATABASE_URL=new_database()) == ["One "]


RENEWED = """
from models import Turn
from replies.commits import Orphan

with db.connection_context():
    _, feed, _ = begin()
    keeper._rescuer._end([Orphan(feed.id, lease=5, restarts=3, owner="alice", is_dead=False)])
    print(json.dumps(Turn.get_by_id(feed.id).status))
"""


def test_an_orphan_whose_lease_was_renewed_is_not_ended(new_database):
    assert run_stepped(RENEWED, DATABASE_URL=new_database()) == "in_progress"


UNORDERED = """
from models import Turn

with db.connection_context():
    _, feed, _ = begin()
    for start, text in ((4, "two "), (0, "One "), (8, "three")):
        values = (feed.id, start, text)
        db.execute_sql("INSERT INTO piece (turn_id, start, text) VALUES (%d, %d, '%s')" % values)
    print(json.dumps([commits.read_news({feed.id: 2})[feed.id].text, Turn.read(feed.id).content]))
"""


def test_the_pieces_of_a_reply_are_read_in_order(new_database):
    """By a stream in another process, and by a request for the turn."""
    told = run_stepped(UNORDERED, DATABASE_URL=new_database())
    assert told == ["e two three", "One two three"]


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
def test_no_reply_is_taken_over_while_the_disk_is_full(new_database):
    """SQLite accepts empty transactions all the same. The reply's writer is waiting for room, too."""
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
        rescuer = Rescuer(2, take_over, lambda: None, lambda turn: None)
        looks = 0
        while len(asked) < 2:
            try:
                rescuer.rescue(seconds=float("inf"))
            except Unavailable:
                rescuer.reset_checks()
                looks = 0
            looks += 1
        told.append([looks - 1, asked[0] == asked[1]])
print(json.dumps(told))
"""


def test_a_failed_takeover_waits_seven_looks_and_one_that_came_through_is_found_at_once(
    new_database,
):
    """The reply's writer may also have been waiting for the database, to renew its lease."""
    assert run_stepped(RETAKEN, DATABASE_URL=new_database()) == [[7, True], [1, True]]


UNSEEN = """
from database import check


def fail(*given):
    raise Unavailable


def is_well():
    try:
        check()
    except Unavailable:
        return False
    return True


with db.connection_context():
    begin()
    told = [is_well()]
    commits.find_orphans = fail
    try:
        keeper.check()
    except Unavailable:
        told.append(is_well())
    print(json.dumps(told))
"""


def test_health_shows_a_look_that_fails(new_database):
    """The look only reads, but nothing is stored before the keeper is back."""
    assert run_stepped(UNSEEN, DATABASE_URL=new_database()) == [True, False]


OUTAGE = (
    UNSEEN.partition("with db")[0]
    + """
from database import transaction
from replies.keeper import Outage

outage, told = Outage(), [is_well()]
outage.begin(Unavailable())
with db.connection_context():
    transaction(lambda: None)()
told.append(is_well())
outage.end()
told.append(is_well())
print(json.dumps(told))
"""
)


def test_health_shows_a_keepers_outage_until_it_is_over(new_database):
    """Even if other writes succeed: another table may be locked."""
    assert run_stepped(OUTAGE, DATABASE_URL=new_database()) == [True, False, True]


BROKEN_OFF = """
from providers.answer import Answer

counted = "SELECT output_tokens, estimated_tokens FROM turn WHERE kind = 'assistant'"
told = []


def told_after_round():
    global now
    now += 0.1
    keeper.round(now)
    told.append(list(db.execute_sql(counted).fetchone()))


with db.connection_context():
    _, reply, _ = begin()
    first = Answer(reply.exchange, 60, 1000, 40)
    first.count(output_tokens=1)
    reply.receive("Half ")
    told_after_round()
    first.count(output_tokens=4)
    told_after_round()  # it is stored once a second
    reply.on_call_broken()
    told_after_round()
    reply.expect_next_call()
    Answer(reply.exchange, 60, 1000, 48)
    told_after_round()  # of the first call, ten tokens of input are estimated
    print(json.dumps(told))
"""


def test_a_broken_calls_usage_is_stored_at_once(new_database):
    """Even in the first second. The process may be killed before the next call brings anything."""
    told = run_stepped(BROKEN_OFF, DATABASE_URL=new_database())
    assert told == [[1, 0], [1, 0], [4, 0], [4, 10]]
