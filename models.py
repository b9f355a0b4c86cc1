"""Sessions and their turns, and how they are read.

`tables/` has the records that outlive them; `replies/` writes them. To avoid deadlocks, every
transaction locks rows in the same order: sessions by id, then turns, then usage.
"""

import enum
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self

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
from files import FileRef
from limits import SMALL
from tables import given, statements
from tables.columns import described, listed, seconds_of, time_of
from tables.files import Kept, StoredFile
from tables.ledger import TOKENS
from tables.search import LARGE_TEXT, normalize

LEASE = 20 * SECOND
RELEASED = 0  # the lease of a reply that was handed over: any process may take it over at once
PREVIEW = 100  # characters
PINNED_MAX = 20  # sessions of an owner
STARTS_MAX = 8  # models for which a session knows where their images start
LONGEST_PAGE = 8 * 2**20  # bytes of turns in one answer
VERSIONS_MAX = 20  # of a reply


class Status(enum.StrEnum):
    """The state of a reply."""

    IN_PROGRESS = "in_progress"  # a process is writing it, or will: it has a lease and a fence
    COMPLETE = "complete"  # the model ended it, or reached the maximum length
    FAILED = "failed"  # its error says why
    # A cancel, a deletion or the end of a process stopped it. After the end of a process, it is
    # this even if the model that was to continue it failed, unless some text came first.
    INTERRUPTED = "interrupted"


IN_PROGRESS, COMPLETE, FAILED, INTERRUPTED = Status


class Refused(Exception):
    """The state of the database forbids this request: by default a conflict. The message tells the
    client what to do. `session_id` is a session that is kept nevertheless, `retry_after` the
    seconds to wait."""

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
    """This owner has no such session."""

    def __init__(
        self, message: str = "There is no such session. Look it up in GET /sessions."
    ) -> None:
        super().__init__(message, status=404)


class NoReply(Refused):
    """Nobody has asked for a reply in this session yet: it is a fork that ends with its first
    message."""

    def __init__(self) -> None:
        super().__init__("This session has no reply yet. Ask for one with retry.")


def outcome_of(
    status: Status,
    error_status: int | None = None,
    error_message: str | None = None,
    retry_after: float | None = None,
    pointer: str | None = None,
    reason: str | None = None,
    stop_reason: str | None = None,
) -> dict[str, Any]:
    """The columns of a reply that say how it ended. `pointer` (RFC 6901) is the field of the
    request that is at fault, such as `/options/top_p`; `reason` has the provider's own words."""
    seconds = None if retry_after is None else math.ceil(retry_after)  # a provider may say 7.5
    return {
        "status": status,
        "error_status": error_status,
        "error_message": error_message,
        "retry_after": seconds,
        "error_pointer": pointer,
        "error_reason": reason,
        "stop_reason": stop_reason,
        "stream_id": None,
        "stream_start": None,
    }


class OptionsField(TextField):
    """The options of a session, as JSON; those that are not set are left out."""

    def db_value(self, options: Mapping[str, Any] | None) -> str | None:
        return json.dumps(options) if options else None

    def python_value(self, text: str | None) -> dict[str, Any]:
        return json.loads(text or "{}")


class StartsField(TextField):
    """A turn's id for each model, as JSON, of the models that were set last."""

    def db_value(self, starts: Mapping[str, int] | None) -> str | None:
        latest = dict(list((starts or {}).items())[-STARTS_MAX:])
        return json.dumps(latest, ensure_ascii=False) if latest else None

    def python_value(self, text: str | None) -> dict[str, int]:
        return json.loads(text or "{}")


