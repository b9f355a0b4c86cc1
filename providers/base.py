"""A call to a language model, behind one interface for all protocols.

`provider.stream(exchange, …)` yields the text of an answer as it arrives, and leaves what else is
known of it in the exchange. What goes wrong is a ModelError, or HungUp after
`exchange.call.hang_up()`.
"""

import dataclasses
import json
import random
import urllib.parse
from collections.abc import Generator, Iterator
from typing import Any

import wire
from providers.answer import Answer, Exchange
from providers.conversation import GO_ON, Window, size_of
from providers.error_bodies import is_error
from providers.faults import Faults, ModelError
from providers.learned import Learned
from providers.think_tags import ThinkTags
from well_known import name_at, name_of

# Seconds before the second and the third try, where the provider names none.
RETRY_PAUSES = (0.5, 1.0)
RETRIES = len(RETRY_PAUSES)
LONGEST_PAUSE = 20  # seconds
BYTES_A_TOKEN = 256  # at most, surely: such a token has 64 characters of four bytes
FEW = 16  # tokens, at least, that a window has besides a prompt that was answered
LONGEST_LIST = 10_000  # models
# Ollama's list is null until a model is there (ollama/openai/openai.go, ToListCompletion).
OLLAMA_LACKS = "Ollama has no model yet: `ollama pull llama3.2`"
LESS = 4096  # tokens of an answer, if a refusal of more names no number


def pause(exchange: Exchange, error: ModelError, seconds: float) -> bool:
    """Pause for as long as the provider wishes, or some of these seconds. Returns whether it is to
    be asked again."""
    seconds = seconds * random.uniform(0.75, 1) if error.retry_after is None else error.retry_after
    is_worth_it = error.retryable and seconds <= min(LONGEST_PAUSE, exchange.call.remaining())
    if is_worth_it:
        exchange.on_waiting(seconds)
        exchange.call.pause(seconds)
    return is_worth_it


@dataclasses.dataclass
class _Tries:
    """How the next request for one answer is sent."""

    limit: int  # tokens that the answer may have
    deadline: float  # of all of them, until something of an answer comes
    pauses: list[float]  # that are left, before requests that are the same


