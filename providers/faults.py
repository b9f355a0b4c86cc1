"""Provider errors become ModelErrors: from a status, a body, the reason of an end, or a Fault of
`wire`, by the tables of `faults.toml`."""

import dataclasses
import math
import re
import urllib.parse
from typing import Any

import wire
from logs import log
from providers.error_bodies import TABLES, ErrorDetails, describe, unsupported
from providers.mask import Mask
from providers.options import OPTIONS
from well_known import PORTS, host_in_url, service_at

ERROR_SIZE, ERROR_TIMEOUT = 65536, 10  # bytes of an error's body that are read; seconds for them
SHOWN_MAX = 500  # characters of a provider's message that we show
TELL = " Tell the person who runs this server."

_NOT_OF_IMAGES = (401, 402, 403, 429)  # statuses of refusals that are not about images
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MEANINGS = {
    status: meaning for statuses, *meaning in TABLES["answer"]["meanings"] for status in statuses
}
_REASONS = {reason: meaning for meaning, reasons in TABLES["ends"].items() for reason in reasons}
_OPTIONS = {
    name: re.compile(option.refusal or rf"\b{name}\b", re.IGNORECASE)
    for name, option in OPTIONS.items()
}


@dataclasses.dataclass(eq=False)
class ModelError(Exception):
    """The model gave no complete answer."""

    status: int  # of our response
    message: str  # for the client
    retry_after: float | None = None  # seconds
    pointer: str | None = None  # to the part of the request that is refused (RFC 6901)
    retryable: bool = False  # the same request may succeed a moment later
    # The parameters that were refused, see `error_bodies.unsupported`.
    unsupported: dict[str, bool] = dataclasses.field(default_factory=dict)
    refusal: str = ""  # the provider's own words, if the request was at fault
    # The model's window in tokens, if prompt and answer together do not fit; 0 if it is not named.
    window: int | None = None
    # The longest answer, in tokens, that the model or the account allows; 0 if it is not named.
    longest: int | None = None
    words: str = ""  # of the provider, or of a Fault, for the log
    # The model has answered: it declined, or wrote nothing. The provider works.
    is_answer: bool = False
    # The connection broke, or was closed before the end of the answer.
    is_broken: bool = False
    # The server's credit is used up: no retry helps, whatever a header says.
    is_spent: bool = False
    # This may be about the images of the request, if it has any: without them, it may be answered.
    suspects_images: bool = False
    lists_nothing: bool = False  # the provider has no list of models at all
    sees_nothing: bool = False  # the provider says that the model sees no images

    def told(
        self, for_operator: bool = False
    ) -> tuple[int, str, float | None, str | None, str | None]:
        """What the client gets and the turn stores: status, message, seconds, pointer; and, for the
        person who runs the server, the reason in the provider's own words."""
        if not for_operator:
            return self.status, self.message, self.retry_after, self.pointer, None
        reason = None if self.words in self.message else self.words
        return self.status, self.message.replace(TELL, ""), self.retry_after, self.pointer, reason

    def __str__(self) -> str:
        return self.message if self.words in self.message else f"{self.message} {self.words}"


