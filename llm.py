"""Language models: one class a provider, behind one interface.

`provider.stream(call, …)` yields the text of an answer as it arrives, and leaves what else is known of it in `call`.
Whatever goes wrong is a ModelError, or HungUp after `call.hang_up()`.
"""

import json
import logging
import math
import random
import re

import wire
from faults import NOT_UNDERSTOOD, Faults, ModelError, is_error
from wire import CONNECT_TIMEOUT, Call, made_storable

RETRY_PAUSES = (0.5, 1.0)  # seconds before the second and the third try, where the provider names none
LONGEST_PAUSE = 20  # seconds
USAGE_TIMEOUT = 5  # seconds for the usage, which may come behind the end of the text
CHARACTERS_A_TOKEN = 64  # at most, thoughts among them; no model's longest token has more but for white space
LEARNED_MAX = 1000  # models of a provider; any user may name more


class Echo:
    """Answers with the user's own words, word by word, without a network."""

    name = "echo"

    def list_models(self):
        return [{"id": "echo"}]

    def stream(self, call, model, system, messages, max_tokens, retries=0):
        for word in re.findall(r"\s*\S+\s*", messages[-1]["content"]):
            call.pause(0)  # which raises HungUp
            yield word


class Answer:
    """What has been read of one answer: the text of the last batch of events, how much there was, and how it ends."""

    def __init__(self, call, timeout, max_tokens):
        self.text = ""
        self.has_text = False
        self.reason = None  # the protocol's own, for the end; what comes behind it is no text
        self.over = False  # nothing of use comes any more
        self._call = call
        self._timeout = timeout
        self._room = CHARACTERS_A_TOKEN * max_tokens + 65536  # characters that may still come
        self._begun = self._is_late = False

    def add(self, text, thoughts=""):
        """Take text, or thoughts, or neither where the answer begins. Each is a sign that the model works."""
        if self.reason:
            if text and not self._is_late:
                self._is_late = True
                logging.getLogger("parley").warning("Text behind the end of an answer is left out.")
            return
        if text or thoughts or not self._begun:
            self._begun = True
            self._call.allow(self._timeout)
        self.spend(len(text) + len(thoughts))
        self.text += text
        self.has_text |= bool(text)

    def take(self):
        """The text that has come since the last time, perhaps none."""
        text, self.text = self.text, ""
        return text

    def spend(self, characters):
        """Raises a Fault where more comes than an answer can have."""
        self._room -= characters
        if self._room < 0:
            raise wire.Fault("endless")

    def end(self, reason):
        if reason and not self.reason and reason != "null":
            self.reason = str(reason)
            self._call.allow(USAGE_TIMEOUT)

    def count(self, **usage):
        """Take over those counts that are whole numbers, as a database holds them."""
        counts = {name: value for name, value in usage.items() if type(value) is int and 0 <= value < 2**31}
        self._call.usage = self._call.usage | counts  # another thread may be reading it


def _read(content):
    """(text, thoughts) of a content, which is one text or blocks of either."""
    if isinstance(content, str):
        return content, ""
    blocks = content or ()
    return "".join(block.get("text") or "" for block in blocks), "".join(str(block.get("thinking") or "") for block in blocks)