class Session(db.Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owner = TextField()
    title = TextField()
    title_is_users = BooleanField(default=False)
    pinned = BooleanField(default=False, constraints=[SQL("DEFAULT FALSE")])
    model = TextField()
    system = TextField(null=True)
    # The start of the last turn that has text, except a reply in progress.
    preview = TextField(null=True)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    search_title = TextField(column_name="folded_title")
    # Turns before this id are not sent to the model.
    context_start = BigIntegerField(null=True, column_name="trim")
    # For each model, the images of turns before this id are not sent to it: they were too many, or
    # refused.
    images_start = StartsField(null=True, default=dict)
    options = OptionsField(null=True, default=dict)
    latest_reply = BigIntegerField(null=True)  # the one last asked for or continued
    provider = TextField(null=True)  # of the model, when it was chosen
    # Only for imports and forks.
    imported_at = BigIntegerField(null=True)
    origin = TextField(null=True)  # the client's name for the place it comes from
    writer = TextField(null=True)  # the process that is writing it, until it has an owner
    # The bytes of its turns' texts. The count is current if `sized_at` equals `updated_at`.
    size = BigIntegerField(null=True)
    sized_at = BigIntegerField(null=True)

    # Of a session that `get_owned` or `lock_owned` has read: the bytes of its system prompt; and of
    # the latter, its last turn, and whether it has a reply in progress.
    system_size = 0
    last_turn: int | None = None
    is_busy = False

    @classmethod
    def columns_but_system(cls) -> list[peewee.Field]:
        return [field for field in cls._meta.sorted_fields if field is not cls.system]

    @classmethod
    def get_owned(cls, owner: str, session_id: uuid.UUID) -> Self:
        """The session; a long system prompt is left for `read_system`. Raises Missing if the
        session does not exist, or has another owner."""
        return cls._read("read_session", owner, session_id)

    @classmethod
    def lock_owned(
        cls, owner: str, session_id: uuid.UUID | None, preview: str | None, now: int
    ) -> Self:
        """Lock the session for a new reply, by an update of its row, and read it, as `get_owned`
        does. A preview of None leaves the old one."""
        values = now, preview, owner, cls.id.db_value(session_id)
        db.send(SQL(statements.plain("lock_session"), values))
        return cls._read("read_locked_session", owner, session_id)

    @classmethod
    def _read(cls, statement: str, owner: str, session_id: uuid.UUID | None) -> Self:
        columns = listed(cls.columns_but_system())
        sql = statements.plain(statement, columns=columns, small=SMALL)
        for session in cls.raw(sql, owner, cls.id.db_value(session_id)):
            return session
        raise Missing

    @classmethod
    def is_there(cls, session_id: uuid.UUID) -> bool:
        """Whether the session exists and has an owner, which it does not while it is being deleted
        or imported."""
        return cls.select().where(cls.id == session_id, cls.owner != "").exists()

    @classmethod
    def page(cls, owner: str, limit: int, offset: int, words: list[str]) -> tuple[list[Self], bool]:
        """Up to `limit` sessions that contain all these words, pinned ones first, then the most
        recently used, and whether more follow. `matching` of a session is the text of the newest
        turn that contains one of the words; None if that is long, or there is none."""
        rows = [("%" + re.sub("([%_!])", r"!\1", word) + "%",) for word in words or [""]]
        values = {"all": not words, "preview": PREVIEW, "longest": LARGE_TEXT}
        page = given("list_sessions", rows, **values)
        found = list(cls.raw(page.sql, *page.params, owner, limit + 1, offset))
        return found[:limit], len(found) > limit

    @transaction
    def change(
        self, options: Mapping[str, Any] | None = MappingProxyType({}), **changes: Any
    ) -> Self:
        """Store new values of `title`, `model`, `system` and `pinned`, and of the options in
        `options`. None clears an option, or all of them if `options` is None. Raises Refused if too
        many sessions are pinned."""
        if changes.get("pinned"):
            db.lock(self.owner)  # before any rows, in the same order as a claim with a key
        db.lock_rows(Session.select(Session.id).where(Session.id == self.id))
        session = Session.get_owned(self.owner, self.id)
        if changes.get("pinned") and not session.pinned and not Session.can_pin(self.owner):
            raise Refused(f"You have pinned {PINNED_MAX} sessions, and no more can be. Unpin one.")
        if "title" in changes:
            changes |= {"search_title": normalize(changes["title"]), "title_is_users": True}
        if changes.get("model", session.model) != session.model:
            changes["context_start"] = None  # the other model may have a larger context window
        options = {} if options is None else session.options | options
        changes["options"] = {name: value for name, value in options.items() if value is not None}
        Session.update(changes).where(Session.id == session.id).execute()
        session = Session.get_owned(self.owner, self.id)
        session.read_system()
        return session

    @classmethod
    def can_pin(cls, owner: str) -> bool:
        """Whether the owner may pin one more session. The caller's transaction has locked the
        owner."""
        return cls.select().where(cls.owner == owner, cls.pinned).count() < PINNED_MAX

    @transaction
    def suggest_title(self, title: str) -> bool:
        """Store a title that a model wrote, unless the user has set one. Returns whether it was
        stored."""
        changes = {"title": title, "search_title": normalize(title)}
        return bool(
            Session.update(changes).where(Session.id == self.id, ~Session.title_is_users).execute()
        )

    @property
    def key(self) -> str:
        """The id as the database stores it."""
        return str(Session.id.db_value(self.id))

    @property
    def lacks_system(self) -> bool:
        """Whether there is a system prompt that is not in memory."""
        return self.system is None and self.system_size > 0

    def read_system(self) -> None:
        """Read the system prompt, unless it is in memory."""
        if self.lacks_system:
            self.system = Session.select(Session.system).where(Session.id == self.id).scalar()


def json_of_files(column: str | None) -> list[dict[str, Any]]:
    return json.loads(column) if column else []


class Part(NamedTuple):
    """A nested object in the JSON of a turn, with some of the turn's columns."""

    schema: str  # its name in the OpenAPI document
    purpose: str  # the description of its schema
    sentence: str = ""  # the description of the turn's field
    null_without: str = ""  # if this column is null, so is the whole object


def _tokens_told(name: str) -> IntegerField:
    """A column for a number of tokens that the provider counted."""
    return described(
        IntegerField(null=True),
        shown=f"usage.{name}",
        null=True,
        exported=True,
        copied=True,
        at_end=True,
        told_late=True,
    )


class Turn(db.Model):
    """A message of the user, or a reply. Each column says here what clients, exports, forks and the
    OpenAPI document have of it (see `tables/columns.py`). Only the text of `thinking` is elsewhere:
    in the table `thought`, which `transfer/exports.py`, `imports.py` and `forks.py` copy."""

    PARTS = {
        "model": Part("Model", "Reference to a model by its identifier."),
        "usage": Part(
            "Usage",
            "Tokens of a reply, as the provider counted them. A number is null if the provider did "
            "not give it.",
        ),
        "error": Part("TurnError", "Why a reply failed.", "Null unless it failed.", "error_status"),
        "thinking": Part(
            "Thinking",
            "How much the model thought before and while it wrote the reply.",
            "Null unless the model thought, and the server keeps that. Its text is at the turn's "
            "`thinking`.",
            "thinking_characters",
        ),
    }

    id = described(  # see new_turn_id in replies/claim.py
        BigAutoField(),
        "Opaque, and never used twice. The ids of a reply's events begin with it.",
        shown="id",
        exported=True,
        of_messages=True,
        as_json=str,
        examples=["941464799167511066"],
    )
    session = peewee.ForeignKeyField(Session, on_delete="CASCADE", index=False)
    kind = described(
        TextField(),  # user or assistant
        shown="kind",
        exported=True,
        copied=True,
        of_messages=True,
    )
    # While a reply is in progress, its pieces have the text: this is its text before it was
    # continued, or "".
    content = described(
        TextField(),
        "The message, or the text of the reply so far.",
        shown="content",
        exported=True,
        copied=True,
        of_messages=True,
    )
    created_at = described(
        BigIntegerField(),
        "When it was sent, or the reply was requested.",
        shown="created_at",
        exported=True,
        copied=True,
        of_messages=True,
        as_json=time_of,
        examples=["2026-03-06T16:00:00Z"],
    )
    files = described(  # see files.py; `TurnFile` has the same rows by file
        TextField(null=True),
        "The images of the message, in its order.",
        shown="files",
        exported=True,
        copied=True,
        of_messages=True,
        of_replies=False,
        as_json=json_of_files,
    )
    # False if it was replaced, or failed to replace another.
    visible = BooleanField(column_name="shown", default=True)
    model = described(
        TextField(null=True),
        "The id of a model as `GET /models` lists it.",
        shown="model.id",
        exported=True,
        exported_as="model",
        copied=True,
        examples=["claude-opus-4-6", "ollama/llama3.2"],
    )
    # Null for a user's turn.
    status = described(
        TextField(null=True),
        "`in_progress`: it is being written. `complete`: this is all of it. `failed`: the model "
        "failed, and `error` says why. `interrupted`: it was cancelled, or its process died and no "
        "other took it over. In the last two, `content` is the text that had arrived.",
        shown="status",
        enum=list(Status),
        exported=True,
        copied=True,
        at_end=True,
    )
    lease_until = BigIntegerField(null=True)
    cancelled = described(BooleanField(default=False), copied=True, at_end=True)
    replaces = BigIntegerField(null=True)  # this becomes visible again unless the reply completes
    input_tokens = _tokens_told("input_tokens")
    output_tokens = _tokens_told("output_tokens")
    cached_tokens = _tokens_told("cached_tokens")
    estimated_tokens = described(
        IntegerField(default=0, constraints=[SQL("DEFAULT 0")]),
        copied=True,
        at_end=True,
        told_late=True,
    )
    # The bytes of the current call that the tokens above do not count, in addition to those of the
    # content.
    unbilled_bytes = described(
        BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")], column_name="uncounted"),
        at_end=True,
        told_late=True,
    )
    error_status = described(
        IntegerField(null=True),
        "The HTTP status for this kind of failure.",
        shown="error.status",
        exported=True,
        copied=True,
        at_end=True,
        once_ended=True,
        examples=[502],
    )
    error_message = described(
        TextField(null=True),
        "What went wrong.",
        shown="error.message",
        exported=True,
        copied=True,
        at_end=True,
        once_ended=True,
    )
    error_pointer = described(TextField(null=True), copied=True, at_end=True)
    error_reason = described(
        TextField(null=True),
        "The provider's own words, only for the operator: the user of `flask run`'s link, with a "
        "request from the same machine and not through a proxy.",
        shown="error.reason",
        at_end=True,
        for_operator=True,
    )
    retry_after = described(IntegerField(null=True), copied=True, at_end=True)
    search_text = described(TextField(column_name="folded", default=""), copied=True)
    # A random number of the process that may write the reply. A late write has an older one, and
    # changes nothing.
    fence = BigIntegerField(null=True)
    stop_reason = described(
        TextField(null=True),
        "Null unless complete.",
        type=None,
        anyOf=[{"$ref": "#/components/schemas/StopReason"}, {"type": "null"}],
        shown="stop_reason",
        null=True,
        exported=True,
        copied=True,
        at_end=True,
        once_ended=True,
    )
    # `continued` counts all continuations, `restarts` only the automatic ones since a person last
    # asked for the reply.
    continued = described(
        IntegerField(default=0, constraints=[SQL("DEFAULT 0")]),
        "How often the model was asked to continue the reply.",
        shown="continued",
        copied=True,
        at_end=True,
        minimum=0,
    )
    restarts = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    turns_left_out = described(
        IntegerField(default=0, constraints=[SQL("DEFAULT 0")]),
        "How many earlier turns were not sent to the model: they do not fit into its context "
        "window, or the provider refused them as too long.",
        shown="turns_left_out",
        copied=True,
        at_end=True,
        told_late=True,
        minimum=0,
    )
    # The newest so many replies to the same message that are complete and not visible.
    versions = described(
        IntegerField(default=0, constraints=[SQL("DEFAULT 0")]),
        "How many complete replies were shown in its place before it; at most twenty, and 8 MiB "
        "together.",
        shown="versions",
        minimum=0,
    )
    writer = TextField(null=True)  # the name of the process that writes it, see processes.py
    # Of a reply in progress: the name by which the model's server keeps the answer to the current
    # call, so that another process can read it again; and how many characters the text had before
    # that call. Null if it keeps none.
    stream_id = described(TextField(null=True), at_end=True)
    stream_start = described(IntegerField(null=True), at_end=True)
    # `count_thinking` stores them with the text, during the reply and after its end.
    thinking_characters = described(
        BigIntegerField(null=True),
        "How many there are, including those that are not kept.",
        shown="thinking.characters",
        copied=True,
        minimum=0,
    )
    thinking_milliseconds = described(
        BigIntegerField(null=True),
        "From the first thought to the first word, or to the end.",
        shown="thinking.seconds",
        copied=True,
        as_json=seconds_of,
        minimum=0,
    )

    # For a turn that is being imported: the text of its thinking, its files, and the place of these
    # in the request.
    thoughts = ""
    file_refs: list[FileRef]
    pointer: str

    # For a reply in progress that `readable` has read: the characters it had before it was
    # continued.
    base = 0
    # For a reply that this process has ended: the `stream_id` that it had.
    ended_stream: str | None = None

    @property
    def is_settled(self) -> bool:
        """Whether a repeated idempotency key gets this reply unchanged. If it failed, or its
        process died, the repetition asks the model again."""
        return self.status == COMPLETE or self.cancelled

    @property
    def usage(self) -> dict[str, int | None]:
        return {name: self.__data__.get(name) for name in TOKENS}

    def is_lost(self) -> bool:
        """Whether the process that writes it counts as dead: it no longer runs on this machine, or
        its lease has expired."""
        return processes.is_dead(self.writer) or (self.lease_until or 0) < db.now()

    @classmethod
    def readable(cls) -> peewee.ModelSelect:
        """A query of turns with their sessions' owners. The content of one in progress is its
        stored text; `search_text` is left out."""
        pieces = (
            Piece.select(Piece.text)
            .where(Piece.turn == cls.id)
            .order_by(Piece.start)
            .alias("pieces")
        )
        stored = fn.COALESCE(
            peewee.Select((pieces,), (getattr(fn, db.concat)(SQL("text"), ""),)), ""
        )
        text = peewee.Case(None, [(cls.is_in_progress(), stored)], cls.content)
        base = peewee.Case(None, [(cls.is_in_progress(), fn.LENGTH(cls.content))], 0).alias("base")
        columns = [
            field
            for field in cls._meta.sorted_fields
            if field.name not in ("content", "search_text")
        ]
        return cls.select(
            *columns, text.alias("content"), base, Session.id, Session.owner, Session.updated_at
        ).join(Session)

    @classmethod
    def is_in_progress(cls) -> peewee.Expression:
        """The condition that a turn is in progress. It is a literal, since SQLite does not use a
        partial index if the value comes as a parameter."""
        return cls.status == SQL(f"'{IN_PROGRESS}'")

    @classmethod
    def is_any_in_progress(cls) -> bool:
        return cls.select().where(cls.is_in_progress()).exists()

    @classmethod
    def read(cls, turn_id: int) -> Self | None:
        """The turn with its stored text, or None if it does not exist."""
        return cls.readable().where(cls.id == turn_id).first()

    @classmethod
    def read_in_progress(cls, turn_ids: Iterable[int]) -> list[Self]:
        """Those of these turns that are in progress, with their stored text."""
        return list(cls.readable().where(cls.id.in_(list(turn_ids)), cls.is_in_progress()))

    @classmethod
    def is_replaced(cls) -> peewee.Expression:
        """The condition that a turn was a complete reply that another one has replaced. It is a
        version of that one, unless the message was changed in between."""
        return ~cls.visible & (cls.status == COMPLETE)

    @classmethod
    def find(cls, session_id: uuid.UUID, turn_id: str, or_version: bool = False) -> Self:
        """A visible turn of the session, or else, if `or_version`, a version of one; without its
        texts. Raises Missing."""
        if re.fullmatch("[0-9]{1,19}", turn_id) and int(turn_id) < 2**63:
            columns = cls.id, cls.visible, cls.thinking_characters, cls.versions
            of_session = cls.select(*columns).where(cls.session == session_id)
            turn = of_session.where(cls.id == int(turn_id)).first()
            if turn and (turn.visible or (or_version and turn._is_version(session_id))):
                return turn
        raise Missing("There is no such turn in this session. Look it up in its turns.")

    def _is_version(self, session_id: uuid.UUID) -> bool:
        """Whether this turn, which is not visible, is a version of the next visible one."""
        of_session = Turn.select(Turn.id, Turn.versions).where(Turn.session == session_id)
        later = of_session.where(Turn.visible, Turn.id > self.id).order_by(Turn.id).first()
        if later is None:
            return False
        versions = of_session.where(Turn.is_replaced(), Turn.id < later.id)
        newest = versions.order_by(Turn.id.desc()).limit(later.versions)
        return self.id in [version.id for version in newest]

    @classmethod
    def latest(cls, session_id: uuid.UUID) -> Self:
        """The latest reply of a session, visible or not. Raises NoReply, or Missing if the session
        does not exist."""
        turn = cls.read(cls.latest_state(session_id).id)
        return cls.latest(session_id) if turn is None else turn  # its claim was undone in between

    @classmethod
    def latest_state(cls, session_id: uuid.UUID) -> Self:
        """The latest reply of a session, without its text. Raises NoReply, or Missing if the
        session does not exist."""
        rows = list(cls.raw(statements.plain("read_latest_reply"), Session.id.db_value(session_id)))
        if rows:
            return rows[0]
        raise NoReply if Session.is_there(session_id) else Missing("The session was deleted.")


class Piece(db.Model):
    """A part of the text of a reply in progress, from character `start` on. When the reply ends,
    its pieces become the turn's content."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")


class TurnFile(db.Model):
    """A file of a user's message, which is kept as long as a turn has it."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    place = IntegerField()  # among the files of the message, from 0 on
    file = peewee.ForeignKeyField(StoredFile)

    class Meta:
        table_name = "turn_file"
        primary_key = peewee.CompositeKey("turn", "place")

    @classmethod
    def rows(cls, turn_id: int, files: Sequence[Kept]) -> list[Self]:
        """The rows of a turn with these files; not stored yet."""
        return [
            cls(turn=turn_id, place=place, file=each.row_id) for place, each in enumerate(files)
        ]


class Thought(db.Model):
    """A part of what the model of a reply thought, from character `start` on."""

    turn = peewee.ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = peewee.CompositeKey("turn", "start")

    @classmethod
    def text_of(cls, turn_id: int) -> str:
        """The stored text of a turn's thinking."""
        rows = cls.select(cls.text).where(cls.turn == turn_id).order_by(cls.start)
        return "".join(text for (text,) in rows.tuples())

    @classmethod
    def size_of(cls, turn_id: int) -> int:
        """The bytes of the stored text of a turn's thinking."""
        size = fn.SUM(db.size_of(cls.text))
        return int(cls.select(size).where(cls.turn == turn_id).scalar() or 0)


Session.add_index(
    Session.owner,
    Session.pinned.desc(),
    Session.updated_at.desc(),
    Session.id.desc(),
    name="session_pinned",
)
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
