"""The ledger: what each owner has used, by day and model, which outlives sessions, and its limits.

What no provider said is estimated, a token for four bytes, and counted apart. All tokens that stand
in the row of a turn are counted here, by the same transaction: so each is counted once, whichever
process writes the turn on, and nothing is lost with it.
"""

import datetime
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from peewee import (
    SQL,
    BigIntegerField,
    CompositeKey,
    ModelSelect,
    TextField,
    UUIDField,
    fn,
)

from database import SECOND, db, transaction
from tables import given

# What a provider says; the tokens that are cached are among the input.
SAID = ("input_tokens", "output_tokens", "cached_tokens")
TOKENS = (*SAID, "estimated_tokens")
MOST_TOKENS = 2**31 - 1  # that a turn's row can hold
OTHER = "other"  # the model of what is not told apart
AT_ONCE = 1000  # rows of those who are forgotten
FORGOTTEN = ""  # the owner of what those used who were forgotten
MINUTE = 60 * SECOND
LONGEST_WINDOW = 24 * 3600 * SECOND  # of a rate limit


def estimate(size: int) -> int:
    """The tokens of so many bytes."""
    return -(-max(0, size) // 4)


def utc(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(microseconds // SECOND, datetime.UTC)


class Entry(NamedTuple):
    """What is added to the ledger for one turn."""

    turn_id: int
    owner: str
    asked_at: int  # when the reply was asked for
    model: str
    tokens: list[int]  # of each of TOKENS, those that are not counted yet
    outcome: str | None = None  # how the reply ended; None where it goes on, or was counted before

    @property
    def day(self) -> str:
        return utc(self.asked_at).date().isoformat()

    @property
    def counts(self) -> list[int]:
        """What is added to each count of Usage, in their order."""
        outcomes = [int(self.outcome == status) for status in ("failed", "interrupted")]
        return [int(self.outcome is not None), *self.tokens, *outcomes]


class Usage(db.Model):
    """What an owner used of a model on a day in UTC, 2026-11-25: that on which the reply was asked
    for."""

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
    def tokens(self) -> int:
        """All, in and out."""
        return self.input_tokens + self.output_tokens + self.estimated_tokens

    @classmethod
    def add(cls, entries: Iterable[Entry]) -> None:
        """Add these, in the caller's transaction, by one statement. Where neither a turn nor usage
        is left that names the owner, who was forgotten meanwhile, it is added without the name."""
        rows = [[each.turn_id, each.owner, each.day, each.model, *each.counts] for each in entries]
        if rows:
            db.send(given("add_usage", rows))

    @classmethod
    @transaction
    def add_late(cls, entry: Entry) -> None:
        """The same, in a transaction of its own, of a turn that may be gone by now."""
        # Else its owner might be forgotten between the look and the addition.
        db.lock(entry.owner)
        cls.add([entry])

    @classmethod
    def days(cls, owner: str, first: str, last: str) -> list["Usage"]:
        """The rows of an owner from one day to another, the newest first."""
        return list(
            cls.select()
            .where(cls.owner == owner, cls.day.between(first, last))
            .order_by(cls.day.desc(), cls.model)
        )

    @classmethod
    def in_period(cls, owner: str, name: str, now: int) -> tuple[int, int]:
        """The tokens that an owner has used, in and out, in the `month`, or `day`, of this time;
        and when the next one begins."""
        first = utc(now).replace(hour=0, minute=0, second=0)
        following = first + datetime.timedelta(days=1)
        if name == "month":
            first = first.replace(day=1)
            following = (first + datetime.timedelta(days=32)).replace(day=1)
        tokens = fn.SUM(cls.input_tokens + cls.output_tokens + cls.estimated_tokens)
        # What a clock that was ahead has left is not among them.
        days = cls.day >= first.date().isoformat(), cls.day < following.date().isoformat()
        used = cls.select(tokens).where(cls.owner == owner, *days).scalar()
        return int(used or 0), int(following.timestamp()) * SECOND

    @classmethod
    def sums(cls, *columns: Any) -> ModelSelect:
        """A query of the sums of all counts for each value of these columns."""
        counts = [
            fn.SUM(field).cast("bigint").alias(field.name) for field in cls._meta.sorted_fields[3:]
        ]
        return cls.select(*columns, *counts).group_by(*columns)

    @classmethod
    @transaction
    def forget(cls, owner: str) -> bool:
        """Keep the sums of what an owner used, without the name. Returns whether there were any."""
        db.lock(owner)
        deletion = cls.delete().where(cls.owner == owner).returning(*cls._meta.sorted_fields)
        rows = db.execute(deletion).fetchall()
        for start in range(0, len(rows), AT_ONCE):
            some = [(None, FORGOTTEN, *counts) for _, *counts in rows[start : start + AT_ONCE]]
            db.send(given("add_usage", some))
        return bool(rows)


class RateLimitHit(db.Model):
    """One reply, or fork, that an owner asked for. Deleting its session gives nothing back."""

    owner = TextField()
    at = BigIntegerField()
    fork = UUIDField(null=True)  # the session that a fork has made

    class Meta:
        table_name = "asked"
        indexes = ((("owner", "at"), False),)

    @classmethod
    def count(
        cls,
        owner: str,
        limit: int,
        seconds: int,
        now: int,
        session_id: uuid.UUID | None = None,
        is_fork: bool = False,
    ) -> int:
        """Count one more, under the lock of the owner, and return 0; or return the seconds to wait,
        if `limit` came within `seconds`. It is a reply in this session (None: in a new one), or the
        fork that makes it: both count once if the reply is requested within a minute."""
        window = now - seconds * SECOND
        is_due = (cls.at <= window) | (cls.at > now + SECOND)  # the latter, if a clock was ahead
        if session_id is not None:
            is_due |= (cls.fork == session_id) & (cls.at > now - MINUTE)
        db.send(cls.delete().where(cls.owner == owner, is_due))
        # The oldest of the last `limit`: where there is one, the limit is reached.
        hits = cls.select(cls.at).where(cls.owner == owner).order_by(cls.at.desc())
        if (oldest := hits.offset(limit - 1).limit(1).scalar()) is not None:
            return max(1, -((window - oldest) // SECOND))
        db.send(cls.insert(owner=owner, at=now, fork=session_id if is_fork else None))
        return 0
