"""Databases that are away, hang, are full or damaged, and processes that are stopped: replies
and users lose nothing by it.

Each test waits most of its time, so those with `together` run at the same time.
"""

import concurrent.futures
import contextlib
import os
import random
import sqlite3
import subprocess
import threading
import time

import pytest
import requests

import trouble
from client import ALICE, wait_for_status, wait_until
from cluster import new_cluster
from dead_replies import check_many_dead
from meanwhile import all_the_while
from needs import ENGINES
from provider import reply
from raw_tables import tables_of
from readers import Reader
from soaking import soak_on
from talk import LONGEST, Asking, Talk
from together import served, together

pytestmark = pytest.mark.long

BACK = 10  # seconds within which all is well again
LATE = 1  # seconds that an answer may take if it was ready before
# Seconds after which /health reports it: five of a transaction, and some for a slow machine.
SEEN = 8


def patient(server, subject=ALICE):
    """A client whose token is valid whatever the clock says."""
    now = int(time.time())
    return server.client(subject, iat=now - 7200, exp=now + 2 * 86400)


def path_of(url):
    """The path of a SQLite file; None for another database."""
    return url.removeprefix("sqlite:///") if url.startswith("sqlite") else None


def session_of(client):
    """A session with a complete reply."""
    return client.create("Before")


# Both engines


@together
def test_random_faults_under_random_load_keep_the_invariants(folder):
    """The first two minutes of the soak, on both engines. tools/soak describes it."""
    seed = random.SystemRandom().randrange(10**6)
    try:
        soak_on(
            folder, ENGINES, 105, seed
        )  # two faults on each; with the start and the checks, it takes two minutes or more
    except BaseException as problem:
        problem.add_note(f"seed {seed}")
        raise


# PostgreSQL


@together
def test_an_outage_of_a_minute_costs_no_reply(folder):
    """Twenty replies are written all the while. All complete, each was requested once, and each
    stream has its text exactly."""
    with new_cluster() as cluster, served(folder, cluster.url()) as (server, provider, url):
        alice = server.client()
        session = session_of(alice)
        talk = Talk(alice, provider, 20, patience=150).begin(server, path_of(url))
        with Asking(alice, session) as asking:
            with trouble.away(cluster):
                began = time.monotonic()
                time.sleep(60)
                ended = time.monotonic()
            asking.wait_for("create", 201, BACK)
            asking.wait_for("health", 200, BACK)
        for what in ("create", "list", "show"):
            assert asking.told(what, began, ended - LONGEST) == {
                503
            }  # later requests may have waited for its return
        assert asking.told("health", began, ended - 1) == {503}
        assert talk.check() == 0
        asking.check()


@together
def test_a_database_that_was_read_only_is_written_again(folder):
    """/health reports it meanwhile, and seconds later all is well, without any intervention."""
    with new_cluster() as cluster, served(folder, cluster.url()) as (server, provider, url):
        alice = server.client()
        session = session_of(alice)
        talk = Talk(alice, provider, 6, patience=90).begin(server, path_of(url))
        with Asking(alice, session) as asking:
            with trouble.read_only(url):
                asking.wait_for("health", 503, BACK)
                asking.wait_for("create", 503, BACK)
                began = time.monotonic()
                time.sleep(12)
                ended = time.monotonic()
            asking.wait_for("create", 201, BACK)
            asking.wait_for("health", 200, BACK)
        assert (
            asking.told("create", began, ended - 10)
            == asking.told("health", began, ended - 1)
            == {503}
        )
        assert talk.check() == 0
        asking.check()


