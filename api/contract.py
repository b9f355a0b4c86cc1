"""What an operation takes and gives: decorators above its handler.

They load the query and the body, dump the answer, and note all of it in an `Operation`, from which
`tools/openapi` describes the API. They run from the top: below `with_session`, a body is only
loaded if the session exists. They pass arguments by name: `query`, `session` and `body`.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flask import Response, g, request
from marshmallow import Schema, ValidationError
from werkzeug import exceptions

import schemas
import turns
from api import answers

Handler = Callable[..., Any]  # its result is dumped: see `gives`
Decorator = Callable[[Handler], Handler]

EVENTS = "text/event-stream; charset=utf-8"
# The OpenAPI schemas of media types other than JSON.
EVENT_STREAM = {"$ref": "#/components/schemas/EventStream"}
TEXT = {"type": "string"}
BYTES = {"type": "string", "format": "binary"}


@dataclasses.dataclass
class Body:
    """A JSON body with one of these schemas, or the bytes of one of these media types."""

    schemas: Sequence[type[Schema]]
    required: bool
    example: dict[str, Any] | None
    media_types: Sequence[str] = ()


@dataclasses.dataclass
class Answer:
    """An answer with a status of success."""

    description: str
    schema: type[Schema] | None
    content: dict[str, Any]  # media types other than JSON, with their OpenAPI schemas
    headers: Sequence[str]  # that it always has
    may_have: Sequence[str]  # headers that it may have
    name: str | None  # its name among the document's components, if operations share it
    links: bool  # whether its `id` is the `session_id` of other operations (OpenAPI links)


@dataclasses.dataclass
class Operation:
    """What a handler takes and gives. `errors` has only the statuses that `tools/openapi` cannot
    derive from its route and its body."""

    query: type[Schema] | None = None
    headers: tuple[str, ...] = ()
    body: Body | None = None
    answers: dict[int, Answer] = dataclasses.field(default_factory=dict)
    errors: set[int] = dataclasses.field(default_factory=set)
    security: str | None = None
    is_anonymous: bool = False  # some requests need no token


def operation_of(handler: Handler) -> Operation:
    """The handler's operation. `functools.wraps` copies it to each wrapper, as any attribute."""
    return handler.__dict__.setdefault("operation", Operation())


# What it takes


def takes_query(schema: type[Schema]) -> Decorator:
    """Pass the parameters of the URL's query as `query`, loaded by this schema."""
    loader = schema()

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).query = schema

        @functools.wraps(handler)
        def loading(**arguments: Any) -> Any:
            return handler(query=loader.load(request.args.to_dict()), **arguments)

        return loading

    return decorate


def takes_headers(*names: str) -> Decorator:
    """Note these request headers, which the handler reads itself."""

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).headers += names
        return handler

    return decorate


def takes(
    schema: type[Schema], required: bool = True, example: dict[str, Any] | None = None
) -> Decorator:
    """Pass the JSON body as `body`, loaded by this schema; {} if it is empty and not required."""
    loader = schema()

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).body = Body([schema], required, example)

        @functools.wraps(handler)
        def loading(**arguments: Any) -> Any:
            return handler(body=_load_body(loader, required), **arguments)

        return loading

    return decorate


def takes_nothing(handler: Handler) -> Handler:
    """Accept no body, or an object without fields."""
    operation_of(handler).body = Body([schemas.EmptySchema], False, None)
    loader = schemas.EmptySchema()

    @functools.wraps(handler)
    def loading(**arguments: Any) -> Any:
        _load_body(loader, required=False)
        return handler(**arguments)

    return loading


def takes_itself(*kinds: type[Schema], example: dict[str, Any]) -> Decorator:
    """Note a JSON body of one of these schemas, which the handler loads itself, later."""

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).body = Body(kinds, True, example)
        return handler

    return decorate


def takes_bytes(*media_types: str) -> Decorator:
    """Note a body that is not JSON, which the handler reads itself."""

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).body = Body([], True, None, media_types)
        return handler

    return decorate


def _load_body(schema: Schema, required: bool) -> dict[str, Any]:
    if not g.body and not required:
        return {}
    return schema.load(parse_body())


