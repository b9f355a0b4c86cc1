"""Files with chats, for the page: ChatGPT's, Claude's, Parley's, and ZIPs; and the panel that
imports them.
"""

import io
import json
import uuid
import zipfile

HOUR = 3600
BEGAN = 1_700_000_000.5  # 2023-11-14T22:13:20Z


def node(role, *parts, parent=None, of="text", at=BEGAN, **message):
    """A node of ChatGPT's tree, without its id."""
    content = {"content_type": of, "parts": list(parts)}
    message = {"author": {"role": role}, "content": content, "create_time": at} | message
    return {"message": message, "parent": parent}


def chatgpt(*nodes, title="From ChatGPT", current="", **fields):
    """A conversation of ChatGPT's: `nodes` one after the other, or a mapping of them by their ids."""
    mapping = {"root": {"message": None, "parent": None}}
    if nodes and isinstance(nodes[0], dict) and "message" not in nodes[0]:
        mapping |= nodes[0]
    else:
        for number, each in enumerate(nodes):
            mapping[f"n{number}"] = each | {"parent": f"n{number - 1}" if number else "root"}
    identity = {"id": str(uuid.uuid4()), "title": title, "create_time": BEGAN}
    last = list(mapping)[-1] if current == "" else current
    return (
        identity | {"update_time": BEGAN + HOUR, "mapping": mapping, "current_node": last} | fields
    )


def said(sender, *texts, **fields):
    """A message of Claude's."""
    blocks = [{"type": "text", "text": text} for text in texts]
    return {"uuid": str(uuid.uuid4()), "sender": sender, "content": blocks, "text": ""} | fields


def claude(*messages, name="From Claude", **fields):
    """A conversation of Claude's."""
    times = {"created_at": "2025-07-03T15:16:39.445373Z", "updated_at": "2025-07-03T15:20:00.1Z"}
    identity = {"uuid": str(uuid.uuid4()), "name": name} | times
    return identity | {"chat_messages": list(messages)} | fields


def short_chat(number):
    """A conversation of ChatGPT's with a title of its own."""
    turns = node("user", f"Question {number}"), node("assistant", f"Answer {number}")
    return chatgpt(*turns, title=f"Chat {number}")


def lines(*values):
    """NDJSON."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    """A ZIP of these members, name → content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


# The panel


def open_panel(page):
    page.wait(lambda: page.titles or "No chats yet." in page.text("#app"), "there is no list")
    page.find("#account-button").click()
    page.wait(lambda: page.find("#account").is_displayed())


def choose(page, tmp_path, content, name="conversations.json"):
    """Choose a file with this content for the import, as the picker would."""
    (tmp_path / name).write_bytes(content)
    page.find("#file").send_keys(str(tmp_path / name))


def finish(page, sentence):
    """Wait until the work in progress ends with this sentence."""
    page.wait(
        lambda: (
            page.text("#transfer-status") == sentence
            and page.find("#transfer-buttons").get_attribute("hidden") is None
        ),
        f"{sentence!r} did not come",
    )


def import_all(page, tmp_path, content, sentence, name="conversations.json"):
    """Import a file with this content, to the end, which this sentence announces."""
    choose(page, tmp_path, content, name)
    page.wait(lambda: page.text("#transfer-status"))
    finish(page, sentence)


def chats(*numbers):
    """A file of ChatGPT's with these chats."""
    return json.dumps([short_chat(number) for number in numbers]).encode()


def sessions(page):
    return page.user.get("/sessions?page[limit]=100").json()["data"]
