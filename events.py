"""The event stream of a reply (WHATWG HTML, 9.2): its frames, their ids, and where a client resumes.

An id is a turn and a position in its text: `7-12` is turn 7, behind its 12th character. Where these are all, `7-13` is
that of `assistant_turn`, and `7-14` that of the end.
"""

import json
import re

import schemas
from models import FAILED, IN_PROGRESS

KEEPALIVE_INTERVAL = 15  # seconds without an event, after which a comment tells proxies that the stream is alive
COMMENT = ":\n\n"


def position_after(last_event_id, turn):
    """Where a client resumes that has seen this id: at 0 where it is of another reply; None where it is that of the end."""
    match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", last_event_id or "")
    if match is None or int(match[1]) != turn.id:
        return 0
    position, length, is_over = int(match[2]), len(turn.content), turn.status != IN_PROGRESS
    if is_over and position == length + 2:
        return None
    return position if position <= length + is_over else 0


def frames(feed, position=0, session=None):
    """The frames of a reply from this position to its end, as soon as they can be sent.

    `session` is the one that was made with this reply: its events tell the client its id, and its title.
    """
    yield _session_frame(feed, position, session) if session else COMMENT
    over = False
    while not over:
        text, over = feed.read(position, session and session.title, KEEPALIVE_INTERVAL)
        batch = ""
        if session and feed.has_news_of(session.title):
            session.title = feed.title
            batch += _session_frame(feed, position, session)
        if text:
            position += len(text)
            batch += _frame("content_delta", {"delta": text}, feed.id, position)
        if over:
            batch += _ending(feed, position)
        yield batch or COMMENT


def _ending(feed, position):
    """The last frames; none where the process stops before the reply ends: the client comes back and resumes."""
    turn, length = feed.turn, len(feed.text)
    if feed.detached:
        return ""
    if turn is None:
        return _frame("error", {"status": 404, "message": "The session was deleted."}, feed.id, length + 2)
    if turn.status == FAILED:
        return _frame("error", schemas.turn_error_schema.dump(turn), feed.id, length + 2)
    batch = _frame("assistant_turn", schemas.dump_turn(turn), feed.id, length + 1) if position <= length else ""
    return batch + _frame("done", {}, feed.id, length + 2)


def _session_frame(feed, position, session):
    return _frame("session", schemas.created_session_schema.dump(session), feed.id, position)


def _frame(name, data, turn_id, position):
    return f"id: {turn_id}-{position}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
