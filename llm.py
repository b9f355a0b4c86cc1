"""Asking a language model: one class a provider behind one interface, and the only place that touches their wire.

`provider.ask(call, …)` yields the text of the answer as it arrives, a piece for each read of the socket, and leaves
what else is known of it in `call`. Whatever goes wrong is a ModelError, or HungUp after `call.hang_up()`.
"""

import contextlib
import email.utils
import json
import math
import random
import re
import socket
import threading
import time

import requests
import urllib3

CONNECT_TIMEOUT = 10
RETRY_PAUSES = (0.5, 1.0)  # seconds before the second and the third try, where the provider names none
LONGEST_PAUSE = 20
LIST_LIFE = 300


class ModelError(Exception):
    """The model gave no whole answer. `status` is the HTTP status that tells a client what kind of failure it was."""

    def __init__(self, status, message, retry_after=None, passing=False):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after  # seconds
        self.passing = passing  # worth another try


class HungUp(Exception):
    """The call was hung up from this side."""


class UnknownModel(Exception):
    """This server does not serve the model; the text says which it serves, or what to set."""


class Call:
    """One call to a provider: any thread may hang it up, and it holds what is known of the answer besides its text."""

    def __init__(self):
        self.usage = {}  # input_tokens, output_tokens, cached_tokens, as far as the provider said
        self.request_id = None
        self._hung_up = threading.Event()
        self._socket = None
        self._lock = threading.Lock()

    @property
    def hung_up(self):
        return self._hung_up.is_set()

    def hang_up(self):
        """Close the connection to the provider now, even where it has not begun to answer."""
        with self._lock:
            self._hung_up.set()
            self._shut_down()

    def connected(self, sock):
        """Remember this connection, by a duplicate that outlives the socket's being wrapped in TLS."""
        with self._lock:
            self._socket = sock.dup()
            if self.hung_up:
                self._shut_down()

    def disconnected(self):
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def pause(self, seconds):
        if self._hung_up.wait(seconds):
            raise HungUp

    def _shut_down(self):
        with contextlib.suppress(OSError):  # the other side was faster
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


class _Wire(requests.adapters.HTTPAdapter):
    """A transport that tells its call about the connection as soon as there is one."""

    def __init__(self, call):
        super().__init__(max_retries=0)
        self.call = call

    def get_connection_with_tls_context(self, *args, **kwargs):
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        call = self.call

        class Connection(pool.ConnectionCls):
            def _new_conn(self):
                sock = super()._new_conn()
                call.connected(sock)
                return sock

        pool.ConnectionCls = Connection
        return pool


def events(chunks):
    """Parse an event stream: yields, for each chunk of bytes, the list of the `data` of the events it completed.

    WHATWG HTML, 9.2.6: lines end in CR, LF or CRLF, wherever the chunks are cut; a last event without its blank line
    is dropped, as is an empty one. The event's name is not needed: both protocols repeat it in the data.
    """
    rest, data, is_first, after_cr = b"", [], True, False
    for chunk in filter(None, chunks):
        if after_cr:
            chunk = chunk.removeprefix(b"\n")
        after_cr = chunk.endswith(b"\r")
        *lines, rest = re.split(rb"\r\n|\r|\n", rest + chunk)
        complete = []
        for line in lines:
            if is_first:
                line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
            if line == b"data" or line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line:
                if any(data):
                    complete.append(b"\n".join(data).decode("utf-8", "replace"))
                data = []
        yield complete


def conversation(turns):
    """(kind, content) of turns as the messages of a request: no empty ones, and neighbours of one role joined."""
    messages = []
    for role, content in turns:
        if not content.strip():
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    return messages


class Echo:
    """Answers with the user's own words, word by word, without a network."""

    name = "echo"

    def list_models(self):
        return ["echo"]

    def ask(self, call, model, system, messages, max_tokens):
        for word in re.findall(r"\s*\S+\s*", messages[-1]["content"]):
            if call.hung_up:
                raise HungUp
            yield word


