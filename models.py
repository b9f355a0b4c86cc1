"""What Parley keeps: sessions, their turns, and who may ask how often, on SQLite or PostgreSQL.

Times are microseconds since 1970 in UTC, by the database's clock, so that processes and hosts agree. Whoever locks
rows locks them in one order, session, turn, pieces, so that no two transactions wait for each other.
"""

import contextlib
import fcntl
import functools
import os
import threading
import time
import unicodedata
import uuid

from peewee import (
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    DataError,
    DatabaseError,
    DatabaseProxy,
    ForeignKeyField,
    IntegerField,
    IntegrityError,
    SQL,
    SqliteDatabase,
    TextField,
    UUIDField,
    fn,
)
from playhouse.db_url import connect
from playhouse.pool import MaxConnectionsExceeded

SECOND = 1_000_000
LEASE = 20 * SECOND
PREVIEW = 100
KEY_LIFE = 24 * 3600 * SECOND
# With a PostgreSQL whose host is gone, in seconds but for the milliseconds of the second; a URL may say otherwise.
PATIENCE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

IN_PROGRESS, COMPLETE, FAILED, INTERRUPTED = "in_progress", "complete", "failed", "interrupted"

Unavailable = (DatabaseError, MaxConnectionsExceeded, OSError)  # the last where no file is left for a connection
Unstorable = (DataError, IntegrityError)  # the database answers, and does not take a row

database = DatabaseProxy()
checked = DatabaseProxy()  # the same, by a connection that no request holds
_check, _writing = threading.Lock(), threading.Lock()


class Refused(Exception):
    """A request that the state of the database forbids; its text tells the client what to do."""


class Missing(Refused):
    """There is no such session for this owner."""


class Busy(Refused):
    """A reply is under way, or has been overtaken by newer turns."""

    def __init__(self, message, session_id=None, retry_after=None):
        super().__init__(message)
        self.session_id = session_id
        self.retry_after = retry_after


class KeyReused(Refused):
    """An idempotency key came with another body."""


class TooMany(Refused):
    """The owner has asked for as many replies as the limit allows; `retry_after` is in seconds."""

    def __init__(self, message, retry_after):
        super().__init__(message)
        self.retry_after = retry_after


class NewerDatabase(Exception):
    """The database was written by a release newer than this one."""


# The database's life


def open_database(url, connections=8):
    """Point all models at the database of this URL; nothing is connected yet. Raises ValueError for a bad URL.

    `connections` is the most that one process holds open. User name and password may be percent-encoded.
    """
    scheme, separator, rest = url.partition("://")
    options = {"autoconnect": False, "timeout": 10}
    if scheme == "sqlite":
        if rest in ("", "/", "/:memory:") or not rest.startswith("/"):
            raise ValueError("name a file: sqlite:///relative/path or sqlite:////absolute/path")
        pragmas = {"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1}
        # Writers take the lock when they begin: one that took it later, after reading, could be refused without waiting.
        options |= {"pragmas": pragmas, "lock_type": "IMMEDIATE", "check_same_thread": False}
    elif scheme in ("postgres", "postgresql"):
        options |= {name: value for name, value in PATIENCE.items() if f"{name}=" not in rest}
    else:
        raise ValueError("begin with sqlite:///, postgres:// or postgresql://")
    pooled = f"{scheme}+pool{separator}{rest}"
    options |= {"unquote_password": True, "unquote_user": True}
    database.initialize(connect(pooled, max_connections=connections - 1, **options))
    checked.initialize(connect(pooled, max_connections=1, **options))


def check():
    """Raises one of Unavailable where the database does not answer; it does not queue behind requests for the answer."""
    with _check, checked.connection_context():
        checked.execute_sql("SELECT 1")


def is_sqlite():
    return isinstance(database.obj, SqliteDatabase)


@contextlib.contextmanager
def transaction():
    """One short write transaction, within which no other may begin."""
    with _one_writer() if is_sqlite() else contextlib.nullcontext(), database.atomic():
        yield


@contextlib.contextmanager
def _one_writer():
    """SQLite has one writer, and whoever waits for it sleeps and looks again: here all threads and processes queue."""
    with _writing:
        # A file of its own: closing the database's would end the locks that SQLite holds on it.
        file = _lock_file(f"{database.database}-lock", os.getpid())
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


@functools.cache
def _lock_file(path, process):
    """Opened once a process, as one that is inherited would be locked by parent and child at once."""
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)


