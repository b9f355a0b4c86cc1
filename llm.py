"""A call to a language model, behind one interface for all protocols: `provider.stream(call, …)` yields the text of an answer as
it arrives, and leaves what else is known of it in `call`. What goes wrong is a ModelError, or HungUp after `call.hang_up()`."""

import json
import pathlib
import random
import re
import tomllib

import wire
from conversation import LEARNED_MAX, Windows, size_of
from faults import NOT_UNDERSTOOD, Faults, ModelError, is_error

RETRY_PAUSES = (0.5, 1.0)  # seconds before the second and the third try, where the provider names none
LONGEST_PAUSE = 20  # seconds
USAGE_TIMEOUT = 5  # seconds for the usage, which may come behind the end of the text
CHARACTERS_A_TOKEN = 64  # at most, thoughts among them; no model's longest token has more but for white space
LONGEST_LIST = 10_000  # models
_QUIRKS = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8"))


def pause(call, error, seconds):
    """Pause for as long as the provider wishes, or some of these seconds. Returns whether it is to be asked again."""
    seconds = seconds * random.uniform(0.75, 1) if error.retry_after is None else error.retry_after
    is_worth_it = error.retryable and seconds <= min(LONGEST_PAUSE, call.remaining())
    if is_worth_it:
        call.pause(seconds)
    return is_worth_it


class Answer:
    """What has been read of one answer: the text of the last batch of events, how much there was, how it ends, what it used."""

    def __init__(self, call, timeout, max_tokens, prompt):
        self.usage = {}  # input_tokens, output_tokens, cached_tokens, as far as the provider said
        self.prompt = prompt  # bytes of what the model is sent
        self.text, self.has_text = "", False
        self.size = None  # bytes of text and thoughts, once it begins
        self.reason = None  # the protocol's own, for the end; what comes behind it is no text
        self.over = False  # nothing of use comes any more
        self._call, self._timeout = call, timeout
        self._room = CHARACTERS_A_TOKEN * max_tokens + 65536  # characters that may still come
        call.answers.append(self)
        call.has_used = True

    def add(self, text, thoughts=""):
        """Take text, or thoughts, or neither where the answer begins. Each is a sign that the model works."""
        if self.reason:
            return
        if text or thoughts or self.size is None:
            self._call.allow(self._timeout)
        self.spend(len(text) + len(thoughts))
        self.size = (self.size or 0) + len((text + thoughts).encode("utf-8", "replace"))
        if thoughts:
            self._call.on_thinking(len(thoughts))
        self.text += text
        self.has_text |= bool(text)

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
        if counts.items() - self.usage.items():
            self.usage = self.usage | counts  # another thread may be reading it
            self._call.has_used = True

    def uncounted(self):
        """The bytes of what the model was sent, and of what it wrote, whose tokens the provider has not counted."""
        return 0 if "input_tokens" in self.usage else self.prompt, 0 if "output_tokens" in self.usage else self.size or 0


class HTTPProvider:
    """What both protocols share. A subclass says how requests look (`headers`, `path`, `body`), and what events mean (`read`)."""

    substitutes = {}  # a parameter that some servers refuse → the one to send in its place, or None
    version = ""  # the end of a base URL that may be left out

    def __init__(self, name, base_url, key, timeout, prefix=""):
        self.name, self.base_url, self.key = name, base_url, key
        self.prefix = prefix  # of the ids of its models, which it does not know: `ollama/`
        self.timeout = timeout  # seconds without anything of an answer
        self.wire = wire.Wire(base_url.rstrip("/").removesuffix(self.version))
        self.faults = Faults(name, key, base_url)
        self.quirks = next((quirks for host, quirks in _QUIRKS.items() if re.search(f"//([^/]*@)?{host}(/|$)", base_url)), {})
        self._refused = {}  # model → the parameters that this server does not take for it
        self._windows = Windows()

    def list_models(self):
        """The ids of the models that the provider lists, with its prefix; what is none is passed over. Raises ModelError."""
        if not self.quirks.get("lists", True):
            raise self.faults.error(502, "lists no model that can be asked for. Name one, or set MODELS on the server.")
        call = wire.Call(min(self.timeout, wire.CONNECT_TIMEOUT))
        try:
            with self.wire.request(call, "GET", self.list_path, self.headers()) as response:
                if response.status != 200:
                    raise self.faults.of_response(response)
                listed = list(json.loads(wire.join(response.chunks()))["data"])[:LONGEST_LIST]
        except (ModelError, wire.Fault, *NOT_UNDERSTOOD) as failure:
            raise self.faults.of(failure) from None
        ids = [model.get("id") for model in listed if isinstance(model, dict)]
        needless = self.quirks.get("needless", "")
        return [self.prefix + each.removeprefix(needless) for each in ids if isinstance(each, str) and each.strip()]

    def stream(self, call, model, system, messages, max_tokens, options={}, prompt=0, retries=len(RETRY_PAUSES)):
        """Yield the text of the answer in pieces, none of them empty. Tries again so often, as long as none has come. `prompt` is
        how many tokens the messages have at most; where they do not fit the window beside a quarter of it, the error is a 413."""
        model = model.removeprefix(self.prefix)
        limit = self._windows.room(model, prompt, max_tokens)
        pauses = [*RETRY_PAUSES[:retries]]
        call.allow(self.timeout)
        deadline = call.deadline  # of all tries, until something of an answer comes
        refused = self._refused.get(model, self.quirks.get("refuses", ()))
        while True:
            answer = Answer(call, self.timeout, limit, size_of(system, messages))
            try:
                body = self.body(model, system, messages, limit, options)
                yield from wire.made_storable(self._answer(call, body, refused, answer, limit))
                return
            except ModelError as error:
                if answer.has_text:
                    call.allow(self.timeout)  # for whoever has it go on
                    raise
                if answer.size is None and not answer.usage and error.status != 504:
                    answer.prompt = 0  # a request that was refused, or did not arrive, costs nothing
                call.deadline = max(call.deadline, deadline)  # an end shortens it
                if unsupported := [name for name in error.unsupported if name in self.substitutes and name not in refused]:
                    refused = (*refused, *unsupported)
                    continue
                if error.window is not None:
                    before, limit = limit, self._windows.learn(model, error.window, prompt, limit)
                    if limit < before:
                        continue
                if not pauses or not pause(call, error, pauses.pop(0)):
                    raise self.faults.of_options(error, options) from None

    def _answer(self, call, body, refused, answer, limit):
        """Send the request once, without what was refused, and yield the text of each batch of events, perhaps none."""
        for name in refused:
            if name in body:
                body[self.substitutes[name]] = body.pop(name)
        body.pop(None, None)  # what has no substitute
        headers = {"Accept": "text/event-stream", "Content-Type": "application/json"} | self.headers()
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
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
                    yield answer.text
                    answer.text = ""
                    if answer.over:
                        response.read_some(65536, 0.1)  # what is left of it, so that the connection can be kept
                        break
        except (ModelError, wire.Fault, *NOT_UNDERSTOOD) as failure:
            yield answer.text  # what came before it
            if not answer.reason:  # behind the end it is none
                raise self.faults.of(failure) from None
        length = answer.usage.get("output_tokens", answer.size if answer.has_text else limit)
        call.stop_reason, call.window_is_full = self.faults.check_end(answer.reason, answer.has_text, length >= limit)

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
