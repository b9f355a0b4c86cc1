"""Asking a language model: one class a provider behind one interface, and the only place that touches their wire.

`provider.ask(call, …)` yields the text of the answer as it arrives, a piece for each read of the socket, and leaves
what else is known of it in `call`. Whatever goes wrong is a ModelError, or HungUp after `call.hang_up()`.
"""

import contextlib
import email.utils
import json
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
            if self._socket is not None:
                _shut_down(self._socket)

    def connected(self, sock):
        with self._lock:
            self._socket = sock
            if self.hung_up:
                _shut_down(sock)
                raise HungUp

    def pause(self, seconds):
        if self._hung_up.wait(seconds):
            raise HungUp


def _shut_down(sock):
    # Not sock.shutdown: on a TLS socket that takes the session away under the thread that reads from it.
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # the other side was faster


class _Wire(requests.adapters.HTTPAdapter):
    """A transport that tells its call about the socket as soon as it is open, so that the call can be hung up."""

    def __init__(self, call):
        super().__init__(max_retries=0)
        self.call = call

    def get_connection_with_tls_context(self, *args, **kwargs):
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        open_connection = pool.ConnectionCls

        def open_and_tell(*args, **kwargs):
            connection = open_connection(*args, **kwargs)
            connect = connection.connect

            def connect_and_tell():
                connect()
                self.call.connected(connection.sock)

            connection.connect = connect_and_tell
            return connection

        pool.ConnectionCls = open_and_tell
        return pool


def events(chunks):
    """Parse an event stream: yields, for each chunk of bytes, the list of the `data` of the events it completed.

    WHATWG HTML, 9.2.6: lines end in CR, LF or CRLF, wherever the chunks are cut; a last event without its blank line
    is dropped. The event's name is not needed: both protocols repeat it in the data.
    """
    buffer, data, first = b"", [], True
    for chunk in chunks:
        buffer += chunk
        complete = []
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        whole = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        lines = re.split(rb"\r\n|\r|\n", buffer[:whole])
        buffer = lines.pop() + buffer[whole:]
        for line in lines:
            if first:
                line, first = line.removeprefix(b"\xef\xbb\xbf"), False
            if not line:
                if data:
                    complete.append(b"\n".join(data).decode("utf-8", "replace"))
                data = []
            elif line == b"data" or line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
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


