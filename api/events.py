"""The event stream of a reply (WHATWG HTML, 9.2): its frames, their ids, and where a client
resumes.

An id is a turn and a position in its text: `7-12` is turn 7, behind its 12th character; `7-12-turn`
is behind its `assistant_turn`, and `7-12-end` behind the end.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import schemas
from models import FAILED, Session
from replies import SLICE, Feed, Told
from replies.feed import Look
from replies.thinking import Thoughts

# Seconds without an event, after which a comment tells proxies that the stream is alive.
KEEPALIVE_INTERVAL = 15
LATE = 2  # seconds that may pass between two looks of one who does not wait
COMMENT = b":\n\n"


def position_after(last_event_id: str | None, feed: Feed) -> tuple[int, bool] | None:
    """Where a client resumes that has seen this id, 0 where it is another reply's, and whether it
    has seen `assistant_turn`; None where it is that of the end. Of a reply under way, a failover
    may have taken the position back: its writer stores it again."""
    # Whole, though it has many ends: a table of ids and places, read from the top.
    match = re.fullmatch(r"([0-9]{1,19})-([0-9]{1,10})(-turn|-end)?", last_event_id or "")
    if match is None or int(match[1]) != feed.id:
        return 0, False
    position, tag = int(match[2]), match[3]
    if feed.over != "ended":
        return position, False
    length = len(feed.text)
    if tag is None:  # so 1.0.0 wrote the ends
        tag = {length + 1: "-turn", length + 2: "-end"}.get(position)
        position = length if tag else position
    if position > length:
        return 0, False
    if position == length and tag == "-end":
        return None
    return position, position == length and tag == "-turn"


def frames(
    feed: Feed,
    position: int = 0,
    turn_seen: bool = False,
    session: Session | None = None,
    patience: float = KEEPALIVE_INTERVAL,
) -> Iterator[bytes]:
    """The frames of a reply from this position to its end, as soon as they can be sent;
    `assistant_turn` unless it was seen. `session` is the one that was made with this reply: its
    events tell the client its id, and its title. With a patience of 0 nothing is waited for: b""
    says that there is nothing yet."""
    # Whole, though it is long: its yields are the order in which a client gets the frames.
    yield _told_of(session, feed.id, position) if session else COMMENT
    over, told, spoken_at = None, Told(None), time.monotonic()
    late = 0 if patience else LATE
    while not over:
        left = spoken_at + KEEPALIVE_INTERVAL - time.monotonic()  # until a comment is due
        look = feed.read(position, told, min(patience, max(left, 0)))
        if look.told.thinking != told.thinking:
            yield from _thinking(feed, told.thinking, look.told.thinking, position)
            spoken_at = time.monotonic()
        batch = _news(feed, position, told, look, session)
        position, told, over = position + len(look.text), look.told, look.over
        ending = _ending(feed, turn_seen) if over else b""
        batch += ending[:SLICE]
        if not batch and time.monotonic() >= spoken_at + KEEPALIVE_INTERVAL - late:
            batch = COMMENT
        if batch or not (patience or over):
            yield batch
        if batch:
            spoken_at = time.monotonic()
    for start in range(SLICE, len(ending), SLICE):
        yield ending[start : start + SLICE]


def _news(feed: Feed, position: int, told: Told, look: Look, session: Session | None) -> bytes:
    """The frames of what a look has found, at this position, besides what was told."""
    batch, title, waiting = b"", look.told.title, look.told.waiting
    if session and title not in (None, session.title):
        session.title = title
        batch += _told_of(session, feed.id, position)
    behind = position + len(look.text)
    if look.text:
        batch += _frame("content_delta", {"delta": look.text}, feed.id, behind)
    seconds = math.ceil(waiting - time.monotonic())
    # A client takes text for the end of a wait, so the wait is told again behind text.
    if seconds > 0 and not look.over and (look.text or waiting != told.waiting):
        batch += _frame("waiting", {"seconds": seconds}, feed.id, behind)
    return batch


def _thinking(feed: Feed, told: Thoughts, now: Thoughts, position: int) -> Iterator[bytes]:
    """The frame of what a model has thought since a stream was told, if there is any, in pieces."""
    if not told.characters and not now.characters:
        return
    goes_on = told.text is not None and told.version == now.version
    start = len(told.text or "") if goes_on else 0
    if start:
        data = _thinking_data(now, start)
    else:  # it may be long: made once, for all who come now
        if feed.thinking_frame is None or feed.thinking_frame[0] is not now:
            feed.thinking_frame = now, _thinking_data(now, start)
        data = feed.thinking_frame[1]
    last = max(0, len(data) - SLICE)
    for begin in range(0, last, SLICE):
        yield data[begin : min(begin + SLICE, last)]
    yield data[last:] + _id(feed.id, position)


def _thinking_data(now: Thoughts, start: int) -> bytes:
    data: dict[str, Any] = {"characters": now.characters}
    if now.text is not None:
        data |= {"start": start, "delta": now.text[start:]}
    return _data("thinking", data)


def _ending(feed: Feed, turn_seen: bool) -> bytes:
    """The last frames; none where the process stops before the reply ends, or the reply was undone:
    the client comes back and resumes."""
    turn, end = feed.turn, f"{len(feed.text)}-end"
    if feed.over in ("detached", "undone"):
        return b""
    if turn is None:
        message = "The session was deleted."
        return _frame("error", {"status": 404, "message": message}, feed.id, end)
    done = _frame("done", {}, feed.id, end)
    if turn_seen and turn.status != FAILED:
        return done
    if feed.ending is None:  # made once, for all who follow it
        if turn.status == FAILED:
            feed.ending = _frame("error", schemas.turn_error_schema.dump(turn), feed.id, end)
        else:
            shown = schemas.dump_turn(turn)
            feed.ending = _frame("assistant_turn", shown, feed.id, f"{len(feed.text)}-turn") + done
    return feed.ending


def _told_of(session: Session, turn_id: int, position: int) -> bytes:
    return _frame("session", schemas.created_session_schema.dump(session), turn_id, position)


def _frame(name: str, data: dict, turn_id: int, position: int | str) -> bytes:
    return _data(name, data) + _id(turn_id, position)


def _data(name: str, data: dict) -> bytes:
    """A frame but for its id."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n".encode()


def _id(turn_id: int, position: int | str) -> bytes:
    """The end of a frame. Some clients take the id before the frame is whole, and would resume
    after what they do not have: so it comes last."""
    return f"id: {turn_id}-{position}\n\n".encode()
