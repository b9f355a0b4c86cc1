"""A conversation of ChatGPT's export, whose format is known from what users have published: a tree
of messages. ChatGPT shows the branch that ends at `current_node`."""

import re
from typing import Any

from formats.common import (
    ASSISTANT,
    USER,
    Attachment,
    Conversation,
    Message,
    Uploaded,
    conversation,
    duration_of,
    id_of,
    joined,
    objects,
    objects_by_key,
    part,
    shown_branch,
    taken,
    time_of,
    with_marks,
)

TEXTS = ("text", "multimodal_text")  # content types of messages
THOUGHTS = ("thoughts", "reasoning_recap")  # the second has the duration of the first
CONTEXTS = ("user_editable_context", "model_editable_context")  # settings
HIDDEN = "is_visually_hidden_from_conversation"
TO_ALL = (None, "", "all")  # recipients; any other is a tool
# ChatGPT shows `\ue200cite\ue202turn0search0\ue201` as a link, and of
# `\ue200entity\ue202["city","Ulm"]\ue201` the name.
MARKER = re.compile("\ue200[^\ue200\ue201]*+\ue201")
ENTITY = re.compile(
    '\ue200entity\ue202\\["[^"]*","((?:[^"\\\\]|\\\\.)*+)"[^\ue200\ue201]*\ue201', re.DOTALL
)


def convert(data: dict[str, Any], uploaded: Uploaded) -> Conversation:
    """Raises Unreadable."""
    nodes = objects_by_key(data, "mapping")
    return conversation(
        "chatgpt:" + id_of(data.get("id"), data.get("conversation_id")),
        part(data, "title", str),
        {
            "created_at": time_of(data.get("create_time")),
            "updated_at": time_of(data.get("update_time")),
        },
        {key: read_message(part(node, "message", dict), uploaded) for key, node in nodes.items()},
        shown_branch(nodes, "parent", part(data, "current_node", str)),
    )


def read_message(message: dict[str, Any], uploaded: Uploaded) -> Message:
    """What is imported of a message. A role or a recipient that is not a string is a tool's."""
    metadata, content = part(message, "metadata", dict), part(message, "content", dict)
    role = part(message, "author", dict).get("role")
    kind = part(content, "content_type", str)
    if role in (None, "", "system") or kind in CONTEXTS or metadata.get(HIDDEN):
        return Message()
    created_at = time_of(message.get("create_time"))
    if role == ASSISTANT and kind in THOUGHTS:
        return Message(
            ASSISTANT,
            created_at=created_at,
            thinking=joined(map(read_thought, objects(content, "thoughts"))),
            seconds=duration_of(metadata.get("finished_duration_sec")),
        )
    is_said = role in (USER, ASSISTANT) and kind in TEXTS
    if not is_said or message.get("recipient") not in TO_ALL:
        return Message(tools=1)
    text, assets = read_parts(content)
    attached = [
        Attachment(part(each, "mime_type", str), part(each, "id", str))
        for each in objects(metadata, "attachments")
    ]
    # Attachments may also be among the parts.
    pictures, left_out = taken(max(assets, attached, key=len), role, uploaded)
    return Message(
        role,
        with_marks(text, left_out, role),
        pictures,
        created_at,
        part(metadata, "model_slug", str) if role == ASSISTANT else "",
        files=len(left_out),
    )


def read_thought(thought: dict[str, Any]) -> str:
    """A thought with its headline, in Markdown, in the form of OpenAI's API."""
    headline = part(thought, "summary", str).strip()
    return joined([f"**{headline}**" if headline else "", part(thought, "content", str)])


def read_parts(content: dict[str, Any]) -> tuple[str, list[Attachment]]:
    """The text of a message, and its images, sound and files."""
    texts: list[str] = []
    assets: list[Attachment] = []
    for each in part(content, "parts", list):
        if isinstance(each, str):
            texts.append(MARKER.sub("", ENTITY.sub(r"\1", each)))
        elif isinstance(each, dict):
            kind = part(each, "content_type", str)
            if kind == "audio_transcription":
                texts.append(part(each, "text", str))
            else:
                assets.append(Attachment(kind, id_in(part(each, "asset_pointer", str))))
    return joined(texts), assets


def id_in(pointer: str) -> str:
    """The id in `file-service://file-AbC` (up to 2025) or `sediment://file_0123`. Attachments have
    it alone."""
    return pointer.rpartition("://")[2]