def clock():
    """The database's time in microseconds; SQLite's is that of its host."""
    if is_sqlite():
        return time.time_ns() // 1000
    return database.execute_sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0]


def lock(name):
    """Hold `name` until the transaction ends; on SQLite the transaction itself keeps all others out."""
    if not is_sqlite():
        database.execute_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))


def lock_row(table, row_id):
    """Hold this row until the transaction ends; on SQLite the transaction itself keeps all others out."""
    if not is_sqlite():
        table.select(table.id).where(table.id == row_id).for_update().execute()


def fold(text):
    """Text as it is searched: two spellings that differ in case or width alone are equal (Unicode NFKC, case folding)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


# Tables


class TurnId(BigAutoField):
    """Never given twice: a late writer of a deleted reply must not find another turn under its number."""

    def ddl(self, ctx):
        nodes = super().ddl(ctx)
        if is_sqlite():
            nodes.nodes.append(SQL("AUTOINCREMENT"))
        return nodes


class Session(database.Model):
    id = UUIDField(primary_key=True, default=uuid.uuid4)
    owner = TextField()
    title = TextField()
    title_is_users = BooleanField(default=False)
    model = TextField()
    system = TextField(null=True)
    preview = TextField(null=True)  # null while a reply is being written: Turn.latest() tells
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    folded_title = TextField()

    @classmethod
    def get_owned(cls, owner, session_id):
        """Raises Missing where there is none, or it is another's."""
        session = cls.get_or_none(cls.owner == owner, cls.id == session_id)
        if session is None:
            raise Missing("There is no such session. Look it up in GET /sessions.")
        return session

    @classmethod
    def page(cls, owner, limit, offset, query=None):
        """Up to `limit` sessions, the last used first, and whether more follow.

        `query` are words that must each occur in the title or in a turn.
        """
        rows = cls.select(cls.id, cls.title, cls.model, cls.preview, cls.created_at, cls.updated_at)
        rows = rows.where(cls.owner == owner).order_by(cls.updated_at.desc(), cls.id.desc())
        for word in fold(query or "").split():
            turns = Turn.select(Turn.id).where(Turn.session == cls.id, Turn.shown, Turn.folded.contains(word))
            rows = rows.where(cls.folded_title.contains(word) | fn.EXISTS(turns))
        found = list(rows.limit(limit + 1).offset(offset))
        for session in found[:limit]:
            if session.preview is None:
                session.preview = session.current_preview()
        return found[:limit], len(found) > limit

    def current_preview(self):
        try:
            reply = Turn.latest(self.id)
        except Missing:
            return ""  # deleted meanwhile
        if reply.status == IN_PROGRESS:
            return reply.content[:PREVIEW]
        return Session.select(Session.preview).where(Session.id == self.id).scalar() or ""

    def change(self, title=None, model=None, **system):
        """Store what is given; `system` may be given as None, which clears it."""
        changes = dict(system)
        if title is not None:
            changes |= {"title": title, "folded_title": fold(title), "title_is_users": True}
        if model is not None:
            changes["model"] = model
        if changes:
            with transaction():
                Session.update(changes).where(Session.id == self.id).execute()
        return Session.get_owned(self.owner, self.id)

    @classmethod
    def suggest_title(cls, session_id, title):
        """Take a title that a model wrote, unless the user set one; returns whether it was taken."""
        with transaction():
            changed = cls.update(title=title, folded_title=fold(title)).where(
                cls.id == session_id, ~cls.title_is_users
            )
            return bool(changed.execute())

    def with_turns(self):
        """This session, with `turns`: those that are shown, oldest first, one under way with what has been stored of it.

        Raises Missing where the session was deleted meanwhile.
        """
        shown = Turn.readable().where(Turn.session == self.id, Turn.shown).order_by(Turn.id)
        turns = list(shown)
        if turns and turns[-1].status == IN_PROGRESS:
            reply = Turn.latest(self.id)
            if reply.id == turns[-1].id and reply.shown:
                turns[-1] = reply
            else:  # it gave way to the one that it was to replace
                turns = list(shown.clone())
        if not turns:
            raise Missing("The session was deleted.")
        self.turns = turns
        return self

    def history(self, reply_id):
        """What the model is sent for this reply: (kind, content) of the turns shown before it, oldest first."""
        turns = Turn.select(Turn.kind, Turn.content).where(Turn.session == self.id, Turn.id < reply_id, Turn.shown)
        return list(turns.order_by(Turn.id).tuples())

    def delete_whole(self):
        with transaction():
            Session.delete().where(Session.id == self.id).execute()


