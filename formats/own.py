"""A line of Parley's own export, which is almost the body of an import."""

from typing import Any

from formats.common import (
    USER,
    Attachment,
    Conversation,
    LeftOut,
    Uploaded,
    id_of,
    part,
    taken,
    with_marks,
)


def convert(data: dict[str, Any], uploaded: Uploaded) -> Conversation:
    """Raises Unreadable. What else may be wrong with the line is left to the schema of an
    import."""
    body = data | {"origin": f"parley:{id_of(data.get('id'))}"}
    if not isinstance(data["turns"], list):
        return Conversation(body, LeftOut())
    turns, left_out = [], 0
    for turn in data["turns"]:
        if isinstance(turn, dict) and turn.get("kind") == USER and part(turn, "files", list):
            turn, count = with_uploaded(turn, uploaded)
            left_out += count
        turns.append(turn)
    return Conversation(body | {"turns": turns}, LeftOut(files=left_out))


def with_uploaded(turn: dict[str, Any], uploaded: Uploaded) -> tuple[dict[str, Any], int]:
    """This turn with the ids of its uploaded files, and how many others there were."""
    ids = [each.get("id") if isinstance(each, dict) else each for each in turn["files"]]
    images = [Attachment("image", each if isinstance(each, str) else "") for each in ids]
    pictures, left_out = taken(images, USER, uploaded)
    changes: dict[str, Any] = {"files": list(pictures)}
    if left_out and isinstance(turn.get("content"), str):
        changes["content"] = with_marks(turn["content"], left_out, USER)
    return turn | changes, len(left_out)
