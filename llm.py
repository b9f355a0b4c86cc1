"""Language models: one class a provider, behind one interface.

`provider.stream(call, …)` yields the text of an answer as it arrives, and leaves what else is known of it in `call`.
Whatever goes wrong is a ModelError, or HungUp after `call.hang_up()`.
"""

import json
import random
import re

import wire
from faults import NOT_UNDERSTOOD, Faults, ModelError
from wire import CONNECT_TIMEOUT, Call, HungUp, made_storable

RETRY_PAUSES = (0.5, 1.0)  # seconds before the second and the third try, where the provider names none
LONGEST_PAUSE = 20  # seconds
JOINED_SIZE = 8 * 2**20  # bytes of what is read whole: a list of models, an answer that is not streamed


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
        self.faults = Faults(self.name, key)

    def list_models(self):
        """The ids of all models that the provider lists. Raises ModelError."""
        try:
            timeout = min(self.wire.timeout, CONNECT_TIMEOUT)
            with self.wire.request(Call(), "GET", self.list_path, self.headers(), timeout=timeout) as response:
                if response.status != 200:
                    raise self.faults.of_response(response)
                return [str(model["id"]) for model in json.loads(response.body(JOINED_SIZE))["data"]]
        except NOT_UNDERSTOOD:
            raise self.faults.error(502, "sent a list of models that is not understood.") from None
        except wire.Fault as fault:
            raise self.faults.of_wire(fault, self.wire.timeout) from None

    def stream(self, call, model, system, messages, max_tokens, retries=len(RETRY_PAUSES)):
        """Yield the text of the answer in pieces, none of them empty. Tries again so often, as long as none has come."""
        return made_storable(self._stream(call, self.body(model, system, messages, max_tokens), RETRY_PAUSES[:retries]))

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
                    raise self.faults.of_response(response)
                call.request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
                yield from self._texts(call, _batches(response))
        except wire.Fault as fault:
            raise self.faults.of_wire(fault, self.wire.timeout) from None

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
            except NOT_UNDERSTOOD:
                error = self.faults.error(502, "sent something that is not understood. Ask again.")
            call.usage = answer.usage
            if answer.text:
                answer.has_text = True
                yield answer.text
            if error is not None:
                raise error
        error = self.faults.of_end(answer)
        if error is not None:
            raise error


def _batches(response):
    """The events of an answer, in batches as they arrive; of a server that does not stream, the answer is one event."""
    if "json" in response.headers.get("Content-Type", ""):
        return [[response.body(JOINED_SIZE).decode("utf-8", "replace")]]
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
            raise self.faults.in_stream(event)
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
            raise self.faults.in_stream(event)
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
