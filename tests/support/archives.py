"""Conversations in the forms of ChatGPT's, Claude's and Open WebUI's exports, and what an import
makes of them.
"""

import json
import zipfile

DAY = 1_700_000_000  # 2023-11-14T22:13:20Z, in seconds
# What Claude's first message names as its parent.
NO_MESSAGE = "00000000-0000-4000-8000-000000000000"


# ChatGPT


def said(role, *parts, kind="text", at=None, **others):
    """A message. `others` are added next to its content, those of `metadata` to its metadata."""
    content = {"content_type": kind, "parts": list(parts)}
    return {"author": {"role": role}, "content": content, "create_time": at} | others


def of_kind(kind, role="assistant", metadata=None, **content):
    """A message whose content has no parts."""
    message = {"author": {"role": role}, "content": {"content_type": kind} | content}
    return message | {"metadata": metadata or {}}


def tree(*nodes):
    """A mapping of these (key, parent, message)."""
    root = ("root", None, None)
    return {
        key: {"id": key, "parent": parent, "message": message}
        for key, parent, message in (root, *nodes)
    }


def chain(*messages):
    """A mapping in which each message follows the one before: `m1`, `m2` and so on. (JavaScript
    would put keys that are numbers before all others.)"""
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

# An edited question, an answer that was written twice, and everything that an import leaves out.
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
        (
            "thought",
            "question",
            of_kind(
                "thoughts",
                thoughts=[{"summary": "Rivers", "content": "Hm."}, {"content": "Of what?"}],
            ),
        ),
        (
            "thought for",
            "thought",
            of_kind(
                "reasoning_recap",
                content="Thought for 5s",
                metadata={"finished_duration_sec": 5},
            ),
        ),
        ("first", "thought for", said("assistant", "I look it up.", at=DAY + 2)),
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
            "thinking": {"text": "**Rivers**\n\nHm.\n\nOf what?", "seconds": 5},
        },
        {"kind": "user", "content": "[image]"},
        {"kind": "user", "content": "What I have said.\n\nAnd written."},
    ],
}
# Images and files; tools; messages of other branches.
CHATGPT_LEFT_OUT = (2, 2, 3)


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


# An edited question, an attachment, and a tool; question and answer have the same time.
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
                {
                    "type": "thinking",
                    "thinking": "Deep?",
                    "summaries": [{"summary": "Depth"}],
                    "start_timestamp": "2024-03-01T09:00:04Z",
                    "stop_timestamp": "2024-03-01T09:00:05.5Z",
                },
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
            "thinking": {"text": "Deep?", "seconds": 1.5},
        },
    ],
}
CLAUDE_LEFT_OUT = (2, 2, 2)


# Open WebUI


def chatted(role, content="", *, parent=None, at=None, **others):
    """A message. Its id is its place in the history."""
    return {"parentId": parent, "role": role, "content": content, "timestamp": at} | others


def history(messages, current=None):
    """These messages by their ids, and the last one of the visible branch."""
    for key, message in messages.items():
        children = [other for other, each in messages.items() if each["parentId"] == key]
        message |= {"id": key, "childrenIds": children}
    return {"messages": messages, "currentId": current}


def openwebui(messages, current=None, **fields):
    """A conversation as `GET /api/v1/chats/all` of Open WebUI returns it, and as its page saves it."""
    chat = {"id": "", "title": "Seas", "models": ["qwen3:8b"], "params": {}, "messages": []}
    chat |= {"history": history(messages, current), "tags": [], "timestamp": DAY * 1000}
    outer = {"id": "w-1", "user_id": "me", "title": "Seas", "chat": chat, "share_id": None}
    outer |= {"archived": False, "pinned": False, "meta": {}, "folder_id": None}
    return outer | {"created_at": DAY, "updated_at": DAY + 60} | fields


