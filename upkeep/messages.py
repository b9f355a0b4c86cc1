"""What ChatGPT's and Claude's exports have in common: messages that name the one before them, of
which one branch becomes the turns of a session."""

import datetime
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from wire import UNSTORABLE

USER, ASSISTANT = "user", "assistant"
IMAGE, FILE = "[image]", "[file]"  # the text of a user's message that had nothing else
LONGEST_NAME = 200  # characters of a title, or of a model
END_OF_TIMES = 253_402_300_800  # the year 10000, in seconds since 1970
# Without a zone, it is in UTC.
DATE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)

T = TypeVar("T", str, list, dict)
K = TypeVar("K", str, int)


class Unreadable(Exception):
    """A conversation that is passed over: it has no id, a circle, or no message of the user's. The
    text is a sentence that says which."""


class LeftOut(NamedTuple):
    """How much of a conversation is not taken."""

    files: int = 0  # and images
    tools: int = 0  # calls, results, code, thoughts
    branches: int = 0  # messages that are on another branch

    def plus(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(*map(sum, zip(self, other, strict=True)))


class Conversation(NamedTuple):
    """A conversation as the body of POST /sessions/import, and what was left out of it."""

    body: dict[str, Any]
    left_out: LeftOut


class Message(NamedTuple):
    """What is taken of a message; `files` and `tools` count what is not."""

    kind: str = ""
    text: str = ""
    created_at: str | None = None
    model: str = ""
    files: int = 0
    tools: int = 0

    @property
    def is_kept(self) -> bool:
        return bool(self.kind and self.text.strip())


def part(data: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """The value of this name, an empty one where there is none of this kind."""
    value = data.get(name)
    return value if isinstance(value, kind) else kind()


def objects(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in the list of this name."""
    return [each for each in part(data, name, list) if isinstance(each, dict)]


def mark_of(kinds: Sequence[str]) -> str:
    """The text of a user's message that has nothing but images and files of these kinds, if any."""
    if not kinds:
        return ""
    return IMAGE if any("image" in each for each in kinds) else FILE


def joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text.strip())


def time_of(moment: Any) -> str | None:
    """Seconds since 1970, or a time in RFC 3339, as RFC 3339; None where it is no such time."""
    seconds = moment if type(moment) in (int, float) else seconds_of(moment)
    if seconds is None or not 0 <= seconds < END_OF_TIMES:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of(text: Any) -> float | None:
    """The seconds since 1970 of a time in RFC 3339; None where it is no such time."""
    if not isinstance(text, str) or not DATE.fullmatch(text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def branch_to(leaf: K, parents: Mapping[K, K | None]) -> list[K]:
    """The keys from the first message to this one, by the key of the one before each. Raises
    Unreadable where they lead in a circle."""
    found: dict[K, None] = {}
    key: K | None = leaf
    while key in parents:
        if key in found:
            raise circle()
        found[key] = None
        key = parents[key]
    return [*found][::-1]


def leaves_of(parents: Mapping[K, K | None]) -> list[K]:
    """The keys of those messages behind which there is none. Raises Unreadable where behind each
    there is another one."""
    inner = set(parents.values())
    leaves = [key for key in parents if key not in inner]
    if parents and not leaves:
        raise circle()
    return leaves


def circle() -> Unreadable:
    return Unreadable("Its messages refer to each other in a circle.")


def conversation(
    origin: str,
    title: str,
    times: Mapping[str, str | None],
    messages: Mapping[K, Message],
    branch: Iterable[K],
) -> Conversation:
    """The conversation of this branch of all messages. Raises Unreadable where it has none of the
    user's."""
    on_branch = [messages[key] for key in branch]
    turns = turns_of([message for message in on_branch if message.is_kept])
    if not turns:
        raise Unreadable("It has no message of yours.")
    kept = sum(message.is_kept for message in messages.values())
    left_out = LeftOut(
        files=sum(message.files for message in on_branch),
        tools=sum(message.tools for message in on_branch),
        branches=kept - sum(message.is_kept for message in on_branch),
    )
    fields = {"title": storable(title)[:LONGEST_NAME] if title.strip() else None} | dict(times)
    body = {"origin": origin} | without_none(fields) | {"turns": turns}
    return Conversation(body, left_out)


def turns_of(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The turns of these messages, from the user's first one on. Neighbours of the assistant's are
    one turn."""
    runs: list[list[Message]] = []
    for message in messages:
        if runs and message.kind == runs[-1][0].kind == ASSISTANT:
            runs[-1].append(message)
        elif runs or message.kind == USER:
            runs.append([message])
    return [turn_of(run) for run in runs]


def turn_of(run: Sequence[Message]) -> dict[str, Any]:
    content = storable("\n\n".join(message.text for message in run))
    turn = {"kind": run[0].kind, "content": content, "created_at": run[0].created_at}
    model = storable(run[-1].model)[:LONGEST_NAME] if run[-1].model.strip() else None
    return without_none(turn | {"model": model})


def storable(text: str) -> str:
    return UNSTORABLE.sub("\ufffd", text)


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
