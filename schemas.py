"""What comes in and what goes out, as marshmallow schemas; faults become the entries of an error response.

The metadata are for the API's description: a name in them is that of a schema, without its `Schema`.
"""

import datetime
import json
import re

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, validate

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# The same for those who read the API's description, as far as a pattern can say it.
_STORABLE, _READABLE = r"^[^\u0000]*$", r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
_UNKNOWN = {"unknown": "This field is not known here. Leave it out.", "type": "Send a JSON object."}


def storable(text):
    """A validator. Raises ValidationError where no database can hold the text."""
    if _UNSTORABLE.search(text):
        raise ValidationError("Take out the characters that cannot be stored: NUL and lone surrogates.")


def not_blank(text):
    """A validator. Raises ValidationError where there is nothing to read."""
    if not text.strip():
        raise ValidationError("Give some text; this is blank.")


class Text(fields.String):
    """A string that can be stored and is not blank, of at most `longest` characters."""

    default_error_messages = {
        "required": "This field is required. Give a string.",
        "null": "This field cannot be null. Give a string.",
        "invalid": "Give a string.",
        "invalid_utf8": "Give a string.",
    }

    def __init__(self, longest=None, metadata=None, **kwargs):
        checks = [storable, not_blank]
        if longest:
            checks.append(validate.Length(max=longest, error="Shorten this to at most {max} characters."))
        super().__init__(validate=checks, metadata={"pattern": _READABLE} | (metadata or {}), **kwargs)