class Turn(database.Model):
    id = TurnId()
    session = ForeignKeyField(Session, on_delete="CASCADE", index=False)
    kind = TextField()  # user or assistant
    content = TextField()  # of a reply under way: empty, its pieces have it
    created_at = BigIntegerField()
    shown = BooleanField(default=True)  # false: a reply that was replaced, or one that failed to replace another
    model = TextField(null=True)
    status = TextField(null=True)
    lease_until = BigIntegerField(null=True)
    cancelled = BooleanField(default=False)
    replaces = BigIntegerField(null=True)  # the reply that stands again unless this one completes
    input_tokens = IntegerField(null=True)
    output_tokens = IntegerField(null=True)
    cached_tokens = IntegerField(null=True)
    error_status = IntegerField(null=True)
    error_message = TextField(null=True)
    retry_after = IntegerField(null=True)
    folded = TextField(default="")  # last, and read by the search alone

    @property
    def is_made(self):
        """Whether an idempotency key that named this reply has had its answer."""
        return self.status == COMPLETE or self.cancelled

    @property
    def is_alive(self):
        """Whether it is being written; where its process died, it is until the lease runs out."""
        return self.status == IN_PROGRESS and self.lease_until >= clock()

    @classmethod
    def readable(cls):
        return cls.select(*[field for field in cls._meta.sorted_fields if field is not cls.folded])

    @classmethod
    def read(cls, turn_id):
        """The turn with what has been stored of its text, or None where it is gone."""
        # Pieces first: whoever ends the reply between the two reads has moved them into the turn.
        text = Piece.text_of(turn_id)
        turn = cls.readable().where(cls.id == turn_id).first()
        if turn is not None and turn.status == IN_PROGRESS:
            turn.content = text
        return turn

    @classmethod
    def latest(cls, session_id):
        """The latest reply of a session, shown or not; one whose process died is interrupted here and now."""
        turn_id = cls.select(fn.MAX(cls.id)).where(cls.session == session_id, cls.kind == "assistant").scalar()
        turn = cls.read(turn_id)
        if turn is None:
            raise Missing("The session was deleted.")
        return turn.give_up_if_dead()

    def give_up_if_dead(self):
        if self.status != IN_PROGRESS or self.is_alive:
            return self
        with transaction():
            self.end(INTERRUPTED, died=True)
        return Turn.read(self.id)

    @classmethod
    def states(cls, turn_ids):
        """id → (status, lease_until, title of the session), of those that still exist."""
        rows = cls.select(cls.id, cls.status, cls.lease_until, Session.title).join(Session).where(cls.id.in_(turn_ids))
        return {turn_id: state for turn_id, *state in rows.tuples()}

    @classmethod
    def renew(cls, turn_ids):
        """Extend the leases of these replies."""
        cls.update(lease_until=clock() + LEASE).where(cls.id.in_(turn_ids), cls.status == IN_PROGRESS).execute()

    @classmethod
    def hold(cls, turn_ids):
        """The ids of those of these replies that are in progress: nobody ends them until the transaction ends."""
        under_way = cls.select(cls.id).where(cls.id.in_(turn_ids), cls.status == IN_PROGRESS)
        if not is_sqlite():
            under_way = under_way.for_update()
        return {turn_id for (turn_id,) in under_way.tuples()}

    def end(self, status, content=None, died=False, **columns):
        """End a reply, in the caller's transaction; returns it as it ended, or None where it is no longer in progress.

        Without `content`, its text is what has been stored of it. A reply that replaces another and is not complete
        gives way to the other again. `died` ends only one whose lease has run out.
        """
        under_way = (Turn.id == self.id) & (Turn.status == IN_PROGRESS)
        if died:
            under_way &= Turn.lease_until < clock()
        lock_row(Session, self.session_id)
        lock_row(Turn, self.id)  # nobody adds a piece behind those that are read here
        if content is None:
            content = Piece.text_of(self.id)
        shown = status == COMPLETE or self.replaces is None
        columns |= {"status": status, "content": content, "shown": shown, "lease_until": None}
        if not Turn.update(columns | {"folded": fold(content)}).where(under_way).execute():
            return None
        Piece.delete().where(Piece.turn == self.id).execute()
        if not shown:
            Turn.update(shown=True).where(Turn.id == self.replaces).execute()
            content = Turn.get_by_id(self.replaces).content
        Session.update(preview=content[:PREVIEW]).where(Session.id == self.session_id).execute()
        return Turn(**self.__data__ | columns)

    @classmethod
    def cancel(cls, session):
        """Interrupt the reply under way and return it as far as it got. Raises Busy where there is none."""
        reply = cls.latest(session.id)
        with transaction():
            ended = reply.end(INTERRUPTED, cancelled=True)
            if ended is None:
                raise Busy("No reply is under way, so there is nothing to cancel.")
        return ended


