"""The server's answers are as the API description says."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import jsonschema
import pytest
from werkzeug.exceptions import RequestTimeout

from api.events import EVENTS
from client import BOB, wait_for_status, wait_until
from described import ONE, SEED, operations, resolve
from pictures import png
from provider import fails, reply, silence, status, thought
from raw_http import Answer
from servers import running
from serving.refusals import refusal

OPTIONS = {
    "temperature": 0.5,
    "max_tokens": 100,
    "reasoning_effort": "low",
    "top_p": 0.9,
    "seed": 7,
    "stop": ["END"],
}


# The server's real answers


# Not the service's own: headers about the connection, the body or files, and those for browsers only.
HEADERS_OF_HTTP = {
    *("Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "ETag"),
    *("Referrer-Policy", "Server", "Transfer-Encoding", "Vary", "X-Content-Type-Options"),
}


class Watch:
    """Compares real answers with their description, and remembers which answers it has seen."""

    def __init__(self, document):
        self.document = document
        self.answers = set()
        self.events = set()

    def see(self, route, response):
        """Check an answer with JSON, or with an empty body."""
        schema = self._answer(route, response.status_code, response.headers)
        if schema is None:
            assert response.content == b""
        else:
            self._validate(schema, response.json())
        return response

    def see_text(self, route, response):
        self._validate(self._answer(route, response.status_code, response.headers), response.text)

    def see_stream(self, route, stream, thinking=None):
        """Read a stream to its end, and check it; returns its events. `thinking` is set when such an event has come."""
        body = resolve(self.document, self._answer(route, stream.status, stream.headers))
        assert (body["type"], body["contentMediaType"]) == ("string", "text/event-stream")
        events = []
        for event in stream:
            events.append(event)
            if event.name == "thinking":
                thinking.set()
            self._validate(
                body["contentSchema"], [{"id": event.id, "event": event.name, "data": event.data}]
            )
            self.events.add(event.name)
        return events

    def _answer(self, route, status, headers):
        self.answers.add((route, str(status)))
        answers = operations(self.document)[route]["responses"]
        assert str(status) in answers, f"{route} gave {status}"
        answer = resolve(self.document, answers[str(status)])
        for name, header in answer["headers"].items():
            assert name in headers or not header["required"], (
                f"{route} gave {status} without {name}"
            )
            if name in headers:
                is_number = header["schema"].get("type") == "integer"
                self._validate(header["schema"], int(headers[name]) if is_number else headers[name])
        unknown = set(headers) - answer["headers"].keys() - HEADERS_OF_HTTP
        assert not unknown, f"{route} gave {status} with {unknown}"
        if "content" not in answer:
            return None
        schemas = {
            media_type.partition(";")[0]: content["schema"]
            for media_type, content in answer["content"].items()
        }
        return schemas[headers["Content-Type"].partition(";")[0]]

    def _validate(self, schema, value):
        schema = schema | {"components": self.document["components"]}
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
            value
        )


def test_every_successful_answer_is_as_described(someone, provider, document, start, settings):
    watch = Watch(document)
    session = watch.see("POST /sessions", someone.post("/sessions", SEED)).json()
    path = f"/sessions/{session['id']}"
    asked = [("messages", {"content": "And?"}), ("retry", None), ("retry", {"content": "Or?"})]
    for name, body in asked:
        watch.see(
            f"POST {ONE}/{name}",
            someone.post(
                f"{path}/{name}", body, Idempotency_Key=f"{name} {body}", X_Request_ID="r-1"
            ),
        )
        with someone.stream("POST", f"{path}/{name}", body) as stream:
            watch.see_stream(f"POST {ONE}/{name}", stream)
        gate = threading.Event()
        provider.script = [reply("Some ", gate, "text.")]
        watch.see(
            f"POST {ONE}/{name}", someone.post(f"{path}/{name}", body, Prefer="respond-async")
        )
        wait_until(lambda: not provider.script)  # else the cancelled reply may take the next one
        watch.see(f"GET {ONE}", someone.get(path))
        watch.see(f"POST {ONE}/cancel", someone.post(path + "/cancel"))
    gate = threading.Event()
    provider.script = [
        status(429, {}, Retry_After=2),
        reply(thought(reasoning="Hm."), gate, "Hello."),
    ]
    with someone.stream("POST", "/sessions", {"content": "Hello", "options": OPTIONS}) as stream:
        created, *_, thoughtful, _ = watch.see_stream("POST /sessions", stream, gate)
    watch.see(
        f"GET {ONE}/turns/{{turn}}/thinking",
        someone.get(f"/sessions/{created.data['id']}/turns/{thoughtful.data['id']}/thinking"),
    )
    watch.see(
        f"GET {ONE}/turns/{{turn}}/versions",
        someone.get(f"{path}/turns/{someone.turns(session)[-1]['id']}/versions"),
    )
    with someone.events(session) as stream:
        events = watch.see_stream(f"GET {ONE}/events", stream)
    watch.see(f"GET {ONE}/events", someone.get(path + "/events", Last_Event_ID=events[-1].id))
    for way in ("at once", "as a stream", "later"):
        provider.script = [fails("Some ")]
        with someone.stream("POST", path + "/messages", {"content": "And?"}) as stream:
            watch.see_stream(f"POST {ONE}/messages", stream)
        watch.see(f"GET {ONE}", someone.get(path))
        if way == "as a stream":
            with someone.stream("POST", path + "/continue") as stream:
                watch.see_stream(f"POST {ONE}/continue", stream)
        else:
            prefer = "respond-async" if way == "later" else None
            watch.see(
                f"POST {ONE}/continue",
                someone.post(path + "/continue", Prefer=prefer, Idempotency_Key=way),
            )
    wait_for_status(someone, session, "complete")
    watch.see(
        "GET /sessions",
        someone.request("GET", "/sessions?page[limit]=1&page[offset]=0&query=redis"),
    )
    watch.see(
        f"PATCH {ONE}",
        someone.patch(path, {"title": "Mine", "model": "m-2", "system": None, "options": OPTIONS}),
    )
    watch.see(f"GET {ONE}", someone.get(path + "?turns[limit]=2"))
    watch.see_text(f"GET {ONE}", someone.get(path, Accept="text/markdown"))
    watch.see(f"POST {ONE}/fork", someone.post(path + "/fork"))
    exported = someone.get("/export")
    watch.see_text("GET /export", exported)
    line = json.loads(exported.text.splitlines()[0]) | {"origin": "elsewhere:1"}
    for _ in range(2):
        watch.see("POST /sessions/import", someone.post("/sessions/import", line))
    for _ in range(2):
        uploaded = someone.upload(png(8, 8))
        watch.see("POST /files", uploaded)
    watch.see_text("GET /files/{file}", someone.get(uploaded.headers["Location"]))
    watch.see(f"DELETE {ONE}", someone.delete(path))
    for place in ("/models", "/me", "/usage", "/health", "/openapi.json", "/"):
        watch.see("GET " + place, someone.get(place))
    metered = start(**settings, METRICS_TOKEN="of-the-metrics-alone").client()
    watch.see_text(
        "GET /metrics", metered.get("/metrics", Authorization="Bearer of-the-metrics-alone")
    )
    succeeding = {
        (route, code)
        for route, operation in operations(document).items()
        for code in operation["responses"]
        if code.startswith("2")
    }
    assert watch.answers == succeeding
    assert watch.events == {kind.name for kind in EVENTS}


def test_every_error_is_as_described(alice, provider, document, start):
    watch = Watch(document)
    few = {"WEB_CONCURRENCY": 1, "GUNICORN_CMD_ARGS": "--threads 8"}
    strict = start(ALLOWED_USERS="bob", RATE_LIMIT="1/minute", MAX_CONTENT_LENGTH=200, **few)
    impatient = start(OPENAI_BASE_URL=provider.url + "/v1", MODEL_TIMEOUT=0.5, **few).client()
    session = alice.create()
    path = f"/sessions/{session['id']}"
    message, messages = {"content": "And?"}, f"POST {ONE}/messages"
    watch.see("POST /sessions", alice.post("/sessions", {"model": 1, "colour": "red"}))
    watch.see("GET /sessions", alice.get("/sessions?page[limit]=many"))
    watch.see(f"GET {ONE}", alice.get(path + "?turns[limit]=many"))
    watch.see("GET /models", alice.get("/models", Authorization=None))
    watch.see("GET /models", alice.get("/models", Authorization="Bearer nonsense"))
    watch.see("GET /me", alice.get("/me", Authorization=None))
    watch.see("GET /me", alice.get("/me", For_Subject=BOB))
    watch.see(f"GET {ONE}", strict.client().get(path))
    watch.see(f"GET {ONE}", alice.get("/sessions/a1b2c3d4-e5f6-7890-abcd-ef1234567890"))
    watch.see("GET /health", alice.get("/health", Accept="image/png"))
    watch.see(f"PATCH {ONE}", alice.request("PATCH", path, Content_Type="text/plain"))
    watch.see(f"POST {ONE}/cancel", alice.post(path + "/cancel"))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", {"content": "x" * 200}))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", message))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", message))
    # A request that is half sent times out after half a minute: tests/heavy waits for that.
    watch.see("GET /health", Answer(refusal(RequestTimeout())))
    watch.see(messages, alice.post(path + "/messages", message, Idempotency_Key="k"))
    watch.see(messages, alice.post(path + "/messages", {"content": "Or?"}, Idempotency_Key="k"))
    provider.script = [reply("Some ", threading.Event())]
    watch.see(messages, alice.post(path + "/messages", message, Prefer="respond-async"))
    watch.see(f"POST {ONE}/retry", alice.post(path + "/retry"))
    watch.see(f"POST {ONE}/continue", alice.post(path + "/continue"))
    watch.see(f"POST {ONE}/cancel", alice.post(path + "/cancel"))
    for failure in (status(404, {"error": {"message": "no such model"}}), fails("Some ")):
        provider.script = [failure]
        watch.see("POST /sessions", alice.post("/sessions", message))
    provider.script = [silence(10)]
    watch.see("POST /sessions", impatient.post("/sessions", message | {"model": "m-1"}))
    provider.script = [status(529, Retry_After_Ms=1)] * 3
    watch.see(f"POST {ONE}/retry", alice.post(path + "/retry"))
    described = {
        code for operation in operations(document).values() for code in operation["responses"]
    }
    assert {code for _, code in watch.answers if code >= "400"} == {
        code for code in described if code >= "400"
    }


def test_the_sign_in_options_of_a_401_are_as_described(issuer, tmp_path):
    with running(tmp_path, **issuer.settings) as server:
        stranger = server.client()
        watch = Watch(stranger.get("/openapi.json").json())
        watch.see("GET /me", stranger.get("/me", Authorization=None))
        watch.see("GET /me", stranger.get("/me?anonymous=1", Authorization=None))
        watch.see("GET /me", stranger.get("/me", Authorization=f"Bearer {issuer.token()}"))
        issuer.close()
    with running(tmp_path, **issuer.settings) as server:
        watch.see("GET /me", server.client().get("/me", Authorization=None))


# Standard tools


def frame(event):
    """The schema of an event before its data is parsed."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": event["properties"]["data"],
    }
    return event | {"properties": event["properties"] | {"data": data}}


