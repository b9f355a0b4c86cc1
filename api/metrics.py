"""Metrics for Prometheus: the sums of the ledger, in its text format
(prometheus.io/docs/instrumenting/exposition_formats)."""

import collections
import hmac
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flask import Response, current_app, request
from peewee import fn
from werkzeug.exceptions import NotFound

from database import connected
from models import Turn
from tables.ledger import OTHER, TOKENS, Usage

FORMAT = "text/plain; version=0.0.4; charset=utf-8"
EXAMPLE = 'parley_replies_total{model="m-1",outcome="complete"} 7\n'
MODELS = 1000  # that have metrics of their own: users may name any number of models


class Metric(NamedTuple):
    name: str
    kind: str
    meaning: str
    samples: Mapping[str, int]  # by their labels

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.meaning}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples.items():
            yield f"{self.name}{labels} {value}"


def answer() -> Response:
    """All metrics. Raises NotFound unless the request has the token for them."""
    if not _is_allowed():
        raise NotFound
    replies, tokens = collections.Counter(), collections.Counter()
    with connected():
        in_progress = Turn.select().where(Turn.is_in_progress()).count()
        by_model = Usage.sums(Usage.model).order_by(fn.MIN(Usage.day), Usage.model)
        for number, row in enumerate(by_model):
            _count(row, row.model if number < MODELS else OTHER, replies, tokens)
    version = current_app.config["VERSION"]
    metrics = (
        Metric(
            "parley_replies_total",
            "counter",
            "Replies that were asked for and have ended.",
            replies,
        ),
        Metric(
            "parley_tokens_total",
            "counter",
            "Tokens that were used; what no provider counted is estimated.",
            tokens,
        ),
        Metric(
            "parley_replies_in_progress",
            "gauge",
            "Replies that are being written.",
            {"": in_progress},
        ),
        Metric("parley_info", "gauge", "The release.", {f'{{version="{version}"}}': 1}),
    )
    lines = [line for metric in metrics for line in metric.lines()]
    return Response("\n".join([*lines, ""]), content_type=FORMAT)


def _is_allowed() -> bool:
    token = current_app.config["METRICS_TOKEN"]
    # `request.authorization` of werkzeug has no token if it contains a "=".
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    if token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(sent.strip().encode(), token.encode())


def _count(
    row: Usage, model: str, replies: collections.Counter[str], tokens: collections.Counter[str]
) -> None:
    """Add the sums of a model to these counters, whose keys are labels such as
    `{model="m-1",kind="input"}`."""
    escaped = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    ended = {
        "complete": row.replies - row.failed - row.interrupted,
        "failed": row.failed,
        "interrupted": row.interrupted,
    }
    for outcome, count in ended.items():
        replies[f'{{model="{escaped}",outcome="{outcome}"}}'] += count
    for name in TOKENS:
        kind = name.removesuffix("_tokens")
        tokens[f'{{model="{escaped}",kind="{kind}"}}'] += getattr(row, name)
