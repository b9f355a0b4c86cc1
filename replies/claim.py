"""The claim of a reply: one short transaction that commits what the user said and an empty reply,
or refuses."""

import dataclasses
import secrets
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from peewee import fn

import processes
from database import SECOND, Unavailable, db, insertion, transaction
from models import (
    COMPLETE,
    IN_PROGRESS,
    LEASE,
    PREVIEW,
    Missing,
    Piece,
    Refused,
    Session,
    Thought,
    Turn,
)
from replies.doubt import DoubtfulClaim
from replies.draft import Draft
from tables.idempotency import IdempotencyKey
from tables.ledger import RateLimitHit, Usage
from tables.search import normalize


class Claimed(NamedTuple):
    """What became of a request."""

    draft: Draft
    is_new: bool  # the reply is to be made; else an idempotency key has had this one already
    begins_session: bool = False  # with this reply


@dataclasses.dataclass(kw_only=True)
class ReplyRequest:
    """What a client wants a reply to: `content` is the first message of a `new` session, or a
    further one of `session_id`. With `retry`, its last user turn is changed to that, or answered
    again as it is; with `goes_on`, its last reply is written on."""

    owner: str
    content: str | None = None
    new: dict[str, Any] | None = None  # the fields of a session to create
    session_id: uuid.UUID | None = None
    retry: bool = False
    goes_on: bool = False
    key: IdempotencyKey | None = None  # as the client sent it: without a reply
    rate_limit: tuple[int, int] | None = None  # replies, seconds
    token_limit: tuple[int, str] | None = None  # tokens, "month" or "day"
    request_id: str | None = None
    tells_reasons: bool = False  # a failure is told to the person who runs the server

    def __post_init__(self) -> None:
        # Here, since no transaction waits for a long text to be normalized.
        self._text = {"content": self.content, "search_text": normalize(self.content or "")}
        # Of a new session, all that the model is sent.
        sent = ((self.new or {}).get("system") or "") + (self.content or "")
        self._size = len(sent.encode())
        self._doubtful: DoubtfulClaim | None = None  # what the last try would commit

    def claim(self, on_doubt: Callable[[DoubtfulClaim], None]) -> Claimed:
        """Commit the user turn and an empty reply. Where the key is known and its reply is settled,
        that one is returned. Raises Refused, and changes nothing; Unavailable, and calls
        `on_doubt` first where the claim may have been committed all the same."""
        try:
            return self.commit()
        except Unavailable:
            if self._doubtful is not None:
                on_doubt(self._doubtful)
            raise

    @transaction
    def commit(self) -> Claimed:
        self._doubtful = None
        if self.key or self.rate_limit:
            # Two of one owner's requests are counted, and keys compared, one after the other.
            db.lock(self.owner)
        now = db.now()
        earlier = self._reply_under_key(now)
        if earlier and earlier.is_settled:
            known = Draft(earlier, counted=earlier.usage)
            earlier.session.model = known.model
            return Claimed(known, is_new=False)
        self._check_limits(now)
        if earlier:  # it failed, and is asked for again
            session, draft, message = self._ask_again(earlier, now)
        else:
            session, draft, message = self._ask(now)
        if self.key:
            self.key.remember(session.id, draft.turn.id, now)
        begins_session = self.new is not None and not earlier
        self._doubtful = self._in_doubt(session, draft, message, begins_session)
        return Claimed(draft, is_new=True, begins_session=begins_session)

    def _in_doubt(
        self, session: Session, draft: Draft, message: Turn | None, begins_session: bool
    ) -> DoubtfulClaim:
        return DoubtfulClaim(
            turn_id=draft.turn.id,
            fence=draft.fence,
            session_id=session.id,
            message_id=message.id if message else None,
            has_session=begins_session,
            has_key=self.key is not None,
            key_to_forget=self.key if self.goes_on else None,
        )

    # Whether it may be

    def _reply_under_key(self, now: int) -> Turn | None:
        """The reply that this key names. Raises Refused where it is not settled and may not be
        asked for again, Missing where it was deleted."""
        known = self.key.known(now) if self.key else None
        if known is None:
            return None
        reply = self._reply_of(known)
        if not reply.is_settled:
            self._check_may_be_retried(reply)
        return reply

    def _reply_of(self, known: IdempotencyKey) -> Turn:
        is_its = Turn.id == known.turn_id, Session.owner == self.owner
        columns = Turn, *Session.columns_but_system()
        reply = Turn.select(*columns).join(Session).where(*is_its).first()
        if reply is None:
            raise Missing
        return reply

    def _check_may_be_retried(self, reply: Turn) -> None:
        """Raises Refused where the reply of a known key is under way, or is not the session's last
        one."""
        if reply.status == IN_PROGRESS:
            message = "The first request with this key is under way. Ask again for its answer."
            raise Refused(message, reply.session_id, retry_after=1)
        newer = Turn.select().where(Turn.session == reply.session, Turn.id > reply.id)
        if newer.exists():
            message = "The reply failed, and newer turns followed: it is not asked for again."
            raise Refused(message, reply.session_id)

    def _check_limits(self, now: int) -> None:
        """Count the request. Raises Refused where a limit is reached."""
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

    # What is committed

    def _ask(self, now: int) -> tuple[Session, Draft, Turn | None]:
        """The session, the reply, and the message where there is one."""
        if self.new is not None:
            session, last = self._create(self.new, now), 0
        else:
            session, last = self._take(self.session_id, self.content, now)
        if self.goes_on:
            return session, self._continue(session, now), None
        if self.retry:
            return session, self._retry(session, last, self.content, now), None
        message = Turn(
            id=new_turn_id(now, last),
            session=session,
            kind="user",
            created_at=now,
            **self._text,
        )
        return session, self._begin(session, message.id, now, message), message

    def _ask_again(self, failed: Turn, now: int) -> tuple[Session, Draft, None]:
        """The same where the reply of a known key failed: it has its message already."""
        session, last = self._take(failed.session_id, None, now)
        if self.goes_on:
            return session, self._continue(session, now), None
        return session, self._retry(session, last, None, now), None

    def _create(self, new: dict[str, Any], now: int) -> Session:
        session = Session(
            owner=self.owner,
            created_at=now,
            updated_at=now,
            preview=(self.content or "")[:PREVIEW],
            search_title=normalize(new["title"]),
            **new,
        )
        db.send(insertion(session))
        return session

    def _take(
        self, session_id: uuid.UUID | None, content: str | None, now: int
    ) -> tuple[Session, int]:
        """The session, locked by the update of its row, and the id of its last turn. Raises Refused
        where a reply is under way."""
        # The newest reply is the latest now.
        changes: dict[str, Any] = {"updated_at": now, "latest_reply": None}
        if content is not None:
            changes["preview"] = content[:PREVIEW]
        is_ours = Session.id == session_id, Session.owner == self.owner
        db.send(Session.update(changes).where(*is_ours))
        under_way = Turn.select(Turn.id).where(Turn.session == session_id, Turn.under_way())
        is_busy = fn.EXISTS(under_way).alias("is_busy")
        columns = Turn.id, is_busy, *Session.short_columns()
        turns = Turn.select(*columns).join(Session).where(*is_ours)
        last = turns.order_by(Turn.id.desc()).first()
        if last is None:
            raise Missing
        if last.is_busy:
            message = "A reply is under way. Wait until it is done, or cancel it."
            raise Refused(message, retry_after=1)
        # peewee takes what is no plain column for one of the turn.
        last.session.system, last.session.system_size = last.system, last.system_size
        return last.session, last.id

    def _retry(self, session: Session, last: int, content: str | None, now: int) -> Draft:
        """Another reply in the place of the last turn, where that is a reply, which the new one
        `replaces` unless the last user turn is changed to this content."""
        is_shown = Turn.session == session, Turn.visible
        newest = Turn.select(Turn.id).where(*is_shown).order_by(Turn.id.desc()).limit(1)
        messages = newest.where(Turn.kind == "user")
        is_last_reply = Turn.id == newest, Turn.kind == "assistant"
        hiding = Turn.update(visible=False).where(*is_last_reply).returning(Turn.id)
        replaced = next((turn_id for (turn_id,) in db.send(hiding)()), None)
        if content is not None:
            db.send(Turn.update(self._text).where(Turn.id == messages))
        preview = messages.select(fn.SUBSTR(Turn.content, 1, PREVIEW))
        db.send(Session.update(preview=preview).where(Session.id == session.id))
        return self._begin(session, last, now, replaces=replaced if content is None else None)

    def _continue(self, session: Session, now: int) -> Draft:
        """The last visible reply, under way again behind its text. Raises Refused where there is
        nothing to continue."""
        is_shown = Turn.session == session, Turn.visible
        reply = Turn.readable().where(*is_shown).order_by(Turn.id.desc()).first()
        is_whole = reply.status == COMPLETE and reply.stop_reason != "length"
        if reply.kind == "user" or is_whole or not reply.content.strip():
            message = (
                "There is nothing to continue: the last turn is no reply, whole, or without text. "
                "Send a message, or retry."
            )
            raise Refused(message)
        reply.session = session
        draft = Draft(reply, counted=reply.usage, base=len(reply.content))
        if reply.thinking_characters:
            draft.thoughts = Thought.text_of(reply.id)
        # Its process has not said what it used, and cannot any more.
        is_untold = reply.cancelled and reply.fence is not None
        if is_untold:
            draft.estimate_rest()
        changes = {
            "status": IN_PROGRESS,
            "cancelled": False,
            "continued": reply.continued + 1,
            "restarts": 0,
            "replaces": None,  # whatever becomes of it, it is visible
            "uncounted": -len(reply.content.encode()),
            "estimated_tokens": reply.estimated_tokens,
            **_new_lease(now),
        }
        db.send(Turn.update(changes).where(Turn.id == reply.id))
        db.send(insertion(Piece(turn=reply, start=0, text=reply.content)))
        db.send(Session.update(latest_reply=reply.id).where(Session.id == session.id))
        draft.set(**changes)
        if is_untold:
            Usage.add([draft.entry()])
        draft.counted = reply.usage
        return draft

    def _begin(
        self, session: Session, last: int, now: int, *before: Turn, replaces: int | None = None
    ) -> Draft:
        """A new reply, which is stored with the turns that come `before` it."""
        reply = Turn(
            id=new_turn_id(now, last),
            session=session,
            kind="assistant",
            content="",
            created_at=now,
            model=session.model,
            status=IN_PROGRESS,
            replaces=replaces,
            uncounted=self._size,
            **_new_lease(now),
        )
        db.send(insertion(*before, reply))
        return Draft(reply, counted=reply.usage)


def count_request(
    owner: str,
    rate_limit: tuple[int, int],
    now: int,
    session_id: uuid.UUID | None,
    is_fork: bool = False,
) -> None:
    """Count a reply that is requested in this session, or the fork that makes it, in the caller's
    transaction, which has locked the owner. Raises Refused if the limit is reached."""
    replies, seconds = rate_limit
    wait = RateLimitHit.count(owner, replies, seconds, now, session_id, is_fork)
    if wait:
        message = (
            f"You may ask for {replies} replies in {seconds} seconds. Ask again in {wait} seconds."
        )
        raise Refused(message, retry_after=wait, status=429)


def new_turn_id(now: int, last: int) -> int:
    """An id for a turn, behind the last one of its session, and never given twice, as a sequence
    would after a failover. It is the time in milliseconds, with 19 bits of chance below: until 2030
    it has 18 digits, which are all that 1.0.0 reads in the id of an event."""
    return max((now // 1000 << 19) + secrets.randbits(19), last + 1)


def _new_lease(now: int) -> dict[str, Any]:
    """The columns of a reply that this process begins to write."""
    return {
        "fence": secrets.randbits(63),
        "lease_until": now + LEASE,
        "writer": processes.this_process(),
    }
