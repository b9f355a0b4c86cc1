"""What Parley keeps: sessions, their turns, and the idempotency keys; the rate limit has its table in `limits.py`.

Whoever locks rows locks them in one order, session, turn, pieces, so that no two transactions wait for each other.
"""

import contextlib
import dataclasses
import uuid

import peewee
from peewee import SQL, BigIntegerField, BooleanField, IntegerField, TextField, UUIDField, fn

from database import SECOND, db
from limits import RateLimitHit
from search import contains, normalize

LEASE = 20 * SECOND
KEY_TTL = 24 * 3600 * SECOND
PREVIEW = 100  # characters
HISTORY_SIZE = 8 * 2**20  # bytes
HISTORY_ROWS = 16  # that are read at once

IN_PROGRESS, COMPLETE, FAILED, INTERRUPTED = "in_progress", "complete", "failed", "interrupted"


class Refused(Exception):
    """The state of the database forbids a request; the text tells the client what to do.

    `session_id` is the session that is kept all the same, `retry_after` the seconds to wait, where there are any.
    """

    def __init__(self, message, session_id=None, retry_after=None):
        super().__init__(message)
        self.session_id = session_id
        self.retry_after = retry_after


class Missing(Refused):
    """There is no such session for this owner."""

    def __init__(self, message="There is no such session. Look it up in GET /sessions."):
        super().__init__(message)


class Conflict(Refused):
    """A reply is under way, or none is, or newer turns followed."""


class Orphaned(Conflict):
    """The reply under way is orphaned, and must end before another begins."""


class KeyReused(Refused):
    """An idempotency key came with another body."""


class RateLimited(Refused):
    """The owner has asked for as many replies as the limit allows."""


class TurnId(peewee.BigAutoField):
    """An id that is never given twice: a late writer of a deleted reply must not find another turn under its number."""

    def ddl(self, ctx):
        nodes = super().ddl(ctx)
        if db.autoincrement:  # SQLite may give the number of a deleted row again; with AUTOINCREMENT it never does
            nodes.nodes.append(SQL("AUTOINCREMENT"))
        return nodes


