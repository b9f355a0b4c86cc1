"""What a user is told of the ledger: their own days."""

import datetime
import re
from typing import Any

from flask import current_app, g, request
from marshmallow import EXCLUDE, Schema, ValidationError, fields

from database import db
from tables.ledger import TOKENS, Usage, utc

DAYS = 30  # by default
MODELS = 1000  # that have metrics of their own; any user may name more


class Day(fields.Date):
    """A day of a query: `2026-11-25`. (ISO 8601 knows it as `20261125` and `2026-W48-3`, too.)"""

    default_error_messages = {"invalid": "Give a day like 2026-11-25."}

    def _deserialize(self, value: str, attr: str, data: Any, **kwargs: Any) -> datetime.date:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UsagePageSchema(Schema):
    """The parameters of the usage: both days are included."""

    first = Day(data_key="from")
    last = Day(data_key="to")


page_schema = UsagePageSchema(unknown=EXCLUDE)  # what else a query has is nobody's


def show_usage() -> dict[str, Any]:
    """Tell what you have used, by day and model, the newest first."""
    query = page_schema.load(request.args.to_dict())
    with db.connection_context():
        now = db.now()
        last = query.get("last") or utc(now).date()
        first = query.get("first") or last - datetime.timedelta(min(DAYS, last.toordinal()) - 1)
        if first > last:
            raise ValidationError({"from": ["Give a day that is not behind the last one, `to`."]})
        rows = Usage.days(g.user, first.isoformat(), last.isoformat())
        meta = _limit_of(g.user, now)
    if meta is None:
        meta = {"used": sum(row.tokens for row in rows), "limit": None, "resets_at": None}
    names = ("day", "model", "replies", *TOKENS)
    return {"data": [{name: getattr(row, name) for name in names} for row in rows], "meta": meta}


def _limit_of(user: str, now: int) -> dict[str, Any] | None:
    """How much of their limit a user has used, where there is one."""
    limit = current_app.config["TOKEN_LIMIT"]
    if not limit:
        return None
    tokens, period = limit
    used, reset = Usage.in_period(user, period, now)
    resets_at = utc(reset).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"used": used, "limit": tokens, "resets_at": resets_at}
