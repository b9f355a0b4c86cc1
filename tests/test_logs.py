"""The log: one line a request, one a reply, and nothing that is secret or was said."""

import json
import re

import pytest

from provider import cut, reply


@pytest.fixture
def settings(provider):
    return {"OPENAI_BASE_URL": provider.url + "/v1", "OPENAI_API_KEY": "key-of-openai", "DEFAULT_MODEL": "m-1"}


def lines_of(output, message):
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in found if line["message"] == message]


def test_says_what_became_of_requests_and_replies(start, settings, provider):
    server = start(**settings, LOG_FORMAT="json")
    alice = server.client()
    provider.script = [reply("Some text."), cut("Half")]
    session = alice.post("/sessions", {"content": "Hello"}, X_Request_ID="my-id")
    assert session.headers["X-Request-ID"] == "my-id"
    failed = alice.post("/sessions", {"content": "Hello"}, X_Request_ID='forged" id=1')
    made = failed.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    missing = alice.request("GET", "/nowhere", Authorization=None).headers["X-Request-ID"]
    for name in ("my-id", made, missing):  # each line is written behind its response, by either process
        server.wait_for_output(name)
    output = server.wait_for_output('"reply"', 2)
    requests = {line["id"]: line for line in lines_of(output, "request") if line["path"] != "/health"}
    assert set(requests) == {"my-id", made, missing}
    first, second, third = (requests[name] for name in ("my-id", made, missing))
    assert 0 < first.pop("seconds") < 60 and first.pop("time") and first.pop("level") == "INFO"
    assert first == {
        "message": "request",
        "method": "POST",
        "path": "/sessions",
        "status": 201,
        "user": "https://github.com/alice",
        "id": "my-id",
    }
    assert second["status"] == 502
    assert (third["status"], third["user"]) == (404, None)
    first, second = sorted(lines_of(output, "reply"), key=lambda line: line["outcome"])
    assert 0 <= first.pop("first_word") <= first.pop("seconds") < 60 and first.pop("time") and first.pop("level")
    assert first == {
        "message": "reply",
        "session": session.json()["id"],
        "model": "m-1",
        "outcome": "complete",
        "status": None,
        "input_tokens": 15,
        "output_tokens": 7,
        "cached_tokens": 3,
        "provider_id": "req_1",
    }
    assert (second["outcome"], second["status"]) == ("failed", 502)


def test_has_a_line_for_each_file_of_the_page(start):
    server = start()
    paths = ["/", "/static/page.css", "/static/page.js"]
    for path in paths:
        assert server.client().get(path, Accept="text/html,*/*;q=0.8").status_code == 200
    for path in paths:
        assert server.wait_for_output(f"path={path} ").count(f"path={path} ") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_shows_no_content_and_no_secret(start, settings, provider, form):
    server = start(**settings, LOG_FORMAT=form)
    alice = server.client()
    provider.script = [reply("The answer is classified."), cut("Half of it is classified.")]
    session = alice.post("/sessions", {"content": "A classified question", "system": "classified"})
    alice.post("/sessions", {"content": "A classified question"})
    alice.patch(f"/sessions/{session.json()['id']}", {"title": "classified"})
    alice.get("/sessions?query=classified")
    alice.get("/sessions", Authorization="Bearer classified")
    server.wait_for_output("outcome", 2)
    output = server.wait_for_output("/sessions", 5)
    for secret in ("classified", "key-of-openai", alice.token, alice.token.rpartition(".")[2]):
        assert secret not in output


def test_keeps_a_line_a_line(start, provider):
    server = start()
    server.client('https://github.com/x\n2026 INFO forged user="root"').get("/sessions")
    [line] = [line for line in server.wait_for_output("forged").splitlines() if "forged" in line]
    assert '\\n2026 INFO forged user=\\"root\\"' in line
