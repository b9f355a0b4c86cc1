"""How many round trips to PostgreSQL each operation needs: if the database is far away, these
take most of the time.

Modules: `database/postgresql.py`, `database/statements.py`.
"""

import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from client import wait_until
from counting import CountingRelay
from provider import reply

pytestmark = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

WORDS = 500
MANY = 60


class Measured:
    """A server with one worker, the line between it and its database, and a user."""

    def __init__(self, server, relay):
        self.server, self.relay, self.alice = server, relay, server.client()

    def wait_for_replies(self, count):
        """Wait until the log says that so many replies are stored: a request for them would be
        counted too."""
        self.server.wait_for_output("outcome=complete", count, seconds=60)

    def rate(self, seconds=3):
        """The round trips per second without any request."""
        before = self.relay.round_trips
        time.sleep(seconds)
        return (self.relay.round_trips - before) / seconds

    @contextlib.contextmanager
    def counted(self, limit, of=1):
        """Assert that the code within needs at most so many round trips, each of so many. Those
        that happen anyway are left out."""
        rate, began, (trips, statements) = self.rate(), time.monotonic(), self.relay.counts()
        yield
        seconds, (later_trips, later_statements) = time.monotonic() - began, self.relay.counts()
        took = (later_trips - trips - rate * seconds) / of
        told = f"{took:.1f} round trips, {(later_statements - statements) / of:.1f} statements, {rate:.1f} a second anyway"
        print(told)
        assert took <= limit, told


@pytest.fixture
def measured(start, new_database, provider):
    parts = urlsplit(new_database())
    relay = CountingRelay(parts.hostname, parts.port or 5432)
    user, at, _ = parts.netloc.rpartition("@")
    url = parts._replace(netloc=f"{user}{at}127.0.0.1:{relay.port}").geturl()
    settings = {
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "WEB_CONCURRENCY": 1,
    }
    server = start(**settings)
    try:
        yield Measured(server, relay)
    finally:
        server.kill()  # it would wait for the replies that never end
        relay.close()


def create(alice, content="Hello"):
    response = alice.post("/sessions", {"content": content}, Prefer="respond-async")
    assert response.status_code == 201, response.text
    return response.json()


def words(count, pause):
    return reply(*itertools.chain(*((f"word-{number} ", pause) for number in range(count))))


def warm_up(measured, count=15):
    """Open the connections that will be used, and let PostgreSQL prepare the frequent
    statements."""
    for number in range(count):
        create(measured.alice)
        measured.wait_for_replies(number + 1)
    return count


def test_a_creation_with_a_short_reply_takes_six_round_trips(measured, provider):
    """The claim, the end, and the little between them. It is answered before the reply is there."""
    done, count = warm_up(measured), 20
    with measured.counted(6, of=count):
        for number in range(count):
            create(measured.alice)
            measured.wait_for_replies(done + number + 1)


def test_a_list_of_twenty_sessions_in_progress_takes_three_round_trips(measured, provider):
    """However many there are: their texts are not read one by one."""
    warm_up(measured)
    provider.default = reply("Some words", threading.Event())
    sessions = [create(measured.alice) for _ in range(20)]

    def ask():
        listed = measured.alice.get("/sessions").json()["data"]
        assert {each["id"] for each in listed} == {session["id"] for session in sessions}
        return {each["last_message_preview"] for each in listed}

    wait_until(lambda: ask() == {"Some words"})
    with measured.counted(3, of=10):
        for _ in range(10):
            ask()


def test_a_silent_reply_takes_twelve_round_trips_a_second(measured, provider):
    """Nobody follows it: the process only checks whether it is still wanted."""
    warm_up(measured)
    provider.default = reply("Some words", threading.Event())
    session = create(measured.alice)
    wait_until(lambda: measured.alice.turns(session)[1]["content"] == "Some words")
    rate = measured.rate(5)
    print(f"{rate:.1f} round trips a second")
    assert rate <= 12


def stream(alice, number=0):
    """Let a reply be streamed to its end. Its events are not parsed, since that would take the
    machine's time."""
    with alice.stream("POST", "/sessions", {"content": f"Message {number}"}, timeout=120) as answer:
        assert answer.status == 201
        data = answer.response.read()
    assert data.rstrip().endswith(b"-end") and b"event: assistant_turn" in data[-20_000:], data[
        -1000:
    ]


@pytest.mark.long
def test_a_streamed_reply_of_five_hundred_words_takes_six_hundred_round_trips(measured, provider):
    warm_up(measured)
    provider.default = words(WORDS, 0.01)
    with measured.counted(600):
        stream(measured.alice)


@pytest.mark.long
def test_sixty_streamed_replies_at_once_take_a_hundred_round_trips_each(measured, provider):
    """Text that arrives for all of them is stored together, and less often than it arrives."""
    warm_up(measured)
    provider.default = words(WORDS, 0.01)
    with measured.counted(100, of=MANY), ThreadPoolExecutor(MANY) as pool:
        for streamed in [pool.submit(stream, measured.alice, number) for number in range(MANY)]:
            streamed.result()


@pytest.mark.long
def test_an_idle_service_hardly_uses_its_database(measured):
    """Another host may have left a reply there, so it looks, but less often the longer nothing
    has been in progress."""
    measured.alice.create("Hello")
    measured.wait_for_replies(1)
    time.sleep(65)
    assert measured.rate(31) * 31 <= 3
