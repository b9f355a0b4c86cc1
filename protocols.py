"""The protocols of providers: how a request looks, and what an event of an answer means."""

import math
import re

from conversation import GO_ON, size_of
from llm import Answer, HTTPProvider


class Echo:
    """Answers with the user's own words, word by word, without a network."""

    name, base_url, prefix = "echo", "", ""

    def list_models(self):
        return ["echo"]

    def stream(self, call, model, system, messages, max_tokens, options={}, prompt=0, retries=0):
        words = messages[-1]["content"]
        if words == GO_ON:
            words = messages[-3]["content"][len(messages[-2]["content"]) :]
        answer = Answer(call, math.inf, len(words), size_of(system, messages))
        for word in re.findall(r"\s*\S+\s*", words):
            call.pause(0)  # which raises HungUp
            answer.add(word)
            answer.text = ""
            yield word


def _read(content):
    """(text, thoughts) of a content, which is one text or blocks of either."""
    if isinstance(content, str):
        return content, ""
    blocks = content or ()
    return "".join(block.get("text") or "" for block in blocks), "".join(_read(block.get("thinking"))[0] for block in blocks)


class Anthropic(HTTPProvider):
    """The Messages API, version 2023-06-01, which compatible servers know too (docs.anthropic.com/en/api/messages)."""

    version = "/v1"
    path = "/v1/messages"
    list_path = "/v1/models?limit=1000"
    # An event has text, usage and stop reason in one member: {"type": "content_block_delta", "delta": {"text": "Hi"}}.
    members = {"message_start": "message", "content_block_start": "content_block", "content_block_delta": "delta"}
    members |= {"message_delta": "delta", "message": None}  # the latter, of a server that does not stream, has them itself
    substitutes = {"cache_control": None}

    def headers(self):
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": self.key} if self.key else {})

    def body(self, model, system, messages, max_tokens, options):
        body = {"model": model, "max_tokens": max_tokens, "stream": True, "cache_control": {"type": "ephemeral"}}
        body |= {"temperature": options["temperature"]} if "temperature" in options else {}
        body |= {"output_config": {"effort": options["reasoning_effort"]}} if "reasoning_effort" in options else {}
        return body | ({"system": system} if system else {}) | {"messages": messages}

    def read(self, event, answer):
        kind = event.get("type")
        if kind in self.members:
            part = event.get(self.members[kind], event)
            text, thoughts = _read(part.get("text") or part.get("content"))
            answer.add(text, str(part.get("thinking") or thoughts))
            answer.end(part.get("stop_reason"))
            usage = event.get("usage") or part.get("usage") or {}
            # Cached tokens are not in `input_tokens` here; they are in ours.
            counts = [usage.get(name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
            if type(counts[0]) is int:
                answer.count(input_tokens=sum(count for count in counts if type(count) is int), cached_tokens=counts[1])
            if kind != "message_start":  # which has a place-holder, 0 or 1
                answer.count(output_tokens=usage.get("output_tokens"))
        if kind in ("message", "message_stop"):
            answer.end("end_turn")
            answer.over = True


class OpenAI(HTTPProvider):
    """Chat Completions, as OpenAI, Ollama, vLLM, llama.cpp and many others speak it (platform.openai.com/docs)."""

    path = "/chat/completions"
    list_path = "/models"
    thoughts = ("reasoning_content", "reasoning", "reasoning_details")  # their names differ by server
    substitutes = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens", "stream_options": None}

    def headers(self):
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(self, model, system, messages, max_tokens, options):
        first = [{"role": "system", "content": system}] if system else []
        body = {"model": model, "stream": True, "max_tokens": max_tokens, "stream_options": {"include_usage": True}}
        return body | {name: options[name] for name in options if name != "max_tokens"} | {"messages": first + messages}

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
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        answer.count(input_tokens=usage.get("prompt_tokens"), output_tokens=usage.get("completion_tokens"), cached_tokens=cached)


PROTOCOLS = {"anthropic": Anthropic, "openai": OpenAI}
