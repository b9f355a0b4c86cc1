"""Idempotency keys: under which key a client asked for which reply (IETF's draft of the header
Idempotency-Key)."""

import functools
import hashlib
import hmac
import uuid

from peewee import BigIntegerField, CompositeKey, TextField, UUIDField
from werkzeug.exceptions import UnprocessableEntity

from database import SECOND, SchemaVersion, db

KEY_TTL = 24 * 3600 * SECOND
CLAIM = 30 * SECOND  # within which a known key is claimed: nobody waits longer for the database
NO_SESSION, NO_TURN = uuid.UUID(int=0), 0


@functools.cache
def _secret() -> bytes:
    with db.connection_context():
        return SchemaVersion.select(SchemaVersion.secret).scalar().encode()


class IdempotencyKey(db.Model):
    """A key that a client sent, what it sent under it, and the reply that it names."""

    owner = TextField()
    path = TextField()
    key = TextField()
    fingerprint = TextField(column_name="body")  # a digest of that; "" where the session is deleted
    session_id = UUIDField()
    turn_id = BigIntegerField()
    created_at = BigIntegerField()

    plain = ""  # the digest that releases before this one stored, which needs no secret

    class Meta:
        table_name = "key"
        primary_key = CompositeKey("owner", "path", "key")

    @classmethod
    def sent(cls, owner: str, path: str, key: str, body: bytes) -> "IdempotencyKey":
        """The key as a client sent it with this body."""
        fingerprint = hmac.new(_secret(), body, "sha256").hexdigest()
        made = cls(owner=owner, path=path, key=key, fingerprint=fingerprint)
        made.plain = hashlib.sha256(body).hexdigest()
        return made

    def stored(self) -> "IdempotencyKey | None":
        """The same key as it was stored before, or None."""
        with db.connection_context():
            return IdempotencyKey.get_or_none(owner=self.owner, path=self.path, key=self.key)

    def is_known(self) -> bool:
        """Whether it was stored within its time to live: then it is known when it is claimed."""
        with db.connection_context():
            stored = self.stored()
            return stored is not None and stored.created_at > db.now() - KEY_TTL

    def known(self, now: int) -> "IdempotencyKey | None":
        """The same key as it was stored within its time to live, or None. Raises
        UnprocessableEntity."""
        is_old = IdempotencyKey.created_at <= now - KEY_TTL - CLAIM
        db.send(IdempotencyKey.delete().where(IdempotencyKey.owner == self.owner, is_old))
        known = self.stored()
        if known is not None and known.fingerprint not in ("", self.fingerprint, self.plain):
            raise UnprocessableEntity(
                "This Idempotency-Key came with another body before. "
                "Use a new key for a new request."
            )
        return known

    def remember(self, session_id: uuid.UUID, turn_id: int, now: int) -> None:
        """Store the key for this reply, or this reply for the key that is stored. (A fork has no
        reply, but the turn NO_TURN.)"""
        row = self.__data__ | {
            "session_id": session_id,
            "turn_id": turn_id,
            "created_at": now,
        }
        db.send(
            IdempotencyKey.insert(row).on_conflict(
                conflict_target=("owner", "path", "key"), preserve="turn_id"
            )
        )

    def forget(self) -> None:
        """The key names nothing any more; in the caller's transaction."""
        is_it = IdempotencyKey.path == self.path, IdempotencyKey.key == self.key
        db.send(IdempotencyKey.delete().where(IdempotencyKey.owner == self.owner, *is_it))

    @classmethod
    def let_go(cls, owner: str, session_id: uuid.UUID) -> None:
        """Of a session that is deleted keep only under which key it was created, or forked, and by
        whom: sent again, the key creates no other one."""
        of_session = cls.owner == owner, cls.session_id == session_id
        creates = cls.path.endswith("/sessions") | cls.path.endswith("/fork")
        db.send(cls.delete().where(*of_session, ~creates))
        kept = {"fingerprint": "", "session_id": NO_SESSION, "turn_id": NO_TURN}
        db.send(cls.update(kept).where(*of_session))
