"""What the failures of a provider mean: from a status, a body, an end or the wire to a ModelError, by `faults.toml`."""

import base64
import dataclasses
import json
import pathlib
import re
import tomllib
import urllib.parse

import wire
from logs import log

ERROR_SIZE, ERROR_TIMEOUT = 65536, 10  # bytes of an error's body that are looked at; seconds for them
# As the message of a failure that is stored begins, where the session's own option was refused.
REFUSED_OPTION = re.compile(r"The provider \w+ refuses the option (\w+):")
MASKED = 6  # characters of a secret that may not be seen side by side

# What reading an answer raises where it is not of the form that the protocol gives it.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclasses.dataclass(eq=False)
class ModelError(Exception):
    """The model gave no whole answer."""

    status: int  # HTTP's, that tells a client what kind of failure it was
    message: str  # what a client is told
    retry_after: float | None = None  # seconds
    retryable: bool = False  # whether the same request may succeed a moment later
    unsupported: tuple = ()  # the parameters that were refused
    refusal: str = ""  # the provider's own words, where the request was at fault
    window: int | None = None  # tokens, where these have no room for prompt and answer together; 0 where none are named
    words: str = ""  # the provider's own, or the wire's, for the log

    def __str__(self):
        return self.message if self.words in self.message else f"{self.message} {self.words}"


class Mask:
    """Takes secrets out of a text, and parts of them, as they are and in the encodings in which servers repeat them."""

    def __init__(self, *secrets):
        self._forms = []  # (a text, how many of its characters may not be seen side by side)
        for secret in filter(None, secrets):
            data, size = secret.encode(), min(MASKED, len(secret))
            # Base64 is another text for each place at which the secret may begin.
            coded = [base64.b64encode(b" " * shift + data)[2 * shift :].decode().rstrip("=") for shift in range(3)]
            coded += urllib.parse.quote(secret, ""), "".join(f"%{byte:02X}" for byte in data), data.hex(), data.hex().upper()
            forms = [secret, *(coded if size == MASKED else ())]  # of a shorter one these are no words, but syllables
            self._forms += [(form, size) for form in forms]

    def __call__(self, text):
        shown = list(text)
        for form, size in self._forms:
            for i in range(len(text) - size + 1):
                if text[i : i + size] in form:
                    shown[i : i + size] = "\0" * size
        return re.sub("\0+", "…", "".join(shown))