class HTTPProvider:
    """What both protocols share. A subclass says how requests look (`headers`, `path`, `body`), and
    what events mean (`read`)."""

    path: str  # of requests for an answer
    list_path: str  # of the list of models
    # A parameter that some servers refuse → the one to send in its place, or None.
    substitutes: dict[str, str | None] = {}
    # Of the servers by name, what they refuse; what others do is learned from their answers.
    refusing: dict[str | None, tuple[str, ...]] = {}
    version = ""  # the end of a base URL that may be left out
    silent_reason: str | None = None  # of an answer that comes to its end, and names none

    def __init__(
        self, name: str, base_url: str, key: str | None, timeout: float, prefix: str = ""
    ) -> None:
        self.name, self.base_url, self.key = name, base_url, key
        self.prefix = prefix  # of the ids of its models, which it does not know: `ollama/`
        self.timeout = timeout  # seconds without anything of an answer
        self.wire = wire.Wire(base_url.rstrip("/").removesuffix(self.version))
        # With a prefix, the name was chosen on this server.
        known_as = name if prefix else name_at(base_url)
        self.faults = Faults(known_as, key, base_url, f"{name.upper()}_API_KEY")
        self.lacks_models = ""  # why it lists none, if that is known: a sentence
        self._refused_at_first = self.refusing.get(urllib.parse.urlsplit(base_url).hostname, ())
        self._refused = Learned()  # the parameters that this server does not take for a model
        self._windows = Learned()  # of each model its Window
        self._longest = Learned()  # of each model the tokens of its longest answer
        self._silent = Learned()  # the models that think, and did not show what

    def headers(self) -> dict[str, str]:
        raise NotImplementedError

    def body(
        self,
        model: str,
        system: str | None,
        messages: list[dict[str, str]],
        max_tokens: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        raise NotImplementedError

    def lesson_of(self, refused: tuple[str, ...], options: dict[str, Any]) -> tuple[str, ...]:
        """Which of the parameters that were refused are left out for others, too. The request had
        these options."""
        return refused

    def read(self, event: dict[str, Any], answer: Answer) -> None:
        """Add to the answer what an event, or a whole answer that is none, says."""
        raise NotImplementedError

    def list_models(self) -> list[str]:
        """The ids of the models that the provider lists, with its prefix; what is none is passed
        over. Raises ModelError."""
        call = wire.Call(min(self.timeout, wire.CONNECT_TIMEOUT))
        try:
            with self.wire.request(call, "GET", self.list_path, self.headers()) as response:
                if response.status != 200:
                    raise self.faults.of_response(response)
                data = json.loads(wire.join(response.chunks()))["data"]
                listed = [
                    each for each in list(data or ())[:LONGEST_LIST] if isinstance(each, dict)
                ]
                found = [model.get("id") for model in listed]
                ids = [each for each in found if isinstance(each, str) and each.strip()]
                response.is_whole = bool(ids)
                self._learn_name(response, *(model.get("owned_by") for model in listed[:1]))
                self.lacks_models = OLLAMA_LACKS if data is None else ""
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None
        return [self.prefix + each for each in ids]

    @property
    def known_as(self) -> str:
        """What people call it: what it says it is, else by its address."""
        return self.faults.name

    def _learn_name(self, response: wire.Response, owner: Any = "") -> None:
        if not self.prefix and (name := name_of(response.headers.get("Server"), str(owner))):
            self.faults.name = name

    def stream(
        self,
        exchange: Exchange,
        model: str,
        system: str | None,
        messages: list[dict[str, str]],
        max_tokens: int,
        options: dict[str, Any],
        prompt: int = 0,
        retries: int = RETRIES,
    ) -> Iterator[str]:
        """Yield the text of the answer in pieces, none of them empty. Tries again so often, as long
        as none has come. `prompt` is how many tokens the messages have at most; where they do not
        fit the window beside a quarter of it, the error is a 413."""
        model = model.removeprefix(self.prefix)
        call = exchange.call
        window = exchange.window or self._windows.of(model, Window())
        call.allow(self.timeout)
        longest = exchange.longest or self._longest.of(model, max_tokens)
        limit = window.room(prompt, min(max_tokens, longest))
        tries = _Tries(limit, call.deadline, [*RETRY_PAUSES[:retries]])
        size = size_of(system, messages)
        goes_on = messages[-1]["content"] == GO_ON
        while True:
            tags = ThinkTags(goes_on)
            answer, is_whole = Answer(exchange, self.timeout, tries.limit, size, tags), False
            body = self.body(model, system, messages, tries.limit, options)
            try:
                texts = self._answer(
                    exchange, body, self._refusals(exchange, model), answer, tries.limit
                )
                yield from wire.made_storable(texts)
                is_whole = True
                return
            except ModelError as error:
                if answer.has_text:
                    call.allow(self.timeout)  # for going on behind it
                    raise
                if "max_tokens" in options:
                    error.longest = None  # the user's own wish, which is refused, not changed
                if not self._prepare_next_try(tries, exchange, model, error, answer, prompt):
                    raise self.faults.of_options(error, options, body) from None
            finally:
                if is_whole or answer.size:
                    self._learn(exchange, model, options, answer)

    def _prepare_next_try(
        self,
        tries: "_Tries",
        exchange: Exchange,
        model: str,
        error: ModelError,
        answer: Answer,
        prompt: int,
    ) -> bool:
        """Prepare the next try behind this error: without what was refused, with a lower limit, or
        after a pause. Returns whether there is one."""
        size = answer.prompt
        if answer.size is None and not answer.usage and error.status != 504:
            answer.prompt = 0  # a request that was refused, or did not arrive, costs nothing
        call = exchange.call
        call.deadline = max(call.deadline, tries.deadline)  # an end shortens it
        if self._leaves_out(exchange, model, error):
            return True
        before = tries.limit
        if error.longest is not None:
            tries.limit = self._shortened(exchange, error, before)
        else:
            tries.limit = self._lowered(exchange, error, size, prompt, before)
        if tries.limit < before:
            return True
        return bool(tries.pauses) and pause(exchange, error, tries.pauses.pop(0))

    def _refusals(self, exchange: Exchange, model: str) -> tuple[str, ...]:
        """The parameters that are not sent, or by another name: the model refuses them."""
        return exchange.refused or self._refused.of(model) or self._refused_at_first

    def _leaves_out(self, exchange: Exchange, model: str, error: ModelError) -> bool:
        """Whether the error refuses parameters that were sent and need not be. From here on they
        are not sent any more."""
        refused = self._refusals(exchange, model)
        known = self.substitutes.keys() - set(refused)
        new = [name for name in error.unsupported if name in known]
        if new:
            exchange.refused = (*refused, *new)
        return bool(new)

    def _lowered(
        self, exchange: Exchange, error: ModelError, size: int, prompt: int, limit: int
    ) -> int:
        """The limit of the answer, where the error says that one of `limit` tokens has no room
        beside a prompt of so many bytes and, at most, tokens. The exchange remembers the window."""
        if error.window is None:
            return limit
        is_possible = error.window >= size // BYTES_A_TOKEN + FEW
        named = error.window if is_possible else 0
        teaches = error.teaches and named == error.window
        exchange.window = Window.of_refusal(named, prompt, teaches)
        return exchange.window.lower(prompt, limit)

    def _shortened(self, exchange: Exchange, error: ModelError, limit: int) -> int:
        """The limit of the answer, if the error says that one of `limit` tokens is longer than the
        model, or the account, allows. The exchange remembers it."""
        longest = error.longest or LESS
        if not FEW <= longest < limit:
            return limit
        exchange.longest, exchange.longest_teaches = longest, error.teaches
        return longest

    def _learn(
        self, exchange: Exchange, model: str, options: dict[str, Any], answer: Answer
    ) -> None:
        """The request, with these options, was answered: what it has heeded holds for others, too,
        if it can be true."""
        used = max(answer.usage.get("input_tokens", 0), answer.prompt // BYTES_A_TOKEN) + FEW
        window = exchange.window
        if window and window.teaches and window.tokens >= used:
            self._windows.keep(model, window)
        if exchange.longest and exchange.longest_teaches:
            self._longest.keep(model, exchange.longest)
        if refused := self.lesson_of(exchange.refused, options):
            self._refused.keep(model, refused)
        if answer.has_thinking_block and not answer.has_thoughts:
            self._silent.keep(model, True)

    def _answer(
        self,
        exchange: Exchange,
        body: dict[str, Any],
        refused: tuple[str, ...],
        answer: Answer,
        limit: int,
    ) -> Iterator[str]:
        """Send the request once, without what was refused, and yield the text of each batch of
        events, perhaps none."""
        for name in refused:
            if name in body:
                value, substitute = body.pop(name), self.substitutes[name]
                if substitute is not None:
                    body[substitute] = value
        headers = {
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
        } | self.headers()
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        request = self.wire.request(exchange.call, "POST", self.path, headers, data)
        del data  # which the wire lets go of once it is sent
        try:
            with request as response:
                if response.status not in (200, 201, 203):
                    raise self.faults.of_response(response, body)
                exchange.request_id = self._request_id(response)
                self._learn_name(response)
                is_whole = yield from self._texts(response, answer, body)
                self._end(exchange, answer, limit)
                response.is_whole = is_whole
                yield answer.rest()
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None

    def _request_id(self, response: wire.Response) -> str | None:
        """By which the provider knows the request, for the log."""
        headers = response.headers
        request_id = headers.get("request-id") or headers.get("x-request-id")
        return request_id and self.faults.mask(request_id[:200])

    def _end(self, exchange: Exchange, answer: Answer, limit: int) -> None:
        """Raises ModelError where the answer is not whole."""
        size = (answer.size or 0) if answer.has_text else limit
        length = answer.usage.get("output_tokens", size)
        reason = answer.reason or (self.silent_reason if answer.over else None)
        end = self.faults.check_end(
            reason, answer.has_text, length >= limit, answer.has_only_thoughts
        )
        exchange.stop_reason, exchange.window_is_full = end

    def _texts(
        self, response: wire.Response, answer: Answer, body: dict[str, Any]
    ) -> Generator[str, None, bool]:
        """Yield the text of each batch of events, perhaps none. Returns whether the answer came to
        the end that its protocol has for it: an event, or a reason in what is no stream."""
        try:
            for batch in response.events():
                for event in batch:
                    if answer.over:
                        response.is_followed = True
                    else:
                        self._take(event, answer, body)
                yield answer.text
                answer.text = ""
                if answer.over:
                    if response.read_some(65536, 0.1):  # else only the end of its framing was left
                        response.is_followed = True
                    break
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD):
            yield answer.text  # what came before it
            if not answer.reason:  # behind the end it is none
                raise
            return False
        is_at_end = answer.reason if response.is_json else answer.over
        return bool(answer.size and is_at_end)

    def _take(self, event: dict[str, Any], answer: Answer, body: dict[str, Any]) -> None:
        answer.spend(1)
        text = event.get("error") or event.get("data", "").strip()
        if text == "[DONE]":
            answer.over = True
            return
        data = event["json"] if "json" in event else wire.parse_json(text)
        if "error" in event or event.get("event") == "error" or is_error(data):
            raise self.faults.in_stream({"message": text} if data is None else data, body)
        self.read(data, answer)
