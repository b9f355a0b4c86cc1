"""The claim of a reply: one short transaction, which commits the user's message and an empty reply,
or refuses the request."""

import dataclasses
import itertools
import secrets
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from peewee import fn

import processes
from database import SECOND, Unavailable, db, insertion, transaction
from files import FileRef, column_of, files_of, with_labels
from models import (
    COMPLETE,
    IN_PROGRESS,
    LEASE,
    LONGEST_PAGE,
    PREVIEW,
    VERSIONS_MAX,
    Missing,
    Piece,
    Refused,
    Session,
    Thought,
    Turn,
    TurnFile,
)
from replies.commits import interrupt
from replies.draft import Draft
from tables.files import Kept, keep
from tables.idempotency import IdempotencyKey
from tables.ledger import RateLimitHit, Usage
from tables.search import normalize


class Claimed(NamedTuple):
    """The reply that a request gets."""

    draft: Draft
    is_new: bool  # claimed now; otherwise an earlier request with the same key has claimed it
    first_message: Turn | None = None  # that of the session, if the claim has created it, too


class EmptyMessage(Refused):
    """The message would have neither words nor files."""

    def __init__(self) -> None:
        super().__init__("Give some text, or files: the message would be empty.", status=400)


@dataclasses.dataclass(frozen=True)
class UnconfirmedClaim:
    """A claim whose commit was not answered. Its client got a 503, but the database may have
    committed it all the same."""

    turn_id: int
    fence: int
    session_id: uuid.UUID
    message_id: int | None  # the new user turn, if there is one
    creates_session: bool
    has_key: bool
    # The key of a continuation. Once the continuation is undone, its reply may be complete, as
    # before: the next request with the key would get this reply, and no continuation.
    key_to_forget: IdempotencyKey | None

    def undo(self) -> bool:
        """Undo the claim, if its reply is still in progress. Returns True if this has undone it. A
        new message is deleted with its reply. If the claim has a key, or is a retry or a
        continuation, the reply is interrupted instead, as if its process had died; the next request
        with the key then asks the model in the same session."""
        turn = Turn.read(self.turn_id)
        if turn is None or turn.status != IN_PROGRESS or turn.fence != self.fence:
            return False
        if self.message_id is None or self.has_key:
            turn.unbilled_bytes = -len(turn.content.encode())  # no model was asked
            text = normalize(turn.content)
            return bool(interrupt([turn], [text], cancelled=False, key=self.key_to_forget))
        return self._take_back()

    @transaction
    def _take_back(self) -> bool:
        """Delete the reply, its message, and the session if it is new. Returns whether the reply
        was still there."""
        db.lock_rows(Session.select(Session.id).where(Session.id == self.session_id))
        conditions = Turn.id == self.turn_id, Turn.fence == self.fence, Turn.is_in_progress()
        if not Turn.delete().where(*conditions).execute():
            return False
        if self.creates_session:
            return bool(Session.delete().where(Session.id == self.session_id).execute())
        Turn.delete().where(Turn.id == self.message_id).execute()
        preview = newest_preview(Turn.session == self.session_id, Turn.visible)
        return bool(Session.update(preview=preview).where(Session.id == self.session_id).execute())


