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
    """This turn with its uploaded files, and how many others there were."""
    files = [each if isinstance(each, dict) else {"id": each} for each in turn["files"]]
    files = [each if isinstance(each.get("id"), str) else {"id": ""} for each in files]
    pictures, left_out = taken((Attachment("image", each["id"]) for each in files), USER, uploaded)
    known = [each for each in files if uploaded.get(each["id"]) is not None]
    # There are fewer pictures than known files if a message had too many.
    pairs = zip(known, pictures, strict=False)
    changes: dict[str, Any] = {"files": [each | {"id": file_id} for each, file_id in pairs]}
    if left_out and isinstance(turn.get("content"), str):
        changes["content"] = with_marks(turn["content"], left_out, USER)
    return turn | changes, len(left_out)
