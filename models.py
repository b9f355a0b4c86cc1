"""What Parley keeps: sessions and their turns, and how they are read.

`tables/` has what outlives them, `replies/` writes them. A transaction that locks rows locks them
in one order, sessions by their ids, turns, usage, so that no two transactions wait for each other.
"""

import enum
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

import peewee
from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    IntegerField,
    TextField,
    UUIDField,
    fn,
)

import processes
from database import SECOND, db, transaction
from limits import SMALL
from tables import given, shown, statements
from tables.ledger import TOKENS
from tables.search import normalize

LEASE = 20 * SECOND
RELEASED = 0  # the lease of a reply that was handed over: any process may take it at once
PREVIEW = 100  # characters
LONGEST_PAGE = 8 * 2**20  # bytes of the turns that are shown at once
MANY = 2**31  # more turns than a session has


class Status(enum.StrEnum):
    """What has become of a reply."""

    IN_PROGRESS = "in_progress"  # a process writes it, or will: it has a lease and a fence
    COMPLETE = "complete"  # the model came to its end, or to the limit of its length
    FAILED = "failed"  # its error says why
    INTERRUPTED = "interrupted"  # a person, a deletion or the end of a process stopped it


IN_PROGRESS, COMPLETE, FAILED, INTERRUPTED = Status


class Refused(Exception):
    """The state of the database forbids a request: by default a conflict. The text tells the client
    what to do, `session_id` which session is kept all the same, and `retry_after` how many seconds
    to wait."""

    def __init__(
        self,
        message: str,
        session_id: uuid.UUID | None = None,
        retry_after: float | None = None,
        status: int = 409,
    ) -> None:
        super().__init__(message)
        self.status, self.session_id, self.retry_after = status, session_id, retry_after


class Missing(Refused):
    """There is no such session for this owner."""

    def __init__(
        self, message: str = "There is no such session. Look it up in GET /sessions."
    ) -> None:
        super().__init__(message, status=404)


class NoReply(Refused):
    """None was asked for in this session yet: it is a fork that ends with its first message."""

    def __init__(self) -> None:
        super().__init__("This session has no reply yet. Ask for one by its retry.")


def outcome_of(
    status: Status,
    error_status: int | None = None,
    error_message: str | None = None,
    retry_after: float | None = None,
    pointer: str | None = None,
    stop_reason: str | None = None,
) -> dict[str, Any]:
    """The columns that say how a reply ends. The pointer (RFC 6901) is what is at fault of the
    request, such as `/options/top_p`."""
    seconds = None if retry_after is None else math.ceil(retry_after)  # a provider may say 7.5
    return {
        "status": status,
        "error_status": error_status,
        "error_message": error_message,
        "retry_after": seconds,
        "error_pointer": pointer,
        "stop_reason": stop_reason,
    }


class OptionsField(TextField):
    """The options of a session that are set, as JSON."""

    def db_value(self, options: Mapping[str, Any] | None) -> str | None:
        return json.dumps(options) if options else None

    def python_value(self, text: str | None) -> dict[str, Any]:
        return json.loads(text or "{}")


