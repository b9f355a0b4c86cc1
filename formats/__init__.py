"""Conversations in the export files of other products, and of Parley: read one at a time, and
converted for an import.

archives ─► json_reader ─ the objects in a file, or in the files of a ZIP, and the pictures there
convert  ─► own, chatgpt, claude, openwebui ─► common
"""

from collections.abc import Callable, Mapping
from typing import Any

from formats import chatgpt, claude, openwebui, own
from formats.common import Conversation, Unreadable, Uploaded

NOTHING: Uploaded = {}
# Converters by a field that only conversations of their product have. The first match counts.
_CONVERTERS: dict[str, Callable[[dict[str, Any], Uploaded], Conversation]] = {
    "turns": own.convert,
    "mapping": chatgpt.convert,
    "chat_messages": claude.convert,
    "chat": openwebui.convert,
    "history": openwebui.convert,  # its exports of 2023
}


def convert(conversation: Any, uploaded: Uploaded = NOTHING) -> Conversation:
    """The body of `POST /sessions/import` for one conversation, exactly as it is in an export of
    ChatGPT, Claude, Open WebUI or Parley, and what is left out of it. An image of the user that is
    not `uploaded` becomes `[image]`. Does not change the conversation. Whatever that contains,
    raises nothing but Unreadable, and takes time in proportion to its size."""
    if isinstance(conversation, dict):
        for name, converter in _CONVERTERS.items():
            if name in conversation:
                return converter(conversation, uploaded)
    raise Unreadable("This is not a conversation of ChatGPT, Claude, Open WebUI or Parley.")


class _Everything(dict[str, str]):
    """Has every id that is not empty, under itself."""

    def get(self, asset: str, default: Any = None) -> Any:
        return asset or default


def images_of(conversation: Any) -> list[str]:
    """The ids, in its export, of the images that a conversation keeps if they are all uploaded.
    Raises Unreadable."""
    turns = convert(conversation, _Everything()).body["turns"]
    if not isinstance(turns, list):
        return []
    lists = (turn.get("files") for turn in turns if isinstance(turn, dict))
    files = [each for some in lists if isinstance(some, list) for each in some]
    return list(dict.fromkeys(each["id"] if isinstance(each, dict) else each for each in files))


def images_within(conversation: Any) -> Mapping[str, str]:
    """The images whose bytes are in the conversation itself: `data:` URLs by their ids."""
    is_openwebui = isinstance(conversation, dict) and bool(
        {"chat", "history"} & conversation.keys()
    )
    return openwebui.data_urls(conversation) if is_openwebui else {}


def is_own(conversation: Any) -> bool:
    """Whether this is a line of Parley's own export."""
    return isinstance(conversation, dict) and "turns" in conversation


def title_of(conversation: Any) -> str:
    """The conversation's title, or ""."""
    if not isinstance(conversation, dict):
        return ""
    names = conversation.get("title"), conversation.get("name")
    return next((name for name in names if isinstance(name, str) and name.strip()), "")
