"""Users see what they have used. If the provider did not count it, it is estimated."""

import threading

import pytest

from client import ALICE, BOB, wait_for_status, wait_until
from exports import imported, turns_of
from ledgers import METRICS, counts_of, day, metrics_of, usage_of, use
from provider import cut, event, fails, reply, silence, status, thought
from raw_tables import tables_of

pytestmark = pytest.mark.usefixtures("within_a_day")

CLAUDE = "claude-x"


TITLE_PROMPT = "Write a title of three to seven words for the conversation that begins with the user's message. Only the title."

SILENT = reply("Twelve bytes", usage=(None, None, None))  # this provider counts nothing


# What a user has used


def test_users_see_their_own_days_newest_first(start, settings, tables):
    alice = start(**settings).client()
    assert usage_of(alice) == {"data": [], "meta": {"used": 0, "limit": None, "resets_at": None}}
    use(tables, ALICE, 29, tokens=(1, 2, 1, 4))
    use(tables, ALICE, 30, tokens=(10, 20, 10, 40))
    use(tables, ALICE, 29, "a-model", 3, (100, 200, 100, 400))
    use(tables, BOB, 0, tokens=(5, 5, 5, 5))
    alice.create()
    rows = [
        {"day": day(0), "model": "m-1", "replies": 1}
        | {"input_tokens": 15, "output_tokens": 7, "cached_tokens": 3, "estimated_tokens": 0},
        {"day": day(29), "model": "a-model", "replies": 3}
        | {
            "input_tokens": 100,
            "output_tokens": 200,
            "cached_tokens": 100,
            "estimated_tokens": 400,
        },
        {"day": day(29), "model": "m-1", "replies": 1}
        | {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 1, "estimated_tokens": 4},
    ]
    assert usage_of(alice) == {
        "data": rows,
        "meta": {"used": 22 + 700 + 7, "limit": None, "resets_at": None},
    }
    for params, expected in [
        ({"from": day(29), "to": day(29)}, rows[1:]),
        ({"from": day(28)}, rows[:1]),
        ({"to": day(1)}, [{"day": day(30)}, *rows[1:]]),
        ({"from": day(400), "to": day(31)}, []),
        ({"from": "0001-01-01", "to": "9999-12-31"}, [{"day": day(30)}, *rows]),
        ({"to": "0001-01-02"}, []),
    ]:
        told = usage_of(alice, **params)["data"]
        assert sorted(row["day"] for row in told) == sorted(row["day"] for row in expected), params
        assert [row["day"] for row in told] == sorted((row["day"] for row in told), reverse=True)


NO_DAYS = [
    "",
    "today",
    "2026-1-1",
    "2026-02-30",
    "20261101",
    "2026-W01-1",
    "٢٠٢٦-١١-٠١",
    "2026-11-01T00:00:00Z",
]


@pytest.mark.parametrize("value", NO_DAYS)
@pytest.mark.parametrize("name", ["from", "to"])
def test_an_invalid_day_is_refused(alice, name, value):
    response = alice.request("GET", "/usage", params={name: value})
    assert response.status_code == 400
    [error] = response.json()["errors"]
    assert (error["detail"], error["source"]) == (
        "Give a day like 2026-11-25.",
        {"parameter": name},
    )


def test_a_first_day_after_the_last_is_refused(alice):
    response = alice.request("GET", "/usage", params={"from": "2026-11-02", "to": "2026-11-01"})
    assert (response.status_code, response.json()["errors"][0]["source"]) == (
        400,
        {"parameter": "from"},
    )


# What the provider did not count


def test_what_the_provider_did_not_count_is_estimated(someone, provider):
    """One token per four bytes sent or received. The estimate stands apart, and no turn includes it."""
    provider.script = [SILENT]
    session = someone.create("Fünf", system="Be brief.")  # 5 and 9 bytes are sent, 12 come
    assert counts_of(someone) == {"m-1": (1, 0, 0, 0, 7)}
    assert someone.turns(session)[1]["usage"] == {
        "input_tokens": None,
        "output_tokens": None,
        "cached_tokens": None,
    }
    provider.script = [SILENT]
    someone.post(
        f"/sessions/{session['id']}/messages", {"content": "And six"}
    )  # after them, 9 + 5 + 12 + 7 are sent, 12 come
    assert counts_of(someone) == {"m-1": (2, 0, 0, 0, 7 + 12)}
    assert usage_of(someone)["meta"]["used"] == 19


