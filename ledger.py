"""The ledger: what each owner has used, by day and model, which outlives sessions, and the limits of it. What no provider said is
estimated, a token for four bytes, and counted apart. Whatever tokens stand in the row of a turn are counted here, by the same
transaction: so each is counted once, whichever process writes the turn on, and nothing is lost with it."""

import datetime

from peewee import SQL, BigIntegerField, CompositeKey, TextField, fn

from database import SECOND, db, given, transaction

SAID = ("input_tokens", "output_tokens", "cached_tokens")  # by a provider; those that are cached are among the input
TOKENS = (*SAID, "estimated_tokens")
MOST_TOKENS = 2**31 - 1  # that a turn's row can hold
OTHER = "other"  # the model of what is not told apart
FORGOTTEN = ""  # the owner of what those used who were forgotten


def estimate(size):
    """The tokens of so many bytes."""
    return -(-max(0, size) // 4)


def utc(microseconds):
    return datetime.datetime.fromtimestamp(microseconds // SECOND, datetime.UTC)


class Usage(db.Model):
    """What an owner used of a model on a day, 2026-11-25 in UTC: that on which the reply was asked for."""

    owner = TextField()
    day = TextField()
    model = TextField()
    replies = BigIntegerField(default=0)
    input_tokens = BigIntegerField(default=0)
    output_tokens = BigIntegerField(default=0)
    cached_tokens = BigIntegerField(default=0)
    estimated_tokens = BigIntegerField(default=0)  # of what no provider counted
    failed = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # of the replies
    interrupted = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])

    class Meta:
        primary_key = CompositeKey("owner", "day", "model")

    @property
    def tokens(self):
        """All, in and out."""
        return self.input_tokens + self.output_tokens + self.estimated_tokens

    @classmethod
    def add(cls, turns=(), ended=(), fenced=()):
        """Add those tokens of these turns that are not counted yet, in the caller's transaction, by one statement; of those that
        `ended`, a reply, too; of those that are `fenced`, only where the turn is in progress and has this fence. Where neither a
        turn nor usage is left that names the owner, who was forgotten meanwhile, it is added without the name."""
        rows, counted = [], [(turn, 0, None) for turn in turns] + [(turn, 1, None) for turn in ended]
        for turn, replies, fence in [*counted, *((turn, 0, turn.fence) for turn in fenced)]:
            tokens = [(turn.usage[name] or 0) - (turn.counted[name] or 0) for name in TOKENS]
            outcomes = [replies * (turn.outcome == status) for status in ("failed", "interrupted")]
            # Any user may name what no provider knows: it is no word that is kept, or measured.
            model = OTHER if turn.error_status == 400 and not any(turn.usage.values()) else turn.model
            place = turn.session.owner, utc(turn.session.updated_at).date().isoformat(), model
            rows.append([turn.id, fence, *place, replies, *tokens, *outcomes])
        if rows:
            db.send(given("add_usage", rows))

    @classmethod
    @transaction
    def add_late(cls, turn):
        """The same, in a transaction of its own, of a turn that may be gone by now."""
        db.lock(turn.session.owner)  # else its owner might be forgotten between the look and the addition
        cls.add([turn])

    @classmethod
    def days(cls, owner, first, last):
        """The rows of an owner from one day to another, the newest first."""
        return list(cls.select().where(cls.owner == owner, cls.day.between(first, last)).order_by(cls.day.desc(), cls.model))

    @classmethod
    def in_period(cls, owner, name, now):
        """The tokens that an owner has used, in and out, in the `month`, or `day`, of this time; and when the next one begins."""
        first = utc(now).replace(hour=0, minute=0, second=0)
        following = first + datetime.timedelta(days=1)
        if name == "month":
            first = first.replace(day=1)
            following = (first + datetime.timedelta(days=32)).replace(day=1)
        tokens = fn.SUM(cls.input_tokens + cls.output_tokens + cls.estimated_tokens)
        # What a clock that was ahead has left is not among them.
        days = cls.day >= first.date().isoformat(), cls.day < following.date().isoformat()
        return int(cls.select(tokens).where(cls.owner == owner, *days).scalar() or 0), int(following.timestamp()) * SECOND

    @classmethod
    def sums(cls, *columns):
        """A query of the sums of all counts for each value of these columns."""
        counts = [fn.SUM(field).cast("bigint").alias(field.name) for field in cls._meta.sorted_fields[3:]]
        return cls.select(*columns, *counts).group_by(*columns)

    @classmethod
    @transaction
    def forget(cls, owner):
        """Keep the sums of what an owner used, without the name. Returns whether there were any."""
        db.lock(owner)
        rows = db.execute(cls.delete().where(cls.owner == owner).returning(*cls._meta.sorted_fields)).fetchall()
        for start in range(0, len(rows), 1000):  # a statement takes 32,766 values at most
            db.send(given("add_usage", [(None, None, FORGOTTEN, *counts) for _, *counts in rows[start : start + 1000]]))
        return bool(rows)


class RateLimitHit(db.Model):
    """One reply that an owner asked for. Deleting its session gives nothing back."""

    owner = TextField()
    at = BigIntegerField()

    class Meta:
        table_name = "asked"
        indexes = ((("owner", "at"), False),)

    @classmethod
    def count(cls, owner, limit, seconds, now):
        """Count one more, under the lock of the owner; or return the seconds to wait, if `limit` came within `seconds`."""
        window = now - seconds * SECOND
        db.send(cls.delete().where(cls.owner == owner, cls.at <= window))
        # The oldest of the last `limit`: where there is one, the limit is reached.
        hits = cls.select(cls.at).where(cls.owner == owner).order_by(cls.at.desc())
        if (oldest := hits.offset(limit - 1).limit(1).scalar()) is not None:
            return max(1, -((window - oldest) // SECOND))
        db.send(cls.insert(owner=owner, at=now))
        return 0
