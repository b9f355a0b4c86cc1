"""Our own bugs, planted where they cost most: each costs one request (500) or one reply, and none looks like an outage."""

import re
import threading

import pytest
import requests

from client import ALICE, BOB, wait_for_status, wait_until
from product import copy_of_the_service
from provider import asked, reply
from raw_tables import tables_of
from servers import Server

BROKEN = {"status": "500", "title": "Internal Server Error"}


OUTAGE = "the database does not answer"


# Python loads this module before the service. It plants the bug that PLANT names.
PLANTS = '''
import os

def plant(place, name, when):
    """Have this function raise what FAULT says, where its arguments fulfil the condition."""
    sound = getattr(place, name)
    def faulty(*arguments, **options):
        if when(*arguments, **options):
            raise eval(os.environ["FAULT"])
        return sound(*arguments, **options)
    setattr(place, name, faulty)

def plant_all():
    import api.receive, models, replies.commits, replies.keeper, replies.reply, replies.titles, maintenance.deletion
    from providers.conversation import Continuation
    {
        "request": lambda: plant(api.receive, "first_title", lambda message: "bad" in message),
        "handler": lambda: plant(models.Session, "page", lambda owner, *_: "alice" in owner),
        "writer": lambda: plant(Continuation, "add", lambda self, text: "bad" in text),
        "end": lambda: plant(replies.reply, "normalize", lambda text, **_: "bad" in text),
        "keeper": lambda: plant(
            replies.commits, "store", lambda pieces, finished, **_:
                any("bad" in text for text in [piece.text for piece in pieces]
                    + [draft.turn.content for draft in finished if draft.turn.status != "failed"])
        ),
        "stuck": lambda: plant(
            replies.commits, "store", lambda finished, **_:
                any("alice" in draft.turn.session.owner for draft in finished)
        ),
        "poll": lambda: plant(replies.commits, "read_news", lambda positions: True),
        "look": lambda: plant(replies.commits, "find_orphans", lambda alive: True),
        "title": lambda: plant(replies.titles, "proposed_title", lambda answer: True),
        "sweep": lambda: plant(maintenance.deletion, "delete_sessions", lambda condition: True),
    }[os.environ["PLANT"]]()
'''


# One of each kind, since an error of a file or a socket might be taken for an outage.
NO_MEMORY = "MemoryError()"
BUG, NO_FILE, BAD_DISK = (
    "ValueError('secret')",
    "FileNotFoundError(2, 'secret')",
    "OSError(5, 'secret')",
)


TITLED = {"TITLE_MODEL": "m-2"}


@pytest.fixture
def planted(settings, tmp_path):
    """A function that starts a server of one process with this bug."""
    servers, root = [], copy_of_the_service(tmp_path / "planted")
    (root / "plants.py").write_text(PLANTS)
    app = (root / "app.py").read_text()
    (root / "app.py").write_text(app + "\n\nimport plants\n\nplants.plant_all()\n")

    def start(place, fault, **more):
        server = Server(
            tmp_path, root=root, PLANT=place, FAULT=fault, WEB_CONCURRENCY=1, **settings | more
        )
        servers.append(server)
        return server.wait_until_up()

    yield start
    for server in servers:
        server.kill()
        server.stop()


def is_served(server, user=BOB):
    """Whether another user gets everything that they ask for."""
    bob = server.client(user)
    session = bob.create("Hello")
    assert bob.post(f"/sessions/{session['id']}/messages", {"content": "And?"}).status_code == 201
    assert [turn["content"] for turn in bob.turns(session)][1::2] == ["The answer."] * 2
    assert bob.get("/sessions").status_code == 200
    assert requests.get(server.url + "/health", timeout=5).status_code == 200
    return True


def check_is_broken(response):
    """Check that the answer tells of a bug, and of nothing more. Returns the request's id."""
    assert response.status_code == 500, response.text
    [error] = response.json()["errors"]
    assert error.items() >= BROKEN.items() and "Retry-After" not in response.headers
    return response.headers["X-Request-ID"]


def check_is_told(server, request_id=None):
    """Check that the log has the bug's stack and the request's id (if given), but no outage and no text of a user."""
    log = server.wait_for_output(" ERROR ")
    assert re.search(r'^  File ".*", line \d+, in \w+$', log, re.MULTILINE)
    assert OUTAGE not in log and "secret" not in log
    if request_id:
        errors = [line for line in log.splitlines() if " ERROR " in line]
        assert any(f"id={request_id}" in line for line in errors), log


def test_a_bug_in_a_handler_costs_one_request(planted):
    server = planted("handler", NO_FILE)
    check_is_told(server, check_is_broken(server.client(ALICE).get("/sessions")))
    assert is_served(server)


@pytest.mark.parametrize("place, fault", [("writer", BAD_DISK), ("end", BUG), ("keeper", NO_FILE)])
def test_a_bug_in_a_reply_costs_that_reply(planted, provider, place, fault):
    """Another reply that is in progress completes."""
    server, gate = planted(place, fault), threading.Event()
    alice, bob = server.client(ALICE), server.client(BOB)
    provider.script = [reply("Half ", gate, "and half."), reply("Good ", "and bad.")]
    session = bob.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    provider.wait_for_request()
    check_is_told(server, check_is_broken(alice.post("/sessions", {"content": "Hello"})))
    [own] = alice.get("/sessions").json()["data"]
    turn = alice.turns(own)[1]
    assert (turn["status"], turn["error"]["status"]) == ("failed", 500)
    gate.set()
    assert wait_for_status(bob, session, "complete")["content"] == "Half and half."
    assert alice.post(f"/sessions/{own['id']}/retry").json()["content"] == "The answer."
    assert is_served(server)


