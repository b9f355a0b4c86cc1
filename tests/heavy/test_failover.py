"""A PostgreSQL dies and is replaced by its standby while replies are being written.

Modules: `replies/keeper.py`.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import re
import threading
import time

import pytest
import requests

from client import ALICE, BOB, wait_for_status, wait_until
from cluster import new_cluster
from provider import reply
from readers import Reader
from servers import running

TOGETHER = 64  # replies of two users that stream while the server is killed
# Replies that one of them requests right before: more than the 32 values of a sequence that a
# standby knows in advance.
LOST = 48
AFTER = 60  # replies that the other requests right after
MOST = 60  # seconds until everything is as it should be
COUNTED = re.compile(r"(alice|bob)-(\d+)\.\d+\w* ")


def words_of(mark, count):
    """A model's words for this mark. Each word contains the mark. The words differ in length, as
    real ones do."""
    return [f"{mark}.{number}{'xyz'[: number % 4]} " for number in range(count)]


def speaker(count, pause, event):
    """A provider's default: so many words for the mark that is the last message. The last third
    comes after the event."""

    def answer(request):
        words = [(pause, word) for word in words_of(request.body["messages"][-1]["content"], count)]
        words.insert(count * 2 // 3, (lambda connection: event.wait(MOST),))
        return reply(*itertools.chain(*words))(request)

    return answer


class Followed(Reader):
    """The reader of the reply to this mark."""

    timeout = MOST

    def __init__(self, client, mark, session=None):
        super().__init__([client], session)
        self.mark = mark


class Crowd:
    """Clients that request replies and follow them, and remember all that the service sends."""

    def __init__(self, pool):
        self.pool = pool
        self.until = time.monotonic() + MOST
        self.followed = []
        self.following = []  # a future for each client that follows a reply
        self.codes = []
        self._lock = threading.Lock()

    def ask(self, client, mark, readers=2):
        """Request the reply to this mark until it begins, and let so many clients follow it.
        Returns its session."""
        while True:
            response = None
            with contextlib.suppress(requests.ConnectionError):
                response = client.post("/sessions", {"content": mark}, Prefer="respond-async")
                with self._lock:
                    self.codes.append(response.status_code)
            if response is not None and response.status_code == 201:
                break
            assert time.monotonic() < self.until, response is not None and response.text
            time.sleep(0.05)
        session = response.json()
        for _ in range(readers):
            followed = Followed(client, mark, session)
            with self._lock:
                self.followed.append(followed)
                seconds = self.until - time.monotonic()
                self.following.append(self.pool.submit(followed.follow, seconds))
        return mark, session


def served(folder, provider, database):
    """Two workers on this database."""
    settings = {
        "DATABASE_URL": database,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    return running(folder, WEB_CONCURRENCY=2, **settings)


def both(primary, standby):
    return f"postgresql://postgres@{primary.place},{standby.place}/parley?target_session_attrs=read-write"


@pytest.mark.parametrize("form", ["in front of the name", "behind the name"])
def test_the_writable_host_of_several_is_found(form, provider, tmp_path):
    """In both spellings of libpq. The first host is a standby, which accepts no writes."""
    with new_cluster() as primary:
        standby = primary.standby()
        url = both(standby, primary)
        if form == "behind the name":
            url = f"postgresql://postgres@/parley?host=127.0.0.1,127.0.0.1&port={standby.port},{primary.port}"
            url += "&target_session_attrs=read-write"
        with served(tmp_path, provider, url) as server:
            alice = server.client()
            assert alice.turns(alice.create("Hello"))[1]["content"] == "The answer."
        assert primary.ask("SELECT count(*) FROM session", "parley") == [(1,)]


@pytest.mark.long
def test_a_standby_that_lags_takes_over_and_no_word_is_mixed_up_or_lost(provider, tmp_path):
    """The writer of a reply stores again what the old server had confirmed and the new one never
    got.

    Only sessions that the new server has never heard of are gone. Their numbers may be given
    again, but none of their words get into the reply that has the number now.
    """
    count, over = 60, threading.Event()
    provider.default = speaker(count, 0.1, over)
    pool = concurrent.futures.ThreadPoolExecutor(500)
    with pool, new_cluster() as primary, contextlib.ExitStack() as leaving:
        standby = primary.standby(delay_ms=300)
        server = leaving.enter_context(served(tmp_path, provider, both(primary, standby)))
        users = {"alice": server.client(ALICE), "bob": server.client(BOB)}
        crowd = Crowd(pool)
        asked = [
            pool.submit(crowd.ask, users[name], f"{name}-{number}")
            for number in range(TOGETHER // 2)
            for name in users
        ]
        for asking in asked:
            asking.result()
        wait_until(lambda: all(followed.text for followed in crowd.followed))
        standby.wait_for(f"SELECT count(*) = {TOGETHER} FROM session", database="parley")
        primary.lose_touch()  # a standby that lags falls behind further under load
        lost = [
            pool.submit(crowd.ask, users["alice"], f"alice-{100 + number}", readers=1)
            for number in range(LOST)
        ]
        for asking in lost[: LOST * 3 // 4]:
            asking.result()
        primary.kill()
        after = [
            pool.submit(crowd.ask, users["bob"], f"bob-{100 + number}", readers=1)
            for number in range(AFTER)
        ]
        standby.promote()
        over.set()
        promoted_at = time.monotonic()
        created = [asking.result() for asking in asked + lost + after]
        ends = [following.result() for following in crowd.following]
        assert time.monotonic() - promoted_at < MOST
        told = set(crowd.codes).union(*(followed.refusals for followed in ends))
        answers = {
            mark: users[mark.partition("-")[0]].get(f"/sessions/{session['id']}")
            for mark, session in created
        }
        gone = [mark for mark, answer in answers.items() if answer.status_code == 404]
        print(f"{len(gone)} sessions were lost")
        assert gone and {*gone} <= {asking.result()[0] for asking in lost}
        assert {answer.status_code for answer in answers.values()} == {200, 404}

        problems = collections.defaultdict(list)
        replies = {
            mark: answer.json()["turns"][1] for mark, answer in answers.items() if mark not in gone
        }
        for mark, turn in replies.items():
            if has_others(mark, answers[mark].text):
                problems["a word of another's in a session"].append(mark)
            if (turn["status"], turn["content"]) != ("complete", "".join(words_of(mark, count))):
                problems["a reply that is not whole"].append((mark, turn["status"], turn["error"]))
        for followed in ends:
            if has_others(followed.mark, followed.text):
                problems["a word of another's in a stream"].append(followed.mark)
            if followed.mark in replies and followed.text != replies[followed.mark]["content"]:
                problems["a stream that is not what is stored"].append(followed.mark)
            if followed.turn and followed.turn["content"] != followed.text:
                problems["deltas that are not the turn behind them"].append(followed.mark)
        assert not problems, "\n".join(
            f"{what}: {len(where)}, {where[:5]}" for what, where in problems.items()
        )
        assert told <= {200, 201, 204, 404, 503}, told

        provider.default = reply("Yes.")
        for user in users.values():
            listed = user.get("/sessions?page[limit]=100").json()
            assert not listed["meta"]["has_more"]
            for answer in pool.map(
                lambda session: take_one_more(user, session, promoted_at + MOST), listed["data"]
            ):
                assert answer.json()["content"] == "Yes."
        assert "Traceback" not in server.output()


def has_others(mark, text):
    """Whether this text contains a word for another mark."""
    return any(f"{found[1]}-{found[2]}" != mark for found in COUNTED.finditer(text))


def take_one_more(user, session, until):
    """The answer to a further message, once the reply in progress in this session has ended."""
    while (
        answer := user.post(f"/sessions/{session['id']}/messages", {"content": "More?"})
    ).status_code == 409:
        assert time.monotonic() < until, f"{session} is stuck"
        time.sleep(0.2)
    assert answer.status_code == 201, answer.text
    return answer


def test_a_synchronous_standby_takes_over_and_every_stream_has_its_text_once(provider, tmp_path):
    """Each reader resumes with the last id that it has seen, and misses nothing and gets nothing
    twice."""
    count, streams, over = 60, 20, threading.Event()
    provider.default = speaker(count, 0.1, over)
    pool = concurrent.futures.ThreadPoolExecutor(2 * streams)
    with pool, new_cluster() as primary, contextlib.ExitStack() as leaving:
        standby = primary.standby(synchronous=True)
        server = leaving.enter_context(served(tmp_path, provider, both(primary, standby)))
        alice = server.client()
        all_followed = [Followed(alice, f"alice-{number}") for number in range(streams)]
        asked = [pool.submit(each.ask, each.mark, MOST) for each in all_followed]
        wait_until(lambda: all(followed.text for followed in all_followed))
        primary.kill()
        standby.promote()
        over.set()
        for asking in asked:
            followed = asking.result()
            whole = "".join(words_of(followed.mark, count))
            assert followed.text == whole, (
                f"{followed.mark} has {len(followed.text)} characters of {len(whole)}"
            )
            assert (followed.end, followed.turn["status"]) == ("done", "complete")
            assert wait_for_status(alice, followed.session, "complete")["content"] == whole
        assert len(alice.get("/sessions?page[limit]=100").json()["data"]) == streams
        assert "Traceback" not in server.output()
