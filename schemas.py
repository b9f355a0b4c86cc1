"""The marshmallow schemas of sessions and turns, which load requests and dump answers.
`tools/openapi` makes the OpenAPI document from them: a docstring becomes the description of a
schema, and `about(…)` that of a field."""

import re
import sys
from typing import Any

import peewee
from flask import current_app
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    pre_load,
    validate,
    validates_schema,
)

from files import ALT_MAX, FILES_MAX, FileRef
from models import VERSIONS_MAX, Part, Turn, json_of_files
from providers.options import OPTIONS, TEXT_MAX, TEXTS_MAX, Option
from tables.columns import described_for, description_of, seconds_of, time_of
from wire import UNSTORABLE

MOST_ERRORS = 20  # in one answer
LONGEST_NAME = 200  # characters of an unknown name that an error quotes
LARGEST = sys.float_info.max  # the limit of numbers that have no other
NO_NUL = r"^[^\u0000]*$"  # a pattern of JSON Schema
# Examples in the document
FIRST_MESSAGE = (
    "Add rate limiting to the auth endpoints using a sliding window approach with Redis, 10 "
    "requests per minute per IP."
)
MODELS = "claude-opus-4-6", "ollama/llama3.2"
SESSION_ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
FILE_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TIME = "2026-03-06T16:00:00Z"
LAST_UPDATE = (
    "Timestamp when the session was last updated (equal to created_at at creation time): at its "
    "last request."
)
# RequestSchema fills in the name of the field.
MISSING, NO_STRING = "The field {name} is missing.", "Give a string for {name}."
NO_FILE = "Give the id of a file."


def about(description: str | None = None, *examples: Any, **besides: Any) -> dict[str, Any]:
    """The `metadata` of a field, for the OpenAPI document. `besides` has more keywords of JSON
    Schema; None removes one that apispec would derive from the field."""
    said = {"description": description} if description else {}
    return said | ({"examples": list(examples)} if examples else {}) | besides


WORD = "[A-Za-z0-9_.-]{1,40}"
not_blank = validate.Predicate("strip", error="Give some text; this is blank.")
short = validate.Length(max=200, error="Shorten this to at most {max} characters.")


def is_truth(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValidationError("Give true or false.")


def is_storable(value: str) -> None:
    if UNSTORABLE.search(value):
        raise ValidationError("Remove characters that cannot be stored: NUL and lone surrogates.")


class Text(fields.String):
    """A string that can be stored, is not blank, and passes these `validators`."""

    default_error_messages = {"required": MISSING, "null": NO_STRING, "invalid": NO_STRING}

    def __init__(self, *validators: Any, **kwargs: Any) -> None:
        super().__init__(validate=[is_storable, not_blank, *validators], **kwargs)


class Words(fields.String):
    """A string that can be stored, and may be blank."""

    default_error_messages = {"required": MISSING, "null": NO_STRING, "invalid": NO_STRING}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=is_storable, **kwargs)


class WholeNumber(fields.Integer):
    """An integer in a URL's query, in ASCII digits. (`int` would also read `1_000`, ` 7` and `٣`.)
    `problem` is the error message."""

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


