"""Usage of several days, put into the ledger and read from it."""

import datetime
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from product import ROOT

APP = str(ROOT / "app.py")


METRICS = "the-token-of-the-metrics"


LONGEST = 30  # seconds that a test may take


def now():
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def within_a_day():
    """A test during which the day and the month must not change: it does not begin just before
    midnight."""
    passed = now() - now().replace(hour=0, minute=0, second=0, microsecond=0)
    left = 24 * 3600 - passed.total_seconds()
    if left < LONGEST:
        time.sleep(left + 1)


def day(ago):
    return (now() - datetime.timedelta(days=ago)).date().isoformat()


def usage_of(client, **params):
    response = client.request("GET", "/usage", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def counts_of(client):
    """model → (replies, input, output, cached, estimated tokens)."""
    names = ("replies", "input_tokens", "output_tokens", "cached_tokens", "estimated_tokens")
    return {row["model"]: tuple(row[name] for name in names) for row in usage_of(client)["data"]}


def use(tables, owner, ago, model="m-1", replies=1, tokens=(0, 0, 0, 0)):
    """Store this usage as of so many days ago."""
    names = ("input_tokens", "output_tokens", "cached_tokens", "estimated_tokens")
    tables.insert(
        "usage",
        owner=owner,
        day=day(ago),
        model=model,
        replies=replies,
        **dict(zip(names, tokens, strict=True)),
    )


# Metrics


def metrics_of(server):
    """(name, labels as sorted pairs) → value, as Prometheus's own parser reads it."""
    response = server.client().get(
        "/metrics", Authorization=f"Bearer {METRICS}", Accept="text/plain"
    )
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert {family.name: family.type for family in families} == {
        "parley_replies": "counter",
        "parley_tokens": "counter",
        "parley_replies_in_progress": "gauge",
        "parley_info": "gauge",
    }
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}
