"""What the API says of itself: an OpenAPI 3.1 document, made from the schemas that validate and dump."""

import functools

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

import schemas

SCHEMAS = [
    schemas.NewSessionSchema,
    schemas.MessageSchema,
    schemas.EmptySchema,
    schemas.ChangeSchema,
    schemas.CreatedSessionSchema,
    schemas.ListedSessionSchema,
    schemas.ChangedSessionSchema,
    schemas.WholeSessionSchema,
    schemas.ModelSchema,
    schemas.UserTurnSchema,
    schemas.AssistantTurnSchema,
    schemas.UsageSchema,
    schemas.TurnErrorSchema,
]

TEXT, FLAG, UUID = {"type": "string"}, {"type": "boolean"}, {"type": "string", "format": "uuid"}
URL = {"type": "string", "format": "uri-reference"}


# Shapes that the routes put around what the schemas dump


def _object(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _page(item):
    return _object(data={"type": "array", "items": item}, meta=_object(has_more=FLAG))


def _event(name, data, description):
    """A frame of an event stream; `data` is the name of the schema of what its data hold, as JSON."""
    content = {"contentMediaType": "application/json", "contentSchema": {"$ref": f"#/components/schemas/{data}"}}
    return _object(id=TEXT, event={"const": name}, data=TEXT | content) | {"description": description}


EVENTS = [
    _event("session", "CreatedSession", "Only in answer to POST /sessions: first, and again when the title changes."),
    _event("content_delta", "Delta", "A piece of the reply. Put together, the pieces are the reply exactly."),
    _event("assistant_turn", "AssistantTurn", "The reply as it was stored."),
    _event("done", "Empty", "The end of a reply that is complete, or was interrupted."),
    _event("error", "TurnError", "The end of a reply that failed, or with 404 of one whose session was deleted."),
]

FAULT = _object(
    status={"type": "string", "pattern": "^[45][0-9]{2}$"},
    title=TEXT,
    detail=TEXT | {"description": "A sentence that tells what to do."},
    source={"type": "object", "description": "What is at fault: a `pointer`, a `parameter` or a `header`."},
    meta=_object(session_id=UUID) | {"description": "The session that is kept, where the model failed."},
) | {"required": ["status", "title", "detail"]}

SHAPES = {
    "Sessions": _page("ListedSession"),
    "Models": _page(_object(id=TEXT, provider=TEXT, default=FLAG)),
    "Accepted": _object(accepted={"const": True}),
    "Health": _object(status={"const": "ok"}, version=TEXT),
    "Places": _object(urls=_object(openapi_url=URL, health_url=URL, sessions_url=URL, models_url=URL)),
    "Delta": _object(delta=TEXT),
    "Event": {
        "oneOf": EVENTS,
        "description": "A frame of an event stream. A comment goes out whenever 15 s pass without one.",
    },
    "Errors": _object(errors={"type": "array", "items": FAULT, "minItems": 1})
    | {"description": "Of every error there is; one entry for each fault."},
}


# Headers and parameters

REQUEST_ID = "Names the request in the server's log. It is taken over from the request where it is well-formed."

HEADERS = {
    "X-Request-ID": {"description": REQUEST_ID, "schema": TEXT},
    "Location": {"description": "The session, or the events of its reply.", "schema": URL},
    "Preference-Applied": {"description": "Where `Prefer` was followed.", "schema": {"const": "respond-async"}},
    "Cache-Control": {"description": "`no-cache, no-transform` on an event stream.", "schema": TEXT},
    "X-Accel-Buffering": {"description": "`no` on an event stream.", "schema": TEXT},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "As in RFC 6750.", "schema": TEXT},
    "Connection": {"description": "The rest of the body is not read.", "schema": {"const": "close"}},
}