class Number(fields.Field):
    """A number in JSON from `least` to `most`, or without an upper limit. If `kind` is int, it must
    be whole, and 10.0 loads as 10. `most` may be the name of a setting that has the limit."""

    def __init__(self, kind: type, least: int, most: int | str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.least, self.most = kind, least, most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int | float:
        most = current_app.config[self.most] if isinstance(self.most, str) else self.most
        is_whole, bound = self.kind is int, LARGEST if most is None else most
        is_number = type(value) in (int, float) and self.least <= value <= bound
        if not is_number or (is_whole and value % 1):
            bounds = f"from {self.least} {'on' if most is None else f'to {most}'}"
            raise ValidationError(f"Give a {'whole ' * is_whole}number {bounds}.")
        return int(value) if is_whole else value


class Texts(fields.Field):
    """At most TEXTS_MAX texts of 1 to TEXT_MAX characters. An empty list loads as None."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> list[str] | None:
        is_list = isinstance(value, list) and len(value) <= TEXTS_MAX
        if not is_list or not all(isinstance(text, str) for text in value):
            raise ValidationError(f"Give a list of at most {TEXTS_MAX} texts.")
        for text in value:
            is_storable(text)
            if not 1 <= len(text) <= TEXT_MAX:
                raise ValidationError(f"Give texts of 1 to {TEXT_MAX} characters.")
        return value or None


class Timestamp(fields.DateTime):
    """Microseconds since 1970, dumped by `time_of`."""

    def _serialize(self, value: int | None, attr: str, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else time_of(value)


class ModelField(fields.Nested):
    """A reference to a model, dumped from its id."""

    def _serialize(self, value: str, attr: str, obj: Any, **kwargs: Any) -> dict[str, str]:
        return {"id": value}


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
        """Say where to put a field that belongs into another place, or comes from another API."""
        for name in ELSEWHERE.keys() & error.messages:
            field, sentence = ELSEWHERE[name]
            if field in self.fields:
                error.messages[name] = [sentence]

    @pre_load
    def _bound(self, data: Any, **kwargs: Any) -> Any:
        """Keep only the first few unknown names: a body may be full of them, and each costs an
        error."""
        if not isinstance(data, dict):
            return data
        unknown = [name for name in data if name not in self.fields][:MOST_ERRORS]
        return {name: data[name] for name in self.fields if name in data} | {
            name[:LONGEST_NAME]: None for name in unknown
        }


def option_field(option: Option) -> fields.Field:
    """The field that loads an option, and describes it."""
    described = about(option.description, option.example)
    if option.kind is str:
        return fields.String(
            allow_none=True,
            validate=validate.Regexp(
                rf"{WORD}\Z", error=f"Give one word in ASCII, such as {option.example}."
            ),
            error_messages={"invalid": NO_STRING},
            metadata=described | {"pattern": f"^{WORD}$"},
        )
    if option.kind is list:
        text = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX, "pattern": NO_NUL}
        described |= {"type": ["array", "null"], "maxItems": TEXTS_MAX, "items": text}
        return Texts(allow_none=True, metadata=described)
    kind = "integer" if option.kind is int else "number"
    described |= {"type": [kind, "null"], "minimum": option.least}
    if isinstance(option.most, int):
        described["maximum"] = option.most
    return Number(option.kind, option.least, option.most, allow_none=True, metadata=described)


class OptionsSchema(RequestSchema.from_dict({o.name: option_field(o) for o in OPTIONS.values()})):
    """Options of requests to the provider; one that is not set is not sent."""


# For an unknown field: the field that the schema must have for this advice, and the advice.
ELSEWHERE = {
    "messages": ("content", "Send content, one message: Parley keeps the conversation."),
    "stream": ("content", "Send the header Accept: text/event-stream for a stream."),
} | dict.fromkeys(OptionsSchema().fields, ("options", "Put this into options."))


class FileRefSchema(Schema):
    """An image that you have uploaded: its id, and perhaps an alternative text. A file of a turn is
    one, too; its other fields are ignored."""

    class Meta:
        unknown = EXCLUDE

    id = fields.String(
        required=True,
        error_messages=dict.fromkeys(("required", "null", "invalid"), NO_FILE),
        metadata=about(None, FILE_ID),
    )
    alt = fields.String(
        allow_none=True,
        validate=[
            is_storable,
            validate.Length(max=ALT_MAX, error="Shorten this to at most {max} characters."),
        ],
        error_messages={"invalid": "Give a text."},
        metadata=about(
            "Describes the image to people who do not see it. No model is sent this.",
            "A heron on a post",
        ),
    )


class Files(fields.Field):
    """The files of a message: ids, or objects with an `id`. Loaded as FileRefs."""

    default_error_messages = {"invalid": f"Give a list of at most {FILES_MAX} files."}

    def __init__(self) -> None:
        super().__init__(
            allow_none=True,
            metadata=about(
                "Images that you have uploaded, in order: the id of each, or an object with its "
                "id and an alternative text.",
                [FILE_ID],
                type=["array", "null"],
                maxItems=FILES_MAX,
                items={"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/FileRef"}]},
            ),
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[FileRef]:
        if not isinstance(value, list) or len(value) > FILES_MAX:
            raise self.make_error("invalid")
        refs, faults = [], {}
        for place, each in enumerate(value):
            try:
                loaded = file_ref.load(each if isinstance(each, dict) else {"id": each})
            except ValidationError as error:
                # For an item that should be an id, the error is that of the item.
                faults[place] = error.messages if isinstance(each, dict) else [NO_FILE]
            else:
                refs.append(FileRef(loaded["id"], (loaded.get("alt") or "").strip()))
        if faults:
            raise ValidationError(faults)
        return refs


file_ref = FileRefSchema()


class MessageFields(RequestSchema):
    """A message: words, files, or both."""

    @validates_schema(skip_on_field_errors=False)
    def _refuse_empty(self, data: dict[str, Any], **kwargs: Any) -> None:
        is_blank = data.get("content") is not None and not data["content"].strip()
        if is_blank and not data.get("files"):
            raise ValidationError("Give some text; this is blank.", "content")


class NewSessionSchema(MessageFields):
    """Request body for starting a new session."""

    content = Words(
        required=True,
        metadata=about(
            "The initial user message to start the session. With `files`, it may be empty.",
            FIRST_MESSAGE,
        ),
    )
    files = Files()
    model = Text(
        short,
        allow_none=True,
        metadata=about(
            "LLM model to use. If omitted, the server default is used. `GET /models` lists them.",
            *MODELS,
        ),
    )
    system = Text(
        allow_none=True,
        metadata=about("System prompt for the session.", "You are a helpful coding assistant."),
    )
    options = fields.Nested(
        OptionsSchema,
        allow_none=True,
        metadata=about("For all replies of the session, until they are changed."),
    )


class ChangeSchema(RequestSchema):
    """Changes to a session. A field that is left out stays as it is."""

    title = Text(
        short,
        metadata=about("A title of the user's own; the server never overwrites it.", "Rate limits"),
    )
    pinned = fields.Raw(
        validate=is_truth,
        metadata=about("Pinned sessions come first in `GET /sessions`.", type="boolean"),
    )
    model = Text(
        short,
        metadata=about(
            "The model that writes from the next reply on: an id that `GET /models` lists.",
            *MODELS,
        ),
    )
    system = Text(
        allow_none=True,
        metadata=about(
            "The system prompt from the next reply on; null clears it.",
            "You are a helpful coding assistant.",
        ),
    )
    options = fields.Nested(
        OptionsSchema,
        allow_none=True,
        metadata=about(
            "From the next reply on. An option that is left out stays; null clears one, or all."
        ),
    )


class MessageSchema(MessageFields):
    """Request body for another user message."""

    content = Words(
        required=True,
        metadata=about("The user's message. With `files`, it may be empty.", "And per user?"),
    )
    files = Files()


class RetrySchema(MessageFields):
    """Request body for another reply, perhaps to a changed message."""

    content = Words(
        allow_none=True,
        metadata=about(
            "Change the last message to this first. Then the new reply replaces the old one, "
            "however it ends. Without `files`, the message has none any more."
        ),
    )
    files = Files()


class ForkSchema(RequestSchema):
    """Request body for a copy."""

    turn = fields.String(
        allow_none=True,
        error_messages={"invalid": "Give the id of a turn."},
        metadata=about(
            "The id of the last turn to copy, by default the last that is shown. A version of a "
            "reply is copied in the reply's place.",
            "941464799167511066",
        ),
    )


class EmptySchema(RequestSchema):
    """An object without fields."""


class QuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE  # other parameters are ignored

    @pre_load
    def _refuse_short_names(self, data: Any, **kwargs: Any) -> Any:
        """`limit` in the place of `page[limit]` would be ignored, too, but is a mistake."""
        faults = {
            name: [f"Use {field.data_key}."]
            for name, field in self.fields.items()
            if field.data_key and name in data
        }
        if faults:
            raise ValidationError(faults)
        return data


class PageSchema(QuerySchema):
    # The handler clamps it.
    limit = WholeNumber(
        "Give a whole number from 1 to 100.",
        data_key="page[limit]",
        load_default=20,
        metadata=about("How many sessions to return; clamped to 1–100."),
    )
    offset = WholeNumber(
        "Give a whole number, 0 or more.",
        0,
        2**53,
        data_key="page[offset]",
        load_default=0,
        metadata=about("How many sessions to skip."),
    )
    query = fields.String(
        load_default="",
        validate=[is_storable, short],
        metadata=about(
            "Words, each of which must occur in the title or in a turn, perhaps within a longer "
            "word, in any case.",
            pattern=NO_NUL,
        ),
    )


class TurnsPageSchema(QuerySchema):
    # The handler clamps it.
    limit = WholeNumber(
        "Give a whole number from 1 to 200.",
        data_key="turns[limit]",
        metadata=about(
            "How many of the last turns to return; clamped to 1–200. By default 50 if "
            "`turns[before]` is given, else all. Never more than 8 MiB together."
        ),
    )
    # A string in the document: an id is too large for a number in JavaScript.
    before = WholeNumber(
        "Give the id of a turn.",
        0,
        2**63 - 1,
        data_key="turns[before]",
        metadata=about(
            "The id of a turn: return only turns before it.",
            type="string",
            minimum=None,
            maximum=None,
            pattern="^[0-8]?[0-9]{1,18}$",
        ),
    )


# A turn, from the descriptions of its columns

_COLUMNS = {description_of(each).shown: each for each in described_for(Turn, "shown")}


class FileSchema(Schema):
    """An image that a user has uploaded."""

    id = fields.String(
        required=True,
        metadata=about("The SHA-256 of its bytes, in hexadecimal digits.", FILE_ID),
    )
    media_type = fields.String(required=True, metadata=about(enum=["image/jpeg", "image/png"]))
    width = fields.Integer(required=True, metadata=about("In pixels, as it is displayed.", 640))
    height = fields.Integer(required=True, metadata=about("In pixels, as it is displayed.", 480))
    size = fields.Integer(required=True, metadata=about("In bytes.", 123456))
    alt = fields.String(metadata=about("The alternative text, if the message gave one."))


def _field_of(column: peewee.Field) -> fields.Field:
    """The field of a column. Its type follows from the function that makes its JSON, if there is
    one, or else from the column."""
    description = description_of(column)
    if description.as_json is json_of_files:
        return fields.List(
            fields.Nested(FileSchema), required=True, metadata=about(description.sentence)
        )
    kinds = {str: fields.String, time_of: Timestamp, seconds_of: fields.Float}
    of_type = fields.String if isinstance(column, peewee.TextField) else fields.Integer
    return kinds.get(description.as_json, of_type)(
        required=not description.for_operator,
        allow_none=description.null,
        metadata=about(description.sentence, **description.document),
    )


def _schema_of(name: str, part: Part) -> type[Schema]:
    """The schema of a nested object in a turn."""
    keys = {
        path.partition(".")[2]: _field_of(column)
        for path, column in _COLUMNS.items()
        if path.startswith(f"{name}.")
    }
    return type(f"{part.schema}Schema", (Schema.from_dict(keys),), {"__doc__": part.purpose})


_PARTS = {name: _schema_of(name, part) for name, part in Turn.PARTS.items()}
ModelSchema, TurnErrorSchema = _PARTS["model"], _PARTS["error"]


def _fields_of_turn(use: str) -> dict[str, fields.Field]:
    """The fields of turns whose description has `use` set: "of_messages" or "of_replies"."""
    found: dict[str, fields.Field] = {}
    for path, column in _COLUMNS.items():
        name = path.partition(".")[0]
        if not getattr(description_of(column), use):
            continue
        found[name] = _nested(name) if name in _PARTS else _field_of(column)
    return found


def _nested(name: str) -> fields.Nested:
    part = Turn.PARTS[name]
    is_nullable = bool(part.null_without)
    return fields.Nested(
        _PARTS[name], required=True, allow_none=is_nullable, metadata=about(part.sentence)
    )


class UserTurnSchema(Schema.from_dict(_fields_of_turn("of_messages"))):
    """A message of the user."""

    kind = fields.String(required=True, metadata=about(const="user"))


class AssistantTurnSchema(Schema.from_dict(_fields_of_turn("of_replies"))):
    """A reply of the model."""

    kind = fields.String(required=True, metadata=about(const="assistant"))


class MetaSchema(Schema):
    """Facts about the list."""

    has_more = fields.Boolean(
        required=True,
        metadata=about("Whether there are more than these: older turns, or sessions after them."),
    )


class ThinkingTextSchema(Schema):
    """What the model thought."""

    text = fields.String(
        required=True,
        metadata=about(
            "At most 262,144 characters. While the reply is in progress, what is stored so far."
        ),
    )


class VersionsSchema(Schema):
    """The versions of a reply."""

    data = fields.List(
        fields.Nested(AssistantTurnSchema),
        required=True,
        metadata=about("The newest first.", maxItems=VERSIONS_MAX),
    )


class SessionSchema(Schema):
    """A session, without its turns."""

    id = fields.UUID(required=True, metadata=about("Unique identifier of the session.", SESSION_ID))
    title = fields.String(
        required=True,
        metadata=about(
            "Server-generated title for the session.", "Add rate limiting to auth endpoints"
        ),
    )
    model = ModelField(ModelSchema, required=True)
    created_at = Timestamp(
        required=True, metadata=about("Timestamp when the session was created.", TIME)
    )
    updated_at = Timestamp(required=True, metadata=about(LAST_UPDATE, TIME))


class CreatedSessionSchema(SessionSchema):
    """Response returned after successfully creating a session.

    A repeated `Idempotency-Key` gets the same answer again, so `updated_at` is always the time of
    creation."""

    id = fields.UUID(
        required=True,
        metadata=about("Unique identifier for the newly created session.", SESSION_ID),
    )
    updated_at = Timestamp(
        attribute="created_at",
        required=True,
        dump_only=True,  # marshmallow would not load two fields from one attribute
        metadata=about(LAST_UPDATE, TIME),
    )


class Pinned(fields.Boolean):
    def __init__(self) -> None:
        super().__init__(required=True, metadata=about("Whether it comes before others in lists."))


class ListedSessionSchema(SessionSchema):
    """A session in a list."""

    pinned = Pinned()

    last_message_preview = fields.String(
        attribute="preview",
        required=True,
        metadata=about("The first 100 characters of the last turn that has text."),
    )
    found = fields.String(
        allow_none=True,
        metadata=about(
            "With a `query`: about 100 characters around the first match, in the newest turn that "
            "contains one of the words. Null if the match is in the title, or that turn has more "
            "than 65,536 bytes."
        ),
    )


class ChangedSessionSchema(SessionSchema):
    """A session with its system prompt and options, without its turns."""

    pinned = Pinned()

    system = fields.String(
        required=True, allow_none=True, metadata=about("System prompt for the session.")
    )
    options = fields.Raw(
        required=True,
        metadata=about("Options that are set.", **{"$ref": "#/components/schemas/Options"}),
    )


class WholeSessionSchema(ChangedSessionSchema):
    """A session with its turns, oldest first."""

    turns = fields.List(
        fields.Raw(),
        required=True,
        metadata=about("Oldest first.", items={"$ref": "#/components/schemas/Turn"}),
    )
    meta = fields.Nested(MetaSchema, required=True)


created_session_schema = CreatedSessionSchema()
changed_session_schema = ChangedSessionSchema()
