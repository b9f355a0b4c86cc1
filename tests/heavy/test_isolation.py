"""A PostgreSQL whose transactions are serializable by default.

Such a transaction may be aborted because of another one at the same time (40001 or 40P01), and
must be tried again.
"""

import collections
import os
import random
import subprocess
import sys
import time
import uuid

import pytest

from client import at_once
from cluster import new_cluster
from product import ROOT
from provider import reply
from servers import running
from talker import counting
from users import User

SERIALIZABLE = {"default_transaction_isolation": "serializable"}
TESTS = [
    "tests/api/test_rate_limit.py",
    "tests/api/test_receive.py",
    "tests/api/test_sessions.py",
    "tests/api/test_streams.py",
    "tests/replies/test_claim.py",
    "tests/replies/test_reply.py",
    "tests/replies/test_title_model.py",
    "tests/tables/test_idempotency.py",
    "tests/heavy/test_load.py::test_starts_with_many_processes_at_the_same_instant_on_an_empty_database",
]


@pytest.fixture(scope="module")
def serializable():
    with new_cluster(**SERIALIZABLE) as cluster:
        yield cluster


@pytest.fixture
def server(serializable, provider, tmp_path):
    """Two workers on a database that is serializable by its own setting."""
    name = f"parley_{uuid.uuid4().hex}"
    serializable.ask(f"CREATE DATABASE {name}")
    serializable.ask(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    settings = {
        "DATABASE_URL": serializable.url(name),
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    with running(tmp_path, WEB_CONCURRENCY=2, **settings) as server:
        yield server
        assert "Traceback" not in server.output()


@pytest.mark.long
def test_the_suite_passes_with_serializable_transactions(serializable):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-q",
        "--tb=short",
        "-k",
        "postgresql",
        *TESTS,
    ]
    environment = os.environ | {"TEST_DATABASE_URL": serializable.url("postgres")}
    suite = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert suite.returncode == 0, suite.stdout[-5000:]


class Strict(User):
    """A user who never gets 502 or 503, since no provider fails here and nobody sends too many
    requests."""

    taken = (409,)


def test_no_request_fails_because_of_another(server, provider):
    """Many clients do at random everything that can be done, three with each token. Each is
    answered as if it were alone."""
    provider.default = repeat
    until, seed = time.monotonic() + 10, random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # shown if it fails
    users = [
        Strict(server, f"https://github.com/user{number % 3}", seed + number, until)
        for number in range(9)
    ]
    for user in users:
        user.start()
    for user in users:
        user.join(120)
    told = sum((user.told for user in users), collections.Counter())
    problems = [problem for user in users for problem in user.problems]
    assert not problems, f"{len(problems)} of {told.total()}: {problems[:5]}"
    for user in users:
        for session in user.sessions:
            turns = user.client.turns({"id": session})
            assert {turn["status"] for turn in turns[1::2]} <= {"complete", "interrupted"}, turns


def repeat(request):
    """The model's answer: the mark of the message, a few times."""
    return reply(*counting(request, 10, 0.01))(request)


def test_simultaneous_requests_are_answered_as_if_one_came_after_the_other(server, provider):
    """Eight equal creations with one key make one session, and one of eight messages to it is
    accepted."""
    alice = server.client()
    for _ in range(5):
        key = uuid.uuid4().hex
        created = at_once(
            8, lambda number: alice.post("/sessions", {"content": "Hello"}, Idempotency_Key=key)
        )
        assert {answer.status_code for answer in created} <= {201, 409}, [
            answer.text for answer in created
        ]
        [session] = {answer.headers["Location"] for answer in created if answer.status_code == 201}
        provider.script = [reply(0.5, "Slow.")]
        sent = at_once(
            8,
            lambda number: alice.post(
                f"{session}/messages", {"content": f"{number}"}, Prefer="respond-async"
            ),
        )
        assert sorted(answer.status_code for answer in sent) == [202] + 7 * [409], [
            answer.text for answer in sent
        ]
        cancelled = at_once(4, lambda number: alice.post(f"{session}/cancel"))
        assert {answer.status_code for answer in cancelled} <= {200, 409}, [
            answer.text for answer in cancelled
        ]
        changed = at_once(8, lambda number: alice.patch(session, {"title": f"Title {number}"}))
        assert {answer.status_code for answer in changed} == {200}, [
            answer.text for answer in changed
        ]
    assert len(alice.get("/sessions").json()["data"]) == 5
