"""Idempotency keys: which reply a client's key stands for (IETF draft "The Idempotency-Key HTTP
Header Field")."""

import functools
import hashlib
import hmac
import uuid

from peewee import BigIntegerField, CompositeKey, TextField, UUIDField
from werkzeug.exceptions import UnprocessableEntity

from database import SECOND, SchemaVersion, db

KEY_TTL = 24 * 3600 * SECOND
CLAIM = 30 * SECOND  # from `is_known` to `known` at most: no request waits longer than that
NO_SESSION, NO_TURN = uuid.UUID(int=0), 0


@functools.cache
def _secret() -> bytes:
    with db.connection_context():
        return SchemaVersion.select(SchemaVersion.secret).scalar().encode()


class IdempotencyKey(db.Model):
    """A client's key, a digest of the body that came with it, and the reply that was made."""

    owner = TextField()
    path = TextField()
    key = TextField()
    fingerprint = TextField(column_name="body")  # of the body; "" once the session is deleted
    session_id = UUIDField()
    turn_id = BigIntegerField()
    created_at = BigIntegerField()

    plain = ""  # the digest of older releases, which has no secret

    class Meta:
        table_name = "key"
        primary_key = CompositeKey("owner", "path", "key")

    @classmethod
    def sent(cls, owner: str, path: str, key: str, body: bytes) -> "IdempotencyKey":
        """A client's key that came with this body; not stored yet."""
        fingerprint = hmac.new(_secret(), body, "sha256").hexdigest()
        made = cls(owner=owner, path=path, key=key, fingerprint=fingerprint)
        made.plain = hashlib.sha256(body).hexdigest()
        return made

    def stored(self) -> "IdempotencyKey | None":
        """The stored row of this key, or None."""
        with db.connection_context():
            return IdempotencyKey.get_or_none(owner=self.owner, path=self.path, key=self.key)

    def is_known(self) -> bool:
        """Whether the key is stored, and within its time to live; then `known` finds it, too."""
        with db.connection_context():
            stored = self.stored()
            return stored is not None and stored.created_at > db.now() - KEY_TTL

    def known(self, now: int) -> "IdempotencyKey | None":
        """The stored row of this key, or None; deletes the owner's expired keys. Raises
        UnprocessableEntity if the key came with another body."""
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
        """Store the key for this reply; if the key is stored, let it stand for this reply. A fork
        has no reply: its turn is NO_TURN."""
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
        """Delete the stored row of this key, in the caller's transaction."""
        is_it = IdempotencyKey.path == self.path, IdempotencyKey.key == self.key
        db.send(IdempotencyKey.delete().where(IdempotencyKey.owner == self.owner, *is_it))

    @classmethod
    def let_go(cls, owner: str, session_id: uuid.UUID) -> None:
        """Delete the keys of a session that is being deleted; keep the key that created or forked
        it, but only with its owner: sent again, it must not create another session."""
        of_session = cls.owner == owner, cls.session_id == session_id
        creates = cls.path.endswith("/sessions") | cls.path.endswith("/fork")
        db.send(cls.delete().where(*of_session, ~creates))
        kept = {"fingerprint": "", "session_id": NO_SESSION, "turn_id": NO_TURN}
        db.send(cls.update(kept).where(*of_session))
