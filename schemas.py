"""The marshmallow schemas: requests are loaded through them, and responses are dumped through them.

`tests/openapi` describes the API from them; what its description says of a schema and its fields stands in
`tests/openapi/base.json`.
"""

import itertools
import json
import re
import time

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_dump, pre_load, validate

import search

FAULTS = 20  # that an answer names at most
LONGEST_NAME = 200  # characters of a name in an answer

# PostgreSQL stores no NUL, and UTF-8 has no surrogates.
storable = validate.Regexp(
    "[^\0\ud800-\udfff]*\\Z", error="Take out the characters that cannot be stored: NUL and lone surrogates."
)
not_blank = validate.Predicate("strip", error="Give some text; this is blank.")
# What these two check, for the API's description. Many regular expression engines know no surrogates, and to those of
# JavaScript, other than to Python, U+001C to U+001F and U+0085 are no white space.
TEXT_PATTERN = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"


# Fields


def at_most(length):
    return validate.Length(max=length, error="Shorten this to at most {max} characters.")


def few_words(text):
    """A validator: a query has no more words than are looked for."""
    if len(search.words_of(text)) > search.MAX_WORDS:
        raise ValidationError(f"Give at most {search.MAX_WORDS} words.")


class Text(fields.String):
    """A string that can be stored, is not blank, and has at most `max_length` characters."""

    default_error_messages = {
        "required": "This field is required. Give a string.",
        "null": "This field cannot be null. Give a string.",
        **dict.fromkeys(("invalid", "invalid_utf8"), "Give a string."),
    }

    def __init__(self, max_length=None, **kwargs):
        super().__init__(validate=[storable, not_blank, at_most(max_length)], metadata={"pattern": TEXT_PATTERN}, **kwargs)


class WholeNumber(fields.Integer):
    """An integer of a query, in ASCII digits. (`int` would also read `1_000`, ` 7` and `٣`.)"""

    def _deserialize(self, value, attr, data, **kwargs):
        if not re.fullmatch(r"-?[0-9]{1,1000}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Timestamp(fields.DateTime):
    """Microseconds since 1970, dumped as RFC 3339 in UTC with whole seconds: `2026-03-06T16:00:00Z`."""

    def _serialize(self, value, attr, obj, **kwargs):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value // 1_000_000))


class Part(fields.Nested):
    """A part of an object's JSON that is made from the object itself: a turn's `usage` from columns of the turn.

    The part is null where the object's attribute of this name is None; `attribute` names another one.
    """

    def get_value(self, obj, attr, **kwargs):
        return None if super().get_value(obj, attr, **kwargs) is None else obj

    def _serialize(self, value, attr, obj, **kwargs):
        # `Nested` would call the schema's `dump` for each part of each turn, for values that are JSON already.
        return value and {name: getattr(obj, field.attribute or name) for name, field in self.schema.fields.items()}


# Requests


class RequestSchema(Schema):
    error_messages = {"unknown": "This field is not known here. Leave it out.", "type": "Send a JSON object."}

    @pre_load
    def _bound(self, data, **kwargs):
        """Of the names that are not known, look at the first few only: a body may be full of them."""
        if not isinstance(data, dict):
            return data
        unknown = itertools.islice((name for name in data if name not in self.fields), FAULTS)
        return {name: data[name] for name in self.fields if name in data} | {name[:LONGEST_NAME]: None for name in unknown}


class NewSessionSchema(RequestSchema):
    content = Text(required=True)
    model = Text(max_length=200, allow_none=True)
    system = Text(allow_none=True)


class MessageSchema(RequestSchema):
    content = Text(required=True)


class EmptySchema(RequestSchema):
    """An object without fields."""


class ChangeSchema(RequestSchema):
    title = Text(max_length=200)
    model = Text(max_length=200)
    system = Text(allow_none=True)


class PageSchema(Schema):
    """The query parameters of the list of sessions."""

    def handle_error(self, error, data, **kwargs):
        raise ValidationError(error.messages, source="parameter")

    limit = WholeNumber(
        data_key="page[limit]", load_default=20, error_messages={"invalid": "Give a whole number from 1 to 100."}
    )
    offset = WholeNumber(
        data_key="page[offset]",
        load_default=0,
        validate=validate.Range(0, 2**53, error="Give a whole number from 0 on."),
        error_messages={"invalid": "Give a whole number from 0 on."},
    )
    query = fields.String(load_default="", validate=[storable, at_most(200), few_words])


# Responses


class ModelSchema(Schema):
    id = fields.String(attribute="model", required=True)


class SessionSchema(Schema):
    id = fields.UUID(required=True)
    title = fields.String(required=True)
    model = Part(ModelSchema, required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CreatedSessionSchema(SessionSchema):
    @post_dump
    def _restore_updated_at(self, data, **kwargs):
        # An `Idempotency-Key` that is sent again gives the first answer again, though the session was used since.
        return data | {"updated_at": data["created_at"]}


class ListedSessionSchema(SessionSchema):
    last_message_preview = fields.String(attribute="preview", required=True)


class UserTurnSchema(Schema):
    id = fields.String(required=True)
    kind = fields.String(required=True)
    content = fields.String(required=True)
    created_at = Timestamp(required=True)


class UsageSchema(Schema):
    input_tokens = fields.Integer(required=True, allow_none=True)
    output_tokens = fields.Integer(required=True, allow_none=True)
    cached_tokens = fields.Integer(required=True, allow_none=True)


class TurnErrorSchema(Schema):
    status = fields.Integer(attribute="error_status", required=True)
    message = fields.String(attribute="error_message", required=True)


class AssistantTurnSchema(UserTurnSchema):
    model = Part(ModelSchema, required=True)
    status = fields.String(required=True)
    usage = Part(UsageSchema, required=True)
    error = Part(TurnErrorSchema, attribute="error_status", required=True, allow_none=True)


TURN_SCHEMAS = {"user": UserTurnSchema(), "assistant": AssistantTurnSchema()}


def dump_turn(turn):
    return TURN_SCHEMAS[turn.kind].dump(turn)


class TurnField(fields.Field):
    """A turn, dumped by the schema of its kind. Nested will not do, since it takes one schema only."""

    def _serialize(self, value, attr, obj, **kwargs):
        return dump_turn(value)


class ChangedSessionSchema(SessionSchema):
    system = fields.String(required=True, allow_none=True)


class WholeSessionSchema(ChangedSessionSchema):
    turns = fields.List(TurnField(), required=True)


new_session_schema = NewSessionSchema()
message_schema = MessageSchema()
empty_schema = EmptySchema()
change_schema = ChangeSchema()
page_schema = PageSchema(unknown=EXCLUDE)
created_session_schema = CreatedSessionSchema()
listed_session_schema = ListedSessionSchema(many=True)
changed_session_schema = ChangedSessionSchema()
whole_session_schema = WholeSessionSchema()
turn_error_schema = TurnErrorSchema()


# The text of a request's body


def parse_json(body):
    """The value of a JSON text in UTF-8. Raises ValidationError.

    `json.loads` alone would take NaN and infinities, which JSON does not have (`int` refuses them by a ValueError), and of
    a name that stands twice in an object it would drop the first value.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=int)
    except (ValueError, RecursionError):
        raise ValidationError("Send one valid JSON value in UTF-8, without NaN and without a name twice.") from None


def _unique(pairs):
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice")
    return names