@together
def test_a_postgresql_that_hangs_costs_no_reply(folder):
    """For 40 seconds it accepts connections and says nothing. All requests are answered in time,
    and no thread is left."""
    with new_cluster() as cluster, served(folder, cluster.url()) as (server, provider, url):
        alice = server.client()
        session = session_of(alice)
        talk = Talk(alice, provider, 8, patience=120).begin(server)
        with Asking(alice, session) as asking, impatient(alice):
            asking.wait_for("create", 201, BACK)
            threads = trouble.threads_of(server)
            with trouble.hanging(cluster):
                began = time.monotonic()
                time.sleep(40)
                ended, most = time.monotonic(), trouble.threads_of(server)
            asking.wait_for("create", 201, BACK)
            asking.wait_for("health", 200, BACK)
            left = trouble.threads_of(server)
        check_answers(asking, began, ended, reads=503)
        assert talk.check() == 0
        asking.check()
        # One for each of the six clients that ask and the eight that follow, and those for clients
        # that have given up: two a second.
        assert max(most, left) <= threads + 6 + 8 + 2 * LONGEST, (threads, most, left)
        return f"{threads} threads before, {most} in the end, {left} after"


def impatient(client):
    """A client that gives up each request after half a second, and asks again."""

    def ask(over):
        with contextlib.suppress(requests.Timeout):
            client.get("/sessions", timeout=0.5)
            over.wait(0.5)  # if it was answered

    return all_the_while(ask)


@together
def test_a_locked_table_costs_no_reply(folder):
    """For 20 seconds, as during a migration by hand. Requests that need it are refused within
    ten."""
    with new_cluster() as cluster, served(folder, cluster.url()) as (server, provider, url):
        check_locked(server, provider, url, 20, reads=503)


def check_locked(server, provider, url, seconds, reads):
    """Replies are in progress and users send requests while the table is locked; lists and
    sessions are still answered, with this status."""
    alice = server.client()
    session = session_of(alice)
    talk = Talk(alice, provider, 8, patience=90).begin(server, path_of(url))
    with Asking(alice, session) as asking:
        asking.wait_for("create", 201, BACK)
        with trouble.locked(url):
            began = time.monotonic()
            time.sleep(seconds)
            ended = time.monotonic()
        asking.wait_for("create", 201, BACK)
        asking.wait_for("health", 200, BACK)
    check_answers(asking, began, ended, reads)
    assert talk.check() == 0
    asking.check()


@together
def test_health_reports_a_lock_on_a_table_that_only_a_reply_needs(folder):
    """Nobody else writes: as long as it is locked, the reply's process tries to store it, and
    then to read what is stored."""
    check_health_while_locked(folder, "turn")


@together
def test_health_reports_a_lock_on_a_table_that_only_reading_replies_needs(folder):
    """Other writes of the reply's process, such as its lease, do not end the outage."""
    check_health_while_locked(folder, "session")


def check_health_while_locked(folder, table):
    with (
        new_cluster() as cluster,
        served(folder, cluster.url(), WEB_CONCURRENCY=1) as (server, provider, url),
    ):
        alice = server.client()
        session = session_of(alice)
        talk = Talk(alice, provider, 1, patience=90).begin(server)
        with Asking(alice, session, writers=0) as asking:
            asking.wait_for("health", 200, BACK)
            with trouble.locked(url, table):
                began = time.monotonic()
                time.sleep(22)
                ended = time.monotonic()
            asking.wait_for("health", 200, BACK)
        assert asking.answered("health", began + SEEN, ended) == {503}
        assert talk.check() == 0


def check_answers(asking, began, ended, reads):
    """Between these times nobody could write, lists and sessions were answered with this status,
    and /health soon reported it."""
    for what, status, since in (
        ("create", 503, LATE),
        ("health", 503, SEEN),
        ("list", reads, LATE),
        ("show", reads, LATE),
    ):
        assert asking.answered(what, began + since, ended) == {status}, what


# Processes that are stopped


STOPPED = "SELECT min(lease_until) / 1000000.0 FROM turn JOIN session ON session.id = session_id WHERE title = 'talk-0'"