class HTTPProvider:
    """What both protocols share: the request, its retries, the reading of the stream, and the faults.

    A subclass says how a request looks (`headers`, `path`, `body`), and `read(event, answer)` what an event means.
    """

    def __init__(self, base_url, key, timeout):
        self.base_url = base_url.rstrip("/")
        self.key = key
        self.timeout = timeout  # seconds of silence

    def list_models(self):
        """The ids of all models that the provider lists. Raises ModelError."""
        with self._request(Call(), "GET", self.list_path, timeout=min(self.timeout, CONNECT_TIMEOUT)) as response:
            try:
                return [str(model["id"]) for model in json.loads(self._whole(response))["data"]]
            except (ValueError, LookupError, TypeError):
                raise ModelError(502, f"The provider {self.name} sent a list of models that is not understood.") from None

    def ask(self, call, model, system, messages, max_tokens):
        """Yield the text of the answer in pieces. Tries again, three times in all, before the first of them only."""
        body = self.body(model, system, messages, max_tokens)
        begun, pauses, adaptations = False, list(RETRY_PAUSES), 2
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
        answer = Answer()
        with self._request(call, "POST", self.path, json_body=body) as response:
            call.request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
            if "json" in response.headers.get("Content-Type", ""):  # a server that does not stream
                batches = [[self._whole(response).decode("utf-8", "replace")]]
            else:
                batches = events(self._chunks(response, call))
            for batch in batches:
                answer.text = ""
                try:
                    for event in batch:
                        if event.strip() != "[DONE]":
                            self.read(json.loads(event), answer)
                except (ValueError, LookupError, TypeError, AttributeError):
                    answer.fault = ModelError(502, f"The provider {self.name} sent something that is not understood.")
                call.usage = answer.usage
                if answer.text:
                    answer.has_text = True
                    yield answer.text
                if answer.fault is not None:
                    raise answer.fault
        if not answer.finished:
            raise ModelError(502, "The provider cut its answer short.", passing=True)
        if answer.stop in ("refusal", "content_filter"):
            raise ModelError(502, f"The model declined to answer ({answer.stop}). Say it differently, or ask another model.")
        if answer.stop in ("length", "max_tokens") and not answer.has_text:
            raise ModelError(502, "The model spent all of MAX_TOKENS without writing a word.")
        if answer.stop == "model_context_window_exceeded" and not answer.has_text:
            raise ModelError(413, _TOO_LONG)

    @contextlib.contextmanager
    def _request(self, call, method, path, json_body=None, timeout=None):
        """Send a request; within the context, its response, which is a 200. Raises ModelError or HungUp."""
        # A session for each call: a connection that was kept alive may be dead by the time it is used again.
        with requests.Session() as session:
            session.mount(self.base_url, _Wire(call))
            headers = {"Accept-Encoding": "identity", "Connection": "close"}
            data = None
            if json_body is not None:
                headers |= {"Accept": "text/event-stream", "Content-Type": "application/json"}
                data = json.dumps(json_body, ensure_ascii=False).encode("utf-8", "replace")
            try:
                response = session.request(
                    method,
                    self.base_url + path,
                    data=data,
                    headers=headers,
                    auth=self._authorize,  # a callable: else ~/.netrc would take the header's place
                    timeout=(CONNECT_TIMEOUT, timeout or self.timeout),
                    stream=True,
                    allow_redirects=False,  # a redirect would carry key and conversation to another host
                )
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise self._broken(error, call) from None
            with response:
                if response.status_code != 200:
                    raise self._refusal(response)
                yield response

    def _authorize(self, request):
        if self.key:
            request.headers.update(self.headers())
        return request

    def _chunks(self, response, call):
        """What each read of the socket brings; nothing waits for a buffer to fill."""
        while True:
            try:
                chunk = response.raw.read1(65536, decode_content=True)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._broken(error, call) from None
            if call.hung_up:
                raise HungUp
            if not chunk:
                return
            yield chunk

    def _whole(self, response):
        try:
            return response.raw.read(decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(error, Call()) from None

    def _broken(self, error, call):
        if call.hung_up:
            return HungUp()
        timeouts = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)
        if isinstance(error, timeouts) and not isinstance(error, requests.ConnectTimeout):
            return ModelError(504, f"The provider {self.name} was silent for {self.timeout:g} seconds.")
        if isinstance(error, requests.ConnectionError):
            return ModelError(502, f"The provider {self.name} could not be reached.", passing=True)
        return ModelError(502, f"The connection to the provider {self.name} broke.", passing=True)

    def _refusal(self, response):
        """The ModelError for an answer that is not a 200."""
        try:
            body = json.loads(response.raw.read(65536, decode_content=True))
        except (ValueError, urllib3.exceptions.HTTPError, OSError):
            body = {}
        error = self._failure(response.status_code, body, _pause(response.headers))
        wish = response.headers.get("x-should-retry")
        if wish in ("true", "false"):
            error.passing = wish == "true"
        return error

    def _failure(self, status, body, pause=None):
        """The ModelError for an error's body, which came with this status, or within a stream (status None)."""
        kind, code, message = _describe(body)
        if status is None:
            status = _STATUS_OF_KIND.get(kind) or _STATUS_OF_KIND.get(code) or (int(code) if code.isdigit() else 500)
        if self.key:
            message = message.replace(self.key, "…")
        quoted = f"The provider {self.name} refused the request: {message}" if message else (
            f"The provider {self.name} answered with status {status}."
        )
        if status in (401, 403):
            # The provider's own words may show a part of the key.
            return ModelError(502, f"The provider {self.name} refused this server's own key.")
        if status in (400, 413, 422, 500) and _OVERFLOW.search(f"{code} {kind} {message}"):
            return ModelError(413, _TOO_LONG)
        if status in (400, 404, 422) and _is_unknown_model(kind, code, message):
            return ModelError(400, f"The provider {self.name} has no such model: {message} GET /models lists those there are.")
        if status == 413:
            return ModelError(413, _TOO_LONG)
        if status in (429, 503, 529):
            out_of_credit = code in ("insufficient_quota", "credit_balance_exhausted")
            message = f"The provider {self.name} is overloaded or limits this server. Ask again later."
            return ModelError(503, message, pause, passing=not out_of_credit)
        if status in (408, 409) or status >= 500:
            return ModelError(502, f"The provider {self.name} failed with status {status}.", pause, passing=True)
        if 300 <= status < 400:
            return ModelError(502, f"The provider {self.name} redirects: its base URL is not set right.")
        return ModelError(502, quoted)


