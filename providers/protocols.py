"""The protocols of providers: how requests are built, and how events of an answer are read."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from files import File, with_labels
from providers.answer import Answer, Exchange
from providers.base import HTTPProvider
from providers.conversation import GO_ON, Message, parts_of, size_of
from providers.options import OPTIONS

NO_EFFORT = "none"  # the reasoning effort that switches thinking off


def _words_of(message: Message) -> str:
    parts = parts_of(message)
    images = [part for part in parts if isinstance(part, File)]
    texts = [part for part in parts if isinstance(part, str)]
    return with_labels("\n\n".join(texts), images)


class Echo:
    """Answers with the user's own words, word by word, without a network."""

    name, base_url, prefix = "echo", "", ""
    known_as, lacks_models = "echo", ""

    def list_models(self) -> dict[str, bool | None]:
        return {"echo": True}

    def sees_nothing(self, user: str, model: str) -> bool:
        return False

    def stream(
        self,
        exchange: Exchange,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
        prompt: int = 0,
        retries: int = 0,
        read: Callable[[File], bytes] | None = None,
    ) -> Iterator[str]:
        words = _words_of(messages[-1])
        if words == GO_ON:
            words = _words_of(messages[-3])[len(messages[-2]["content"]) :]
        answer = Answer(exchange, math.inf, len(words), size_of(system, messages))
        for match in re.finditer(r"\s*\S+\s*", words):
            exchange.call.pause(0)  # which raises HungUp
            answer.add(match[0])
            answer.text = ""
            yield match[0]


def _has_thinking(part: dict[str, Any]) -> bool:
    """Whether this is a block of thoughts, or contains one."""
    content = part.get("content")
    blocks = [part, *content] if isinstance(content, list) else [part]
    return any(block.get("type") == "thinking" for block in blocks)


def _text_and_thoughts(content: Any) -> tuple[str, str]:
    """The text and the thoughts of a `content`, which is a text or a list of blocks."""
    if isinstance(content, str):
        return content, ""
    # Anthropic's failed web search has an object here.
    blocks = content if isinstance(content, list) else ()
    text = "".join(block.get("text") or "" for block in blocks)
    return text, "".join(_text_and_thoughts(block.get("thinking"))[0] for block in blocks)


class Anthropic(HTTPProvider):
    """Anthropic's Messages API, version 2023-06-01, which other servers offer, too
    (docs.anthropic.com/en/api/messages)."""

    version = "/v1"
    path = "/v1/messages"
    stream_path = "/v1/stream"
    list_path = "/v1/models?limit=1000"
    # The type of an event → its member with text, usage and stop reason, as in
    # {"type": "content_block_delta", "delta": {"text": "Hi"}}. A `message`, from a server that does
    # not stream, has them itself.
    members = {
        "message_start": "message",
        "content_block_start": "content_block",
        "content_block_delta": "delta",
        "message_delta": "delta",
        "message": None,
    }
    substitutes = {"cache_control": None, "thinking": None}
    own = frozenset(
        ("model", "system", "messages", "max_tokens", "stream", *substitutes, "output_config")
    ).union(option.anthropic for option in OPTIONS.values() if option.anthropic)
    silent_reason = "end_turn"

    def headers(self) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": self.key} if self.key else {})

    def body(
        self,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        body = {
            "model": model,
            "max_tokens": max_tokens,
            "stream": True,
            "cache_control": {"type": "ephemeral"},
        }
        for name, option in OPTIONS.items():
            if option.anthropic and name in options:
                body[option.anthropic] = options[name]
        if options.get("reasoning_effort", NO_EFFORT) != NO_EFFORT:
            body["output_config"] = {"effort": options["reasoning_effort"]}
        if thinking := self._thinking(model, options):
            body["thinking"] = thinking
        if system:
            body["system"] = system
        return body | {"messages": messages}

    def _thinking(self, model: str, options: dict[str, Any]) -> dict[str, str] | None:
        """Whether the model is to think, and to show it; None leaves both to the model. Some do not
        think unless they are told to, and newer ones think and show nothing unless they are asked
        for a summary. Next to thinking, a temperature can only be 1, and `top_p` from 0.95 to 1
        (platform.claude.com/docs/en/build-with-claude/adaptive-thinking)."""
        effort = options.get("reasoning_effort")
        if effort == NO_EFFORT:
            return {"type": "disabled"}
        is_allowed = options.get("temperature", 1) == 1 and options.get("top_p", 1) >= 0.95
        if is_allowed and (effort or self._silent.of(model)):
            return {"type": "adaptive", "display": "summarized"}
        return None

    def image(self, media_type: str, data: str) -> dict[str, Any]:
        # docs.anthropic.com/en/docs/build-with-claude/vision
        return {
            "type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": data},
        }

    def lesson_of(self, refused: tuple[str, ...], options: dict[str, Any]) -> tuple[str, ...]:
        # A model may refuse to disable thinking, and still be able to show its thoughts.
        is_disabled = options.get("reasoning_effort") == NO_EFFORT
        return tuple(name for name in refused if not (is_disabled and name == "thinking"))

    def read(self, event: dict[str, Any], answer: Answer) -> None:
        kind = event.get("type")
        if kind in self.members:
            member = self.members[kind]
            part = event.get(member, event) if member else event
            answer.has_thinking_block |= _has_thinking(part)
            text, thoughts = _text_and_thoughts(part.get("text") or part.get("content"))
            answer.add(text, str(part.get("thinking") or thoughts))
            answer.end(part.get("stop_reason"))
            self._count(kind, event.get("usage") or part.get("usage") or {}, answer)
        if kind in ("message", "message_stop"):
            answer.over = True

    def _count(self, kind: str, usage: dict[str, Any], answer: Answer) -> None:
        cached = usage.get("cache_read_input_tokens")
        # Cached tokens are not in `input_tokens` here; they are in ours.
        counts = [usage.get("input_tokens"), cached, usage.get("cache_creation_input_tokens")]
        if type(counts[0]) is int:
            all_input = sum(count for count in counts if type(count) is int)
            answer.count(input_tokens=all_input, cached_tokens=cached)
        if kind != "message_start":  # there it is a placeholder, 0 or 1
            answer.count(output_tokens=usage.get("output_tokens"))