def test_only_the_uncounted_part_is_estimated(someone, provider):
    provider.script = [
        reply("Twelve bytes", usage=(15, None, None)),
        reply("Twelve bytes", usage=(None, 7, None)),
    ]
    someone.create("Eight by")
    assert counts_of(someone) == {"m-1": (1, 15, 0, 0, 3)}
    someone.create("Eight by")
    assert counts_of(someone) == {"m-1": (2, 15, 7, 0, 5)}


def test_thinking_is_estimated(someone, provider):
    provider.script = [reply(thought(reasoning="Four"), "Four", usage=(15, None, None))]
    someone.create()
    assert counts_of(someone) == {"m-1": (1, 15, 0, 0, 2)}


def test_a_refusal_by_the_provider_costs_nothing(someone, provider):
    refusals = [
        status(529, Retry_After_Ms=1),
        status(500, Retry_After_Ms=1),
        status(401),
        status(400, {"error": {"message": "context_length_exceeded"}}),
    ]
    for answers in ([refusals[0]] * 3, [refusals[1]] * 3, refusals[2:3], refusals[3:]):
        provider.script = [*answers]
        assert someone.post("/sessions", {"content": "Hello"}).status_code >= 400
    assert sum(counts[0] for counts in counts_of(someone).values()) == 4
    assert usage_of(someone)["meta"]["used"] == 0
    provider.script = [status(529, Retry_After_Ms=1), SILENT]
    someone.create("Eight by")
    assert usage_of(someone)["meta"]["used"] == 5


def test_a_call_that_breaks_is_counted_beside_the_one_that_continues_it(someone, provider):
    provider.script = [cut("Half "), reply("and half.")]
    session = someone.create("Eight by")
    assert someone.turns(session)[1]["continued"] == 1
    assert counts_of(someone) == {"m-1": (1, 15, 7, 3, 4)}  # 8 + 5 bytes
    assert someone.turns(session)[1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": 7,
        "cached_tokens": 3,
    }


def test_counts_do_not_fall_if_the_provider_corrects_them_down(start, settings, provider):
    """Otherwise a counter of /metrics would fall."""
    gate = threading.Event()
    counted = {"prompt_tokens": 100, "completion_tokens": 0}
    provider.script = [
        reply(event({"choices": [], "usage": counted}), "Twelve bytes", gate, usage=(10, 7, 0))
    ]
    server = start(**settings, METRICS_TOKEN=METRICS)
    alice = server.client()
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    wait_until(lambda: metrics_of(server).get(("parley_tokens_total", "input", "m-1")) == 100)
    gate.set()
    wait_for_status(alice, session, "complete")
    assert counts_of(alice) == {"m-1": (1, 100, 7, 0, 0)}


def test_a_placeholder_is_no_count(someone, provider):
    """Anthropic's message_start has 0 or 1 in place of the output tokens."""
    never = threading.Event()
    provider.script = [reply("Twelve bytes", never)]
    body = {"content": "Hello", "model": CLAUDE}
    session = someone.post("/sessions", body, Prefer="respond-async").json()
    with someone.events(session) as stream:
        assert next(iter(stream)).data == {"delta": "Twelve bytes"}
    assert someone.post(f"/sessions/{session['id']}/cancel").status_code == 200
    # Of the input tokens, 11 were new and 1 was written to the cache.
    wait_until(lambda: counts_of(someone) == {CLAUDE: (1, 15, 0, 3, 3)})
    assert someone.turns(session)[1]["usage"] == {
        "input_tokens": 15,
        "output_tokens": None,
        "cached_tokens": 3,
    }


def test_a_reply_cancelled_before_any_text_costs_its_input(someone, provider):
    never = threading.Event()
    provider.script = [silence(never)]
    session = someone.post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    provider.wait_for_request()
    assert someone.post(f"/sessions/{session['id']}/cancel").status_code == 200
    wait_until(lambda: counts_of(someone) == {"m-1": (1, 0, 0, 0, 2)})


