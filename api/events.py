"""The event stream of a reply (WHATWG HTML, 9.2): its events, their frames and ids, and where a
client resumes.

An id is a turn and a position in its text: `7-12` is turn 7, after its 12th character; `7-12-turn`
is after its `assistant_turn`, and `7-12-end` after the end.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from marshmallow import Schema, fields

import schemas
import turns
from models import FAILED, Session
from replies import SLICE, Feed, Progress
from replies.feed import Snapshot
from replies.thinking import Thoughts

# Seconds without an event, after which a comment tells proxies that the stream is alive.
KEEPALIVE_INTERVAL = 15
# Seconds that may pass between two reads of a feed by a caller that does not block. There, the
# comment comes so much earlier.
LATE = 2
COMMENT = b":\n\n"


# The events. `tools/openapi` describes them from these schemas.


class EventSchema(Schema):
    """An event of a stream, with its data parsed. A `session`, `thinking` or `waiting` event has
    the id of the event before it. A later release may add events: ignore those that you do not
    know."""

    id = fields.String(
        required=True,
        metadata={
            "description": "Opaque. As `Last-Event-ID`, it resumes the stream after the event.",
            "examples": ["941464799167511066-14"],
        },
    )


class ThoughtsSchema(Schema):
    """What the model thought since the last such event. On a server with `THINKING=count` it has
    only `characters`. `characters` and `start` are numbers of Unicode code points."""

    class Meta:
        besides = {"dependentRequired": {"start": ["delta"], "delta": ["start"]}}

    characters = fields.Integer(
        required=True,
        metadata={
            "description": "How many there are so far, including those that are not sent.",
            "minimum": 0,
        },
    )
    start = fields.Integer(
        metadata={"description": "How many of them come before `delta`.", "minimum": 0}
    )
    delta = fields.String(
        metadata={
            "description": (
                "Empty after 262,144 characters. An empty one with `start` 0 withdraws what was "
                "sent: it was text of the reply."
            )
        }
    )


class WaitingSchema(Schema):
    """How many seconds from now the provider is asked again."""

    seconds = fields.Integer(required=True, metadata={"minimum": 1})


class DeltaSchema(Schema):
    """The next piece of a reply."""

    delta = fields.String(required=True)


class EventKind(NamedTuple):
    """An event that a stream may have: when it is sent, and the schema of its data. An event with
    the id of the event before it must not come each time a stream is resumed there: a client that
    is cut off after each event would never get past it."""

    name: str
    description: str
    data: Schema


SESSION = EventKind(
    "session",
    "The session, only in answer to `POST /sessions`: first, and again when its title changes.",
    schemas.created_session_schema,
)
THINKING = EventKind(
    "thinking",
    "What the model thinks, at most four times a second. If `start` is 0, `delta` is all of it so "
    "far: replace what you have. Otherwise append it. It has no position of its own: a stream that "
    "is resumed sends it from its start.",
    ThoughtsSchema(),
)
WAITING = EventKind(
    "waiting", "The provider has asked to wait before the next attempt.", WaitingSchema()
)
CONTENT_DELTA = EventKind(
    "content_delta",
    "A piece of the reply. Joined, the pieces are exactly the reply.",
    DeltaSchema(),
)
ASSISTANT_TURN = EventKind(
    "assistant_turn", "The reply as it was stored.", schemas.AssistantTurnSchema()
)
DONE = EventKind(
    "done", "The end of a reply that is complete, or was interrupted.", schemas.EmptySchema()
)
ERROR = EventKind(
    "error",
    "The end of a reply that failed or, with status 404, whose session was deleted.",
    schemas.TurnErrorSchema(),
)
EVENTS = (SESSION, THINKING, WAITING, CONTENT_DELTA, ASSISTANT_TURN, DONE, ERROR)


def position_after(last_event_id: str | None, feed: Feed) -> tuple[int, bool] | None:
    """Where a client that has seen this event resumes, and whether it has seen `assistant_turn`:
    (0, False) after an event of another reply, None after the end. A reply in progress may be
    shorter than the position, after a failover of the database: its writer stores that text again.
    """
    # Many returns in one function: it reads from the top as a table of ids and positions.
    match = re.fullmatch(r"([0-9]{1,19})-([0-9]{1,10})(-turn|-end)?", last_event_id or "")
    if match is None or int(match[1]) != feed.id:
        return 0, False
    position, tag = int(match[2]), match[3]
    if feed.state != "ended":
        return position, False
    length = len(feed.text)
    if tag is None:  # the ids of the ends in release 1.0.0
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
    for_operator: bool = False,
) -> Iterator[bytes]:
    """The frames of a reply from this position to its end, as soon as they can be sent. Leaves out
    `assistant_turn` if it was seen. `session` is a session that was created with this reply: its
    events give the client its id and title. Blocks for news at most `patience` seconds; with 0,
    yields b"" if there is nothing yet. With `for_operator`, an error has the provider's reason."""
    # One long function: its yields are the order in which a client gets the frames.
    yield _session_frame(session, feed.id, position) if session else COMMENT
    state, told, spoken_at = None, Progress(None), time.monotonic()
    late = 0 if patience else LATE
    while state is None:
        left = spoken_at + KEEPALIVE_INTERVAL - time.monotonic()
        snapshot = feed.read(position, told, min(patience, max(left, 0)))
        if snapshot.progress.thinking != told.thinking:
            yield from _thinking(feed, told.thinking, snapshot.progress.thinking, position)
            spoken_at = time.monotonic()
        batch = _new_frames(feed, position, told, snapshot, session)
        position, told, state = position + len(snapshot.text), snapshot.progress, snapshot.state
        ending = _ending(feed, turn_seen, for_operator) if state else b""
        batch += ending[:SLICE]
        if not batch and time.monotonic() >= spoken_at + KEEPALIVE_INTERVAL - late:
            batch = COMMENT
        if batch or not (patience or state):
            yield batch
        if batch:
            spoken_at = time.monotonic()
    for start in range(SLICE, len(ending), SLICE):
        yield ending[start : start + SLICE]