PARAMETERS = {
    "session_id": {"in": "path", "schema": UUID},
    "X-Request-ID": {"in": "header", "description": REQUEST_ID, "schema": TEXT},
    "Idempotency-Key": {
        "in": "header",
        "description": "Names the making of a reply for 24 h: the same key and body give the first outcome again, and "
        "a reply that failed is asked for again, without a second session or turn.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "Prefer": {
        "in": "header",
        "description": "`respond-async` gives the answer at once, while the reply goes on.",
        "schema": TEXT | {"examples": ["respond-async"]},
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The `id` of the last frame received: the stream goes on behind it.",
        "schema": TEXT | {"examples": ["2-15"]},
    },
}


# Answers


def _answer(description, schema=None, always=(), sometimes=(), **content):
    """A response, with the headers that it always has and those that it may have; `schema` names that of its JSON."""
    if schema:
        content = {"application/json": {"schema": schema}} | content
    always = ("X-Request-ID", *always)
    headers = {name: HEADERS[name] | {"required": name in always} for name in (*always, *sometimes)}
    return {"description": description, "headers": headers} | ({"content": content} if content else {})


def _error(description, always=(), sometimes=()):
    return _answer(description, "Errors", always, sometimes)


STREAM = {"text/event-stream": {"schema": "Event"}}
STREAM_HEADERS = ("Cache-Control", "X-Accel-Buffering")

ERRORS = {
    400: _error("The request is not as described here, or the model is not served.", sometimes=["Location"]),
    401: _error("There is no token, or it is not valid.", ["WWW-Authenticate"]),
    403: _error("The user is not allowed on this server."),
    404: _error("There is no such session, or it is not yours."),
    406: _error("`Accept` admits neither JSON nor an event stream."),
    409: _error("A reply is under way, or none is, or newer turns followed.", sometimes=["Retry-After", "Location"]),
    413: _error("The body is too large, or the conversation for the model.", ["Connection"], ["Location"]),
    415: _error("The body is not JSON."),
    422: _error("The `Idempotency-Key` came with another body before."),
    429: _error("You have asked for as many replies as you may.", ["Retry-After"]),
    502: _error("The provider failed, or could not be reached. The session is kept.", sometimes=["Location"]),
    503: _error("The provider is overloaded, or the database does not answer.", ["Retry-After"], ["Location"]),
    504: _error("The provider was silent for too long. The session is kept.", sometimes=["Location"]),
}


# Operations


def _operation(route, name, summary, answers, errors=(), parameters=(), body=None, is_public=False, **more):
    """(route, description) of an operation; `name` is its function's, `errors` those that not all of its kind have."""
    errors = {406, *errors} | (set() if is_public else {401, 403, 503}) | ({400, 413, 415} if body else set())
    parameters = [*parameters, "X-Request-ID"]
    if "{session_id}" in route:
        errors, parameters = errors | {404}, ["session_id", *parameters]
    operation = {"operationId": name, "summary": summary, "parameters": parameters} | more
    if body:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": body != "Empty", "content": content}
    if is_public:
        operation["security"] = []
    operation["responses"] = answers | {status: str(status) for status in sorted(errors)}
    return route, operation


def _asking(route, name, summary, description, body, answers):
    """(route, description) of an operation that asks the model."""
    ways = (
        " The answer comes when the reply is stored; or as an event stream, with `Accept: text/event-stream`; or at "
        "once, with `Prefer: respond-async`, and in any case before a router would cut the request. A reply that goes "
        "on is followed on the session's events; it does not stop when the client goes away."
    )
    parameters = ["Idempotency-Key", "Prefer"]
    errors = {404, 409, 422, 429, 502, 504}
    return _operation(route, name, summary, answers, errors, parameters, body, description=description + ways)


OF_SESSION = "show_session change_session delete_session add_message retry_reply cancel_reply follow_events"
LINKS = {
    name: {"operationId": name, "parameters": {"session_id": "$response.body#/id"}} for name in OF_SESSION.split()
}

CREATED = {
    201: _answer("Session created", "CreatedSession", ["Location"], ["Preference-Applied", *STREAM_HEADERS], **STREAM)
    | {"links": LINKS}
}
REPLY = {
    200: _answer("The events of the reply, to its end.", None, ["Location", *STREAM_HEADERS], **STREAM),
    201: _answer("The reply is complete, or was cancelled.", "AssistantTurn"),
    202: _answer("The reply goes on.", "Accepted", ["Location"], ["Preference-Applied"]),
}
FOLLOWED = {200: REPLY[200], 204: _answer("`Last-Event-ID` is that of the end: there is nothing more.")}
INDEX = _answer("The places; a page to talk on, for a browser.", "Places", **{"text/html": {"schema": TEXT}})

