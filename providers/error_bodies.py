"""Reading the body of a provider's error, in any of the shapes that servers use."""

import json
import pathlib
import re
import tomllib
from typing import Any, NamedTuple

import wire

MESSAGE_MAX = 2000  # characters of a message
CODE_MAX = 100  # characters of a type or a code
EXTRA_FIELD_TYPES = ("extra_forbidden", "value_error.extra")  # in pydantic 2 and 1

_EXTRA_INPUT = re.compile(r"\A(\w+): Extra inputs are not permitted\Z")
TABLES = tomllib.loads(pathlib.Path(__file__).with_name("faults.toml").read_text("utf-8"))
_WORDS = {
    name: re.compile("|".join(patterns), re.IGNORECASE)
    for name, patterns in TABLES["words"].items()
}


class ErrorDetails(NamedTuple):
    """An error's type, code and message."""

    kind: str
    code: str
    message: str

    def says(self, name: str) -> re.Match[str] | None:
        """Whether the type, the code or the message matches this row of `faults.toml`. The message
        may quote the user, so what it says must change nothing for anybody else."""
        return _WORDS[name].search(" ".join(self))


def describe(body: Any) -> ErrorDetails:
    error = _inner(body)
    message = error.get("message") or error.get("detail") or ""
    if not isinstance(message, str):
        message = json.dumps(message)
    message = "".join(wire.made_storable([" ".join(message[:MESSAGE_MAX].split())]))
    details = error.get("details")  # Anthropic
    inner = details.get("error_code") if isinstance(details, dict) else None
    kind, code = str(error.get("type") or ""), str(error.get("code") or inner or "")
    return ErrorDetails(kind[:CODE_MAX], code[:CODE_MAX], message)


def _inner(body: Any) -> dict[str, Any]:
    """The object with the error's fields, whatever it is wrapped in. A bare text is its
    `message`."""
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    error = (body.get("error") or body) if isinstance(body, dict) else body
    return error if isinstance(error, dict) else {"message": error}


def is_error(body: Any) -> bool:
    """Whether this JSON, which came as an answer or an event, is an error."""
    body = body[0] if isinstance(body, list) and body else body
    if "error" in (body.get("type"), body.get("object")):
        return True
    if body.get("error") not in (None, False, ""):
        return True
    has_words = "detail" in body or "message" in body
    return has_words and body.keys().isdisjoint({"choices", "type", "id", "object"})


def unsupported(body: Any) -> dict[str, bool]:
    """The parameters that an error refuses → True if a field names them, which cannot contain what
    the user wrote; False if only a sentence does.

    OpenAI (platform.openai.com/docs/guides/error-codes), by fields:
        {"error": {"code": "unsupported_parameter", "param": "max_tokens"}}
    Pydantic (docs.pydantic.dev/latest/errors/validation_errors), as in vLLM, by fields; in
    Mistral's, within `message`:
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}
    Anthropic, by a sentence alone:
        {"error": {"message": "cache_control: Extra inputs are not permitted"}}
    """
    error = _inner(body)
    message = error.get("message")
    details = (message if isinstance(message, dict) else error).get("detail")
    names: list[Any] = []
    if error.get("code") in ("unsupported_parameter", "unknown_parameter"):
        names = [error.get("param")]
    elif isinstance(message, str) and (match := _EXTRA_INPUT.search(message)):
        return {match[1]: False}
    elif isinstance(details, list):
        for detail in details:
            if isinstance(detail, dict) and detail.get("type") in EXTRA_FIELD_TYPES:
                place = detail.get("loc")
                if isinstance(place, list):
                    names += [name for name in place if name != "body"][:1]
    return {name: True for name in names if isinstance(name, str)}