def _new_frames(
    feed: Feed, position: int, told: Progress, snapshot: Snapshot, session: Session | None
) -> bytes:
    """The frames of a snapshot, which was taken at this position, without what was told before."""
    batch, title, waiting = b"", snapshot.progress.title, snapshot.progress.waiting
    if session and title not in (None, session.title):
        session.title = title
        batch += _session_frame(session, feed.id, position)
    end = position + len(snapshot.text)
    if snapshot.text:
        batch += _frame(CONTENT_DELTA, {"delta": snapshot.text}, feed.id, end)
    seconds = math.ceil(waiting - time.monotonic())
    # To a client, text ends a wait: so an unfinished wait is sent again after text.
    if seconds > 0 and snapshot.state is None and (snapshot.text or waiting != told.waiting):
        batch += _frame(WAITING, {"seconds": seconds}, feed.id, end)
    return batch


def _thinking(feed: Feed, told: Thoughts, now: Thoughts, position: int) -> Iterator[bytes]:
    """The frame, in slices, of what a model has thought since the stream was last told."""
    if not told.characters and not now.characters:
        return
    goes_on = told.text is not None and told.version == now.version
    start = len(told.text or "") if goes_on else 0
    if start:
        data = _thinking_data(now, start)
    else:  # it may be long: made once, for all clients that come now
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
    return _data(THINKING, data)


def _ending(feed: Feed, turn_seen: bool, for_operator: bool) -> bytes:
    """The last frames. There are none if this process stops before the reply ends or has lost it to
    another one, or if the reply was undone: then the client reconnects and resumes."""
    turn, end = feed.turn, f"{len(feed.text)}-end"
    if feed.state in ("detached", "undone"):
        return b""
    if turn is None:
        message = "The session was deleted."
        return _frame(ERROR, {"status": 404, "message": message}, feed.id, end)
    if turn.status == FAILED:
        return _frame(ERROR, turns.dump(turn, for_operator)["error"], feed.id, end)
    done = _frame(DONE, {}, feed.id, end)
    if turn_seen:
        return done
    if feed.ending is None:  # made once, for all clients that follow it
        shown = turns.SHOWN.dump(turn)
        feed.ending = _frame(ASSISTANT_TURN, shown, feed.id, f"{len(feed.text)}-turn") + done
    return feed.ending


def _session_frame(session: Session, turn_id: int, position: int) -> bytes:
    return _frame(SESSION, SESSION.data.dump(session), turn_id, position)


def _frame(kind: EventKind, data: Any, turn_id: int, position: int | str) -> bytes:
    return _data(kind, data) + _id(turn_id, position)


def _data(kind: EventKind, data: Any) -> bytes:
    """A frame without its id."""
    return f"event: {kind.name}\ndata: {json.dumps(data, ensure_ascii=False)}\n".encode()


def _id(turn_id: int, position: int | str) -> bytes:
    """The id, as the last line of its frame: some clients note it before the frame is complete, and
    would then resume after an event that they never got."""
    return f"id: {turn_id}-{position}\n\n".encode()