def check_stopped(folder, url, whole, seconds):
    """Replies continue if a worker, or all processes, stood still, whether their providers kept
    sending or had finished."""
    with served(folder, url) as (server, provider, url):
        alice, path, workers = server.client(), path_of(url), server.workers()
        talk = Talk(alice, provider, 12, patience=120).begin(server, path)
        with tables_of(url) as tables:  # it is stopped when the lease is just about to be renewed
            wait_until(lambda: 18.5 < float(tables.value(STOPPED)) - time.time() < 19.2, 12)
        pause = (
            trouble.service_stopped(server, path) if whole else trouble.stopped(workers[:1], path)
        )
        with concurrent.futures.ThreadPoolExecutor(2 * len(talk.replies)) as lookers:
            with pause:
                talk.end_half()
                until = time.monotonic() + seconds
                looking = [
                    lookers.submit(look, alice, each.session, until, whole)
                    for each in talk.replies * 2
                ]
                time.sleep(seconds)
            for each in looking:
                assert each.result() == {200}
        told = talk.check()
        assert server.workers() == workers
        wait_until(lambda: alice.get("/health").status_code == 200, BACK)
        return f"{told} of 12 streams were told of another end before"


def look(client, session, until, once):
    """The answers to a client that looks at a session, every second or once: looking does no
    harm."""
    told = set()
    while time.monotonic() < until:
        told.add(client.get(f"/sessions/{session['id']}").status_code)
        time.sleep(1)
        if once:
            break
    return told


@together
def test_a_stopped_worker_continues_its_replies_on_sqlite(folder):
    """It is stopped for longer than its leases last, but not as long as gunicorn waits for a
    worker. The other worker serves meanwhile."""
    return check_stopped(folder, None, whole=False, seconds=24)


@together
def test_a_stopped_worker_continues_its_replies_on_postgresql(folder):
    with new_cluster() as cluster:
        return check_stopped(folder, cluster.url(), whole=False, seconds=24)


@together
def test_a_stopped_service_continues_its_replies_on_sqlite(folder):
    """Like a closed laptop: for twice as long as the leases last."""
    return check_stopped(folder, None, whole=True, seconds=40)


@together
def test_a_stopped_service_continues_its_replies_on_postgresql(folder):
    with new_cluster() as cluster:
        return check_stopped(folder, cluster.url(), whole=True, seconds=40)


@together
def test_a_locked_row_delays_only_its_owner(folder):
    """He sends ten requests at once, another client asks for /health all the while, and the
    words of other replies come as usual."""
    with new_cluster() as cluster, served(folder, cluster.url()) as (server, provider, url):
        alice, bob = server.client(), server.client("bob")
        session = session_of(alice)
        talk = Talk(bob, provider, 2).begin(server)
        with (
            Asking(bob, session_of(bob)) as asking,
            tables_of(url) as tables,
            concurrent.futures.ThreadPoolExecutor(10) as pool,
        ):
            tables.rows("BEGIN")
            tables.rows(f"SELECT FROM session WHERE id = '{session['id']}' FOR UPDATE")
            path, body = f"/sessions/{session['id']}/messages", {"content": "Hello"}
            asked = [pool.submit(alice.post, path, body, Prefer="respond-async") for _ in range(10)]
            until = time.monotonic() + 12
            while time.monotonic() < until:
                before = {each: len(each.text) for each in talk.replies}
                wait_until(
                    lambda: all(len(each.text) > length for each, length in before.items()), 2
                )
            tables.rows("ROLLBACK")
            assert {each.result().status_code for each in asked} <= {202, 409, 503}
        assert talk.check() == 0
        asking.check()


@together
def test_a_damaged_reply_delays_no_other_orphan(folder):
    with served(folder, WEB_CONCURRENCY=1) as (server, provider, url):
        talk = Talk(server.client(), provider, 3).begin(server, path_of(url))
        server.kill()
        with tables_of(url) as tables:
            tables.rows(
                "UPDATE piece SET text = CAST(x'ff41' AS TEXT) WHERE turn_id = (SELECT min(turn_id) FROM piece)"
            )
        began = time.monotonic()
        (folder / "again").mkdir()
        with served(folder / "again", url) as (again, _, _):
            client = again.client()
            for each in talk.replies:
                each.given_up = True
                turn = wait_for_status(client, each.session, "complete", 40)
                assert (turn["continued"], turn["content"].endswith("The answer.")) == (1, True)
        assert time.monotonic() - began < 32
        talk.end()


