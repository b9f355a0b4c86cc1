"""What an import may be: a line of an export, or a conversation of somebody else's, and how what is
wrong with one is told."""

import calendar
import datetime
import re
import time
from typing import Any

from flask import current_app
from marshmallow import ValidationError, fields, validate

from api import errors
from database import SECOND
from replies.thinking import MOST
from schemas import (
    MISSING,
    MOST_ERRORS,
    NO_STRING,
    OptionsSchema,
    RequestSchema,
    Text,
    is_whole,
    short,
    storable,
)
from tables.ledger import MOST_TOKENS

MOST_TURNS = 10_000
LONGEST_TEXT = 8 * 2**20  # bytes of a turn, that is of what is shown at once
LONGEST_ORIGIN = 255  # characters
LONGEST_ERROR = 2000  # characters
LONGEST_THINKING = 10**9  # seconds
AHEAD = 60  # seconds by which clocks may differ
INSTANT = re.compile(  # RFC 3339, section 5.6
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class String(fields.String):
    default_error_messages = {"required": MISSING, "null": NO_STRING, "invalid": NO_STRING}


class Instant(fields.Field):
    """A time that has been, from 1970 on, as RFC 3339 writes it; loaded as microseconds."""

    default_error_messages = {
        "invalid": "Give a time like 2026-03-06T16:00:00Z, from 1970 on.",
        "future": "Give a time that has been: this one lies in the future.",
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


class Whole(fields.Field):
    """A whole number from `least` to `most`."""

    default_error_messages = {"required": MISSING}

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        is_whole(value, self.least, self.most)
        return int(value)


class Turns(fields.Field):
    """Turns of both kinds, of which the first is the user's; and no more than hold up nobody while
    each is looked at."""

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


def is_truth(value: Any) -> None:
    if not isinstance(value, bool):
        raise ValidationError("Give true or false.")


def one_of(*choices: str, **kwargs: Any) -> fields.Raw:
    error = f"Give {' or '.join(choices)}."
    messages = dict.fromkeys(("required", "null"), error)
    return fields.Raw(
        validate=validate.OneOf(choices, error=error), error_messages=messages, **kwargs
    )


class ImportedUsageSchema(RequestSchema):
    input_tokens = Whole(0, MOST_TOKENS, allow_none=True)
    output_tokens = Whole(0, MOST_TOKENS, allow_none=True)
    cached_tokens = Whole(0, MOST_TOKENS, allow_none=True)


class Seconds(fields.Field):
    """A number of seconds, which need not be whole; loaded as milliseconds."""

    default_error_messages = dict.fromkeys(
        ("null", "invalid"), "Give a number of seconds, 0 or more."
    )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= LONGEST_THINKING:
            raise self.make_error("invalid")
        return round(value * 1000)


class ImportedThinkingSchema(RequestSchema):
    seconds = Seconds(allow_none=True)
    text = String(
        required=True,
        validate=[
            storable,
            validate.Length(max=MOST, error="Shorten this to at most {max:,} characters."),
        ],
    )


class ImportedErrorSchema(RequestSchema):
    status = Whole(400, 599, required=True)
    message = Text(
        validate.Length(max=LONGEST_ERROR, error="Shorten this to at most {max:,} characters."),
        required=True,
    )


class ImportedOptionsSchema(OptionsSchema):
    max_tokens = Whole(1, MOST_TOKENS, allow_none=True)  # also more than this server allows


def is_no_longer_than_a_page(value: str) -> None:
    _check_bytes(value, LONGEST_TEXT)


def is_no_longer_than_a_body(value: str) -> None:
    """As a system prompt is that does not come by an import."""
    _check_bytes(value, current_app.config["MAX_CONTENT_LENGTH"])


def _check_bytes(value: str, most: int) -> None:
    if len(value) > most // 4 and len(value.encode(errors="replace")) > most:
        raise ValidationError(f"Shorten this to at most {most:,} bytes.")


class ImportedUserTurnSchema(RequestSchema):
    id = String(allow_none=True)  # another is made
    kind = one_of("user", required=True)
    content = Text(is_no_longer_than_a_page, required=True)
    created_at = Instant(allow_none=True)


class ImportedReplySchema(RequestSchema):
    id = String(allow_none=True)  # another is made
    kind = one_of("assistant", required=True)
    content = String(required=True, validate=[storable, is_no_longer_than_a_page])
    created_at = Instant(allow_none=True)
    model = Text(short, allow_none=True)
    status = one_of("complete", "failed", "interrupted", allow_none=True)
    # Kept where it is complete.
    stop_reason = one_of("stop", "length", allow_none=True)
    usage = fields.Nested(ImportedUsageSchema, allow_none=True)
    # Kept where it failed.
    error = fields.Nested(ImportedErrorSchema, allow_none=True)
    thinking = fields.Nested(ImportedThinkingSchema, allow_none=True)


TURNS = {"user": ImportedUserTurnSchema(), "assistant": ImportedReplySchema()}


def load_turn(turn: Any, is_first: bool) -> dict[str, Any]:
    """A turn as the schema of its kind loads it. Raises ValidationError."""
    if not isinstance(turn, dict):
        raise ValidationError(RequestSchema.error_messages["type"])
    kind = turn.get("kind")
    if not isinstance(kind, str) or kind not in TURNS:
        raise ValidationError("Give a kind, user or assistant.", "kind")
    if is_first and kind != "user":
        raise ValidationError("Begin with a turn of the user.", "kind")
    return TURNS[kind].load(turn)


class ImportSchema(RequestSchema):
    id = String(allow_none=True)  # another is made
    origin = String(
        allow_none=True,
        validate=[
            storable,
            validate.Length(1, LONGEST_ORIGIN, error="Give from {min} to {max} characters."),
        ],
    )
    title = Text(short, allow_none=True)
    title_is_users = fields.Raw(allow_none=True, validate=is_truth)
    model = Text(short, allow_none=True)
    system = Text(is_no_longer_than_a_body, allow_none=True)
    options = fields.Nested(ImportedOptionsSchema, allow_none=True)
    created_at = Instant(allow_none=True)
    updated_at = Instant(allow_none=True)
    turns = Turns(required=True)


import_schema = ImportSchema()
fork_schema = RequestSchema.from_dict(
    {"turn": fields.String(allow_none=True, error_messages={"invalid": "Give the id of a turn."})},
    name="ForkSchema",
)()


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, and where, in a sentence for a person:
    `turns/3/content: Give some text; this is blank.`"""
    sentence, source = errors.details_of(error)[0]
    place = source["pointer"].removeprefix("/") if source else ""
    return f"{place}: {sentence}" if place else sentence