def test_a_continued_reply_deleted_before_new_text_counts_as_interrupted(start, settings, provider):
    server = start(**settings, METRICS_TOKEN=METRICS)
    alice = server.client()
    turns = turns_of("Hello", "Half")
    turns[1] |= {"status": "interrupted", "model": "m-1"}
    session = imported(alice, turns=turns)
    provider.script = [silence(threading.Event())]
    path = f"/sessions/{session['id']}"
    alice.post(path + "/continue", Prefer="respond-async")
    provider.wait_for_request()
    alice.delete(path)
    counted = metrics_of(server)
    assert counted[("parley_replies_total", "interrupted", "m-1")] == 1
    assert counted[("parley_replies_total", "failed", "m-1")] == 0


@pytest.mark.parametrize("models", ["", "m-1"])
def test_a_model_name_that_an_import_made_up_is_not_in_the_metrics(
    start, settings, provider, models
):
    """If its reply is continued, the provider or this server refuses the name."""
    provider.script = [
        status(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    ]
    server = start(**settings, METRICS_TOKEN=METRICS, MODELS=models)
    alice = server.client()
    usage = {"input_tokens": 5, "output_tokens": 7, "cached_tokens": 0}
    turns = turns_of("Hello", "Half")
    turns[1] |= {"model": "made-up/1", "status": "interrupted", "usage": usage}
    session = imported(alice, turns=turns)
    assert alice.post(f"/sessions/{session['id']}/continue").status_code == 400
    measured = {name[-1] for name in metrics_of(server) if name[0] == "parley_replies_total"}
    assert measured == {"other"}


def test_a_reply_deleted_while_it_is_written_is_counted(someone, provider):
    never = threading.Event()
    provider.script = [reply("Twelve bytes", never)]
    session = someone.post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    with someone.events(session) as stream:
        next(iter(stream))
    assert someone.delete(f"/sessions/{session['id']}").status_code == 204
    wait_until(lambda: counts_of(someone) == {"m-1": (1, 0, 0, 0, 5)})


def test_a_models_titles_count_as_that_models_tokens(start, settings, provider):
    def answer(request):
        return (
            reply("A title", usage=(100, 5, 0))(request)
            if request.body["model"] == "m-2"
            else reply("The answer.")(request)
        )

    provider.default = answer
    alice = start(**settings, TITLE_MODEL="m-2").client()
    alice.create()
    wait_until(lambda: counts_of(alice) == {"m-1": (1, 15, 7, 3, 0), "m-2": (0, 100, 5, 0, 0)})
    provider.default = lambda request: SILENT(request)
    alice.create("Eight by")
    sent = -(-(len(TITLE_PROMPT) + 8 + 12) // 4)
    wait_until(lambda: counts_of(alice) == {"m-1": (2, 15, 7, 3, 5), "m-2": (0, 100, 5, 0, sent)})


def test_a_title_in_progress_when_the_server_stops_is_counted(start, settings, provider):
    def answer(request):
        is_title = request.body["model"] == "m-2"
        return reply("Eight by", threading.Event())(request) if is_title else reply("One.")(request)

    provider.default = answer
    server = start(**settings, TITLE_MODEL="m-2")
    server.client().create("Eight by")
    wait_until(lambda: any(request.body["model"] == "m-2" for request in provider.posts))
    assert server.stop() < 5
    sent = len(TITLE_PROMPT) + 8
    counts = counts_of(start(**settings).client())["m-2"]
    assert counts in [(0, 0, 0, 0, -(-(sent + read) // 4)) for read in (0, 8)]


def test_echo_is_estimated_too(start, new_database):
    alice = start(DATABASE_URL=new_database()).client()
    alice.create("Hello, Parley!")
    assert counts_of(alice) == {"echo": (1, 0, 0, 0, 7)}


def test_usage_counts_on_the_day_of_the_request(start, settings, provider, tables):
    """Also if the request continues an older turn."""
    alice = start(**settings).client()
    provider.script = [fails("Half ")]
    failed = alice.post("/sessions", {"content": "Hello"})
    path = failed.headers["Location"]
    tables.rows("UPDATE turn SET created_at = created_at - 3 * 86400000000")
    tables.rows("UPDATE session SET updated_at = updated_at - 3 * 86400000000")
    tables.rows("UPDATE usage SET day = ?", day(3))
    assert alice.post(path + "/continue").status_code == 201
    today, before = usage_of(alice)["data"]
    assert (today["day"], today["replies"], today["output_tokens"]) == (day(0), 1, 7)
    assert (before["day"], before["replies"], before["output_tokens"]) == (day(3), 1, 0)


@pytest.mark.parametrize("limit", [0, 2])
def test_what_a_dead_process_used_is_counted(start, provider, new_database, limit):
    """What its provider had reported was stored with the text. The rest is estimated from what is stored."""
    settings = {
        "DATABASE_URL": new_database(),
        "ANTHROPIC_BASE_URL": provider.url,
        "DEFAULT_MODEL": CLAUDE,
    }
    settings["CONTINUE_LIMIT"] = limit
    server = start(**settings)
    never = threading.Event()
    provider.script = [reply("Twelve bytes", never), reply("and more")]
    with server.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Twelve bytes"}
        server.kill()
    with tables_of(settings["DATABASE_URL"]) as tables:  # the dead process had the lease
        tables.rows("UPDATE turn SET lease_until = 1 WHERE status = 'in_progress'")
    alice = start(**settings).client()
    wait_for_status(alice, session, "complete" if limit else "interrupted", 30)
    said = (1, 30, 7, 6) if limit else (1, 15, 0, 3)
    assert counts_of(alice) == {CLAUDE: (*said, 3)}


@pytest.mark.parametrize("what", ["cancelled", "deleted"])
def test_a_reply_ended_before_a_takeover_is_counted(start, settings, provider, tables, what):
    writer, other = (start(**settings, WEB_CONCURRENCY=1) for _ in range(2))
    provider.script = [reply("Twelve bytes", threading.Event())]
    with writer.client().stream("POST", "/sessions", {"content": "Eight by"}) as stream:
        frames = iter(stream)
        session = next(frames).data
        assert next(frames).data == {"delta": "Twelve bytes"}
        writer.kill()
    tables.rows(
        "UPDATE turn SET lease_until = lease_until - 6000000 WHERE status = 'in_progress'"
    )  # as if six seconds ago
    alice, path = other.client(), f"/sessions/{session['id']}"
    assert (alice.post(path + "/cancel") if what == "cancelled" else alice.delete(path)).ok
    nothing, estimated = {"m-1": (1, 0, 0, 0, 0)}, {"m-1": (1, 0, 0, 0, 5)}
    # A look of the other process, once a second, may have come first. Then it counts once it has hung up.
    wait_until(lambda: counts_of(alice) != nothing)
    assert counts_of(alice) == estimated or len(provider.posts) == 2


def test_a_reply_continued_right_after_another_process_cancelled_it_is_counted(
    start, settings, provider
):
    writer, other = (start(**settings, WEB_CONCURRENCY=1) for _ in range(2))
    provider.script = [reply("Twelve bytes", threading.Event()), reply(" and more")]
    session = (
        writer.client().post("/sessions", {"content": "Eight by"}, Prefer="respond-async").json()
    )
    alice, path = other.client(), f"/sessions/{session['id']}"
    with alice.events(session) as stream:
        next(iter(stream))
    assert alice.post(path + "/cancel").status_code == 200
    assert alice.post(path + "/continue").status_code == 201
    writer.wait_for_output("outcome=")  # the writer's; it may have been faster
    assert counts_of(alice) == {"m-1": (2, 15, 7, 3, 5)}


def test_a_model_name_that_no_provider_knows_is_not_in_the_ledger(someone, provider):
    """Any user may send any name."""
    provider.script = [status(404, {"error": {"message": "no such model"}})] * 2
    for number in range(2):
        assert (
            someone.post(
                "/sessions", {"content": "Hello", "model": f"my-secret-{number}"}
            ).status_code
            == 400
        )
    assert counts_of(someone) == {"other": (2, 0, 0, 0, 0)}
