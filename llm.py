"""Language models: one class a provider behind one interface, and what their failures mean.

`provider.stream(call, …)` yields the text of an answer as it arrives, and leaves what else is known of it in `call`.
Whatever goes wrong is a ModelError, or HungUp after `call.hang_up()`.
"""

import json
import random
import re

import wire
from wire import CONNECT_TIMEOUT, Call, HungUp

RETRY_PAUSES = (0.5, 1.0)  # seconds before the second and the third try, where the provider names none
LONGEST_PAUSE = 20  # seconds


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


def storable(texts):
    """The same texts as every database holds them: NUL and lone surrogates become U+FFFD.

    JSON may write a character as two surrogates, and a provider may send these in two texts: the first is held back
    until the second has come, so that "\\ud83d" and "\\ude00" give "😀".
    """
    half = ""
    for text in texts:
        text = half + text
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text.removesuffix(half)
        if not text.isascii() or "\0" in text:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        if text:
            yield text
    if half:
        yield "\ufffd"


class Echo:
    """Answers with the user's own words, word by word, without a network."""

    name = "echo"

    def list_models(self):
        return ["echo"]

    def stream(self, call, model, system, messages, max_tokens, retries=0):
        for word in re.findall(r"\s*\S+\s*", messages[-1]["content"]):
            if call.hung_up:
                raise HungUp
            yield word


class Answer:
    """What has been read of one answer: the text of the last event batch, the usage, and how it ends."""

    def __init__(self):
        self.text = ""
        self.has_text = False
        self.usage = {}
        self.stop = None  # the protocol's own reason for the end
        self.finished = False  # the protocol's own end mark has come

    def count(self, **usage):
        """Take over those counts that are whole numbers, as a database holds them."""
        self.usage |= {name: value for name, value in usage.items() if type(value) is int and 0 <= value < 2**31}


def _text(content):
    """The text of a content, which is one text or blocks, of which some are thoughts."""
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content or ())


