"""The marshmallow schemas, through which requests are loaded and answers dumped. `tools/openapi`
describes the API from them."""

import re
from typing import Any

from flask import current_app
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    pre_load,
    validate,
)

from tables.ledger import SAID
from tables.shown import time_of

MOST_ERRORS = 20  # that an answer names at most
LONGEST_NAME = 200  # characters of a name in an answer
# RequestSchema puts in the name of a field.
MISSING, NO_STRING = "The field {name} is missing.", "Give a string for {name}."

# PostgreSQL stores no NUL, and UTF-8 has no surrogates.
storable = validate.Regexp(
    "[^\0\ud800-\udfff]*\\Z", error="Take out what cannot be stored: NUL and lone surrogates."
)
one_word = validate.Regexp(
    r"[\w.-]{1,40}\Z", re.ASCII, error="Give one word in ASCII, such as low."
)
not_blank = validate.Predicate("strip", error="Give some text; this is blank.")
short = validate.Length(max=200, error="Shorten this to at most {max} characters.")


def is_temperature(value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 2:
        raise ValidationError("Give a number from 0 to 2.")


def is_length(value: Any) -> None:
    is_whole(value, 1, current_app.config["MAX_TOKENS"])


def is_whole(value: Any, least: int, most: int) -> None:
    if type(value) not in (int, float) or value % 1 or not least <= value <= most:
        # JSON's 10.0 is a whole number, too.
        raise ValidationError(f"Give a whole number from {least} to {most}.")


class Text(fields.String):
    """A string that can be stored, is not blank, and is what `validators` want besides."""

    default_error_messages = {"required": MISSING, "null": NO_STRING, "invalid": NO_STRING}

    def __init__(self, *validators: Any, **kwargs: Any) -> None:
        super().__init__(validate=[storable, not_blank, *validators], **kwargs)


class WholeNumber(fields.Integer):
    """An integer of a query, in ASCII digits. (`int` would also read `1_000`, ` 7` and `٣`.)
    `problem` says what to give."""

    def __init__(
        self, problem: str, least: int | None = None, most: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            error_messages={"invalid": problem},
            validate=validate.Range(least, most, error=problem),
            **kwargs,
        )

    def _deserialize(self, value: str, attr: str, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch(r"-?[0-9]{1,1000}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Timestamp(fields.DateTime):
    """Microseconds since 1970, dumped by `time_of`."""

    def _serialize(self, value: int, attr: str, obj: Any, **kwargs: Any) -> str:
        return time_of(value)


class Part(fields.Nested):
    """A part of an object's JSON that is made of columns of it; null where its attribute of this
    name, or `attribute`, is."""

    def _serialize(self, value: Any, attr: str, obj: Any, **kwargs: Any) -> dict | None:
        if value is not None:
            # `Nested` would call the schema's `dump` for each part of each turn, for values that
            # are JSON already.
            return {
                name: getattr(obj, field.attribute or name)
                for name, field in self.schema.fields.items()
            }


class RequestSchema(Schema):
    error_messages = {
        "unknown": "This field is not known here. Leave it out.",
        "type": "Send a JSON object.",
    }

    def on_bind_field(self, field_name: str, field_obj: fields.Field) -> None:
        field_obj.error_messages = {
            key: text.replace("{name}", field_name)
            for key, text in field_obj.error_messages.items()
        }

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        """Say where a field belongs that another schema or another API has here."""
        for name in ELSEWHERE.keys() & error.messages:
            field, sentence = ELSEWHERE[name]
            if field in self.fields:
                error.messages[name] = [sentence]

    @pre_load
    def _bound(self, data: Any, **kwargs: Any) -> Any:
        """Of the names that are not known, look at the first few only: a body may be full of
        them."""
        if not isinstance(data, dict):
            return data
        unknown = [name for name in data if name not in self.fields][:MOST_ERRORS]
        return {name: data[name] for name in self.fields if name in data} | {
            name[:LONGEST_NAME]: None for name in unknown
        }


class OptionsSchema(RequestSchema):
    temperature = fields.Raw(allow_none=True, validate=is_temperature)
    max_tokens = fields.Raw(allow_none=True, validate=is_length)
    reasoning_effort = fields.String(
        allow_none=True, validate=one_word, error_messages={"invalid": NO_STRING}
    )


# A field that a schema does not have, one that it has in its place, and what to do.
ELSEWHERE = {
    "messages": ("content", "Send content, one message: Parley keeps the conversation."),
    "stream": ("content", "Send the header Accept: text/event-stream for a stream."),
} | dict.fromkeys(OptionsSchema().fields, ("options", "Put this into options."))


class NewSessionSchema(RequestSchema):
    content = Text(required=True)
    model = Text(short, allow_none=True)
    system = Text(allow_none=True)
    options = fields.Nested(OptionsSchema, allow_none=True)


class ChangeSchema(RequestSchema):
    title = Text(short)
    model = Text(short)
    system = Text(allow_none=True)
    options = fields.Nested(OptionsSchema, allow_none=True)


class QuerySchema(Schema):
    @pre_load
    def _refuse_short_names(self, data: Any, **kwargs: Any) -> Any:
        """`limit` alone would be ignored."""
        faults = {
            name: [f"Use {field.data_key}."]
            for name, field in self.fields.items()
            if field.data_key and name in data
        }
        if faults:
            raise ValidationError(faults)
        return data


class PageSchema(QuerySchema):
    # Clamped to these.
    limit = WholeNumber(
        "Give a whole number from 1 to 100.", data_key="page[limit]", load_default=20
    )
    offset = WholeNumber(
        "Give a whole number from 0 on.", 0, 2**53, data_key="page[offset]", load_default=0
    )
    query = fields.String(load_default="", validate=[storable, short])


class TurnsPageSchema(QuerySchema):
    # Clamped to these.
    limit = WholeNumber("Give a whole number from 1 to 200.", data_key="turns[limit]")
    before = WholeNumber("Give the id of a turn.", 0, 2**63 - 1, data_key="turns[before]")


ModelSchema = Schema.from_dict(
    {"id": fields.String(attribute="model", required=True)}, name="ModelSchema"
)
UsageSchema = Schema.from_dict(
    {name: fields.Integer(required=True, allow_none=True) for name in SAID}, name="UsageSchema"
)
MetaSchema = Schema.from_dict({"has_more": fields.Boolean(required=True)}, name="MetaSchema")


class TurnErrorSchema(Schema):
    status = fields.Integer(attribute="error_status", required=True)
    message = fields.String(attribute="error_message", required=True)


turn_error_schema = TurnErrorSchema()


class ThinkingSchema(Schema):
    characters = fields.Integer(required=True)
    seconds = fields.Float(required=True)


class ThinkingTextSchema(Schema):
    text = fields.String(required=True)


class SessionSchema(Schema):
    id = fields.UUID(required=True)
    title = fields.String(required=True)
    model = Part(ModelSchema, required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class UserTurnSchema(Schema):
    id = fields.String(required=True)
    kind = fields.String(required=True)
    content = fields.String(required=True)
    created_at = Timestamp(required=True)


class AssistantTurnSchema(UserTurnSchema):
    model = Part(ModelSchema, required=True)
    status = fields.String(required=True)
    usage = Part(UsageSchema, required=True)
    error = Part(turn_error_schema, attribute="error_status", required=True, allow_none=True)
    stop_reason = fields.String(required=True, allow_none=True)
    continued = fields.Integer(required=True)
    turns_left_out = fields.Integer(required=True)
    thinking = fields.Nested(ThinkingSchema, required=True, allow_none=True)


class ChangedSessionSchema(SessionSchema):
    system = fields.String(required=True, allow_none=True)
    options = fields.Raw(required=True)


class WholeSessionSchema(ChangedSessionSchema):
    turns = fields.Function(
        lambda session: [dump_turn(turn) for turn in session.turns], required=True
    )
    meta = Part(MetaSchema, attribute="has_more", required=True)


new_session_schema = NewSessionSchema()
message_schema = RequestSchema.from_dict({"content": Text(required=True)}, name="MessageSchema")()
retry_schema = RequestSchema.from_dict({"content": Text(allow_none=True)}, name="RetrySchema")()
empty_schema = RequestSchema.from_dict({}, name="EmptySchema")()
change_schema = ChangeSchema()
page_schema = PageSchema(unknown=EXCLUDE)  # what else a query has is nobody's
turns_page_schema = TurnsPageSchema(unknown=EXCLUDE)
# An `Idempotency-Key` that is sent again gives the first answer again, though the session was used
# since.
first_update = {"updated_at": Timestamp(attribute="created_at", required=True, dump_only=True)}
created_session_schema = SessionSchema.from_dict(first_update, name="CreatedSessionSchema")()
preview = {"last_message_preview": fields.String(attribute="preview", required=True)}
listed_session_schema = SessionSchema.from_dict(preview, name="ListedSessionSchema")(many=True)
changed_session_schema = ChangedSessionSchema()
whole_session_schema = WholeSessionSchema()
session_schema = SessionSchema()
turn_schemas = {"user": UserTurnSchema(), "assistant": AssistantTurnSchema()}


def dump_turn(turn: Any) -> dict[str, Any]:
    """A turn as its schema describes it, which would take five times as long for each of
    hundreds."""
    dumped = {
        "id": str(turn.id),
        "kind": turn.kind,
        "content": turn.content,
        "created_at": time_of(turn.created_at),
    }
    if turn.kind == "user":
        return dumped
    # One that goes on has not ended, though its row has how it did before.
    has_ended = turn.status != "in_progress"
    return dumped | {
        "model": {"id": turn.model},
        "status": turn.status,
        "usage": {name: getattr(turn, name) for name in SAID},
        "error": error_of(turn) if has_ended else None,
        "stop_reason": turn.stop_reason if has_ended else None,
        "continued": turn.continued,
        "turns_left_out": turn.turns_left_out,
        "thinking": turn.thinking,
    }


def error_of(turn: Any) -> dict[str, Any] | None:
    if turn.error_status is None:
        return None
    return {"status": turn.error_status, "message": turn.error_message}
