"""A call to a language model, behind one interface for all protocols.

`provider.stream(exchange, …)` yields the text of an answer as it arrives, and records everything
else about it in the exchange. It raises ModelError if the provider fails, and HungUp after
`exchange.call.hang_up()`.
"""

import base64
import contextlib
import itertools
import json
import random
import secrets
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from typing import Any

import wire
from files import File
from providers.answer import Answer, Exchange
from providers.conversation import ANSWER_MIN, GO_ON, Message, Window, size_of
from providers.error_bodies import is_error
from providers.faults import Faults, ModelError
from providers.learned import Learned, Lesson
from providers.model_list import OLLAMA_LIST, OLLAMA_OWNER, images_in
from providers.reread import AnotherAnswer, Reread
from providers.think_tags import ThinkTags
from well_known import LLAMA_CPP, name_at, name_of

# Seconds before the second and the third try of a call that has not brought a word, if the provider
# names none. A reply that has a word waits for the first of these before it is started again.
RETRY_PAUSES = (0.5, 1.0)
RETRIES = len(RETRY_PAUSES)
PAUSE_MAX = 20  # seconds
BYTES_A_TOKEN = 256  # at most: no known token has more than 64 characters of four bytes
ANSWER_FLOOR = 16  # tokens; an answer with less room is not worth asking for
MODELS_MAX = 10_000  # models
NO_LIST = (404, 405, 501)  # statuses of a provider that has no list of models
# Ollama's list is null until a model is there (ollama/openai/openai.go, ToListCompletion).
OLLAMA_LACKS = "Ollama has no model yet: `ollama pull llama3.2`"
OLLAMA_TIMEOUT = 1  # seconds that Ollama's own list of models may take
REDUCED_ANSWER = 4096  # tokens to ask for if an answer was refused as too long, and no number named
# Seconds before each try to read an answer again after its connection broke, as long as nothing new
# comes.
REREAD_PAUSES = (0, 0.5, 1, 2, 4, 8, 8)
NAME_TIMEOUT, END_TIMEOUT = 5, 3  # seconds to ask a server for its name, and to end an answer


def pause(exchange: Exchange, error: ModelError, seconds: float) -> bool:
    """Pause for as long as the provider wishes, or else for most of these seconds. Returns whether
    to ask it again; if not, there was no pause."""
    seconds = seconds * random.uniform(0.75, 1) if error.retry_after is None else error.retry_after
    is_worth_it = error.retryable and seconds <= min(PAUSE_MAX, exchange.call.remaining())
    if is_worth_it:
        exchange.on_waiting(seconds)
        exchange.call.pause(seconds)
    return is_worth_it


