"""`GET /metrics`: sums of all users, for a client with the token."""

import threading

from client import ALICE, BOB, wait_until
from ledgers import METRICS, day, metrics_of
from provider import fails, reply, status


def test_metrics_are_sums_of_all_users(start, settings, provider):
    server = start(**settings, METRICS_TOKEN=METRICS)
    version = server.client().get("/health").json()["version"]
    assert metrics_of(server) == {("parley_replies_in_progress",): 0, ("parley_info", version): 1}
    alice, bob = server.client(), server.client(BOB)
    session = alice.create()
    bob.create()
    provider.script = [fails("Half")]
    assert bob.post("/sessions", {"content": "Eight by"}).status_code == 502
    never = threading.Event()
    provider.script = [reply("Half", never)]
    path = f"/sessions/{session['id']}"
    assert (
        alice.post(path + "/messages", {"content": "More"}, Prefer="respond-async").status_code
        == 202
    )
    with alice.events(session) as stream:
        next(iter(stream))
    assert metrics_of(server)[("parley_replies_in_progress",)] == 1
    assert alice.post(path + "/cancel").status_code == 200
    estimated = 3 + -(-(5 + 11 + 4 + 4) // 4)
    wait_until(lambda: metrics_of(server)[("parley_tokens_total", "estimated", "m-1")] == estimated)
    odd = 'a"b\\c\nd'
    alice.create(model=odd)
    expected = {
        ("parley_replies_total", "complete", "m-1"): 2,
        ("parley_replies_total", "failed", "m-1"): 1,
        ("parley_replies_total", "interrupted", "m-1"): 1,
        ("parley_tokens_total", "input", "m-1"): 30,
        ("parley_tokens_total", "m-1", "output"): 14,
        ("parley_tokens_total", "cached", "m-1"): 6,
        ("parley_tokens_total", "estimated", "m-1"): estimated,
        ("parley_replies_total", odd, "complete"): 1,
        ("parley_replies_total", odd, "failed"): 0,
        ("parley_replies_total", odd, "interrupted"): 0,
        ("parley_tokens_total", odd, "input"): 15,
        ("parley_tokens_total", odd, "output"): 7,
        ("parley_tokens_total", odd, "cached"): 3,
        ("parley_tokens_total", odd, "estimated"): 0,
        ("parley_replies_in_progress",): 0,
        ("parley_info", version): 1,
    }
    assert metrics_of(server) == expected
    alice.delete(path)
    assert metrics_of(server) == expected
    assert metrics_of(start(**settings, METRICS_TOKEN=METRICS)) == expected  # from another host


def test_a_continue_without_any_text_counts_as_failed(start, settings, provider):
    server = start(**settings, METRICS_TOKEN=METRICS)
    alice = server.client()
    provider.script = [reply("Half", stop="length"), status(401)]
    session = alice.create(options={"max_tokens": 7})
    assert alice.post(f"/sessions/{session['id']}/continue").status_code == 502
    metrics = metrics_of(server)
    assert (
        metrics[("parley_replies_total", "complete", "m-1")]
        == metrics[("parley_replies_total", "failed", "m-1")]
        == 1
    )


def test_without_the_token_metrics_look_like_a_missing_page(start, settings):
    server, without = start(**settings, METRICS_TOKEN=METRICS), start(**settings)
    nowhere = server.client().get("/nowhere")
    asked = [
        (without, f"Bearer {METRICS}"),
        (server, None),
        (server, "Bearer"),
        (server, METRICS),
        (server, f"Basic {METRICS}"),
    ]
    asked += [
        (server, f"Bearer {METRICS}-"),
        (server, f"Bearer {METRICS[:-1]}"),
        (server, "Bearer \xff"),
    ]
    asked += [(server, f"Bearer {server.client().token}")]
    for each, authorization in asked:
        response = each.client().get("/metrics", Authorization=authorization)
        assert (response.status_code, response.json()) == (404, nowhere.json()), authorization
    assert server.client().get("/metrics", Authorization=f"bearer {METRICS}").status_code == 200
    server.stop()
    assert METRICS not in server.output()


def test_a_thousand_models_are_named_and_the_rest_are_summed_up(start, settings, tables):
    columns = (
        "owner",
        "day",
        "model",
        "replies",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "estimated_tokens",
    )
    server = start(**settings, METRICS_TOKEN=METRICS)
    rows = [(ALICE, day(1), f"odd-{number:04}", 1, 1, 1, 1, 1) for number in range(1500)]
    tables.fill("usage", columns, [(ALICE, day(2), "m-1", 1, 1, 1, 1, 1), *rows])
    metrics = metrics_of(server)
    assert len(metrics) == 2 + 7 * 1001
    assert metrics[("parley_replies_total", "complete", "m-1")] == 1
    assert metrics[("parley_replies_total", "complete", "other")] == 501