def test_a_bug_in_one_reply_does_not_stop_the_others_from_being_handed_over(
    planted, start, settings, provider
):
    server, never = planted("end", BUG, GRACE=0), threading.Event()
    alice, bob = server.client(ALICE), server.client(BOB)
    provider.script = [reply("bad ", never), reply("Half ", never)]
    sessions = []
    for user, text in ((alice, "bad "), (bob, "Half ")):
        made = user.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        wait_until(lambda: user.turns(made)[1]["content"] == text)
        sessions.append(made)
    server.stop()
    check_is_told(server)
    provider.default = reply("and half.")
    other = start(**settings)
    turn = wait_for_status(other.client(BOB), sessions[1], "complete", 10)
    assert (turn["content"], turn["continued"]) == ("Half and half.", 1)
    assert other.client(ALICE).turns(sessions[0])[1]["status"] == "failed"


def is_for_a_reply(request):
    """Whether this asks for the waiting reply, and not for a title."""
    return request.body["model"] == "m-1" and asked(request) == "Wait"


def test_a_reply_whose_end_cannot_be_stored_ends_as_if_its_process_had_died(planted, tables):
    server = planted("stuck", BUG, CONTINUE_LIMIT=0)
    alice = server.client(ALICE)
    check_is_told(server, check_is_broken(alice.post("/sessions", {"content": "Hello"})))
    assert is_served(server)
    [session] = alice.get("/sessions").json()["data"]
    tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")  # it has lapsed
    wait_for_status(alice, session, "interrupted")
    assert server.output().count(" ERROR ") < 5


@pytest.mark.parametrize(
    "place, fault", [("poll", NO_FILE), ("look", BUG), ("title", BUG), ("sweep", NO_FILE)]
)
def test_a_bug_outside_the_writer_costs_no_reply(planted, provider, place, fault):
    server, gate = planted(place, fault, **(TITLED if place == "title" else {})), threading.Event()
    provider.default = lambda request: reply(
        *(["Half ", gate, "and half."] if is_for_a_reply(request) else ["The answer."])
    )(request)
    alice = server.client(ALICE)
    session = alice.post("/sessions", {"content": "Wait"}, Prefer="respond-async").json()
    check_is_told(server)
    assert is_served(server)
    gate.set()
    assert wait_for_status(alice, session, "complete")["content"] == "Half and half."
    assert server.output().count(" ERROR ") < 10


def test_a_request_that_runs_out_of_memory_gets_503(planted):
    server = planted("request", NO_MEMORY)
    refused = server.client(ALICE).post("/sessions", {"content": "bad"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "too much to do" in refused.json()["errors"][0]["detail"]
    assert server.client(ALICE).create("Hello")


def test_a_reply_that_runs_out_of_memory_fails_with_503(planted, provider):
    provider.script = [reply("bad ", "text")]
    failed = planted("writer", NO_MEMORY).client(ALICE).post("/sessions", {"content": "Hello"})
    assert failed.status_code == 503 and failed.headers["Retry-After"]


# Errors that the database raises


def other_tables(settings, *statements):
    with tables_of(settings["DATABASE_URL"]) as tables:
        for statement in statements:
            tables.rows(statement)


def test_a_missing_table_costs_only_the_requests_that_need_it(start, settings):
    server = start(**settings)
    other_tables(settings, "ALTER TABLE usage RENAME TO elsewhere")
    alice = server.client(ALICE)
    check_is_told(server, check_is_broken(alice.get("/usage")))
    assert alice.get("/sessions").status_code == 200
    assert requests.get(server.url + "/health", timeout=5).status_code == 200
    other_tables(settings, "ALTER TABLE elsewhere RENAME TO usage")
    assert alice.get("/usage").status_code == 200
    assert is_served(server)


def test_if_their_text_cannot_be_stored_replies_fail_and_later_ones_work(start, settings, provider):
    server = start(**settings, WEB_CONCURRENCY=1)
    other_tables(settings, "ALTER TABLE piece RENAME TO elsewhere")
    alice = server.client(ALICE)
    provider.script = [reply("Half ", threading.Event())]
    check_is_told(server, check_is_broken(alice.post("/sessions", {"content": "Hello"})))
    assert provider.posts[0].hung_up.wait(5)
    assert requests.get(server.url + "/health", timeout=5).status_code == 200
    other_tables(settings, "ALTER TABLE elsewhere RENAME TO piece")
    [session] = alice.get("/sessions").json()["data"]
    assert alice.turns(session)[1]["error"]["status"] == 500
    assert alice.post(f"/sessions/{session['id']}/retry").json()["content"] == "The answer."
    assert is_served(server)
    assert server.output().count(" ERROR ") < 5


def test_a_broken_constraint_costs_one_request(start, settings):
    server = start(**settings)
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.rows(
            "CREATE TRIGGER odd BEFORE INSERT ON turn WHEN NEW.content LIKE '%bad%' "
            "BEGIN SELECT RAISE(ABORT, 'secret'); END"
            if tables.is_sqlite
            else "ALTER TABLE turn ADD CONSTRAINT secret CHECK (content NOT LIKE '%%bad%%')"
        )
    alice = server.client(ALICE)
    check_is_told(server, check_is_broken(alice.post("/sessions", {"content": "bad"})))
    assert alice.create("good") and len(alice.get("/sessions").json()["data"]) == 1
    assert is_served(server)