# Writers that come back


def check_late(folder, url):
    """Five replies of a worker that stands still until another service has completed them all;
    then it comes back."""
    with contextlib.ExitStack() as stack:
        lone = {
            "WEB_CONCURRENCY": 1,
            "GUNICORN_CMD_ARGS": "--timeout 300",
        }  # its master does not kill it for its silence
        late, provider, url = stack.enter_context(served(folder / "late", url, **lone))
        other, other_provider, _ = stack.enter_context(served(folder / "other", url, **lone))
        replies = [
            Late(late, other, provider, name)
            for name in ("meanwhile", "later", "again", "newer", "silent")
        ]
        meanwhile, later, again, newer, silent = replies
        provider.default = lambda request: Late.answer(replies, request)
        for each in replies:
            each.begin(again=each is again)
        with trouble.service_stopped(late, path_of(url)):
            for each in replies:
                each.wait_for_its_end()
            meanwhile.more.set()
            answer = newer.there.post(newer.path + "/retry")
            assert (answer.status_code, answer.json()["content"]) == (201, "The answer.")
            before = [each.turns() for each in replies]
        for each in replies:
            assert each.asked.hung_up.wait(BACK) or each is meanwhile
        wait_until(
            lambda: late.output().count(" INFO reply ") == len(replies), BACK
        )  # it has finished with all of them
        later.more.set()
        assert [each.turns() for each in replies] == before
        assert [each.calls for each in replies] == [1] * len(replies)
        assert (
            len(other_provider.posts) == len(replies) + 2
        )  # once for each, the first of `again`, the retry of `newer`
        with tables_of(url) as tables:
            rows = tables.rows(
                "SELECT owner, replies, input_tokens, output_tokens, cached_tokens FROM usage"
            )
        used = {owner: tuple(map(int, counts)) for owner, *counts in rows}
        once, twice = (1, 15, 7, 3), (2, 30, 14, 6)
        # What the late writer's provider said is dropped together with its words.
        assert used == {
            "meanwhile": once,
            "later": once,
            "again": twice,
            "newer": twice,
            "silent": once,
        }


class Late:
    """A reply that is begun at one server and followed at another, by a user of its own."""

    def __init__(self, late, other, provider, name):
        self.here, self.there, self.name = late.client(name), other.client(name), name
        self.more, self.calls, self.asked = threading.Event(), 0, None
        self.first = "" if name == "silent" else "Half "

    def answer(replies, request):
        mark = request.body["messages"][0]["content"]
        [each] = [each for each in replies if each.name == mark]
        each.calls += 1
        each.asked = request
        return reply(*filter(None, [each.first]), each.more, "and half.")(request)

    def begin(self, again):
        """Request it. With `again`, there is one already, which it is to replace."""
        client = self.there if again else self.here
        self.session = client.post(
            "/sessions", {"content": self.name}, Prefer=None if again else "respond-async"
        ).json()
        self.path = f"/sessions/{self.session['id']}"
        if again:
            assert self.here.post(self.path + "/retry", Prefer="respond-async").status_code == 202
        wait_until(lambda: self.calls and self.last()["content"] == self.first)
        self.id = self.last()["id"]

    def turns(self):
        return self.there.turns(self.session)

    def last(self):
        return self.turns()[-1]

    def wait_for_its_end(self):
        """Follow it elsewhere until it is complete: a stream may end when the reply is taken
        over."""
        reader = Reader([self.there], self.session).follow()
        assert (reader.end, reader.lost, reader.refusals) == ("done", 0, set()), reader
        turn = self.last()
        assert (turn["id"], turn["status"], turn["continued"]) == (self.id, "complete", 1)
        assert turn["content"] == reader.text == self.first + "The answer."
        assert [each["kind"] for each in self.turns()] == ["user", "assistant"]


@together
def test_a_writer_that_comes_back_drops_replies_that_were_taken_over_on_sqlite(folder):
    """Whether its provider has finished by then or not, whether or not the reply replaces
    another, and if a newer one was requested."""
    check_late(folder, f"sqlite:///{folder}/parley.db")


