"""The event stream of a reply (WHATWG HTML, 9.2): its frames, their ids, and where a client resumes. An id is a turn and a
position in its text: `7-12` is turn 7, behind its 12th character; `7-12-turn` is behind its `assistant_turn`, and `7-12-end`
behind the end."""

import json
import re
import time

import schemas
from models import FAILED, IN_PROGRESS

KEEPALIVE_INTERVAL = 15  # seconds without an event, after which a comment tells proxies that the stream is alive
COMMENT = ":\n\n"


def position_after(last_event_id, turn):
    """Where a client resumes that has seen this id, 0 where it is another reply's, and whether it has seen `assistant_turn`; None
    where it is that of the end. Of a reply under way, a failover may have taken the position back: its writer stores it again."""
    match = re.fullmatch(r"([0-9]{1,19})-([0-9]{1,10})(-turn|-end)?", last_event_id or "")
    if match is None or int(match[1]) != turn.id:
        return 0, False
    position, length, tag = int(match[2]), len(turn.content), match[3]
    if turn.status == IN_PROGRESS:
        return position, False
    if tag is None and position in (length + 1, length + 2):  # so 1.0.0 wrote the ends
        position, tag = length, ("-turn", "-end")[position - length - 1]
    if position == length and tag == "-end":
        return None
    return (position, position == length and tag == "-turn") if position <= length else (0, False)


def frames(feed, position=0, turn_seen=False, session=None, patience=KEEPALIVE_INTERVAL):
    """The frames of a reply from this position to its end, as soon as they can be sent; `assistant_turn` unless it was seen.
    `session` is the one that was made with this reply: its events tell the client its id, and its title. With a patience of 0
    nothing is waited for: "" says that there is nothing yet."""
    yield _frame("session", schemas.created_session_schema.dump(session), feed.id, position) if session else COMMENT
    over, told, spoken_at = False, (None, 0), time.monotonic()
    while not over:
        text, (title, thinking), over = feed.read(position, told, patience)
        batch = ""
        if thinking not in (0, told[1]):
            batch += _frame("thinking", {"characters": thinking}, feed.id, position)
        if session and title not in (None, session.title):
            session.title = title
            batch += _frame("session", schemas.created_session_schema.dump(session), feed.id, position)
        if text:
            position += len(text)
            batch += _frame("content_delta", {"delta": text}, feed.id, position)
        if over:
            batch += _ending(feed, turn_seen)
        late = 0 if patience else 2  # seconds that may pass between two looks of one who does not wait
        if not batch and time.monotonic() >= spoken_at + KEEPALIVE_INTERVAL - late:
            batch = COMMENT
        if batch or not (patience or over):
            yield batch
        told, spoken_at = (title, thinking), time.monotonic() if batch else spoken_at


def _ending(feed, turn_seen):
    """The last frames; none where the process stops before the reply ends: the client comes back and resumes."""
    turn, end = feed.turn, f"{len(feed.text)}-end"
    if feed.over == "detached":
        return ""
    if turn is None:
        return _frame("error", {"status": 404, "message": "The session was deleted."}, feed.id, end)
    if turn.status == FAILED:
        return _frame("error", schemas.turn_error_schema.dump(turn), feed.id, end)
    batch = "" if turn_seen else _frame("assistant_turn", schemas.dump_turn(turn), feed.id, f"{len(feed.text)}-turn")
    return batch + _frame("done", {}, feed.id, end)


def _frame(name, data, turn_id, position):
    # The id comes last: some clients take it before the frame is whole, and would resume behind what they do not have.
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\nid: {turn_id}-{position}\n\n"
