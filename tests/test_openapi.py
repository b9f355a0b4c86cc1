"""The description of the API: what it says is what the server does, and stock tools understand it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.parse

import jsonschema
import openapi_spec_validator
import pytest
import requests
from werkzeug.exceptions import RequestTimeout

from app import create_app
from client import BOB, SECRET, make_token, npm_folder, wait_for_status
from openapi import __main__ as tool
from provider import fails, reply, silence, status, thought
from serving.refusals import refusal
from test_errors import Answer

ONE = "/sessions/{session_id}"
OPTIONS = {"temperature": 0.5, "max_tokens": 100, "reasoning_effort": "low"}

SEED = {
    "content": "Add rate limiting to the auth endpoints using a sliding window approach with Redis, 10 requests per "
    "minute per IP.",
    "model": "claude-opus-4-6",
    "system": "You are a helpful coding assistant.",
}
SEED_ANSWER = {
    "id": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    "title": "Add rate limiting to auth endpoints",
    "model": {"id": "claude-opus-4-6"},
    "created_at": "2026-03-06T16:00:00Z",
    "updated_at": "2026-03-06T16:00:00Z",
}
SEED_WORDS = [
    "Start a new interactive chat session. The initial user prompt is required; a model may optionally be specified.",
    "JWT bearer token issued by fabro-web. See the Authentication guide for details.",
    "Request body for starting a new session.",
    "The initial user message to start the session.",
    "LLM model to use. If omitted, the server default is used.",
    "System prompt for the session.",
    "Session created",
    "Response returned after successfully creating a session.",
    "Unique identifier for the newly created session.",
    "Server-generated title for the session.",
    "Reference to a model by its identifier.",
    "Timestamp when the session was created.",
    "Timestamp when the session was last updated (equal to created_at at creation time)",
]


@pytest.fixture(scope="module")
def document(server):
    response = requests.get(server.url + "/openapi.json", timeout=10)
    assert response.status_code == 200
    return response.json()


@pytest.fixture
def app(tmp_path):
    return create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/routes.db", "JWT_SECRET": SECRET})


def resolve(document, part):
    while "$ref" in part:
        target = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        part = target
    return part


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


ROUTES = {
    "POST /sessions": "create_session",
    "GET /sessions": "list_sessions",
    "GET /sessions/{session_id}": "show_session",
    "PATCH /sessions/{session_id}": "change_session",
    "DELETE /sessions/{session_id}": "delete_session",
    "POST /sessions/{session_id}/messages": "add_message",
    "POST /sessions/{session_id}/retry": "retry_reply",
    "POST /sessions/{session_id}/continue": "continue_reply",
    "POST /sessions/{session_id}/cancel": "cancel_reply",
    "GET /sessions/{session_id}/events": "follow_events",
    "GET /models": "list_models",
    "GET /usage": "show_usage",
    "GET /metrics": "show_metrics",
    "GET /health": "show_health",
    "GET /openapi.json": "show_openapi",
    "GET /": "show_index",
}


def test_describes_the_routes_that_there_are_and_no_others(document):
    assert {
        route: operation["operationId"] for route, operation in operations(document).items()
    } == ROUTES
    assert tool.OPERATIONS.keys() == set(ROUTES.values())


def test_the_file_is_what_routes_and_schemas_make(app):
    assert tool.FILE.read_text("utf-8") == tool.text(app), (
        "static/openapi.json is not up to date: run `python tests/openapi`"
    )


def test_a_route_cannot_be_left_out(app):
    app.add_url_rule("/odd", "show_odd", lambda: "")
    with pytest.raises(KeyError, match="show_odd"):
        tool.document(app)


def test_says_of_each_operation_what_it_does(document):
    summaries = [operation["summary"] for operation in operations(document).values()]
    assert "Start a session" in summaries
    assert len(set(summaries)) == len(summaries)


def test_is_valid_openapi(document):
    assert document["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(document)


def parts(value):
    """All objects of a document or a part of it."""
    if isinstance(value, dict):
        yield value
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from parts(part)


def test_is_as_generators_and_linters_want_it(document):
    for route, operation in operations(document).items():
        assert operation["description"] and set(operation["tags"]) <= {
            tag["name"] for tag in document["tags"]
        }, route
    objects = list(parts(document))
    assert [part for part in objects if "allOf" in part or "readOnly" in part] == []
    named = document["components"]["schemas"]
    assert [
        part for part in objects if part.get("type") == "object" and part not in named.values()
    ] == []
    described = [*named.values(), *document["components"]["responses"].values(), *document["tags"]]
    described += [
        part for part in objects if "schema" in part and "required" in part
    ]  # parameters and headers
    assert [part for part in described if not part.get("description")] == []


def test_only_an_operation_that_does_nothing_else_is_described_as_a_stream(document):
    # Of others @hey-api/openapi-ts would make functions that find no event in JSON, and say nothing. A charset prevents it.
    answers = {
        (route, media_type)
        for route, operation in operations(document).items()
        for answer in operation["responses"].values()
        for media_type in resolve(document, answer).get("content", {})
    }
    assert {route for route, media_type in answers if media_type == "text/event-stream"} == {
        f"GET {ONE}/events"
    }
    asking = {"POST /sessions", f"POST {ONE}/messages", f"POST {ONE}/retry", f"POST {ONE}/continue"}
    assert {
        route for route, media_type in answers if media_type == "text/event-stream; charset=utf-8"
    } == asking


def test_the_server_is_where_the_document_is(document):
    (server,) = document["servers"]
    for prefix in ("", "/chat/v1"):
        place = urllib.parse.urljoin(f"https://example.com{prefix}/openapi.json", server["url"])
        assert place.removesuffix("/") == f"https://example.com{prefix}"


def test_is_what_the_index_points_to(alice, document):
    url = requests.get(alice.url + "/", timeout=10).json()["urls"]["openapi_url"]
    assert alice.get(url, Authorization=None).json() == document
    assert document["info"]["version"] == alice.get("/health").json()["version"]


def test_only_the_public_operations_need_no_token(document):
    assert document["security"] == [{"token": []}]
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    public = {
        route
        for route, operation in operations(document).items()
        if operation.get("security") == []
    }
    assert public == {"GET /", "GET /health", "GET /openapi.json"}
    assert operations(document)["GET /metrics"]["security"] == [{"metrics_token": []}]
    refusing = {
        route
        for route, operation in operations(document).items()
        if "401" in operation["responses"]
    }
    assert refusing == set(operations(document)) - public - {"GET /metrics"}


def test_has_the_words_and_the_examples_of_the_seed(document):
    def example(schema):
        schema = resolve(document, schema)
        if schema["type"] == "object":
            properties = (
                (name, part) for name, part in schema["properties"].items() if name != "options"
            )  # no word of the seed
            return {name: example(part) for name, part in properties}
        return schema["examples"][0]

    text = json.dumps(document)
    assert [words for words in SEED_WORDS if words not in text] == []
    operation = operations(document)["POST /sessions"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert example(body) == SEED
    answer = operation["responses"]["201"]["content"]["application/json"]["schema"]
    assert example(answer) == SEED_ANSWER


def test_names_the_headers_and_the_limits_of_a_request(document):
    def names(route):
        return {
            resolve(document, parameter)["name"]
            for parameter in operations(document)[route]["parameters"]
        }

    assert names("GET /sessions") == {"page[limit]", "page[offset]", "query", "X-Request-ID"}
    assert names("GET /sessions/{session_id}") == {
        "session_id",
        "turns[limit]",
        "turns[before]",
        "X-Request-ID",
    }
    assert names("POST /sessions") == {"Idempotency-Key", "Prefer", "X-Request-ID"}
    assert names("POST /sessions/{session_id}/retry") == {
        "session_id",
        "Idempotency-Key",
        "Prefer",
        "X-Request-ID",
    }
    assert names("POST /sessions/{session_id}/continue") == {
        "session_id",
        "Idempotency-Key",
        "Prefer",
        "X-Request-ID",
    }
    assert names("GET /sessions/{session_id}/events") == {
        "session_id",
        "Last-Event-ID",
        "X-Request-ID",
    }
    assert (
        document["components"]["schemas"]["NewSession"]["properties"]["model"]["maxLength"] == 200
    )
    assert document["components"]["parameters"]["Idempotency-Key"]["schema"]["maxLength"] == 255


# What the server really answers


# What is none of the service's own: headers of connections, bodies and files, and those that only browsers heed.
HEADERS_OF_HTTP = {
    *(
        "Accept-Ranges",
        "Connection",
        "Content-Disposition",
        "Content-Length",
        "Content-Type",
        "Date",
        "ETag",
        "Last-Modified",
    ),
    *("Referrer-Policy", "Server", "Transfer-Encoding", "Vary", "X-Content-Type-Options"),
}


class Watch:
    """Holds real answers against their description, and remembers which it has seen."""

    def __init__(self, document):
        self.document = document
        self.answers = set()
        self.events = set()

    def see(self, route, response):
        """An answer with JSON, or with nothing."""
        schema = self._answer(route, response.status_code, response.headers)
        if schema is None:
            assert response.content == b""
        else:
            self._validate(schema, response.json())
        return response

    def see_text(self, route, response):
        self._validate(self._answer(route, response.status_code, response.headers), response.text)

    def see_stream(self, route, stream, thinking=None):
        """A stream, which is read to its end; returns its events. `thinking` is set where one of these has come."""
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


def test_every_answer_that_succeeds_is_as_described(alice, provider, document, start, settings):
    watch = Watch(document)
    session = watch.see("POST /sessions", alice.post("/sessions", SEED)).json()
    path = f"/sessions/{session['id']}"
    asked = [("messages", {"content": "And?"}), ("retry", None), ("retry", {"content": "Or?"})]
    for name, body in asked:
        watch.see(
            f"POST {ONE}/{name}",
            alice.post(
                f"{path}/{name}", body, Idempotency_Key=f"{name} {body}", X_Request_ID="r-1"
            ),
        )
        with alice.stream("POST", f"{path}/{name}", body) as stream:
            watch.see_stream(f"POST {ONE}/{name}", stream)
        gate = threading.Event()
        provider.script = [reply("Some ", gate, "text.")]
        watch.see(f"POST {ONE}/{name}", alice.post(f"{path}/{name}", body, Prefer="respond-async"))
        watch.see(f"GET {ONE}", alice.get(path))
        watch.see(f"POST {ONE}/cancel", alice.post(path + "/cancel"))
    provider.script = [reply(thought(reasoning="Hm."), gate := threading.Event(), "Hello.")]
    with alice.stream("POST", "/sessions", {"content": "Hello", "options": OPTIONS}) as stream:
        watch.see_stream("POST /sessions", stream, gate)
    with alice.events(session) as stream:
        events = watch.see_stream(f"GET {ONE}/events", stream)
    watch.see(f"GET {ONE}/events", alice.get(path + "/events", Last_Event_ID=events[-1].id))
    for way in ("at once", "as a stream", "later"):
        provider.script = [fails("Some ")]
        with alice.stream("POST", path + "/messages", {"content": "And?"}) as stream:
            watch.see_stream(f"POST {ONE}/messages", stream)
        watch.see(f"GET {ONE}", alice.get(path))
        if way == "as a stream":
            with alice.stream("POST", path + "/continue") as stream:
                watch.see_stream(f"POST {ONE}/continue", stream)
        else:
            prefer = "respond-async" if way == "later" else None
            watch.see(
                f"POST {ONE}/continue",
                alice.post(path + "/continue", Prefer=prefer, Idempotency_Key=way),
            )
    wait_for_status(alice, session, "complete")
    watch.see(
        "GET /sessions", alice.request("GET", "/sessions?page[limit]=1&page[offset]=0&query=redis")
    )
    watch.see(
        f"PATCH {ONE}",
        alice.patch(path, {"title": "Mine", "model": "m-2", "system": None, "options": OPTIONS}),
    )
    watch.see(f"GET {ONE}", alice.get(path + "?turns[limit]=2"))
    watch.see(f"DELETE {ONE}", alice.delete(path))
    for place in ("/models", "/usage", "/health", "/openapi.json", "/"):
        watch.see("GET " + place, alice.get(place))
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
    assert watch.events == {
        "session",
        "thinking",
        "content_delta",
        "assistant_turn",
        "done",
        "error",
    }


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # it waits for a model's silence, and no error is of one engine
def test_every_error_is_as_described(alice, provider, document, start):
    watch = Watch(document)
    few = {"WEB_CONCURRENCY": 1, "GUNICORN_CMD_ARGS": "--threads 8"}
    strict = start(ALLOWED_USERS="bob", RATE_LIMIT="1/minute", MAX_CONTENT_LENGTH=200, **few)
    session = alice.create()
    path = f"/sessions/{session['id']}"
    message, messages = {"content": "And?"}, f"POST {ONE}/messages"
    watch.see("POST /sessions", alice.post("/sessions", {"model": 1, "colour": "red"}))
    watch.see("GET /sessions", alice.get("/sessions?page[limit]=many"))
    watch.see(f"GET {ONE}", alice.get(path + "?turns[limit]=many"))
    watch.see("GET /models", alice.get("/models", Authorization=None))
    watch.see("GET /models", alice.get("/models", Authorization="Bearer nonsense"))
    watch.see(f"GET {ONE}", strict.client().get(path))
    watch.see(f"GET {ONE}", alice.get("/sessions/a1b2c3d4-e5f6-7890-abcd-ef1234567890"))
    watch.see("GET /health", alice.get("/health", Accept="image/png"))
    watch.see(f"PATCH {ONE}", alice.request("PATCH", path, Content_Type="text/plain"))
    watch.see(f"POST {ONE}/cancel", alice.post(path + "/cancel"))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", {"content": "x" * 200}))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", message))
    watch.see("POST /sessions", strict.client(BOB).post("/sessions", message))
    # A request that is half sent has half a minute: tests/heavy waits for that.
    watch.see("GET /health", Answer(refusal(RequestTimeout())))
    watch.see(messages, alice.post(path + "/messages", message, Idempotency_Key="k"))
    watch.see(messages, alice.post(path + "/messages", {"content": "Or?"}, Idempotency_Key="k"))
    provider.script = [reply("Some ", threading.Event())]
    watch.see(messages, alice.post(path + "/messages", message, Prefer="respond-async"))
    watch.see(f"POST {ONE}/retry", alice.post(path + "/retry"))
    watch.see(f"POST {ONE}/continue", alice.post(path + "/continue"))
    watch.see(f"POST {ONE}/cancel", alice.post(path + "/cancel"))
    for failure in (
        status(404, {"error": {"message": "no such model"}}),
        fails("Some "),
        silence(10),
    ):
        provider.script = [failure]
        watch.see("POST /sessions", alice.post("/sessions", message))
    provider.script = [status(529)] * 3
    watch.see(f"POST {ONE}/retry", alice.post(path + "/retry"))
    described = {
        code for operation in operations(document).values() for code in operation["responses"]
    }
    assert {code for _, code in watch.answers if code >= "400"} == {
        code for code in described if code >= "400"
    }


# Stock tools


def frame(event):
    """The schema of an event before its data is parsed."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": event["properties"]["data"],
    }
    return event | {"properties": event["properties"] | {"data": data}}