@together
def test_a_writer_that_comes_back_drops_replies_that_were_taken_over_on_postgresql(folder):
    with new_cluster() as cluster:
        check_late(folder, cluster.url())


# SQLite


@together
def test_a_service_that_is_stopped_while_it_writes_costs_others_nothing(folder):
    """Two services on one file. While one stands still and holds the write lock, the other
    reads, and says that it cannot write; then both continue."""
    with contextlib.ExitStack() as stack:
        (folder / "other").mkdir()
        first, its_provider, url = stack.enter_context(served(folder))
        other, provider, _ = stack.enter_context(served(folder / "other", url))
        alice = other.client()
        session = session_of(alice)
        talks = [Talk(first.client(), its_provider, 4, patience=120).begin(first, path_of(url))]
        talks += [Talk(alice, provider, 4, patience=120).begin(other, path_of(url))]
        with Asking(alice, session) as asking, concurrent.futures.ThreadPoolExecutor(4) as pool:
            over = threading.Event()
            try:
                creating = [pool.submit(create_until, over, first.client()) for _ in range(4)]
                with trouble.stopped_while_writing(first, path_of(url)):
                    began = time.monotonic()
                    time.sleep(20)
                    assert trouble.may_write(path_of(url)) & set(first.workers())
                    ended = time.monotonic()
                asking.wait_for("create", 201, BACK)
                asking.wait_for("health", 200, BACK)
            finally:
                over.set()
            created = [answer for each in creating for answer in each.result()]
        check_answers(asking, began, ended, reads=200)
        assert [talk.check() for talk in talks] == [0, 0]
        asking.check()
        for answer in created:
            asking.check_kept(answer)
        return f"{len(created)} were created at the one that was stopped"


def create_until(over, client):
    """Create sessions all the while. Returns the answers with 201. A server that stood still may
    break a connection."""
    answers = []
    while not over.is_set():
        with contextlib.suppress(requests.ConnectionError):
            answer = client.post("/sessions", {"content": "Hello"}, Prefer="respond-async")
            assert answer.status_code in (201, 503), answer.text
            answers += [answer] if answer.status_code == 201 else []
        over.wait(0.05)
    return answers


@together
def test_an_open_transaction_of_another_program_costs_no_reply(folder):
    """For 15 seconds, as if somebody inspected the file by hand. Meanwhile everything can be
    read, and nothing is written."""
    with served(folder) as (server, provider, url):
        check_locked(server, provider, url, 15, reads=200)


