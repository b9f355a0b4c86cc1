"""Conversations as ChatGPT's and Claude's exports have them, and what an import of them has: for
readers of such files, whatever they are written in."""

import json
import zipfile

DAY = 1_700_000_000  # 2023-11-14T22:13:20Z, in seconds
NO_MESSAGE = (
    "00000000-0000-4000-8000-000000000000"  # what Claude's first message names as its parent
)


# ChatGPT


def said(role, *parts, kind="text", at=None, **others):
    """A message; what `others` has stands beside its content, and `metadata` among it."""
    content = {"content_type": kind, "parts": list(parts)}
    return {"author": {"role": role}, "content": content, "create_time": at} | others


def of_kind(kind, role="assistant", **content):
    """A message with another content than parts."""
    return {"author": {"role": role}, "content": {"content_type": kind} | content}


def tree(*nodes):
    """A mapping of these (key, parent, message)."""
    root = ("root", None, None)
    return {
        key: {"id": key, "parent": parent, "message": message}
        for key, parent, message in (root, *nodes)
    }


def chain(*messages):
    """A mapping in which each message follows the one before: `m1`, `m2` and so on. (JavaScript
    would have keys that are numbers before all others.)"""
    keys = ["root", *(f"m{number}" for number in range(1, len(messages) + 1))]
    return tree(*zip(keys[1:], keys, messages, strict=False))


def chatgpt(*messages, **fields):
    """A conversation of these messages, one after the other."""
    defaults = {"id": "c-1", "title": "Rivers", "mapping": chain(*messages)}
    return defaults | {"current_node": f"m{len(messages)}"} | fields


def asked_of_chatgpt(number, turns=2, text="What is a river?"):
    """A plain conversation, and the body of its import."""
    messages = [
        said(("user", "assistant")[index % 2], f"{text} {number} {index}", at=DAY + index)
        for index in range(turns)
    ]
    body = {
        "origin": f"chatgpt:c-{number}",
        "title": f"Rivers {number}",
        "turns": [
            {
                "kind": message["author"]["role"],
                "content": message["content"]["parts"][0],
                "created_at": f"2023-11-14T22:13:{20 + index}Z",
            }
            for index, message in enumerate(messages)
        ],
    }
    return chatgpt(*messages, id=f"c-{number}", title=f"Rivers {number}"), body


