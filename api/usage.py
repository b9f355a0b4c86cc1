"""A user's own usage, by day, from the ledger."""

import datetime
import re
from typing import Any

from flask import current_app
from marshmallow import EXCLUDE, Schema, ValidationError, fields

from database import db
from schemas import about
from tables.ledger import Usage, utc

DAYS = 30  # by default


class Day(fields.Date):
    """A day as `2026-11-25`, without ISO 8601's other forms, such as `20261125` or `2026-W48-3`."""

    default_error_messages = {"invalid": "Give a day like 2026-11-25."}

    def _deserialize(self, value: str, attr: str, data: Any, **kwargs: Any) -> datetime.date:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UsagePageSchema(Schema):
    """Both days are included."""

    class Meta:
        unknown = EXCLUDE  # other parameters are ignored

    first = Day(
        data_key="from",
        metadata=about("The first day, by default the first of thirty.", "2026-11-01"),
    )
    last = Day(data_key="to", metadata=about("The last day, by default today.", "2026-11-30"))


def of_days(
    user: str, first: datetime.date | None = None, last: datetime.date | None = None
) -> dict[str, Any]:
    """The user's usage from the first to the last of these days, by default the last thirty. Raises
    ValidationError if the first comes after the last."""
    with db.connection_context():
        now = db.now()
        last = last or utc(now).date()
        first = first or last - datetime.timedelta(min(DAYS, last.toordinal()) - 1)
        if first > last:
            raise ValidationError({"from": ["Give a day that is not after the last one, `to`."]})
        rows = Usage.days(user, first.isoformat(), last.isoformat())
        meta = _usage_of_limit(user, now)
    if meta is None:
        meta = {"used": sum(row.tokens for row in rows), "limit": None, "resets_at": None}
    return {"data": rows, "meta": meta}


def _usage_of_limit(user: str, now: int) -> dict[str, Any] | None:
    """How much of their limit a user has used; None if there is no limit."""
    limit = current_app.config["TOKEN_LIMIT"]
    if not limit:
        return None
    tokens, period = limit
    used, resets_at = Usage.in_period(user, period, now)
    return {"used": used, "limit": tokens, "resets_at": resets_at}
