"""The API description is valid, complete, and generated from the code.

Modules: `app.py`, `api/contract.py`, `api/answers.py`.
"""

import json
import urllib.parse

import openapi_spec_validator
import pytest
import requests

from app import create_app
from client import SECRET
from described import ONE, SEED, operations, resolve
from openapi import __main__ as tool

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


@pytest.fixture
def app(tmp_path):
    return create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/routes.db", "JWT_SECRET": SECRET})


ROUTES = {
    "POST /sessions": "create_session",
    "GET /sessions": "list_sessions",
    "GET /sessions/{id}": "show_session",
    "PATCH /sessions/{id}": "change_session",
    "DELETE /sessions/{id}": "delete_session",
    "POST /sessions/{id}/messages": "add_message",
    "POST /sessions/{id}/retry": "retry_reply",
    "POST /sessions/{id}/continue": "continue_reply",
    "POST /sessions/{id}/cancel": "cancel_reply",
    "GET /sessions/{id}/events": "follow_events",
    "GET /sessions/{id}/turns/{turn}/thinking": "show_thinking",
    "GET /sessions/{id}/turns/{turn}/versions": "show_versions",
    "POST /sessions/import": "import_session",
    "POST /sessions/{id}/fork": "fork_session",
    "GET /export": "show_export",
    "POST /files": "upload_file",
    "GET /files/{file}": "download_file",
    "GET /models": "list_models",
    "GET /me": "show_me",
    "GET /usage": "show_usage",
    "GET /metrics": "show_metrics",
    "GET /health": "show_health",
    "GET /openapi.json": "show_openapi",
    "GET /": "show_index",
}


def test_all_routes_are_described_and_no_others(document):
    assert {
        route: operation["operationId"] for route, operation in operations(document).items()
    } == ROUTES
    assert tool.TAGS.keys() == set(ROUTES.values())


def test_the_file_is_up_to_date_with_routes_and_schemas(app):
    assert tool.FILE.read_text("utf-8") == tool.text(app), (
        "static/openapi.json is not up to date: run `python tools/openapi`"
    )


def test_a_route_cannot_be_left_out(app):
    app.add_url_rule("/odd", "show_odd", lambda: "")
    with pytest.raises(KeyError, match="show_odd"):
        tool.document(app)


def test_a_route_must_declare_its_answers(app, monkeypatch):
    app.add_url_rule("/odd", "show_odd", lambda: "")
    monkeypatch.setitem(tool.TAGS, "show_odd", "Service")
    with pytest.raises(KeyError, match="show_odd gives nothing"):
        tool.document(app)


def test_each_operation_has_a_summary_of_its_own(document):
    summaries = [operation["summary"] for operation in operations(document).values()]
    assert "Start a session" in summaries
    assert len(set(summaries)) == len(summaries)


def test_the_description_is_valid_openapi(document):
    assert document["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(document)


def parts(value):
    """All objects within a document or a part of it."""
    if isinstance(value, dict):
        yield value
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from parts(part)


def test_the_description_suits_generators_and_linters(document):
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


def test_only_an_operation_that_always_streams_is_described_as_a_stream(document):
    # For others, @hey-api/openapi-ts would make functions that silently find no event in JSON. A charset prevents it.
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


def test_the_servers_url_is_relative_to_the_document(document):
    (server,) = document["servers"]
    for prefix in ("", "/chat/v1"):
        place = urllib.parse.urljoin(f"https://example.com{prefix}/openapi.json", server["url"])
        assert place.removesuffix("/") == f"https://example.com{prefix}"


def test_the_index_links_to_the_description(alice, document):
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


def test_the_description_has_the_words_and_examples_of_the_seed(document):
    def example(schema):
        schema = resolve(document, schema)
        if schema["type"] == "object":
            properties = (
                (name, part)
                for name, part in schema["properties"].items()
                if name not in ("files", "options")  # not in the seed
            )
            return {name: example(part) for name, part in properties}
        return schema["examples"][0]

    text = json.dumps(document)
    assert [words for words in SEED_WORDS if words not in text] == []
    operation = operations(document)["POST /sessions"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert example(body) == SEED
    answer = operation["responses"]["201"]["content"]["application/json"]["schema"]
    assert example(answer) == SEED_ANSWER


def test_the_headers_and_limits_of_a_request_are_described(document):
    def names(route):
        return {
            resolve(document, parameter)["name"]
            for parameter in operations(document)[route]["parameters"]
        }

    assert names("GET /sessions") == {"page[limit]", "page[offset]", "query", "X-Request-ID"}
    assert names("GET /sessions/{id}") == {
        "id",
        "turns[limit]",
        "turns[before]",
        "X-Request-ID",
    }
    assert names("POST /sessions") == {"Idempotency-Key", "Prefer", "X-Request-ID"}
    assert names("POST /sessions/{id}/retry") == {
        "id",
        "Idempotency-Key",
        "Prefer",
        "X-Request-ID",
    }
    assert names("POST /sessions/{id}/continue") == {
        "id",
        "Idempotency-Key",
        "Prefer",
        "X-Request-ID",
    }
    assert names("GET /sessions/{id}/events") == {
        "id",
        "Last-Event-ID",
        "X-Request-ID",
    }
    assert (
        document["components"]["schemas"]["NewSession"]["properties"]["model"]["maxLength"] == 200
    )
    assert document["components"]["parameters"]["Idempotency-Key"]["schema"]["maxLength"] == 255