class HTTPProvider:
    """What both protocols share: the request, its retries, the reading of the stream, and the failures.

    A subclass says how a request looks (`headers`, `path`, `body`), and `read(event, answer)` what an event means.
    """

    def __init__(self, base_url, key, timeout):
        self.key = key
        self.wire = wire.Wire(base_url.rstrip("/"), timeout)

    def list_models(self):
        """The ids of all models that the provider lists. Raises ModelError."""
        try:
            timeout = min(self.wire.timeout, CONNECT_TIMEOUT)
            with self.wire.request(Call(), "GET", self.list_path, self.headers(), timeout=timeout) as response:
                if response.status != 200:
                    raise self._refusal(response)
                return [str(model["id"]) for model in json.loads(response.body())["data"]]
        except _NOT_UNDERSTOOD:
            raise self._error(502, "sent a list of models that is not understood.") from None
        except wire.Fault as fault:
            raise self._wire_error(fault) from None

    def stream(self, call, model, system, messages, max_tokens, retries=len(RETRY_PAUSES)):
        """Yield the text of the answer in pieces, none of them empty. Tries again so often, as long as none has come."""
        return storable(self._stream(call, self.body(model, system, messages, max_tokens), RETRY_PAUSES[:retries]))

    def _stream(self, call, body, pauses):
        begun, adaptations, pauses = False, 2, list(pauses)
        while True:
            try:
                for text in self._answer(call, body):
                    begun = True
                    yield text
                return
            except ModelError as error:
                if begun:
                    raise
                if adaptations and self.adapt(body, error):
                    adaptations -= 1
                    continue
                if not error.retryable or not pauses or (error.retry_after or 0) > LONGEST_PAUSE:
                    raise
                pause = pauses.pop(0) * random.uniform(0.75, 1)
                call.pause(pause if error.retry_after is None else error.retry_after)

    def adapt(self, body, error):
        """Whether the body was changed to what this server takes, after it refused a parameter."""
        return False

    def _answer(self, call, body):
        """Send the request once, and yield the text of what is answered."""
        headers = {"Accept": "text/event-stream", "Content-Type": "application/json"} | self.headers()
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        try:
            with self.wire.request(call, "POST", self.path, headers, data) as response:
                if response.status != 200:
                    raise self._refusal(response)
                call.request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
                yield from self._texts(call, _batches(response))
        except wire.Fault as fault:
            raise self._wire_error(fault) from None

    def _texts(self, call, batches):
        """Yield the text of each batch of events, before what went wrong in it is raised."""
        answer, error = Answer(), None
        for batch in batches:
            answer.text = ""
            try:
                for event in batch:
                    if event.strip() != "[DONE]":
                        self.read(json.loads(event), answer)
            except ModelError as model_error:
                error = model_error
            except _NOT_UNDERSTOOD:
                error = self._error(502, "sent something that is not understood. Ask again.")
            call.usage = answer.usage
            if answer.text:
                answer.has_text = True
                yield answer.text
            if error is not None:
                raise error
        if not answer.finished:
            raise self._error(502, "cut its answer short. Ask again.", retryable=True)
        if answer.stop in ("refusal", "content_filter"):
            raise ModelError(502, f"The model declined to answer ({answer.stop}). Say it differently, or ask another model.")
        if answer.stop in ("length", "max_tokens") and not answer.has_text:
            raise ModelError(502, "The model spent all of MAX_TOKENS without writing a word. Ask for less, or of another.")
        if answer.stop == "model_context_window_exceeded" and not answer.has_text:
            raise ModelError(413, _TOO_LONG)

    def _wire_error(self, fault):
        """The ModelError for a fault of the wire."""
        if isinstance(fault, wire.Silent):
            return self._error(504, f"was silent for {self.wire.timeout:g} seconds. Ask again later.")
        if isinstance(fault, wire.Exhausted):
            return ModelError(503, "The server has too much to do. Ask again in a moment.", retryable=True)
        if isinstance(fault, wire.Unreachable):
            return self._error(502, "could not be reached. Ask again later.", retryable=True)
        return self._error(502, "broke the connection. Ask again.", retryable=True)

    def _refusal(self, response):
        """The ModelError for an answer that is not a 200."""
        try:
            body = json.loads(response.body())
        except (*_NOT_UNDERSTOOD, wire.Fault):
            body = {}
        error = self.failure(response.status, body, wire.retry_after(response.headers))
        should_retry = response.headers.get("x-should-retry")
        if should_retry in ("true", "false"):
            error.retryable = should_retry == "true"
        return error

    def failure(self, status, body, pause=None):
        """The ModelError for an error's body, which came with this status, or within a stream (status None)."""
        kind, code, message = _describe(body)
        message = (message.replace(self.key, "…") if self.key else message)[:500] or f"status {status}"
        if status is None:
            named = [number for name in (code, kind) for number, names in _STATUSES.items() if name in names]
            status = named[0] if named else int(code) if re.fullmatch("[3-5][0-9]{2}", code) else 500
        description = f"{kind} {code} {message}"
        if status == 413 or (status in (400, 422, 500) and _OVERFLOW.search(description)):
            return ModelError(413, _TOO_LONG)
        if status in (400, 404, 422) and _UNKNOWN_MODEL.search(description):
            return self._error(400, f"has no such model: {message}. GET /models lists those there are.")
        ours, retryable, text = _MEANINGS.get(status) or _MEANINGS.get(status // 100) or _REFUSED
        retryable = retryable and code not in ("insufficient_quota", "credit_balance_exhausted")
        return self._error(ours, text.format(status=status, message=message), pause, retryable)

    def _error(self, status, text, *args, **kwargs):
        return ModelError(status, f"The provider {self.name} {text}", *args, **kwargs)


def _batches(response):
    """The events of an answer, in batches as they arrive; of a server that does not stream, the answer is one event."""
    if "json" in response.headers.get("Content-Type", ""):
        return [[response.body().decode("utf-8", "replace")]]
    return wire.parse_sse(response.chunks())


class Anthropic(HTTPProvider):
    """The Messages API, version 2023-06-01, which compatible servers know too (docs.anthropic.com/en/api/messages)."""

    name = "anthropic"
    path = "/v1/messages"
    list_path = "/v1/models?limit=1000"
    # An event has text, usage and stop reason in one member: {"type": "content_block_delta", "delta": {"text": "Hi"}}.
    members = {
        "message_start": "message",
        "content_block_start": "content_block",
        "content_block_delta": "delta",
        "message_delta": "delta",
        "message": None,  # a whole answer, of a server that does not stream: the event itself has them
    }

    def __init__(self, base_url, key, timeout):
        super().__init__(base_url.rstrip("/").removesuffix("/v1"), key, timeout)

    def headers(self):
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": self.key} if self.key else {})

    def body(self, model, system, messages, max_tokens):
        body = {"model": model, "max_tokens": max_tokens, "stream": True, "cache_control": {"type": "ephemeral"}}
        if system:
            body["system"] = system
        return body | {"messages": messages}

    def read(self, event, answer):
        kind = event.get("type")
        if kind == "error" or event.get("error"):
            raise self.failure(None, event)
        answer.finished |= kind in ("message", "message_stop")
        if kind in self.members:
            part = event.get(self.members[kind], event)
            answer.text += _text(part.get("text") or part.get("content"))
            answer.stop = part.get("stop_reason") or answer.stop
            self._count(event.get("usage") or part.get("usage") or {}, answer)

    def _count(self, usage, answer):
        """Cached tokens are not in `input_tokens` here; they are in ours."""
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        if type(usage.get("input_tokens")) is int:
            answer.count(
                input_tokens=sum(usage[name] for name in names if type(usage.get(name)) is int),
                cached_tokens=usage.get("cache_read_input_tokens"),
            )
        answer.count(output_tokens=usage.get("output_tokens"))


class OpenAI(HTTPProvider):
    """Chat Completions, as OpenAI, Ollama, vLLM, llama.cpp and many others speak it (platform.openai.com/docs)."""

    name = "openai"
    path = "/chat/completions"
    list_path = "/models"

    def __init__(self, base_url, key, timeout):
        super().__init__(base_url, key, timeout)
        # OpenAI's own models refuse the old name of the limit, many other servers do not know the new one.
        self.limit_name = "max_completion_tokens" if "//api.openai.com" in base_url else "max_tokens"
        self.asks_for_usage = True

    def headers(self):
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(self, model, system, messages, max_tokens):
        body = {"model": model, "stream": True, self.limit_name: max_tokens}
        if self.asks_for_usage:
            body["stream_options"] = {"include_usage": True}
        first = [{"role": "system", "content": system}] if system else []
        return body | {"messages": first + messages}

    def adapt(self, body, error):
        """OpenAI's own models refuse `max_tokens`; some servers refuse `max_completion_tokens` or `stream_options`."""
        refused = error.message if error.status == 502 else ""
        if "stream_options" in refused and "stream_options" in body:
            self.asks_for_usage = False
            del body["stream_options"]
            return True
        old, new = "max_tokens", "max_completion_tokens"
        if new in body:
            old, new = new, old
        if old in refused and "max_completion_tokens" in refused:
            self.limit_name = new
            body[new] = body.pop(old)
            return True
        return False

    def read(self, event, answer):
        if event.get("error") or event.get("object") == "error":
            raise self.failure(None, event)
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            answer.text += _text(delta.get("content")) + _text(delta.get("refusal"))
            if choice.get("finish_reason"):
                answer.stop, answer.finished = choice["finish_reason"], True
        usage = event.get("usage") or {}
        answer.count(
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        )


# What reading an answer raises where it is not of the form that the protocol gives it.
_NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

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


def _describe(body):
    """(type, code, message) of an error's body, each a string, in any of the shapes that servers give it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message") or error.get("detail") or ""
    message = message if isinstance(message, str) else json.dumps(message)
    message = "".join(storable([" ".join(message.split())]))
    return str(error.get("type") or ""), str(error.get("code") or ""), message
