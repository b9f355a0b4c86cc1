"""The description of the API: an OpenAPI 3.1 document.

The routes give the paths, the methods and the operations' names; the docstrings of their handlers give summaries (the
first line) and descriptions (the rest); the schemas give the bodies. This module adds what none of these says.
"""

import collections
import copy
import inspect
import re

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter

import schemas

TEXT, FLAG, UUID = {"type": "string"}, {"type": "boolean"}, {"type": "string", "format": "uuid"}
URL = {"type": "string", "format": "uri-reference"}


# JSON that no schema dumps


def _object(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _page(item):
    return _object(data={"type": "array", "items": item}, meta=_object(has_more=FLAG))


def _event(name, data, description):
    """An event of a stream. Its `data` are JSON in a string, as the schema named `data` describes it."""
    content = {"contentMediaType": "application/json", "contentSchema": {"$ref": f"#/components/schemas/{data}"}}
    return _object(id=TEXT, event={"const": name}, data=TEXT | content) | {"description": description}


EVENTS = [
    _event("session", "CreatedSession", "Only in answer to POST /sessions: first, and again when the title changes."),
    _event("content_delta", "Delta", "A piece of the reply. Put together, the pieces are the reply exactly."),
    _event("assistant_turn", "AssistantTurn", "The reply as it was stored."),
    _event("done", "Empty", "The end of a reply that is complete, or was interrupted."),
    _event("error", "TurnError", "The end of a reply that failed, or with 404 of one whose session was deleted."),
]

ERROR = _object(
    status={"type": "string", "pattern": "^[45][0-9]{2}$"},
    title=TEXT,
    detail=TEXT | {"description": "A sentence that tells what to do."},
    source={"type": "object", "description": "What is at fault: a `pointer`, a `parameter` or a `header`."},
    meta=_object(session_id=UUID) | {"description": "The session that is kept, where the model failed."},
) | {"required": ["status", "title", "detail"]}

SHAPES = {
    "Sessions": _page(schemas.ListedSessionSchema),
    "Models": _page(_object(id=TEXT, provider=TEXT, default=FLAG)),
    "Accepted": _object(accepted={"const": True}),
    "Health": _object(status={"const": "ok"}, version=TEXT),
    "Places": _object(urls=_object(openapi_url=URL, health_url=URL, sessions_url=URL, models_url=URL)),
    "Delta": _object(delta=TEXT),
    "Event": {"oneOf": EVENTS, "description": "An event of a stream. A comment is sent whenever 15 s pass without an event."},
    "Errors": _object(errors={"type": "array", "items": ERROR, "minItems": 1, "maxItems": schemas.FAULTS})
    | {"description": "The body of every error response, with one entry for each fault, up to the twentieth."},
}


# Headers, of responses and of requests


def _header(description, **schema):
    return {"description": description, "schema": schema or TEXT}


HEADERS = {
    "X-Request-ID": _header("Names the request in the server's log. It is the client's own where that is well-formed."),
    "Location": _header("The session, or the events of its reply.", **URL),
    "Preference-Applied": _header("Sent where `Prefer` was followed.", const="respond-async"),
    "Cache-Control": _header("`no-cache, no-transform` on an event stream."),
    "X-Accel-Buffering": _header("`no` on an event stream."),
    "Retry-After": _header("Seconds to wait.", type="integer", minimum=1),
    "WWW-Authenticate": _header("As in RFC 6750."),
    "Connection": _header("The rest of the body is not read.", const="close"),
}

PARAMETERS = {
    "X-Request-ID": HEADERS["X-Request-ID"],
    "Idempotency-Key": _header(
        "Names the request for 24 h. A repetition with the same key and body returns the first outcome. "
        "Where the reply failed, it is requested again, without a second session or turn.",
        **TEXT | {"minLength": 1, "maxLength": 255},
    ),
    "Prefer": _header("`respond-async` gives the answer at once, while the reply goes on.", **TEXT, examples=["respond-async"]),
    "Last-Event-ID": _header("The `id` of the last event received. The stream goes on behind it.", **TEXT, examples=["2-15"]),
}


# Responses


def _response(description, schema=None, always=(), sometimes=(), **content):
    """A response whose JSON is of this schema, or of the shape of this name.

    It always has the headers `always`, and may have the headers `sometimes`. `content` are its other media types.
    """
    if schema:
        content = {"application/json": {"schema": schema}} | content
    always = ("X-Request-ID", *always)
    headers = {name: HEADERS[name] | {"required": name in always} for name in (*always, *sometimes)}
    return {"description": description, "headers": headers} | ({"content": content} if content else {})


def _error(description, always=(), sometimes=()):
    return _response(description, "Errors", always, sometimes)


ERROR_RESPONSES = {
    400: _error("The request is not as described here, or the model is not served.", sometimes=["Location"]),
    401: _error("There is no token, or it is not valid.", ["WWW-Authenticate"]),
    403: _error("The user is not allowed on this server."),
    404: _error("There is no such session, or it is not yours."),
    406: _error("`Accept` admits neither JSON nor an event stream."),
    409: _error("A reply is under way, or none is, or newer turns followed.", sometimes=["Retry-After", "Location"]),
    413: _error("The body is too large, or the conversation is too long for the model.", ["Connection"], ["Location"]),
    415: _error("The body is not JSON."),
    422: _error("The `Idempotency-Key` came with another body before."),
    429: _error("You have reached your rate limit.", ["Retry-After"]),
    502: _error("The provider failed, or could not be reached. The session is kept.", sometimes=["Location"]),
    503: _error("The provider is overloaded, or the database does not answer.", ["Retry-After"], ["Location"]),
    504: _error("The provider was silent for too long. The session is kept.", sometimes=["Location"]),
}

STREAM = {"text/event-stream": {"schema": "Event"}}
STREAM_HEADERS = ("Cache-Control", "X-Accel-Buffering")
EVENTS_OF_REPLY = _response("The events of the reply, to its end.", None, ["Location", *STREAM_HEADERS], **STREAM)
REPLY = {
    200: EVENTS_OF_REPLY,
    201: _response("The reply is complete, or was cancelled.", schemas.AssistantTurnSchema),
    202: _response("The reply goes on.", "Accepted", ["Location"], ["Preference-Applied"]),
}
CREATED = ("Session created", schemas.CreatedSessionSchema, ["Location"], ["Preference-Applied", *STREAM_HEADERS])


# Operations

WAYS_TO_RECEIVE = """
There are three ways to receive the reply. By default, the answer comes when the reply is stored, or else before a proxy
would time out. With `Accept: text/event-stream`, the answer is a stream of events. With `Prefer: respond-async`, the
answer comes at once. A reply that goes on after the answer is followed at the session's events. A reply does not stop
when the client disconnects.
"""


# What is said here of an operation; `_describe` adds what it shares with others. `description` follows the handler's own.
Operation = collections.namedtuple("Operation", "responses errors parameters body description", defaults=((), (), None, ""))


def _reply_request(responses, body):
    """An operation that requests a reply from a model."""
    errors, parameters = (404, 409, 422, 429, 502, 504), ("Idempotency-Key", "Prefer")
    return Operation(responses, errors, parameters, body, WAYS_TO_RECEIVE)


ON_SESSION = {
    "show_session": Operation({200: _response("The session.", schemas.WholeSessionSchema)}),
    "change_session": Operation({200: _response("As changed.", schemas.ChangedSessionSchema)}, body=schemas.ChangeSchema),
    "delete_session": Operation({204: _response("The session is gone.")}),
    "add_message": _reply_request(REPLY, schemas.MessageSchema),
    "retry_reply": _reply_request(REPLY, schemas.EmptySchema),
    "cancel_reply": Operation({200: _response("What had come.", schemas.AssistantTurnSchema)}, (409,), body=schemas.EmptySchema),
    "follow_events": Operation(
        {200: EVENTS_OF_REPLY, 204: _response("`Last-Event-ID` is that of the end: there is nothing more.")},
        parameters=("Last-Event-ID",),
    ),
}
LINKS = {name: {"operationId": name, "parameters": {"session_id": "$response.body#/id"}} for name in ON_SESSION}

OPERATIONS = ON_SESSION | {
    "create_session": _reply_request({201: _response(*CREATED, **STREAM) | {"links": LINKS}}, schemas.NewSessionSchema),
    "list_sessions": Operation({200: _response("A page.", "Sessions")}, (400,), ({"in": "query", "schema": schemas.PageSchema},)),
    "list_models": Operation({200: _response("All models served.", "Models")}),
    "show_health": Operation({200: _response("They do.", "Health")}, (503,)),
    "show_openapi": Operation({200: _response("This document.", {"type": "object"})}),
    "show_index": Operation({200: _response("The places to begin.", "Places", **{"text/html": {"schema": TEXT}})}),
}


def _describe(rule, handler):
    """The Operation Object of a route. Raises KeyError where the route is not in OPERATIONS."""
    blueprint, _, name = rule.endpoint.rpartition(".")
    responses, errors, parameters, body, description = OPERATIONS[name]
    summary, _, text = inspect.getdoc(handler).partition("\n")
    described = {"operationId": name, "summary": summary.removesuffix(".")}
    if text or description:
        described["description"] = f"{text.strip()}\n{description}".strip()
    described["parameters"] = [*sorted(rule.arguments), *parameters, "X-Request-ID"]
    errors = {406, *errors} | ({404} if rule.arguments else set())
    if blueprint == "public":
        described["security"] = []
    else:
        errors |= {401, 403, 503}
    if body:
        errors |= {400, 413, 415}
        described["requestBody"] = {"required": bool(body().fields), "content": {"application/json": {"schema": body}}}
    described["responses"] = responses | {status: str(status) for status in sorted(errors)}
    return described


# The document

INFO = {
    "description": "A chat-session service. A session is one conversation with a model, and its owner's alone. "
    "Whatever was answered with 2xx is stored, and so is every reply, however it ended."
}
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "JWT bearer token issued by fabro-web. See the Authentication guide for details.",
}


class Converter(OpenAPIConverter):
    """Describes schemas as apispec does, with their docstrings besides."""

    def schema2jsonschema(self, schema):
        return {"description": inspect.getdoc(schema)} | super().schema2jsonschema(schema)


def document(app, version):
    """The document of this app."""
    plugin = MarshmallowPlugin()
    plugin.Converter = Converter
    spec = APISpec("Parley", version, "3.1.1", [plugin], info=INFO, security=[{"token": []}])
    spec.components.security_scheme("token", BEARER)
    spec.components.schema("UserTurn", schema=schemas.UserTurnSchema)
    for name, shape in SHAPES.items():
        spec.components.schema(name, plugin.resolver.resolve_schema_dict(copy.deepcopy(shape)))
    spec.components.parameter("session_id", "path", {"schema": UUID})
    for name, parameter in PARAMETERS.items():
        spec.components.parameter(name, "header", parameter)
    for status, response in ERROR_RESPONSES.items():
        spec.components.response(str(status), response)
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            operation = _describe(rule, app.view_functions[rule.endpoint])
            methods = rule.methods - {"HEAD", "OPTIONS"}
            spec.path(path, operations={method.lower(): operation for method in methods})
    return spec.to_dict()