class Answer:
    """What has been read of one answer: the text since the last look, and how it ends."""

    def __init__(self):
        self.text = ""
        self.has_text = False
        self.usage = {}
        self.stop = None  # the protocol's own reason for the end
        self.finished = False  # the protocol's own end mark has come
        self.fault = None  # what came instead, within the stream

    def count(self, **usage):
        self.usage |= {name: value for name, value in usage.items() if type(value) is int and 0 <= value < 2**31}


class Anthropic(HTTPProvider):
    """The Messages API, version 2023-06-01, which compatible servers know too (docs.anthropic.com/en/api/messages)."""

    name = "anthropic"
    path = "/v1/messages"
    list_path = "/v1/models?limit=1000"

    def __init__(self, base_url, key, timeout):
        super().__init__(base_url.rstrip("/").removesuffix("/v1"), key, timeout)

    def headers(self):
        return {"x-api-key": self.key, "anthropic-version": "2023-06-01"}

    def body(self, model, system, messages, max_tokens):
        body = {"model": model, "max_tokens": max_tokens, "stream": True, "cache_control": {"type": "ephemeral"}}
        if system:
            body["system"] = system
        return body | {"messages": messages}

    def read(self, event, answer):
        kind = event.get("type")
        if kind == "content_block_delta":
            answer.text += event["delta"].get("text") or ""
        elif kind == "content_block_start":
            answer.text += event["content_block"].get("text") or ""
        elif kind == "message_start":
            self._count(event["message"].get("usage") or {}, answer)
        elif kind == "message_delta":
            answer.stop = event["delta"].get("stop_reason") or answer.stop
            self._count(event.get("usage") or {}, answer)
        elif kind == "message_stop":
            answer.finished = True
        elif kind == "message":
            answer.text += "".join(block.get("text") or "" for block in event["content"])
            answer.stop, answer.finished = event.get("stop_reason"), True
            self._count(event.get("usage") or {}, answer)
        elif kind == "error" or "error" in event:
            answer.fault = self._failure(None, event)

    def _count(self, usage, answer):
        """Cached tokens are not in `input_tokens` here; they are in ours."""
        if usage.get("input_tokens") is not None:
            cached, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
            answer.count(input_tokens=usage["input_tokens"] + (cached or 0) + (written or 0), cached_tokens=cached)
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
        return {"Authorization": f"Bearer {self.key}"}

    def body(self, model, system, messages, max_tokens):
        body = {"model": model, "stream": True, self.limit_name: max_tokens}
        if self.asks_for_usage:
            body["stream_options"] = {"include_usage": True}
        first = [{"role": "system", "content": system}] if system else []
        return body | {"messages": first + messages}

    def adapt(self, body, error):
        old, new = "max_tokens", "max_completion_tokens"
        refused = error.message if error.status == 502 else ""
        if "stream_options" in refused and "stream_options" in body:
            self.asks_for_usage = False
            del body["stream_options"]
        elif f"'{old}'" in refused and new in refused and old in body:
            self.limit_name = new
            body[new] = body.pop(old)
        elif new in refused and new in body:
            self.limit_name = old
            body[old] = body.pop(new)
        else:
            return False
        return True

    def read(self, event, answer):
        if event.get("error") or event.get("object") == "error":
            answer.fault = self._failure(None, event)
            return
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            answer.text += (delta.get("content") or "") + (delta.get("refusal") or "")
            if choice.get("finish_reason"):
                answer.stop, answer.finished = choice["finish_reason"], True
        usage = event.get("usage")
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            answer.count(
                input_tokens=usage.get("prompt_tokens"),
                output_tokens=usage.get("completion_tokens"),
                cached_tokens=cached,
            )