class Faults:
    """The failures of one provider. Its key, and the password of its URL, are taken out of what is told of them."""

    def __init__(self, name, key, url):
        self.name = name
        user, _, password = urllib.parse.unquote(url.partition("//")[2].partition("/")[0].rpartition("@")[0]).partition(":")
        self.mask = Mask(key, password or user, password and f"{user}:{password}")

    def error(self, status, text, *args, words="", **kwargs):
        words = wire.without_password(self.mask(words[:500]))  # a proxy may have one, too
        return ModelError(status, f"The provider {self.name} {text}", *args, words=words, **kwargs)

    def of(self, failure):
        """For a Fault of the wire, or what reading an answer raises."""
        if isinstance(failure, ModelError):
            return failure
        fault = failure if isinstance(failure, wire.Fault) else wire.Fault("odd", type(failure).__name__)
        status, retryable, text = _TABLES["wire"][fault.kind]
        return self.error(status, text, retryable=retryable, words=fault.detail)

    def of_response(self, response):
        """For a response that is no answer."""
        body = wire.parse_json(response.read_some(ERROR_SIZE, ERROR_TIMEOUT))
        error = self._of_body(response.status, body, wire.retry_after(response.headers))
        error.retryable = {"true": True, "false": False}.get(response.headers.get("x-should-retry"), error.retryable)
        return error

    def in_stream(self, body):
        """For an error within a stream, which has no status: the one that its code, type or words stand for, else 500."""
        (kind, code, message), statuses = _describe(body), _TABLES["in_stream"]
        status = statuses.get(code) or statuses.get(kind) or (int(code) if re.fullmatch("[3-5][0-9]{2}", code) else 500)
        if status == 500 and any(_WORDS[name].search(f"{kind} {code} {message}") for name in ("unknown_model", "key")):
            status = 400
        return self._of_body(status, body)

    def of_options(self, failure, options):
        """The failure of a request that had these options; it is the client's where the provider refused one of them."""
        for option in options if failure.refusal else ():
            if option in failure.unsupported or _OPTIONS[option].search(failure.refusal):
                return self.error(400, f"refuses the option {option}: {failure.refusal}")
        return failure

    def check_end(self, reason, has_text, at_limit):
        """Raises ModelError where an answer that ended for this reason of the protocol, or for none, is not whole; returns our
        own word for the reason, and whether the model's window is full. `at_limit`: it is as long as we let it be."""
        meaning = _REASONS.get(reason.lower()) if reason else "broken"
        if meaning == "limit" and not at_limit:
            meaning = "window"
        if meaning == "broken":
            raise self.error(502, "cut its answer short. Ask again.", retryable=True)
        if meaning == "refused" or (meaning in ("limit", "window") and not has_text):
            status, text = _TABLES["no_answer"][meaning]
            raise ModelError(status, text.format(reason=reason))
        if meaning is None:
            log.warning("The provider %s ended an answer for a reason that is not known: %r", self.name, self.mask(reason[:100]))
        return "length" if meaning in ("limit", "window") else "stop", meaning == "window"

    def _of_body(self, status, body, pause=None):
        kind, code, message = _describe(body)
        description = f"{kind} {code} {message}"
        message = self.mask(message)[:500] or f"status {status}"
        counted = _WORDS["counted"].search(description)
        if status == 413 or (status in (400, 422, 500) and (counted or _WORDS["overflow"].search(description))):
            window = counted and int(next(filter(None, counted.groups()), 0))
            return ModelError(*_TABLES["no_answer"]["window"], window=window, words=message)
        if status in (400, 404, 422) and _WORDS["unknown_model"].search(description):
            return self.error(400, f"has no such model: {message}. GET /models lists those there are.")
        if status in (400, 404, 422) and _WORDS["key"].search(description):
            status = 401
        ours, retryable, text = _MEANINGS.get(status) or _MEANINGS.get(status // 100) or _TABLES["answer"]["other"]
        retryable = retryable and not {code, kind} & {"insufficient_quota", "credit_balance_exhausted"}
        refusal = message if status in (400, 422) else ""
        unsupported = [name for name in _unsupported(body) if refusal and isinstance(name, str)]
        text = text.format(status=status, message=message)
        return self.error(ours, text, pause, retryable, unsupported, refusal, words=message)


def is_error(body):
    """Whether this JSON, which came where an answer may come, tells of an error."""
    body = body[0] if isinstance(body, list) and body else body
    if "error" in (body.get("type"), body.get("object")) or body.get("error") not in (None, False, ""):
        return True
    return ("detail" in body or "message" in body) and not body.keys() & {"choices", "type", "id", "object"}


def _inner(body):
    """The part of an error's body that tells of it, whatever it is wrapped in; a bare text is its `message`."""
    if isinstance(body, list) and body:  # Gemini
        body = body[0]
    error = (body.get("error") or body) if isinstance(body, dict) else body
    return error if isinstance(error, dict) else {"message": error}


def _describe(body):
    """(type, code, message) of an error's body, each a string, in any of the shapes that servers give it."""
    error = _inner(body)
    message = error.get("message") or error.get("detail") or ""
    message = message if isinstance(message, str) else json.dumps(message)
    message = "".join(wire.made_storable([" ".join(message[:2000].split())]))
    return str(error.get("type") or "")[:100], str(error.get("code") or "")[:100], message


def _unsupported(body):
    """The parameters that were refused, by the structure of the error; its text may quote the user.

    OpenAI: {"error": {"code": "unsupported_parameter", "param": "max_tokens"}} (platform.openai.com/docs/guides/error-codes).
    Anthropic: {"error": {"message": "cache_control: Extra inputs are not permitted"}}, and nothing else in it.
    Pydantic, as in vLLM and Mistral: {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}
    (docs.pydantic.dev/latest/errors/validation_errors), in Mistral's within `message`.
    """
    error = _inner(body)
    if error.get("code") in ("unsupported_parameter", "unknown_parameter"):
        return [error.get("param")]
    message = error.get("message")
    if isinstance(message, str) and (match := re.fullmatch(r"(\w+): Extra inputs are not permitted", message)):
        return [match[1]]
    details = (message if isinstance(message, dict) else error).get("detail")
    extra = ("extra_forbidden", "value_error.extra")
    details = [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    places = [each["loc"] for each in details if each.get("type") in extra and isinstance(each.get("loc"), list)]
    return [next((name for name in place if name != "body"), None) for place in places]


_TABLES = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))
_MEANINGS = {status: meaning for statuses, *meaning in _TABLES["answer"]["meanings"] for status in statuses}
_REASONS = {reason: meaning for meaning, reasons in _TABLES["ends"].items() for reason in reasons}
_WORDS = {name: re.compile("|".join(patterns), re.IGNORECASE) for name, patterns in _TABLES["words"].items()}
_OPTIONS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _TABLES["options"].items()}
