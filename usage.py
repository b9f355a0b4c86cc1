"""What is told of the ledger: a user's own days, and to Prometheus the sums of all."""

import collections
import datetime
import hmac
import re

from flask import Response, current_app, g, request
from marshmallow import EXCLUDE, Schema, ValidationError, fields
from peewee import fn
from werkzeug.exceptions import NotFound

import database
from database import db
from ledger import OTHER, TOKENS, Usage, utc
from models import Turn

DAYS = 30  # by default
MODELS = 1000  # that have metrics of their own; any user may name more


class Day(fields.Date):
    """A day of a query: `2026-11-25`. (ISO 8601 knows it as `20261125` and `2026-W48-3`, too.)"""

    default_error_messages = {"invalid": "Give a day like 2026-11-25."}

    def _deserialize(self, value, attr, data, **kwargs):
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, attr, data, **kwargs)


class UsagePageSchema(Schema):
    """The parameters of the usage: both days are included."""

    first = Day(data_key="from")
    last = Day(data_key="to")


page_schema = UsagePageSchema(unknown=EXCLUDE)  # what else a query has is nobody's


def show_usage():
    """Tell what you have used, by day and model, the newest first."""
    query, limit = page_schema.load(request.args.to_dict()), current_app.config["TOKEN_LIMIT"]
    with db.connection_context():
        now = db.now()
        last = query.get("last") or utc(now).date()
        first = query.get("first") or last - datetime.timedelta(min(DAYS, last.toordinal()) - 1)
        if first > last:
            raise ValidationError({"from": ["Give a day that is not behind the last one, `to`."]})
        rows = Usage.days(g.user, first.isoformat(), last.isoformat())
        meta = {"used": sum(row.tokens for row in rows), "limit": None, "resets_at": None}
        if limit:
            used, reset = Usage.in_period(g.user, limit[1], now)
            meta = {"used": used, "limit": limit[0], "resets_at": utc(reset).strftime("%Y-%m-%dT%H:%M:%SZ")}
    names = ("day", "model", "replies", *TOKENS)
    return {"data": [{name: getattr(row, name) for name in names} for row in rows], "meta": meta}


def show_metrics():
    """Count what all have used, for Prometheus."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")  # werkzeug takes what has a "=" for no token
    token = current_app.config["METRICS_TOKEN"]
    if token is None or scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode(), token.encode()):
        raise NotFound
    database.limit_time()
    replies, tokens = collections.Counter(), collections.Counter()  # by labels
    with db.connection_context():
        in_progress = Turn.select().where(Turn.under_way()).count()
        for number, row in enumerate(Usage.sums(Usage.model).order_by(fn.MIN(Usage.day), Usage.model)):
            model = row.model if number < MODELS else OTHER
            label = 'model="{}"'.format(model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
            ended = {"complete": row.replies - row.failed - row.interrupted, "failed": row.failed, "interrupted": row.interrupted}
            replies.update({f'{{{label},outcome="{outcome}"}}': count for outcome, count in ended.items()})
            tokens.update({f'{{{label},kind="{name.removesuffix("_tokens")}"}}': getattr(row, name) for name in TOKENS})
    lines = []  # prometheus.io/docs/instrumenting/exposition_formats
    for name, kind, meaning, samples in (
        ("parley_replies_total", "counter", "Replies that were asked for and have ended.", replies),
        ("parley_tokens_total", "counter", "Tokens that were used; what no provider counted is estimated.", tokens),
        ("parley_replies_in_progress", "gauge", "Replies that are being written.", {"": in_progress}),
        ("parley_info", "gauge", "The release.", {'{version="%s"}' % current_app.config["VERSION"]: 1}),
    ):
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value}" for labels, value in samples.items()]
    return Response("\n".join([*lines, ""]), mimetype="text/plain; version=0.0.4")
