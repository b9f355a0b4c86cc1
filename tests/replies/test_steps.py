"""Each step of a reply in the database is a row of the table of states in tools/model, taken by a
statement that names the fence if that row requires it. The tests take each row.

Leases are set by SQL, to save waiting: 1 is one that has lapsed.
"""

import pathlib
import threading

import pytest

from client import wait_for_status, wait_until
from late_writers import SAID
from model.rules import RULES
from model.steps import Step
from modelled import SMALL, kinds_of, not_of_the_model
from observed import ObservedServer, observe, observed
from provider import cut, reply, status
from raw_tables import tables_of
from stepped import run_stepped

OVERFLOW = status(400, {"error": {"message": "Too long", "code": "context_length_exceeded"}})
NAMING = "sys.path.append('tests/support'); import naming; naming.install()\n"
ONE_WORKER = {"WEB_CONCURRENCY": 1, "GUNICORN_CMD_ARGS": "--timeout 300 --graceful-timeout 6"}


@pytest.fixture
def start(settings, tmp_path):
    """A function that starts a server of one worker on this test's database."""
    servers = []

    def start_one(**more):
        servers.append(ObservedServer(tmp_path, **settings | ONE_WORKER | more))
        return servers[-1].wait_until_up()

    yield start_one
    for server in servers:
        server.kill()
        server.stop()


@pytest.fixture
def url(settings):
    return settings["DATABASE_URL"]


def begin(client, provider, *answer, **headers):
    """Ask for a reply that goes on until somebody hangs up. Returns its session once it has this text."""
    provider.script = [reply(*answer, threading.Event())]
    headers = {"Prefer": "respond-async"} | headers
    session = client.post("/sessions", {"content": "Hello"}, **headers).json()
    text = "".join(piece for piece in answer if isinstance(piece, str))
    wait_until(lambda: client.turns(session)[1]["content"] == text)
    return session


def check(url, *kinds):
    """All steps are the model's, and steps of these kinds are among them, or will be soon."""

    def steps():
        return [step for _, step in observed(url)]

    wait_until(lambda: set(kinds) <= kinds_of(steps()))
    assert not_of_the_model(steps()) == []


def test_steps_that_users_ask_for(start, url, provider):
    server = start()
    alice = server.client()
    observe(url)
    session = begin(alice, provider, "Half ")
    path = f"/sessions/{session['id']}"
    assert alice.post(path + "/cancel").status_code == 200
    server.wait_for_output("outcome=interrupted")  # its writer has reported its usage
    provider.script = [reply("of it.")]
    assert alice.post(path + "/continue").json()["content"] == "Half of it."
    provider.script = [reply("An", stop="length"), status(400), reply("other.")]
    assert alice.post(path + "/retry").json()["content"] == "An"
    assert alice.post(path + "/retry").status_code == 502
    assert alice.turns(session)[1]["content"] == "An"  # the old reply, which is shown again
    assert alice.post(path + "/continue").json()["content"] == "Another."
    provider.script = [cut("Some ", "words "), reply("go on.")]
    assert alice.post(path + "/messages", {"content": "And?"}).json()["continued"] == 1
    assert alice.delete(path).status_code == 204
    kinds = "claim", "grow", "finish", "restart", "cancel", "settle", "go_on", "hide", "delete"
    check(url, *kinds)


def test_steps_that_processes_take_for_each_other(start, url, provider):
    first, second = start(GRACE=0), start()
    observe(url)
    bob = second.client()
    session = begin(first.client(), provider, "One ", SAID)
    with tables_of(url) as tables:
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
        is_renewed = "SELECT count(*) FROM turn WHERE lease_until > 1"
        wait_until(lambda: tables.value(is_renewed))
    provider.script = [reply("two ", threading.Event())]
    first.stop()
    wait_until(lambda: bob.turns(session)[1]["content"] == "One two ")
    second.kill()
    provider.script = [
        reply("three ", threading.Event())
    ]  # a process that starts asks for it at once
    third = start(CONTINUE_LIMIT=1)
    alice = third.client()
    wait_until(lambda: alice.turns(session)[1]["content"] == "One two three ")
    third.kill()
    wait_for_status(start(CONTINUE_LIMIT=1).client(), session, "interrupted", 20)
    check(url, "renew", "count", "release", "take_over", "give_up")


