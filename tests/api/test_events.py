"""Where a stream resumes, by the id of the client's last event; and when a silent stream gets a comment."""

import itertools
import re
import uuid

import pytest

from api import events
from api.events import position_after
from models import COMPLETE, IN_PROGRESS, Session, Turn
from replies import Feed, Progress
from replies.feed import Snapshot


def feed_of(status):
    return Feed(Turn(id=7, status=status, content="Twelve chars"))


@pytest.mark.parametrize(
    "last_id, of_ended, of_one_under_way",
    [
        (None, (0, False), (0, False)),
        ("", (0, False), (0, False)),
        ("7-0", (0, False), (0, False)),
        ("7-5", (5, False), (5, False)),
        ("7-12", (12, False), (12, False)),
        ("7-12-turn", (12, True), (12, False)),
        ("7-12-end", None, (12, False)),
        ("7-13", (12, True), (13, False)),  # how 1.0.0 wrote ends
        ("7-14", None, (14, False)),
        ("7-15", (0, False), (15, False)),  # a failover may have lost some text
        ("7-5-turn", (5, False), (5, False)),
        ("8-5", (0, False), (0, False)),
        ("7", (0, False), (0, False)),
        ("7-5 ", (0, False), (0, False)),
        ("7-99999999999", (0, False), (0, False)),
    ],
)
def test_a_stream_resumes_after_the_last_event_of_the_client(last_id, of_ended, of_one_under_way):
    assert position_after(last_id, feed_of(COMPLETE)) == of_ended
    assert position_after(last_id, feed_of(IN_PROGRESS)) == of_one_under_way


class SilentFeed:
    """A reply without text, in a session whose title changes ten seconds after the beginning."""

    id = 7

    def __init__(self):
        self.now = 0.0

    def read(self, position, told, seconds):
        due = 10 if told.title is None else float("inf")
        self.now = min(self.now + seconds, max(self.now, due))
        return Snapshot("", Progress("Title" if self.now >= 10 else None), None)


def test_a_wait_is_repeated_after_text_with_the_time_that_is_left(monkeypatch):
    """A client takes text for the end of the wait. After the wait, and after the end of the reply, it is not repeated."""
    now = 1000.0
    monkeypatch.setattr(events.time, "monotonic", lambda: now)
    feed = feed_of(IN_PROGRESS)
    feed.update_progress(waiting=1006.0)
    frames = events.frames(feed, position=12, patience=0)
    assert next(frames) == events.COMMENT
    assert next(frames) == b'event: waiting\ndata: {"seconds": 6}\nid: 7-12\n\n'
    now = 1004.5
    feed.add(" more")
    delta = b'event: content_delta\ndata: {"delta": " more"}\nid: 7-17\n\n'
    assert next(frames) == delta + b'event: waiting\ndata: {"seconds": 2}\nid: 7-17\n\n'
    assert next(frames) == b""
    later = events.frames(feed, position=17, patience=0)
    assert next(later) == events.COMMENT
    now = 1006.0
    assert next(later) == b"" == next(frames)
    feed.update_progress(waiting=1026.0)
    feed.end(None)
    assert b"waiting" not in b"".join(frames)


def test_a_title_has_the_id_of_the_position_before_the_text_sent_with_it():
    """So a client whose connection breaks between the two gets all of the text."""
    feed = feed_of(IN_PROGRESS)
    session = Session(id=uuid.uuid4(), title="Hello", model="m-1", created_at=0, updated_at=0)
    frames = events.frames(feed, position=12, session=session, patience=0)
    assert next(frames).startswith(b"event: session")
    feed.update_progress(title="Greeting")
    feed.add(" more")
    told = re.findall(rb"event: (\w+)\ndata: .+\nid: (.+)\n", next(frames))
    assert told == [(b"session", b"7-12"), (b"content_delta", b"7-17")]


def test_a_comment_is_in_time_while_another_stream_gets_an_event(monkeypatch):
    """Only the client that created the session gets the new title; other streams are silent meanwhile."""
    feed = SilentFeed()
    monkeypatch.setattr(events.time, "monotonic", lambda: feed.now)
    frames = events.frames(feed)
    assert next(frames) == events.COMMENT
    times = []
    for _ in range(3):
        assert next(frames) == events.COMMENT
        times.append(feed.now)
    assert times == [15, 30, 45]


def test_a_comment_is_never_late_if_streams_are_checked_once_a_second(monkeypatch):
    feed, spoken = SilentFeed(), [0]
    monkeypatch.setattr(events.time, "monotonic", lambda: feed.now)
    frames = events.frames(feed, patience=0)
    assert (next(frames), next(frames)) == (events.COMMENT, b"")
    for second in range(60):
        feed.now = second + 0.9
        spoken += [feed.now] if next(frames) else []
    assert max(later - earlier for earlier, later in itertools.pairwise(spoken)) <= 15
