"""A conversation of ChatGPT's export, as users have published its shape: a tree of messages, of
which the page shows the branch that ends at `current_node`."""

import re
from typing import Any

from upkeep.messages import (
    ASSISTANT,
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
    time_of,
)

TEXTS = ("text", "multimodal_text")  # content types; of the others, the next two are settings
CONTEXTS = ("user_editable_context", "model_editable_context")
HIDDEN = "is_visually_hidden_from_conversation"
TO_ALL = (None, "", "all")  # recipients; another one is a tool
TIMES = {"created_at": "create_time", "updated_at": "update_time"}
# `\ue200cite\ue202turn0search0\ue201`, of which the page makes a link; and
# `\ue200entity\ue202["city","Ulm"]\ue201`, of which it shows the name.
MARKER = re.compile("\ue200[^\ue200\ue201]*+\ue201")
ENTITY = re.compile(
    '\ue200entity\ue202\\["[^"]*","((?:[^"\\\\]|\\\\.)*+)"[^\ue200\ue201]*\ue201', re.DOTALL
)


def convert(data: dict[str, Any]) -> Conversation:
    """Raises Unreadable."""
    mapping = part(data, "mapping", dict)
    nodes = {key: node for key, node in mapping.items() if isinstance(node, dict)}
    parents = {key: part(node, "parent", str) or None for key, node in nodes.items()}
    messages = {key: read_message(part(node, "message", dict)) for key, node in nodes.items()}
    leaf = part(data, "current_node", str)
    if leaf not in nodes:
        leaf = (leaves_of(parents) or [leaf])[-1]
    return conversation(
        "chatgpt:" + id_of(data),
        part(data, "title", str),
        {
            "created_at": time_of(data.get("create_time")),
            "updated_at": time_of(data.get("update_time")),
        },
        messages,
        branch_to(leaf, parents),
    )


def id_of(data: dict[str, Any]) -> str:
    names = part(data, "id", str), part(data, "conversation_id", str)
    found = next((name for name in names if name.strip()), None)
    if found is None:
        raise Unreadable("It has no id.")
    return found


def read_message(message: dict[str, Any]) -> Message:
    """What is taken of a message. A role or a recipient that is no text is that of a tool."""
    metadata, content = part(message, "metadata", dict), part(message, "content", dict)
    role = part(message, "author", dict).get("role")
    kind = part(content, "content_type", str)
    if role in (None, "", "system") or kind in CONTEXTS or metadata.get(HIDDEN):
        return Message()
    is_said = role in (USER, ASSISTANT) and kind in TEXTS
    if not is_said or message.get("recipient") not in TO_ALL:
        return Message(tools=1)
    text, assets = read_parts(content)
    attached = read_attached(metadata)
    return Message(
        role,
        text or (mark_of(assets + attached) if role == USER else ""),
        time_of(message.get("create_time")),
        part(metadata, "model_slug", str) if role == ASSISTANT else "",
        # What was attached may be among the parts, too.
        files=max(len(assets), len(attached)),
    )


def read_attached(metadata: dict[str, Any]) -> list[str]:
    """The kinds of what was attached to a message."""
    return [part(each, "mime_type", str) for each in objects(metadata, "attachments")]


def read_parts(content: dict[str, Any]) -> tuple[str, list[str]]:
    """The text of a message, and the kinds of what else it has: images, sound, files."""
    texts, assets = [], []
    for each in part(content, "parts", list):
        if isinstance(each, str):
            texts.append(MARKER.sub("", ENTITY.sub(r"\1", each)))
        elif isinstance(each, dict):
            kind = part(each, "content_type", str)
            if kind == "audio_transcription":
                texts.append(part(each, "text", str))
            else:
                assets.append(kind)
    return joined(texts), assets
