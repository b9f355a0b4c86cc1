"""A conversation of Claude's export, whose format is known from what users have published: a list
of messages. If some were edited or answered again, they are a tree, and often nothing says which
branch was shown."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from formats.common import (
    ASSISTANT,
    FILE,
    USER,
    Attachment,
    Conversation,
    Message,
    Uploaded,
    branch_to,
    conversation,
    duration_of,
    id_of,
    joined,
    leaves_of,
    objects,
    part,
    seconds_of,
    taken,
    time_of,
    with_marks,
)

KINDS = {"human": USER, "assistant": ASSISTANT}
TEXTS = ("text", "voice_note")  # types of blocks; the second is transcribed speech
THINKING = "thinking"
# The text of old messages has this for a block of another type.
NOT_SUPPORTED = re.compile(r"```\s*This block is not supported on your current device yet\.\s*```")
FILES = ("image", "document")  # types of blocks that the export has without their bytes
HIDDEN = ("injected_prompt_block", "token_budget", "summaries")  # blocks that Claude does not show


def convert(data: dict[str, Any], uploaded: Uploaded) -> Conversation:
    """Raises Unreadable."""
    written = objects(data, "chat_messages")
    return conversation(
        "claude:" + id_of(data.get("uuid")),
        part(data, "name", str),
        {name: time_of(data.get(name)) for name in ("created_at", "updated_at")},
        {index: read_message(message, uploaded) for index, message in enumerate(written)},
        find_branch(written, part(data, "current_leaf_message_uuid", str)),
    )


def find_branch(written: list[dict[str, Any]], shown: str) -> Sequence[int]:
    """The indexes of the messages to import: all of them or, if there are branches, the branch that
    ends at the message with the id `shown`, or else at the newest. Raises Unreadable."""
    named = [part(message, "parent_message_uuid", str) for message in written]
    parent_ids = [name for name in named if name.strip()]
    if len(parent_ids) == len(set(parent_ids)):
        return range(len(written))
    ids = [part(message, "uuid", str) for message in written]
    indexes = {name: index for index, name in enumerate(ids) if name}
    parents = {index: indexes.get(name) for index, name in enumerate(named)}
    leaf = indexes.get(shown)
    if leaf is None:
        # A question and its answer may have the same time, so only leaves are compared.
        leaf = max(
            leaves_of(parents),
            key=lambda index: (seconds_of(written[index].get("created_at")) or 0, index),
        )
    return branch_to(leaf, parents)


def read_message(message: dict[str, Any], uploaded: Uploaded) -> Message:
    """What is imported of a message."""
    kind = KINDS.get(part(message, "sender", str))
    if kind is None:
        return Message()
    blocks = objects(message, "content")
    types = [part(block, "type", str) for block in blocks]
    thoughts = [block for block in blocks if block.get("type") == THINKING]
    shown = [attachment(block) for block in blocks if block.get("type") in FILES]
    named = objects(message, "attachments") + objects(message, "files")
    # The export has no images, but somebody may have them. One may be named twice.
    images = (each for each in [*shown, *map(attachment, named)] if each.is_image and each.asset)
    pictures, _ = taken(dict.fromkeys(images), kind, uploaded)

    def is_left_out(file: Attachment) -> bool:
        return uploaded.get(file.asset) not in pictures

    labels, files = read_files([each for each in named if is_left_out(attachment(each))])
    left_out = list(filter(is_left_out, shown))
    text = joined(read_texts(message, blocks) + (labels if kind == USER else []))
    return Message(
        kind,
        with_marks(text, left_out, kind),
        pictures,
        time_of(message.get("created_at")),
        thinking=joined(part(block, "thinking", str) for block in thoughts),
        seconds=sum(map(seconds_within, thoughts)),
        files=files + len(left_out),
        tools=sum(each not in (*TEXTS, THINKING, *FILES, *HIDDEN) for each in types),
    )


def attachment(file: dict[str, Any]) -> Attachment:
    """A block or an entry for a file. Nothing says of an entry whether it is an image."""
    return Attachment(part(file, "type", str) or "image", part(file, "file_uuid", str))


def seconds_within(block: dict[str, Any]) -> float:
    """How long it took to write this block; 0 if the block does not say."""
    start, stop = (seconds_of(block.get(f"{name}_timestamp")) for name in ("start", "stop"))
    return 0 if start is None or stop is None else duration_of(round(stop - start, 3))


def read_texts(message: dict[str, Any], blocks: list[dict[str, Any]]) -> list[str]:
    """The texts of a message. Old messages have no blocks, but one text."""
    if not blocks:
        return [NOT_SUPPORTED.sub("", part(message, "text", str))]
    return [part(block, "text", str) for block in blocks if block.get("type") in TEXTS]


def read_files(files: Iterable[dict[str, Any]]) -> tuple[list[str], int]:
    """The labels that a text gets for these files, and how many of them the export does not
    have."""
    labels, missing = [], 0
    for each in files:
        name = part(each, "file_name", str)
        label = f"[file {name}]" if name.strip() else FILE
        content = part(each, "extracted_content", str)
        has_content = bool(content.strip())
        labels.append(f"{label}\n{content}" if has_content else label)
        missing += not has_content
    return labels, missing
