"""A conversation of Open WebUI's export, whose format is known from its code: `chat.history` is a
tree of messages. Open WebUI shows the branch that ends at `currentId`.

In open-webui/open-webui, `src/lib/components/chat/Settings/DataControls.svelte` writes the file,
`backend/open_webui/models/chats.py` defines its contents, and `serialize_output` in
`backend/open_webui/utils/middleware.py` writes the blocks in an answer."""

import re
from typing import Any, NamedTuple

from formats.common import (
    ASSISTANT,
    LONGEST_THINKING,
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

# The text of an answer has blocks for thinking and tools: `<details type="reasoning" done="true"
# duration="5">`, a summary, and the thoughts as quoted lines. There is no `<` in an attribute.
OPENING = re.compile(
    r'<details type="(?P<type>reasoning|tool_calls|code_interpreter)"(?P<attributes>[^<>]*+)>'
)
CLOSING = "</details>"
DURATION = re.compile(r'duration="(\d{1,9}(?:\.\d{1,9})?)"', re.ASCII)
SUMMARY = re.compile(r"\s*<summary>[^<]*+</summary>\n?")
QUOTED = re.compile(r"^> ?", re.MULTILINE)
DATA = "data:"  # begins a URL that has the bytes in it (RFC 2397)
# Since 2025, thoughts are escaped by Python's `html.escape`.
ESCAPED = {"&gt;": ">", "&lt;": "<", "&quot;": '"', "&#x27;": "'", "&amp;": "&"}


class Answer(NamedTuple):
    """An answer: its text, its thinking, and how many tools it used."""

    text: str = ""
    thinking: str = ""
    seconds: float = 0
    tools: int = 0


def convert(data: dict[str, Any], uploaded: Uploaded) -> Conversation:
    """Raises Unreadable."""
    chat = part(data, "chat", dict) or data
    history = part(chat, "history", dict)
    written = objects_by_key(history, "messages")
    return conversation(
        "openwebui:" + id_of(data.get("id"), chat.get("id")),
        part(data, "title", str) or part(chat, "title", str),
        {name: time_of(data.get(name)) for name in ("created_at", "updated_at")},
        {key: read_message(key, message, uploaded) for key, message in written.items()},
        shown_branch(written, "parentId", part(history, "currentId", str)),
    )


def read_message(key: str, message: dict[str, Any], uploaded: Uploaded) -> Message:
    """What is imported of the message with this key."""
    role = message.get("role")
    created_at = time_of(message.get("timestamp"))
    files = [
        Attachment(
            part(each, "type", str) + part(each, "content_type", str), asset_of(each, key, place)
        )
        for place, each in enumerate(objects(message, "files"))
    ]
    # A message that a program sent to its API may be a list of parts.
    parts = [part(each, "text", str) for each in objects(message, "content")]
    content = part(message, "content", str) or joined(parts)
    if role == USER:
        pictures, left_out = taken(files, USER, uploaded)
        text = with_marks(content, left_out, USER)
        return Message(USER, text, pictures, created_at, files=len(left_out))
    if role != ASSISTANT:
        return Message()
    shown = read_content(content)
    # Newer releases have the same in this list as well, or only there.
    listed = read_output(objects(message, "output"))
    return Message(
        ASSISTANT,
        shown.text or listed.text,
        (),
        created_at,
        part(message, "model", str),
        shown.thinking or listed.thinking or part(message, "reasoning_content", str),
        shown.seconds or listed.seconds,
        files=len(files),
        tools=max(shown.tools, listed.tools),
    )


def asset_of(file: dict[str, Any], key: str, place: int) -> str:
    """The id of a file. If it has none, it is its URL; if that has the bytes themselves, the key of
    the message, and the file's place in it."""
    named = part(file, "id", str) or part(file, "url", str)
    return f"{key}/{place}" if named.startswith(DATA) else named


def data_urls(data: dict[str, Any]) -> dict[str, str]:
    """The URLs of images that have their bytes in them, by the ids of the images."""
    history = part(part(data, "chat", dict) or data, "history", dict)
    return {
        asset_of(file, key, place): file["url"]
        for key, message in objects_by_key(history, "messages").items()
        for place, file in enumerate(objects(message, "files"))
        if part(file, "url", str).startswith(DATA)
    }


def read_content(content: str) -> Answer:
    """The text of an answer, without the blocks in it."""
    texts, thoughts, seconds, tools, at = [], [], 0.0, 0, 0
    while opening := OPENING.search(content, at):
        end = content.find(CLOSING, opening.end())
        if end < 0:
            break
        texts.append(content[at : opening.start()].strip("\n"))
        at = end + len(CLOSING)
        if opening["type"] == "reasoning":
            thoughts.append(unquoted(content[opening.end() : end]))
            duration = DURATION.search(opening["attributes"])
            seconds += duration_of(float(duration[1])) if duration else 0
        else:
            tools += 1
    rest = content[at:]
    texts.append(rest.strip("\n") if at else rest)
    return Answer(joined(texts), joined(thoughts), seconds, tools)


def unquoted(block: str) -> str:
    """The thoughts in a block, up to the length that is kept."""
    summary = SUMMARY.match(block)
    thoughts = block[summary.end() if summary else 0 :].strip("\n")
    thoughts = thoughts[: 8 * LONGEST_THINKING]  # quotes and escapes make them six times as long
    if thoughts.startswith("&gt;"):
        for escaped, sign in ESCAPED.items():
            thoughts = thoughts.replace(escaped, sign)
    return QUOTED.sub("", thoughts)


def read_output(items: list[dict[str, Any]]) -> Answer:
    """An answer that is a list of items of OpenAI's Responses API."""
    texts, thoughts, seconds, tools = [], [], 0.0, 0
    for item in items:
        kind = item.get("type")
        if kind == "message":
            texts += [part(each, "text", str) for each in objects(item, "content")]
        elif kind == "reasoning":
            parts = objects(item, "summary") or objects(item, "content")
            thoughts.append("".join(part(each, "text", str) for each in parts))
            seconds += duration_of(item.get("duration"))
        elif kind != "function_call_output":  # its call is counted
            tools += 1
    return Answer(joined(texts), joined(thoughts), seconds, tools)
