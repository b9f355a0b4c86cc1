"""What was used: tokens and replies, by owner, day and model. It outlives the sessions that it was used in."""

import datetime

from peewee import BigIntegerField, CompositeKey, TextField

from database import SECOND, db, given

TOKENS = ("input_tokens", "output_tokens", "cached_tokens")


class Usage(db.Model):
    """What an owner used of a model on a day: 2026-11-25, in UTC, is the day on which the reply was asked for."""

    owner = TextField()
    day = TextField()
    model = TextField()
    replies = BigIntegerField(default=0)
    input_tokens = BigIntegerField(default=0)
    output_tokens = BigIntegerField(default=0)
    cached_tokens = BigIntegerField(default=0)
    estimated_tokens = BigIntegerField(default=0)  # of what no provider counted

    class Meta:
        primary_key = CompositeKey("owner", "day", "model")

    @classmethod
    def add(cls, turns, replies):
        """Add so many replies for each of these turns, and what of its tokens is not counted yet, in the caller's transaction."""
        rows = []
        for turn in turns:
            day = datetime.datetime.fromtimestamp(turn.created_at // SECOND, datetime.UTC).date().isoformat()
            tokens = [(turn.usage[name] or 0) - (turn.counted[name] or 0) for name in TOKENS]
            rows.append([turn.session.owner, day, turn.model, replies, *tokens])
        db.send(given("add_usage", rows))