class Time(fields.DateTime):
    """Microseconds since 1970, shown as RFC 3339 in UTC with whole seconds."""

    def _serialize(self, value, attr, obj, **kwargs):
        moment = datetime.datetime.fromtimestamp(value // 1_000_000, datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Input(Schema):
    error_messages = _UNKNOWN


class NewSessionSchema(Input):
    """Request body for starting a new session."""

    content = Text(
        required=True,
        metadata={
            "description": "The initial user message to start the session.",
            "examples": [
                "Add rate limiting to the auth endpoints using a sliding window approach with Redis, "
                "10 requests per minute per IP."
            ],
        },
    )
    model = Text(
        200,
        allow_none=True,
        metadata={
            "description": "LLM model to use. If omitted, the server default is used.",
            "examples": ["claude-opus-4-6"],
        },
    )
    system = Text(
        allow_none=True,
        metadata={
            "description": "System prompt for the session.",
            "examples": ["You are a helpful coding assistant."],
        },
    )


class MessageSchema(Input):
    """Request body for a further user message."""

    content = Text(required=True, metadata={"description": "The user's message."})


class EmptySchema(Input):
    """An object that has nothing to say."""


class ChangeSchema(Input):
    """What may be changed of a session; what is left out stays as it is."""

    title = Text(200, metadata={"description": "A title of the user's own; the server never overwrites it."})
    model = Text(200, metadata={"description": "The model that writes from the next reply on."})
    system = Text(
        allow_none=True, metadata={"description": "The system prompt from the next reply on; null clears it."}
    )


class Whole(fields.Integer):
    """A whole number as JSON writes it, not all that `int` reads."""

    def _deserialize(self, value, attr, data, **kwargs):
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class InvalidParameter(ValidationError):
    """A parameter of the query that is not understood."""


class InvalidHeader(ValidationError):
    """A request header that is not understood."""


class PageSchema(Schema):
    """The query of a list."""

    class Meta:
        unknown = EXCLUDE

    def handle_error(self, error, data, **kwargs):
        raise InvalidParameter(error.messages)

    limit = Whole(
        data_key="page[limit]",
        load_default=20,
        error_messages={"invalid": "Give a whole number from 1 to 100."},
        metadata={"description": "How many sessions to return; clamped to 1–100."},
    )
    offset = Whole(
        data_key="page[offset]",
        load_default=0,
        validate=validate.Range(0, 2**53, error="Give a whole number from 0 on."),
        error_messages={"invalid": "Give a whole number from 0 on."},
        metadata={"description": "How many sessions to skip."},
    )
    query = fields.String(
        load_default="",
        validate=[storable, validate.Length(max=200, error="Shorten this to at most {max} characters.")],
        metadata={
            "description": "Words that must each occur in the title or in a turn, as a part of a word, in any case.",
            "pattern": _STORABLE,
        },
    )


class ModelSchema(Schema):
    """Reference to a model by its identifier."""

    id = fields.String(required=True, metadata={"examples": ["claude-opus-4-6"]})


class _Model(fields.Field):
    def __init__(self):
        super().__init__(required=True, metadata={"allOf": ["Model"]})

    def _serialize(self, value, attr, obj, **kwargs):
        return {"id": value}


class SessionSchema(Schema):
    """A session, without its turns."""

    id = fields.UUID(
        required=True,
        metadata={
            "description": "Unique identifier of the session.",
            "examples": ["a1b2c3d4-e5f6-7890-abcd-ef1234567890"],
        },
    )
    title = fields.String(
        required=True,
        metadata={
            "description": "Server-generated title for the session.",
            "examples": ["Add rate limiting to auth endpoints"],
        },
    )
    model = _Model()
    created_at = Time(
        required=True,
        metadata={"description": "Timestamp when the session was created.", "examples": ["2026-03-06T16:00:00Z"]},
    )
    updated_at = Time(
        required=True,
        metadata={
            "description": "Timestamp when the session was last updated (equal to created_at at creation time): "
            "when a reply was last asked for.",
            "examples": ["2026-03-06T16:00:00Z"],
        },
    )


class CreatedSessionSchema(SessionSchema):
    """Response returned after successfully creating a session. It is the same, however often it is given again."""

    id = fields.UUID(
        required=True,
        metadata={
            "description": "Unique identifier for the newly created session.",
            "examples": ["a1b2c3d4-e5f6-7890-abcd-ef1234567890"],
        },
    )

    @post_dump
    def _as_created(self, data, **kwargs):
        return data | {"updated_at": data["created_at"]}


class ListedSessionSchema(SessionSchema):
    """A session in a list."""

    last_message_preview = fields.String(
        attribute="preview", required=True, metadata={"description": "The first 100 characters of the last turn."}
    )


class UserTurnSchema(Schema):
    """A message of the user."""

    kind = fields.String(required=True, metadata={"enum": ["user"]})
    content = fields.String(required=True, metadata={"description": "The message, or the reply as far as it got."})
    created_at = Time(required=True, metadata={"description": "When it was sent, or asked for."})


class UsageSchema(Schema):
    """Tokens, as the provider counted them; null where it did not say."""

    input_tokens = fields.Integer(required=True, allow_none=True)
    output_tokens = fields.Integer(required=True, allow_none=True)
    cached_tokens = fields.Integer(required=True, allow_none=True)


class TurnErrorSchema(Schema):
    """Why a reply failed."""

    status = fields.Integer(required=True, metadata={"description": "The HTTP status for this kind of failure."})
    message = fields.String(required=True, metadata={"description": "What went wrong."})


class AssistantTurnSchema(UserTurnSchema):
    """A reply of the model."""

    kind = fields.String(required=True, metadata={"enum": ["assistant"]})
    model = _Model()
    status = fields.String(
        required=True,
        metadata={
            "enum": ["in_progress", "complete", "failed", "interrupted"],
            "description": "`in_progress`: it is being written. `failed`: the model failed, and `error` says why. "
            "`interrupted`: it was cancelled, or its process died. In both, `content` is what had arrived.",
        },
    )
    usage = fields.Method("_usage", required=True, metadata={"allOf": ["Usage"]})
    error = fields.Method("_error", required=True, metadata={"anyOf": ["TurnError", {"type": "null"}]})

    def _usage(self, turn):
        return {name: getattr(turn, name) for name in ("input_tokens", "output_tokens", "cached_tokens")}

    def _error(self, turn):
        return turn_error(turn)


def turn_error(turn):
    """The error of a reply that failed, else None."""
    if turn.error_status is None:
        return None
    return {"status": turn.error_status, "message": turn.error_message}


class ChangedSessionSchema(SessionSchema):
    """A session with its system prompt, without its turns."""

    system = fields.String(required=True, allow_none=True, metadata={"description": "System prompt for the session."})


class WholeSessionSchema(ChangedSessionSchema):
    """A session with all its turns, oldest first."""

    turns = fields.Method(
        "_turns", required=True, metadata={"type": "array", "items": {"oneOf": ["UserTurn", "AssistantTurn"]}}
    )

    def _turns(self, session):
        return [dump_turn(turn) for turn in session.turns]


new_session_schema = NewSessionSchema()
message_schema = MessageSchema()
empty_schema = EmptySchema()
change_schema = ChangeSchema()
page_schema = PageSchema()
session_schema = SessionSchema()
created_session_schema = CreatedSessionSchema()
listed_session_schema = ListedSessionSchema(many=True)
changed_session_schema = ChangedSessionSchema()
whole_session_schema = WholeSessionSchema()
user_turn_schema = UserTurnSchema()
assistant_turn_schema = AssistantTurnSchema()


def dump_turn(turn):
    schema = user_turn_schema if turn.kind == "user" else assistant_turn_schema
    return schema.dump(turn)


def parse_json(body):
    """The value of a JSON text in UTF-8, without what JSON has not: NaN, infinities, one name twice in an object.

    Raises ValidationError.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValidationError("Send one valid JSON value in UTF-8, without NaN and without a name twice.") from None


def _unique(pairs):
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice")
    return names


def _refuse(constant):
    raise ValueError("not JSON")