class Session(db.Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owner = TextField()
    title = TextField()
    title_is_users = BooleanField(default=False)
    model = TextField()
    system = TextField(null=True)
    # Of the last turn that has text, without the reply that is being written.
    preview = TextField(null=True)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    search_title = TextField(column_name="folded_title")
    trim = BigIntegerField(null=True)  # turns before this id are not sent to the model
    options = OptionsField(null=True, default=dict)
    latest_reply = BigIntegerField(null=True)  # the one last asked for or continued
    provider = TextField(null=True)  # the name of the model's, when it was chosen
    # Of one that was imported, or is a fork: since when it is here; where it comes from, as the
    # client names that; and the process that is still writing it, while it is nobody's.
    imported_at = BigIntegerField(null=True)
    origin = TextField(null=True)
    writer = TextField(null=True)
    # The bytes of its turns' texts, as they were counted when `updated_at` was `sized_at`.
    size = BigIntegerField(null=True)
    sized_at = BigIntegerField(null=True)

    # Of a session that was read by `short_columns`: the bytes of its system prompt.
    system_size = 0

    @classmethod
    def short_columns(cls) -> list[Any]:
        """All columns, for a select; but a system prompt only if it is short, as all others are."""
        size = db.size_of(cls.system)
        system = peewee.Case(None, [(size <= SMALL, cls.system)])
        return [
            *cls.columns_but_system(),
            system.alias("system"),
            fn.COALESCE(size, 0).alias("system_size"),
        ]

    @classmethod
    def columns_but_system(cls) -> list[peewee.Field]:
        return [field for field in cls._meta.sorted_fields if field is not cls.system]

    @classmethod
    def get_owned(cls, owner: str, session_id: uuid.UUID) -> Self:
        """The session without a long system prompt, which `read_system` reads. Raises Missing if
        there is none, or it is another's."""
        query = cls.select(*cls.short_columns())
        if (session := query.where(cls.owner == owner, cls.id == session_id).first()) is None:
            raise Missing
        return session

    @classmethod
    def is_there(cls, session_id: uuid.UUID) -> bool:
        """Whether it is somebody's: one that is being deleted, or imported, is nobody's."""
        return cls.select().where(cls.id == session_id, cls.owner != "").exists()

    @classmethod
    def page(cls, owner: str, limit: int, offset: int, words: list[str]) -> tuple[list[Self], bool]:
        """Up to `limit` sessions, the last used first, and whether more follow. Each has all these
        words in it."""
        rows = [("%" + re.sub("([%_!])", r"!\1", word) + "%",) for word in words or [""]]
        page = given("list_sessions", rows, all=not words, preview=PREVIEW)
        found = list(cls.raw(page.sql, *page.params, owner, limit + 1, offset))
        return found[:limit], len(found) > limit

    @transaction
    def change(
        self, options: Mapping[str, Any] | None = MappingProxyType({}), **changes: Any
    ) -> Self:
        """Store these fields, title, model, system, and those options that are given; None clears
        one, and for `options` all."""
        db.hold(Session.select(Session.id).where(Session.id == self.id))
        session = Session.get_owned(self.owner, self.id)
        if "title" in changes:
            changes |= {"search_title": normalize(changes["title"]), "title_is_users": True}
        if changes.get("model", session.model) != session.model:
            changes["trim"] = None  # the other model may remember more
        options = {} if options is None else session.options | options
        changes["options"] = {name: value for name, value in options.items() if value is not None}
        Session.update(changes).where(Session.id == session.id).execute()
        session = Session.get_owned(self.owner, self.id)
        session.read_system()
        return session

    @transaction
    def suggest_title(self, title: str) -> bool:
        """Take a title that a model wrote, unless the user set one; returns whether it was
        taken."""
        changes = {"title": title, "search_title": normalize(title)}
        return bool(
            Session.update(changes).where(Session.id == self.id, ~Session.title_is_users).execute()
        )

    def with_turns(
        self,
        limit: int | None = None,
        before: int = shown.LAST,
        most: int = LONGEST_PAGE,
        most_of_one: int = shown.LAST,
    ) -> Self:
        """This session with its visible `turns`, oldest first: all, or so many before one; of these
        the newest that have so many bytes together at most, but at least one. `has_more` says
        whether there are older ones, `is_cut` whether some were left out for their bytes, or the
        newest, which has more than `most_of_one`, was not read; and `size_of_turns` how many bytes
        they would have had with these."""
        rows = (limit or MANY) + 1
        turns = shown.newest(self.key, before, rows, limit or MANY, most, most_of_one)
        if not turns and before == shown.LAST:
            raise Missing("The session was deleted.")  # meanwhile
        self.turns, self.has_more = turns[::-1], bool(turns) and turns[0].of_all > len(turns)
        is_unread = bool(turns) and turns[0].content is None
        self.is_cut = is_unread or (self.has_more and len(turns) < (limit or MANY))
        self.size_of_turns = turns[0].size_of_all if turns else 0
        return self

    @property
    def key(self) -> str:
        """The id as the database has it."""
        return str(Session.id.db_value(self.id))

    @property
    def lacks_system(self) -> bool:
        """Whether it has a system prompt that was not read, or was forgotten."""
        return self.system is None and self.system_size > 0

    def read_system(self) -> None:
        """Read the system prompt if that was not done."""
        if self.lacks_system:
            self.system = Session.select(Session.system).where(Session.id == self.id).scalar()


class Turn(db.Model):
    id = BigAutoField()  # see new_turn_id in replies/claim.py
    session = peewee.ForeignKeyField(Session, on_delete="CASCADE", index=False)
    kind = TextField()  # user or assistant
    # Of a reply under way what it had when it last ended, or nothing: its pieces have the text.
    content = TextField()
    created_at = BigIntegerField()
    # False: it was replaced, or failed to replace another.
    visible = BooleanField(column_name="shown", default=True)
    model = TextField(null=True)
    status = TextField(null=True)  # a Status; None of a user's turn
    lease_until = BigIntegerField(null=True)
    cancelled = BooleanField(default=False)
    replaces = BigIntegerField(null=True)  # the reply that is visible again unless this completes
    input_tokens = IntegerField(null=True)
    output_tokens = IntegerField(null=True)
    cached_tokens = IntegerField(null=True)
    estimated_tokens = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    # Of the call under way: the bytes that the tokens above do not count, besides those of the
    # whole content.
    uncounted = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    error_status = IntegerField(null=True)
    error_message = TextField(null=True)
    error_pointer = TextField(null=True)
    retry_after = IntegerField(null=True)
    search_text = TextField(column_name="folded", default="")
    # Which attempt may write it: a write that comes late names an older one.
    fence = BigIntegerField(null=True)
    stop_reason = TextField(null=True)
    # How often it went on, whether by itself or because a person asked for it; and how often by
    # itself since a person last did.
    continued = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    restarts = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    turns_left_out = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    writer = TextField(null=True)  # the name of the process that writes it, see processes.py
    # How much its model has thought, and for how long, unless it has not, or that is not kept.
    thinking_characters = BigIntegerField(null=True)
    thinking_milliseconds = BigIntegerField(null=True)

    # Of one that is imported: the text of its thinking, which is stored beside it.
    thoughts = ""

    # As `readable` reads it: of a reply under way that a person had continued, how many characters
    # it had before.
    base = 0

    @property
    def is_settled(self) -> bool:
        """Whether who asks for it again under its idempotency key has it as it is. A reply that
        failed, or whose process died, is asked for again."""
        return self.status == COMPLETE or self.cancelled

    @property
    def usage(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in TOKENS}

    @property
    def thinking(self) -> dict[str, Any] | None:
        """How much its model has thought, and for how long; None if it has not."""
        return shown.thinking_of(self)

    def is_lost(self) -> bool:
        """Whether the process that writes it counts as dead: it is gone from this machine, or its
        lease has lapsed."""
        return processes.is_dead(self.writer) or (self.lease_until or 0) < db.now()

    @classmethod
    def readable(cls) -> peewee.ModelSelect:
        """A query of turns, with what has been stored of one under way, and whose it is; without
        what only the search reads."""
        pieces = (
            Piece.select(Piece.text)
            .where(Piece.turn == cls.id)
            .order_by(Piece.start)
            .alias("pieces")
        )
        stored = fn.COALESCE(
            peewee.Select((pieces,), (getattr(fn, db.concat)(SQL("text"), ""),)), ""
        )
        text = peewee.Case(None, [(cls.under_way(), stored)], cls.content)
        base = peewee.Case(None, [(cls.under_way(), fn.LENGTH(cls.content))], 0).alias("base")
        columns = [
            field
            for field in cls._meta.sorted_fields
            if field.name not in ("content", "search_text")
        ]
        return cls.select(
            *columns, text.alias("content"), base, Session.id, Session.owner, Session.updated_at
        ).join(Session)

    @classmethod
    def under_way(cls) -> peewee.Expression:
        """Whether it is in progress. SQLite uses a partial index only where the statement itself
        has its condition."""
        return cls.status == SQL(f"'{IN_PROGRESS}'")

    @classmethod
    def is_any_under_way(cls) -> bool:
        return cls.select().where(cls.under_way()).exists()

    @classmethod
    def read(cls, turn_id: int) -> Self | None:
        """The turn with what has been stored of its text, or None where it is gone."""
        return cls.readable().where(cls.id == turn_id).first()

    @classmethod
    def read_under_way(cls, turn_ids: Iterable[int]) -> list[Self]:
        """The same of those of several that are in progress."""
        return list(cls.readable().where(cls.id.in_(list(turn_ids)), cls.under_way()))

    @classmethod
    def with_thinking(cls, session_id: uuid.UUID, turn_id: str) -> Self:
        """A reply that is shown, with how much its model has thought. Raises Missing if there is no
        such reply, or its model has not."""
        columns = cls.id, cls.thinking_characters, cls.thinking_milliseconds
        found = None
        if re.fullmatch("[0-9]{1,19}", turn_id) and int(turn_id) < 2**63:
            query = cls.select(*columns).where(cls.session == session_id, cls.visible)
            found = query.where(cls.id == int(turn_id)).first()
        if found is None:
            raise Missing("There is no such turn in this session. Look it up in its turns.")
        if found.thinking_characters is None:
            raise Missing("There is no thinking of this turn.")
        return found

    @classmethod
    def latest(cls, session_id: uuid.UUID) -> Self:
        """The latest reply of a session, visible or not. Raises what `latest_state` does."""
        turn = cls.read(cls.latest_state(session_id).id)
        return cls.latest(session_id) if turn is None else turn  # its claim was undone meanwhile

    @classmethod
    def latest_state(cls, session_id: uuid.UUID) -> Self:
        """What is known of the latest reply of a session, but for its text. Raises NoReply, or
        Missing where the session is gone."""
        rows = list(cls.raw(statements.plain("read_latest_reply"), Session.id.db_value(session_id)))
        if rows:
            return rows[0]
        raise NoReply if Session.is_there(session_id) else Missing("The session was deleted.")


class Piece(db.Model):
    """Text of a reply under way, from character `start` on. When the reply ends, its pieces become
    the turn's content."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")


class Thought(db.Model):
    """What the model of a reply has thought, from character `start` on, as it was stored."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")

    @classmethod
    def text_of(cls, turn_id: int) -> str:
        """All that is kept of a turn's thinking."""
        rows = cls.select(cls.text).where(cls.turn == turn_id).order_by(cls.start)
        return "".join(text for (text,) in rows.tuples())

    @classmethod
    def size_of(cls, turn_id: int) -> int:
        """The bytes of that."""
        size = fn.SUM(db.size_of(cls.text))
        return int(cls.select(size).where(cls.turn == turn_id).scalar() or 0)


Session.add_index(Session.owner, Session.updated_at.desc(), Session.id.desc(), name="session_list")
Session.add_index(Session.owner, Session.created_at, Session.id, name="session_made")
Session.add_index(
    Session.owner,
    Session.origin,
    unique=True,
    where=SQL("origin IS NOT NULL AND owner <> ''"),
    name="session_origin",
)
Session.add_index(Session.owner, Session.size, where=SQL("size IS NOT NULL"), name="session_size")
Turn.add_index(Turn.session, Turn.id, name="turn_session")
Turn.add_index(
    Turn.session, unique=True, where=SQL("status = 'in_progress'"), name="one_reply_at_a_time"
)
