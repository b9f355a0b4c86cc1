"""The requests of a client to a process, as the routes of `app.py` handle them, and the answers."""

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.exceptions import HTTPException

from api import events
from database import Unavailable, db, limit_time
from limits import Overloaded
from maintenance.deletion import delete_session
from models import Refused, Session
from replies import Feed, ReplyRequest, cancel
from simulate.scripted import MODEL
from simulate.servers import ServerProcess
from tables.idempotency import IdempotencyKey

OWNER, OTHER = "alice", "bob"
PATIENCE = 12  # seconds within which an answer must come

Key = tuple[str, str]  # the path, and the key


@dataclasses.dataclass
class Wish:
    """What a person wants, which may be sent more than once."""

    kind: str  # message, retry, continue, cancel, delete, rename, list
    session_id: Any = None  # a UUID; None for a new session
    content: str | None = None
    key: str | None = None
    is_watched: bool = True
    owner: str = OWNER

    def told(self) -> str:
        what = f"{self.kind} {self.content or ''}".strip()
        return f"{what} with key {self.key}" if self.key else what


@dataclasses.dataclass
class Answer:
    """The answer that a client got: a status of HTTP, or 0 if no answer came."""

    status: int = 0
    session_id: uuid.UUID | None = None
    feed: Feed | None = None
    made: Session | None = None  # with this reply
    start: int = 0  # where the stream of a reply begins
    turn_id: int | None = None
    listed: list[uuid.UUID] = dataclasses.field(default_factory=list)


def answer_to(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    """Handle this request, in a task of the process."""
    limit_time()
    try:
        ACTS[wish.kind](process, wish, answer)
    except Refused as error:
        answer.status = error.status
    except (Unavailable, Overloaded):
        answer.status = 503
    except HTTPException as error:
        answer.status = error.code or 500
    except Exception as error:
        process.machine.tell(f"a bug: {type(error).__name__}: {error}")
        answer.status = 500


def _ask(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    with db.connection_context():
        session = Session.get_owned(wish.owner, wish.session_id) if wish.session_id else None
        key = None
        if wish.key:
            path = f"/sessions/{session.id}/{wish.kind}" if session else "/sessions"
            key = IdempotencyKey.sent(wish.owner, path, wish.key, (wish.content or "").encode())
        new = {"title": "Title", "model": MODEL, "provider": "openai", "system": None}
        request = ReplyRequest(
            owner=wish.owner,
            content=wish.content,
            new=None if session else new | {"options": {}},
            session_id=session.id if session else None,
            retry=wish.kind == "retry",
            continues_last=wish.kind == "continue",
            key=key,
        )
        made, feed = process.replies.start(request, wish.is_watched, process.memory(wish.owner))
    answer.session_id, answer.feed, answer.turn_id = made.id, feed, feed.id
    answer.made = made if session is None else None
    answer.start = feed.start if wish.kind == "continue" else 0
    answer.status = 200


def _cancel(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    with db.connection_context():
        session = Session.get_owned(wish.owner, wish.session_id)
    turn = cancel(session)
    process.replies.on_ended(turn)
    answer.turn_id = turn.id
    answer.status = 200


def _delete(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    with db.connection_context():
        delete_session(Session.get_owned(wish.owner, wish.session_id).id)
    process.replies.on_ended(None)
    answer.status = 204


def _rename(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    with db.connection_context():
        session = Session.get_owned(wish.owner, wish.session_id)
        session.change(title=str(wish.content))
    answer.status = 200


def _list(process: ServerProcess, wish: Wish, answer: Answer) -> None:
    with db.connection_context():
        answer.listed = [each.id for each in Session.page(wish.owner, 100, 0, [])[0]]
    answer.status = 200


ACTS: dict[str, Callable[[ServerProcess, Wish, Answer], None]] = {
    "message": _ask,
    "retry": _ask,
    "continue": _ask,
    "cancel": _cancel,
    "delete": _delete,
    "rename": _rename,
    "list": _list,
}


@dataclasses.dataclass
class Event:
    """One of a stream."""

    name: str
    data: dict[str, Any]
    id: str


def read_events(batch: bytes) -> Iterator[Event]:
    """The events of these frames, without comments."""
    for frame in batch.decode().split("\n\n"):
        if frame and not frame.startswith(":"):
            fields = dict(line.split(": ", 1) for line in frame.split("\n"))
            yield Event(fields["event"], json.loads(fields["data"]), fields["id"])


def follow(
    process: ServerProcess,
    session_id: uuid.UUID,
    last_id: str | None,
    on_feed: Callable[[int], None],
) -> Iterator[bytes] | None:
    """The frames of `GET /sessions/{id}/events`; None for 204. `on_feed` is called with the feed's
    reply."""
    with db.connection_context():
        Session.get_owned(OWNER, session_id)
        feed = process.replies.follow_latest(session_id, lambda size: 0)
    on_feed(feed.id)
    resumed = events.position_after(last_id, feed)
    if resumed is None:
        return None
    return streamed(feed, *resumed)


def streamed(feed: Feed, *given: Any, **named: Any) -> Iterator[bytes]:
    with feed.streaming():
        yield from events.frames(feed, *given, **named)