class HTTPProvider:
    """What both protocols share: the request, its retries, the reading of the stream, and the failures.

    A subclass says how a request looks (`headers`, `path`, `body`), and `read(event, answer)` what an event means.
    """

    substitutes = {}  # a parameter that some servers refuse → the one to send in its place, or None

    def __init__(self, base_url, key, timeout):
        self.key = key
        self.timeout = timeout  # seconds without anything of an answer
        self.wire = wire.Wire(base_url.rstrip("/"))
        self.faults = Faults(self.name, key, base_url)
        self._refused = {}  # model → the parameters that this server does not take for it

    def list_models(self):
        """The list of what the provider says of its models, each with an `id` if it is right. Raises ModelError."""
        call = Call(min(self.timeout, CONNECT_TIMEOUT))
        try:
            with self.wire.request(call, "GET", self.list_path, self.headers()) as response:
                if response.status != 200:
                    raise self.faults.of_response(response)
                return list(json.loads(wire.join(response.chunks()))["data"])
        except (ModelError, wire.Fault, *NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None

    def stream(self, call, model, system, messages, max_tokens, retries=len(RETRY_PAUSES)):
        """Yield the text of the answer in pieces, none of them empty. Tries again so often, as long as none has come."""
        body = self.body(model, system, messages, max_tokens)
        pauses = [*RETRY_PAUSES[:retries], math.inf]
        call.allow(self.timeout)
        deadline = call.deadline  # of all tries, until something of an answer comes
        refused = self._refused.get(model, ())
        while True:
            answer = Answer(call, self.timeout, max_tokens)
            try:
                yield from made_storable(self._answer(call, body, refused, answer))
                return
            except ModelError as error:
                if answer.has_text:
                    raise
                call.deadline = max(call.deadline, deadline)  # an end shortens it
                unsupported = [name for name in error.unsupported if name in self.substitutes and name not in refused]
                if unsupported:
                    refused = (*refused, *unsupported)
                    continue
                pause = pauses.pop(0) * random.uniform(0.75, 1)
                if error.retry_after is not None and pause < math.inf:
                    pause = error.retry_after
                if not error.retryable or pause > min(LONGEST_PAUSE, call.remaining()):
                    raise
                call.pause(pause)

    def _answer(self, call, body, refused, answer):
        """Send the request once, without what was refused, and yield the text of each batch of events, perhaps none."""
        sent = dict(body)
        for name in refused:
            if name in sent:
                value, substitute = sent.pop(name), self.substitutes[name]
                sent |= {substitute: value} if substitute else {}
        headers = {"Accept": "text/event-stream", "Content-Type": "application/json"} | self.headers()
        data = json.dumps(sent, ensure_ascii=False).encode("utf-8", "replace")
        try:
            with self.wire.request(call, "POST", self.path, headers, data) as response:
                if response.status not in (200, 201, 203):
                    raise self.faults.of_response(response)
                if refused and (body["model"] in self._refused or len(self._refused) < LEARNED_MAX):
                    self._refused[body["model"]] = refused
                request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
                call.request_id = request_id and self.faults.mask(request_id[:200])
                for batch in response.events():
                    for event in batch:
                        if not answer.over:
                            self._take(event, answer)
                    yield answer.take()
                    if answer.over:
                        response.read(65536, 0.1)  # what is left of it, so that the connection can be kept
                        break
        except (ModelError, wire.Fault, *NOT_UNDERSTOOD) as failure:
            yield answer.take()  # what came before it
            if not answer.reason:  # behind the end it is none
                raise self.faults.of(failure) from None
        self.faults.check_end(answer.reason, answer.has_text)

    def _take(self, event, answer):
        answer.spend(1)
        text = event.get("error") or event.get("data", "").strip()
        if text == "[DONE]":
            answer.over = True
            return
        data = event["json"] if "json" in event else wire.parse_json(text)
        if "error" in event or event.get("event") == "error" or is_error(data):
            raise self.faults.in_stream({"message": text} if data is None else data)
        self.read(data, answer)


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
        return body | ({"system": system} if system else {}) | {"messages": messages}

    def read(self, event, answer):
        kind = event.get("type")
        if kind in self.members:
            part = event.get(self.members[kind], event)
            text, thoughts = _read(part.get("text") or part.get("content"))
            answer.add(text, part.get("thinking") or thoughts)
            answer.end(part.get("stop_reason"))
            self._count(event.get("usage") or part.get("usage") or {}, answer)
        if kind in ("message", "message_stop"):
            answer.end("end_turn")
            answer.over = True

    def _count(self, usage, answer):
        """Cached tokens are not in `input_tokens` here; they are in ours."""
        counts = [usage.get(name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
        if type(counts[0]) is int:
            answer.count(input_tokens=sum(count for count in counts if type(count) is int), cached_tokens=counts[1])
        answer.count(output_tokens=usage.get("output_tokens"))


class OpenAI(HTTPProvider):
    """Chat Completions, as OpenAI, Ollama, vLLM, llama.cpp and many others speak it (platform.openai.com/docs)."""

    name = "openai"
    path = "/chat/completions"
    list_path = "/models"
    thoughts = ("reasoning_content", "reasoning", "reasoning_details")  # their names differ by server
    substitutes = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens", "stream_options": None}

    def headers(self):
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(self, model, system, messages, max_tokens):
        first = [{"role": "system", "content": system}] if system else []
        # OpenAI's own models refuse the old name of the limit, many other servers do not know the new one.
        limit = "max_completion_tokens" if "//api.openai.com" in self.wire.base_url else "max_tokens"
        body = {"model": model, "stream": True, limit: max_tokens, "stream_options": {"include_usage": True}}
        return body | {"messages": first + messages}

    def read(self, event, answer):
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue  # a second answer, for which nobody asked
            delta = choice.get("delta") or choice.get("message") or {}
            text, thoughts = _read(delta.get("content"))
            thoughts = thoughts or next((str(delta[name]) for name in self.thoughts if delta.get(name)), "")
            answer.add(text + (delta.get("refusal") or ""), thoughts)
            answer.end(choice.get("finish_reason"))
        usage = event.get("usage") or {}
        answer.count(
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        )