@together
def test_a_full_disk_costs_nothing_that_was_answered(folder):
    """For ten seconds. A request that cannot be stored is refused with that reason. Then all is
    well, and replies in progress complete."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        with served(folder, f"sqlite:///{disk}/parley.db") as (server, provider, url):
            alice = server.client()
            session = session_of(alice)
            talk = Talk(alice, provider, 4, patience=90).begin(server, path_of(url))
            with Asking(alice, session, writers=4, content="x" * 50_000) as asking:
                with trouble.full(disk):
                    asking.wait_for("create", 503, 30)
                    asking.wait_for("health", 503, BACK)
                    time.sleep(10)
                asking.wait_for("create", 201, BACK)
                asking.wait_for("health", 200, BACK)
            assert talk.check() == 0
            asking.check()
            with contextlib.closing(sqlite3.connect(disk / "parley.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# The clock


def a_clock(folder):
    if not trouble.find_libfaketime():
        pytest.skip("libfaketime is not installed")
    return trouble.Clock(folder)


def check_step(folder, seconds):
    """Replies that are in progress when the clock is stepped complete, and so do those that
    begin afterwards."""
    clock = a_clock(folder)
    with served(folder, **clock.settings) as (server, provider, url):
        alice = patient(server)
        talk = Talk(alice, provider, 6, patience=90).begin(server, path_of(url))
        clock.step(seconds)
        for each in talk.replies * 4:  # looking does no harm
            assert alice.get(f"/sessions/{each.session['id']}").status_code == 200
        assert (
            "The answer."
            in alice.post("/sessions", {"content": "Hello"}, Accept="text/event-stream").text
        )
        with tables_of(url) as tables:
            newest = (
                tables.value("SELECT updated_at FROM session WHERE title = 'Hello'") / 1_000_000
            )
        assert abs(newest - time.time() - seconds) < 10, "the step was not seen"
        time.sleep(16)  # three rounds of every keeper
        talk.end_half()
        assert talk.check() == 0


@together
def test_stepping_the_clock_forward_by_a_minute_costs_no_reply(folder):
    check_step(folder, 60)


@together
def test_stepping_the_clock_forward_by_an_hour_costs_no_reply(folder):
    check_step(folder, 3600)


@together
def test_stepping_the_clock_back_by_an_hour_costs_no_reply(folder):
    check_step(folder, -3600)


@together
def test_a_reply_of_a_dead_process_continues_though_the_clock_was_stepped_back(folder):
    """Its lease would last an hour more. Another process takes it over within half a minute all
    the same."""
    clock = a_clock(folder)
    (folder / "other").mkdir()
    with served(folder, **clock.settings) as (first, provider, url):
        with served(folder / "other", url, **clock.settings) as (other, _, _):
            alice = patient(first)
            session = Talk(alice, provider, 1).begin(first, path_of(url)).replies[0].session
            with tables_of(url) as tables:  # otherwise its death would be seen in /proc
                tables.rows("UPDATE turn SET writer = 'elsewhere/1/1' WHERE status = 'in_progress'")
            clock.step(-3600)
            first.kill()
            began, bob = time.monotonic(), patient(other)
            turn = wait_for_status(bob, session, "complete", 40)
            assert time.monotonic() - began < 30
            assert (turn["continued"], turn["content"].endswith(" The answer.")) == (1, True)


# Many at a time


def test_five_thousand_orphaned_replies_delay_nobody(start, settings):
    check_many_dead(start, settings, 5000)


def check_readers(folder, url):
    """While nobody can write, lists and sessions are shown at once, and orphans are shown as in
    progress: they continue when the database can be written again."""
    with served(folder, url) as (server, provider, url):
        session, alice = server.client(ALICE).create("Hello"), server.client(ALICE)
        dead = trouble.copy_as_dead(url, session, 50)
        with writers_kept_out(url) as tables:
            paths = [f"/sessions/{dead[number]}" for number in range(5)] + [
                "/sessions?page[limit]=100"
            ]
            began = time.monotonic()
            seen = set()
            while time.monotonic() < began + 12:
                for path in paths:
                    asked = time.monotonic()
                    answer = alice.get(path)
                    assert answer.status_code == 200 and time.monotonic() < asked + 2, (
                        path,
                        answer.text,
                    )
                    if "turns" in answer.json():
                        seen.add(answer.json()["turns"][-1]["status"])
                time.sleep(0.5)
            assert tables.value("SELECT count(*) FROM turn WHERE status = 'in_progress'") == 50
            assert seen == {"in_progress"}
            assert len(provider.posts) == 1
        alive = {"id": dead[0]}, {"id": dead[-1]}
        for turn in [wait_for_status(alice, session, "complete", 40) for session in alive]:
            assert (turn["content"], turn["continued"]) == ("The answer.", 1)


@contextlib.contextmanager
def writers_kept_out(url):
    """Other users may read, and not write."""
    with tables_of(url) as tables:
        if tables.is_sqlite:
            tables.rows("BEGIN IMMEDIATE")
        else:
            tables.rows("BEGIN")
            tables.rows("LOCK TABLE session, turn, piece IN EXCLUSIVE MODE")
        try:
            yield tables
        finally:
            tables.rows("ROLLBACK")


@together
def test_reading_beside_orphaned_replies_writes_nothing_on_sqlite(folder):
    check_readers(folder, None)


@together
def test_reading_beside_orphaned_replies_writes_nothing_on_postgresql(folder):
    with new_cluster() as cluster:
        check_readers(folder, cluster.url())