# It takes long, and finds what a database does not store on the stricter one.
@pytest.mark.parametrize(
    "engine", ["postgresql" if os.environ.get("TEST_DATABASE_URL") else "sqlite"], indirect=True
)
def test_schemathesis_finds_no_fault(alice, provider, tmp_path):
    # A key that comes again with another body is refused as it should be, which the tool cannot know.
    (tmp_path / "schemathesis.toml").write_text(
        """[checks.positive_data_acceptance]
        expected-statuses = ["2xx", "404", "409", "422"]
        [[operations]]
        include-path = "/metrics"  # nobody is told that there are any
        [operations.checks.missing_required_header]
        enabled = false
        [[operations]]
        include-path = "/usage"  # where the first day is behind the last one
        [operations.checks.positive_data_acceptance]
        expected-statuses = ["2xx", "400"]"""
    )
    described = alice.get(
        "/openapi.json"
    ).json()  # which knows no MAX_TOKENS: that is the server's own
    named = described["components"]["schemas"]
    named["Options"]["properties"]["max_tokens"]["maximum"] = 8192
    for operation in operations(described).values():  # nor how long a request line may be
        operation["responses"]["414"] = {"description": "Too long."}
    # The tool takes the schema of a stream for that of each of its events.
    named["EventStream"] = {
        "oneOf": [frame(resolve(described, event)) for event in named["Event"]["oneOf"]]
    }
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    command = [
        str(pathlib.Path(sys.executable).with_name("schemathesis")),
        *("run", "openapi.json", "--url", alice.url),
        *("--header", "Authorization: Bearer " + make_token()),
        *("--max-examples", "12", "--generation-deterministic", "--no-color"),
        *("--report", "json", "--report-json-path", "report.json"),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["complete"] and report["test_cases"]["generated"] > 300


# Generated clients, in TypeScript and in Python, which do the same and tell the same


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def script(provider):
    """What the provider answers to such a client."""
    unended = threading.Event()
    provider.script = [
        reply("The answer."),
        reply("Two\u2028", "lines."),
        reply("Half ", unended, "whole."),
        reply("done."),
        reply("Changed."),
        fails("Some "),
        fails("Some "),
    ]


TOLD = {
    "created": ["Hello", True, True],
    "streamed": {
        "events": ["content_delta", "assistant_turn", "done"],
        "text": "Two\u2028lines.",
        "end": "complete",
    },
    "deferred": {"accepted": True},
    "cancelled": "m-1 (interrupted): Half ",
    "resumed": {"events": ["assistant_turn", "done"], "text": "", "end": "interrupted"},
    "continued": ["m-1 (complete): Half done.", 1, "stop", 7],
    "retried": "m-1 (complete): Changed.",
    "failed": {"status": 502, "title": "Bad Gateway", "source": None, "kept": True},
    "failing": {"events": ["content_delta", "error"], "text": "Some ", "end": 502},
    "turns": [
        "user: Hello",
        "m-1 (complete): The answer.",
        "user: As a stream?",
        "m-1 (complete): Two\u2028lines.",
        "user: Changed?",
        "m-1 (complete): Changed.",
        "user: And this?",
        "m-1 (failed): Some ",
    ],
    "options": {"temperature": 0.5},
    "page": [1, True],
    "listed": [[True], False],
    "changed": ["Mine", None],
    "models": [["m-1", "openai"]],
    "health": "ok",
    "faults": [
        {"status": 400, "title": "Bad Request", "source": {"pointer": "/content"}},
        {"status": 409, "title": "Conflict", "source": None},
        {"status": 404, "title": "Not Found", "source": None},
    ],
    "deleted": 204,
}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the description is the same on both
def test_openapi_typescript_makes_types_with_which_a_client_compiles_and_works(
    server, provider, tmp_path
):
    folder = npm_folder("openapi-client")
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    made = run(
        "node_modules/.bin/openapi-typescript",
        server.url + "/openapi.json",
        "--output",
        "schema.ts",
        cwd=tmp_path,
    )
    assert "warn" not in (made.stdout + made.stderr).lower()
    run("node_modules/.bin/tsc", cwd=tmp_path)
    script(provider)
    carol = server.client("https://github.com/carol")
    told = run("node", "client.js", server.url, carol.token, cwd=tmp_path)
    assert (json.loads(told.stdout), told.stderr) == (TOLD, "")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the description is the same on both
def test_openapi_python_client_makes_a_client_that_works(server, provider, tmp_path):
    commands = pathlib.Path(sys.executable).parent
    options = ("--meta", "none", "--output-path", "parley_client", "--fail-on-warning")
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"  # it looks for ruff there
    run(
        commands / "openapi-python-client",
        "generate",
        "--url",
        server.url + "/openapi.json",
        *options,
        cwd=tmp_path,
        PATH=path,
    )
    shutil.copy(pathlib.Path(__file__).parent / "openapi-client" / "client.py", tmp_path)
    script(provider)
    dave = server.client("https://github.com/dave")
    told = run(sys.executable, "-W", "error", "client.py", server.url, dave.token, cwd=tmp_path)
    assert (json.loads(told.stdout), told.stderr) == (TOLD, "")