OPERATIONS = [
    _asking(
        "POST /sessions",
        "create_session",
        "Start a session",
        "Start a new interactive chat session. The initial user prompt is required; a model may optionally be "
        "specified.",
        "NewSession",
        CREATED,
    ),
    _operation(
        "GET /sessions",
        "list_sessions",
        "List or search your sessions, the last used first",
        {200: _answer("A page of the list.", "Sessions")},
        {400},
        [{"in": "query", "schema": schemas.PageSchema}],
    ),
    _operation(
        "GET /sessions/{session_id}",
        "show_session",
        "Show a session with its turns, oldest first",
        {200: _answer("The session.", "WholeSession")},
    ),
    _operation(
        "PATCH /sessions/{session_id}",
        "change_session",
        "Change title, model or system prompt of a session",
        {200: _answer("The session as changed.", "ChangedSession")},
        body="Change",
    ),
    _operation(
        "DELETE /sessions/{session_id}",
        "delete_session",
        "Delete a session with its turns; a reply under way stops",
        {204: _answer("The session is gone.")},
    ),
    _asking(
        "POST /sessions/{session_id}/messages",
        "add_message",
        "Send a message",
        "The model answers it, knowing the turns before.",
        "Message",
        REPLY,
    ),
    _asking(
        "POST /sessions/{session_id}/retry",
        "retry_reply",
        "Ask for the last reply again",
        "The new reply replaces the old one when it is complete; where it ends otherwise, the old one stands again.",
        "Empty",
        REPLY,
    ),
    _operation(
        "POST /sessions/{session_id}/cancel",
        "cancel_reply",
        "Stop the reply under way",
        {200: _answer("The reply as far as it got.", "AssistantTurn")},
        {409},
        body="Empty",
    ),
    _operation(
        "GET /sessions/{session_id}/events",
        "follow_events",
        "Follow the latest reply, from its start or from behind `Last-Event-ID`",
        FOLLOWED,
        parameters=["Last-Event-ID"],
    ),
    _operation("GET /models", "list_models", "List the models", {200: _answer("All models served.", "Models")}),
    _operation(
        "GET /health",
        "show_health",
        "Tell whether the server and its database answer",
        {200: _answer("They do.", "Health")},
        {503},
        is_public=True,
    ),
    _operation(
        "GET /openapi.json",
        "show_openapi",
        "Describe the API",
        {200: _answer("This document.", {"type": "object"})},
        is_public=True,
    ),
    _operation("GET /", "show_index", "Name the places to begin", {200: INDEX}, is_public=True),
]


# The document

INFO = {
    "description": "A chat-session service. A session is one conversation with a model, and its owner's alone. "
    "What was answered with 2xx is stored, and so is every reply, whatever became of it."
}
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "JWT bearer token issued by fabro-web. See the Authentication guide for details.",
}


@functools.cache
def document(app, version):
    """The document of this version, made once: whoever gets it must not change it."""
    spec = APISpec("Parley", version, "3.1.1", [MarshmallowPlugin()], info=INFO, security=[{"token": []}])
    spec.components.security_scheme("token", BEARER)
    for schema in SCHEMAS:
        name = schema.__name__.removesuffix("Schema")
        spec.components.schema(name, {"description": schema.__doc__}, schema=schema)
    for name, shape in SHAPES.items():
        spec.components.schema(name, shape)
    for name, parameter in PARAMETERS.items():
        spec.components.parameter(name, parameter["in"], parameter)
    for status, answer in ERRORS.items():
        spec.components.response(str(status), answer)
    for route, operation in OPERATIONS:
        method, path = route.split()
        spec.path(path, operations={method.lower(): operation})
    return spec.to_dict()
