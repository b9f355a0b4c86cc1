"""What the body of a provider's error says, in any of the shapes that servers give it."""

import json
import pathlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

import wire
from providers.quotations import Sent

LONGEST = 2000  # characters of a message that are looked at
LONGEST_WORD = 100  # of a type or a code
EXTRA_FIELD = ("extra_forbidden", "value_error.extra")  # pydantic's types, of 2 and of 1

_EXTRA_INPUT = re.compile(r"\A(\w+): Extra inputs are not permitted\Z")
TABLES = tomllib.loads(pathlib.Path(__file__).with_name("faults.toml").read_text("utf-8"))
_WORDS = {
    name: re.compile("|".join(patterns), re.IGNORECASE)
    for name, patterns in TABLES["words"].items()
}


class Said(NamedTuple):
    """What an error tells of itself."""

    kind: str
    code: str
    message: str

    def says(self, name: str, sent: Sent) -> re.Match[str] | None:
        """Where the type, the code or the message says this, in the provider's own words. The first
        two quote nothing of the request."""
        start = len(self.kind) + len(self.code) + 2
        return sent.own(_WORDS[name], " ".join(self), start)


def describe(body: Any) -> Said:
    error = _inner(body)
    message = error.get("message") or error.get("detail") or ""
    if not isinstance(message, str):
        message = json.dumps(message)
    message = "".join(wire.made_storable([" ".join(message[:LONGEST].split())]))
    details = error.get("details")  # of Anthropic's
    inner = details.get("error_code") if isinstance(details, dict) else None
    kind, code = str(error.get("type") or ""), str(error.get("code") or inner or "")
    return Said(kind[:LONGEST_WORD], code[:LONGEST_WORD], message)


def _inner(body: Any) -> dict[str, Any]:
    """The part of an error's body that tells of it, whatever it is wrapped in; a bare text is its
    `message`."""
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    error = (body.get("error") or body) if isinstance(body, dict) else body
    return error if isinstance(error, dict) else {"message": error}


def is_error(body: Any) -> bool:
    """Whether this JSON, which came where an answer may come, tells of an error."""
    body = body[0] if isinstance(body, list) and body else body
    if "error" in (body.get("type"), body.get("object")):
        return True
    if body.get("error") not in (None, False, ""):
        return True
    has_words = "detail" in body or "message" in body
    return has_words and body.keys().isdisjoint({"choices", "type", "id", "object"})


def unsupported(body: Any, sent: Sent) -> list[str]:
    """The parameters that were refused, by the structure of the error; its text may quote the user.

    OpenAI (platform.openai.com/docs/guides/error-codes):
        {"error": {"code": "unsupported_parameter", "param": "max_tokens"}}
    Anthropic, with nothing else in it:
        {"error": {"message": "cache_control: Extra inputs are not permitted"}}
    Pydantic (docs.pydantic.dev/latest/errors/validation_errors), as in vLLM; in Mistral's, within
    `message`:
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}
    """
    return [name for name in _named(_inner(body), sent) if isinstance(name, str)]


def _named(error: dict[str, Any], sent: Sent) -> Iterator[Any]:
    if error.get("code") in ("unsupported_parameter", "unknown_parameter"):
        yield error.get("param")
        return
    message = error.get("message")
    if isinstance(message, str) and (match := sent.own(_EXTRA_INPUT, message)):
        yield match[1]
        return
    details = (message if isinstance(message, dict) else error).get("detail")
    if isinstance(details, list):
        yield from _extra_fields(details)


def _extra_fields(details: list[Any]) -> Iterator[Any]:
    for detail in details:
        if isinstance(detail, dict) and detail.get("type") in EXTRA_FIELD:
            place = detail.get("loc")
            if isinstance(place, list):
                yield next((name for name in place if name != "body"), None)
