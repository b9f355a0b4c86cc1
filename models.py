"""What Parley keeps: sessions and their turns; `idempotency.py`, `limits.py` and `ledger.py` have their own tables.

Whoever locks rows locks them in one order, sessions by their ids, turns, usage, so that no two transactions wait for each
other. Within a transaction, what is sent (`db.send`) is not waited for.
"""

import collections
import dataclasses
import secrets
import time
import uuid

import peewee
from peewee import SQL, BigAutoField, BigIntegerField, BooleanField, IntegerField, TextField, UUIDField, fn

from database import QUERIES, SECOND, db, given, insertion, limit_time, transaction
from idempotency import IdempotencyKey
from ledger import Usage
from limits import RateLimitHit
from search import contains, normalize

LEASE, RENEWAL = 20 * SECOND, SECOND  # how long a lease is, and how much of it has gone when it is renewed
PREVIEW = 100  # characters
HISTORY_SIZE = 8 * 2**20  # bytes
HISTORY_ROWS = 16  # that are read at once
NOWHERE = 2**31 - 1  # a position that no text reaches
DELETION_STEP = 0.05  # seconds that a step of a deletion may hold up other writers

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


class RateLimited(Refused):
    """The owner has asked for as many replies as the limit allows."""


def new_turn_id(now, last=0):
    """An id for a turn: 63 bits, behind the last one of its session, and never given twice, as a sequence would after a
    failover. It is the time in milliseconds, with 20 bits of chance below."""
    return max((now // 1000 << 20) + secrets.randbits(20), last + 1)


class Session(db.Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owner = TextField()
    title = TextField()
    title_is_users = BooleanField(default=False)
    model = TextField()
    system = TextField(null=True)
    preview = TextField(null=True)  # of the last turn that has text, without the reply that is being written
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    search_title = TextField(column_name="folded_title")
    trim = BigIntegerField(null=True)  # the first turn that the model is sent
    options = TextField(null=True)  # JSON
    latest_reply = BigIntegerField(null=True)  # the one last asked for or continued

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
        previews = Piece.previews([session.id for session in found[:limit]])
        for session in found[:limit]:
            session.preview = previews.get(session.id) or session.preview or ""
        return found[:limit], len(found) > limit

    def change(self, **changes):
        """Store these fields: title, model, system, the last of which may be None."""
        if "title" in changes:
            changes |= {"search_title": normalize(changes["title"]), "title_is_users": True}
        if changes:
            self._update(changes, Session.owner == self.owner)
        return Session.get_owned(self.owner, self.id)

    def suggest_title(self, title):
        """Take a title that a model wrote, unless the user set one; returns whether it was taken."""
        return self._update({"title": title, "search_title": normalize(title)}, ~Session.title_is_users)

    @transaction
    def _update(self, changes, *conditions):
        return bool(Session.update(changes).where(Session.id == self.id, *conditions).execute())

    def with_turns(self, orphans):
        """This session with its visible `turns`, oldest first, one under way with what has been stored of it.

        Those of these ids count as interrupted, though nobody could write it yet.
        """
        self.turns = list(Turn.readable().where(Turn.session == self.id, Turn.visible).order_by(Turn.id))
        if not self.turns:
            raise Missing("The session was deleted.")  # meanwhile
        for turn in self.turns:
            turn.status = INTERRUPTED if turn.status == IN_PROGRESS and turn.id in orphans else turn.status
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
        """Delete it: first out of its owner's sight, then in steps that hold up nobody for long."""
        self._update({"owner": ""})
        for session in list(Session.select().where(Session.owner == "")):  # what a process that died has left, too
            count, more = 1, True
            while more:
                limit_time()  # each step shows that the database answers
                began = time.monotonic()
                more = session._delete_some(count)
                count = count * 2 if time.monotonic() - began < DELETION_STEP / 2 else max(1, count // 2)
                time.sleep(0.01)  # a writer who has waited comes first

    @transaction
    def _delete_some(self, count):
        """Delete the last so many turns, and the session where there is none left; returns whether more is left."""
        turns = Turn.select(Turn.id).where(Turn.session == self.id).order_by(Turn.id.desc()).limit(count)
        if Turn.delete().where(Turn.id.in_(turns)).execute():
            return True
        Session.delete().where(Session.id == self.id).execute()
        return False


class Turn(db.Model):
    id = BigAutoField()  # see new_turn_id
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
    fence = BigIntegerField(null=True)  # which attempt may write it: whatever comes late names an older one
    stop_reason = TextField(null=True)
    continued = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    turns_left_out = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])

    @property
    def is_settled(self):
        """Whether an idempotency key that named this reply has had its answer."""
        return self.status == COMPLETE or self.cancelled

    @classmethod
    def readable(cls):
        """A query of turns, with what has been stored of one under way, and without what only the search reads."""
        pieces = Piece.select(Piece.text).where(Piece.turn == cls.id).order_by(Piece.start).alias("pieces")
        stored = peewee.Select((pieces,), (getattr(fn, db.concat)(SQL("text"), ""),))
        text = peewee.Case(None, [(cls.under_way(), fn.COALESCE(stored, ""))], cls.content)
        columns = [field for field in cls._meta.sorted_fields if field.name not in ("content", "search_text")]
        return cls.select(*columns, text.alias("content"))

    @classmethod
    def under_way(cls):
        """Whether it is in progress. SQLite uses a partial index only where the statement itself has its condition."""
        return cls.status == SQL(f"'{IN_PROGRESS}'")

    @classmethod
    def read(cls, turn_id):
        """The turn with what has been stored of its text, or None where it is gone."""
        return cls.readable().where(cls.id == turn_id).first()

    @classmethod
    def latest(cls, session_id):
        """The latest reply of a session, visible or not."""
        last = cls.select(fn.MAX(cls.id)).where(cls.session == session_id, cls.kind == "assistant")
        turn = cls.readable().where(cls.id == last).first()
        if turn is None:
            raise Missing("The session was deleted.")
        return turn

    @classmethod
    def lapsed(cls):
        """id → lease, of replies under way whose lease has lapsed, or is longer than any since the clock was set back: their
        processes are gone, or have been held up."""
        holds = cls.lease_until.between(db.clock(), db.clock() + LEASE + RENEWAL)
        return dict(cls.select(cls.id, cls.lease_until).where(cls.under_way(), ~holds).tuples())

    @classmethod
    def news(cls, positions):
        """id → [status, whether its lease is to be renewed, title of the session, text behind the position], for each of
        these ids that still exists.

        `positions` are {id: position}; where that is None, no text is asked for.
        """
        rows = [(turn_id, NOWHERE if position is None else position) for turn_id, position in positions.items()]
        rows = db.execute(given("read_news", rows, lease=LEASE, renewal=RENEWAL)).fetchall()
        found = {}
        for turn_id, status, is_due, title, start, text in rows:
            state = found.setdefault(turn_id, [status, is_due, title, ""])
            if text is not None:
                state[3] += text[max(0, positions[turn_id] + len(state[3]) - start) :]
        return found

    @classmethod
    @transaction
    def renew(cls, fences):
        """Extend the leases of these replies, {id: fence}."""
        db.send(given("renew_leases", sorted(fences.items()), lease=LEASE))

    def finish(self, status, content, search_text, **columns):
        """Say how it ends, in memory. Unless it is complete, it gives way to the reply that it replaces."""
        visible = status == COMPLETE or self.replaces is None
        self.__data__ |= columns | {"status": status, "content": content, "search_text": search_text, "visible": visible}
        return self

    @classmethod
    def end(cls, turns, orphaned=False):
        """Store how these replies ended, in the caller's transaction; returns the ids of those that this has ended.

        Others have ended before, are gone, or have another fence by now, or with `orphaned` another lease.
        """
        db.hold(Session.select(Session.id).where(Session.id.in_([turn.session_id for turn in turns])).order_by(Session.id))
        fields = [cls._meta.columns[column] for column in list(QUERIES["end_replies"][0])[3:]]
        rows = []
        for turn in turns:
            values = [field.db_value(turn.__data__.get(field.name)) for field in fields]
            rows.append([turn.id, turn.fence, turn.lease_until if orphaned else None, *values])
        ids = {turn_id for (turn_id,) in db.send(given("end_replies", rows))()}
        ended = [turn for turn in turns if turn.id in ids]
        rows = [(turn.id, turn.id if turn.visible else turn.replaces) for turn in ended]
        if ended:
            for name in ("drop_pieces", "show_turns", "set_previews"):
                db.send(given(name, rows, preview=PREVIEW))
            Usage.add([(turn, turn.session.owner, 1) for turn in ended])
        return ids

    @classmethod
    def interrupt(cls, turns, cancelled=False, orphaned=False):
        """End these replies as interrupted, with what has been stored of them; returns those that were ended so."""
        return cls._interrupt(turns, [normalize(turn.content) for turn in turns], cancelled, orphaned)

    @classmethod
    @transaction
    def _interrupt(cls, turns, search_texts, cancelled, orphaned):
        # With their sessions and rows held, nobody adds a piece behind those that are read here.
        db.hold(Session.select(Session.id).where(Session.id.in_([turn.session_id for turn in turns])).order_by(Session.id))
        db.hold(cls.select(cls.id).where(cls.id.in_([turn.id for turn in turns])))
        owned = Session.select(Session.id, Session.owner).where(Session.id.in_([turn.session_id for turn in turns]))
        sessions = {session.id: session for session in owned}
        news, interrupted = cls.news({turn.id: len(turn.content) for turn in turns}), []
        for turn, search_text in zip(turns, search_texts):
            rest = news[turn.id][3] if turn.id in news else ""
            texts = turn.content + rest, search_text + normalize(rest)
            known = turn.__data__ | {"session": sessions.get(turn.session_id)}  # with its owner, whose usage is counted
            interrupted.append(Turn(**known).finish(INTERRUPTED, *texts, cancelled=cancelled))
        ids = cls.end(interrupted, orphaned)
        return [turn for turn in interrupted if turn.id in ids]

    @transaction
    def resume(self, owner):
        """Take up a reply of this process that others have ended, since they took it for dead; returns whether nothing newer
        happened."""
        db.hold(Session.select(Session.id).where(Session.id == self.session_id))
        same = (Turn.id == self.id) & (Turn.fence == self.fence) & (Turn.status == INTERRUPTED) & ~Turn.cancelled
        last = Turn.select(fn.MAX(Turn.id)).where(Turn.session == self.session_id)
        lease = {"status": IN_PROGRESS, "lease_until": db.now() + LEASE}
        if not Turn.update(content="", search_text="", visible=True, **lease).where(same, Turn.id == last).execute():
            return False
        db.send(Turn.update(visible=False).where(Turn.id == self.replaces))
        if self.content:
            db.send(insertion(Piece(turn=self, start=0, text=self.content)))
        Usage.add([(self, owner, -1)])
        return True

    @transaction
    def store_usage(self, usage):
        """Store what the provider said of a reply that this process wrote, and that somebody cancelled or deleted."""
        self.__data__ |= usage
        mine = (Turn.id == self.id) & (Turn.fence == self.fence) & Turn.cancelled
        cancelled = Turn.update(usage).where(mine, Turn.input_tokens.is_null(), Turn.output_tokens.is_null()).execute()
        if cancelled or not Turn.select(Turn.id).where(Turn.id == self.id).exists():
            Usage.add([(self, self.session.owner, 0 if cancelled else 1)])

    @classmethod
    def cancel(cls, session):
        """Interrupt the reply under way and return it as far as it got. Raises Conflict where there is none."""
        ended = cls.interrupt([cls.latest(session.id)], cancelled=True)
        if not ended:
            raise Conflict("No reply is under way, so there is nothing to cancel.")
        return ended[0]


class Piece(db.Model):
    """Text of a reply under way, from character `start` on. When the reply ends, its pieces become the turn's content."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")

    @classmethod
    def add(cls, rows):
        """Store these (turn id, fence, start, text), in the caller's transaction, of replies that are under way and have this
        fence; returns a function that returns the rows of their ids, without waiting once the transaction has ended."""
        return db.send(given("add_pieces", rows))

    @classmethod
    def previews(cls, session_ids):
        """id → the beginning of the reply that is being written, of those of these sessions where it has text."""
        rows = cls.select(Turn.session, cls.text).join(Turn).where(Turn.session.in_(session_ids), Turn.under_way())
        texts = collections.defaultdict(str)
        for session_id, text in rows.where(cls.start < PREVIEW).order_by(cls.turn, cls.start).tuples():
            texts[session_id] += text
        return {session_id: text[:PREVIEW] for session_id, text in texts.items()}


Session.add_index(Session.owner, Session.updated_at.desc(), Session.id.desc(), name="session_list")
Turn.add_index(Turn.session, Turn.id, name="turn_session")
Turn.add_index(Turn.session, unique=True, where=SQL("status = 'in_progress'"), name="one_reply_at_a_time")


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
        if self.new:
            self.new["search_title"] = normalize(self.new["title"])
        return self._claim()

    @transaction
    def _claim(self):
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
        if known is not None:
            self.session_id, self.content = session.id, None  # it is asked for again
        session, last = self._create(now) if self.new and known is None else self._take(now)
        reply = self._retry(session, last, now) if self.content is None else self._append(session, last, now)
        if self.key:
            self.key.remember(session, reply, now)
        return session, reply, True

    def _create(self, now):
        """A new session, and 0 for the id of its last turn."""
        columns = self.new | {"preview": self.content[:PREVIEW], "created_at": now, "updated_at": now}
        session = Session(owner=self.owner, **columns)
        db.send(insertion(session))
        return session, 0

    def _take(self, now):
        """The session, locked by the update of its row, and the id of its last turn. Raises Conflict where one is in progress."""
        changes = {"updated_at": now} | ({} if self.content is None else {"preview": self.content[:PREVIEW]})
        db.send(Session.update(changes).where(Session.id == self.session_id, Session.owner == self.owner))
        turns = Turn.select(Turn.id, Turn.status).where(Turn.session == self.session_id)
        last = db.send(turns.order_by(Turn.id.desc()).limit(1))
        session = Session.get_owned(self.owner, self.session_id)
        ((turn_id, status),) = last()
        if status == IN_PROGRESS:
            raise Conflict("A reply is under way. Wait until it is done, or cancel it.", retry_after=1)
        return session, turn_id

    def _append(self, session, last, now):
        """The user turn, and the reply to it."""
        content = {"content": self.content, "search_text": self._search_text}
        message = Turn(id=new_turn_id(now, last), session=session, kind="user", created_at=now, **content)
        reply = self._begin(session, message.id, now)
        db.send(insertion(message, reply))
        return reply

    def _retry(self, session, last, now):
        """Another reply in the place of the last one, which is visible again unless the new one completes."""
        turns = Turn.select(Turn.id, Turn.content).where(Turn.session == session, Turn.visible).order_by(Turn.id.desc())
        replaced = turns.where(Turn.kind == "assistant").first()
        reply = self._begin(session, last, now, replaces=replaced.id)
        db.send(Turn.update(visible=False).where(Turn.id == replaced.id))
        db.send(insertion(reply))
        message = turns.select(fn.SUBSTR(Turn.content, 1, PREVIEW)).where(Turn.kind == "user").limit(1)
        db.send(Session.update(preview=message).where(Session.id == session.id))
        return reply

    def _begin(self, session, last, now, replaces=None):
        columns = {"kind": "assistant", "content": "", "model": session.model, "status": IN_PROGRESS, "replaces": replaces}
        fence = {"fence": secrets.randbits(63), "lease_until": now + LEASE}
        return Turn(id=new_turn_id(now, last), session=session, created_at=now, **columns, **fence)

    def _first_outcome(self, known):
        """The session and the reply of a known key. Where that reply failed, it may be asked for again: else raises a Refused."""
        session = Session.get_owned(self.owner, known.session_id)
        reply = Turn.get_or_none(Turn.id == known.turn_id)
        if reply is None:
            raise Missing  # deleted meanwhile
        if reply.is_settled:
            session.model = reply.model  # as it was then
        elif reply.status == IN_PROGRESS:
            message = "The first request with this key is under way. Ask again for its answer."
            raise Conflict(message, session.id, retry_after=1)
        elif Turn.select().where(Turn.session == session, Turn.id > reply.id).exists():
            raise Conflict("The reply failed, and newer turns followed: it is not asked for again.", session.id)
        return session, reply
