"""A claim that may be committed though its client was told that it failed, and how it is undone."""

import dataclasses
import uuid

from peewee import fn

from database import db, transaction
from models import IN_PROGRESS, PREVIEW, Session, Turn
from replies.commits import interrupt
from tables.idempotency import IdempotencyKey
from tables.search import normalize


@dataclasses.dataclass(frozen=True)
class DoubtfulClaim:
    """A reply that may be committed though its client was told that this failed, and what is
    committed with it."""

    turn_id: int
    fence: int
    session_id: uuid.UUID
    message_id: int | None  # a user turn
    has_session: bool  # that is new
    has_key: bool
    # Of a continuation: its reply is complete again, perhaps, and would be an answer to the key.
    key_to_forget: IdempotencyKey | None

    def undo(self) -> bool:
        """Undo it, where the reply is still under way; returns whether it was. With a key the reply
        is interrupted instead, as by a process that died: so the key's next request has it made, in
        the same session. One that was asked for in the place of another is interrupted, too."""
        turn = Turn.read(self.turn_id)
        if turn is None or turn.status != IN_PROGRESS or turn.fence != self.fence:
            return False
        if self.message_id is None or self.has_key:
            turn.uncounted = -len(turn.content.encode())  # no model was asked
            text = normalize(turn.content)
            return bool(interrupt([turn], [text], cancelled=False, key=self.key_to_forget))
        return self._take_back()

    @transaction
    def _take_back(self) -> bool:
        """Delete the reply, its message, and the session where that is new; returns whether the
        reply was still there."""
        db.hold(Session.select(Session.id).where(Session.id == self.session_id))
        is_ours = Turn.id == self.turn_id, Turn.fence == self.fence, Turn.under_way()
        if not Turn.delete().where(*is_ours).execute():
            return False
        if self.has_session:
            return bool(Session.delete().where(Session.id == self.session_id).execute())
        Turn.delete().where(Turn.id == self.message_id).execute()
        has_text = Turn.session == self.session_id, Turn.visible, Turn.content != ""
        previews = Turn.select(fn.SUBSTR(Turn.content, 1, PREVIEW)).where(*has_text)
        newest = previews.order_by(Turn.id.desc()).limit(1)
        return bool(Session.update(preview=newest).where(Session.id == self.session_id).execute())
