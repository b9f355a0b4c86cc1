"""What the failures of a provider mean: from a status, a body, an end or the wire to a ModelError,
by `faults.toml`."""

import dataclasses
import math
import re
import urllib.parse
from typing import Any

import wire
from logs import log
from providers.error_bodies import TABLES, Said, describe, unsupported
from providers.mask import Mask
from providers.quotations import Sent
from well_known import PORTS, service_at

ERROR_SIZE, ERROR_TIMEOUT = 65536, 10  # bytes of an error's body that are read; seconds for them
PROOF = 40  # characters of a refusal that names no number, by which it is known again
LONGEST = 500  # characters of a provider's words that are told
TELL = " Tell the person who runs this server."

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MEANINGS = {
    status: meaning for statuses, *meaning in TABLES["answer"]["meanings"] for status in statuses
}
_REASONS = {reason: meaning for meaning, reasons in TABLES["ends"].items() for reason in reasons}
_OPTIONS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in TABLES["options"].items()}


@dataclasses.dataclass(eq=False)
class ModelError(Exception):
    """The model gave no whole answer."""

    status: int  # HTTP's, that tells a client what kind of failure it was
    message: str  # what a client is told
    retry_after: float | None = None  # seconds
    pointer: str | None = None  # to what of the request is refused (RFC 6901)
    retryable: bool = False  # whether the same request may succeed a moment later
    unsupported: list[str] = dataclasses.field(default_factory=list)  # parameters that were refused
    refusal: str = ""  # the provider's own words, where the request was at fault
    # Tokens, where these have no room for prompt and answer together; 0 where none are named.
    window: int | None = None
    # The longest answer, in tokens, that the model or the account allows; 0 if it is not named.
    longest: int | None = None
    teaches: bool = False  # what it says of either is surely not taken from the request
    words: str = ""  # the provider's own, or the wire's, for the log
    # The model is there: it declined, or wrote no word.
    is_answer: bool = False
    # The server's credit is used up: whatever a header says, no other try helps.
    is_spent: bool = False

    def told(self, with_reason: bool = False) -> tuple[int, str, float | None, str | None]:
        """What a client is told, and what is stored: status, message, seconds, pointer. With the
        reason, it is for the person who runs the server."""
        message = str(self).replace(TELL, "") if with_reason else self.message
        return self.status, message, self.retry_after, self.pointer

    def __str__(self) -> str:
        return self.message if self.words in self.message else f"{self.message} {self.words}"