def parse_body() -> Any:
    """The JSON value in the body. Raises ValidationError, or UnsupportedMediaType if its
    `Content-Type` is not JSON."""
    if not request.is_json:
        raise exceptions.UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    try:
        return json.loads(g.body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValidationError(_json_advice(error)) from None


class _NotJSON(ValueError):
    """The message is the constant that Python reads, and JSON does not have."""


def _refuse_constant(name: str) -> NoReturn:
    """`json` reads NaN, Infinity and -Infinity, which are not JSON (RFC 8259, section 6)."""
    raise _NotJSON(name)


def _json_advice(error: Exception) -> str:
    """What is wrong with a body that `json` refused with this error, and what to send."""
    valid = "Send one valid JSON value in UTF-8"
    if not g.body:
        return "Send a JSON value: the body is empty."
    match error:
        case _NotJSON():
            return f"{valid}: {error} is not JSON."
        case UnicodeDecodeError():
            place = f"byte {error.start} of the body, counted from 0"
            return f"{valid}: {place}, is not UTF-8 ({error.object[error.start]:#04x})."
        case json.JSONDecodeError():
            # Like "Expecting ',' delimiter" or "Invalid control character at".
            problem = error.msg.removesuffix(" at").rstrip(": ")
            return f"{valid}. At line {error.lineno}, column {error.colno}: {problem}."
        case RecursionError():
            return f"{valid}: this one is nested too deeply."
        case _:  # `int` limits the digits that it converts
            return f"{valid}, with numbers of at most {sys.get_int_max_str_digits()} digits."


# What it gives


def gives(
    status: int,
    description: str,
    schema: type[Schema] | None = None,
    *,
    dump: Callable[[Any], Any] | None = None,
    content: dict[str, Any] | None = None,
    headers: Sequence[str] = (),
    may_have: Sequence[str] = (),
    name: str | None = None,
    links: bool = False,
) -> Decorator:
    """Note an answer, and dump what the handler returns with this status by `dump`, or else by the
    schema, unless it is a Response. As in Flask, a value without a status is a 200."""
    answer = Answer(description, schema, content or {}, headers, may_have, name, links)
    if dump is None and schema is not None:
        dump = schema().dump

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).answers[status] = answer
        if dump is None:
            return handler

        @functools.wraps(handler)
        def dumping(**arguments: Any) -> Any:
            returned = handler(**arguments)
            value, code, *rest = returned if isinstance(returned, tuple) else (returned, 200)
            if code != status or isinstance(value, Response):
                return returned
            return (dump(value), code, *rest)

        return dumping

    return decorate


def asks_model(handler: Handler) -> Handler:
    """Note what all operations share that ask a model for a reply."""
    operation = operation_of(handler)
    operation.headers += ("Idempotency-Key", "Prefer")
    operation.errors |= {404, 409, 422, 429, 502, 504}  # 404 if the session is deleted meanwhile
    return handler


def gives_reply(handler: Handler) -> Handler:
    """Note and dump the answers with a reply in an existing session: whole, as a stream, or
    deferred."""
    for decorate in (
        gives(
            202,
            "The reply is still being written: follow it at the session's events.",
            answers.AcceptedSchema,
            headers=["Location"],
            may_have=["Preference-Applied"],
            name="Accepted",
        ),
        gives(
            201,
            "The reply is complete, or was cancelled.",
            schemas.AssistantTurnSchema,
            dump=turns.SHOWN.dump,
            name="Reply",
        ),
        gives(
            200,
            "The events of the reply, to its end.",
            content={EVENTS: EVENT_STREAM},
            headers=["X-Accel-Buffering"],
            may_have=["Location"],
            name="Events",
        ),
        asks_model,
    ):
        handler = decorate(handler)
    return handler


def may_fail(*statuses: int) -> Decorator:
    """Note statuses of errors, besides those that follow from the route."""

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).errors |= set(statuses)
        return handler

    return decorate


def may_be_anonymous(handler: Handler) -> Handler:
    """Note that some requests of an operation need no token."""
    operation_of(handler).is_anonymous = True
    return handler


def needs(scheme: str) -> Decorator:
    """Note the security scheme of an operation that needs a token of its own."""

    def decorate(handler: Handler) -> Handler:
        operation_of(handler).security = scheme
        return handler

    return decorate
