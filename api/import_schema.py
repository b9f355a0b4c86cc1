"""The schema of an import: a line of an export, or one conversation of another product's export."""

import calendar
import datetime
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import peewee
from flask import current_app
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema

import formats
import turns
from api import errors
from database import SECOND, connected
from formats.common import LeftOut, Unreadable
from models import Turn
from providers.options import OPTIONS
from replies.thinking import MOST
from schemas import (
    FILE_ID,
    MISSING,
    MOST_ERRORS,
    NO_NUL,
    NO_STRING,
    Files,
    Number,
    OptionsSchema,
    RequestSchema,
    Text,
    about,
    is_storable,
    is_truth,
    option_field,
    short,
)
from tables.files import owned
from tables.ledger import MOST_TOKENS

MOST_TURNS = 10_000
LONGEST_TEXT = 8 * 2**20  # bytes of a turn, which must fit into one answer
LONGEST_ORIGIN = 255  # characters
LONGEST_ERROR = 2000  # characters
LONGEST_THINKING = 10**9  # seconds
AHEAD = 60  # seconds by which clocks may differ
# A string in JSON. Ten thousand messages of ChatGPT have some 350,000, and 2 MB outside of strings.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
MOST_STRINGS, MOST_OTHERS = 500_000, 2**22
TOO_MANY = "It has more values than ten thousand turns have."
AGO, A_TIME = "2023-03-06T16:00:00Z", {"type": ["string", "null"], "format": "date-time"}
INSTANT = re.compile(  # RFC 3339, section 5.6
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class String(fields.String):
    default_error_messages = {"required": MISSING, "null": NO_STRING, "invalid": NO_STRING}


class Instant(fields.Field):
    """A time in the past, from 1970 on, in the format of RFC 3339; loaded as microseconds."""

    default_error_messages = {
        "invalid": "Give a time like 2026-03-06T16:00:00Z, from 1970 on.",
        "future": "Give a time in the past: this one is in the future.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not INSTANT.fullmatch(value):
            raise self.make_error("invalid")
        try:
            found = datetime.datetime.fromisoformat(value.upper())
            seconds = calendar.timegm(found.utctimetuple())
        except (ValueError, OverflowError):
            raise self.make_error("invalid") from None
        if seconds < 0:
            raise self.make_error("invalid")
        if seconds > time.time() + AHEAD:
            raise self.make_error("future")
        return seconds * SECOND + found.microsecond


class Whole(Number):
    """A whole number from `least` to `most`."""

    default_error_messages = {"required": MISSING}

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        kind = ["integer", "null"] if kwargs.get("allow_none") else "integer"
        described = about(type=kind, minimum=least, maximum=most)
        super().__init__(int, least, most, metadata=described, **kwargs)


class Turns(fields.Field):
    """Turns of both kinds, of which the first is the user's; few enough that to check them all does
    not hold up other requests."""

    default_error_messages = dict.fromkeys(
        ("required", "null", "invalid"), f"Give a list of 1 to {MOST_TURNS:,} turns."
    )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_TURNS:
            raise self.make_error("invalid")
        turns, faults = [], {}
        for place, turn in enumerate(value):
            try:
                turns.append(load_turn(turn, is_first=place == 0))
            except ValidationError as error:
                faults[place] = error.normalized_messages()
                if len(faults) == MOST_ERRORS:
                    break
        if faults:
            raise ValidationError(faults)
        return turns


def one_of(*choices: str, **kwargs: Any) -> fields.Raw:
    error = f"Give {' or '.join(choices)}."
    messages = dict.fromkeys(("required", "null"), error)
    return fields.Raw(
        validate=validate.OneOf(choices, error=error), error_messages=messages, **kwargs
    )


def the_kind(kind: str) -> fields.Raw:
    return one_of(kind, required=True, metadata=about(type="string", enum=None, const=kind))


class Seconds(fields.Field):
    """A number of seconds, with or without a fraction; loaded as milliseconds."""

    default_error_messages = dict.fromkeys(
        ("null", "invalid"), "Give a number of seconds, 0 or more."
    )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= LONGEST_THINKING:
            raise self.make_error("invalid")
        return round(value * 1000)


class ImportedThinkingSchema(RequestSchema):
    """What the model thought."""

    seconds = Seconds(
        allow_none=True,
        metadata=about(type=["number", "null"], minimum=0, maximum=LONGEST_THINKING),
    )
    text = String(
        required=True,
        validate=[
            is_storable,
            validate.Length(max=MOST, error="Shorten this to at most {max:,} characters."),
        ],
        metadata=about(pattern=NO_NUL),
    )


class ImportedErrorSchema(RequestSchema):
    """Why a reply failed."""

    status = Whole(400, 599, required=True)
    message = Text(
        validate.Length(max=LONGEST_ERROR, error="Shorten this to at most {max:,} characters."),
        required=True,
    )


class ImportedOptionsSchema(OptionsSchema):
    """Options of requests to the provider."""

    max_tokens = option_field(  # another server may have allowed more than this one
        OPTIONS["max_tokens"]._replace(
            description="The longest reply, in tokens.", most=MOST_TOKENS
        )
    )


def is_no_longer_than_a_page(value: str) -> None:
    _check_bytes(value, LONGEST_TEXT)


def is_no_longer_than_a_body(value: str) -> None:
    """The limit of a system prompt that is set by a request."""
    _check_bytes(value, current_app.config["MAX_CONTENT_LENGTH"])


def _check_bytes(value: str, most: int) -> None:
    if len(value) > most // 4 and len(value.encode(errors="replace")) > most:
        raise ValidationError(f"Shorten this to at most {most:,} bytes.")


class ImportedUserTurnSchema(RequestSchema):
    """A message of the user."""

    id = String(allow_none=True, metadata=about("Not kept: the server makes another."))
    kind = the_kind("user")
    content = String(
        required=True,
        validate=[is_storable, is_no_longer_than_a_page],
        metadata=about("With `files`, it may be empty.", pattern=NO_NUL),
    )
    files = Files()
    created_at = Instant(
        allow_none=True,
        metadata=about(
            "When it was sent, from 1970 on, and not in the future; by default at the time of the "
            "turn before.",
            AGO,
            **A_TIME,
        ),
    )

    @validates_schema
    def _refuse_empty(self, data: dict[str, Any], **kwargs: Any) -> None:
        if not (data["content"].strip() or data.get("files")):
            raise ValidationError("Give some text; this is blank.", "content")


def _field_of(column: peewee.Field) -> fields.Field:
    """The field of a column for which no schema here has a field of its own."""
    if isinstance(column, peewee.TextField):
        return Text(short, allow_none=True)
    return Whole(0, MOST_TOKENS, allow_none=True)


def _fields_of_reply() -> dict[str, fields.Field]:
    """A field for each column that an export has, made from its description in `models.py`."""
    found: dict[str, fields.Field] = {}
    parts: dict[str, dict[str, fields.Field]] = {}
    for path, column in turns.EXPORTED.columns.items():
        name, _, key = path.partition(".")
        if key:
            parts.setdefault(name, {})[key] = _field_of(column)
        else:
            found[name] = _field_of(column)
    for name, keys in parts.items():
        schema = RequestSchema.from_dict(keys, name=f"Imported{Turn.PARTS[name].schema}Schema")
        schema.__doc__ = Turn.PARTS[name].purpose
        found[name] = fields.Nested(schema, allow_none=True)
    return found


class ImportedReplySchema(RequestSchema.from_dict(_fields_of_reply())):
    """A reply of a model."""

    id = String(allow_none=True, metadata=about("Not kept: the server makes another."))
    kind = the_kind("assistant")
    content = String(
        required=True,
        validate=[is_storable, is_no_longer_than_a_page],
        metadata=about(pattern=NO_NUL),
    )
    created_at = Instant(
        allow_none=True,
        metadata=about(
            "When it was asked for, from 1970 on, and not in the future; by default at the time of "
            "the turn before.",
            AGO,
            **A_TIME,
        ),
    )
    model = Text(
        short,
        allow_none=True,
        metadata=about("The model's name, only as a label. By default the session's model."),
    )
    status = one_of(
        *("complete", "failed", "interrupted"),
        allow_none=True,
        metadata=about("By default `complete`.", type=["string", "null"]),
    )
    stop_reason = one_of(
        *("stop", "length"),
        allow_none=True,
        metadata=about("Kept if the reply is complete.", type=["string", "null"]),
    )
    error = fields.Nested(
        ImportedErrorSchema, allow_none=True, metadata=about("Kept if the reply failed.")
    )
    thinking = fields.Nested(ImportedThinkingSchema, allow_none=True)


TURNS = {"user": ImportedUserTurnSchema(), "assistant": ImportedReplySchema()}


def load_turn(turn: Any, is_first: bool) -> dict[str, Any]:
    """A turn, loaded by the schema of its kind. Raises ValidationError."""
    if not isinstance(turn, dict):
        raise ValidationError(RequestSchema.error_messages["type"])
    kind = turn.get("kind")
    if not isinstance(kind, str) or kind not in TURNS:
        raise ValidationError("Give a kind, user or assistant.", "kind")
    if is_first and kind != "user":
        raise ValidationError("Begin with a turn of the user.", "kind")
    return TURNS[kind].load(turn)


class ImportSchema(RequestSchema):
    """A session from elsewhere. A field that is null counts as missing."""

    id = String(allow_none=True, metadata=about("Not kept: the server makes another."))
    origin = String(
        allow_none=True,
        validate=[
            is_storable,
            validate.Length(1, LONGEST_ORIGIN, error="Give from {min} to {max} characters."),
        ],
        metadata=about(
            "Where the session comes from. A session that you already have from there is not "
            "imported again.",
            "chatgpt:1",
            pattern=NO_NUL,
        ),
    )
    title = Text(short, allow_none=True, metadata=about("By default made from the first message."))
    title_is_users = fields.Raw(
        allow_none=True,
        validate=is_truth,
        metadata=about("Whether the user chose it.", type=["boolean", "null"]),
    )
    pinned = fields.Raw(
        allow_none=True,
        validate=is_truth,
        metadata=about("Not kept if too many are pinned.", type=["boolean", "null"]),
    )
    model = Text(
        short,
        allow_none=True,
        metadata=about("If it is not served here, the default takes its place."),
    )
    system = Text(
        is_no_longer_than_a_body,
        allow_none=True,
        metadata=about("System prompt for the session."),
    )
    options = fields.Nested(
        ImportedOptionsSchema,
        allow_none=True,
        metadata=about("For all replies of the session, until they are changed."),
    )
    created_at = Instant(
        allow_none=True,
        metadata=about("By default the time of the first turn, else now.", AGO, **A_TIME),
    )
    updated_at = Instant(
        allow_none=True,
        metadata=about("By default the time of the last turn.", AGO, **A_TIME),
    )
    turns = Turns(
        required=True,
        metadata=about(
            "Oldest first; the first is the user's.",
            type="array",
            minItems=1,
            maxItems=MOST_TURNS,
            prefixItems=[{"$ref": "#/components/schemas/ImportedUserTurn"}],
            items={
                "anyOf": [
                    {"$ref": "#/components/schemas/ImportedUserTurn"},
                    {"$ref": "#/components/schemas/ImportedReply"},
                ]
            },
        ),
    )


class ExportedConversationSchema(Schema):
    """A conversation of ChatGPT, Claude or Open WebUI, exactly as in the export; or a line of an
    export of Parley, whose `origin` becomes `parley:` and its id."""

    class Meta:
        unknown = INCLUDE


class Uploads(fields.Field):
    """The ids of uploaded files, by other ids."""

    default_error_messages = {"invalid": "Give an object: for each image, the id of its file."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        faults = {
            asset: ["Give the id of a file."]
            for asset, each in value.items()
            if not isinstance(each, str)
        }
        if faults:
            raise ValidationError(dict(list(faults.items())[:MOST_ERRORS]))
        return value


class ImportedConversationSchema(Schema):
    """One conversation of another product. The server sets `origin`: `chatgpt:`, `claude:` or
    `openwebui:`, and its id there."""

    conversation = fields.Nested(ExportedConversationSchema, required=True)
    files = Uploads(
        allow_none=True,
        metadata=about(
            "Which of its images you have uploaded: the id of each image in the export, and that "
            "of its file. Other images become `[image]`.",
            {"file-AbC": FILE_ID},
            type=["object", "null"],
            additionalProperties={"type": "string"},
        ),
    )


import_schema, uploads = ImportSchema(), Uploads()


def has_too_many_values(data: bytes | bytearray) -> bool:
    """Whether this JSON has more values than a conversation could have. For millions of them `json`
    holds the GIL for seconds, and takes a hundred times their bytes."""
    others, count = STRING.subn(b"", data, count=MOST_STRINGS)
    return count == MOST_STRINGS or len(others.translate(None, b" \t\r\n")) > MOST_OTHERS


class Import(NamedTuple):
    """A session to import."""

    fields: dict[str, Any]  # as `import_schema` loads them
    left_out: LeftOut = LeftOut()
    uploaded: Mapping[str, str] | None = None  # of a conversation: the files of its images

    def place_of(self, pointer: str) -> str:
        """The place in the request of a file that is at this place in the fields."""
        if self.uploaded is None:
            return pointer
        _, _, turn, _, place = pointer.split("/")
        wanted = self.fields["turns"][int(turn)]["files"][int(place)].id
        asset = next(asset for asset, file_id in self.uploaded.items() if file_id == wanted)
        return errors.pointer_to("/files", asset)


def load_import(body: Any, owner: str) -> Import:
    """The session in this body. The body has the session's fields, or only `conversation` and
    `files`. Raises ValidationError."""
    if not isinstance(body, dict) or "conversation" not in body:
        return Import(import_schema.load(body))
    conversation = body.pop("conversation")
    if conversation is None:
        return Import(import_schema.load(body))
    files = body.pop("files", None)
    try:
        uploaded = {} if files is None else uploads.deserialize(files)
    except ValidationError as error:
        raise ValidationError({"files": error.messages}) from None
    known_names = import_schema.fields
    if any(value is not None or name not in known_names for name, value in body.items()):
        raise ValidationError("Send it without other fields.", "conversation")
    try:
        return load_conversation(conversation, uploaded, owner)
    except ValidationError as error:
        raise ValidationError({"conversation": error.messages}) from None


def load_conversation(conversation: Any, uploaded: Mapping[str, str], owner: str) -> Import:
    """One conversation of an export of Parley or of another product, with those of its images that
    are uploaded, by their ids in the export. Of an export of Parley, these are also the files that
    the owner has. Raises ValidationError. Its messages have the paths of fields only for an export
    of Parley: other formats have other paths."""
    try:
        if formats.is_own(conversation) and (ids := formats.images_of(conversation)):
            with connected():
                uploaded = {each: each for each in owned(owner, ids)} | dict(uploaded)
        body, left_out = formats.convert(conversation, uploaded)
    except Unreadable as error:
        raise ValidationError(str(error)) from None
    try:
        return Import(import_schema.load(body), left_out, uploaded)
    except ValidationError as error:
        if formats.is_own(conversation):
            raise
        raise ValidationError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, for a person:
    `turns/3/content: Give some text; this is blank.`"""
    sentence, source = errors.details_of(error)[0]
    place = source["pointer"].removeprefix("/") if source else ""
    return f"{place}: {sentence}" if place else sentence