class Session(db.Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owner = TextField()
    title = TextField()
    title_is_users = BooleanField(default=False)
    model = TextField()
    system = TextField(null=True)
    preview = TextField(null=True)  # null while a reply is being written: Turn.latest() tells
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    search_title = TextField(column_name="folded_title")

    @classmethod
    def get_owned(cls, owner, session_id):
        """Raises Missing where there is none, or it is another's."""
        session = cls.get_or_none(cls.owner == owner, cls.id == session_id)
        if session is None:
            raise Missing
        return session

    @classmethod
    def page(cls, owner, limit, offset, words=()):
        """Up to `limit` sessions, the last used first, and whether more follow. Each has all these words in it."""
        rows = cls.select(cls.id, cls.title, cls.model, cls.preview, cls.created_at, cls.updated_at)
        rows = rows.where(cls.owner == owner).order_by(cls.updated_at.desc(), cls.id.desc())
        for word in words:
            turns = Turn.select(Turn.id).where(Turn.session == cls.id, Turn.visible, contains(Turn.search_text, word))
            rows = rows.where(contains(cls.search_title, word) | fn.EXISTS(turns))
        found = list(rows.limit(limit + 1).offset(offset))
        for session in found[:limit]:
            if session.preview is None:
                session.preview = session.current_preview()
        return found[:limit], len(found) > limit

    def current_preview(self):
        """The preview while a reply is being written, and right after; empty where the session was deleted meanwhile."""
        with contextlib.suppress(Missing):
            reply = Turn.latest(self.id)
            if reply.status == IN_PROGRESS:
                return reply.content[:PREVIEW]
        return Session.select(Session.preview).where(Session.id == self.id).scalar() or ""

    def change(self, **changes):
        """Store these fields: title, model, system, the last of which may be None."""
        if "title" in changes:
            changes |= {"search_title": normalize(changes["title"]), "title_is_users": True}
        if changes:
            with db.write():
                Session.update(changes).where(Session.id == self.id).execute()
        return Session.get_owned(self.owner, self.id)

    @classmethod
    def suggest_title(cls, session_id, title):
        """Take a title that a model wrote, unless the user set one; returns whether it was taken."""
        suggested = cls.update(title=title, search_title=normalize(title))
        with db.write():
            return bool(suggested.where(cls.id == session_id, ~cls.title_is_users).execute())

    def with_turns(self):
        """This session with its visible `turns`, oldest first, one under way with what has been stored of it."""
        visible = Turn.without_search_text().where(Turn.session == self.id, Turn.visible).order_by(Turn.id)
        turns = list(visible)
        if turns and turns[-1].status == IN_PROGRESS:
            reply = Turn.latest(self.id)
            has_given_way = reply.id != turns[-1].id or not reply.visible  # to the one that it was to replace
            turns = list(visible.clone()) if has_given_way else [*turns[:-1], reply]
        if not turns:
            raise Missing("The session was deleted.")  # meanwhile
        self.turns = turns
        return self

    def history(self, reply_id):
        """The (kind, content) of the visible turns before this reply, oldest first: the newest 8 MB, and no more are read."""
        turns, room, rows = [], HISTORY_SIZE, True
        while rows and room > 0:
            older = Turn.select(Turn.id, Turn.kind, Turn.content).where(Turn.session == self.id, Turn.id < reply_id, Turn.visible)
            rows = list(older.order_by(Turn.id.desc()).limit(HISTORY_ROWS).tuples())
            for reply_id, kind, content in rows:
                room -= len(content.encode())
                if room >= 0 or not turns:
                    turns.append((kind, content))
        return turns[::-1]

    def delete_whole(self):
        with db.write():
            Session.delete().where(Session.id == self.id).execute()


class Turn(db.Model):
    id = TurnId()
    session = peewee.ForeignKeyField(Session, on_delete="CASCADE", index=False)
    kind = TextField()  # user or assistant
    content = TextField()  # empty while a reply is under way: its pieces have the text
    created_at = BigIntegerField()
    visible = BooleanField(column_name="shown", default=True)  # false: it was replaced, or failed to replace another
    model = TextField(null=True)
    status = TextField(null=True)
    lease_until = BigIntegerField(null=True)
    cancelled = BooleanField(default=False)
    replaces = BigIntegerField(null=True)  # the reply that is visible again unless this one completes
    input_tokens = IntegerField(null=True)
    output_tokens = IntegerField(null=True)
    cached_tokens = IntegerField(null=True)
    error_status = IntegerField(null=True)
    error_message = TextField(null=True)
    retry_after = IntegerField(null=True)
    search_text = TextField(column_name="folded", default="")

    @property
    def is_settled(self):
        """Whether an idempotency key that named this reply has had its answer."""
        return self.status == COMPLETE or self.cancelled

    @property
    def is_leased(self):
        """Whether it is being written; where its process died, it counts as such until the lease lapses."""
        return self.status == IN_PROGRESS and self.lease_until >= db.now()

    @classmethod
    def without_search_text(cls):
        """A query of all columns but the one that only the search reads."""
        return cls.select(*[field for field in cls._meta.sorted_fields if field is not cls.search_text])

    @classmethod
    def read(cls, turn_id):
        """The turn with what has been stored of its text, or None where it is gone."""
        # Pieces first: whoever ends the reply between the two reads has moved them into the turn.
        text = Piece.text_of(turn_id)
        turn = cls.without_search_text().where(cls.id == turn_id).first()
        if turn is not None and turn.status == IN_PROGRESS:
            turn.content = text
        return turn

    @classmethod
    def latest(cls, session_id):
        """The latest reply of a session, visible or not; an orphaned one is interrupted here and now."""
        turn_id = cls.select(fn.MAX(cls.id)).where(cls.session == session_id, cls.kind == "assistant").scalar()
        turn = cls.read(turn_id)
        turn = turn and turn.interrupt_if_orphaned()
        if turn is None:
            raise Missing("The session was deleted.")
        return turn

    def interrupt_if_orphaned(self):
        """The turn as it is, or interrupted, where its process died; None where it is gone."""
        if self.status != IN_PROGRESS or self.is_leased:
            return self
        self.interrupt(orphaned=True)
        return Turn.read(self.id)

    def interrupt(self, **options):
        """End it as interrupted, in a transaction of its own: see `end`."""
        search_text = normalize(self.content)
        with db.write():
            return self.end(INTERRUPTED, search_text, **options)

    @classmethod
    def states(cls, turn_ids):
        """id → (status, lease_until, title of the session), of those that still exist."""
        rows = cls.select(cls.id, cls.status, cls.lease_until, Session.title).join(Session).where(cls.id.in_(turn_ids))
        return {turn_id: state for turn_id, *state in rows.tuples()}

    @classmethod
    def renew(cls, turn_ids):
        """Extend the leases of these replies."""
        cls.update(lease_until=db.now() + LEASE).where(cls.id.in_(turn_ids), cls.status == IN_PROGRESS).execute()

    def end(self, status, search_text, reread=True, orphaned=False, **columns):
        """End a reply, in the caller's transaction; returns it as it ended, or None where it is no longer in progress.

        `search_text` is its content, normalized before the transaction began; `reread` adds what has been stored since. With
        `orphaned`, it ends only if its lease has lapsed. Unless it is complete, it gives way to the reply that it replaces.
        """
        under_way = (Turn.id == self.id) & (Turn.status == IN_PROGRESS)
        if orphaned:
            under_way &= Turn.lease_until < db.now()
        db.lock_rows(Session.select(Session.id).where(Session.id == self.session_id))
        db.lock_rows(Turn.select(Turn.id).where(Turn.id == self.id))  # nobody adds a piece behind those that are read here
        content = Piece.text_of(self.id) if reread else self.content
        visible = status == COMPLETE or self.replaces is None
        columns |= {"status": status, "content": content, "visible": visible, "lease_until": None}
        search_text += normalize(content[len(self.content) :])
        ended = Turn.update(columns | {"search_text": search_text}).where(under_way).execute()
        if not ended:
            return None
        Piece.delete().where(Piece.turn == self.id).execute()
        if not visible:
            Turn.update(visible=True).where(Turn.id == self.replaces).execute()
            content = Turn.get_by_id(self.replaces).content
        Session.update(preview=content[:PREVIEW]).where(Session.id == self.session_id).execute()
        return Turn(**self.__data__ | columns)

    def store_usage(self, usage):
        """Add what the provider had said of a reply that somebody else ended."""
        self.__data__.update(usage)
        with db.write():
            Turn.update(usage).where(Turn.id == self.id).execute()

    @classmethod
    def cancel(cls, session):
        """Interrupt the reply under way and return it as far as it got. Raises Conflict where there is none."""
        ended = cls.latest(session.id).interrupt(cancelled=True)
        if ended is None:
            raise Conflict("No reply is under way, so there is nothing to cancel.")
        return ended


class Piece(db.Model):
    """Text of a reply under way, from character `start` on. When the reply ends, its pieces become the turn's content."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")

    @classmethod
    def add(cls, rows):
        """Store these (turn id, start, text), of replies in progress only; returns their ids, held for the transaction."""
        under_way = Turn.select(Turn.id).where(Turn.id.in_([row[0] for row in rows]), Turn.status == IN_PROGRESS)
        held = {turn_id for (turn_id,) in db.locked(under_way).tuples()}
        if held:
            cls.insert_many([row for row in rows if row[0] in held], [cls.turn, cls.start, cls.text]).execute()
        return held

    @classmethod
    def text_of(cls, turn_id, position=0):
        """The text that has been stored from this position on, at which a piece begins."""
        rows = cls.select(cls.text).where(cls.turn == turn_id, cls.start >= position).order_by(cls.start)
        return "".join(text for (text,) in rows.tuples())


class IdempotencyKey(db.Model):
    """A key that a client sent, and the reply that was first asked for under it. It outlives its session."""

    owner = TextField()
    path = TextField()
    key = TextField()
    fingerprint = TextField(column_name="body")  # a digest of the request's body
    session_id = UUIDField()
    turn_id = BigIntegerField()
    created_at = BigIntegerField(index=True)

    class Meta:
        table_name = "key"
        primary_key = peewee.CompositeKey("owner", "path", "key")

    def stored(self):
        """The same key as it was stored before, or None."""
        return IdempotencyKey.get_or_none(owner=self.owner, path=self.path, key=self.key)

    def known(self, now):
        """The same key as it was stored within its time to live, or None. Raises KeyReused."""
        IdempotencyKey.delete().where(IdempotencyKey.created_at <= now - KEY_TTL).execute()
        known = self.stored()
        if known is not None and known.fingerprint != self.fingerprint:
            raise KeyReused("This Idempotency-Key came with another body before. Use a new key for a new request.")
        return known

    def remember(self, session, reply, now):
        """Store the key for this reply, or this reply for the key that is stored."""
        row = self.__data__ | {"session_id": session.id, "turn_id": reply.id, "created_at": now}
        IdempotencyKey.insert(row).on_conflict(
            conflict_target=[IdempotencyKey.owner, IdempotencyKey.path, IdempotencyKey.key],
            preserve=[IdempotencyKey.turn_id],
        ).execute()


Session.add_index(Session.owner, Session.updated_at.desc(), Session.id.desc(), name="session_list")
Turn.add_index(Turn.session, Turn.id, name="turn_session")
Turn.add_index(Turn.session, unique=True, where=SQL("status = 'in_progress'"), name="one_reply_at_a_time")


def _create_tables():
    db.create_tables([Session, Turn, Piece, IdempotencyKey, RateLimitHit])


MIGRATIONS = [_create_tables]  # a newer release appends to them; what has been released is not changed


# Asking for a reply


@dataclasses.dataclass
class ReplyRequest:
    """What a client wants a reply to.

    With `new`, the fields of a session to create, `content` is its first message. With `session_id`, `content` is a
    further message of that session; where it is None, the last user turn is answered again.
    """

    owner: str
    content: str | None = None
    new: dict | None = None
    session_id: uuid.UUID | None = None
    key: IdempotencyKey | None = None  # as the client sent it: without a reply
    limit: tuple | None = None  # (replies, seconds)

    def claim(self):
        """Commit the user turn and an empty reply; returns (session, reply, whether it is to be made now).

        Where the key is known and its reply is settled, that one is returned. Raises a Refused, and changes nothing.
        """
        # No transaction waits for a long text to be normalized.
        self._search_text = normalize(self.content or "")
        try:
            return self._claim()
        except Orphaned as orphaned:
            Turn.latest(orphaned.session_id)  # ends it
            return self._claim()

    def _claim(self):
        with db.write():
            if self.key or self.limit:
                db.lock(self.owner)  # two of one owner's requests are counted, and keys compared, one after the other
            now = db.now()
            known = self.key and self.key.known(now)
            if known is not None:
                session, reply = self._first_outcome(known)
                if reply.is_settled:
                    return session, reply, False
            wait = RateLimitHit.count(self.owner, *self.limit, now) if self.limit else 0
            if wait:
                message = "You may ask for {} replies in {} seconds. Ask again in {} seconds.".format(*self.limit, wait)
                raise RateLimited(message, retry_after=wait)
            if known is None:
                session = self._create(now) if self.new else self._take(self.session_id, now)
            answers_again = known is not None or self.content is None
            reply = self._retry(session, now) if answers_again else self._append(session, now)
            if self.key:
                self.key.remember(session, reply, now)
        return session, reply, True

    def _create(self, now):
        columns = self.new | {"search_title": normalize(self.new["title"]), "created_at": now, "updated_at": now}
        return Session.create(owner=self.owner, **columns)

    def _take(self, session_id, now):
        """The session, locked by the update of its row. Raises Conflict where a reply is under way."""
        moved = Session.update(updated_at=now, preview=None).where(Session.id == session_id, Session.owner == self.owner)
        if not moved.execute():
            raise Missing
        under_way = Turn.without_search_text().where(Turn.session == session_id, Turn.status == IN_PROGRESS).first()
        if under_way is not None:
            message = "A reply is under way. Wait until it is done, or cancel it."
            raise Conflict(message, retry_after=1) if under_way.is_leased else Orphaned(message, session_id, retry_after=1)
        return Session.get_owned(self.owner, session_id)

    def _append(self, session, now):
        """The user turn, and the reply to it."""
        message = {"kind": "user", "content": self.content, "search_text": self._search_text}
        Turn.insert(session=session, created_at=now, **message).execute()
        return self._begin(session, now)

    def _retry(self, session, now):
        """Another reply in the place of the last one, which is visible again unless the new one completes."""
        replies = Turn.select().where(Turn.session == session, Turn.visible, Turn.kind == "assistant")
        last = replies.order_by(Turn.id.desc()).first()
        Turn.update(visible=False).where(Turn.id == last.id).execute()
        return self._begin(session, now, replaces=last.id)

    def _begin(self, session, now, replaces=None):
        columns = {"kind": "assistant", "content": "", "model": session.model, "status": IN_PROGRESS}
        return Turn.create(session=session, created_at=now, lease_until=now + LEASE, replaces=replaces, **columns)

    def _first_outcome(self, known):
        """The session and the reply of a known key. Where that reply failed, the session is taken for another one."""
        session = Session.get_owned(self.owner, known.session_id)
        reply = Turn.get_or_none(Turn.id == known.turn_id)
        if reply is None:
            raise Missing  # deleted meanwhile
        if reply.is_settled:
            session.model = reply.model  # as it was then
            return session, reply
        if reply.is_leased:
            message = "The first request with this key is under way. Ask again for its answer."
            raise Conflict(message, session.id, retry_after=1)
        if Turn.select().where(Turn.session == session, Turn.id > reply.id).exists():
            raise Conflict("The reply failed, and newer turns followed: it is not asked for again.", session.id)
        return self._take(session.id, db.now()), reply