def asked_of_openwebui(number, text="What is a sea?"):
    """A plain conversation, and the body of its import."""
    messages = {
        "1": chatted("user", f"{text} {number}", at=DAY),
        "2": chatted("assistant", "Much water.", parent="1", at=DAY + 1, model="qwen3:8b"),
    }
    body = {
        "origin": f"openwebui:w-{number}",
        "title": f"Seas {number}",
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": "2023-11-14T22:14:20Z",
        "turns": [
            {
                "kind": "user",
                "content": f"{text} {number}",
                "created_at": "2023-11-14T22:13:20Z",
            },
            {
                "kind": "assistant",
                "content": "Much water.",
                "created_at": "2023-11-14T22:13:21Z",
                "model": "qwen3:8b",
            },
        ],
    }
    return openwebui(messages, "2", id=f"w-{number}", title=f"Seas {number}"), body


THOUGHT = (
    '<details type="reasoning" done="true" duration="5">\n<summary>Thought for 5 seconds</summary>\n'
    "&gt; Salt &amp; water?\n&gt; \n&gt; &lt;b&gt;Deep&lt;/b&gt;.\n</details>"
)
CALLED = (
    '<details type="tool_calls" done="true" id="c" name="search" arguments="&quot;sea&quot;">\n'
    "<summary>Tool Executed</summary>\n&quot;Water&quot;\n</details>"
)
# Two models answered, and one question was edited. Thoughts and tools are in the text of an answer.
OPENWEBUI = openwebui(
    {
        "q": chatted("user", "What is a sae?", at=DAY + 1, models=["qwen3:8b", "gpt-oss"]),
        "a": chatted("assistant", "A sea?", parent="q", at=DAY + 1, model="qwen3:8b", modelIdx=0),
        "b": chatted("assistant", "A sage?", parent="q", at=DAY + 1, model="gpt-oss", modelIdx=1),
        "edited": chatted("user", "What is a sea?", at=DAY + 2),
        "c": chatted(
            "assistant",
            f"{THOUGHT}\nI look it up.\n\n{CALLED}\nMuch water.\n",
            parent="edited",
            at=DAY + 3,
            model="qwen3:8b",
            modelName="Qwen3",
            done=True,
            usage={"prompt_tokens": 5, "completion_tokens": 6},
        ),
        "image": chatted(
            "user",
            parent="c",
            at=DAY + 4,
            files=[{"type": "image", "url": "data:image/png;base64,iVBORw0KGgo="}],
        ),
        "newer": chatted(
            "assistant",
            "",
            parent="image",
            at=DAY + 5,
            model="gpt-oss",
            output=[
                {
                    "type": "reasoning",
                    "status": "completed",
                    "duration": 2,
                    "summary": [],
                    "content": [{"type": "output_text", "text": "A wave?"}],
                },
                {"type": "function_call", "call_id": "d", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "d", "output": []},
                {"type": "message", "content": [{"type": "output_text", "text": "A wave."}]},
            ],
        ),
    },
    "newer",
)
OPENWEBUI_BODY = {
    "origin": "openwebui:w-1",
    "title": "Seas",
    "created_at": "2023-11-14T22:13:20Z",
    "updated_at": "2023-11-14T22:14:20Z",
    "turns": [
        {"kind": "user", "content": "What is a sea?", "created_at": "2023-11-14T22:13:22Z"},
        {
            "kind": "assistant",
            "content": "I look it up.\n\nMuch water.",
            "created_at": "2023-11-14T22:13:23Z",
            "model": "qwen3:8b",
            "thinking": {"text": "Salt & water?\n\n<b>Deep</b>.", "seconds": 5},
        },
        {"kind": "user", "content": "[image]", "created_at": "2023-11-14T22:13:24Z"},
        {
            "kind": "assistant",
            "content": "A wave.",
            "created_at": "2023-11-14T22:13:25Z",
            "model": "gpt-oss",
            "thinking": {"text": "A wave?", "seconds": 2},
        },
    ],
}
OPENWEBUI_LEFT_OUT = (1, 2, 3)


# Files


def array(path, *conversations):
    path.write_text(json.dumps(list(conversations)))
    return path


def ndjson(path, *values):
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def packed(path, files, method=zipfile.ZIP_DEFLATED):
    """A ZIP of these files: name → text or bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
