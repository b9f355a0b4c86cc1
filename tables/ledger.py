"""The ledger: what each owner has used, by day and model. It outlives sessions, and has the rate
limits.

Tokens that no provider has counted are estimated, one for four bytes, and counted apart. Whenever
tokens are written into a turn's row, the same transaction adds them here. So each is counted once,
whichever process writes the turn, and none that is stored is lost with a process.
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

# What a provider counts. Cached tokens are also input tokens.
REPORTED = ("input_tokens", "output_tokens", "cached_tokens")
TOKENS = (*REPORTED, "estimated_tokens")
MOST_TOKENS = 2**31 - 1  # that a turn's row can hold
OTHER = "other"  # the model of usage that is not told apart by model
ROWS_PER_STATEMENT = 1000  # rows per statement, when a user is forgotten
FORGOTTEN = ""  # the owner of the usage of forgotten users
MINUTE = 60 * SECOND
LONGEST_WINDOW = 24 * 3600 * SECOND  # of rate limits


def estimate(size: int) -> int:
    """The tokens estimated for so many bytes."""
    return -(-max(0, size) // 4)


def utc(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(microseconds // SECOND, datetime.UTC)


class Entry(NamedTuple):
    """What is added to the ledger for one turn."""

    turn_id: int
    owner: str
    asked_at: int  # when the reply was asked for
    model: str
    tokens: list[int]  # in the order of TOKENS: those that are not in the ledger yet
    outcome: str | None = None  # how the reply ended; None if it goes on, or its end is counted

    @property
    def day(self) -> str:
        return utc(self.asked_at).date().isoformat()

    @property
    def counts(self) -> list[int]:
        """What to add to the counts of Usage, in the order of its columns."""
        outcomes = [int(self.outcome == status) for status in ("failed", "interrupted")]
        return [int(self.outcome is not None), *self.tokens, *outcomes]


class Usage(db.Model):
    """What an owner used of a model on a day in UTC, such as 2026-11-25: the day on which the reply
    was requested."""

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
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens + self.estimated_tokens

    @classmethod
    def add(cls, entries: Iterable[Entry]) -> None:
        """Add these, in the caller's transaction, by one statement. If no turn and no usage names
        the owner any more, that user was forgotten meanwhile, and FORGOTTEN gets it."""
        rows = [[each.turn_id, each.owner, each.day, each.model, *each.counts] for each in entries]
        if rows:
            db.send(given("add_usage", rows))

    @classmethod
    @transaction
    def add_late(cls, entry: Entry) -> None:
        """Add an entry in a transaction of its own, for a turn that may be deleted by now."""
        # Without the lock, its owner might be forgotten between the check and the insertion.
        db.lock(entry.owner)
        cls.add([entry])

    @classmethod
    def days(cls, owner: str, first: str, last: str) -> list["Usage"]:
        """The rows of an owner from one day to another, newest first."""
        return list(
            cls.select()
            .where(cls.owner == owner, cls.day.between(first, last))
            .order_by(cls.day.desc(), cls.model)
        )

    @classmethod
    def in_period(cls, owner: str, name: str, now: int) -> tuple[int, int]:
        """The tokens that an owner has used, in and out, in the `month` or `day` of this time; and
        when the next one begins."""
        first = utc(now).replace(hour=0, minute=0, second=0)
        following = first + datetime.timedelta(days=1)
        if name == "month":
            first = first.replace(day=1)
            following = (first + datetime.timedelta(days=32)).replace(day=1)
        tokens = fn.SUM(cls.input_tokens + cls.output_tokens + cls.estimated_tokens)
        # The upper bound leaves out rows in the future, written while a clock was ahead.
        days = cls.day >= first.date().isoformat(), cls.day < following.date().isoformat()
        used = cls.select(tokens).where(cls.owner == owner, *days).scalar()
        return int(used or 0), int(following.timestamp()) * SECOND

    @classmethod
    def sums(cls, *columns: Any) -> ModelSelect:
        """A query: the sums of all counts, grouped by these columns."""
        counts = [
            fn.SUM(field).cast("bigint").alias(field.name) for field in cls._meta.sorted_fields[3:]
        ]
        return cls.select(*columns, *counts).group_by(*columns)

    @classmethod
    @transaction
    def forget(cls, owner: str) -> bool:
        """Move an owner's usage to FORGOTTEN. Returns whether there was any."""
        db.lock(owner)
        deletion = cls.delete().where(cls.owner == owner).returning(*cls._meta.sorted_fields)
        rows = db.execute(deletion).fetchall()
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            some = [
                (None, FORGOTTEN, *counts)
                for _, *counts in rows[start : start + ROWS_PER_STATEMENT]
            ]
            db.send(given("add_usage", some))
        return bool(rows)


class RateLimitHit(db.Model):
    """A reply or fork that an owner requested. It counts even if its session is deleted."""

    owner = TextField()
    at = BigIntegerField()
    fork = UUIDField(null=True)  # the session that the fork created

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
        """Count a request and return 0; or, if `limit` came within the last `seconds`, return the
        seconds to wait. The caller has locked the owner. The request is for a reply in this session
        (None: a new one), or `is_fork`, which creates it: a fork and a reply in it within a minute
        count as one."""
        window = now - seconds * SECOND
        is_due = (cls.at <= window) | (cls.at > now + SECOND)  # a clock was ahead
        if session_id is not None:
            is_due |= (cls.fork == session_id) & (cls.at > now - MINUTE)
        db.send(cls.delete().where(cls.owner == owner, is_due))
        # The oldest of the last `limit` hits: if there is one, the limit is reached.
        hits = cls.select(cls.at).where(cls.owner == owner).order_by(cls.at.desc())
        if (oldest := hits.offset(limit - 1).limit(1).scalar()) is not None:
            return max(1, -((window - oldest) // SECOND))
        db.send(cls.insert(owner=owner, at=now, fork=session_id if is_fork else None))
        return 0
