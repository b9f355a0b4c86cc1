"""What the failures of a provider mean: from its status, its body, the end of its answer or the wire to a ModelError."""

import json
import re

import wire

ERROR_SIZE = 65536  # bytes of an error's body that are looked at

# What reading an answer raises where it is not of the form that the protocol gives it.
NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class ModelError(Exception):
    """The model gave no whole answer.

    `status` is the HTTP status that tells a client what kind of failure it was, `retry_after` seconds or None, and
    `retryable` whether the same request may succeed a moment later.
    """

    def __init__(self, status, message, retry_after=None, retryable=False):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.retryable = retryable


class Faults:
    """The failures of one provider. Its key is taken out of what is told of them."""

    def __init__(self, name, key):
        self.name = name
        self.key = key

    def error(self, status, text, *args, **kwargs):
        return ModelError(status, f"The provider {self.name} {text}", *args, **kwargs)

    def of_wire(self, fault, timeout):
        if isinstance(fault, wire.Silent):
            return self.error(504, f"was silent for {timeout:g} seconds. Ask again later.")
        if isinstance(fault, wire.Exhausted):
            return ModelError(503, "The server has too much to do. Ask again in a moment.", retryable=True)
        if isinstance(fault, wire.Unreachable):
            return self.error(502, "could not be reached. Ask again later.", retryable=True)
        return self.error(502, "broke the connection. Ask again.", retryable=True)

    def of_response(self, response):
        """For a response that is not a 200."""
        try:
            body = json.loads(response.body(ERROR_SIZE))
        except (*NOT_UNDERSTOOD, wire.Fault):
            body = {}
        error = self._of_body(response.status, body, wire.retry_after(response.headers))
        should_retry = response.headers.get("x-should-retry")
        if should_retry in ("true", "false"):
            error.retryable = should_retry == "true"
        return error

    def in_stream(self, body):
        """For an error within a stream, which has no status: the one that its code or type stands for, else 500."""
        kind, code, _ = _describe(body)
        named = [status for name in (code, kind) for status, names in _STATUSES.items() if name in names]
        status = named[0] if named else int(code) if re.fullmatch("[3-5][0-9]{2}", code) else 500
        return self._of_body(status, body)

    def of_end(self, answer):
        """For an answer that has come to its end; None where it is whole."""
        if not answer.finished:
            return self.error(502, "cut its answer short. Ask again.", retryable=True)
        if answer.stop in ("refusal", "content_filter"):
            return ModelError(502, f"The model declined to answer ({answer.stop}). Say it differently, or ask another model.")
        if answer.stop in ("length", "max_tokens") and not answer.has_text:
            return ModelError(502, "The model spent all of MAX_TOKENS without writing a word. Ask for less, or of another.")
        if answer.stop == "model_context_window_exceeded" and not answer.has_text:
            return ModelError(413, _TOO_LONG)
        return None

    def _of_body(self, status, body, pause=None):
        kind, code, message = _describe(body)
        message = (message.replace(self.key, "…") if self.key else message)[:500] or f"status {status}"
        description = f"{kind} {code} {message}"
        if status == 413 or (status in (400, 422, 500) and _OVERFLOW.search(description)):
            return ModelError(413, _TOO_LONG)
        if status in (400, 404, 422) and _UNKNOWN_MODEL.search(description):
            return self.error(400, f"has no such model: {message}. GET /models lists those there are.")
        ours, retryable, text = _MEANINGS.get(status) or _MEANINGS.get(status // 100) or _REFUSED
        retryable = retryable and code not in ("insufficient_quota", "credit_balance_exhausted")
        return self.error(ours, text.format(status=status, message=message), pause, retryable)


def _describe(body):
    """(type, code, message) of an error's body, each a string, in any of the shapes that servers give it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message") or error.get("detail") or ""
    message = message if isinstance(message, str) else json.dumps(message)
    message = "".join(wire.made_storable([" ".join(message.split())]))
    return str(error.get("type") or ""), str(error.get("code") or ""), message


_TOO_LONG = "The conversation no longer fits the model's context window. Start a new session, or choose another model."
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|exceeds the context window"
    r"|exceeds the available context|prompt is too long|greater than the context length"
    r"|reduce the length of the messages|exceed context limit|request_too_large"
)
_UNKNOWN_MODEL = re.compile(
    r"model_not_found|invalid_model|not_found_error .*\bmodel\b|\bmodel\b.*(not found|not exist)"
    r"|(unknown|invalid|no such|not a valid) model",
    re.IGNORECASE,
)

# A provider's status, or its hundred (5 stands for all of 500 to 599), and what a client is told: our status, whether the
# request is tried again, the sentence behind "The provider openai".
_MEANINGS = {
    3: (502, False, "redirects: its base URL is not set right. Tell whoever runs this server."),
    # Its own words may show a part of the key.
    **dict.fromkeys((401, 403), (502, False, "refused this server's own key. Tell whoever runs this server.")),
    **dict.fromkeys((408, 409, 5), (502, True, "failed with status {status}. Ask again later.")),
    **dict.fromkeys((429, 503, 529), (503, True, "is overloaded or limits this server. Ask again later.")),
}
_REFUSED = (502, False, "refused the request: {message}")  # any other status

# An error within a stream has no status: the one that its code or type stands for; 500 where none is here.
_STATUSES = {
    400: ("invalid_request_error",),
    401: ("invalid_api_key", "authentication_error"),
    402: ("billing_error",),
    403: ("permission_error",),
    404: ("model_not_found", "not_found_error"),
    429: ("insufficient_quota", "credit_balance_exhausted", "rate_limit_exceeded", "rate_limit_error"),
    529: ("server_is_overloaded", "slow_down", "overloaded_error"),
}