class Faults:
    """Makes the ModelErrors of one provider. Its key and the password in its URL are masked."""

    def __init__(self, name: str, key: str | None, url: str, setting: str = "") -> None:
        """`setting` is the name of the setting with the key."""
        self.name, self.url = name, url
        self._about_key = f"Is `{setting}` right?" if key else f"Set `{setting}`."
        userinfo = url.partition("//")[2].partition("/")[0].rpartition("@")[0]
        user, _, password = urllib.parse.unquote(userinfo).partition(":")
        self.mask = Mask(key, password or user, password and f"{user}:{password}")

    def error(self, status: int, text: str, words: str = "", **fields: Any) -> ModelError:
        words = wire.without_password(self.mask(words[:SHOWN_MAX]))  # a proxy may have one, too
        return ModelError(status, f"The provider {self.name} {text}", words=words, **fields)

    # Connections

    def of(self, failure: Exception) -> ModelError:
        """For a Fault of `wire`, or for what reading an answer raises."""
        if isinstance(failure, ModelError):
            return failure
        if not isinstance(failure, wire.Fault):
            failure = wire.Fault("odd", type(failure).__name__)
        status, retryable, text = TABLES["wire"][failure.kind]
        words = failure.detail
        if failure.reason in ("unknown_host", "proxy"):
            text = TABLES["wire"]["misconfigured"][2]  # another try does not help
        if advice := self._advice(failure.reason):
            if urllib.parse.urlsplit(self.url).hostname in _LOOPBACK:
                # The user of a local model is probably the person who runs this server.
                text = f"could not be reached. {advice}"
            else:
                words = f"{advice} {words}"
        is_cut = failure.kind == "broken" or (failure.kind == "unreachable" and not failure.reason)
        return self.error(status, text, words, retryable=retryable, is_broken=is_cut)

    def _advice(self, reason: str) -> str:
        """What the person who runs this server can do about a failed connection; empty if the
        reason is unknown."""
        url = urllib.parse.urlsplit(self.url)
        host, port = url.hostname or "", url.port or PORTS[url.scheme or "http"]
        shown = f"{host_in_url(host)}:{port}"
        if reason == "refused":
            return f"Nothing listens at {shown}. Start it there{_command_for(self.url)}."
        if reason == "proxy":
            return "That is the proxy of `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`. Does it run?"
        if reason == "unknown_host":
            return f"The host {host} is not known. Is its name right?"
        if reason == "no_tls":
            return f"What listens at {shown} speaks no TLS. Is it http://?"
        return ""

    # Responses

    def of_response(self, response: wire.Response) -> ModelError:
        """For a response with an error status."""
        body = wire.parse_json(response.read_some(ERROR_SIZE, ERROR_TIMEOUT))
        pause = wire.retry_after(response.headers)
        error = self._of_body(response.status, body, pause)
        if not (error.is_spent or error.sees_nothing):
            wish = response.headers.get("x-should-retry")
            error.retryable = {"true": True, "false": False}.get(wish or "", error.retryable)
        return error

    def in_stream(self, body: Any) -> ModelError:
        """For an error event in a stream, which has no status."""
        said = describe(body)
        status = _status_of(said)
        if status == 500 and (said.says("unknown_model") or said.says("key")):
            status = 400
        return self._of_body(status, body)

    def _of_body(self, status: int, body: Any, pause: float | None = None) -> ModelError:
        said = describe(body)
        may_be_of_images = status == 500 or (status // 100 == 4 and status not in _NOT_OF_IMAGES)
        sees_nothing = may_be_of_images and bool(said.says("no_vision"))
        is_of_images = sees_nothing or (may_be_of_images and bool(said.says("picture")))
        if is_of_images and status != 413:
            status = 400  # whatever it was: no retry helps, and the base URL is right
        error = self._meant(status, said, is_of_images, body, pause)
        error.sees_nothing = sees_nothing
        is_of_another = error.is_spent or error.pointer or said.says("context") or said.says("key")
        error.suspects_images = is_of_images or (may_be_of_images and not is_of_another)
        return error

    def _meant(
        self, status: int, said: ErrorDetails, is_of_images: bool, body: Any, pause: float | None
    ) -> ModelError:
        """The error that this status and these words mean. If they are about images, a provider may
        quote the messages in them, and what looks like another reason is none."""
        message = self.mask(said.message)[:SHOWN_MAX] or f"status {status}"
        if overflow := _overflow(status, said, is_of_images, message):
            return overflow
        if status in (400, 404, 422) and not is_of_images:
            if said.says("unknown_model"):
                text = f"has no such model: {message}. Choose one that `GET /models` lists."
                return self.error(400, text, pointer="/model")
            if said.says("key"):
                status = 401
        if status == 402 or (said.says("spent") and not is_of_images):
            text = TABLES["answer"]["spent"].format(sentence=_sentence(message))
            error = self.error(502, text, message, is_spent=True)
        elif status >= 500 and said.says("memory"):
            error = self.error(502, TABLES["answer"]["memory"], message)
        else:
            error = self._of_status(status, message, pause)
        if status in (400, 402, 416, 422) and (found := said.says("longest_answer")):
            error.longest = _number_in(found)
        if status in (400, 422):
            error.refusal, error.unsupported = message, unsupported(body)
            if said.says("thinking"):
                error.unsupported.setdefault("thinking", False)
        return error

    def _of_status(self, status: int, message: str, pause: float | None) -> ModelError:
        meaning = _MEANINGS.get(status) or _MEANINGS.get(status // 100)
        ours, retryable, text = meaning or TABLES["answer"]["other"]
        sentence, when = _sentence(message), _when(pause)
        text = text.format(status=status, message=message, sentence=sentence, when=when)
        if status in (401, 403):
            message = f"{self._about_key} {message}"
        return self.error(ours, text, message, retry_after=pause, retryable=retryable)

    def of_options(self, failure: ModelError, options: dict[str, Any]) -> ModelError:
        """The error to report for a request with these options: a 400 that points to the option, if
        the provider refused one of them."""
        for option in options if failure.refusal else ():
            if option in failure.unsupported or _OPTIONS[option].search(failure.refusal):
                text = f"refuses the option {option}: {failure.refusal}"
                return self.error(400, text, pointer=f"/options/{option}")
        return failure

    # The end of an answer

    def check_end(
        self, reason: str | None, has_text: bool, at_limit: bool, only_thoughts: bool = False
    ) -> tuple[str, bool]:
        """Our word for the protocol's reason why an answer ended, and whether the model's window is
        full. Raises ModelError if that reason, or None, means that the answer is not complete.
        `at_limit`: it is as long as we allowed. `only_thoughts`: it has thoughts and no text."""
        meaning = self._meaning_of(reason, at_limit)
        if meaning == "broken":
            text = "cut its answer short. Ask again."
            raise self.error(502, text, retryable=True, is_broken=True)
        is_empty = meaning in ("limit", "window") and not has_text
        if is_empty or meaning in ("refused", "tool"):
            status, text = TABLES["no_answer"][meaning]
            is_answer = meaning != "window"
            raise ModelError(status, text.format(reason=reason), is_answer=is_answer)
        if only_thoughts:
            status, text = TABLES["no_answer"]["thoughts"]
            raise ModelError(status, text, is_answer=True)
        return "length" if meaning in ("limit", "window") else "stop", meaning == "window"

    def _meaning_of(self, reason: str | None, at_limit: bool) -> str:
        """The row of `ends` in `faults.toml` that has this reason; `whole` if it is unknown."""
        if not reason:
            return "broken"
        meaning = _REASONS.get(reason.lower())
        if meaning == "limit" and not at_limit:
            return "window"
        if meaning is None:
            sentence = "The provider %s ended an answer for a reason that is not known: %r"
            log.warning(sentence, self.name, self.mask(reason[:100]))
        return meaning or "whole"


def _sentence(message: str) -> str:
    """A provider's words with a full stop, so that another sentence can follow."""
    return message if message.endswith((".", "!", "?", "…")) else f"{message}."


def _when(pause: float | None) -> str:
    """When to ask again, in words; the provider asks for a pause of these seconds."""
    seconds = math.ceil(pause or 0)
    if not seconds:
        return "later"
    return f"in {seconds} second{'s' * (seconds != 1)}"


def _command_for(url: str) -> str:
    """How what is usually there is started, if that is known."""
    service = service_at(url)
    return f" by `{service.start}`" if service and service.start else ""


def _status_of(said: ErrorDetails) -> int:
    """The status for the code or type of an error within a stream; 500 if it is unknown."""
    statuses = TABLES["in_stream"]
    if status := statuses.get(said.code) or statuses.get(said.kind):
        return status
    return int(said.code) if re.fullmatch("[3-5][0-9]{2}", said.code) else 500


def _overflow(
    status: int, said: ErrorDetails, is_of_images: bool, message: str
) -> ModelError | None:
    """The ModelError if the prompt does not fit the model's window, else None."""
    counted = said.says("counted")
    is_overflow = (counted or said.says("overflow")) and not is_of_images
    if status != 413 and not (status in (400, 422, 500) and is_overflow):
        return None
    ours, text = TABLES["no_answer"]["window"]
    error = ModelError(ours, text, words=message)
    if counted:
        error.window = _number_in(counted)
    return error


def _number_in(match: re.Match[str]) -> int:
    """The number in the group of a pattern of `faults.toml`; 0 if there is none."""
    return int(next(filter(None, match.groups()), 0))