_TOO_LONG = "The conversation no longer fits the model's context window. Start a new session, or choose another model."

_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|exceeds the context window"
    r"|exceeds the available context|prompt is too long|greater than the context length"
    r"|reduce the length of the messages|exceed context limit|request_too_large"
)

_STATUS_OF_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "server_is_overloaded": 529,
    "slow_down": 529,
}


def _describe(body):
    """(type, code, message) of an error's body, each a string, in any of the shapes that servers give it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message") or error.get("detail") or ""
    message = message if isinstance(message, str) else json.dumps(message)
    return str(error.get("type") or ""), str(error.get("code") or ""), " ".join(message.split())[:500]


def _is_unknown_model(kind, code, message):
    if code in ("model_not_found", "invalid_model"):
        return True
    if re.search(r"\bmodel\b.*(not found|not exist)|(unknown|invalid|no such|not a valid) model", message, re.IGNORECASE):
        return True
    return kind == "not_found_error" and "model" in message.lower()


def _pause(headers):
    """The seconds after which a provider wants to be asked again, or None."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    wish = headers.get("retry-after", "")
    try:
        return max(0.0, float(wish))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(wish).timestamp() - time.time())
    except ValueError:
        return None


class Models:
    """Which models this server serves, by which provider, and which it takes where the client names none."""

    def __init__(self, providers, allowed=(), default=None):
        self.providers = {provider.name: provider for provider in providers}
        self.allowed = list(allowed)
        self._default = default
        self._lists = {}  # name of the provider → (when it was asked, ids or None)
        self._lock = threading.Lock()
        if not self.providers or "echo" in self.allowed:
            self.providers["echo"] = Echo()

    def provider_of(self, model):
        """Raises UnknownModel."""
        name = self._name_of(model)
        if self.allowed and model not in self.allowed:
            raise UnknownModel(f"This server serves {', '.join(self.allowed)}. Name one of these, or none.")
        if name in self.providers:
            return self.providers[name]
        if name == "echo":
            raise UnknownModel("This server serves no echo. Name a model that GET /models lists, or none.")
        served = " and ".join(f"{_SERVES[name]}" for name in self.providers)
        setting = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY or OPENAI_BASE_URL"}[name]
        raise UnknownModel(f"This server serves {served}. To serve this one, set {setting} on the server.")

    def has_provider_of(self, model):
        return self._name_of(model) in self.providers

    @staticmethod
    def _name_of(model):
        return "echo" if model == "echo" else "anthropic" if model.startswith("claude") else "openai"

    def default(self):
        """The model for a session that names none. Raises ModelError where only the provider could tell, and is silent."""
        if self._default or self.allowed:
            return self._default or self.allowed[0]
        if "anthropic" in self.providers:
            return "claude-opus-4-6"
        if "openai" in self.providers:
            listed = self._listed(self.providers["openai"]) or self._listed(self.providers["openai"], again=True)
            if not listed:
                raise ModelError(502, "The provider openai lists no model. Name one, or set DEFAULT_MODEL on the server.")
            return listed[0]
        return "echo"

    def list(self):
        """[(id, provider's name, whether it is the default)]."""
        if self.allowed:
            pairs = [(model, self.provider_of(model).name) for model in self.allowed]
        else:
            providers = list(self.providers.values())
            pairs = [(model, provider.name) for provider in providers for model in self._listed(provider) or ()]
            pairs = [(model, name) for model, name in pairs if (name == "anthropic") == model.startswith("claude")]
        try:
            default = self.default()
        except ModelError:
            default = None
        return [(model, name, model == default) for model, name in pairs]

    def _listed(self, provider, again=False):
        with self._lock:
            asked_at, models = self._lists.get(provider.name, (None, None))
            if asked_at is None or again or time.monotonic() - asked_at > LIST_LIFE:
                try:
                    models = provider.list_models()
                except ModelError:
                    models = None
                self._lists[provider.name] = (time.monotonic(), models)
            return models


_SERVES = {"echo": "the model echo", "anthropic": "the models of Anthropic", "openai": "models whose id does not begin with claude"}