class Piece(database.Model):
    """Text of a reply under way; `start` is its position in characters. They are folded into the turn at the end."""

    turn = ForeignKeyField(Turn, on_delete="CASCADE", index=False)
    start = IntegerField()
    text = TextField()

    class Meta:
        primary_key = CompositeKey("turn", "start")

    @classmethod
    def add(cls, rows):
        if rows:
            cls.insert_many(rows, [cls.turn, cls.start, cls.text]).execute()

    @classmethod
    def text_of(cls, turn_id, position=0):
        """The text that has been stored from this position on, with which a piece begins."""
        rows = cls.select(cls.text).where(cls.turn == turn_id, cls.start >= position).order_by(cls.start)
        return "".join(text for (text,) in rows.tuples())


class Key(database.Model):
    """An idempotency key, and the reply that was first made under it. It outlives its session."""

    owner = TextField()
    path = TextField()
    key = TextField()
    body = TextField()  # a digest
    session_id = UUIDField()
    turn_id = BigIntegerField()
    created_at = BigIntegerField(index=True)

    class Meta:
        primary_key = CompositeKey("owner", "path", "key")


class Asked(database.Model):
    """One reply that an owner asked for, for the rate limit; it outlives its session."""

    owner = TextField()
    at = BigIntegerField()

    class Meta:
        indexes = ((("owner", "at"), False),)

    @classmethod
    def count_in(cls, owner, limit, seconds, now):
        """Count one more, under the lock of the owner. Raises TooMany where `limit` were asked for within `seconds`."""
        window = now - seconds * SECOND
        cls.delete().where(cls.owner == owner, cls.at <= window).execute()
        times = [at for (at,) in cls.select(cls.at).where(cls.owner == owner).order_by(cls.at.desc()).limit(limit).tuples()]
        if len(times) == limit:
            wait = max(1, -((window - times[-1]) // SECOND))
            raise TooMany(f"You may ask for {limit} replies in {seconds} seconds. Ask again in {wait} seconds.", wait)
        cls.create(owner=owner, at=now)


class Release(database.Model):
    """How many of the migrations this database has had."""

    migrations = IntegerField()


Session.add_index(Session.owner, Session.updated_at.desc(), Session.id.desc(), name="session_list")
Turn.add_index(Turn.session, Turn.id, name="turn_session")
Turn.add_index(Turn.session, unique=True, where=SQL("status = 'in_progress'"), name="one_reply_at_a_time")


def _first_tables():
    database.create_tables([Session, Turn, Piece, Key, Asked])


MIGRATIONS = [_first_tables]  # a newer release appends to them; what has been released is not changed


def migrate():
    """Bring the database to this release, exactly once however many processes start together.

    Raises NewerDatabase where a newer release has been here: its data is not touched. Raises ValueError where the
    database does not take every text.
    """
    with database.connection_context(), transaction():
        if not is_sqlite() and database.execute_sql("SHOW server_encoding").fetchone()[0] != "UTF8":
            raise ValueError("the encoding of this database is not UTF8; make one with ENCODING 'UTF8'")
        lock("parley migrations")
        database.create_tables([Release])
        release = Release.select().first() or Release(migrations=0)
        if release.migrations > len(MIGRATIONS):
            raise NewerDatabase("it belongs to a newer release of Parley; start that one")
        for step in MIGRATIONS[release.migrations :]:
            step()
        release.migrations = len(MIGRATIONS)
        release.save()


# Asking for a reply


class Ask:
    """One wish for a reply: what is wanted, on whose behalf, under which key and which limit.

    Either `new` has the fields of a session to create and `content` its first message; or `content` is added to the
    session `session_id`; or, where there is no content, the last user turn of that session is answered again.
    """

    def __init__(self, owner, content=None, new=None, session_id=None, key=None, limit=None):
        self.owner = owner
        self.content = content
        self.new = new
        self.session_id = session_id
        self.key = key  # None, or (path, key, digest of the body)
        self.limit = limit  # None, or (replies, seconds)

    def claim(self):
        """Commit the user turn and an empty reply; returns (session, reply, whether it is to be made now).

        The reply was made before where the key is known and its reply succeeded. Raises a Refused, and changes nothing.
        """
        with transaction():
            if self.key or self.limit:
                lock(self.owner)  # two of one owner's requests are counted, and keys compared, one after the other
            now = clock()
            known = self._known(now) if self.key else None
            if known is not None:
                session, reply = self._first_outcome(known)
                if reply.is_made:
                    return session, reply, False
            if self.limit:
                Asked.count_in(self.owner, *self.limit, now)
            if known is not None:
                reply = self._retry(session, now)
            elif self.new:
                session, reply = self._create(now)
            else:
                session = self._touch(self.session_id, now)
                reply = self._retry(session, now) if self.content is None else self._append(session, now)
            if self.key:
                self._remember(session, reply, now)
        return session, reply, True

    def _create(self, now):
        session = Session.create(
            owner=self.owner, created_at=now, updated_at=now, folded_title=fold(self.new["title"]), **self.new
        )
        return session, self._append(session, now)

    def _touch(self, session_id, now):
        """Lock the session and see that no reply is under way."""
        moved = Session.update(updated_at=now, preview=None).where(
            Session.id == session_id, Session.owner == self.owner
        )
        if not moved.execute():
            raise Missing("There is no such session. Look it up in GET /sessions.")
        under_way = Turn.readable().where(Turn.session == session_id, Turn.status == IN_PROGRESS).first()
        if under_way is not None:
            if under_way.is_alive or under_way.end(INTERRUPTED, died=True) is None:
                raise Busy("A reply is under way. Wait until it is done, or cancel it.", retry_after=1)
            Session.update(preview=None).where(Session.id == session_id).execute()
        return Session.get_owned(self.owner, session_id)

    def _append(self, session, now):
        Turn.insert(session=session, kind="user", content=self.content, folded=fold(self.content), created_at=now).execute()
        return self._begin(session, now)

    def _retry(self, session, now):
        last = Turn.select().where(Turn.session == session, Turn.shown, Turn.kind == "assistant").order_by(Turn.id.desc()).first()
        Turn.update(shown=False).where(Turn.id == last.id).execute()
        return self._begin(session, now, replaces=last.id)

    def _begin(self, session, now, replaces=None):
        return Turn.create(
            session=session,
            kind="assistant",
            content="",
            created_at=now,
            model=session.model,
            status=IN_PROGRESS,
            lease_until=now + LEASE,
            replaces=replaces,
        )

    def _known(self, now):
        path, key, body = self.key
        Key.delete().where(Key.created_at <= now - KEY_LIFE).execute()
        known = Key.get_or_none(owner=self.owner, path=path, key=key)
        if known is not None and known.body != body:
            raise KeyReused("This Idempotency-Key came with another body before. Use a new key for a new request.")
        return known

    def _first_outcome(self, known):
        session = Session.get_owned(self.owner, known.session_id)
        reply = Turn.get_by_id(known.turn_id)
        if reply.is_made:
            session.model = reply.model  # as it was then
            return session, reply
        if reply.is_alive:
            raise Busy("The first request with this key is under way. Ask again for its answer.", session.id, retry_after=1)
        if Turn.select().where(Turn.session == session, Turn.id > reply.id).exists():
            raise Busy("The reply failed, and newer turns followed: it is not asked for again.", session.id)
        return self._touch(session.id, clock()), reply

    def _remember(self, session, reply, now):
        path, key, body = self.key
        Key.insert(
            owner=self.owner, path=path, key=key, body=body, session_id=session.id, turn_id=reply.id, created_at=now
        ).on_conflict(conflict_target=[Key.owner, Key.path, Key.key], preserve=[Key.turn_id]).execute()
