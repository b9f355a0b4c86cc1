"""Conversations in the export files of other products, and of Parley: read one at a time, and
converted for an import.

archives ─► json_reader ─ the objects in a file, or in the files of a ZIP
convert  ─► chatgpt, claude, openwebui ─► common
"""

from collections.abc import Callable
from typing import Any

from formats import chatgpt, claude, openwebui
from formats.common import Conversation, LeftOut, Unreadable, id_of


def _convert_own(data: dict[str, Any]) -> Conversation:
    """A line of Parley's own export is the body of an import already."""
    return Conversation(data | {"origin": f"parley:{id_of(data.get('id'))}"}, LeftOut())


# Converters by a field that only conversations of their product have. The first match counts.
_CONVERTERS: dict[str, Callable[[dict[str, Any]], Conversation]] = {
    "turns": _convert_own,
    "mapping": chatgpt.convert,
    "chat_messages": claude.convert,
    "chat": openwebui.convert,
    "history": openwebui.convert,  # its exports of 2023
}


def convert(conversation: Any) -> Conversation:
    """The body of `POST /sessions/import` for one conversation, exactly as it is in an export of
    ChatGPT, Claude, Open WebUI or Parley, and what is left out of it. Does not change the
    conversation. Whatever that contains, raises nothing but Unreadable, and takes time in
    proportion to its size."""
    if isinstance(conversation, dict):
        for name, converter in _CONVERTERS.items():
            if name in conversation:
                return converter(conversation)
    raise Unreadable("This is not a conversation of ChatGPT, Claude, Open WebUI or Parley.")


def is_own(conversation: Any) -> bool:
    """Whether this is a line of Parley's own export."""
    return isinstance(conversation, dict) and "turns" in conversation


def title_of(conversation: Any) -> str:
    """The conversation's title, or ""."""
    if not isinstance(conversation, dict):
        return ""
    names = conversation.get("title"), conversation.get("name")
    return next((name for name in names if isinstance(name, str) and name.strip()), "")