IMAGE = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1"}
SOUND = {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://file_2"}
SPOKEN = {"content_type": "audio_transcription", "text": "What I have said."}

# An edited question, an answer that was written twice, and all that is left out besides.
CHATGPT = {
    "id": "7d4f",
    "conversation_id": "7d4f",
    "title": "A river\u0000 and \ud83d its mouth",
    "create_time": DAY + 0.75,
    "update_time": DAY + 60.5,
    "current_node": "recap",
    "mapping": tree(
        ("hidden", "root", said("system", "")),
        ("context", "hidden", of_kind("user_editable_context", "user", user_profile="I row.")),
        ("greeting", "context", said("assistant", "Welcome.")),
        ("old question", "greeting", said("user", "What is a rivver?")),
        ("old answer", "old question", said("assistant", "Do you mean a river?")),
        ("question", "greeting", said("user", "What is a river?", at=DAY + 1.9)),
        ("thought", "question", of_kind("thoughts", thoughts=[{"content": "Hm."}])),
        ("first", "thought", said("assistant", "I look it up.", at=DAY + 2)),
        ("call", "first", said("assistant", "search(river)", recipient="web.run")),
        ("result", "call", said("tool", "Water that flows.")),
        ("bad", "result", said("assistant", "It is water.")),
        (
            "answer",
            "result",
            said(
                "assistant",
                "Water\ue200cite\ue202turn0search0\ue201 that flows.",
                at=DAY + 3,
                recipient="all",
                metadata={"model_slug": "gpt-4o"},
            ),
        ),
        (
            "unseen",
            "answer",
            said("user", "Be kind.", metadata={"is_visually_hidden_from_conversation": True}),
        ),
        ("image", "unseen", said("user", IMAGE, "", kind="multimodal_text", at=float("1e300"))),
        ("blank", "image", said("assistant", "  \n")),
        ("voice", "blank", said("user", SPOKEN, SOUND, "And written.", kind="multimodal_text")),
        ("recap", "voice", of_kind("reasoning_recap", content="Thought for 5 seconds")),
    ),
}
CHATGPT_BODY = {
    "origin": "chatgpt:7d4f",
    "title": "A river\ufffd and \ufffd its mouth",
    "created_at": "2023-11-14T22:13:20Z",
    "updated_at": "2023-11-14T22:14:20Z",
    "turns": [
        {"kind": "user", "content": "What is a river?", "created_at": "2023-11-14T22:13:21Z"},
        {
            "kind": "assistant",
            "content": "I look it up.\n\nWater that flows.",
            "created_at": "2023-11-14T22:13:22Z",
            "model": "gpt-4o",
        },
        {"kind": "user", "content": "[image]"},
        {"kind": "user", "content": "What I have said.\n\nAnd written."},
    ],
}
# Images and files; tools and thinking; messages of other branches.
CHATGPT_LEFT_OUT = (2, 4, 3)


# Claude


def wrote(sender, text="", *, uuid="", parent=None, at=None, **others):
    """A message, in which one block has the text, if there is any."""
    blocks = [{"type": "text", "text": text}] if text else []
    message = {"uuid": uuid, "sender": sender, "text": text, "content": blocks}
    return message | {"parent_message_uuid": parent, "created_at": at} | others


def claude(*messages, **fields):
    """A conversation of these messages."""
    return {"uuid": "u-1", "name": "Lakes", "chat_messages": list(messages)} | fields


def asked_of_claude(number, text="What is a lake?"):
    """A plain conversation, and the body of its import."""
    body = {
        "origin": f"claude:u-{number}",
        "title": f"Lakes {number}",
        "turns": [
            {"kind": "user", "content": f"{text} {number}"},
            {"kind": "assistant", "content": "Water that stands."},
        ],
    }
    messages = wrote("human", f"{text} {number}"), wrote("assistant", "Water that stands.")
    return claude(*messages, uuid=f"u-{number}", name=f"Lakes {number}"), body


# An edited question, what was attached, and a tool; question and answer have the same time.
CLAUDE = {
    "uuid": "9c1e",
    "name": "A lake",
    "summary": "**Lakes**",
    "account": {"uuid": "me"},
    "created_at": "2024-03-01T09:00:00.445373Z",
    "updated_at": "2024-03-01T11:30:00+02:00",
    "chat_messages": [
        wrote("human", "What is a lacke?", uuid="1", parent=NO_MESSAGE, at="2024-03-01T09:00:01Z"),
        wrote("assistant", "A lake?", uuid="2", parent="1", at="2024-03-01T09:00:02Z"),
        wrote(
            "human",
            "What is a lake?",
            uuid="3",
            parent=NO_MESSAGE,
            at="2024-03-01T09:00:03.9Z",
            attachments=[
                {"file_name": "notes.txt", "extracted_content": "Lakes are deep."},
                {"file_name": "data.bin", "extracted_content": ""},
            ],
            files=[{"file_uuid": "f", "file_name": "lake.png"}],
        ),
        {
            "uuid": "4",
            "sender": "assistant",
            "text": "```\nThis block is not supported on your current device yet.\n```",
            "content": [
                {"type": "thinking", "thinking": "Deep?"},
                {"type": "text", "text": "I read.", "citations": []},
                {"type": "tool_use", "name": "repl", "input": {}},
                {"type": "tool_result", "content": [{"type": "text", "text": "7"}]},
                {"type": "text", "text": "Water that stands."},
            ],
            "created_at": "2024-03-01T09:00:03.9Z",
            "attachments": [],
            "files": [],
            "parent_message_uuid": "3",
        },
    ],
}
CLAUDE_BODY = {
    "origin": "claude:9c1e",
    "title": "A lake",
    "created_at": "2024-03-01T09:00:00Z",
    "updated_at": "2024-03-01T09:30:00Z",
    "turns": [
        {
            "kind": "user",
            "content": "What is a lake?\n\n[file notes.txt]\nLakes are deep.\n\n[file data.bin]\n\n[file lake.png]",
            "created_at": "2024-03-01T09:00:03Z",
        },
        {
            "kind": "assistant",
            "content": "I read.\n\nWater that stands.",
            "created_at": "2024-03-01T09:00:03Z",
        },
    ],
}
CLAUDE_LEFT_OUT = (2, 3, 2)


# Files


def array(path, *conversations):
    path.write_text(json.dumps(list(conversations)))
    return path


def ndjson(path, *values):
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def packed(path, files, method=zipfile.ZIP_DEFLATED):
    """A ZIP of these: name → text or bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