class HTTPProvider:
    """What both protocols share. A subclass builds requests (`headers`, `path`, `body`), and reads
    events (`read`)."""

    path: str  # of requests for an answer
    stream_path: str  # of an answer that the server keeps
    list_path: str  # of the list of models
    # Parameters that some servers refuse → the one to send instead, or None.
    substitutes: dict[str, str | None] = {}
    # Host → the parameters that it is known to refuse. Of others we learn it from their errors.
    refusing: dict[str | None, tuple[str, ...]] = {}
    # The members of a request's body that `body`, a substitute or an option sets.
    own: frozenset[str]
    version = ""  # a base URL may end with this
    # Why an answer ended, if it came to its end without a reason.
    silent_reason: str | None = None

    def __init__(
        self,
        name: str,
        base_url: str,
        key: str | None,
        timeout: float,
        prefix: str = "",
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.base_url, self.key = name, base_url, key
        # What our ids of its models begin with, such as `ollama/`; the provider does not know it.
        self.prefix = prefix
        self.timeout = timeout  # seconds to wait for the next part of an answer
        self.extra = extra or {}  # what the operator adds to each request's body
        self.wire = wire.HTTPClient(base_url.rstrip("/").removesuffix(self.version))
        # If there is a prefix, somebody chose the name in PROVIDERS.
        known_as = name if prefix else name_at(base_url)
        self.faults = Faults(known_as, key, base_url, f"{name.upper()}_API_KEY")
        self.lacks_models = ""  # a sentence: why it lists no models, if we know
        self._is_llama_cpp = self._lacks_streams = False
        self._refused_at_first = self.refusing.get(urllib.parse.urlsplit(base_url).hostname, ())
        # See the table in learned.py.
        self._for_all = Learned()  # model → the parameters that it refuses, for everybody
        self._silent = Learned()  # model → True if it thinks and shows nothing, for everybody
        self._by_user = Learned()  # (user, model) → Lesson

    def headers(self) -> dict[str, str]:
        raise NotImplementedError

    def body(
        self,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """The body of a request, as JSON; but it has a File for each image (see `image`)."""
        raise NotImplementedError

    def image(self, media_type: str, data: str) -> dict[str, Any]:
        """The part of a message that is an image. `data` is its bytes in base64."""
        raise NotImplementedError

    def lesson_of(self, refused: tuple[str, ...], options: dict[str, Any]) -> tuple[str, ...]:
        """Which of the parameters that were refused beside these options would be refused beside
        any others, too."""
        return refused

    def read(self, event: dict[str, Any], answer: Answer) -> None:
        """Add an event to the answer; a server that does not stream sends its body as one event."""
        raise NotImplementedError

    def list_models(self) -> dict[str, bool | None]:
        """The models that the provider lists: their ids, with its prefix → whether they see images,
        or None if the list does not say. Ignores entries without an id. Raises ModelError."""
        call = wire.Call(min(self.timeout, wire.CONNECT_TIMEOUT))
        try:
            with self.wire.request(call, "GET", self.list_path, self.headers()) as response:
                if response.status != 200:
                    error = self.faults.of_response(response)
                    error.lists_nothing = response.status in NO_LIST
                    raise error
                body = json.loads(wire.join(response.chunks()))
                data = body["data"]
                listed = [each for each in list(data or ())[:MODELS_MAX] if isinstance(each, dict)]
                found = [model.get("id") for model in listed]
                ids = [each for each in found if isinstance(each, str) and each.strip()]
                response.is_whole = bool(ids)
                self._learn_name(response, *(model.get("owned_by") for model in listed[:1]))
                self.lacks_models = OLLAMA_LACKS if data is None else ""
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None
        images = images_in(body.get("models")) | images_in(listed)
        if any(model.get("owned_by") == OLLAMA_OWNER for model in listed):
            images |= self._images_of_ollama()
        return {self.prefix + each: images.get(each) for each in ids}

    def _images_of_ollama(self) -> dict[str, bool]:
        """What Ollama's own list says about images; nothing if it does not answer soon."""
        client = wire.HTTPClient(self.base_url.rstrip("/").removesuffix("/v1"))
        call = wire.Call(min(self.timeout, OLLAMA_TIMEOUT))
        try:
            with client.request(call, "GET", OLLAMA_LIST, self.headers()) as response:
                return images_in(json.loads(wire.join(response.chunks()))["models"])
        except (wire.Fault, *wire.NOT_UNDERSTOOD):
            return {}

    @property
    def known_as(self) -> str:
        """What people call it: what it says it is, or else its address."""
        return self.faults.name

    def _learn_name(self, response: wire.Response, owner: Any = "") -> None:
        name = name_of(response.headers.get("Server"), str(owner))
        self._is_llama_cpp |= name == LLAMA_CPP
        if name and not self.prefix:
            self.faults.name = name

    # Answers that the server keeps

    def ask_for_name(self) -> None:
        """Find out whether the server is llama.cpp, which says so in each response. Only those
        without TLS are asked: it usually runs nearby."""
        if self.base_url.startswith("http:"):
            with contextlib.suppress(wire.Fault):
                call = wire.Call(NAME_TIMEOUT)
                with self.wire.request(call, "GET", "/health", {}) as response:
                    self._learn_name(response)

    @property
    def keeps_answers(self) -> bool:
        """Whether the server goes on with an answer after we hang up, and keeps it, if a request
        gives it a name; as llama.cpp does (github.com/ggml-org/llama.cpp, tools/server)."""
        return self._is_llama_cpp and not self._lacks_streams

    def can_keep_answers(self) -> bool:
        """Whether the server has the paths for answers that it keeps: older ones do not, nor does a
        router in front of it. Raises ModelError if it does not answer."""
        call, body = wire.Call(NAME_TIMEOUT), b'{"conversation_ids": []}'
        headers = {"Content-Type": "application/json"} | self.headers()
        try:
            path = f"{self.stream_path}s/lookup"
            with self.wire.request(call, "POST", path, headers, body) as response:
                return response.status == 200
        except wire.Fault as fault:
            raise self.faults.of(fault) from None

    def end_stream(self, stream_id: str) -> None:
        """Have the server drop an answer that it keeps, and end it if it is in progress."""
        with (
            contextlib.suppress(wire.Fault),
            self._stream(wire.Call(END_TIMEOUT), "DELETE", stream_id) as response,
        ):
            self._learn_name(response)

    def _stream(
        self, call: wire.Call, method: str, stream_id: str
    ) -> contextlib.AbstractContextManager[wire.Response]:
        path = f"{self.stream_path}?conv_id={stream_id}&from=0"
        return self.wire.request(call, method, path, self.headers())

    def attach(self, exchange: Exchange, max_tokens: int, before: str, known: str) -> Iterator[str]:
        """Yield the rest of an answer that another process has begun to read: that which the
        exchange names. `known` is what it has added so far to the text `before`. Raises
        AnotherAnswer if the server does not have it any more, and what `stream` raises."""
        exchange.call.set_timeout(self.timeout)
        yield from self._reread(exchange, Reread(before, known), max_tokens, goes_on=bool(before))

    def _reread(
        self, exchange: Exchange, known: Reread, limit: int, goes_on: bool
    ) -> Iterator[str]:
        """Read the exchange's last answer again, and yield what is new, until it ends. If the
        connection breaks, read it once more."""
        answer, pauses = exchange.answers[-1], [*REREAD_PAUSES]
        while pauses:
            exchange.call.pause(pauses.pop(0))
            answer.read_again(self.timeout, limit, ThinkTags(goes_on))
            known.begin()
            size = answer.size
            try:
                for text in wire.made_storable(self._kept_answer(exchange, answer, limit)):
                    if new := known.add(text):
                        yield new
                if new := known.end():
                    yield new
                return
            except ModelError as error:
                if not error.is_broken:
                    raise
            if answer.size != size:
                pauses = [*REREAD_PAUSES]
        raise AnotherAnswer

    def _kept_answer(self, exchange: Exchange, answer: Answer, limit: int) -> Iterator[str]:
        """Like `_answer`, for an answer that the server keeps."""
        try:
            with self._stream(exchange.call, "GET", str(exchange.stream_id)) as response:
                if response.status != 200:
                    # A router in front of llama.cpp may not know the path.
                    is_of_llama = name_of(response.headers.get("Server")) == LLAMA_CPP
                    self._lacks_streams |= response.status == 404 and not is_of_llama
                    raise AnotherAnswer
                exchange.on_accepted()
                try:
                    yield from self._read(exchange, response, answer, limit)
                except ModelError as error:
                    if error.is_broken and response.is_read:
                        raise AnotherAnswer from None  # the server has no more of it
                    raise
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None

    # Answers

    def stream(
        self,
        exchange: Exchange,
        model: str,
        system: str | None,
        messages: list[Message],
        max_tokens: int,
        options: dict[str, Any],
        prompt: int = 0,
        retries: int = RETRIES,
        read: Callable[[File], bytes] | None = None,
    ) -> Iterator[str]:
        """Yield the text of the answer in pieces, none of them empty. `read` returns the bytes of
        an image of the messages; it is called again for each request.

        As long as no text has come, the request is sent again: changed, if a refusal says how, or
        up to `retries` times as it is. `prompt` is the most tokens that the messages can have. If
        they do not fit the window together with an answer of a quarter of it, the error is a 413.
        """
        model = model.removeprefix(self.prefix)
        call = exchange.call
        call.set_timeout(self.timeout)
        deadline, pauses = call.deadline, [*RETRY_PAUSES[:retries]]
        size = size_of(system, messages)
        goes_on = messages[-1]["content"] == GO_ON
        has_images = not all(isinstance(each["content"], str) for each in messages)
        limit = self._lesson(exchange, model).limit(prompt, max_tokens)
        while True:
            answer = Answer(exchange, self.timeout, limit, size, ThinkTags(goes_on))
            body = self.body(model, system, messages, limit, options) | self.extra
            self._leave_out(body, self._lesson(exchange, model).refused)
            is_whole = False
            try:
                texts = wire.made_storable(self._answer(exchange, body, answer, limit, read))
                if exchange.stream_id:
                    texts = self._unbroken(exchange, texts, limit, goes_on)
                yield from texts
                is_whole = True
                return
            except ModelError as error:
                if answer.has_text:
                    call.set_timeout(self.timeout)  # for going on after it
                    raise
                if answer.size is None and not answer.usage and error.status != 504:
                    answer.prompt = 0  # a request that was refused or did not arrive is free
                call.deadline = max(call.deadline, deadline)  # the end of an answer shortens it
                # Otherwise it speaks of something else: it may quote the user.
                if error.sees_nothing and has_images:
                    exchange.lesson = exchange.lesson._replace(sees_nothing=True)
                if "max_tokens" in options:
                    error.longest = None  # the user's own wish is refused, not changed
                if self._refuses_more(exchange, model, error, body):
                    continue
                lower = self._lower_limit(exchange, error, limit, size, prompt)
                if lower is not None:
                    limit = lower
                elif not (pauses and pause(exchange, error, pauses.pop(0))):
                    raise self.faults.of_options(error, options) from None
            finally:
                if is_whole or answer.size:
                    self._keep_lessons(exchange, model, options, answer)

    def _unbroken(
        self, exchange: Exchange, texts: Iterator[str], limit: int, goes_on: bool
    ) -> Iterator[str]:
        """These texts of an answer; if its connection breaks, the server is asked for the rest."""
        known = Reread()
        try:
            for text in texts:
                yield known.add(text)
            return
        except ModelError as error:
            if not error.is_broken:
                raise
            broken = error
        try:
            yield from self._reread(exchange, known, limit, goes_on)
        except AnotherAnswer:
            raise broken from None
        finally:
            del broken  # its traceback refers to this frame: a reference cycle

    def _lesson(self, exchange: Exchange, model: str) -> Lesson:
        """What refusals have told about this model: in this exchange, else this user, else
        everybody."""
        read = self._by_user.of((exchange.user, model), Lesson()).updated(exchange.lesson)
        return Lesson(refused=self._refusals_for_all(model)).updated(read)

    def sees_nothing(self, user: str, model: str) -> bool:
        """Whether this user was told lately that this model does not see images."""
        lesson = self._by_user.of((user, model.removeprefix(self.prefix)), Lesson())
        return lesson.sees_nothing

    def _refusals_for_all(self, model: str) -> tuple[str, ...]:
        return self._for_all.of(model, self._refused_at_first)

    def _leave_out(self, body: dict[str, Any], refused: tuple[str, ...]) -> None:
        """Take these parameters out of the body of a request, or send others instead."""
        for name in refused:
            if name in body:
                value, substitute = body.pop(name), self.substitutes[name]
                if substitute is not None:
                    body[substitute] = value

    def _refuses_more(
        self, exchange: Exchange, model: str, error: ModelError, body: dict[str, Any]
    ) -> bool:
        """Whether the error refuses parameters in this body that can be left out and were not
        known to be refused. The exchange remembers them."""
        refused = self._lesson(exchange, model).refused
        new = [
            name
            for name in error.unsupported
            if name in body and name in self.substitutes and name not in refused
        ]
        if new:
            exchange.lesson = exchange.lesson._replace(refused=(*refused, *new))
            exchange.proven += tuple(name for name in new if error.unsupported[name])
        return bool(new)

    def _lower_limit(
        self, exchange: Exchange, error: ModelError, limit: int, size: int, prompt: int
    ) -> int | None:
        """The limit for the next try if this error refuses an answer of `limit` tokens to a prompt
        of `size` bytes and at most `prompt` tokens; None if a lower one is of no use. The exchange
        remembers what the error tells."""
        lesson = exchange.lesson
        if error.longest is not None:
            longest = error.longest or REDUCED_ANSWER
            # What an account can still pay for may be little, and changes with each answer.
            if not (ANSWER_FLOOR if error.is_spent else ANSWER_MIN) <= longest < limit:
                return None
            if not error.is_spent:
                exchange.lesson = lesson._replace(longest=longest)
            return longest
        if error.window is not None:
            is_possible = error.window >= size // BYTES_A_TOKEN + ANSWER_FLOOR
            window = Window.of_refusal(error.window if is_possible else 0, prompt)
            exchange.lesson = lesson._replace(window=window)
            lower = window.lower(prompt, limit)
            return lower if lower < limit else None
        return None

    def _keep_lessons(
        self, exchange: Exchange, model: str, options: dict[str, Any], answer: Answer
    ) -> None:
        """A request with these options was answered: keep the lessons that it followed."""
        if proven := self.lesson_of(exchange.proven, options):
            both = dict.fromkeys(self._refusals_for_all(model) + proven)
            self._for_all.keep(model, tuple(both))
        refused = self.lesson_of(exchange.lesson.refused, options)
        if set(refused) <= set(self._refusals_for_all(model)):
            refused = ()
        key = exchange.user, model
        known = self._by_user.of(key, Lesson())
        lesson = known.updated(exchange.lesson._replace(refused=refused))
        counted = sum(answer.usage.get(name, 0) for name in ("input_tokens", "output_tokens"))
        used = max(counted, answer.prompt // BYTES_A_TOKEN + ANSWER_FLOOR)
        if lesson.window and lesson.window.is_named and lesson.window.tokens < used:
            lesson = lesson._replace(window=None)
        if lesson != known:
            self._by_user.keep(key, lesson)
        if answer.has_thinking_block and not answer.has_thoughts:
            self._silent.keep(model, True)

    def _answer(
        self,
        exchange: Exchange,
        body: dict[str, Any],
        answer: Answer,
        limit: int,
        read: Callable[[File], bytes] | None,
    ) -> Iterator[str]:
        """Send the request once, and yield the text of each batch of events, perhaps none."""
        headers = {
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
        } | self.headers()
        if exchange.stream_id:
            headers["X-Conversation-Id"] = exchange.stream_id

        # The images are in memory only while the request is sent.
        data = self.data(body, read)
        request = self.wire.request(exchange.call, "POST", self.path, headers, data)
        del data  # `wire` frees it once it is sent
        try:
            with request as response:
                if response.status not in (200, 201, 203):
                    raise self.faults.of_response(response)
                exchange.on_accepted()
                exchange.request_id = self._request_id(response)
                self._learn_name(response)
                yield from self._read(exchange, response, answer, limit)
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None

    def data(self, body: dict[str, Any], read: Callable[[File], bytes] | None) -> bytes:
        """The body of a request, as it is sent. `read` returns the bytes of an image.

        Images are put into the JSON once that is made: `json` would take a tenth of a second for
        16 MB of them, in which no other thread runs, and twice the memory."""
        mark, images = secrets.token_hex(16), []

        def image(file: File) -> dict[str, Any]:
            assert read is not None
            images.append(base64.b64encode(read(file)))
            return self.image(file.media_type, mark)

        data = json.dumps(body, ensure_ascii=False, default=image).encode("utf-8", "replace")
        if not images:
            return data
        around = data.split(mark.encode())
        return b"".join(itertools.chain(*zip(around, [*images, b""], strict=True)))

    def _request_id(self, response: wire.Response) -> str | None:
        """The provider's own id of the request, for the log."""
        headers = response.headers
        request_id = headers.get("request-id") or headers.get("x-request-id")
        return request_id and self.faults.mask(request_id[:200])

    def _read(
        self, exchange: Exchange, response: wire.Response, answer: Answer, limit: int
    ) -> Iterator[str]:
        """Yield the text of each batch of events, perhaps none, and record how the answer ended."""
        is_whole = yield from self._texts(response, answer)
        self._end(exchange, answer, limit)
        response.is_whole = is_whole
        yield answer.rest()

    def _end(self, exchange: Exchange, answer: Answer, limit: int) -> None:
        """Record how the answer ended. Raises ModelError if it is not whole."""
        size = (answer.size or 0) if answer.has_text else limit
        length = answer.usage.get("output_tokens", size)
        reason = answer.reason or (self.silent_reason if answer.over else None)
        end = self.faults.check_end(
            reason, answer.has_text, length >= limit, answer.has_only_thoughts
        )
        exchange.stop_reason, exchange.window_is_full = end

    def _texts(self, response: wire.Response, answer: Answer) -> Generator[str, None, bool]:
        """Yield the text of each batch of events, perhaps none. Returns whether the answer came to
        its protocol's own end: an event, or a reason if the server does not stream."""
        try:
            for batch in response.events():
                for event in batch:
                    if answer.over:
                        response.is_followed = True
                    else:
                        self._read_event(event, answer)
                yield answer.text
                answer.text = ""
                if answer.over:
                    if response.read_some(65536, 0.1):  # more than the end of the framing
                        response.is_followed = True
                    break
        except (ModelError, wire.Fault, *wire.NOT_UNDERSTOOD):
            yield answer.text  # what came before it
            if not answer.reason:  # after the end, it does not matter
                raise
            return False
        is_at_end = answer.reason if response.is_json else answer.over
        return bool(answer.size and is_at_end)

    def _read_event(self, event: dict[str, Any], answer: Answer) -> None:
        answer.spend(1)
        text = event.get("error") or event.get("data", "").strip()
        if text == "[DONE]":
            answer.over = True
            return
        data = event["json"] if "json" in event else wire.parse_json(text)
        if "error" in event or event.get("event") == "error" or is_error(data):
            raise self.faults.in_stream({"message": text} if data is None else data)
        self.read(data, answer)
