"""Shared by the formats of other products: messages with parents form a tree, of which one branch
becomes the turns of a session."""

import datetime
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from files import FILES_MAX, LEFT_OUT
from wire import storable

USER, ASSISTANT = "user", "assistant"
IMAGE, FILE = LEFT_OUT, "[file]"  # stand for images and files in a text
LONGEST_NAME = 200  # characters of a title, or of a model
LONGEST_THINKING = 262_144  # characters that are kept, as in `replies/thinking.py`
MOST_SECONDS = 10**9  # of thinking, as in `api/import_schema.py`
END_OF_TIMES = 253_402_300_800  # the year 10000, in seconds since 1970
# RFC 3339; without a zone, it is UTC.
DATE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)

# The ids of uploaded files, by the ids that an export gives to its images.
Uploaded = Mapping[str, str]

T = TypeVar("T", str, list, dict)
K = TypeVar("K", str, int)


class Unreadable(Exception):
    """A conversation that cannot be imported. The message says why."""


class LeftOut(NamedTuple):
    """Counts of what is not imported of a conversation."""

    files: int = 0  # images, sound and other files
    tools: int = 0  # tool calls, their results, and code that was run
    branches: int = 0  # messages on other branches

    def plus(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(*map(sum, zip(self, other, strict=True)))


class Conversation(NamedTuple):
    """A conversation as the body of POST /sessions/import, and what was left out of it."""

    body: dict[str, Any]
    left_out: LeftOut


class Attachment(NamedTuple):
    """An image or a file of a message."""

    kind: str  # such as "image_asset_pointer" or "image/png"
    asset: str = ""  # its id in the export; empty if it has none

    @property
    def is_image(self) -> bool:
        return "image" in self.kind


class Message(NamedTuple):
    """What is imported of a message. `files` and `tools` count what is not."""

    kind: str = ""  # USER or ASSISTANT; empty if nothing is imported
    text: str = ""
    pictures: tuple[str, ...] = ()  # the ids of uploaded files
    created_at: str | None = None
    model: str = ""
    thinking: str = ""
    seconds: float = 0  # of thinking; 0 if the file does not say
    files: int = 0
    tools: int = 0

    @property
    def is_said(self) -> bool:
        return bool(self.kind and (self.text.strip() or self.pictures))


def part(data: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """The value of this name, or an empty one if it is missing or has another type."""
    value = data.get(name)
    return value if isinstance(value, kind) else kind()


def objects(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in the list of this name."""
    return [each for each in part(data, name, list) if isinstance(each, dict)]


def id_of(*ids: Any) -> str:
    """The first of these that is a string and not blank. Raises Unreadable if there is none."""
    for each in ids:
        if isinstance(each, str) and each.strip():
            return each
    raise Unreadable("It has no id.")


def taken(
    attached: Iterable[Attachment], role: str, uploaded: Uploaded
) -> tuple[tuple[str, ...], list[Attachment]]:
    """The uploaded files of these attachments of a message, and the attachments that are left out.
    Only a user's message keeps images."""
    pictures: list[str] = []
    left_out = []
    for each in attached:
        file_id = uploaded.get(each.asset) if role == USER and each.is_image else None
        if file_id is None or len(pictures) == FILES_MAX:
            left_out.append(each)
        else:
            pictures.append(file_id)
    return tuple(pictures), left_out


def with_marks(text: str, left_out: Sequence[Attachment], role: str) -> str:
    """The text of a message without these of its attachments: `[image]` comes before it for each
    image. If a user's text would be empty, it is `[file]`."""
    images = [IMAGE for each in left_out if each.is_image]
    if role == USER and left_out and not images and not text.strip():
        return FILE
    return joined([*images, text])


def joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text.strip())


def time_of(moment: Any) -> str | None:
    """A time in the format of RFC 3339 with whole seconds, from such a time or from seconds since
    1970; None if it is neither."""
    seconds = moment if type(moment) in (int, float) else seconds_of(moment)
    if seconds is None or not 0 <= seconds < END_OF_TIMES:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of(text: Any) -> float | None:
    """Seconds since 1970 from a time in the format of RFC 3339; None if it is not one."""
    if not isinstance(text, str) or not DATE.fullmatch(text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def duration_of(value: Any) -> float:
    """This value if it is a possible number of seconds, else 0."""
    return value if type(value) in (int, float) and 0 <= value <= MOST_SECONDS else 0


def objects_by_key(data: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The objects in the object of this name, by their keys."""
    found = part(data, name, dict)
    return {key: each for key, each in found.items() if isinstance(each, dict)}


def shown_branch(nodes: Mapping[str, dict[str, Any]], parent: str, shown: str) -> list[str]:
    """The keys of the branch that ends at the node `shown`, or at the last leaf if there is no such
    node. The field named `parent` has the key of a node's parent. Raises Unreadable if nodes form a
    circle."""
    parents = {key: part(node, parent, str) or None for key, node in nodes.items()}
    return branch_to(shown if shown in nodes else (leaves_of(parents) or [shown])[-1], parents)


def branch_to(leaf: K, parents: Mapping[K, K | None]) -> list[K]:
    """The keys from the first message to this one, by the keys of their parents. Raises Unreadable
    if messages form a circle."""
    found: dict[K, None] = {}
    key: K | None = leaf
    while key in parents:
        if key in found:
            raise circle()
        found[key] = None
        key = parents[key]
    return [*found][::-1]


def leaves_of(parents: Mapping[K, K | None]) -> list[K]:
    """The keys of the messages without children. Raises Unreadable if each has one."""
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
    """The conversation with this branch of the messages. Raises Unreadable if the branch has no
    message of the user."""
    on_branch = [messages[key] for key in branch]
    turns = turns_of(on_branch)
    if not turns:
        raise Unreadable("It has no message of yours.")
    message_count = sum(message.is_said for message in messages.values())
    left_out = LeftOut(
        files=sum(message.files for message in on_branch),
        tools=sum(message.tools for message in on_branch),
        branches=message_count - sum(message.is_said for message in on_branch),
    )
    fields = {"title": storable(title)[:LONGEST_NAME] if title.strip() else None} | dict(times)
    return Conversation(
        {"origin": origin} | without_none(fields) | {"turns": turns},
        left_out,
    )


def turns_of(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The turns of these messages, from the first of the user on. Successive messages of the
    assistant become one turn, with all their thinking."""
    runs: list[list[Message]] = []
    for message in messages:
        is_assistants = message.kind == ASSISTANT
        if runs and is_assistants and runs[-1][0].kind == ASSISTANT:
            runs[-1].append(message)
        elif (runs and is_assistants) or (message.kind == USER and message.is_said):
            runs.append([message])
    return [
        turn
        for turn in map(turn_of, runs)
        if turn["content"] or "thinking" in turn or "files" in turn
    ]


def turn_of(run: Sequence[Message]) -> dict[str, Any]:
    content = storable(joined(message.text for message in run))
    times = (message.created_at for message in run if message.created_at)
    turn = {"kind": run[0].kind, "content": content, "created_at": next(times, None)}
    models = (message.model for message in reversed(run) if message.model.strip())
    turn["model"] = storable(next(models, ""))[:LONGEST_NAME] or None
    turn["files"] = [picture for message in run for picture in message.pictures] or None
    thinking = storable(joined(message.thinking for message in run))[:LONGEST_THINKING]
    if thinking:
        seconds = min(sum(message.seconds for message in run), MOST_SECONDS)
        turn["thinking"] = without_none({"text": thinking, "seconds": seconds or None})
        if not content:  # it was stopped while it was thinking
            turn["status"] = "interrupted"
    return without_none(turn)


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
