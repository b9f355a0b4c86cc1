"""Idempotency keys: under which key a client asked for which reply (IETF's draft of the header Idempotency-Key)."""

import time

from peewee import SQL, BigIntegerField, BooleanField, CompositeKey, TextField, UUIDField
from werkzeug.exceptions import UnprocessableEntity

from database import SECOND, db

KEY_TTL = 24 * 3600 * SECOND


class IdempotencyKey(db.Model):
    """A key that a client sent, what it sent under it, and the reply that was first asked for so."""

    owner = TextField()
    path = TextField()
    key = TextField()
    fingerprint = TextField(column_name="body")  # a digest of the request's body
    session_id = UUIDField()
    turn_id = BigIntegerField()
    created_at = BigIntegerField()
    settled = BooleanField(default=False, constraints=[SQL("DEFAULT FALSE")])  # it had its answer before the reply was continued

    class Meta:
        table_name = "key"
        primary_key = CompositeKey("owner", "path", "key")

    def stored(self):
        """The same key as it was stored before, or None."""
        with db.connection_context():
            return IdempotencyKey.get_or_none(owner=self.owner, path=self.path, key=self.key)

    def is_known(self):
        """Whether it was stored before, and surely still is when it is claimed: an hour is left for clocks that differ."""
        return (stored := self.stored()) is not None and stored.created_at > time.time() * SECOND - KEY_TTL + 3600 * SECOND

    def known(self, now):
        """The same key as it was stored within its time to live, or None. Raises UnprocessableEntity."""
        db.send(IdempotencyKey.delete().where(IdempotencyKey.owner == self.owner, IdempotencyKey.created_at <= now - KEY_TTL))
        if (known := self.stored()) is not None and known.fingerprint != self.fingerprint:
            raise UnprocessableEntity("This Idempotency-Key came with another body before. Use a new key for a new request.")
        return known

    def remember(self, reply, now):
        """Store the key for this reply, or this reply for the key that is stored."""
        row = self.__data__ | {"session_id": reply.session_id, "turn_id": reply.id, "created_at": now}
        db.send(IdempotencyKey.insert(row).on_conflict(conflict_target=("owner", "path", "key"), preserve="turn_id"))

    @classmethod
    def settle(cls, reply):
        """The keys of this reply have had their answer, whatever becomes of it from here on."""
        db.send(cls.update(settled=True).where(cls.owner == reply.session.owner, cls.turn_id == reply.id))

    @classmethod
    def forget(cls, replies):
        """Forget the keys by which these were continued in vain: they name an attempt that failed."""
        in_vain = cls.path.endswith("/continue") & ~cls.settled
        for reply in replies:
            db.send(cls.delete().where(cls.owner == reply.session.owner, cls.turn_id == reply.id, in_vain))
