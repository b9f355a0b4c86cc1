"""What Parley keeps: sessions and their turns; `ledger.py` has the tables of what outlives them. Whoever locks rows locks them in
one order, sessions by their ids, turns, usage, so that no two transactions wait for each other. Within a transaction, what is
sent (`db.send`) is not waited for."""

import dataclasses
import json
import math
import re
import secrets
import uuid

import peewee
from peewee import SQL, BigAutoField, BigIntegerField, BooleanField, IntegerField, TextField, UUIDField, fn

from database import QUERIES, SECOND, db, given, insertion, transaction
from idempotency import IdempotencyKey
from ledger import MOST_TOKENS, TOKENS, RateLimitHit, Usage, estimate
from search import normalize

LEASE = 20 * SECOND
LATELY = 5 * SECOND  # since a process has renewed a lease that is alive
RELEASED = 0  # the lease of a reply that was handed over: anyone may take it at once
PREVIEW = 100  # characters
HISTORY_ROWS = 64  # turns that are read at once
NO_TURN = 2**63 - 1  # an id behind all others

IN_PROGRESS, COMPLETE, FAILED, INTERRUPTED = "in_progress", "complete", "failed", "interrupted"


class Refused(Exception):
    """The state of the database forbids a request: by default a conflict. The text tells the client what to do, `session_id`
    which session is kept all the same, and `retry_after` how many seconds to wait."""

    def __init__(self, message, session_id=None, retry_after=None, status=409):
        super().__init__(message)
        self.status, self.session_id, self.retry_after = status, session_id, retry_after


class Missing(Refused):
    """There is no such session for this owner."""

    def __init__(self, message="There is no such session. Look it up in GET /sessions."):
        super().__init__(message, status=404)


def outcome_of(status, error_status=None, error_message=None, retry_after=None, stop_reason=None):
    """The columns that say how a reply ends."""
    seconds = None if retry_after is None else math.ceil(retry_after)  # a provider may say 7.5
    error = {"error_status": error_status, "error_message": error_message, "retry_after": seconds}
    return {"status": status, "stop_reason": stop_reason} | error