class Faults:
    """The failures of one provider. Its key, and the password of its URL, are taken out of what is
    told of them."""

    def __init__(self, name: str, key: str | None, url: str, setting: str = "") -> None:
        """`setting` is the name of the one that has the key."""
        self.name, self.url = name, url
        self._about_key = f"Is {setting} right?" if key else f"Set {setting}."
        userinfo = url.partition("//")[2].partition("/")[0].rpartition("@")[0]
        user, _, password = urllib.parse.unquote(userinfo).partition(":")
        self.mask = Mask(key, password or user, password and f"{user}:{password}")

    def error(self, status: int, text: str, words: str = "", **fields: Any) -> ModelError:
        words = wire.without_password(self.mask(words[:LONGEST]))  # a proxy may have one, too
        return ModelError(status, f"The provider {self.name} {text}", words=words, **fields)

    # The wire

    def of(self, failure: Exception) -> ModelError:
        """For a Fault of the wire, or what reading an answer raises."""
        if isinstance(failure, ModelError):
            return failure
        if not isinstance(failure, wire.Fault):
            failure = wire.Fault("odd", type(failure).__name__)
        status, retryable, text = TABLES["wire"][failure.kind]
        words = failure.detail
        if failure.reason in ("unknown_host", "proxy"):
            text = TABLES["wire"]["misconfigured"][2]  # to ask again does not help
        if advice := self._advice(failure.reason):
            if urllib.parse.urlsplit(self.url).hostname in _LOOPBACK:
                # Who talks to it may well be who runs it.
                text = f"could not be reached. {advice}"
            else:
                words = f"{advice} {words}"
        return self.error(status, text, words, retryable=retryable)

    def _advice(self, reason: str) -> str:
        """What can be done on this server about a connection that could not be made, where the wire
        knows why."""
        url = urllib.parse.urlsplit(self.url)
        host, port = url.hostname or "", url.port or PORTS[url.scheme or "http"]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if reason == "refused":
            return f"Nothing listens at {shown}. Start it there{_command_for(self.url)}."
        if reason == "proxy":
            return "That is the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY. Does it run?"
        if reason == "unknown_host":
            return f"The host {host} is not known. Is its name right?"
        if reason == "no_tls":
            return f"What listens at {shown} speaks no TLS. Is it http://?"
        return ""

    # What the provider says

    def of_response(self, response: wire.Response, request: Any = None) -> ModelError:
        """For a response that is no answer, to a request with this body."""
        body = wire.parse_json(response.read_some(ERROR_SIZE, ERROR_TIMEOUT))
        pause = wire.retry_after(response.headers)
        error = self._of_body(response.status, body, Sent(request), pause)
        if not error.is_spent:
            wish = response.headers.get("x-should-retry")
            error.retryable = {"true": True, "false": False}.get(wish or "", error.retryable)
        return error

    def in_stream(self, body: Any, request: Any = None) -> ModelError:
        """For an error within a stream, which has no status."""
        said, sent = describe(body), Sent(request)
        status = _status_of(said)
        if status == 500 and (said.says("unknown_model", sent) or said.says("key", sent)):
            status = 400
        return self._of_body(status, body, sent)

    def _of_body(
        self, status: int, body: Any, sent: Sent, pause: float | None = None
    ) -> ModelError:
        said = describe(body)
        message = self.mask(said.message)[:LONGEST] or f"status {status}"
        if overflow := _overflow(status, said, sent, message):
            return overflow
        if status in (400, 404, 422):
            if said.says("unknown_model", sent):
                text = f"has no such model: {message}. GET /models lists those there are."
                return self.error(400, text, pointer="/model")
            if said.says("key", sent):
                status = 401
        if status == 402 or said.says("spent", sent):
            text = TABLES["answer"]["spent"].format(sentence=_sentence(message))
            error = self.error(502, text, message, is_spent=True)
        elif status >= 500 and said.says("memory", sent):
            error = self.error(502, TABLES["answer"]["memory"], message)
        else:
            error = self._of_status(status, message, pause)
        if status in (400, 402, 416, 422) and (found := said.says("longest_answer", sent)):
            number = next(filter(None, found.groups()), "")
            error.longest = int(number or 0)
            # What an account can pay for changes with each answer.
            error.teaches = status != 402 and not sent.has(number or found[0][-PROOF:])
        if status in (400, 422):
            error.refusal, error.unsupported = message, unsupported(body, sent)
            if sent.has_parameter("thinking") and said.says("thinking", sent):
                error.unsupported.append("thinking")
        return error

    def _of_status(self, status: int, message: str, pause: float | None) -> ModelError:
        meaning = _MEANINGS.get(status) or _MEANINGS.get(status // 100)
        ours, retryable, text = meaning or TABLES["answer"]["other"]
        sentence, when = _sentence(message), _when(pause)
        text = text.format(status=status, message=message, sentence=sentence, when=when)
        if status in (401, 403):
            message = f"{self._about_key} {message}"
        return self.error(ours, text, message, retry_after=pause, retryable=retryable)

    def of_options(
        self, failure: ModelError, options: dict[str, Any], request: Any = None
    ) -> ModelError:
        """The failure of a request that had these options; it is the client's where the provider
        refused one of them."""
        sent = Sent(request)
        for option in options if failure.refusal else ():
            if option in failure.unsupported or sent.own(_OPTIONS[option], failure.refusal):
                text = f"refuses the option {option}: {failure.refusal}"
                return self.error(400, text, pointer=f"/options/{option}")
        return failure

    # The end of an answer

    def check_end(
        self, reason: str | None, has_text: bool, at_limit: bool, only_thoughts: bool = False
    ) -> tuple[str, bool]:
        """Raises ModelError where an answer that ended for this reason of the protocol, or for
        none, is not whole; returns our own word for the reason, and whether the model's window is
        full. `at_limit`: it is as long as we let it be. `only_thoughts`: there is nothing else of
        it."""
        meaning = self._meaning_of(reason, at_limit)
        if meaning == "broken":
            raise self.error(502, "cut its answer short. Ask again.", retryable=True)
        if meaning == "refused" or (meaning in ("limit", "window") and not has_text):
            status, text = TABLES["no_answer"][meaning]
            is_answer = meaning != "window"
            raise ModelError(status, text.format(reason=reason), is_answer=is_answer)
        if only_thoughts:
            status, text = TABLES["no_answer"]["thoughts"]
            raise ModelError(status, text, is_answer=True)
        return "length" if meaning in ("limit", "window") else "stop", meaning == "window"

    def _meaning_of(self, reason: str | None, at_limit: bool) -> str:
        """Under which name `faults.toml` has the reason; one that is not there is `whole`."""
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
    """A provider's words as a sentence that others can follow."""
    return message if message.endswith((".", "!", "?", "…")) else f"{message}."


def _when(pause: float | None) -> str:
    """When to ask again, where the provider wishes a pause of these seconds."""
    seconds = math.ceil(pause or 0)
    if not seconds:
        return "later"
    return f"in {seconds} second{'s' * (seconds != 1)}"


def _command_for(url: str) -> str:
    """How what is usually there is started, if that is known."""
    service = service_at(url)
    return f" by `{service.start}`" if service and service.start else ""


def _status_of(said: Said) -> int:
    """The status that the code, or the type, of an error within a stream stands for, else 500."""
    statuses = TABLES["in_stream"]
    if status := statuses.get(said.code) or statuses.get(said.kind):
        return status
    return int(said.code) if re.fullmatch("[3-5][0-9]{2}", said.code) else 500


def _overflow(status: int, said: Said, sent: Sent, message: str) -> ModelError | None:
    """The error of a prompt that does not fit the model's window, if it is that."""
    counted = said.says("counted", sent)
    is_overflow = counted or said.says("overflow", sent)
    if status != 413 and not (status in (400, 422, 500) and is_overflow):
        return None
    ours, text = TABLES["no_answer"]["window"]
    error = ModelError(ours, text, words=message)
    if counted:
        number = next(filter(None, counted.groups()), "")
        error.window = int(number or 0)
        error.teaches = not sent.has(number or counted[0][-PROOF:])
    return error