@dataclasses.dataclass(kw_only=True)
class ReplyRequest:
    """A request for a reply. `content` and `files` are the first message of a `new` session, or the
    next one in the session `session_id`. With `retry`, they replace the last user message of that
    session: only the files if `content` is None, and all files if only `content` is given. If both
    are None, that message is answered again. With `continues_last`, the last reply is continued."""

    owner: str
    content: str | None = None
    files: Sequence[FileRef] | None = None
    new: dict[str, Any] | None = None  # the fields of a session to create
    session_id: uuid.UUID | None = None
    retry: bool = False
    continues_last: bool = False
    key: IdempotencyKey | None = None  # as the request gives it: no reply is known for it yet
    rate_limit: tuple[int, int] | None = None  # replies, seconds
    token_limit: tuple[int, str] | None = None  # tokens, "month" or "day"
    request_id: str | None = None
    shows_provider_errors: bool = False  # the request is from the server's operator

    def __post_init__(self) -> None:
        # Not in the transaction: a long text takes long to normalize, and others wait for locks.
        self._text = {"content": self.content, "search_text": normalize(self.content or "")}
        self._files: list[Kept] = []  # of the message; known within the transaction
        # What a new session sends to the model, in bytes.
        sent = ((self.new or {}).get("system") or "") + (self.content or "")
        self._size = len(sent.encode())
        self._unconfirmed: UnconfirmedClaim | None = None  # what the last try wanted to commit

    def claim(self, on_unconfirmed: Callable[[UnconfirmedClaim], None]) -> Claimed:
        """Commit the user turn and an empty reply. If the key is known and its reply is settled,
        return that reply instead. Raises Refused, and then nothing has changed; or Unavailable,
        after a call of `on_unconfirmed` if the claim may have been committed all the same."""
        try:
            return self.commit()
        except Unavailable:
            if self._unconfirmed is not None:
                on_unconfirmed(self._unconfirmed)
            raise

    @transaction
    def commit(self) -> Claimed:
        self._unconfirmed = None
        if self.key or self.rate_limit:
            # The requests of one owner are handled one at a time. Two at once could both be under a
            # limit, or both find their key unknown.
            db.lock(self.owner)
        now = db.now()
        earlier = self._reply_for_key(now)
        if earlier and earlier.is_settled:
            known = Draft(earlier)
            earlier.session.model = known.model
            return Claimed(known, is_new=False)
        self._count_and_check_limits(now)
        if earlier:  # it failed
            session, draft, message = self._insert_reply_again(earlier, now)
        else:
            session, draft, message = self._insert_reply(now)
        if self.key:
            self.key.remember(session.id, draft.turn.id, now)
        begins_session = self.new is not None and not earlier
        first_message = message if begins_session else None
        self._unconfirmed = UnconfirmedClaim(
            turn_id=draft.turn.id,
            fence=draft.fence,
            session_id=session.id,
            message_id=message.id if message else None,
            creates_session=begins_session,
            has_key=self.key is not None,
            key_to_forget=self.key if self.continues_last else None,
        )
        return Claimed(draft, is_new=True, first_message=first_message)

    # Checks

    def _reply_for_key(self, now: int) -> Turn | None:
        """The reply that an earlier request with this key got. Raises Missing if it was deleted,
        and Refused if it is in progress, or if it failed and newer turns follow it."""
        known = self.key.known(now) if self.key else None
        if known is None:
            return None
        reply = self._reply_of(known)
        if not reply.is_settled:
            self._check_may_be_retried(reply)
        return reply

    def _reply_of(self, known: IdempotencyKey) -> Turn:
        conditions = Turn.id == known.turn_id, Session.owner == self.owner
        columns = Turn, *Session.columns_but_system()
        reply = Turn.select(*columns).join(Session).where(*conditions).first()
        if reply is None:
            raise Missing
        return reply

    def _check_may_be_retried(self, reply: Turn) -> None:
        """Raises Refused if the reply of a known key is in progress, or is not the last turn of its
        session."""
        if reply.status == IN_PROGRESS:
            message = "The first request with this key is in progress. Ask again for its answer."
            raise Refused(message, reply.session_id, retry_after=1)
        newer = Turn.select().where(Turn.session == reply.session, Turn.id > reply.id)
        if newer.exists():
            message = "The reply failed, and newer turns followed: it is not asked for again."
            raise Refused(message, reply.session_id)

    def _count_and_check_limits(self, now: int) -> None:
        """Count the request. Raises Refused if a limit is reached."""
        if self.token_limit:
            most, period = self.token_limit
            used, reset = Usage.in_period(self.owner, period, now)
            if used >= most:
                message = (
                    f"You have used {used:,} of {most:,} tokens of this {period} (UTC). "
                    "Ask again in the next one."
                )
                raise Refused(message, retry_after=-((now - reset) // SECOND), status=429)
        if self.rate_limit:
            count_request(self.owner, self.rate_limit, now, self.session_id)

    # Rows

    def _insert_reply(self, now: int) -> tuple[Session, Draft, Turn | None]:
        """Insert a new reply, or put the last one in progress again. Returns the session, the
        reply, and the user turn if it is new."""
        self._files = keep(self.owner, self.files or ())
        preview = preview_of(self.content or "", self._files_column())
        if self.new is not None:
            session, last = self._create(self.new, preview, now), 0
        else:
            is_next = self.content is not None and not self.retry
            session, last = self._lock_session(self.session_id, preview if is_next else None, now)
        if self.continues_last:
            return session, self._continue(session, now), None
        if self.retry:
            is_changed = self.content is not None or self.files is not None
            return session, self._retry(session, last, now, is_changed), None
        message = Turn(
            id=new_turn_id(now, last),
            session=session,
            kind="user",
            created_at=now,
            files=self._files_column(),
            **self._text,
        )
        draft = self._insert_turns(session, message.id, now, message)
        self._insert_files(message.id)
        return session, draft, message

    def _insert_reply_again(self, failed: Turn, now: int) -> tuple[Session, Draft, None]:
        """Insert a reply that replaces the failed one, or continue the failed one. The key of the
        failed reply is known, and its user turn is stored already. The return value is as in
        `_insert_reply`."""
        session, last = self._lock_session(failed.session_id, None, now)
        if self.continues_last:
            return session, self._continue(session, now), None
        return session, self._retry(session, last, now, is_changed=False), None

    def _create(self, new: dict[str, Any], preview: str, now: int) -> Session:
        session = Session(
            owner=self.owner,
            created_at=now,
            updated_at=now,
            preview=preview,
            search_title=normalize(new["title"]),
            **new,
        )
        db.send(insertion(session))
        return session

    def _lock_session(
        self, session_id: uuid.UUID | None, preview: str | None, now: int
    ) -> tuple[Session, int]:
        """Lock the session. Returns it, and the id of its last turn. Raises Refused if a reply is
        in progress, Missing if there is no such session. Of two claims at once, the second waits
        here until the first has committed, and then sees its reply."""
        session = Session.lock_owned(self.owner, session_id, preview, now)
        if session.last_turn is None:
            raise Missing
        if session.is_busy:
            message = "A reply is in progress. Wait until it is done, or cancel it."
            raise Refused(message, retry_after=1)
        return session, session.last_turn

    def _retry(self, session: Session, last: int, now: int, is_changed: bool) -> Draft:
        """Insert a new reply to the last user turn, and hide the reply that it has had. If the
        message `is_changed`, the user turn becomes it. If not, the new reply `replaces` the hidden
        one: once the new one is complete, that is its newest version; if it ends otherwise, that is
        shown again. Raises EmptyMessage."""
        conditions = Turn.session == session, Turn.visible
        newest = Turn.select(Turn.id).where(*conditions).order_by(Turn.id.desc()).limit(1)
        is_last_reply = Turn.id == newest, Turn.kind == "assistant"
        columns = Turn.id, Turn.status, Turn.versions
        hiding = Turn.update(visible=False).where(*is_last_reply).returning(*columns)
        hidden = next(iter(db.send(hiding)()), None)
        start = fn.SUBSTR(Turn.content, 1, PREVIEW).alias("content")
        # An imported session may have several replies to a message.
        messages = Turn.select(Turn.id, start, Turn.files).where(*conditions, Turn.kind == "user")
        message = messages.order_by(Turn.id.desc()).first()
        if is_changed:
            self._change(session, message)
        preview = preview_of(message.content, message.files)
        db.send(Session.update(preview=preview).where(Session.id == session.id))
        replaces, versions = None, 0
        if hidden and not is_changed:
            replaces, status, versions = hidden
            most = versions + (status == COMPLETE)
            versions = self._count_versions(session, message.id, min(most, VERSIONS_MAX))
        return self._insert_turns(session, last, now, replaces=replaces, versions=versions)

    def _count_versions(self, session: Session, message_id: int, most: int) -> int:
        """How many versions the next reply to this message has: at most so many."""
        of_message = Turn.session == session, Turn.id > message_id, Turn.is_replaced()
        sizes = Turn.select(db.size_of(Turn.content)).where(*of_message)
        newest = sizes.order_by(Turn.id.desc()).limit(most).tuples()
        totals = itertools.accumulate(size for (size,) in newest)
        return sum(total <= LONGEST_PAGE for total in totals)

    def _change(self, session: Session, message: Turn) -> None:
        """Give this message the new content, if there is one, and the new files."""
        message.files = self._files_column()
        text = {}
        if self.content is not None:
            text, message.content = self._text, self.content
        if not (message.files or message.content.strip()):
            raise EmptyMessage
        db.send(Turn.update(text | {"files": message.files}).where(Turn.id == message.id))
        db.send(TurnFile.delete().where(TurnFile.turn == message.id))
        self._insert_files(message.id)
        # The new images were refused by no model yet.
        starts = {model: min(start, message.id) for model, start in session.images_start.items()}
        if starts != session.images_start:
            session.images_start = starts
            db.send(Session.update(images_start=starts).where(Session.id == session.id))

    def _continue(self, session: Session, now: int) -> Draft:
        """Put the last visible reply in progress again. Its new text will follow the text that it
        has. Raises Refused if there is nothing to continue."""
        conditions = Turn.session == session, Turn.visible
        reply = Turn.readable().where(*conditions).order_by(Turn.id.desc()).first()
        is_whole = reply.status == COMPLETE and reply.stop_reason != "length"
        if reply.kind == "user" or is_whole or not reply.content.strip():
            message = (
                "There is nothing to continue: the last turn is not a reply, is complete, or has "
                "no text. Send a message, or retry."
            )
            raise Refused(message)
        reply.session, reply.base = session, len(reply.content)
        draft = Draft(reply)
        if reply.thinking_characters:
            draft.thoughts = Thought.text_of(reply.id)
        # It was cancelled, and its writer has not stored its usage. With the new fence, that writer
        # cannot do so any more.
        lacks_usage = reply.cancelled and reply.fence is not None
        if lacks_usage:
            draft.account.estimate_rest()
        changes = {
            "status": IN_PROGRESS,
            "stream_id": None,
            "stream_start": None,
            "cancelled": False,
            "continued": reply.continued + 1,
            "restarts": 0,
            "replaces": None,  # however it ends, it stays visible
            "unbilled_bytes": -len(reply.content.encode()),
            "estimated_tokens": reply.estimated_tokens,
            **_new_lease(now),
        }
        db.send(Turn.update(changes).where(Turn.id == reply.id))
        db.send(insertion(Piece(turn=reply, start=0, text=reply.content)))
        db.send(Session.update(latest_reply=reply.id).where(Session.id == session.id))
        draft.set(**changes)
        if lacks_usage:
            Usage.add([draft.entry()])
        draft.account.mark_counted(reply.usage)
        return draft

    def _files_column(self) -> str | None:
        return column_of(kept.file for kept in self._files)

    def _insert_files(self, turn_id: int) -> None:
        if self._files:
            db.send(insertion(*TurnFile.rows(turn_id, self._files)))

    def _insert_turns(
        self,
        session: Session,
        last: int,
        now: int,
        *before: Turn,
        replaces: int | None = None,
        versions: int = 0,
    ) -> Draft:
        """Insert an empty reply, and the turns `before` it, with one statement."""
        reply = Turn(
            id=new_turn_id(now, last),
            session=session,
            kind="assistant",
            content="",
            created_at=now,
            model=session.model,
            status=IN_PROGRESS,
            replaces=replaces,
            versions=versions,
            unbilled_bytes=self._size + sum(4 * kept.file.tokens for kept in self._files),
            **_new_lease(now),
        )
        db.send(insertion(*before, reply))
        return Draft(reply)


def preview_of(content: str, files: str | None) -> str:
    """The preview of a session whose last message is this one. `files` is its column."""
    return with_labels(content[:PREVIEW], files_of(files))[:PREVIEW]


def newest_preview(*conditions: Any) -> str | None:
    """The preview of the newest turn, of those that meet these conditions, that has words or
    files."""
    start = fn.SUBSTR(Turn.content, 1, PREVIEW)
    has_any = (Turn.content != "") | Turn.files.is_null(False)
    turns = Turn.select(start, Turn.files).where(*conditions, has_any)
    found = turns.order_by(Turn.id.desc()).limit(1).tuples().first()
    return preview_of(*found) if found else None


def count_request(
    owner: str,
    rate_limit: tuple[int, int],
    now: int,
    session_id: uuid.UUID | None,
    is_fork: bool = False,
) -> None:
    """Count a request for a reply in this session, or the fork that creates the session. The
    caller's transaction has locked the owner. Raises Refused if the limit is reached."""
    replies, seconds = rate_limit
    wait = RateLimitHit.count(owner, replies, seconds, now, session_id, is_fork)
    if wait:
        message = (
            f"You may ask for {replies} replies in {seconds} seconds. Ask again in {wait} seconds."
        )
        raise Refused(message, retry_after=wait, status=429)


def new_turn_id(now: int, last: int) -> int:
    """An id for a turn, greater than the `last` one of its session: the time in milliseconds, and
    19 random bits. A sequence might give an id twice, after a failover that lost the last commits.
    Until 2030 the id has 18 digits, which is as many as release 1.0.0 reads in the id of an
    event."""
    return max((now // 1000 << 19) + secrets.randbits(19), last + 1)


def _new_lease(now: int) -> dict[str, Any]:
    """The columns that make this process the writer of a reply."""
    return {
        "fence": secrets.randbits(63),
        "lease_until": now + LEASE,
        "writer": processes.this_process(),
    }