# Schemathesis takes long, and finds text that cannot be stored only on PostgreSQL, the stricter
# database. So it tries everything there: even the limits in the description, which test_schemas.py
# tests for both.
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")
THOROUGHNESS = (
    ("--max-examples", "12")
    if POSTGRESQL
    else ("--max-examples", "6", "--phases", "examples,fuzzing,stateful")
)


@pytest.mark.parametrize("engine", ["postgresql" if POSTGRESQL else "sqlite"], indirect=True)
def test_schemathesis_finds_no_fault(someone, provider, tmp_path):
    # A key sent again with another body is refused, as it should be. The tool cannot know that.
    (tmp_path / "schemathesis.toml").write_text(
        """[checks.positive_data_acceptance]
        expected-statuses = ["2xx", "404", "409", "422"]
        [[operations]]  # files that nobody has uploaded
        include-path-regex = "^/sessions(/{id}/(messages|retry))?$"
        [operations.checks.positive_data_acceptance]
        expected-statuses = ["2xx", "400", "404", "409", "422"]
        [[operations]]
        include-path = "/metrics"  # nobody is told that there are any
        [operations.checks.missing_required_header]
        enabled = false
        [[operations]]
        include-path = "/usage"  # where the first day is behind the last one
        [operations.checks.positive_data_acceptance]
        expected-statuses = ["2xx", "400"]
        [[operations]]
        include-path = "/sessions/import"  # times of before 1970, or that lie in the future
        [operations.checks.positive_data_acceptance]
        expected-statuses = ["2xx", "400"]"""
    )
    described = someone.get(
        "/openapi.json"
    ).json()  # this app has no MAX_TOKENS, which depends on the server
    named = described["components"]["schemas"]
    named["Options"]["properties"]["max_tokens"]["maximum"] = 16384
    for operation in operations(described).values():  # nor the limit on the request line
        operation["responses"]["414"] = {"description": "Too long."}
    # The tool applies the schema of a stream to each of its events.
    named["EventStream"] = {
        "oneOf": [frame(resolve(described, event)) for event in named["Event"]["oneOf"]]
    }
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    command = [
        str(pathlib.Path(sys.executable).with_name("schemathesis")),
        *("run", "openapi.json", "--url", someone.url),
        *("--header", f"Authorization: Bearer {someone.token}"),
        *THOROUGHNESS,
        *("--generation-deterministic", "--no-color"),
        *("--report", "json", "--report-json-path", "report.json"),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["complete"] and report["test_cases"]["generated"] > (300 if POSTGRESQL else 150)
