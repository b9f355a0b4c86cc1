"""A conversation of Claude's export, as users have published its shape: a list of messages. Where
some were edited, or answered again, they are a tree, and nothing says which branch was shown."""

import re
from collections.abc import Sequence
from typing import Any

from upkeep.messages import (
    ASSISTANT,
    FILE,
    USER,
    Conversation,
    Message,
    Unreadable,
    branch_to,
    conversation,
    joined,
    leaves_of,
    mark_of,
    objects,
    part,
    seconds_of,
    time_of,
)

KINDS = {"human": USER, "assistant": ASSISTANT}
TEXTS = ("text", "voice_note")  # types of blocks; the second is speech, written down
# What stands in the text of old messages for a block of another type.
NOT_SUPPORTED = re.compile(r"```\s*This block is not supported on your current device yet\.\s*```")
FILES = ("image", "document")  # types of blocks that the export has without their bytes
HIDDEN = ("injected_prompt_block", "token_budget", "summaries")  # which the page does not show


def convert(data: dict[str, Any]) -> Conversation:
    """Raises Unreadable."""
    found = part(data, "uuid", str)
    if not found.strip():
        raise Unreadable("It has no id.")
    written = objects(data, "chat_messages")
    return conversation(
        f"claude:{found}",
        part(data, "name", str),
        {name: time_of(data.get(name)) for name in ("created_at", "updated_at")},
        dict(enumerate(map(read_message, written))),
        find_branch(written, part(data, "current_leaf_message_uuid", str)),
    )


def find_branch(written: list[dict[str, Any]], shown: str) -> Sequence[int]:
    """Which of these messages are taken: all, or where there are branches, those of the one that
    ends at the message that was `shown`, or at the newest one. Raises Unreadable."""
    named = [part(message, "parent_message_uuid", str) for message in written]
    given = [name for name in named if name.strip()]
    if len(given) == len(set(given)):
        return range(len(written))
    ids = [part(message, "uuid", str) for message in written]
    indexes = {name: index for index, name in enumerate(ids) if name}
    parents = {index: indexes.get(name) for index, name in enumerate(named)}
    leaf = indexes.get(shown)
    if leaf is None:
        # A question and its answer may have the same time, so only leaves are compared.
        leaf = max(leaves_of(parents), key=lambda index: (moment(written[index]), index))
    return branch_to(leaf, parents)


def moment(message: dict[str, Any]) -> float:
    return seconds_of(message.get("created_at")) or 0


def read_message(message: dict[str, Any]) -> Message:
    """What is taken of a message."""
    kind = KINDS.get(part(message, "sender", str))
    if kind is None:
        return Message()
    blocks = objects(message, "content")
    types = [part(block, "type", str) for block in blocks]
    shown = [each for each in types if each in FILES]
    labels, files = read_files(message)
    text = joined(read_texts(message, blocks) + (labels if kind == USER else []))
    return Message(
        kind,
        text or (mark_of(shown) if kind == USER else ""),
        time_of(message.get("created_at")),
        files=files + len(shown),
        tools=sum(each not in (*TEXTS, *FILES, *HIDDEN) for each in types),
    )


def read_texts(message: dict[str, Any], blocks: list[dict[str, Any]]) -> list[str]:
    """What was said: in old messages without these blocks."""
    if not blocks:
        return [NOT_SUPPORTED.sub("", part(message, "text", str))]
    return [part(block, "text", str) for block in blocks if block.get("type") in TEXTS]


def read_files(message: dict[str, Any]) -> tuple[list[str], int]:
    """What stands in a text for its files, and how many of them the export does not have."""
    labels, missing = [], 0
    for each in objects(message, "attachments") + objects(message, "files"):
        name = part(each, "file_name", str)
        label = f"[file {name}]" if name.strip() else FILE
        content = part(each, "extracted_content", str)
        has_content = bool(content.strip())
        labels.append(f"{label}\n{content}" if has_content else label)
        missing += not has_content
    return labels, missing