def new_turn_id(now, last):
    """An id for a turn: 63 bits, behind the last one of its session, and never given twice, as a sequence would after a
    failover. It is the time in milliseconds, with 20 bits of chance below."""
    return max((now // 1000 << 20) + secrets.randbits(20), last + 1)


class OptionsField(TextField):
    """The options of a session that are set, as JSON."""

    def db_value(self, options):
        return json.dumps(options) if options else None

    def python_value(self, text):
        return json.loads(text or "{}")


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
    trim = BigIntegerField(null=True)  # turns before this id are not sent to the model
    options = OptionsField(null=True, default=dict)
    latest_reply = BigIntegerField(null=True)  # the one last asked for or continued
    provider = TextField(null=True)  # the name of the model's, when it was chosen

    @classmethod
    def get_owned(cls, owner, session_id):
        """Raises Missing where there is none, or it is another's."""
        if (session := cls.get_or_none(cls.owner == owner, cls.id == session_id)) is None:
            raise Missing
        return session

    @classmethod
    def page(cls, owner, limit, offset, words):
        """Up to `limit` sessions, the last used first, and whether more follow. Each has all these words in it."""
        rows = [("%" + re.sub("([%_!])", r"!\1", word) + "%",) for word in words or [""]]
        page = given("list_sessions", rows, all=not words, preview=PREVIEW, param=db.param)
        found = list(cls.raw(page.sql, *page.params, owner, limit + 1, offset))
        return found[:limit], len(found) > limit

    @transaction
    def change(self, options={}, **changes):
        """Store these fields, title, model, system, and those options that are given; None clears one, and for `options` all."""
        db.hold(Session.select(Session.id).where(Session.id == self.id))
        session = Session.get_owned(self.owner, self.id)
        if "title" in changes:
            changes |= {"search_title": normalize(changes["title"]), "title_is_users": True}
        if changes.get("model", session.model) != session.model:
            changes["trim"] = None  # the other model may remember more
        options = {} if options is None else session.options | options
        changes["options"] = {name: value for name, value in options.items() if value is not None}
        Session.update(changes).where(Session.id == session.id).execute()
        return Session.get_owned(self.owner, self.id)

    @transaction
    def suggest_title(self, title):
        """Take a title that a model wrote, unless the user set one; returns whether it was taken."""
        changes = {"title": title, "search_title": normalize(title)}
        return bool(Session.update(changes).where(Session.id == self.id, ~Session.title_is_users).execute())

    def with_turns(self, limit=None, before=NO_TURN):
        """This session with its visible `turns`, oldest first: all, or so many before one, and whether more are before these."""
        rows = Turn.readable().where(Turn.session == self.id, Turn.visible, Turn.id < before)
        turns = list(rows.order_by(Turn.id.desc()).limit(limit and limit + 1))
        if not turns and before == NO_TURN:
            raise Missing("The session was deleted.")  # meanwhile
        self.turns, self.has_more = turns[:limit][::-1], limit is not None and len(turns) > limit
        return self

    def turns_before(self, turn_id):
        """The visible turns before this one, the newest first, with what is told of replies; read as they are wanted."""
        told = Turn.model, Turn.error_status, Turn.input_tokens, Turn.output_tokens, Turn.turns_left_out, Turn.continued
        visible = Turn.select(Turn.id, Turn.kind, Turn.content, *told).where(Turn.session == self.id, Turn.visible)
        while rows := list(visible.where(Turn.id < turn_id).order_by(Turn.id.desc()).limit(HISTORY_ROWS)):
            yield from rows
            turn_id = rows[-1].id

    def count_before(self, turn_id):
        """How many visible turns there are before this one."""
        return Turn.select().where(Turn.session == self.id, Turn.visible, Turn.id < turn_id).count()


class Turn(db.Model):
    id = BigAutoField()  # see new_turn_id
    session = peewee.ForeignKeyField(Session, on_delete="CASCADE", index=False)
    kind = TextField()  # user or assistant
    content = TextField()  # of a reply under way what it had when it last ended, or nothing: its pieces have the text
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
    estimated_tokens = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    # Of the call under way: the bytes that the tokens above do not count, besides those of the whole content.
    uncounted = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    error_status = IntegerField(null=True)
    error_message = TextField(null=True)
    retry_after = IntegerField(null=True)
    search_text = TextField(column_name="folded", default="")
    fence = BigIntegerField(null=True)  # which attempt may write it: whatever comes late names an older one
    stop_reason = TextField(null=True)
    continued = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # how often, by whomever
    restarts = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # how often by itself since a person last asked for it
    turns_left_out = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    has_pieces = True  # some of its text may be stored in pieces
    trim = None  # what the session's is set to when the reply ends
    base = 0  # of a reply under way that a person had continued: how many characters it had before
    counted = dict.fromkeys(TOKENS)  # the tokens that are in the ledger already

    @property
    def is_settled(self):
        """Whether an idempotency key that named this reply has had its answer."""
        return self.status == COMPLETE or self.cancelled

    @property
    def usage(self):
        return {name: getattr(self, name) for name in TOKENS}

    @property
    def in_vain(self):
        """Whether nothing has come since a person had it continued."""
        return self.base == len(self.content) > 0

    @property
    def outcome(self):
        """What has become of what was last asked for."""
        return FAILED if self.in_vain and not self.cancelled else INTERRUPTED if self.status == IN_PROGRESS else self.status

    def is_lost(self):
        """Whether the process that writes it has died, as far as is known: it has not renewed the lease lately."""
        return (self.lease_until or 0) < db.now() + LEASE - LATELY

    def estimate_rest(self):
        """Count what the process that died has not: what its last call was sent, and has written, as far as it is stored."""
        size = len(self.content.encode())
        self.estimated_tokens = min(self.estimated_tokens + estimate(self.uncounted + size), MOST_TOKENS)
        self.uncounted = -size

    def fallback(self):
        """How this reply under way ends if nothing more comes: as before, where nothing has come since it was continued."""
        if not self.in_vain:
            return outcome_of(INTERRUPTED)
        status = COMPLETE if self.stop_reason else FAILED if self.error_status and not self.cancelled else INTERRUPTED
        error = (self.error_status, self.error_message, self.retry_after) if status == FAILED else ()
        return outcome_of(status, *error, stop_reason=self.stop_reason) | {"continued": self.continued - self.restarts - 1}

    @classmethod
    def readable(cls):
        """A query of turns, with what has been stored of one under way, and whose it is; without what only the search reads."""
        pieces = Piece.select(Piece.text).where(Piece.turn == cls.id).order_by(Piece.start).alias("pieces")
        stored = fn.COALESCE(peewee.Select((pieces,), (getattr(fn, db.concat)(SQL("text"), ""),)), "")
        text = peewee.Case(None, [(cls.under_way(), stored)], cls.content)
        base = peewee.Case(None, [(cls.under_way(), fn.LENGTH(cls.content))], 0).alias("base")
        columns = [field for field in cls._meta.sorted_fields if field.name not in ("content", "search_text")]
        return cls.select(*columns, text.alias("content"), base, Session.id, Session.owner, Session.updated_at).join(Session)

    @classmethod
    def under_way(cls):
        """Whether it is in progress. SQLite uses a partial index only where the statement itself has its condition."""
        return cls.status == SQL(f"'{IN_PROGRESS}'")

    @classmethod
    def is_any_under_way(cls):
        return cls.select().where(cls.under_way()).exists()

    @classmethod
    def read(cls, turn_id):
        """The turn with what has been stored of its text, or None where it is gone."""
        return cls.readable().where(cls.id == turn_id).first()

    @classmethod
    def latest(cls, session_id):
        """The latest reply of a session, visible or not: the one that was last asked for or continued."""
        replies = cls.select(cls.id).where(cls.session == session_id, cls.kind == "assistant")
        newest = replies.order_by(cls.id.desc()).limit(1)
        asked_for = fn.COALESCE(replies.where(cls.under_way()), Session.latest_reply, newest)  # 1.0.0 does not say which it was
        if (turn := cls.read(Session.select(asked_for).where(Session.id == session_id))) is None:
            raise Missing("The session was deleted.")
        return turn

    @classmethod
    def lapsed(cls):
        """(id, lease, restarts, owner) of replies under way that were handed over, or whose processes are gone, or held up."""
        lapsed = db.execute(given("find_lapsed", [(LEASE + SECOND,)])).fetchall()
        if lapsed:  # where nobody can write, they are not told of: their writers may be waiting, too, to renew the leases
            transaction(db.hold)(cls.select(cls.id).where(cls.id.in_([turn[0] for turn in lapsed])).order_by(cls.id))
        return lapsed

    @classmethod
    @transaction
    def take_over(cls, turn_id, lease, limit):
        """Have this process write on a reply whose lease is still this one, and that went on by itself less often than `limit`;
        that it was handed over does not count. Returns it, or None where that is not so, or another was faster."""
        row = turn_id, secrets.randbits(63), lease, int(lease != RELEASED), limit
        if not db.execute(given("take_over", [row], lease=LEASE)).fetchall():
            return None
        turn = cls.read(turn_id)
        turn.session = Session.get_by_id(turn.session_id)
        if lease == RELEASED and turn.in_vain:
            turn.continued -= 1  # it was handed over before a word
        turn.counted = turn.usage
        turn.estimate_rest()
        return turn

    @transaction
    def go_on(self):
        """Count that this reply goes on by itself; returns whether it is still this process's."""
        counts = {"continued": self.continued + 1, "restarts": self.restarts + 1}
        mine = bool(Turn.update(counts).where(Turn.id == self.id, Turn.fence == self.fence, Turn.under_way()).execute())
        self.__data__ |= counts if mine else {}
        return mine

    @classmethod
    def news(cls, positions):
        """id → [status, fence, title of the session, text behind the position, if there is one], for those that still exist."""
        statement = given("read_news", list(positions.items()))
        return {turn_id: news for turn_id, *news in db.execute(statement).fetchall()}

    @classmethod
    @transaction
    def renew(cls, fences):
        """Extend the leases of these replies, {id: fence}."""
        db.send(given("renew_leases", sorted(fences.items()), lease=LEASE))

    @classmethod
    @transaction
    def store(cls, pieces, turns, used=()):
        """Store these pieces (id, fence, start, text), how these replies ended, or that they are handed over, and what those have
        `used` that go on. Returns a function that returns, once the transaction has ended, the ids of all that were still this
        process's to write."""
        grown = db.send(given("add_pieces", pieces)) if pieces else list
        counted, going_on = list, {"only": "turn.status = 'in_progress'"}
        if used:
            counted = db.send(given("store_usage", cls._rows("store_usage", used), also="fence = turn.fence", **going_on))
        released = [turn for turn in turns if turn.status == IN_PROGRESS]
        released = cls._change("store_usage", released, also=f"lease_until = {RELEASED}", **going_on)
        ended = cls.end([turn for turn in turns if turn.status != IN_PROGRESS], released, used)
        return lambda: {turn_id for (turn_id,) in [*grown(), *counted()]}.union(turn.id for turn in released + ended)

    @classmethod
    def _change(cls, name, turns, **values):
        """Execute the statement of this name for these turns; returns those that it has changed."""
        ids = {turn_id for (turn_id,) in db.send(given(name, cls._rows(name, turns), **values))()} if turns else set()
        return [turn for turn in turns if turn.id in ids]

    @staticmethod
    def _rows(name, turns):
        return [[getattr(turn, column) for column in QUERIES[name][0]] for turn in turns]

    @classmethod
    def end(cls, turns, released=(), used=()):
        """Store how these replies ended, in the caller's transaction; returns those that this has ended. Others are gone, have
        ended before, or have another fence by now, or another lease where `lease_until` is set. What these, and others, have used
        is counted."""
        if turns:
            db.hold(given("hold_sessions", [(turn.session_id,) for turn in turns]))
        if ended := cls._change("end_replies", turns):
            rows = [(turn.id, turn.trim) for turn in ended]
            if any(turn.has_pieces for turn in ended):
                db.send(given("drop_pieces", rows))
            if any(turn.replaces for turn in ended):
                db.send(given("show_turns", rows))
            db.send(given("change_sessions", rows, preview=PREVIEW))
            IdempotencyKey.forget([turn for turn in ended if turn.in_vain and not turn.cancelled])
        Usage.add(released, ended, used)  # by one statement, which locks them in one order, and last of all
        return ended

    @classmethod
    @transaction
    def interrupt(cls, turns, search_texts, cancelled):
        """End these replies, whose texts are these normalized, with what was stored since: `cancelled`, or else orphaned, as long
        as their leases are still these. Returns those that this has ended."""
        # With their sessions and rows held, nobody adds a piece behind those that are read here.
        db.hold(given("hold_sessions", [(turn.session_id,) for turn in turns]))
        db.hold(cls.select(cls.id).where(cls.id.in_([turn.id for turn in turns])))
        news, ended = cls.news({turn.id: len(turn.content) for turn in turns}), []
        for turn, search_text in zip(turns, search_texts):
            rest = news[turn.id][-1] if turn.id in news else ""
            changes = {"content": turn.content + rest, "search_text": search_text + normalize(rest), "cancelled": cancelled}
            ending = Turn(**turn.__data__ | {"session": turn.session} | changes, base=turn.base, counted=turn.usage)
            ending.__data__ |= ending.fallback()
            if not cancelled or turn.is_lost():  # else its process knows better, and will say so
                ending.estimate_rest()
            ended.append(ending)
        return cls.end(ended)

    @transaction
    def store_usage(self):
        """Store, once, what a reply has used that this process wrote, and that somebody cancelled or deleted; it is counted as a
        reply by then."""
        db.lock(self.session.owner)  # see Usage.add_late
        db.hold(Session.select(Session.id).where(Session.id == self.session_id))  # so nobody continues it meanwhile
        if self.trim:
            db.send(Session.update(trim=self.trim).where(Session.id == self.session_id, Session.model == self.model))
        stored = Turn.select(*(getattr(Turn, name) for name in TOKENS)).where(Turn.id == self.id).first()
        if stored:  # whoever has cancelled it may have estimated what it used
            self.counted = stored.usage
            self.__data__ |= {name: max(count, getattr(self, name) or 0) for name, count in stored.usage.items() if count}
        cancelled = Turn._change("store_usage", [self], also="fence = NULL", only="turn.cancelled")
        Usage.add(cancelled if stored else [self])

    @classmethod
    def cancel(cls, session):
        """Interrupt the reply under way and return it as far as it got. Raises Refused where there is none."""
        while (turn := cls.latest(session.id)).status == IN_PROGRESS:
            if ended := cls.interrupt([turn], [normalize(turn.content)], cancelled=True):  # else it has ended, or changed hands
                return ended[0]
        raise Refused("No reply is under way, so there is nothing to cancel.")


class Piece(db.Model):
    """Text of a reply under way, from character `start` on. When the reply ends, its pieces become the turn's content."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")


Session.add_index(Session.owner, Session.updated_at.desc(), Session.id.desc(), name="session_list")
Turn.add_index(Turn.session, Turn.id, name="turn_session")
Turn.add_index(Turn.session, unique=True, where=SQL("status = 'in_progress'"), name="one_reply_at_a_time")


@dataclasses.dataclass
class ReplyRequest:
    """What a client wants a reply to: `content` is the first message of a `new` session, or a further one of `session_id`. With
    `retry`, its last user turn is changed to that, or answered again as it is; with `goes_on`, its last reply is written on."""

    owner: str
    content: str | None = None
    new: dict | None = None  # the fields of a session to create
    session_id: uuid.UUID | None = None
    retry: bool = False
    goes_on: bool = False
    key: IdempotencyKey | None = None  # as the client sent it: without a reply
    limit: tuple | None = None  # (replies, seconds)
    token_limit: tuple | None = None  # (tokens, "month" or "day")

    def __post_init__(self):
        # Here, since no transaction waits for a long text to be normalized.
        self._text = {"content": self.content, "search_text": normalize(self.content or "")}
        sent = ((self.new or {}).get("system") or "") + (self.content or "")  # of a new session, all that the model is sent
        self._size = len(sent.encode())

    @transaction
    def claim(self):
        """Commit the user turn and an empty reply; returns it, and whether it is to be made now. Where the key is known and its
        reply is settled, it returns that one. Raises Refused, and changes nothing."""
        if self.key or self.limit:
            db.lock(self.owner)  # two of one owner's requests are counted, and keys compared, one after the other
        now = db.now()
        known = self.key and self.key.known(now)
        if known and (reply := self._first_outcome(known)):
            return reply, False
        if self.token_limit:
            self._check_tokens(*self.token_limit, now)
        if self.limit and (wait := RateLimitHit.count(self.owner, *self.limit, now)):
            message = "You may ask for {} replies in {} seconds. Ask again in {} seconds.".format(*self.limit, wait)
            raise Refused(message, retry_after=wait, status=429)
        session, last = self._create(now) if self.new else self._take(now)
        if self.goes_on:
            reply = self._continue(session, now)
        elif self.retry:
            reply = self._retry(session, last, now)
        else:
            message = Turn(id=new_turn_id(now, last), session=session, kind="user", created_at=now, **self._text)
            reply = self._begin(session, message.id, now, message)
        if self.key:
            self.key.remember(reply, now)
        return reply, True

    def _check_tokens(self, most, period, now):
        used, reset = Usage.in_period(self.owner, period, now)
        if used >= most:
            message = f"You have used {used:,} of {most:,} tokens of this {period} (UTC). Ask again in the next one."
            raise Refused(message, retry_after=-((now - reset) // SECOND), status=429)

    def _create(self, now):
        """A new session, and 0 for the id of its last turn."""
        derived = {"preview": self.content[:PREVIEW], "search_title": normalize(self.new["title"])}
        session = Session(owner=self.owner, created_at=now, updated_at=now, **derived, **self.new)
        db.send(insertion(session))
        return session, 0

    def _take(self, now):
        """The session, locked by the update of its row, and the id of its last turn. Raises Refused where one is in progress."""
        preview = {} if self.content is None else {"preview": self.content[:PREVIEW]}
        changes = {"updated_at": now, "latest_reply": None} | preview  # that is the newest now
        mine = Session.id == self.session_id, Session.owner == self.owner
        db.send(Session.update(changes).where(*mine))
        under_way = Turn.select(Turn.id).where(Turn.session == self.session_id, Turn.under_way())
        turns = Turn.select(Turn.id, Session, fn.EXISTS(under_way).alias("is_busy")).join(Session).where(*mine)
        if (last := turns.order_by(Turn.id.desc()).first()) is None:
            raise Missing
        if last.is_busy:
            raise Refused("A reply is under way. Wait until it is done, or cancel it.", retry_after=1)
        return last.session, last.id

    def _retry(self, session, last, now):
        """Another reply in the place of the last one, which it `replaces` unless the last user turn was changed."""
        newest = Turn.select(Turn.id).where(Turn.session == session, Turn.visible).order_by(Turn.id.desc()).limit(1)
        replies, messages = newest.where(Turn.kind == "assistant"), newest.where(Turn.kind == "user")
        ((replaced,),) = db.send(Turn.update(visible=False).where(Turn.id == replies).returning(Turn.id))()
        if self.content is not None:
            db.send(Turn.update(self._text).where(Turn.id == messages))
        preview = messages.select(fn.SUBSTR(Turn.content, 1, PREVIEW))
        db.send(Session.update(preview=preview).where(Session.id == session.id))
        return self._begin(session, last, now, replaces=replaced if self.content is None else None)

    def _continue(self, session, now):
        """The last visible reply, under way again behind its text. Raises Refused where there is nothing to continue."""
        replies = Turn.readable().where(Turn.session == session, Turn.visible, Turn.kind == "assistant")
        reply = replies.order_by(Turn.id.desc()).first()
        is_whole = reply.status == COMPLETE and reply.stop_reason != "length"
        if is_whole or not reply.content.strip():
            raise Refused("There is nothing to continue: the last reply is whole, or has no text. Send a message, or retry.")
        if reply.is_settled:
            IdempotencyKey.settle(reply)
        changes = {"status": IN_PROGRESS, "fence": secrets.randbits(63), "lease_until": now + LEASE, "cancelled": False}
        changes |= {"continued": reply.continued + 1, "restarts": 0, "replaces": None}  # whatever becomes of it, it is visible
        reply.counted = reply.usage
        is_untold = reply.cancelled and reply.fence is not None  # its process has not said what it used, and cannot any more
        if is_untold:
            reply.estimate_rest()
        changes |= {"uncounted": -len(reply.content.encode()), "estimated_tokens": reply.estimated_tokens}
        db.send(Turn.update(changes).where(Turn.id == reply.id))
        db.send(insertion(Piece(turn=reply, start=0, text=reply.content)))
        db.send(Session.update(latest_reply=reply.id).where(Session.id == session.id))
        reply.__data__ |= changes
        reply.session, reply.base = session, len(reply.content)
        if is_untold:
            Usage.add([reply])
        reply.counted = reply.usage
        return reply

    def _begin(self, session, last, now, *before, replaces=None):
        """A new reply, which is stored with the turns that come `before` it."""
        columns = {"kind": "assistant", "content": "", "model": session.model, "status": IN_PROGRESS, "replaces": replaces}
        fence = {"fence": secrets.randbits(63), "lease_until": now + LEASE, "uncounted": self._size}
        reply = Turn(id=new_turn_id(now, last), session=session, created_at=now, **columns, **fence)
        db.send(insertion(*before, reply))
        return reply

    def _first_outcome(self, known):
        """The reply of a known key; None where it failed, and is asked for again. Raises Refused."""
        owned = Turn.select(Turn, Session).join(Session).where(Turn.id == known.turn_id, Session.owner == self.owner)
        if (reply := owned.first()) is None:
            raise Missing  # deleted meanwhile
        if known.settled or reply.is_settled:
            reply.__data__ |= outcome_of(INTERRUPTED) if reply.status == FAILED else {}  # as of what was asked for later
            reply.session.model = reply.model  # as it was then
            return reply
        if reply.status == IN_PROGRESS:
            message = "The first request with this key is under way. Ask again for its answer."
            raise Refused(message, reply.session_id, retry_after=1)
        if Turn.select().where(Turn.session == reply.session, Turn.id > reply.id).exists():
            raise Refused("The reply failed, and newer turns followed: it is not asked for again.", reply.session_id)
        self.session_id, self.new, self.content, self.retry = reply.session_id, None, None, True
        return None