def test_steps_of_a_process_that_may_not_hand_over(start, url, provider):
    server = start(CONTINUE_LIMIT=0, GRACE=0)
    observe(url)
    session = begin(server.client(), provider, "One ")
    server.stop()
    assert wait_for_status(start().client(), session, "interrupted")["content"] == "One "
    check(url, "stop")


UNDER_WAY = Step("in_progress", "in_progress", was_shown=True, is_shown=True)
TAKEN_OVER = UNDER_WAY._replace(fence="new", lease="new")


def test_a_takeover_counts_as_a_restart_unless_the_reply_was_released():
    right = [TAKEN_OVER._replace(restarts="more"), TAKEN_OVER._replace(was_released=True)]
    wrong = [TAKEN_OVER, TAKEN_OVER._replace(restarts="more", was_released=True)]
    assert not_of_the_model([*right, *wrong], SMALL) == sorted(wrong)


def test_a_claim_has_a_fence_and_a_lease():
    claim = Step("nothing", "in_progress", fence="new", lease="new", is_shown=True)
    wrong = claim._replace(fence="same"), claim._replace(lease="same")
    assert not_of_the_model([claim, *wrong], SMALL) == sorted(wrong)


SPOILED = """
with db.connection_context():
    for statement in ("UPDATE piece SET text = 'Two '", "DELETE FROM piece"):
        _, _, writer = begin()
        writer.step()
        keeper.round(now)
        db.execute_sql(statement)
        writer.step()
        keeper.round(now)
        threads.things.clear()
    print(1)
"""


def test_text_that_changes_other_than_by_growing_is_found(new_database):
    url = new_database()
    run_stepped("print(1)", DATABASE_URL=url)  # it makes the tables
    observe(url)
    run_stepped(NAMING + SPOILED, DATABASE_URL=url)
    spoiled = {turn: step for turn, step in observed(url) if step.text == "other"}
    assert len(spoiled) == 2
    assert not_of_the_model(spoiled.values(), SMALL) == sorted(set(spoiled.values()))


UNDONE = """
def commit_and_lose_the_answer(self):
    commit(self)
    raise Unavailable

with db.connection_context():
    commit, ReplyRequest.commit = ReplyRequest.commit, commit_and_lose_the_answer
    try:
        begin()
    except Unavailable:
        keeper.check()
    print(json.dumps(db.execute_sql("SELECT count(*) FROM turn").fetchone()[0]))
"""


def test_a_claim_whose_answer_was_lost_is_undone(new_database):
    url = new_database()
    run_stepped("print(1)", DATABASE_URL=url)  # it makes the tables
    observe(url)
    assert run_stepped(NAMING + UNDONE, DATABASE_URL=url) == 0
    check(url, "undo")


LATE = """
from models import outcome_of

writes = (
    lambda: keeper.begin(),  # it renews its lease
    lambda: commits.count_restart(late.draft.turn),
    lambda: (writer.step(), keeper.store_all()),
    lambda: (late.draft.set(input_tokens=7), commits.store([], [], [late.draft])()),
    lambda: (late.finish(outcome_of("complete")), keeper.store_all()),
    lambda: (late.finish(outcome_of("in_progress")), keeper.store_all()),
)
with db.connection_context():
    for write in writes:
        _, late, writer = begin()
        writer.step()
        keeper.round(now)
        commits.take_over(late.id, late.draft.turn.lease_until, 2, fence=10**12)
        write()
        threads.things.clear()
    print(len(writes))
"""


def test_a_writer_whose_reply_was_taken_over_takes_no_step(new_database):
    url = new_database()
    run_stepped("print(1)", DATABASE_URL=url)  # it makes the tables
    observe(url)
    count = run_stepped(NAMING + LATE, DATABASE_URL=url)
    assert not_of_the_model([step for _, step in observed(url)], SMALL) == []
    last = dict(observed(url))
    assert [step.fence for step in last.values()] == ["new"] * count


def test_the_tests_of_this_file_take_each_row_of_the_table():
    """Each row that is listed as a kind."""
    text = pathlib.Path(__file__).read_text()
    assert [name for name in RULES if f'"{name}"' not in text] == []