class Answer:
    """What has been read of one answer: the text since the last look, and how it ends."""

    def __init__(self):
        self.text = ""
        self.has_text = False
        self.usage = {}
        self.stop = None  # the protocol's own reason for the end
        self.finished = False  # the protocol's own end mark has come

    def count(self, **usage):
        self.usage |= {name: value for name, value in usage.items() if type(value) is int and 0 <= value < 2**31}


def _text(content):
    """The text of a content, which is one text or blocks, of which some are thoughts."""
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content or ())


class HTTPProvider:
    """What both protocols share: the request, its retries, the reading of the stream, and the faults.

    A subclass says how a request looks (`headers`, `path`, `body`), and `read(event, answer)` what an event means.
    """

    def __init__(self, base_url, key, timeout):
        self.base_url = base_url.rstrip("/")
        self.key = key
        self.timeout = timeout  # seconds of silence
        # The proxies and the certificates that the environment names.
        self.route = requests.Session().merge_environment_settings(self.base_url, {}, True, None, None)

    def list_models(self):
        """The ids of all models that the provider lists. Raises ModelError."""
        with self._request(Call(), "GET", self.list_path, timeout=min(self.timeout, CONNECT_TIMEOUT)) as chunks:
            try:
                return [str(model["id"]) for model in json.loads(b"".join(chunks))["data"]]
            except _NOT_UNDERSTOOD:
                raise self._error(502, "sent a list of models that is not understood.") from None

    def ask(self, call, model, system, messages, max_tokens):
        """Yield the text of the answer in pieces. Tries again, three times in all, before the first of them only."""
        body = self.body(model, system, messages, max_tokens)
        begun, adaptations, pauses = False, 2, list(RETRY_PAUSES)
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
                if not error.passing or not pauses or (error.retry_after or 0) > LONGEST_PAUSE:
                    raise
                pause = pauses.pop(0) * random.uniform(0.75, 1)
                call.pause(pause if error.retry_after is None else error.retry_after)

    def adapt(self, body, error):
        """Whether the body was changed to what this server takes, after it refused a parameter."""
        return False

    def _answer(self, call, body):
        answer, fault = Answer(), None
        with self._request(call, "POST", self.path, body) as batches:
            for batch in batches:
                answer.text = ""
                try:
                    for event in batch:
                        if event.strip() != "[DONE]":
                            self.read(json.loads(event), answer)
                except ModelError as error:
                    fault = error
                except _NOT_UNDERSTOOD:
                    fault = self._error(502, "sent something that is not understood. Ask again.")
                call.usage = answer.usage
                if answer.text:
                    answer.has_text = True
                    yield answer.text
                if fault is not None:
                    raise fault
        if not answer.finished:
            raise self._error(502, "cut its answer short. Ask again.", passing=True)
        if answer.stop in ("refusal", "content_filter"):
            raise ModelError(502, f"The model declined to answer ({answer.stop}). Say it differently, or ask another model.")
        if answer.stop in ("length", "max_tokens") and not answer.has_text:
            raise ModelError(502, "The model spent all of MAX_TOKENS without writing a word. Ask for less, or of another.")
        if answer.stop == "model_context_window_exceeded" and not answer.has_text:
            raise ModelError(413, _TOO_LONG)

    @contextlib.contextmanager
    def _request(self, call, method, path, body=None, timeout=None):
        """Send a request; within the context, the body of its 200: in batches of events to a POST, else in chunks.

        Raises ModelError or HungUp, also while it is read.
        """
        headers, data = {"User-Agent": "parley", "Accept-Encoding": "identity", "Connection": "close"}, None
        if body is not None:
            headers |= {"Accept": "text/event-stream", "Content-Type": "application/json"}
            data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        timeouts = min(CONNECT_TIMEOUT, self.timeout), timeout or self.timeout
        try:
            # Without a session: it would follow redirects, with key and conversation, and put ~/.netrc in the key's place.
            # A wire for each call: a connection that was kept alive may be dead by the time it is used again.
            request = requests.Request(method, self.base_url + path, headers, data=data).prepare()
            request.headers.update(self.headers())  # last: a password in the URL must not take the key's place
            with contextlib.closing(_Wire(call)) as wire, wire.send(request, timeout=timeouts, **self.route) as response:
                chunks = self._chunks(response, call)
                if response.status_code != 200:
                    raise self._refusal(response, chunks)
                call.request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
                if body is None:
                    yield chunks
                elif "json" in response.headers.get("Content-Type", ""):  # a server that does not stream
                    yield [[b"".join(chunks).decode("utf-8", "replace")]]
                else:
                    yield events(chunks)
        except _WIRE_FAULTS as error:
            raise self._broken(error, call) from None
        finally:
            call.disconnected()

    def _chunks(self, response, call):
        """What each read of the socket brings; nothing waits for a buffer to fill."""
        chunk = True
        while chunk:
            chunk = response.raw.read1(65536, decode_content=True)
            if call.hung_up:
                raise HungUp
            yield chunk

    def _broken(self, error, call):
        if call.hung_up:
            return HungUp()
        if isinstance(error, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
            return self._error(504, f"was silent for {self.timeout:g} seconds. Ask again later.")
        if isinstance(error, requests.ConnectionError):
            return self._error(502, "could not be reached. Ask again later.", passing=True)
        return self._error(502, "broke the connection. Ask again.", passing=True)

    def _refusal(self, response, chunks):
        """The ModelError for an answer that is not a 200."""
        try:
            body = json.loads(b"".join(chunks))
        except (*_NOT_UNDERSTOOD, *_WIRE_FAULTS):
            body = {}
        error = self.failure(response.status_code, body, _pause(response.headers))
        wish = response.headers.get("x-should-retry")
        if wish in ("true", "false"):
            error.passing = wish == "true"
        return error

    def failure(self, status, body, pause=None):
        """The ModelError for an error's body, which came with this status, or within a stream (status None)."""
        kind, code, message = _describe(body)
        message = (message.replace(self.key, "…") if self.key else message)[:500] or f"status {status}"
        if status is None:
            named = [number for name in (code, kind) for number, names in _STATUSES.items() if name in names]
            status = named[0] if named else int(code) if re.fullmatch("[3-5][0-9]{2}", code) else 500
        fault = f"{kind} {code} {message}"
        if status == 413 or (status in (400, 422, 500) and _OVERFLOW.search(fault)):
            return ModelError(413, _TOO_LONG)
        if status in (400, 404, 422) and _UNKNOWN_MODEL.search(fault):
            return self._error(400, f"has no such model: {message}. GET /models lists those there are.")
        meaning, passing, text = _MEANINGS.get(status) or _MEANINGS.get(status // 100) or _REFUSED
        passing = passing and code not in ("insufficient_quota", "credit_balance_exhausted")
        return self._error(meaning, text.format(status=status, message=message), pause, passing)

    def _error(self, status, text, *args, **kwargs):
        return ModelError(status, f"The provider {self.name} {text}", *args, **kwargs)


class Anthropic(HTTPProvider):
    """The Messages API, version 2023-06-01, which compatible servers know too (docs.anthropic.com/en/api/messages)."""

    name = "anthropic"
    path = "/v1/messages"
    list_path = "/v1/models?limit=1000"
    # Where an event has its news, by its type; other types have none. A whole message is of a server that does not stream.
    places = {"message_start": "message", "content_block_start": "content_block", "message": ""}
    places |= dict.fromkeys(("content_block_delta", "message_delta"), "delta")

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
        if kind in self.places:
            part = event.get(self.places[kind], event)
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


_WIRE_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
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

# What a status of a provider means, or the hundred it is of: the status for a client, whether it is passing, a text.
_REFUSED = (502, False, "refused the request: {message}")
_MEANINGS = {
    3: (502, False, "redirects: its base URL is not set right. Tell whoever runs this server."),
    # Its own words may show a part of the key.
    **dict.fromkeys((401, 403), (502, False, "refused this server's own key. Tell whoever runs this server.")),
    **dict.fromkeys((408, 409, 5), (502, True, "failed with status {status}. Ask again later.")),
    **dict.fromkeys((429, 503, 529), (503, True, "is overloaded or limits this server. Ask again later.")),
}

# The codes and types of an error within a stream, by the status that it would have had; all others are 500.
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
    return str(error.get("type") or ""), str(error.get("code") or ""), " ".join(message.split())


def _pause(headers):
    """The seconds after which a provider wants to be asked again, a day at most, or None."""
    wish = headers.get("retry-after", "")
    for read in (
        lambda: float(headers["retry-after-ms"]) / 1000,
        lambda: float(wish),
        lambda: email.utils.parsedate_to_datetime(wish).timestamp() - time.time(),
    ):
        with contextlib.suppress(KeyError, ValueError, OverflowError):
            seconds = read()
            if math.isfinite(seconds):
                return min(max(seconds, 0.0), 86400.0)
    return None


class Models:
    """Which models this server serves, by which provider, and which it takes where the client names none."""

    def __init__(self, providers, allowed=(), default=None):
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = list(allowed)
        self._default = default
        self._lists = {}  # name of the provider → (when it was asked, the ids it listed)
        self._lock = threading.Lock()
        if not self.providers or "echo" in self.allowed:
            self.providers["echo"] = Echo()

    def provider_of(self, model, is_ours=False):
        """Raises UnknownModel. A model that is `ours` is one that no client names: it need not be among those allowed."""
        if self.allowed and model not in self.allowed and not is_ours:
            raise UnknownModel(f"This server serves {', '.join(self.allowed)}. Name one of these, or none.")
        name = self._name_of(model)
        if name not in self.providers:
            served = " and ".join(_SERVED[each][0] for each in self.providers)
            raise UnknownModel(f"This server serves {served}. {_SERVED[name][1]}")
        return self.providers[name]

    @staticmethod
    def _name_of(model):
        return "echo" if model == "echo" else "anthropic" if model.startswith("claude") else "openai"

    def default(self, is_needed=True):
        """The model for a session that names none. Raises ModelError where only the provider could tell, and does not.

        Where it `is_needed`, the provider is asked again, however lately it listed none.
        """
        if self._default or self.allowed:
            return self._default or self.allowed[0]
        if "anthropic" in self.providers:
            return "claude-opus-4-6"
        if "openai" not in self.providers:
            return "echo"
        for model in self._listed(self.providers["openai"], is_needed):
            return model
        raise ModelError(502, "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server.")

    def list(self):
        """[(id, provider's name, whether it is the default)]."""
        models = self.allowed or [model for provider in list(self.providers.values()) for model in self._listed(provider)]
        try:
            default = self.default(is_needed=False)
        except ModelError:
            default = None
        return [(model, self._name_of(model), model == default) for model in models]

    def _listed(self, provider, is_needed=False):
        """The models that a provider lists and that are asked of it; none where it does not answer.

        It is asked once in five minutes, or where `is_needed`, as often as it lists none.
        """
        with self._lock:
            asked_at, models = self._lists.get(provider.name, (-LIST_LIFE, []))
            if time.monotonic() - asked_at > LIST_LIFE or (is_needed and not models):
                try:
                    models = [model for model in provider.list_models() if self._name_of(model) == provider.name]
                except ModelError:
                    models = []
                self._lists[provider.name] = (time.monotonic(), models)
            return models


_SERVED = {  # by each provider, and what to do about a model that would be its own
    "echo": ("the model echo", "Name a model that GET /models lists, or none."),
    "anthropic": ("the models of Anthropic", "To serve this one, set ANTHROPIC_API_KEY on the server."),
    "openai": (
        "models whose id does not begin with claude",
        "To serve this one, set OPENAI_API_KEY or OPENAI_BASE_URL on the server.",
    ),
}