class OpenAI(HTTPProvider):
    """OpenAI's Chat Completions API, which Ollama, vLLM, llama.cpp and many others offer, too
    (platform.openai.com/docs)."""

    path = "/chat/completions"
    stream_path = "/stream"
    list_path = "/models"
    thoughts = ("reasoning_content", "reasoning", "reasoning_details")  # names, by server
    substitutes = {
        "max_tokens": "max_completion_tokens",
        "max_completion_tokens": "max_tokens",
        "stream_options": None,
    }
    own = frozenset(("model", "messages", "stream", *substitutes)).union(
        option.openai for option in OPTIONS.values() if option.openai
    )
    # Newer models there refuse it; many other servers know nothing else
    # (platform.openai.com/docs/api-reference/chat/create).
    refusing = {"api.openai.com": ("max_tokens",)}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(
        self,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        first = [{"role": "system", "content": system}] if system else []
        body: dict[str, Any] = {
            "model": model,
            "stream": True,
            "max_tokens": max_tokens,
            "stream_options": {"include_usage": True},
        }
        for name, option in OPTIONS.items():
            if option.openai and name in options:
                body[option.openai] = options[name]
        return body | {"messages": first + messages}

    def image(self, media_type: str, data: str) -> dict[str, Any]:
        # platform.openai.com/docs/guides/images-vision
        return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}

    def read(self, event: dict[str, Any], answer: Answer) -> None:
        for choice in event.get("choices") or ():
            if not choice.get("index"):  # a second answer, which we did not ask for, has index 1
                self._read_choice(choice, answer)
        usage = event.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        answer.count(
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            cached_tokens=cached,
        )

    def _read_choice(self, choice: dict[str, Any], answer: Answer) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        text, thoughts = _text_and_thoughts(delta.get("content"))
        if not thoughts:
            named = [str(delta[name]) for name in self.thoughts if delta.get(name)]
            thoughts = named[0] if named else ""
        answer.add(text + (delta.get("refusal") or ""), thoughts)
        if delta.get("tool_calls"):  # some servers give `stop` as the reason
            answer.end("tool_calls")
        answer.end(choice.get("finish_reason"))


Provider = Echo | HTTPProvider
PROTOCOLS = {"anthropic": Anthropic, "openai": OpenAI}
